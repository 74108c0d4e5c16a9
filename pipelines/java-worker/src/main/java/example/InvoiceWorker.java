package example;

import io.temporal.client.WorkflowClient;
import io.temporal.client.WorkflowClientOptions;
import io.temporal.serviceclient.WorkflowServiceStubs;
import io.temporal.serviceclient.WorkflowServiceStubsOptions;
import io.temporal.worker.Worker;
import io.temporal.worker.WorkerFactory;
import io.temporal.worker.WorkerOptions;
import java.time.Duration;

/**
 * Serves the activities, and no workflows, on a task queue of its own. With the arguments "report
 * ID" it prints the report of a run instead.
 */
public final class InvoiceWorker {
  private InvoiceWorker() {}

  public static void main(String[] args) {
    WorkflowServiceStubs service =
        WorkflowServiceStubs.newConnectedServiceStubs(
            WorkflowServiceStubsOptions.newBuilder()
                .setTarget(setting("TEMPORAL_ADDRESS", "localhost:7233"))
                .build(),
            Duration.ofSeconds(10));
    WorkflowClient client =
        WorkflowClient.newInstance(
            service,
            WorkflowClientOptions.newBuilder()
                .setNamespace(setting("TEMPORAL_NAMESPACE", "default"))
                .build());
    if (args.length == 2 && args[0].equals("report")) {
      System.out.println(Reports.of(client, args[1]));
      service.shutdownNow();
      return;
    }
    WorkerFactory factory = WorkerFactory.newInstance(client);
    String queue = setting("TASK_QUEUE", "invoices-java");
    Worker worker =
        factory.newWorker(
            queue,
            WorkerOptions.newBuilder()
                // A cancellation comes with the answer to a heartbeat.
                .setMaxHeartbeatThrottleInterval(Duration.ofSeconds(1))
                .build());
    worker.registerActivitiesImplementations(new InvoiceFiles());
    Runtime.getRuntime()
        .addShutdownHook(
            new Thread(
                () -> {
                  factory.shutdownNow();
                  service.shutdownNow();
                }));
    factory.start();
    System.err.println("serving the task queue " + queue);
  }

  private static String setting(String name, String otherwise) {
    return System.getenv().getOrDefault(name, otherwise);
  }
}
