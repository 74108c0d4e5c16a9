// Serves the activities, and no workflows, on a task queue of its own.
import { NativeConnection, Worker } from '@temporalio/worker';

import { activities } from './activities';

async function main(): Promise<void> {
  // npm runs scripts in the package's directory; relative paths refer to the directory of the user.
  process.chdir(process.env.INIT_CWD ?? '.');
  const connection = await NativeConnection.connect({ address: process.env.TEMPORAL_ADDRESS ?? 'localhost:7233' });
  try {
    const worker = await Worker.create({
      connection,
      namespace: process.env.TEMPORAL_NAMESPACE ?? 'default',
      taskQueue: process.env.TASK_QUEUE ?? 'orders-typescript',
      activities,
      maxHeartbeatThrottleInterval: '1s',
    });
    console.error(`serving the task queue ${worker.options.taskQueue}`);
    await worker.run(); // until SIGINT or SIGTERM
  } finally {
    await connection.close();
  }
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
