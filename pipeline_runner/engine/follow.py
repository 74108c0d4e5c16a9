"""Following a run: its history, and its children's, as a stream of what happened to steps.

Read from the server alone, so it works from any process, for any run, without a worker.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import EventType, PendingActivityState, PendingWorkflowTaskState
from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.workflow.v1 import PendingActivityInfo
from temporalio.api.workflowservice.v1 import DescribeWorkflowExecutionResponse
from temporalio.client import Client
from temporalio.service import RPCError

from pipeline_runner.core.model import Step
from pipeline_runner.core.paths import ROOT, Path
from pipeline_runner.engine.client import ANSWER, UnreachableError, unreachable
from pipeline_runner.engine.converting import json_of, message_of, readable
from pipeline_runner.engine.skipped import Outline, outline_of
from pipeline_runner.engine.workflow.interpreter import LOAD
from pipeline_runner.engine.workflow.outcomes import details_of

if TYPE_CHECKING:
    from pipeline_runner.core.state import Report

State = Literal["running", "waiting", "retrying", "completed", "failed", "cancelled", "skipped"]
End = Literal["completed", "failed", "cancelled", "terminated", "timed out"]

PATIENCE = 60.0
"""Seconds without an answer after which the server counts as gone."""

_POLL = 0.5
LYING = 3.0
"""Seconds after which a task that nobody has taken is told."""
_TAIL = 2.0
_CHILD_ENDS: tuple[Any, ...] = tuple(
    f"child_workflow_execution_{end}_event_attributes"
    for end in ("completed", "failed", "canceled", "terminated", "timed_out")
)


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Something happened to a step, or to its undo."""

    path: str
    """The step's path; a child's steps come after ``/``."""
    name: str
    state: State
    undo: bool = False
    attempt: int = 1
    since: float
    """Seconds since the start of the run."""
    elapsed: float | None = None
    """Seconds since the step was scheduled, when it has ended."""
    error: str | None = None
    details: Any = None
    """The last heartbeat's details, while it runs."""


@dataclass(frozen=True, kw_only=True)
class Connection:
    """The server went away, or came back."""

    lost: bool


@dataclass(frozen=True, kw_only=True)
class Unserved:
    """No worker takes the run, or a step, from its task queue."""

    queue: str


@dataclass(frozen=True, kw_only=True)
class Ended:
    """The run has ended."""

    state: End
    elapsed: float
    """Seconds since its start."""


Happening = Progress | Connection | Unserved | Ended


@dataclass
class _Item:
    path: Path
    """In the run that is followed."""
    shown: str
    """The path of the step, or of the step that is undone."""
    name: str
    undo: bool
    scheduled: datetime
    activity_id: str | None = None
    attempt: int = 1
    shown_attempt: int = 1
    queue: str = ""
    waits: bool = False


@dataclass
class _Watched:
    """One workflow run of the tree."""

    workflow_id: str
    run_id: str | None
    path: Path
    """Of the step whose child it is, in the run that is followed."""
    items: dict[int, _Item] = field(default_factory=dict)
    seen: int = 0
    outline: Outline | None = None


