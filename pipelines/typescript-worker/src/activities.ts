// Activities that know nothing of pipelines: any Temporal workflow can call them.
import { randomUUID } from 'node:crypto';
import { mkdir, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { activityInfo, ApplicationFailure, heartbeat, sleep } from '@temporalio/activity';

interface Progress {
  done: number;
  total: number;
}

interface Booking {
  account: string;
  amount: number;
  reference: string;
}

const ledger = 'demo-ledger';

// Two positional arguments. Goes on after a retry from the last heartbeat.
async function count(items: number, milliseconds: number): Promise<{ counted: number; from: number }> {
  const last: Progress | undefined = activityInfo().heartbeatDetails;
  const from = last?.done ?? 0;
  for (let done = from; done < items; done++) {
    heartbeat({ done, total: items } satisfies Progress);
    await sleep(milliseconds); // fails when the activity is cancelled
  }
  return { counted: items, from };
}

// Repeating it changes nothing: the reference names the booking.
async function book({ account, amount, reference }: Booking): Promise<{ booking: string; balance: number }> {
  if (account.startsWith('closed')) {
    throw ApplicationFailure.nonRetryable(`the account ${account} is closed`, 'AccountClosed', { account });
  }
  const booking = join(ledger, fileName(reference));
  await mkdir(ledger, { recursive: true });
  const draft = `${booking}.${randomUUID()}`;
  await writeFile(draft, JSON.stringify({ account, amount }));
  await rename(draft, booking);
  return { booking, balance: -amount };
}

// Undoes a booking, whether it was made or not.
async function cancel({ reference }: { reference: string }): Promise<void> {
  await rm(join(ledger, fileName(reference)), { force: true });
}

// Undoes a step that another language's worker did. If there is no directory, there is nothing to undo.
async function withdraw({ directory }: { directory: string }): Promise<void> {
  try {
    await rm(directory, { recursive: true, force: true });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOTDIR') throw error;
  }
}

function fileName(reference: string): string {
  return `${encodeURIComponent(reference)}.json`;
}

export const activities = {
  'stock.count': count,
  'ledger.book': book,
  'ledger.cancel': cancel,
  'orders.withdraw': withdraw,
};
