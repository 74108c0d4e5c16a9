"""Following one run to its end, for ``run`` and ``watch``: view, Ctrl-C, outcome, exit code."""

import asyncio
import builtins
import json
import shlex
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
from temporalio.api.common.v1 import Payload
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
from pipeline_runner.cli.main import CommandError, leave_within
from pipeline_runner.cli.progress import View, connection_line, view
from pipeline_runner.cli.session import Interrupts, Target
from pipeline_runner.core.errors import ErrorInfo, in_brackets, shortened
from pipeline_runner.core.state import Report, UndoRecord
from pipeline_runner.engine.client import ANSWER, UnreachableError, unreachable
from pipeline_runner.engine.follow import Follower
from pipeline_runner.engine.history.happenings import Connection, Ended, Progress, Unserved
from pipeline_runner.engine.history.reading import Reader
from pipeline_runner.engine.reports import UNDECODED, with_attempts, with_details
from pipeline_runner.engine.workflow.asking import WAITS_FOR
from pipeline_runner.engine.workflow.outcomes import report_of
from pipeline_runner.engine.workflow.payloads import is_plain

_LINES = 10
"""Lines of each stream of a failed program that are printed, of these characters at most."""
_WIDTH = 300
_KEPT = "on_failure: keep: nothing was undone, and the effects of the run remain"
_QUERY_TIMEOUT = 5.0
_ENCODED = "encoded: pass the codec of its worker with --codec"
_PATIENCE = 3.0
_LEAVING = 10.0
"""Seconds in which workers and connections may be closed when the exit code is known."""


class _Detached(Exception):
    """The user asked to stop following."""


async def follow(
    client: Client,
    handle: WorkflowHandle[Any, Any],
    caught: Interrupts,
    where: Target,
    *,
    cancels: bool,
    report_file: str | None = None,
    undoes: str | None = None,
) -> ExitCode:
    """Follow a run to its end and tell how it went.

    Args:
        client: The client.
        handle: The run, pinned to its run id.
        caught: Signals: the first one cancels the run, or detaches; the second one detaches.
        where: The server.
        cancels: Whether the first signal cancels the run.
        report_file: Where the report goes, as JSON.
        undoes: The workflow id of the run that it undoes by hand; None: it is no such run.
    """
    if page := where.page(handle.id, handle.run_id):
        console.tell(f"web UI: {page}")
    follower = Follower(client, handle.id, handle.run_id)
    try:
        with view(follower.reader.tree) as shown:
            await _follow(client, where, follower, handle, shown, caught, cancels=cancels)
        async with asyncio.timeout(ANSWER):
            code = await _tell(client, handle, follower, report_file, undoes=undoes is not None)
        _tell_remedy(where, undoes or handle.id, code, follower.reader)
    except _Detached:
        _say_goodbye(handle.id, where, cancels=cancels)
        leave_within(_PATIENCE, ExitCode.DETACHED)
        return ExitCode.DETACHED
    except (UnreachableError, RPCError, builtins.TimeoutError) as error:
        if isinstance(error, RPCError) and not unreachable(error):
            raise
        leave_within(_LEAVING, ExitCode.UNREACHABLE)
        reason = str(error) or f"the Temporal server has not answered for {ANSWER:g} s"
        message = f"{reason}. To follow the run again: {where.command('watch', handle.id)}"
        raise CommandError(message, ExitCode.UNREACHABLE) from None
    if where.ends_with_us:
        console.tell("to look at the run later: run-pipeline server")
    leave_within(_LEAVING, code)
    return code


def _say_goodbye(workflow_id: str, where: Target, *, cancels: bool) -> None:
    """Say what becomes of a run that is followed no longer, and what to do."""
    left = "detached" if cancels else "left"
    told = f"{left}; the run is still open. To follow it again: {where.command('watch', workflow_id)}"
    if not cancels:
        told += f"\nTo cancel it: {where.command('cancel', workflow_id)}"
    if where.ends_with_us:
        told += "\nUnless another command serves the run, it waits until you follow it again"
    console.tell(told)


def unserved_line(client: Client, where: Target, workflow_id: str, queue: str) -> str:
    """Say which task queue has no worker, and what to do."""
    worker = where.command("worker", "--task-queue", queue)
    place = ["--address", client.service_client.config.target_host]
    if client.namespace != "default":
        place += ["--namespace", client.namespace]
    end = shlex.join(["temporal", "workflow", "terminate", *place, "--workflow-id", workflow_id])
    return (
        f'no worker serves the task queue "{queue}", so the run is waiting: start one ({worker}, or one in'
        f" another SDK), or end the run without undo ({end})"
    )