class Follower:
    """Merges what happens in a run and in its children into one stream."""

    def __init__(self, client: Client, workflow_id: str, run_id: str | None, *, wait: bool = True) -> None:
        """Follow the run of these ids, from its first event to its end.

        Args:
            client: The client.
            workflow_id: The run's.
            run_id: The run's; None: the newest of that workflow id.
            wait: Whether to wait for what has not happened yet; False: what has happened so far is all.
        """
        self._client = client
        self._wait = wait
        self._root = _Watched(workflow_id, run_id, ROOT)
        self._queue: asyncio.Queue[Happening | BaseException | None] = asyncio.Queue()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._watched: dict[str, _Watched] = {}
        self._lost = False
        self._begun: datetime | None = None
        self._unserved: set[str] = set()
        self.has_acted = False
        """Whether an activity or a child was scheduled: without one, nothing was done."""
        self.attempts: dict[str, int] = {}
        """Attempts of every undo by its path, once it has ended."""
        self.report: Report | None = None
        """The report of a run that has completed and is dirty all the same."""
        self.details: dict[str, Any] = {}
        """What the errors of failed undos carry beside their messages, by path."""

    @property
    def run_id(self) -> str | None:
        """The run id, after continue-as-new that of the newest run."""
        return self._root.run_id

    async def events(self) -> AsyncIterator[Happening]:
        """Yield what happens until the run has ended.

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

    def _start(self, key: str, watched: _Watched) -> None:
        async def run() -> None:
            try:
                await self._read(watched)
                # Children end before the run does, but their last events may still be on the way.
                if watched is self._root:
                    others = [task for task in self._tasks.values() if task is not asyncio.current_task()]
                    await asyncio.wait(others, timeout=_TAIL) if others else None
                    self._queue.put_nowait(None)
            except Exception as error:  # noqa: BLE001 - handed to whoever iterates
                # A child that cannot be read (its history is gone, say) is not shown further.
                if watched is self._root or not isinstance(error, RPCError):
                    self._queue.put_nowait(error)
            finally:
                self._watched.pop(key, None)

        self._watched[key] = watched
        self._tasks[key] = asyncio.create_task(run())

    async def _read(self, watched: _Watched) -> None:
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
                        if self._take(watched, await readable(self._client.data_converter, event)):
                            return
                if not self._wait and watched.run_id == run_id:
                    return
            except RPCError as error:
                if not unreachable(error):
                    raise
                await self._outage()

    async def _child_first(self, event: HistoryEvent) -> None:
        """Before a child's end is shown, have what happened in the child shown."""
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

    def _take(self, watched: _Watched, event: HistoryEvent) -> bool:
        """Turn one event into progress; return whether the workflow has ended."""
        kind = EventType.Name(event.event_type).removeprefix("EVENT_TYPE_")
        self._begun = self._begun or _time(event)
        handler = getattr(self, f"_on_{kind.lower()}", None)
        if handler is not None:
            handler(watched, event)
        elif (state := _STATES.get(kind)) is not None:
            self._finish(watched, event, getattr(event, f"{kind.lower()}_event_attributes"), state)
        if kind == "WORKFLOW_EXECUTION_CONTINUED_AS_NEW":
            watched.run_id = event.workflow_execution_continued_as_new_event_attributes.new_execution_run_id
            watched.seen = 0
            watched.items.clear()
            # The iteration over the old run ends by itself; the new one is read next.
            return False
        end = _ENDS.get(kind)
        if end == "completed" and watched.outline is not None:
            self._skip(watched, watched.outline.completed(), event)
        if end is not None and watched is self._root:
            self._queue.put_nowait(Ended(state=end, elapsed=self._since(_time(event))))
        return end is not None

    def _on_workflow_execution_started(self, watched: _Watched, event: HistoryEvent) -> None:
        attributes = event.workflow_execution_started_event_attributes
        self.has_acted |= bool(attributes.continued_execution_run_id)
        watched.outline = watched.outline or outline_of(attributes)

    # Activities

    def _on_activity_task_scheduled(self, watched: _Watched, event: HistoryEvent) -> None:
        attributes = event.activity_task_scheduled_event_attributes
        if attributes.activity_type.name == LOAD:
            return  # the run asks for its pipeline
        path = Path.of_id(attributes.activity_id)
        self._begin(watched, event, path, activity_id=attributes.activity_id)
        watched.items[event.event_id].queue = attributes.task_queue.name

    def _on_activity_task_started(self, watched: _Watched, event: HistoryEvent) -> None:
        attributes = event.activity_task_started_event_attributes
        item = watched.items.get(attributes.scheduled_event_id)
        if item is not None:
            item.attempt = attributes.attempt

    # Children

    def _on_start_child_workflow_execution_initiated(self, watched: _Watched, event: HistoryEvent) -> None:
        attributes = event.start_child_workflow_execution_initiated_event_attributes
        # The id tells the step only where its author has not chosen it.
        options = _decoded(attributes.input.payloads[2]) if len(attributes.input.payloads) > 2 else None
        step = options.get("step") if isinstance(options, dict) else None
        if isinstance(step, str):
            self._begin(watched, event, Path.of_id(step))
        else:
            self._begin(watched, event, Path.of_workflow_id(attributes.workflow_id, watched.workflow_id))

    def _on_child_workflow_execution_started(self, watched: _Watched, event: HistoryEvent) -> None:
        attributes = event.child_workflow_execution_started_event_attributes
        item = watched.items[attributes.initiated_event_id]
        execution = attributes.workflow_execution
        self._start(
            execution.workflow_id,
            _Watched(execution.workflow_id, execution.run_id, item.path),
        )

    # Timers

    def _on_timer_started(self, watched: _Watched, event: HistoryEvent) -> None:
        name = _summary(event)
        if name is not None and not name.startswith(("timeout of ", "retry of ")):
            self._skip_before(watched, name, event)
            item = _item(watched, Path.of(name), name, event)
            watched.items[event.event_id] = item
            self._emit(item, "waiting", _time(event))

    # What they share

    def _begin(
        self, watched: _Watched, event: HistoryEvent, path: Path, activity_id: str | None = None
    ) -> None:
        self.has_acted = True
        if not path.is_undo:
            self._skip_before(watched, str(path), event)
        name = _summary(event) or str(path.undone)
        if path.is_undo:
            name = name.removeprefix("undo ")
        item = watched.items[event.event_id] = _item(watched, path, name, event, activity_id)
        self._emit(item, "running", item.scheduled)

    def _finish(self, watched: _Watched, event: HistoryEvent, attributes: Any, state: State) -> None:
        begun = next(getattr(attributes, name) for name in _BEGINNINGS if hasattr(attributes, name))
        item = watched.items.pop(begun, None)
        if item is None:
            return
        failure: Failure | None = getattr(attributes, "failure", _ENDED_BY_SERVER.get(event.event_type))
        if item.undo and item.activity_id is not None:
            self.attempts[item.shown] = item.attempt
            if failure is not None:
                self.details[item.shown] = _details(failure)
        at = _time(event)
        elapsed = (at - item.scheduled).total_seconds()
        self._emit(item, state, at, elapsed=elapsed, error=None if failure is None else failure.message)

    def _emit(self, item: _Item, state: State, at: datetime, **more: Any) -> None:
        self._queue.put_nowait(
            Progress(
                path=item.shown,
                name=item.name,
                state=state,
                undo=item.undo,
                attempt=item.attempt,
                since=self._since(at),
                **more,
            )
        )

    def _since(self, at: datetime) -> float:
        return 0.0 if self._begun is None else max((at - self._begun).total_seconds(), 0.0)

    def _skip_before(self, watched: _Watched, trace: str, event: HistoryEvent) -> None:
        if watched.outline is not None:
            self._skip(watched, watched.outline.begun(trace), event)

    def _skip(self, watched: _Watched, steps: list[Step], event: HistoryEvent) -> None:
        for step in steps:
            # A name with a template in it was never rendered.
            name = step.id if step.name is None or "{" in step.name else step.name
            item = _item(watched, Path.of(step.id), name, event)
            self._emit(item, "skipped", item.scheduled)

    async def _poll_pending(self) -> None:
        """Report what leaves no events: retries, heartbeats, and what no worker takes."""
        while True:
            await asyncio.sleep(_POLL)
            for watched in list(self._watched.values()):
                try:
                    await self._poll_one(watched)
                except RPCError:
                    # The reader of the history deals with a server that is away.
                    continue

    async def _poll_one(self, watched: _Watched) -> None:
        handle = self._client.get_workflow_handle(watched.workflow_id, run_id=watched.run_id)
        described = await handle.describe(rpc_timeout=timedelta(seconds=ANSWER))
        self._look_for_worker(described.raw_description)
        items = {item.activity_id: item for item in watched.items.values() if item.activity_id}
        for pending in described.raw_description.pending_activities:
            item = items.get(pending.activity_id)
            if item is None:
                continue
            details = await json_of(self._client.data_converter, pending.heartbeat_details.payloads)
            item.attempt = max(pending.attempt, 1)
            now = datetime.now(UTC)
            if item.attempt > item.shown_attempt:
                item.shown_attempt = item.attempt
                message = await message_of(self._client.data_converter, pending.last_failure)
                self._emit(item, "retrying", now, error=message)
            elif not item.waits and _is_left_lying(pending, now):
                item.waits = True
                problem = f'no worker serves the task queue "{item.queue}"'
                self._emit(item, "waiting", now, error=problem)
                self._tell_unserved(item.queue)
            elif pending.state == PendingActivityState.PENDING_ACTIVITY_STATE_STARTED and details is not None:
                self._emit(item, "running", now, details=details)

    def _look_for_worker(self, described: DescribeWorkflowExecutionResponse) -> None:
        """Tell of a run that could go on, and that no worker takes."""
        if is_unserved(described, LYING):
            self._tell_unserved(described.execution_config.task_queue.name)

    def _tell_unserved(self, queue: str) -> None:
        if queue not in self._unserved:
            self._unserved.add(queue)
            self._queue.put_nowait(Unserved(queue=queue))


