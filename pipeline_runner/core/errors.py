"""The types of the errors that Pipeline Runner itself raises in a run.

::

    error types of a run
      ├─ any error of an activity (with its own type)
      ├─ StartToCloseTimeout, ScheduleToCloseTimeout,
      │  ScheduleToStartTimeout, HeartbeatTimeout      an activity exceeded a timeout
      ├─ PipelineTimeout                               a pipeline exceeded its ``timeout``
      ├─ BlockTimeout                                  a block or a loop exceeded its ``timeout``
      ├─ UntilTimeout                                  the condition of ``until`` was never met
      ├─ EventTimeout                                  an event did not arrive in time
      ├─ ApprovalRejected                              somebody rejected an approval
      ├─ ApprovalTimeout                               an approval was not given in time
      ├─ ExpressionError                               a template cannot be evaluated
      ├─ InvalidInputs                                 the inputs do not match ``inputs``
      ├─ PayloadTooLarge                               an input or a result exceeds the limit
      ├─ SecretNotFound                                the worker has no secret of that name
      ├─ ChildTerminated, ChildCancelled               a child was ended from outside
      ├─ WorkflowAlreadyStarted                        a child's workflow id is already in use
      ├─ WorkerShutdown                                the worker stopped during the last attempt
      ├─ UnsupportedBundle                             the run was started by another version
      ├─ UnknownPipeline                               no worker serves a pipeline of that name
      ├─ NotSigned                                     not started by a command of this user
      ├─ NotAllowed                                    the worker may not run the activity
      ├─ UnknownActivity                               the worker has no activity of that name
      ├─ UnreadableHeader                              the worker lacks the codec of the run
      ├─ Cancelled                                     a cancelled run that is dirty
      └─ PipelineFailure                               the default of a ``fail`` step
"""

from typing import Any

from pipeline_runner.core.model import Struct

START_TO_CLOSE_TIMEOUT = "StartToCloseTimeout"
SCHEDULE_TO_CLOSE_TIMEOUT = "ScheduleToCloseTimeout"
SCHEDULE_TO_START_TIMEOUT = "ScheduleToStartTimeout"
HEARTBEAT_TIMEOUT = "HeartbeatTimeout"
PIPELINE_TIMEOUT = "PipelineTimeout"
BLOCK_TIMEOUT = "BlockTimeout"
UNTIL_TIMEOUT = "UntilTimeout"
EVENT_TIMEOUT = "EventTimeout"
APPROVAL_REJECTED = "ApprovalRejected"
APPROVAL_TIMEOUT = "ApprovalTimeout"
EXPRESSION_ERROR = "ExpressionError"
INVALID_INPUTS = "InvalidInputs"
PAYLOAD_TOO_LARGE = "PayloadTooLarge"
SECRET_NOT_FOUND = "SecretNotFound"  # noqa: S105 - a type name
CHILD_TERMINATED = "ChildTerminated"
CHILD_CANCELLED = "ChildCancelled"
WORKFLOW_ALREADY_STARTED = "WorkflowAlreadyStarted"
WORKER_SHUTDOWN = "WorkerShutdown"
UNSUPPORTED_BUNDLE = "UnsupportedBundle"
UNKNOWN_PIPELINE = "UnknownPipeline"
UNKNOWN_ACTIVITY = "UnknownActivity"
NOT_SIGNED = "NotSigned"
NOT_ALLOWED = "NotAllowed"
UNREADABLE = "UnreadableHeader"
CANCELLED = "Cancelled"
UNDO_FAILED = "UndoFailed"


MARK = "pipeline_runner"
UNCERTAIN = {MARK: {"outcome": "uncertain"}}
"""A detail of an activity's error with which a worker of this package reports that the outcome of the step is
not known."""


class ErrorInfo(Struct, frozen=True, kw_only=True):
    """An error as expressions and reports see it."""

    type: str
    """Empty if an activity in another SDK gave none."""
    message: str
    """The chain of step names, outermost first, then the root cause."""
    step: str | None = None
    """Path of the step that failed, in the pipeline that reports it."""
    details: Any = None
    """Data of an activity's error beside its message, such as the end of a program's output. It is omitted
    within a run: a reader of the history adds it."""


def error_names(error: ErrorInfo | None) -> dict[str, Any] | None:
    """Return an error as an expression sees it: ``type``, ``message``, ``step``."""
    return None if error is None else {"type": error.type, "message": error.message, "step": error.step}


def shortened(message: str, limit: int = 2_000) -> str:
    """Cut a message to a length that fits into reports and histories."""
    return message if len(message) <= limit else message[: limit - 1] + "…"


def in_brackets(kind: str | None) -> str:
    """Return an error's type in brackets, to follow the message, or nothing if it has none."""
    return f" [{kind}]" if kind else ""
