package example;

import static java.nio.charset.StandardCharsets.UTF_8;
import static java.nio.file.StandardCopyOption.ATOMIC_MOVE;

import io.temporal.activity.Activity;
import io.temporal.failure.ApplicationFailure;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.URLEncoder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;

/** Invoices that are files. */
final class InvoiceFiles implements Invoices {
  private static final Path DIRECTORY = Path.of("demo-invoices");
  private static final int LIMIT = 1000;

  @Override
  public Written write(Invoice given) {
    if (given.amount() > LIMIT) {
      String message = "%d is over the credit limit of %d".formatted(given.amount(), LIMIT);
      throw ApplicationFailure.newNonRetryableFailure(message, "CreditLimit", Map.of("limit", LIMIT));
    }
    Path invoice = path(given.key());
    try {
      Files.createDirectories(DIRECTORY);
      Path draft = Files.createTempFile(DIRECTORY, ".draft-", null);
      try {
        print(given, draft);
        Files.move(draft, invoice, ATOMIC_MOVE);
      } finally {
        Files.deleteIfExists(draft);
      }
    } catch (IOException problem) {
      throw new UncheckedIOException(problem);
    }
    return new Written(invoice.toString(), given.copies());
  }

  private static void print(Invoice given, Path draft) throws IOException {
    for (int done = 0; done < given.copies(); done++) {
      // Throws ActivityCanceledException once the step is cancelled: let it through.
      Activity.getExecutionContext().heartbeat(new Progress(done, given.copies(), "pages"));
      pause(20);
    }
    Files.writeString(draft, "%s owes %d%n".formatted(given.order(), given.amount()));
  }

  @Override
  public void withdraw(Key given) {
    try {
      Files.deleteIfExists(path(given.key()));
    } catch (IOException problem) {
      throw new UncheckedIOException(problem);
    }
  }

  private static Path path(String key) {
    return DIRECTORY.resolve(URLEncoder.encode(key, UTF_8) + ".txt");
  }

  private static void pause(long milliseconds) {
    try {
      Thread.sleep(milliseconds);
    } catch (InterruptedException stopped) {
      Thread.currentThread().interrupt(); // the worker is shut down: the next heartbeat says so
    }
  }
}
