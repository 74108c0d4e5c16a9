"""Determines the outcome, error type and message of an activity or child from its end.

The rules are those of the language reference, "Undo": the last attempt decides the outcome.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    CancelledError,
    ChildWorkflowError,
    FailureError,
    RetryState,
    TerminatedError,
    TimeoutError,
    TimeoutType,
    WorkflowAlreadyStartedError,
)

from pipeline_runner.core import errors
from pipeline_runner.core.durations import spell
from pipeline_runner.core.model import ActivityCall, ChildCall, Timeouts
from pipeline_runner.core.state import Outcome, Report

UNREGISTERED = "ActivityNotRegisteredError"
"""The error type of a worker in Go that does not know an activity. Nothing else uses it."""

_UNREGISTERED = {
    UNREGISTERED: re.compile(r""),
    # Python, TypeScript, .NET and Ruby; Java. Other errors have the same types, but other messages.
    "NotFoundError": re.compile(r"Activity .* is not registered on this worker", re.IGNORECASE),
    "java.lang.IllegalArgumentException": re.compile(r'Activity Type ".*" is not registered with a worker'),
}
"""By type: the beginning of the messages of workers that do not know an activity."""


@dataclass(frozen=True, kw_only=True)
class Ending:
    """The end of an action that did not complete."""

    outcome: Outcome
    type: str
    message: str
    non_retryable: bool = False
    report: Report | None = None
    """The report of a child that failed."""


def of_failure(error: BaseException, action: ActivityCall | ChildCall) -> Ending:
    """Determine the ending from the exception of an activity or child handle."""
    if isinstance(error, WorkflowAlreadyStartedError):
        message = f'a workflow with the id "{error.workflow_id}" is already running'
        return Ending(outcome="failed", type=errors.WORKFLOW_ALREADY_STARTED, message=message)
    if isinstance(error, ActivityError) and isinstance(action, ActivityCall):
        return _of_activity(error, action)
    if isinstance(error, ChildWorkflowError) and isinstance(action, ChildCall):
        return _of_child(error, action)
    if isinstance(error, CancelledError):
        return Ending(outcome="uncertain", type=errors.CANCELLED, message="cancelled")
    message = error.message if isinstance(error, FailureError) else str(error)
    return Ending(outcome="uncertain", type=type(error).__name__, message=message)


def unknown_activity(name: str, queue: str | None) -> str:
    """Return the message about a worker that does not know an activity. ``queue`` None: the run's own."""
    where = f'on the task queue "{queue}"' if queue else "on the task queue of the run"
    return f'the worker {where} does not have the activity "{name}"'


def _of_activity(error: ActivityError, action: ActivityCall) -> Ending:
    cause = error.cause
    if isinstance(cause, TimeoutError):
        return _of_timeout(cause, action.timeouts)
    if isinstance(cause, ApplicationError):
        kind = cause.type or ""
        message = cause.message
        if kind == "PayloadsTooLarge":
            # The SDK's message about a result that it could not send: the work was done.
            return Ending(outcome="uncertain", type=errors.PAYLOAD_TOO_LARGE, message=message)
        if isinstance(cause.cause, FailureError) and message == "Failed decoding arguments":
            message = f"invalid input: {cause.cause.message}"
        unregistered = _UNREGISTERED.get(kind)
        if unregistered and unregistered.match(message):
            kind, message = errors.UNKNOWN_ACTIVITY, unknown_activity(action.name, action.task_queue)
        uncertain = any(isinstance(d, dict) and errors.MARK in d for d in cause.details)
        final = cause.non_retryable or error.retry_state is RetryState.NON_RETRYABLE_FAILURE
        return Ending(
            outcome="uncertain" if uncertain else "failed",
            type=kind,
            message=message,
            non_retryable=final,
        )
    if isinstance(cause, CancelledError):
        return Ending(outcome="uncertain", type=errors.CANCELLED, message="cancelled")
    message = cause.message if isinstance(cause, FailureError) else error.message
    return Ending(outcome="uncertain", type=type(cause).__name__, message=message)


