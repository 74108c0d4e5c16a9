"""The error with which a run ends: limited to a size that the server accepts, without our own frames.

Replayed: part of the workflow.
"""

import base64
from collections.abc import Iterator
from typing import Any

import msgspec
from temporalio import workflow
from temporalio.api.failure.v1 import Failure
from temporalio.converter import DefaultFailureConverter
from temporalio.exceptions import ActivityError, ApplicationError, FailureError

from pipeline_runner.core.errors import ErrorInfo, shortened
from pipeline_runner.core.state import Report
from pipeline_runner.engine.workflow.payloads import encoded

CAUSES = 300_000
"""The maximum size of all causes of a run's error, in bytes. Those of a child contain its whole report, and
those of its children."""

CANCELLED_WITH = "pipeline_runner.cancelled_with"
"""The function of the worker that records a detail: see ``cancelling.py``."""

_PART = 1_000
"""The part of a cause, in bytes, that is kept however large the others are."""


def bound(error: ApplicationError, cause: BaseException | None) -> BaseException:
    """Return an error bound to its failure: raising it does not add a stack trace to the failure.

    Args:
        error: The error.
        cause: Its cause, as it is in the history, including what a codec has encoded.
    """
    failure = Failure()
    converter, payloads = DefaultFailureConverter(), workflow.payload_converter()
    converter.to_failure(error, payloads, failure)
    # Any other cause is an error of this package itself, and is in the message.
    if isinstance(cause, FailureError) and cause.failure is not None:
        failure.cause.CopyFrom(cause.failure)
        fit(failure.cause, CAUSES)
    return converter.from_failure(failure, payloads)


def refused(error: Exception) -> BaseException:
    """Return the error of a run that could not begin or continue, with its report, and log it."""
    info = workflow.info()
    root = error.cause if isinstance(error, ActivityError) and error.cause is not None else error
    kind = root.type or "" if isinstance(root, ApplicationError) else type(root).__name__
    message = root.message if isinstance(root, FailureError) else str(root)
    report = Report(
        pipeline=info.workflow_type,
        status="failed",
        # It had begun in the run that it continues; a retry by the server and a schedule begin from nothing.
        dirty=info.continued_run_id is not None and info.attempt == 1 and not info.cron_schedule,
        error=ErrorInfo(type=kind, message=shortened(message)),
    )
    workflow.logger.warning("refused: %s [%s]", message, kind)
    final = isinstance(root, ApplicationError) and root.non_retryable
    made = ApplicationError(
        message, msgspec.to_builtins(report), type=kind, non_retryable=final or report.dirty
    )
    return bound(made, error if root is not error else error.__cause__)


def fit(failure: Failure, limit: int) -> None:
    """Remove parts of a chain of failures until it is at most that many bytes.

    First the details, then the stack traces, then long messages, then the causes from the end.
    """
    for clear in (_clear_details, _clear_trace, _clear_message):
        if failure.ByteSize() <= limit:
            return
        for one in chain(failure):
            clear(one)
    length = sum(1 for _ in chain(failure))
    while failure.ByteSize() > limit and length > 1:
        length //= 2
        list(chain(failure))[length - 1].ClearField("cause")


def chain(failure: Failure) -> Iterator[Failure]:
    """Yield a failure and its causes."""
    yield failure
    while failure.HasField("cause"):
        failure = failure.cause
        yield failure


def _clear_details(failure: Failure) -> None:
    details = failure.application_failure_info.details
    if failure.HasField("application_failure_info") and details.ByteSize() > _PART:
        failure.application_failure_info.ClearField("details")


def _clear_trace(failure: Failure) -> None:
    failure.stack_trace = ""


def _clear_message(failure: Failure) -> None:
    failure.message = failure.message[:_PART]
    if failure.encoded_attributes.ByteSize() > _PART:
        failure.ClearField("encoded_attributes")


def preserved(cause: BaseException | None) -> bytes:
    """Return a cause as bytes, for the run in which this one continues."""
    failure = Failure()
    if isinstance(cause, Exception):
        DefaultFailureConverter().to_failure(cause, workflow.payload_converter(), failure)
        fit(failure, CAUSES)
    return base64.b64encode(failure.SerializeToString())


def revived(data: bytes) -> Any:
    """Return the cause from :func:`preserved`."""
    failure = Failure.FromString(base64.b64decode(data))
    return DefaultFailureConverter().from_failure(failure, workflow.payload_converter())


def cancelled_with(detail: Any) -> None:
    """Add a detail, which is JSON data, if the run ends as cancelled in this activation.

    A replay does not need it, because replays do not compare details.
    """
    keep = workflow.extern_functions().get(CANCELLED_WITH)
    if keep is not None:
        keep(encoded(detail))