async def _cancel(client: Client, handle: WorkflowHandle[Any, Any], why: str, shown: View) -> None:
    """Cancel the run, whichever run of its chain is open, as soon as the server answers."""
    chain = client.get_workflow_handle(handle.id, first_execution_run_id=handle.first_execution_run_id)
    while True:
        try:
            await chain.cancel(reason=why, rpc_timeout=timedelta(seconds=ANSWER))
        except RPCError as error:
            if unreachable(error):
                await asyncio.sleep(1)
                continue
            # It may have ended in this very moment; the history tells.
            shown.note(f"the cancellation was not accepted: {error.message}")
        return


async def _show(client: Client, where: Target, follower: Follower, workflow_id: str, shown: View) -> None:
    async for event in follower.events():
        match event:
            case Progress():
                shown.show(event)
                if (event.waiting_for or "").partition(":")[0] == "approval":
                    shown.note(f"to approve: {where.command('approve', workflow_id, event.path)}")
                elif event.waiting_for == WAITS_FOR:
                    command = where.command("decide", event.workflow_id or workflow_id, "WHAT")
                    shown.note(f"to decide: {command}, where WHAT is retry, skip or undo")
            case Connection():
                shown.note(connection_line(event))
            case Unserved(queue=queue):
                shown.note(unserved_line(client, where, workflow_id, queue))
            case Ended():
                shown.end(event)


async def _follow(
    client: Client,
    where: Target,
    follower: Follower,
    handle: WorkflowHandle[Any, Any],
    shown: View,
    caught: Interrupts,
    *,
    cancels: bool,
) -> None:
    asked = 0 if cancels else 1
    stop = asyncio.Event()
    tasks: set[asyncio.Task[None]] = set()

    def interrupted(why: str) -> None:
        nonlocal asked
        asked += 1
        if asked == 1:
            shown.note("cancelling and undoing the run; press Ctrl-C again to detach")
            tasks.add(asyncio.create_task(_cancel(client, handle, why, shown)))
        else:
            stop.set()

    for why in caught.names:
        interrupted(why)
    caught.handler = interrupted
    reader = asyncio.create_task(_show(client, where, follower, handle.id, shown))
    stopper = asyncio.create_task(stop.wait())
    await asyncio.wait([reader, stopper], return_when=asyncio.FIRST_COMPLETED)
    stopper.cancel()
    if not reader.done():
        reader.cancel()
        await asyncio.wait([reader, *tasks], timeout=_PATIENCE)
        raise _Detached
    for task in tasks:
        task.cancel()
    await reader


async def _tell(
    client: Client,
    handle: WorkflowHandle[Any, Any],
    follower: Follower,
    report_file: str | None,
    *,
    undoes: bool = False,
) -> ExitCode:
    """Print the outcome of a run that has ended."""
    last = client.get_workflow_handle(handle.id, run_id=_last_run(handle, follower), result_type=RawValue)
    report: Report | None
    try:
        value = _output((await last.result(follow_runs=False)).payload)
    except WorkflowFailureError as failure:
        cause = failure.cause
        if isinstance(cause, ApplicationError | CancelledError) and (report := report_of(cause)) is not None:
            pass
        elif isinstance(cause, CancelledError):
            # Its worker is of an older version.
            report = await _query(last) or Report(pipeline="", status="cancelled")
        else:
            return _tell_other(cause, follower)
        report = with_details(with_attempts(report, follower), cause)
        follower.reader.report = report
        _write_report(report, report_file)
        return _tell_failure(report)
    except UNDECODED:
        raise CommandError(f"the run has ended, but its outcome is {_ENCODED}", ExitCode.FAILED) from None
    report = follower.reader.report or (await _query(last) if report_file and not undoes else None)
    if report is not None:
        report = with_attempts(report, follower)
        _write_report(report, report_file)
    if undoes:
        _write_report(with_attempts(msgspec.convert(value, Report), follower), report_file)
        console.tell("undone")
        return ExitCode.OK
    try:
        console.result_json(value)
    except console.OutputError as error:
        console.tell(f"the run has completed, but its output cannot be written: {error}")
        return ExitCode.FAILED
    return _tell_left(report) if report is not None else ExitCode.OK


def _tell_left(report: Report) -> ExitCode:
    """Tell what a completed run has left: it has handled an error, and could not undo all before."""
    if not report.dirty:
        return ExitCode.OK
    for record in report.undo:
        if record.state != "undone":
            console.tell(f"  {_undo_line(record)}")
            _tell_output(record.error)
    console.tell("dirty: effects of the run remain, or may remain")
    return ExitCode.DIRTY


