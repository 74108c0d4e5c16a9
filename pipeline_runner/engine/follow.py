"""Follows a run: its history, and its children's, as a stream of events about steps.

It reads only from the server, so it works from any process, for any run, without a worker.
"""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

from temporalio.api.enums.v1 import PendingActivityState, PendingWorkflowTaskState
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.workflow.v1 import PendingActivityInfo
from temporalio.api.workflowservice.v1 import DescribeWorkflowExecutionResponse
from temporalio.client import Client
from temporalio.service import RPCError

from pipeline_runner.engine.client import ANSWER, UnreachableError, unreachable
from pipeline_runner.engine.converting import json_of, message_of, readable
from pipeline_runner.engine.history.happenings import Connection, Happening, Unserved
from pipeline_runner.engine.history.reading import Item, Reader, Watched, has_ended

PATIENCE = 60.0
"""Seconds without an answer after which the server counts as unreachable."""

_POLL = 0.5
LYING = 3.0
"""Seconds after which an untaken task is reported."""
_TAIL = 2.0
_CHILD_ENDS: tuple[Any, ...] = tuple(
    f"child_workflow_execution_{end}_event_attributes"
    for end in ("completed", "failed", "canceled", "terminated", "timed_out")
)


class Follower:
    """Merges the events of a run and its children into one stream."""

    def __init__(
        self,
        client: Client,
        workflow_id: str,
        run_id: str | None,
        *,
        wait: bool = True,
        reader: Reader | None = None,
    ) -> None:
        """Follow the run with these ids, from its first event to its end.

        Args:
            client: The client.
            workflow_id: The run's workflow id.
            run_id: The run id; None: the newest run with that workflow id.
            wait: Whether to wait for further events; False: only those that have happened.
            reader: Reads the histories; None: a reader that keeps what a view needs.
        """
        self._client = client
        self._wait = wait
        self._queue: asyncio.Queue[Happening | BaseException | None] = asyncio.Queue()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._watched: dict[str, Watched] = {}
        self._lost = False
        self._unserved: set[str] = set()
        self.reader = reader or Reader(workflow_id, run_id)
        """The content of the histories so far."""
        self._root = self.reader.root

    @property
    def run_id(self) -> str | None:
        """The run id. After continue-as-new, it is that of the newest run."""
        return self._root.run_id

    async def events(self) -> AsyncIterator[Happening]:
        """Yield the events until the run has ended.

        Raises:
            UnreachableError: The server did not answer for a minute.
        """
        self._start("", self._root)
        polls = [asyncio.create_task(self._poll_pending())] if self._wait else []
        try:
            while (item := await self._queue.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            for task in (*polls, *self._tasks.values()):
                task.cancel()
            await asyncio.gather(*polls, *self._tasks.values(), return_exceptions=True)

    def _start(self, key: str, watched: Watched) -> None:
        async def run() -> None:
            try:
                await self._read(watched)
                # Children end before the run does, but their last events may still be on the way.
                if watched is self._root:
                    others = [task for task in self._tasks.values() if task is not asyncio.current_task()]
                    await asyncio.wait(others, timeout=_TAIL) if others else None
                    self._queue.put_nowait(None)
            except Exception as error:  # noqa: BLE001 - passed on to whoever iterates
                # A child that cannot be read, for example because its history is deleted, is not shown
                # further.
                if watched is self._root or not isinstance(error, RPCError):
                    self._queue.put_nowait(error)
            finally:
                # Another attempt of a child has the same id.
                if self._watched.get(key) is watched:
                    del self._watched[key]
                    _ = self._tasks.pop(key) if watched is not self._root else None

        self._watched[key] = watched
        self._tasks[key] = asyncio.create_task(run())

    async def _read(self, watched: Watched) -> None:
        """Read one history to its end, over outages and continue-as-new."""
        while True:
            run_id = watched.run_id
            handle = self._client.get_workflow_handle(watched.workflow_id, run_id=run_id)
            try:
                async for event in handle.fetch_history_events(wait_new_event=self._wait):
                    self._note(lost=False)
                    if event.event_id > watched.seen:
                        watched.seen = event.event_id
                        await self._child_first(event)
                        self._take(watched, await readable(self._client.data_converter, event))
                        if has_ended(event):
                            return
                if not self._wait and watched.run_id == run_id:
                    return
            except RPCError as error:
                if not unreachable(error):
                    raise
                await self._outage()

    def _take(self, watched: Watched, event: HistoryEvent) -> None:
        for told in self.reader.take(watched, event):
            if isinstance(told, Watched):
                self._start(told.workflow_id, told)
            else:
                self._queue.put_nowait(told)

    def _emit(self, item: Item, *args: Any, **more: Any) -> None:
        self._queue.put_nowait(self.reader.polled(item, *args, **more))

    async def _child_first(self, event: HistoryEvent) -> None:
        """Show the events of a child before its end."""
        for end in _CHILD_ENDS:
            if event.HasField(end):
                task = self._tasks.get(getattr(event, end).workflow_execution.workflow_id)
                if task is not None:
                    await asyncio.wait([task], timeout=_TAIL)

    async def _outage(self) -> None:
        self._note(lost=True)
        loop = asyncio.get_running_loop()
        end = loop.time() + PATIENCE
        while loop.time() < end:
            await asyncio.sleep(_POLL)
            try:
                async with asyncio.timeout(5):
                    await self._client.service_client.check_health()
            except (RPCError, TimeoutError):
                continue
            return
        raise UnreachableError(f"the Temporal server has not answered for {PATIENCE:g} s")

    def _note(self, *, lost: bool) -> None:
        if lost != self._lost:
            self._lost = lost
            self._queue.put_nowait(Connection(lost=lost))

    async def _poll_pending(self) -> None:
        """Report what leaves no events: retries, heartbeats, and untaken tasks."""
        while True:
            await asyncio.sleep(_POLL)
            for watched in list(self._watched.values()):
                try:
                    await self._poll_one(watched)
                except RPCError:
                    # The reader of the history handles an unreachable server.
                    continue

    async def _poll_one(self, watched: Watched) -> None:
        handle = self._client.get_workflow_handle(watched.workflow_id, run_id=watched.run_id)
        described = await handle.describe(rpc_timeout=timedelta(seconds=ANSWER))
        self._look_for_worker(described.raw_description)
        items = {item.activity_id: item for item in watched.items.values() if item.activity_id}
        for pending in described.raw_description.pending_activities:
            if (item := items.get(pending.activity_id)) is not None:
                await self._poll_activity(item, pending)

    async def _poll_activity(self, item: Item, pending: PendingActivityInfo) -> None:
        converter, now = self._client.data_converter, datetime.now(UTC)
        item.attempt = max(pending.attempt, 1)
        if item.attempt > item.shown_attempt:
            item.shown_attempt = item.attempt
            message = await message_of(converter, pending.last_failure)
            self._emit(item, "retrying", now, error=message, next_attempt=_until_next(pending, now))
        elif not item.waits and _is_left_lying(pending, now):
            item.waits = True
            self._emit(item, "waiting", now, error=f'no worker serves the task queue "{item.queue}"')
            self._tell_unserved(item.queue)
        elif pending.state == PendingActivityState.PENDING_ACTIVITY_STATE_STARTED:
            details = await json_of(converter, pending.heartbeat_details.payloads)
            if details is not None:
                self._emit(item, "running", now, details=details)
            else:
                self.reader.polled(item, "running", now)

    def _look_for_worker(self, described: DescribeWorkflowExecutionResponse) -> None:
        """Report a run that could continue, but that no worker takes."""
        if is_unserved(described, LYING):
            self._tell_unserved(described.execution_config.task_queue.name)

    def _tell_unserved(self, queue: str) -> None:
        if queue not in self._unserved:
            self._unserved.add(queue)
            self._queue.put_nowait(Unserved(queue=queue))


def is_unserved(described: DescribeWorkflowExecutionResponse, seconds: float) -> bool:
    """Tell whether a run could have continued for so long, and no worker has taken it."""
    task = described.pending_workflow_task
    if task.state != PendingWorkflowTaskState.PENDING_WORKFLOW_TASK_STATE_SCHEDULED:
        return False
    lies = datetime.now(UTC) - task.scheduled_time.ToDatetime(UTC)
    return lies.total_seconds() > seconds


def _is_left_lying(pending: PendingActivityInfo, now: datetime) -> bool:
    """Tell whether an activity could have been taken for some seconds, and was not."""
    if pending.state != PendingActivityState.PENDING_ACTIVITY_STATE_SCHEDULED:
        return False
    return (now - pending.scheduled_time.ToDatetime(UTC)).total_seconds() > LYING


def _until_next(pending: PendingActivityInfo, now: datetime) -> float | None:
    """Return the seconds until an activity's next attempt; None: it is running."""
    if not pending.HasField("next_attempt_schedule_time"):
        return None
    return max((pending.next_attempt_schedule_time.ToDatetime(UTC) - now).total_seconds(), 0.0)
