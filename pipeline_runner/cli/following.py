"""Following one run to its end, for ``run`` and ``watch``: view, Ctrl-C, outcome, exit code."""

import asyncio
import builtins
import json
import os
import threading
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

from pipeline_runner.cli import console
from pipeline_runner.cli.exit_codes import ExitCode
from pipeline_runner.cli.main import CommandError
from pipeline_runner.cli.progress import View, connection_line, view
from pipeline_runner.cli.session import Interrupts
from pipeline_runner.core.record import Report, UndoRecord
from pipeline_runner.engine.client import UnreachableError
from pipeline_runner.engine.follow import Connection, Follower
from pipeline_runner.engine.outcomes import report_of

_QUERY_TIMEOUT = 5.0
_PATIENCE = 3.0


class _Detached(Exception):
    """The user asked twice to stop following."""


async def follow(
    client: Client,
    handle: WorkflowHandle[Any, Any],
    caught: Interrupts,
    *,
    back: str,
    report_file: str | None = None,
) -> ExitCode:
    """Follow a run to its end and tell how it went.

    Args:
        client: The client.
        handle: The run, pinned to its run id.
        caught: Signals: the first one cancels the run, the second one detaches.
        back: The command that follows it again, for who detaches.
        report_file: Where the report goes, as JSON.
    """
    follower = Follower(client, handle.id, handle.run_id)
    with view() as shown:
        try:
            await _follow(follower, handle, shown, caught)
        except _Detached:
            shown.note(f"detached; the run is open still. To follow it again: {back}")
            # An activity in a thread cannot be stopped, and is not waited for.
            timer = threading.Timer(_PATIENCE, os._exit, (int(ExitCode.DETACHED),))
            timer.daemon = True
            timer.start()
            return ExitCode.DETACHED
        except UnreachableError as error:
            raise CommandError(f"{error}. To follow the run again: {back}", ExitCode.UNREACHABLE) from None
    return await _tell(client, handle, follower, report_file)


async def _follow(
    follower: Follower, handle: WorkflowHandle[Any, Any], shown: View, caught: Interrupts
) -> None:
    asked = 0
    stop = asyncio.Event()
    tasks: set[asyncio.Task[None]] = set()

    async def cancel(why: str) -> None:
        try:
            await handle.cancel(reason=why)
        except RPCError as error:
            # It may have ended in this very moment; the history tells.
            shown.note(f"the cancellation was not taken: {error.message}")

    def interrupted(why: str) -> None:
        nonlocal asked
        asked += 1
        if asked == 1:
            shown.note("cancelling, with undo; Ctrl-C again detaches")
            tasks.add(asyncio.create_task(cancel(why)))
        else:
            stop.set()

    async def read() -> None:
        async for event in follower.events():
            if isinstance(event, Connection):
                shown.note(connection_line(event))
            else:
                shown.show(event)

    for why in caught.names:
        interrupted(why)
    caught.handler = interrupted
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
    try:
        console.result_json(value)
    except console.OutputError as error:
        console.tell(f"the run has completed, and its output cannot be written: {error}")
        return ExitCode.FAILED
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
        Path(file).write_text(
            json.dumps(msgspec.to_builtins(report), ensure_ascii=False, indent=2) + "\n", encoding="utf-8"
        )
    except OSError as error:
        console.tell(f"the report cannot be written to {file}: {error.strerror}")


def _told_failure(report: Report) -> ExitCode:
    error = report.error
    if report.status == "cancelled":
        console.tell(f"{error.message if error else 'cancelled'}")
    elif error is not None:
        console.tell(f"failed: {error.message} [{error.type}]")
    for extra in report.finally_errors:
        if extra != error:
            console.tell(f"finally: {extra.message} [{extra.type}]")
    for record in report.undo:
        console.tell(f"  {_undo_line(record)}")
    if report.omitted:
        console.tell(f"  and {report.omitted} more that were undone")
    if report.dirty:
        console.tell("dirty: something that was done is left, or may be")
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
        console.tell(f"failed: {cause.message} [{cause.type}]")
        return ExitCode.FAILED
    if isinstance(cause, TerminatedError):
        console.tell("terminated: nothing was undone")
    elif isinstance(cause, TimeoutError):
        console.tell("stopped by the server's timeout: nothing was undone")
    else:
        message = cause.message if isinstance(cause, FailureError) else str(cause)
        console.tell(f"failed: {message}")
    return ExitCode.DIRTY
