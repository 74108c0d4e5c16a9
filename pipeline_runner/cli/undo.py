"""Undo what an ended run has left done: of a completed run everything, else what is left.

The undo is a run of its own. It uses the values that were recorded when the steps ran, and what was undone
before is not undone again. The exit code is 0 if nothing is left, and 3 otherwise.
"""

import argparse
import json
from functools import partial
from typing import TYPE_CHECKING

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
    from pipeline_runner.cli.following import follow
    from pipeline_runner.engine.client import TooLargeError, find, is_open
    from pipeline_runner.engine.undoing import plan, start_undo

    logs.follow(verbose=args.verbose)
    client = await session.connect(where)
    try:
        handle, description = await find(client, args.run)
    except LookupError as error:
        raise CommandError(f"{error}; ended runs are kept for a limited time", ExitCode.FAILED) from None
    if is_open(description):
        told = f'the run "{args.run}" is still open: cancel it, and it undoes itself'
        raise CommandError(f"{told} ({where.command('cancel', args.run)})", ExitCode.FAILED)
    await watch.check_readable(client, handle)
    what = await _work_out(client, args.run)
    planned = [] if what.open else [*plan(what)]
    if args.dry_run:
        return await _print(client, planned, what)
    if not planned and what.open is None:
        console.tell(f"nothing to undo: {args.run}")
        return ExitCode.OK
    memo = await watch.memo_of(client, description, where.embedded, ended=True)
    activities = None if memo is None else watch.activities_of_memo(memo)
    caught.check()
    try:
        undoing = what.open or await start_undo(client, what, memo or {})
    except TooLargeError as error:
        raise CommandError(str(error), ExitCode.FAILED) from None
    console.tell(f"run: {undoing.id}")
    workers = [] if memo is None else session.workers(client, memo["queues"], activities=activities)
    async with session.running(workers):
        code = await follow(
            client, undoing, caught, where, cancels=False, report_file=args.report, prints=False
        )
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


async def _print(client: "Client", planned: "list[Planned]", what: "Undoing") -> ExitCode:
    """Print what would be undone."""
    from pipeline_runner.engine.client import has_workers

    if what.open is not None:
        console.tell(f"it is being undone now, by the run {what.workflow_id}")
    for one in planned:
        console.result(f"{_line(one)}\n")
    if not planned and what.open is None:
        console.tell("nothing to undo")
    for queue in dict.fromkeys(one.task_queue for one in planned if one.task_queue):
        if not await has_workers(client, queue):
            console.tell(f'no worker serves the task queue "{queue}" now')
    return ExitCode.OK


def _line(one: "Planned") -> str:
    if one.action is None:
        return f"{one.path}: cannot be undone: {one.reason}"
    shown = f"{one.path}: {one.action}"
    if one.reason is not None:
        return f"{shown}: its input cannot be rendered: {one.reason}"
    return shown if one.input is None else f"{shown} {json.dumps(one.input, ensure_ascii=False)}"
