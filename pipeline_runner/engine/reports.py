"""Reads the report of a run from the server alone, without a worker."""

from typing import Any

import msgspec
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.common import RawValue
from temporalio.exceptions import (
    ApplicationError,
    CancelledError,
    FailureError,
    TerminatedError,
    TimeoutError,
)

from pipeline_runner.core.errors import ErrorInfo
from pipeline_runner.core.state import Report, RunStatus
from pipeline_runner.engine.follow import Follower
from pipeline_runner.engine.history.happenings import Ended
from pipeline_runner.engine.history.node import Node
from pipeline_runner.engine.workflow.outcomes import details_of, report_of

UNDECODED = (KeyError, RuntimeError)
"""Errors of the SDK for payloads with an unknown encoding."""
TERMINATED = "Terminated"
TIMED_OUT = "TimedOut"
"""Error types of runs that the server has ended, which have no report of their own."""


async def read_report(client: Client, workflow_id: str, run_id: str | None, pipeline: str) -> Report:
    """Return the current report of a run, from its history.

    For a run that is open or has completed, it contains the steps that have left something in the
    history; a ``set`` step leaves nothing there.

    Args:
        client: The client.
        workflow_id: The run's workflow id.
        run_id: The run id, or that of the first run of its chain.
        pipeline: The pipeline's name.

    Raises:
        UnreachableError: The server does not answer.
        RPCError: The server refuses, or does not know the run.
    """
    follower = Follower(client, workflow_id, run_id, wait=False)
    end: str | None = None
    async for event in follower.events():
        if isinstance(event, Ended):
            end = event.state
    steps = _statuses(follower.reader.tree.root)
    if end == "completed" and follower.reader.report is not None:
        return with_attempts(follower.reader.report, follower)
    if end is None or end == "completed":
        return Report(pipeline=pipeline, status="completed" if end else "running", steps=steps)
    last = client.get_workflow_handle(workflow_id, run_id=follower.run_id, result_type=RawValue)
    cause = await cause_of(last)
    found = report_in(cause)
    if found is None:
        return without_report(cause, pipeline, acted=follower.reader.has_acted, steps=steps)
    return with_attempts(found, follower)


def _statuses(run: Node) -> dict[str, str]:
    """Return the statuses of the steps of a run's own list, as far as its history tells them."""
    known = ((node.label, node.state) for node in run.children.values())
    told = {"undone": "completed", "terminated": "running", "timed out": "running"}
    return {name: told.get(state, state) for name, state in known if state not in ("pending", "passed")}


async def cause_of(handle: WorkflowHandle[Any, Any]) -> BaseException | None:
    """Return why a run has ended that did not complete; None: it has."""
    try:
        await handle.result(follow_runs=False)
    except WorkflowFailureError as failure:
        return failure.cause
    return None


def report_in(cause: BaseException | None) -> Report | None:
    """Return the report in the end of a run, with the details of the error; None: there is none."""
    found = report_of(cause) if isinstance(cause, ApplicationError | CancelledError) else None
    return None if found is None else with_details(found, cause)


def without_report(
    cause: BaseException | None, pipeline: str, *, acted: bool, steps: dict[str, str] | None = None
) -> Report:
    """Return the report of a run whose end contains none.

    Args:
        cause: Why it ended.
        pipeline: The pipeline's name.
        acted: Whether it had done anything, which then remains.
        steps: The states of its steps.
    """
    if isinstance(cause, TerminatedError):
        error = ErrorInfo(type=TERMINATED, message="terminated: nothing was undone")
    elif isinstance(cause, TimeoutError):
        error = ErrorInfo(type=TIMED_OUT, message="stopped by the server's timeout: nothing was undone")
    elif isinstance(cause, FailureError):
        kind = cause.type if isinstance(cause, ApplicationError) else type(cause).__name__
        error = ErrorInfo(type=kind or "", message=cause.message)
    else:
        error = ErrorInfo(type=type(cause).__name__, message=str(cause))
    status: RunStatus = "cancelled" if isinstance(cause, CancelledError) else "failed"
    return Report(
        pipeline=pipeline,
        status="timed_out" if isinstance(cause, TimeoutError) else status,
        dirty=acted,
        error=error,
        steps=steps or {},
    )


def with_attempts(report: Report, follower: Follower) -> Report:
    """Return a report with the number of attempts of each undo, from the history."""
    undo = tuple(
        msgspec.structs.replace(
            record,
            attempts=follower.reader.attempts.get(record.path),
            error=_detailed(record.error, follower.reader.details.get(record.path)),
        )
        for record in report.undo
    )
    return msgspec.structs.replace(report, undo=undo)


def with_details(report: Report, cause: BaseException | None) -> Report:
    """Return a report with the details of the first error."""
    root: ApplicationError | None = None
    while isinstance(cause, FailureError):
        if isinstance(cause, ApplicationError):
            root = cause
        cause = cause.cause
    if root is None or report_of(root) is not None:
        return report
    return msgspec.structs.replace(report, error=_detailed(report.error, details_of(root.details)))


def _detailed(error: ErrorInfo | None, details: Any) -> ErrorInfo | None:
    return None if error is None else msgspec.structs.replace(error, details=details)
