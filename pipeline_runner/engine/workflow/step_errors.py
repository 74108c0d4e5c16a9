"""Errors of steps: the root cause, preceded by the names of the enclosing steps."""

from typing import Any

from temporalio import workflow

from pipeline_runner.core import errors
from pipeline_runner.core.errors import ErrorInfo, shortened
from pipeline_runner.core.expressions.evaluate import render_text
from pipeline_runner.core.expressions.parsing import ExpressionError
from pipeline_runner.core.model import Block, Parallel, Step, Switch
from pipeline_runner.core.state import Failure
from pipeline_runner.engine.workflow.calls import SUMMARY
from pipeline_runner.engine.workflow.ending import preserved, revived
from pipeline_runner.engine.workflow.payloads import PayloadTooLargeError


class StepError(Exception):
    """A step failed. The message is the chain of step names, then the root cause."""

    def __init__(self, info: ErrorInfo, *, non_retryable: bool, cause: BaseException | None) -> None:
        super().__init__(info.message)
        self.info = info
        self.non_retryable = non_retryable
        self.cause = cause


def info_of(kind: str, message: str) -> ErrorInfo:
    """Return an error of the run. Its message is cut to a length that fits into histories."""
    return ErrorInfo(type=kind, message=shortened(message))


def step_error(kind: str, message: str) -> StepError:
    """Return an error of the pipeline itself, which is never retried."""
    return StepError(info_of(kind, message), non_retryable=True, cause=None)


def kept(error: StepError) -> Failure:
    """Return an error as it is stored in the state of a run."""
    cause = None if error.cause is None else preserved(error.cause)
    return Failure(error=error.info, non_retryable=error.non_retryable, cause=cause)


def restored(failure: Failure) -> StepError:
    """Return the error that :func:`kept` has stored in the state."""
    cause = None if failure.cause is None else revived(failure.cause)
    return StepError(failure.error, non_retryable=failure.non_retryable, cause=cause)


def named(step: Step, name: str, error: Exception) -> StepError:
    """Put a step's name in front of an error in it. An empty name adds nothing."""
    failed = classified(step, error)
    message = shortened(f"{name}: {failed.info.message}" if name else failed.info.message)
    workflow.logger.warning("%s failed: %s [%s]", step.id, failed.info.message, failed.info.type)
    info = ErrorInfo(type=failed.info.type, message=message, step=step.id)
    return StepError(info, non_retryable=failed.non_retryable, cause=failed.cause)


def classified(step: Step, error: Exception) -> StepError:
    """Return any error in a step as an error of that step."""
    match error:
        case StepError():
            return error
        case ExpressionError():
            return step_error(errors.EXPRESSION_ERROR, error.message)
        case PayloadTooLargeError():
            return step_error(errors.PAYLOAD_TOO_LARGE, str(error))
        case _:
            # Nothing may end a run without its undo, not even an error in this package.
            workflow.logger.exception("step %s", step.id)
            info = info_of(type(error).__name__, str(error))
            return StepError(info, non_retryable=False, cause=error)


def handler_of(step: Step, error: ErrorInfo) -> int | None:
    """Return the number of the handler for an error; None: there is none."""
    for index, handler in enumerate(step.catch):
        if handler.types is None or error.type in handler.types:
            return index
    return None


def title_of(step: Step, names: dict[str, Any]) -> str:
    """Return a step's name in the errors of its handlers, which belong to all of its turns."""
    if step.name is None:
        return "" if isinstance(step.action, Block | Parallel | Switch) else step.id
    try:
        return shortened(render_text(step.name, names), SUMMARY)
    except ExpressionError:
        # It reads the item of a loop, or is itself the error.
        return step.id
