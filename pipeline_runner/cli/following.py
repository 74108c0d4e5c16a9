"""Following one run to its end, for ``run`` and ``watch``: view, Ctrl-C, outcome, exit code."""

import asyncio
import builtins
import json
import sys
from pathlib import Path
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
from temporalio.service import RPCError

from pipeline_runner.cli.exit_codes import ExitCode
from pipeline_runner.cli.main import CommandError
from pipeline_runner.cli.progress import View, connection_line, view
from pipeline_runner.cli.session import on_signals
from pipeline_runner.core.record import Report, UndoRecord
from pipeline_runner.engine.client import UnreachableError
from pipeline_runner.engine.follow import Connection, Follower
from pipeline_runner.engine.outcomes import report_of

_QUERY_TIMEOUT = 5.0


class _Detached(Exception):
    """The user asked twice to stop following."""


async def follow(
    client: Client, handle: WorkflowHandle[Any, Any], *, back: str, report_file: str | None = None
) -> ExitCode:
    """Follow a run to its end and tell how it went.

    Args:
        client: The client.
        handle: The run, pinned to its run id.
        back: The command that follows it again, for who detaches.
        report_file: Where the report goes, as JSON.
    """
    follower = Follower(client, handle.id, handle.run_id)
    with view() as shown:
        try:
            await _follow(follower, handle, shown)
        except _Detached:
            shown.note(f"detached; the run is open still. To follow it again: {back}")
            return ExitCode.DETACHED
        except UnreachableError as error:
            raise CommandError(f"{error}. To follow the run again: {back}", ExitCode.UNREACHABLE) from None
    return await _tell(client, handle, follower, report_file)


async def _follow(follower: Follower, handle: WorkflowHandle[Any, Any], shown: View) -> None:
    asked = 0
    stop = asyncio.Event()
    tasks: set[asyncio.Task[None]] = set()

    async def cancel() -> None:
        try:
            await handle.cancel(reason="Ctrl-C")
        except RPCError as error:
            # It may have ended in this very moment; the history tells.
            shown.note(f"the cancellation was not taken: {error.message}")

    def interrupted() -> None:
        nonlocal asked
        asked += 1
        if asked == 1:
            shown.note("cancelling, with undo; Ctrl-C again detaches")
            tasks.add(asyncio.create_task(cancel()))
        else:
            stop.set()

    async def read() -> None:
        async for event in follower.events():
            if isinstance(event, Connection):
                shown.note(connection_line(event))
            else:
                shown.show(event)

    with on_signals(interrupted):
        reader, stopper = asyncio.create_task(read()), asyncio.create_task(stop.wait())
        await asyncio.wait([reader, stopper], return_when=asyncio.FIRST_COMPLETED)
        stopper.cancel()
        if not reader.done():
            reader.cancel()
            await asyncio.gather(reader, *tasks, return_exceptions=True)
            raise _Detached
        await reader


async def _tell(
    client: Client, handle: WorkflowHandle[Any, Any], follower: Follower, report_file: str | None
) -> ExitCode:
    """Print the outcome of a run that has ended."""
    last = client.get_workflow_handle(handle.id, run_id=_last_run(handle, follower), result_type=RawValue)
    report: Report | None
    try:
        value = json.loads((await last.result(follow_runs=False)).payload.data or b"null")
    except WorkflowFailureError as failure:
        cause = failure.cause
        if isinstance(cause, ApplicationError) and (report := report_of(cause)) is not None:
            pass
        elif isinstance(cause, CancelledError):
            report = await _queried(last) or Report(pipeline="", status="cancelled")
        else:
            return _told_other(cause)
        report = _with_attempts(report, follower)
        _write_report(report, report_file)
        return _told_failure(report)
    report = await _queried(last) if report_file else None
    if report is not None:
        _write_report(_with_attempts(report, follower), report_file)
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2) + "\n")
    return ExitCode.OK


def _last_run(handle: WorkflowHandle[Any, Any], follower: Follower) -> str | None:
    return follower.run_id or handle.run_id


async def _queried(handle: WorkflowHandle[Any, Any]) -> Report | None:
    """Ask a worker for the report; without a worker there is no answer."""
    try:
        async with asyncio.timeout(_QUERY_TIMEOUT):
            told = await handle.query("report")
    except (RPCError, builtins.TimeoutError):
        return None
    return None if told is None else msgspec.convert(told, Report)


def _with_attempts(report: Report, follower: Follower) -> Report:
    undo = tuple(
        msgspec.structs.replace(record, attempts=follower.attempts.get(record.path)) for record in report.undo
    )
    return msgspec.structs.replace(report, undo=undo)


def _write_report(report: Report, file: str | None) -> None:
    if file is None:
        return
    try:
        Path(file).write_text(json.dumps(msgspec.to_builtins(report), ensure_ascii=False, indent=2) + "\n")
    except OSError as error:
        sys.stderr.write(f"the report cannot be written to {file}: {error.strerror}\n")


def _told_failure(report: Report) -> ExitCode:
    error = report.error
    if report.status == "cancelled":
        sys.stderr.write(f"{error.message if error else 'cancelled'}\n")
    elif error is not None:
        sys.stderr.write(f"failed: {error.message} [{error.type}]\n")
    for extra in report.finally_errors:
        if extra != error:
            sys.stderr.write(f"finally: {extra.message} [{extra.type}]\n")
    for record in report.undo:
        sys.stderr.write(f"  {_undo_line(record)}\n")
    if report.omitted:
        sys.stderr.write(f"  and {report.omitted} more that were undone\n")
    if report.dirty:
        sys.stderr.write("dirty: something that was done is left, or may be\n")
        return ExitCode.DIRTY
    return ExitCode.CANCELLED if report.status == "cancelled" else ExitCode.FAILED


def _undo_line(record: UndoRecord) -> str:
    attempts = f" after {record.attempts} attempts" if (record.attempts or 1) > 1 else ""
    reason = f": {record.error.message} [{record.error.type}]" if record.error else ""
    what = {"undone": "undone", "failed": "UNDO FAILED", "not undone": "NOT UNDONE"}[record.state]
    return f"{what}{attempts}: {record.path}{reason}"


def _told_other(cause: BaseException | None) -> ExitCode:
    """Tell of an end without a report: nothing was started, or the server ended the run."""
    if isinstance(cause, ApplicationError):
        sys.stderr.write(f"failed: {cause.message} [{cause.type}]\n")
        return ExitCode.FAILED
    if isinstance(cause, TerminatedError):
        sys.stderr.write("terminated: nothing was undone\n")
    elif isinstance(cause, TimeoutError):
        sys.stderr.write("stopped by the server's timeout: nothing was undone\n")
    else:
        message = cause.message if isinstance(cause, FailureError) else str(cause)
        sys.stderr.write(f"failed: {message}\n")
    return ExitCode.DIRTY