def _of_timeout(cause: TimeoutError, timeouts: Timeouts) -> Ending:
    match cause.type:
        case TimeoutType.SCHEDULE_TO_START:
            kind, outcome = errors.SCHEDULE_TO_START_TIMEOUT, "failed"
            message = f"no worker started it within {_spelt(timeouts.schedule_to_start)} (schedule_to_start)"
        case TimeoutType.HEARTBEAT:
            kind, outcome = errors.HEARTBEAT_TIMEOUT, "uncertain"
            message = f"no heartbeat within {_spelt(timeouts.heartbeat)} (heartbeat)"
        case TimeoutType.SCHEDULE_TO_CLOSE:
            kind, outcome = errors.SCHEDULE_TO_CLOSE_TIMEOUT, "uncertain"
            limit = _spelt(timeouts.schedule_to_close)
            message = f"not completed within {limit}, including retries (schedule_to_close)"
        case _:
            kind, outcome = errors.START_TO_CLOSE_TIMEOUT, "uncertain"
            message = f"no result within {_spelt(timeouts.start_to_close)} (start_to_close)"
    return Ending(outcome="failed" if outcome == "failed" else "uncertain", type=kind, message=message)


def _spelt(seconds: float | None) -> str:
    return "its time limit" if seconds is None else spell(seconds)


_NOT_BEGUN = (errors.INVALID_INPUTS, errors.UNSUPPORTED_BUNDLE)
"""Errors of children that had not begun. Those of older workers have no report."""


def _of_child(error: ChildWorkflowError, action: ChildCall) -> Ending:
    cause = error.cause
    if isinstance(cause, ApplicationError):
        report = report_of(cause)
        kind = cause.type or ""
        # A failed run of a pipeline reports what it has undone, unless it never began.
        is_undone = kind in _NOT_BEGUN if report is None else not keeps(report)
        return Ending(
            outcome="failed" if is_undone else "uncertain",
            type=errors.CHILD_CANCELLED if kind == errors.CANCELLED else kind,
            message=cause.message,
            non_retryable=cause.non_retryable,
            report=report,
        )
    if isinstance(cause, CancelledError) and action.parent_close_policy == "abandon":
        # It was not asked to stop: nobody waits for it any more.
        return Ending(outcome="uncertain", type=errors.CANCELLED, message="the child was abandoned")
    if isinstance(cause, CancelledError):
        return Ending(outcome="failed", type=errors.CHILD_CANCELLED, message="the child was cancelled")
    if isinstance(cause, TimeoutError):
        limit = action.timeouts.run or action.timeouts.execution
        message = f"the server stopped the child after {_spelt(limit)}, without undo"
    elif isinstance(cause, TerminatedError):
        message = "the child was terminated, without undo"
    else:
        text = cause.message if isinstance(cause, FailureError) else str(cause)
        return Ending(outcome="failed", type=type(cause).__name__, message=text)
    return Ending(outcome="uncertain", type=errors.CHILD_TERMINATED, message=message)


def keeps(report: Report) -> bool:
    """Tell whether a run that failed has kept anything that it had done."""
    return report.kept and (report.omitted > 0 or any(record.state == "kept" for record in report.undo))


def details_of(details: Sequence[Any]) -> Any:
    """Return the first detail of an activity's error that its author has set, if any."""
    return next((d for d in details if not (isinstance(d, dict) and errors.MARK in d)), None)


def report_of(error: ApplicationError | CancelledError) -> Report | None:
    """Return the report that a failed or cancelled pipeline run has attached to its end."""
    for detail in error.details:
        if isinstance(detail, dict) and "pipeline" in detail and "status" in detail:
            try:
                return msgspec.convert(detail, Report)
            except msgspec.ValidationError:
                # Another version wrote it. A report that cannot be read does not count as clean.
                return Report(pipeline=str(detail["pipeline"]), status="failed", dirty=True)
    return None
