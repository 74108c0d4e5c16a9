package example;

import io.temporal.activity.ActivityInterface;
import io.temporal.activity.ActivityMethod;

/** The activities, with the names that pipelines call them by. */
@ActivityInterface
public interface Invoices {
  /** The step's {@code with}: one mapping, one object. */
  record Invoice(String key, String order, int amount, int copies) {}

  /** The step's output. */
  record Written(String invoice, int pages) {}

  /** What the live view shows as a bar. */
  record Progress(int done, int total, String unit) {}

  /** The {@code with} of an undo. */
  record Key(String key) {}

  /** Writes an invoice. Repeating it changes nothing: the key names the invoice. */
  @ActivityMethod(name = "invoice.write")
  Written write(Invoice given);

  /** Undoes it, whether there is an invoice or not. It has no result: the step's output is null. */
  @ActivityMethod(name = "invoice.withdraw")
  void withdraw(Key given);
}
