"""Lists the runs of a server, newest first."""

import asyncio
from datetime import datetime
from typing import Literal

import msgspec
from temporalio.client import Client, WorkflowExecution, WorkflowExecutionStatus

from pipeline_runner.core.errors import in_brackets, shortened
from pipeline_runner.core.state import REPORT_MEMO, WAITING_MEMO
from pipeline_runner.engine.client import MEMO
from pipeline_runner.engine.converting import json_of, message_of
from pipeline_runner.engine.reports import cause_of, report_in, without_report

Status = Literal["running", "completed", "failed", "timed_out", "cancelled", "terminated"]

LOOKED_AT = 1_000
"""The number of runs among which the newest are searched: servers list them in their own order."""

_STATUS: dict[WorkflowExecutionStatus, Status] = {
    WorkflowExecutionStatus.RUNNING: "running",
    WorkflowExecutionStatus.COMPLETED: "completed",
    WorkflowExecutionStatus.FAILED: "failed",
    WorkflowExecutionStatus.CANCELED: "cancelled",
    WorkflowExecutionStatus.TERMINATED: "terminated",
    WorkflowExecutionStatus.TIMED_OUT: "timed_out",
}


class Listed(msgspec.Struct, kw_only=True):
    """A run in a list."""

    run: str
    """Its workflow id."""
    run_id: str
    pipeline: str
    status: Status
    dirty: bool = False
    """Effects of the run remain, or may remain."""
    started_at: datetime
    ended_at: datetime | None = None
    undoes: str | None = None
    """The workflow id of the run that it undoes by hand."""
    undone: bool = False
    """Whether another run has undone by hand everything that was left."""
    problem: str | None = None
    """What needs attention: the error, or what it waits for."""


_NOTHING = 5
_AT_ONCE = 8
"""The number of simultaneous requests."""


def status_of(status: WorkflowExecutionStatus) -> Status:
    """Return a status in our words."""
    return _STATUS.get(status, "running")


async def list_runs(
    client: Client, *, limit: int, pipeline: str | None = None, problems: bool = False, every: bool = False
) -> list[Listed]:
    """Return the newest runs. Children are a part of their parents, and omitted.

    Args:
        client: The client.
        limit: The maximum number.
        pipeline: Only runs of the pipeline with that name.
        problems: Only runs that need attention: failed, dirty, retrying, or waiting for somebody.
        every: Also runs without the mark of this package, such as those that another client has started by
            name. This includes workflows that are not pipelines.

    Raises:
        RPCError: The server refuses.
    """
    found: list[WorkflowExecution] = []
    if pipeline is not None and "'" in pipeline:
        return []  # no pipeline has such a name
    query = f"WorkflowType = '{pipeline}'" if pipeline is not None else ""
    async for execution in client.list_workflows(query, limit=LOOKED_AT):
        is_child = bool(execution.raw_info.parent_execution.workflow_id)
        if not is_child and execution.status in _STATUS and (every or MEMO in execution.raw_info.memo.fields):
            found.append(execution)
    found.sort(key=lambda execution: execution.start_time, reverse=True)
    chosen = found if problems else found[:limit]
    running = asyncio.Semaphore(_AT_ONCE)

    async def listed(execution: WorkflowExecution) -> Listed:
        async with running:
            return await _listed(client, execution)

    runs = await asyncio.gather(*map(listed, chosen))
    _mark_undone(runs)
    return [run for run in runs if not problems or run.problem or run.dirty][:limit]


def _mark_undone(runs: list[Listed]) -> None:
    """Mark runs that were undone by hand. The newest runs come first."""
    newest: dict[str, Listed] = {}
    for run in runs:
        if run.undoes is not None:
            newest.setdefault(run.undoes, run)
    for run in runs:
        undo = newest.get(run.run)
        if undo is not None and undo.status == "completed" and undo.started_at > run.started_at:
            run.undone, run.dirty = True, False


async def _listed(client: Client, execution: WorkflowExecution) -> Listed:
    assert execution.status is not None
    fields = execution.raw_info.memo.fields
    memo = await json_of(client.data_converter, [fields[MEMO]]) if MEMO in fields else None
    undoes = memo.get("undoes") if isinstance(memo, dict) else None
    run = Listed(
        run=execution.id,
        run_id=execution.run_id,
        pipeline=execution.workflow_type,
        status=_STATUS[execution.status],
        dirty=REPORT_MEMO in fields,
        started_at=execution.start_time,
        ended_at=execution.close_time,
        undoes=undoes[0] if isinstance(undoes, list) and undoes else None,
    )
    if run.status == "running":
        run.problem = await _holding(client, execution)
    elif run.status != "completed":
        handle = client.get_workflow_handle(execution.id, run_id=execution.run_id)
        cause = await cause_of(handle)
        # If a run has scheduled nothing, its five events are only followed by an end by the server.
        acted = execution.raw_info.history_length > _NOTHING
        report = report_in(cause) or without_report(cause, run.pipeline, acted=acted)
        run.status = "timed_out" if report.status == "timed_out" else run.status
        run.dirty = report.dirty
        if report.error is not None:
            run.problem = f"{report.error.message}{in_brackets(report.error.type)}"
    return run


async def _holding(client: Client, execution: WorkflowExecution) -> str | None:
    """Return what a run waits for; None: it can continue."""
    handle = client.get_workflow_handle(execution.id, run_id=execution.run_id)
    described = (await handle.describe()).raw_description
    for pending in described.pending_activities:
        if pending.attempt > 1:
            why = await message_of(client.data_converter, pending.last_failure)
            return shortened(f"{pending.activity_id}: attempt {pending.attempt}: {why}", 200)
    fields = described.workflow_execution_info.memo.fields
    waits = await json_of(client.data_converter, [fields[WAITING_MEMO]]) if WAITING_MEMO in fields else None
    if isinstance(waits, dict):
        for path, wait in waits.items():
            if isinstance(wait, dict) and wait.get("state", "waiting") == "waiting":
                return shortened(f"{path}: waiting for {wait.get('for')}", 200)
    return None
