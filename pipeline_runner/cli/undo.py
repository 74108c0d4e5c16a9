"""Undo an ended run: everything if it completed, otherwise what is left.

The undo is a separate run. It uses the values that were recorded when the steps ran. Steps that are already
undone are not undone again. The exit code is 0 if nothing is left, and 3 otherwise.
"""

import argparse
import json
from functools import partial
from typing import TYPE_CHECKING, Any

from pipeline_runner.cli import console, logs, options, session, watch
from pipeline_runner.cli.exit_codes import ExitCode
from pipeline_runner.cli.main import CommandError

if TYPE_CHECKING:
    from temporalio.client import Client

    from pipeline_runner.engine.undoing import Planned, Undoing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("run", metavar="RUN", help="the workflow id")
    parser.add_argument(
        "--dry-run", action="store_true", help="print what would be undone, in order, and undo nothing"
    )
    options.add_following(parser)
    options.add_server(parser)


def execute(args: argparse.Namespace) -> ExitCode:
    """Run the command."""
    if args.report is not None:
        options.check_report(args.report)
    with session.place(args) as where:
        return session.run_loop(session.interruptible(partial(_undo, args, where)))


async def _undo(args: argparse.Namespace, where: session.Target, caught: session.Interrupts) -> ExitCode:
    from pipeline_runner.engine.client import is_open

    logs.follow(verbose=args.verbose)
    client = await session.connect(where)
    handle, description = await session.find_run(client, args.run, ended=True)
    if is_open(description):
        told = f'the run "{args.run}" is still open: cancel it, and it undoes itself'
        raise CommandError(f"{told} ({where.command('cancel', args.run)})", ExitCode.FAILED)
    await watch.check_readable(client, handle)
    memo = await watch.memo_of(client, description, where.embedded, ended=True)
    if args.dry_run:
        return await _print(client, await _work_out(client, args.run), serves=memo is not None)
    activities = None if memo is None else watch.activities_of_memo(memo)
    workers = [] if memo is None else session.workers(client, memo["queues"], activities=activities)
    caught.check()
    async with session.running(workers):
        return await undo_and_follow(client, args.run, caught, where, memo or {}, args.report)


async def undo_and_follow(
    client: "Client",
    run: str,
    caught: session.Interrupts,
    where: session.Target,
    memo: dict[str, Any],
    report_file: str | None = None,
) -> ExitCode:
    """Undo an ended run, and tell how it went.

    Args:
        client: The client.
        run: Its workflow id.
        caught: Signals: the first one leaves the undo as it is.
        where: The server.
        memo: What the command that started the run noted down.
        report_file: Where the report of the undo goes, as JSON.
    """
    from pipeline_runner.cli.following import follow
    from pipeline_runner.engine.client import TooLargeError
    from pipeline_runner.engine.undoing import plan, start_undo

    what = await _work_out(client, run)
    if what.open is None and all(one.skipped for one in plan(what)):
        console.tell(f"nothing to undo: {run}")
        return ExitCode.OK
    try:
        undoing = what.open or await start_undo(client, what, memo)
    except TooLargeError as error:
        raise CommandError(str(error), ExitCode.FAILED) from None
    console.tell(f"undoing {run}: {undoing.id}")
    code = await follow(client, undoing, caught, where, cancels=False, report_file=report_file, undoes=run)
    return ExitCode.DIRTY if code is ExitCode.FAILED else code


async def _work_out(client: "Client", run: str) -> "Undoing":
    from pipeline_runner.engine.client import find
    from pipeline_runner.engine.closed import UnreadableRunError
    from pipeline_runner.engine.undoing import undoing

    _, description = await find(client, run)
    try:
        return await undoing(client, description)
    except UnreadableRunError as error:
        raise CommandError(str(error), ExitCode.FAILED) from None


async def _print(client: "Client", what: "Undoing", *, serves: bool) -> ExitCode:
    """Print what would be undone; ``serves``: whether this command would serve it."""
    from pipeline_runner.engine.client import has_workers
    from pipeline_runner.engine.undoing import plan

    if what.open is not None:
        console.tell(f"it is being undone now, by the run {what.workflow_id}")
        return ExitCode.OK
    planned = [*plan(what)]
    for one in planned:
        console.result(f"{_line(one)}\n")
    if all(one.skipped for one in planned):
        console.tell("nothing to undo")
    queues = dict.fromkeys(one.task_queue for one in planned if one.task_queue)
    for queue in queues:
        if not (serves and queue == what.log.task_queue) and not await has_workers(client, queue):
            console.tell(f'no worker serves the task queue "{queue}" now')
    return ExitCode.OK


def _line(one: "Planned") -> str:
    if one.skipped:
        return f"{one.path}: skipped: {one.reason}"
    if one.action is None:
        return f"{one.path}: cannot be undone: {one.reason}"
    shown = f"{one.path}: {one.action}"
    if one.reason is not None:
        return f"{shown}: its input cannot be rendered: {one.reason}"
    return shown if one.input is None else f"{shown} {json.dumps(one.input, ensure_ascii=False)}"