def _output(payload: Payload) -> Any:
    if payload.metadata and not is_plain(payload):
        raise CommandError(f"the run has completed, but its output is {_ENCODED}", ExitCode.FAILED)
    return json.loads(payload.data or b"null")


def _last_run(handle: WorkflowHandle[Any, Any], follower: Follower) -> str | None:
    return follower.run_id or handle.run_id


def _tell_remedy(where: Target, run: str, code: ExitCode, read: Reader) -> None:
    """Say what to do about the effects of a run that has ended."""
    if read.report is not None and read.report.kept:
        console.tell(
            f"to go on where it stopped: {where.command('resume', run)}\n"
            f"to undo what it has done: {where.command('undo', run)}"
        )
    elif code is ExitCode.DIRTY:
        console.tell(f"to undo what is left: {where.command('undo', run)}")


async def _query(handle: WorkflowHandle[Any, Any]) -> Report | None:
    """Ask a worker for the report; without a worker there is no answer."""
    try:
        async with asyncio.timeout(_QUERY_TIMEOUT):
            told = await handle.query("report")
    except (RPCError, builtins.TimeoutError, *UNDECODED):
        return None
    return None if told is None else msgspec.convert(told, Report)


def _write_report(report: Report, file: str | None) -> None:
    if file is None:
        return
    try:
        Path(file).write_text(
            json.dumps(msgspec.to_builtins(report), ensure_ascii=False, indent=2) + "\n", encoding="utf-8"
        )
    except OSError as error:
        console.tell(f"the report cannot be written to {file}: {error.strerror}")


def _tell_failure(report: Report) -> ExitCode:
    error = report.error
    kept = error is not None and report.status == "failed" and report.finally_errors[:1] == (error,)
    if report.status == "cancelled":
        console.tell(f"{error.message if error else 'cancelled'}")
    elif error is not None:
        how = "the steps completed and their effects are kept, but finally failed" if kept else "failed"
        console.tell(f"{how}: {error.message}{in_brackets(error.type)}")
    _tell_output(error)
    for extra in report.finally_errors:
        if extra != error:
            console.tell(f"finally: {extra.message}{in_brackets(extra.type)}")
    for record in report.undo:
        console.tell(f"  {_undo_line(record)}")
        _tell_output(record.error)
    if report.omitted:
        console.tell(f"  and {report.omitted} more that were undone")
    if report.kept:
        console.tell(_KEPT)
    if report.dirty:
        console.tell("dirty: effects of the run remain, or may remain")
        return ExitCode.DIRTY
    return ExitCode.CANCELLED if report.status == "cancelled" else ExitCode.FAILED


def _tell_output(error: ErrorInfo | None) -> None:
    """Print the last lines of what a failed program printed, unless the message says it all."""
    if error is None or not isinstance(error.details, dict):
        return
    for stream in ("stdout", "stderr"):
        text = error.details.get(stream)
        lines = [line for line in text.split("\n") if line.strip()] if isinstance(text, str) else []
        if len(lines) == 1 and lines[0].strip() in error.message:
            continue
        for line in lines[-_LINES:]:
            console.tell(f"    {stream}: {shortened(line.rstrip(), _WIDTH)}")


def _undo_line(record: UndoRecord) -> str:
    if record.state == "pivot":
        return f"point of no return: {record.path}: this step and those before it are not undone"
    attempts = f" after {record.attempts} attempts" if (record.attempts or 1) > 1 else ""
    reason = f": {record.error.message}{in_brackets(record.error.type)}" if record.error else ""
    what = {"failed": "UNDO FAILED", "not undone": "NOT UNDONE"}.get(record.state, record.state)
    return f"{what}{attempts}: {record.path}{reason}"


def _tell_other(cause: BaseException | None, follower: Follower) -> ExitCode:
    """Tell of an end without a report: nothing was started, or the server ended the run."""
    if isinstance(cause, TerminatedError):
        told = "terminated: nothing was undone"
    elif isinstance(cause, TimeoutError):
        told = "stopped by the server's timeout: nothing was undone"
    elif isinstance(cause, ApplicationError):
        told = f"failed: {cause.message}{in_brackets(cause.type)}"
    else:
        told = f"failed: {cause.message if isinstance(cause, FailureError) else cause}"
    console.tell(told)
    if not follower.reader.has_acted:
        return ExitCode.FAILED
    console.tell("dirty: the run ended without a report, and its effects remain, or may remain")
    return ExitCode.DIRTY
