"""What a run remembers: results, the undo log, the report, and what survives continue-as-new.

All of it is plain JSON through msgspec, so that it can be handed to a parent, to the next
run of a chain, or to a reader of the history.
"""

from typing import Any, Literal

import msgspec

from pipeline_runner.core.errors import ErrorInfo, error_names
from pipeline_runner.core.model import Struct
from pipeline_runner.core.secrets import SecretSpans

Outcome = Literal["completed", "uncertain", "failed"]
"""How a step's last attempt ended: ``uncertain`` where its effect may or may not be there."""

RunStatus = Literal["running", "completed", "failed", "timed_out", "cancelled"]


class StepResult(Struct, frozen=True, kw_only=True):
    """What ``steps.<id>`` gives."""

    status: Literal["pending", "running", "waiting", "completed", "skipped", "failed", "caught", "cancelled"]
    output: Any = None
    error: ErrorInfo | None = None

    def names(self) -> dict[str, Any]:
        """Return the result as an expression sees it."""
        return {"output": self.output, "status": self.status, "error": error_names(self.error)}


class UndoEntry(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One step in the undo log. It is entered before the step is scheduled.

    The only mutable struct: its outcome is filled in when the step ends. Until then it is
    ``uncertain``, which is what it is.
    """

    step: str
    """The step's id."""
    path: str = ""
    """The step's path; empty: the id."""
    names: dict[str, Any] = {}
    """What its undo sees of the scopes that the step is in, such as ``item``; its steps are in ``steps``."""
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
    """A child has failed and kept what it had done: its own ``on_failure`` says so."""
    left_in: tuple[str, str] | None = None
    """Workflow id and run id of a child that has undone itself, but not all of it."""
    left: bool = False
    """Whether its undo has failed, or was not possible: it is left for somebody who undoes it by hand."""


class ScopeLog(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The undo log of one run of a pipeline, with what its undo templates may see."""

    pipeline: str
    """Key of the pipeline in the bundle."""
    task_queue: str
    """The task queue of the run, for compensations that name none."""
    directory: str | None = None
    """What relative paths refer to; None: the directory of whichever worker takes the step."""
    undone: Outcome | None = None
    """How the step ended that this run undoes; None: the run is no compensation."""
    inputs: dict[str, Any] = {}
    steps: dict[str, StepResult] = {}
    run: dict[str, Any] = {}
    entries: list[UndoEntry] = []
    """In the order of start."""
    pivot: str | None = None
    """The last step with ``pivot`` that has completed: nothing up to it is in the log any more."""


class UndoRecord(Struct, frozen=True, kw_only=True):
    """One line of the report: what became of one undo."""

    path: str
    """The step's path; a child's steps come after ``/``."""
    name: str
    outcome: Outcome
    """How the step itself had ended."""
    state: Literal["undone", "failed", "not undone", "kept", "pivot"]
    """``kept``: its pipeline keeps on failure what it has done. ``pivot``: the undo of its pipeline ended at
    this point of no return."""
    error: ErrorInfo | None = None
    """Why the undo failed, or why there was none."""
    attempts: int | None = None
    """Attempts of the undo, where a reader of the history has counted them."""


class Report(Struct, frozen=True, kw_only=True):
    """How a run went: the first detail of the end of a run that failed or was cancelled."""

    pipeline: str
    status: RunStatus
    dirty: bool = False
    """Something that was done is left, or may be left."""
    kept: bool = False
    """It failed, and nothing was undone: its ``on_failure`` says so."""
    error: ErrorInfo | None = None
    undo: tuple[UndoRecord, ...] = ()
    """In the order in which the undos were done."""
    omitted: int = 0
    """Undos that went well and were left out because the report would be too long."""
    finally_errors: tuple[ErrorInfo, ...] = ()
    steps: dict[str, str] = msgspec.field(default_factory=dict)
    """Status by step id."""


REPORT_MEMO = "pipeline-runner-report"
"""Field of the memo with the report of a run that has completed and is dirty all the same."""


WAITING_MEMO = "pipeline-runner-waiting"
"""Field of the memo with what a run waits for from outside: by the step's path, a mapping of ``name`` (the
step's), ``for`` (what it waits for, for people), ``state`` (``waiting``, or how the wait has ended) and
``error``. A run that waits for nothing has an empty mapping, or none."""


class Envelope(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What a child pipeline hands to the pipeline that runs it."""

    output: Any = None
    undo: ScopeLog | None = None
    """None: there is nothing to undo."""
    dirty: bool = False
    left: list[UndoRecord] = []
    """What an error that it caught has left, as far as there is room for it; paths are those in the child."""


class Failure(Struct, frozen=True, kw_only=True):
    """An error of a step that the run keeps while other steps go on."""

    error: ErrorInfo
    non_retryable: bool = False
    cause: bytes | None = None
    """Its causes, as a serialized Temporal failure."""


class Frame(msgspec.Struct, kw_only=True, omit_defaults=True):
    """How far an open scope has come. Scopes that have ended have none, those that begin an empty one."""

    position: int = 0
    """Index of the step that is next or under way; what follows is about that step."""
    results: dict[str, StepResult] = {}
    """Of the steps of the scope, by id; those of a pipeline's own list are in its log."""
    open: dict[str, "Frame"] = {}
    """The open scopes inside the step: ``steps``, a branch, an item, a repetition or an arm by its index,
    or ``catch``."""
    begun: int = 0
    """How many items or branches have begun; they begin in order."""
    outputs: dict[str, Any] = {}
    """The outputs of the items or branches that have completed, if anybody reads them."""
    failures: list[str] = []
    """The items or branches that have failed, where the others go on."""
    first_failure: Failure | None = None
    """The error of the first of them."""
    index: int = 0
    """The number of the repetition that is next or under way."""
    last: Any = None
    """The output of the repetition before it."""
    attempt: int = 1
    """Which attempt of the step is next or under way."""
    undoing: Failure | None = None
    """The error of that attempt, which is undone before the next."""
    since: str | None = None
    """RFC 3339: when the step, or the attempt, began, if its time is limited."""
    until: str | None = None
    """RFC 3339: when its wait is over, or the pause before its next repetition or attempt."""
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


class Continuation(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The state of a run that goes on in a new run of the same chain."""

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
    """The undo was left out: ``on_failure: keep``."""
    records: list[UndoRecord] = []
    finally_errors: list[ErrorInfo] = []
    output: Any = None
    frame: Frame | None = None
    """The frame of the list of steps that is under way; None: none of its scopes is open."""
    by_hand: bool = False
    """Whether the run does nothing but undo the log of another one that has ended."""
    stopped: Stop | None = None
    """None: its forward work has not ended, or was complete."""
    undo_first: int | None = None
    """Index of the step to which a resumed run goes back: it and those after it are undone first."""
    children: "dict[str, Continuation]" = {}
    """Where the children of a resumed run go on, by the path of their step."""


class Options(Struct, frozen=True, kw_only=True):
    """The third argument of an interpreter run; a client leaves it out."""

    child: bool = False
    """The parent wants an :class:`Envelope`."""
    step: str | None = None
    """The parent's step, for readers of its history."""
    directory: str | None = None
    """The run's directory, if it is known at its start. Children have that of their parent."""
    undone: Outcome | None = None
    """How the step ended that the run undoes, and its children with it; None: it is no compensation."""
    continued: Continuation | None = None
