"""Resume a run that failed or was terminated.

If nothing was undone, the run goes on exactly where it stopped. Otherwise it goes on from the first step that
was undone or had failed. With --from STEP, it goes back to that step first, and undoes what came after.
"""

import argparse
from functools import partial
from typing import TYPE_CHECKING

from pipeline_runner.cli import console, logs, options, session, watch
from pipeline_runner.cli.exit_codes import ExitCode
from pipeline_runner.cli.main import CommandError

if TYPE_CHECKING:
    from temporalio.client import Client, WorkflowExecutionDescription

    from pipeline_runner.engine.resuming import Resuming


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("run", metavar="RUN", help="the workflow id")
    parser.add_argument(
        "--from", dest="step", metavar="STEP", help="a step of the pipeline's own list to go back to"
    )
    parser.add_argument("--dry-run", action="store_true", help="print where the run would continue")
    options.add_following(parser)
    options.add_server(parser)


def execute(args: argparse.Namespace) -> ExitCode:
    """Run the command."""
    if args.report is not None:
        options.check_report(args.report)
    with session.place(args) as where:
        return session.run_loop(session.interruptible(partial(_resume, args, where)))


async def _resume(args: argparse.Namespace, where: session.Target, caught: session.Interrupts) -> ExitCode:
    from pipeline_runner.cli.following import follow
    from pipeline_runner.engine.client import ConflictError, TooLargeError, is_open
    from pipeline_runner.engine.resuming import start_resumed

    logs.follow(verbose=args.verbose)
    client = await session.connect(where)
    handle, description = await session.find_run(client, args.run, ended=True)
    if is_open(description):
        told = f'the run "{args.run}" is still open; to follow it: {where.command("watch", args.run)}'
        raise CommandError(told, ExitCode.FAILED)
    await watch.check_readable(client, handle)
    what = await _work_out(client, description, args)
    if args.dry_run:
        return _print(what)
    memo = await watch.memo_of(client, description, where.embedded, ended=True)
    activities = None if memo is None else watch.activities_of_memo(memo)
    workers = [] if memo is None else session.workers(client, memo["queues"], activities=activities)
    caught.check()
    try:
        resumed = await start_resumed(client, what, memo or {})
    except (ConflictError, TooLargeError) as error:
        raise CommandError(str(error), ExitCode.FAILED) from None
    console.tell(f"resuming {args.run} with {what.step}")
    async with session.running(workers):
        return await follow(client, resumed, caught, where, cancels=True, report_file=args.report)


async def _work_out(
    client: "Client", description: "WorkflowExecutionDescription", args: argparse.Namespace
) -> "Resuming":
    from pipeline_runner.engine.closed import UnreadableRunError
    from pipeline_runner.engine.resuming import NotResumableError, resuming

    try:
        return await resuming(client, description, args.step)
    except UnreadableRunError as error:
        raise CommandError(str(error), ExitCode.FAILED) from None
    except NotResumableError as error:
        told = f'the run "{args.run}" cannot be resumed: {error}'
        raise CommandError(told, ExitCode.FAILED) from None


def _print(what: "Resuming") -> ExitCode:
    for path in what.undoes_first:
        console.result(f"undo {path}\n")
    console.result(f"go on with {what.step}\n")
    return ExitCode.OK
