"""What the events of histories say about the steps of a run. Pure: it asks no server."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import EventType, TimeoutType
from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import HistoryEvent, WorkflowExecutionStartedEventAttributes

from pipeline_runner.core.model import Pipeline
from pipeline_runner.core.paths import ROOT, Path
from pipeline_runner.core.state import REPORT_MEMO, WAITING_MEMO, Continuation, Report, ScopeLog
from pipeline_runner.engine.history.happenings import End, Ended, Happening, Progress, State
from pipeline_runner.engine.history.node import Node, NodeState
from pipeline_runner.engine.history.plan import pipeline_in
from pipeline_runner.engine.history.sizes import Sizes
from pipeline_runner.engine.history.tree import Error, Tree, counts_around
from pipeline_runner.engine.workflow.interpreter import LOAD
from pipeline_runner.engine.workflow.outcomes import details_of


@dataclass
class Item:
    """Something in a run that has begun and has not ended."""

    path: Path
    """In the run that is followed."""
    shown: str
    """The path of the step, or of the step that is undone."""
    name: str
    undo: bool
    scheduled: datetime
    node: Node
    activity_id: str | None = None
    attempt: int = 1
    maximum_attempts: int | None = None
    shown_attempt: int = 1
    queue: str = ""
    waits: bool = False
    """Whether it was told that no worker takes it."""


@dataclass
class Watched:
    """One workflow run of the tree."""

    workflow_id: str
    run_id: str | None
    path: Path
    """Of the step whose child it is, in the run that is followed."""
    node: Node
    items: dict[int, Item] = field(default_factory=dict)
    waits: dict[str, Item] = field(default_factory=dict)
    """What waits for something that comes from outside, by its path in this run."""
    seen: int = 0
    given: Any = None
    """Its inputs, until its pipeline is known."""
    sizes: Sizes = field(default_factory=lambda: Sizes(None, None))


class Reader:
    """Turns the events of a run, and of its children, into what happens."""

    def __init__(self, workflow_id: str, run_id: str | None) -> None:
        """Begin with a run that has done nothing yet."""
        self.tree = Tree()
        self.root: Final = Watched(workflow_id, run_id, ROOT, self.tree.root)
        """The run that is followed."""
        self._begun: datetime | None = None
        self._told: list[Happening | Watched] = []
        self.has_acted = False
        """Whether an activity or a child was scheduled: without one, nothing was done."""
        self.attempts: dict[str, int] = {}
        """Attempts of every undo by its path, once it has ended."""
        self.details: dict[str, Any] = {}
        """What the errors of failed undos carry beside their messages, by path."""
        self.report: Report | None = None
        """The report of a run that has completed and is dirty all the same."""

    def take(self, watched: Watched, event: HistoryEvent) -> list[Happening | Watched]:
        """Return what one event says; a :class:`Watched` among it is a child that has started.

        Args:
            watched: The run whose event it is.
            event: The event, decoded.
        """
        kind = _kind(event)
        self._begun = self._begun or time_of(event)
        handler = getattr(self, f"_on_{kind.lower()}", None)
        if handler is not None:
            handler(watched, event)
        elif (state := _STATES.get(kind)) is not None:
            self._finish(watched, event, getattr(event, f"{kind.lower()}_event_attributes"), state)
        elif (end := _ENDS.get(kind)) is not None:
            self._end(watched, event, end)
        told, self._told = self._told, []
        return told

    def progress(self, item: Item, state: State, at: datetime, **more: Any) -> Progress:
        """Return what has become of something that has begun; ``more``: further fields."""
        return Progress(
            path=item.shown,
            name=item.name,
            state=state,
            undo=item.undo,
            attempt=item.attempt,
            maximum_attempts=item.maximum_attempts,
            since=self._since(at),
            counts=counts_around(item.node),
            **more,
        )

    def polled(self, item: Item, state: State, at: datetime, **more: Any) -> Progress:
        """Take something that leaves no event, and return it; ``more``: further fields."""
        told = self.progress(item, state, at, **more)
        after = told.next_attempt
        self.tree.change(
            item.node,
            state,
            at,
            attempt=item.attempt,
            maximum_attempts=item.maximum_attempts,
            error=told.error if state != "running" else None,
            details=told.details,
            next_attempt=None if after is None else at + timedelta(seconds=after),
        )
        return told

    def _emit(self, item: Item, state: State, at: datetime, **more: Any) -> None:
        self._told.append(self.progress(item, state, at, **more))

    def _tell_scopes(self, at: datetime) -> None:
        """Tell what has turned out to be skipped, and which loops with many items have ended."""
        for node in self.tree.skipped:
            self._told.append(self._of_scope(node, "skipped", at))
        for loop in self.tree.counted:
            elapsed = (at - (loop.begun or at)).total_seconds()
            state: State = loop.state if loop.state in ("failed", "cancelled") else "completed"
            self._told.append(self._of_scope(loop, state, at, elapsed=elapsed, counts=loop.counts()))
        self.tree.skipped, self.tree.counted = [], []

    def _of_scope(self, node: Node, state: State, at: datetime, **more: Any) -> Progress:
        more.setdefault("counts", counts_around(node))
        return Progress(path=str(node.path), name=node.name, state=state, since=self._since(at), **more)

    def _since(self, at: datetime) -> float:
        return 0.0 if self._begun is None else max((at - self._begun).total_seconds(), 0.0)

    # The run itself

    def _on_workflow_execution_started(self, watched: Watched, event: HistoryEvent) -> None:
        attributes = event.workflow_execution_started_event_attributes
        self.has_acted |= bool(attributes.continued_execution_run_id)
        payloads = attributes.input.payloads
        state = _state_before(attributes)
        if state is None:
            watched.given = _decoded_first(payloads)
        bundle = payloads[1].data if len(payloads) > 1 else b""
        self._open(watched, pipeline_in(bundle), state)

    def _on_marker_recorded(self, watched: Watched, event: HistoryEvent) -> None:
        """Take the pipeline that a worker has given by its name."""
        details = event.marker_recorded_event_attributes.details
        data, result = (_decoded_first(details[key].payloads) for key in ("data", "result"))
        if isinstance(data, dict) and data.get("activity_type") == LOAD and isinstance(result, dict):
            served = result.get("bundle", result)
            self._open(watched, pipeline_in(json.dumps(served).encode()), None)

    def _open(self, watched: Watched, pipeline: Pipeline | None, state: Continuation | None) -> None:
        self.tree.open_run(watched.node, pipeline, state)
        if pipeline is None:
            return
        watched.sizes = Sizes(pipeline, watched.given if state is None else state.log.inputs)
        for name, result in state.log.steps.items() if state is not None else ():
            watched.sizes.keep(name, result.output)
        watched.given = None

    def _on_workflow_execution_continued_as_new(self, watched: Watched, event: HistoryEvent) -> None:
        watched.run_id = event.workflow_execution_continued_as_new_event_attributes.new_execution_run_id
        # The iteration over the old run ends by itself; the new one is read next.
        watched.seen = 0
        watched.items.clear()

    def _end(self, watched: Watched, event: HistoryEvent, end: End) -> None:
        failure = event.workflow_execution_failed_event_attributes.failure
        cancelled = event.workflow_execution_canceled_event_attributes.details
        statuses = _statuses_in(_details(failure) or _decoded_first(cancelled.payloads))
        self.tree.finish(watched.node, end, time_of(event), statuses)
        self._tell_scopes(time_of(event))
        if watched is self.root:
            self._told.append(Ended(state=end, elapsed=self._since(time_of(event))))

    def _on_workflow_properties_modified(self, watched: Watched, event: HistoryEvent) -> None:
        memo = event.workflow_properties_modified_event_attributes.upserted_memo.fields
        if REPORT_MEMO in memo and watched is self.root:
            self.report = _report(_decoded(memo[REPORT_MEMO]))
        if WAITING_MEMO in memo:
            waiting = _decoded(memo[WAITING_MEMO])
            self._on_waiting(watched, event, waiting if isinstance(waiting, dict) else {})

    # What waits for something from outside

    def _on_waiting(self, watched: Watched, event: HistoryEvent, waiting: dict[str, Any]) -> None:
        """Take what a run waits for now, by path: see ``WAITING_MEMO``."""
        for path in [path for path in watched.waits if path not in waiting]:
            self.wait_ends(watched, event, path)
        for path, about in waiting.items():
            if not isinstance(about, dict):
                continue
            state = about.get("state", "waiting")
            if state == "waiting" and path not in watched.waits:
                name = str(about.get("name", Path.of_id(path).name))
                self.wait_begins(watched, event, path, name, str(about.get("for", "")))
            elif state in ("completed", "failed", "cancelled", "skipped"):
                error = about.get("error")
                self.wait_ends(watched, event, path, state, None if error is None else str(error))

    def wait_begins(self, watched: Watched, event: HistoryEvent, path: str, name: str, what: str) -> None:
        """Show that a step waits for something that comes from outside.

        Args:
            watched: The run that waits.
            event: The event that says so.
            path: The step's path in that run.
            name: Its name.
            what: What it waits for, such as ``event paid`` or ``approval: deploy 1.2?``.
        """
        item = watched.waits[path] = self._item(watched, Path.of_id(path), name, event, "waiting")
        item.node.waiting_for = what
        self._emit(item, "waiting", item.scheduled, waiting_for=what, workflow_id=watched.workflow_id)

    def wait_ends(
        self,
        watched: Watched,
        event: HistoryEvent,
        path: str,
        state: State = "completed",
        error: str | None = None,
    ) -> None:
        """Show how a wait has ended; one that nobody has begun is ignored."""
        item = watched.waits.pop(path, None)
        if item is not None:
            self._finished(item, state, time_of(event), None if error is None else Error(error))

    # Activities

    def _on_activity_task_scheduled(self, watched: Watched, event: HistoryEvent) -> None:
        attributes = event.activity_task_scheduled_event_attributes
        if attributes.activity_type.name == LOAD:
            return  # the run asks for its pipeline
        item = self._begin(watched, event, Path.of_id(attributes.activity_id))
        item.activity_id = attributes.activity_id
        item.queue = attributes.task_queue.name
        item.maximum_attempts = attributes.retry_policy.maximum_attempts or None
        item.node.maximum_attempts = item.maximum_attempts
        self._emit(item, "running", item.scheduled)

    def _on_activity_task_started(self, watched: Watched, event: HistoryEvent) -> None:
        attributes = event.activity_task_started_event_attributes
        item = watched.items.get(attributes.scheduled_event_id)
        if item is not None:
            item.attempt = attributes.attempt

    # Children

    def _on_start_child_workflow_execution_initiated(self, watched: Watched, event: HistoryEvent) -> None:
        attributes = event.start_child_workflow_execution_initiated_event_attributes
        # The id tells the step only where its author has not chosen it.
        options = _decoded(attributes.input.payloads[2]) if len(attributes.input.payloads) > 2 else None
        step = options.get("step") if isinstance(options, dict) else None
        if isinstance(step, str):
            path = Path.of_id(step)
        else:
            path = Path.of_workflow_id(attributes.workflow_id, watched.workflow_id)
        item = self._begin(watched, event, path)
        item.attempt, item.maximum_attempts = item.node.attempt, item.node.maximum_attempts
        self._emit(item, "running", item.scheduled)

    def _on_child_workflow_execution_started(self, watched: Watched, event: HistoryEvent) -> None:
        attributes = event.child_workflow_execution_started_event_attributes
        item = watched.items[attributes.initiated_event_id]
        execution = attributes.workflow_execution
        self._told.append(Watched(execution.workflow_id, execution.run_id, item.path, item.node))

    # Timers

    def _on_timer_started(self, watched: Watched, event: HistoryEvent) -> None:
        summary = _summary(event)
        if summary is not None and summary.startswith(_DELAYS):
            self._delay(watched, event, *summary.split(" of ", 1))
        elif summary is not None and not summary.startswith(_NOT_STEPS):
            path, name = Path.of_title(summary)
            if str(path) == name and name not in watched.node.children:
                path = self.tree.path_of_name(watched.node, name)
            item = watched.items[event.event_id] = self._item(watched, path, name, event, "waiting")
            self._emit(item, "waiting", item.scheduled)

    def _delay(self, watched: Watched, event: HistoryEvent, kind: str, title: str) -> None:
        """Take that another attempt of a scope or a child, or another repetition, follows after a while."""
        node, at = self.tree.find(watched.node, Path.of_title(title)[0]), time_of(event)
        if node is None:
            return
        after = event.timer_started_event_attributes.start_to_fire_timeout.ToTimedelta()
        node.next_attempt = at + after
        if kind == "retry" and node.state == "retrying":
            seconds = after.total_seconds()
            more = {
                "attempt": node.attempt + 1,
                "maximum_attempts": node.maximum_attempts,
                "error": node.error,
            }
            self._told.append(self._of_scope(node, "retrying", at, next_attempt=seconds, **more))

    # What they share

    def _begin(self, watched: Watched, event: HistoryEvent, path: Path) -> Item:
        self.has_acted = True
        name = _summary(event) or str(path.undone)
        if path.is_undo:
            name = name.removeprefix("undo ")
        item = watched.items[event.event_id] = self._item(watched, path, name, event, "running")
        return item

    def _item(self, watched: Watched, path: Path, name: str, event: HistoryEvent, state: NodeState) -> Item:
        """Return what has begun in a run; its path is relative to that run."""
        at = time_of(event)
        node = self.tree.begin(watched.node, path, name, at, state)
        self._measure(watched, node)
        self._tell_scopes(at)
        return Item(
            path=watched.path.child(path),
            shown=str(watched.path.child(path.undone)),
            name=name,
            undo=path.is_undo,
            scheduled=at,
            node=node,
        )

    def _measure(self, watched: Watched, node: Node) -> None:
        """Find out how many items the loops around a step have, which are counted one day."""
        above = node.parent
        while above is not None and not above.is_run:
            if above.is_loop and above.total is None and above.seen == 1 and above.step is not None:
                given = above.step.for_each
                above.total = watched.sizes.of(given) if isinstance(given, str) else None
            above = above.parent

    def _keep(self, watched: Watched, event: HistoryEvent, item: Item) -> None:
        """Keep the output of a step that a loop goes over."""
        if item.undo or not watched.sizes.wants(item.path.name):
            return
        if item.activity_id is not None:
            output = _decoded_first(event.activity_task_completed_event_attributes.result.payloads)
        else:
            result = event.child_workflow_execution_completed_event_attributes.result
            envelope = _decoded_first(result.payloads)
            output = envelope.get("output") if isinstance(envelope, dict) else None
        watched.sizes.keep(item.path.name, output)

    def _finish(self, watched: Watched, event: HistoryEvent, attributes: Any, state: State) -> None:
        begun = next(getattr(attributes, name) for name in _BEGINNINGS if hasattr(attributes, name))
        item = watched.items.pop(begun, None)
        if item is None:
            return
        failure: Failure | None = getattr(attributes, "failure", _ENDED_BY_SERVER.get(event.event_type))
        if item.undo and item.activity_id is not None:
            self.attempts[item.shown] = item.attempt
            if failure is not None:
                self.details[item.shown] = _details(failure)
        if state == "completed":
            self._keep(watched, event, item)
        if item.undo and state == "completed":
            self.tree.undone(watched.node, Path.of_id(item.node.label))
        if failure is None:
            self._finished(item, state, time_of(event), None)
        else:
            final = failure.application_failure_info.non_retryable
            error = Error(failure.message, _error_type(failure), final)
            self._finished(item, state, time_of(event), error)

    def _finished(self, item: Item, state: State, at: datetime, error: Error | None) -> None:
        item.node.attempt = max(item.node.attempt, item.attempt)
        self.tree.end(item.node, state, at, error)
        message = None if error is None else error.message
        self._emit(item, state, at, elapsed=(at - item.scheduled).total_seconds(), error=message)
        self._tell_scopes(at)


def item_of(watched: Watched, event: HistoryEvent) -> Item | None:
    """Return what an event of a run ends, before it is taken; None: it ends nothing that is known."""
    attributes = getattr(event, event.WhichOneof("attributes") or "", None)
    begun = [getattr(attributes, name) for name in _BEGINNINGS if hasattr(attributes, name)]
    return watched.items.get(begun[0]) if begun else None


def decoded(payloads: Sequence[Payload]) -> Any:
    """Return the first of some payloads as JSON data; None if there is none, or it cannot be read."""
    return _decoded_first(payloads)


def has_ended(event: HistoryEvent) -> bool:
    """Tell whether an event is the end of a workflow, and not of one run of its chain alone."""
    return _kind(event) in _ENDS


def _kind(event: HistoryEvent) -> str:
    return EventType.Name(event.event_type).removeprefix("EVENT_TYPE_")


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
_DELAYS = ("retry of ", "pause of ")
"""How the summaries begin of timers before another attempt or another repetition of a step."""
_NOT_STEPS = ("timeout of ", "pause between ")
"""How those of other timers begin that are no steps."""
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


def time_of(event: HistoryEvent) -> datetime:
    """Return when an event happened."""
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


def _decoded_first(payloads: Sequence[Payload]) -> Any:
    return _decoded(payloads[0]) if payloads else None


def _details(failure: Failure) -> Any:
    payloads = failure.application_failure_info.details.payloads
    return details_of([_decoded(payload) for payload in payloads])


def _state_before(started: WorkflowExecutionStartedEventAttributes) -> Continuation | None:
    """Return how the run stood that this one goes on from, or undoes; None: it begins."""
    payloads = started.input.payloads
    options = _decoded(payloads[2]) if len(payloads) > 2 else None
    state = options.get("continued") if isinstance(options, dict) else None
    if state is None and not started.continued_execution_run_id:
        return None
    try:
        return msgspec.convert(state, Continuation)
    except msgspec.ValidationError:
        # Encoded, or of another version: what it did before is not known.
        return Continuation(phase="steps", started_at="", log=ScopeLog(pipeline="", task_queue=""))


def _statuses_in(report: Any) -> dict[str, Any] | None:
    """Return what the report of a run says of its steps, by id; None: it says nothing."""
    steps = report.get("steps") if isinstance(report, dict) else None
    return steps if isinstance(steps, dict) else None


def _error_type(failure: Failure) -> str | None:
    """Return the type of an error, as handlers know it; None: it has none that is known here."""
    if failure.HasField("application_failure_info"):
        return failure.application_failure_info.type
    if failure.HasField("timeout_failure_info"):
        kind = TimeoutType.Name(failure.timeout_failure_info.timeout_type).removeprefix("TIMEOUT_TYPE_")
        return f"{kind.title().replace('_', '')}Timeout"
    return None


def _report(data: Any) -> Report | None:
    try:
        return msgspec.convert(data, Report)
    except msgspec.ValidationError:
        return None  # of another version, or encoded
