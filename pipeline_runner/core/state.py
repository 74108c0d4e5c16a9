"""The state of a run: results, the undo log, the report, and everything that survives continue-as-new.

All of it is plain JSON through msgspec, so that it can be passed to a parent, to the next run of a
chain, or to a reader of the history.
"""

from typing import Any, Literal

import msgspec

from pipeline_runner.core.errors import ErrorInfo, error_names
from pipeline_runner.core.model import Struct
from pipeline_runner.core.secrets import SecretSpans

Outcome = Literal["completed", "uncertain", "failed"]
"""The outcome of a step's last attempt. ``uncertain``: its effect may or may not be there."""

RunStatus = Literal["running", "completed", "failed", "timed_out", "cancelled"]


class StepResult(Struct, frozen=True, kw_only=True):
    """The value of ``steps.<id>``."""

    status: Literal["pending", "running", "waiting", "completed", "skipped", "failed", "caught", "cancelled"]
    output: Any = None
    error: ErrorInfo | None = None

    def names(self) -> dict[str, Any]:
        """Return the result as an expression sees it."""
        return {"output": self.output, "status": self.status, "error": error_names(self.error)}


class UndoEntry(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One step in the undo log. It is added before the step is scheduled.

    It is mutable: its outcome is set when the step ends. Until then it is ``uncertain``, which is the
    truth.
    """

    step: str
    """The step's id."""
    path: str = ""
    """The step's path; empty: the id."""
    names: dict[str, Any] = {}
    """What its undo reads of the enclosing scopes, such as ``item``; their steps are in ``steps``."""
    name: str
    """The step's rendered name."""
    key: str
    """The step's idempotency key."""
    input: Any = None
    """The step's rendered input, sealed."""
    secrets: SecretSpans = []
    outcome: Outcome = "uncertain"
    output: Any = None
    error: ErrorInfo | None = None
    child: "ScopeLog | None" = None
    """The log of a child that completed."""
    keeps: bool = False
    """A child has failed and kept its effects, as its own ``on_failure`` demands."""
    left_in: tuple[str, str] | None = None
    """Workflow id and run id of a child that has undone itself, but not completely."""
    left: bool = False
    """Whether its undo has failed, or was not possible: it is left for an undo by hand."""


class ScopeLog(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The undo log of one run of a pipeline, with the names that its undo templates can use."""

    pipeline: str
    """Key of the pipeline in the bundle."""
    task_queue: str
    """The task queue of the run, for compensations that do not name one."""
    directory: str | None = None
    """The directory to which paths are relative; None: that of whichever worker runs the step."""
    undone: Outcome | None = None
    """The outcome of the step that this run undoes; None: the run is not a compensation."""
    starter: str | None = None
    """The identity of the client that started the outermost run; None: no approval asks for it."""
    inputs: dict[str, Any] = {}
    steps: dict[str, StepResult] = {}
    run: dict[str, Any] = {}
    entries: list[UndoEntry] = []
    """In the order of start."""
    pivot: str | None = None
    """The last completed step with ``pivot``: nothing up to it is in the log any more."""


class UndoRecord(Struct, frozen=True, kw_only=True):
    """One entry of the report: the result of one undo."""

    path: str
    """The step's path; a child's steps come after ``/``."""
    name: str
    outcome: Outcome
    """The outcome of the step itself."""
    state: Literal["undone", "failed", "not undone", "kept", "pivot"]
    """``kept``: its pipeline keeps its effects on failure. ``pivot``: the undo of its pipeline ended at this
    point of no return."""
    error: ErrorInfo | None = None
    """Why the undo failed, or why there was none."""
    attempts: int | None = None
    """Attempts of the undo, if a reader of the history has counted them."""


class Report(Struct, frozen=True, kw_only=True):
    """The outcome of a run: the first detail of the end of a run that failed or was cancelled."""

    pipeline: str
    status: RunStatus
    dirty: bool = False
    """Effects of the run remain, or may remain."""
    kept: bool = False
    """It failed, and nothing was undone, as its ``on_failure`` demands."""
    error: ErrorInfo | None = None
    undo: tuple[UndoRecord, ...] = ()
    """In the order in which the undos were done."""
    omitted: int = 0
    """The number of successful undos that were omitted because the report would be too long."""
    finally_errors: tuple[ErrorInfo, ...] = ()
    steps: dict[str, str] = msgspec.field(default_factory=dict)
    """Status by step id."""


REPORT_MEMO = "pipeline-runner-report"
"""The field of the memo with the report of a run that has completed and is dirty."""


WAITING_MEMO = "pipeline-runner-waiting"
"""The field of the memo with what a run waits for from outside: by the step's path, a mapping of ``name``
(the step's), ``for`` (what it waits for, for people), ``state`` (``waiting``, or how the wait has ended)
and ``error``. A run that waits for nothing has an empty mapping, or none."""


class ShownWait(Struct, frozen=True, kw_only=True):
    """A step that waits for something from outside, in there."""

    name: str
    what: str = msgspec.field(name="for")
    """``event NAME``, ``approval``, ``approval: MESSAGE`` or ``decision``."""
    state: Literal["waiting", "completed", "failed", "cancelled", "skipped"] = "waiting"
    error: str | None = None

    @property
    def is_approval(self) -> bool:
        """Whether people can answer it."""
        return self.what.partition(":")[0] == "approval"


class Envelope(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The result of a child pipeline for the pipeline that runs it."""

    output: Any = None
    undo: ScopeLog | None = None
    """None: there is nothing to undo."""
    dirty: bool = False
    left: list[UndoRecord] = []
    """The effects that an error that it caught has left, as far as there is room; paths are those in the
    child."""


class Failure(Struct, frozen=True, kw_only=True):
    """An error of a step that the run keeps while other steps continue."""

    error: ErrorInfo
    non_retryable: bool = False
    cause: bytes | None = None
    """Its causes, as a serialized Temporal failure."""


class Frame(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The progress of an open scope.

    Scopes that have ended have none, and new ones begin with an empty one.
    """

    position: int = 0
    """Index of the next or current step. The following fields are about that step."""
    results: dict[str, StepResult] = {}
    """The results of the scope's steps, by id; those of a pipeline's own list are in its log."""
    open: dict[str, "Frame"] = {}
    """The open scopes inside the step: ``steps``, a branch, an item, a repetition or an arm by its index, or
    ``catch``."""
    begun: int = 0
    """How many items or branches have begun; they begin in order."""
    outputs: dict[str, Any] = {}
    """The outputs of the items or branches that have completed, if anybody reads them."""
    failures: list[str] = []
    """The items or branches that have failed, if the others continue."""
    first_failure: Failure | None = None
    """The error of the first of them."""
    index: int = 0
    """The number of the next or current repetition."""
    last: Any = None
    """The output of the previous repetition."""
    attempt: int = 1
    """The number of the next or current attempt of the step."""
    tried: int = 1
    """The most attempts of one of its items or repetitions."""
    first: int = 1
    """The number of its first attempt, which is higher if a person has had the step run again."""
    undoing: Failure | None = None
    """The error of that attempt, which is undone before the next one."""
    since: str | None = None
    """RFC 3339: when the step, or the attempt, began, if its time is limited."""
    until: str | None = None
    """RFC 3339: the end of its wait, or of the pause before its next repetition or attempt."""
    failed: ErrorInfo | None = None
    """The error of the step, which is undone, and then handled."""

    def clear(self) -> None:
        """Forget what is open inside the step."""
        self.open, self.outputs, self.failures = {}, {}, []
        self.first_failure = self.undoing = self.since = self.until = self.last = None
        self.index = self.begun = 0


class Stop(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Where the forward work of a run has ended, for somebody who resumes it."""

    frame: Frame
    records: int
    """How many undos the report had then: those of errors that were caught, and of attempts."""


class Answer(Struct, frozen=True, kw_only=True):
    """What has come from outside for a step that waits for it."""

    payload: Any = None
    by: str | None = None
    """The identity that the sender's client claims; None: an event."""
    at: str
    """RFC 3339."""
    comment: str = ""


class Waiting(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A step that waits for something from outside."""

    path: str
    event: str | None = None
    """The event that it waits for; None: it waits for an approval or a decision."""
    is_question: bool = False
    """Whether it has failed, and waits for a decision."""
    until: str | None = None
    """RFC 3339: when it waits no longer."""
    answers: list[Answer] = []
    """The event, or the approvals so far."""
    rejection: Answer | None = None


class KeptEvent(Struct, frozen=True, kw_only=True):
    """An event that arrived before any step waited for it."""

    name: str
    payload: Any = None


Decision = Literal["retry", "skip", "undo"]


class Question(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A step of the pipeline's own list has failed, and a person decides about it: ``on_failure: ask``."""

    step: str
    failure: Failure
    since: str
    """RFC 3339: when it failed. The run's deadline stands still from then on."""
    path: str
    """Of the attempt that has failed."""
    is_asked: bool = False
    """Whether what the step did is undone, so that the run waits for the decision."""
    decision: Decision | None = None


class Continuation(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The state of a run that continues as new in the same chain."""

    phase: Literal["steps", "undo", "finally"]
    position: int = 0
    """Index of the next step, in runs of older versions, which had no frames."""
    started_at: str
    """RFC 3339, of the first run."""
    log: ScopeLog
    error: ErrorInfo | None = None
    status: RunStatus = "running"
    failure: bytes | None = None
    """The causes of the error, as a serialized Temporal failure."""
    non_retryable: bool = False
    dirty: bool = False
    kept: bool = False
    """The undo was omitted: ``on_failure: keep``."""
    records: list[UndoRecord] = []
    finally_errors: list[ErrorInfo] = []
    output: Any = None
    frame: Frame | None = None
    """The frame of the running list of steps; None: none of its scopes is open."""
    question: Question | None = None
    """The run is held; the error is not its end yet."""
    held: float = 0.0
    """Seconds for which it was held: they do not count for its deadline."""
    by_hand: bool = False
    """Whether the run only undoes the log of another one that has ended."""
    stopped: Stop | None = None
    """None: its forward work has not ended, or was complete."""
    undo_first: int | None = None
    """Index of the step to which a resumed run goes back: it and those after it are undone first."""
    children: "dict[str, Continuation]" = {}
    """Where the children of a resumed run go on, by the path of their step."""
    waits: list[Waiting] = []
    """In the order in which the steps began to wait."""
    events: list[KeptEvent] = []
    """In the order in which they arrived."""


class Options(Struct, frozen=True, kw_only=True):
    """The third argument of a run. Clients omit it."""

    child: bool = False
    """The parent expects an :class:`Envelope`."""
    step: str | None = None
    """The parent's step, for readers of its history."""
    directory: str | None = None
    """The run's directory, if it is known at its start. Children have that of their parent."""
    undone: Outcome | None = None
    """The outcome of the step that the run and its children undo; None: it is not a compensation."""
    starter: str | None = None
    """The identity of the client that started the outermost run, for a child; None: none of its approvals
    asks for it."""
    continued: Continuation | None = None