_STATES: dict[str, State] = {
    "ACTIVITY_TASK_COMPLETED": "completed",
    "ACTIVITY_TASK_FAILED": "failed",
    "ACTIVITY_TASK_TIMED_OUT": "failed",
    "ACTIVITY_TASK_CANCELED": "cancelled",
    "CHILD_WORKFLOW_EXECUTION_COMPLETED": "completed",
    "CHILD_WORKFLOW_EXECUTION_FAILED": "failed",
    "CHILD_WORKFLOW_EXECUTION_CANCELED": "cancelled",
    "CHILD_WORKFLOW_EXECUTION_TERMINATED": "failed",
    "CHILD_WORKFLOW_EXECUTION_TIMED_OUT": "failed",
    "TIMER_FIRED": "completed",
    "TIMER_CANCELED": "cancelled",
}
"""How a step has ended, by the event."""
_BEGINNINGS = ("scheduled_event_id", "initiated_event_id", "started_event_id")
"""Where an event has the number of the one that it ends; the last of them is a timer's."""
_ENDED_BY_SERVER = {
    EventType.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_TERMINATED: Failure(message="terminated"),
    EventType.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_TIMED_OUT: Failure(message="timed out"),
}
_ENDS: dict[str, End] = {
    "WORKFLOW_EXECUTION_COMPLETED": "completed",
    "WORKFLOW_EXECUTION_FAILED": "failed",
    "WORKFLOW_EXECUTION_CANCELED": "cancelled",
    "WORKFLOW_EXECUTION_TERMINATED": "terminated",
    "WORKFLOW_EXECUTION_TIMED_OUT": "timed out",
}


def is_unserved(described: DescribeWorkflowExecutionResponse, seconds: float) -> bool:
    """Tell whether a run could have gone on for so long, and no worker has taken it."""
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


def _item(
    watched: _Watched, path: Path, name: str, event: HistoryEvent, activity_id: str | None = None
) -> _Item:
    """Return what has begun in a run; its path is relative to that run."""
    return _Item(
        path=watched.path.child(path),
        shown=str(watched.path.child(path.undone)),
        name=name,
        undo=path.is_undo,
        scheduled=_time(event),
        activity_id=activity_id,
    )


def _time(event: HistoryEvent) -> datetime:
    return event.event_time.ToDatetime(UTC)


def _summary(event: HistoryEvent) -> str | None:
    summary = _decoded(event.user_metadata.summary) if event.HasField("user_metadata") else None
    return summary if isinstance(summary, str) and summary else None


def _decoded(payload: Payload) -> Any:
    try:
        return json.loads(payload.data) if payload.data else None
    except ValueError:
        # Encoded by a codec that this client does not have.
        return None


def _details(failure: Failure) -> Any:
    payloads = failure.application_failure_info.details.payloads
    return details_of([_decoded(payload) for payload in payloads])
