"""What the events of histories say about the steps of a run. Pure: it asks no server."""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import EventType
from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import HistoryEvent

from pipeline_runner.core.model import Step
from pipeline_runner.core.paths import Path
from pipeline_runner.core.state import REPORT_MEMO, WAITING_MEMO, Report
from pipeline_runner.engine.history.happenings import End, Ended, Happening, Progress, State
from pipeline_runner.engine.history.skipped import Outline, outline_of
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
    items: dict[int, Item] = field(default_factory=dict)
    waits: dict[str, Item] = field(default_factory=dict)
    """What waits for something that comes from outside, by its path in this run."""
    seen: int = 0
    outline: Outline | None = None


class Reader:
    """Turns the events of a run, and of its children, into what happens."""

    def __init__(self, root: Watched) -> None:
        """Begin with the run that is followed, which has done nothing yet."""
        self._root: Final = root
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
            **more,
        )

    def _emit(self, item: Item, state: State, at: datetime, **more: Any) -> None:
        self._told.append(self.progress(item, state, at, **more))

    def _since(self, at: datetime) -> float:
        return 0.0 if self._begun is None else max((at - self._begun).total_seconds(), 0.0)

    # The run itself

    def _on_workflow_execution_started(self, watched: Watched, event: HistoryEvent) -> None:
        attributes = event.workflow_execution_started_event_attributes
        self.has_acted |= bool(attributes.continued_execution_run_id)
        watched.outline = watched.outline or outline_of(attributes)

    def _on_workflow_execution_continued_as_new(self, watched: Watched, event: HistoryEvent) -> None:
        watched.run_id = event.workflow_execution_continued_as_new_event_attributes.new_execution_run_id
        # The iteration over the old run ends by itself; the new one is read next.
        watched.seen = 0
        watched.items.clear()

    def _end(self, watched: Watched, event: HistoryEvent, end: End) -> None:
        if end == "completed" and watched.outline is not None:
            self._skip(watched, watched.outline.completed(), event)
        if watched is self._root:
            self._told.append(Ended(state=end, elapsed=self._since(time_of(event))))

    def _on_workflow_properties_modified(self, watched: Watched, event: HistoryEvent) -> None:
        memo = event.workflow_properties_modified_event_attributes.upserted_memo.fields
        if REPORT_MEMO in memo and watched is self._root:
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
            elif state in ("completed", "failed", "cancelled"):
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
        self._skip_before(watched, path, event)
        item = watched.waits[path] = item_of(watched, Path.of_id(path), name, event)
        self._emit(item, "waiting", item.scheduled, waiting_for=what)

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
            at = time_of(event)
            self._emit(item, state, at, elapsed=(at - item.scheduled).total_seconds(), error=error)

    # Activities

    def _on_activity_task_scheduled(self, watched: Watched, event: HistoryEvent) -> None:
        attributes = event.activity_task_scheduled_event_attributes
        if attributes.activity_type.name == LOAD:
            return  # the run asks for its pipeline
        item = item_of(watched, Path.of_id(attributes.activity_id), "", event)
        item.activity_id = attributes.activity_id
        item.queue = attributes.task_queue.name
        item.maximum_attempts = attributes.retry_policy.maximum_attempts or None
        self._begin(watched, event, item)

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
        self._begin(watched, event, item_of(watched, path, "", event))

    def _on_child_workflow_execution_started(self, watched: Watched, event: HistoryEvent) -> None:
        attributes = event.child_workflow_execution_started_event_attributes
        item = watched.items[attributes.initiated_event_id]
        execution = attributes.workflow_execution
        self._told.append(Watched(execution.workflow_id, execution.run_id, item.path))

    # Timers

    def _on_timer_started(self, watched: Watched, event: HistoryEvent) -> None:
        summary = _summary(event)
        if summary is not None and not summary.startswith(_NOT_STEPS):
            path, name = Path.of_title(summary)
            self._skip_before(watched, str(path), event)
            item = watched.items[event.event_id] = item_of(watched, path, name, event)
            self._emit(item, "waiting", item.scheduled)

    # What they share

    def _begin(self, watched: Watched, event: HistoryEvent, item: Item) -> None:
        self.has_acted = True
        if not item.undo:
            self._skip_before(watched, str(item.path.local), event)
        item.name = _summary(event) or str(item.path.local.undone)
        if item.undo:
            item.name = item.name.removeprefix("undo ")
        watched.items[event.event_id] = item
        self._emit(item, "running", item.scheduled)

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
        at = time_of(event)
        elapsed = (at - item.scheduled).total_seconds()
        self._emit(item, state, at, elapsed=elapsed, error=None if failure is None else failure.message)

    def _skip_before(self, watched: Watched, trace: str, event: HistoryEvent) -> None:
        if watched.outline is not None:
            self._skip(watched, watched.outline.begun(trace), event)

    def _skip(self, watched: Watched, steps: list[Step], event: HistoryEvent) -> None:
        for step in steps:
            # A name with a template in it was never rendered.
            name = step.id if step.name is None or "{" in step.name else step.name
            item = item_of(watched, Path.of(step.id), name, event)
            self._emit(item, "skipped", item.scheduled)


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
_NOT_STEPS = ("timeout of ", "retry of ", "pause ")
"""How the summaries begin of timers that are no steps."""
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


def item_of(watched: Watched, path: Path, name: str, event: HistoryEvent) -> Item:
    """Return what has begun in a run; its path is relative to that run."""
    return Item(
        path=watched.path.child(path),
        shown=str(watched.path.child(path.undone)),
        name=name,
        undo=path.is_undo,
        scheduled=time_of(event),
    )


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


def _details(failure: Failure) -> Any:
    payloads = failure.application_failure_info.details.payloads
    return details_of([_decoded(payload) for payload in payloads])


def _report(data: Any) -> Report | None:
    try:
        return msgspec.convert(data, Report)
    except msgspec.ValidationError:
        return None  # of another version, or encoded
