package example;

import com.fasterxml.jackson.annotation.JsonIgnoreProperties;
import io.temporal.client.WorkflowClient;
import io.temporal.client.WorkflowFailedException;
import io.temporal.failure.ApplicationFailure;
import java.util.List;

/** Reads what a failed run says of its undo. */
final class Reports {
  private Reports() {}

  /** Keys that are false, empty or null are left out of the JSON. */
  @JsonIgnoreProperties(ignoreUnknown = true)
  record Report(String status, boolean dirty, List<Undo> undo) {}

  @JsonIgnoreProperties(ignoreUnknown = true)
  record Undo(String path, String state) {}

  /** Waits for the end of a run. A run that did not fail has no report: null. */
  static Report of(WorkflowClient client, String workflowId) {
    try {
      client.newUntypedWorkflowStub(workflowId).getResult(Object.class);
      return null;
    } catch (WorkflowFailedException failed) {
      if (failed.getCause() instanceof ApplicationFailure cause) {
        return cause.getDetails().get(0, Report.class);
      }
      throw failed; // cancelled, or terminated
    }
  }
}
