"""Terminate a run at once. Nothing is undone: prefer run-pipeline cancel RUN.

To undo later what the run has done, use run-pipeline undo RUN.
"""

import argparse
from datetime import timedelta

from pipeline_runner.cli import console, logs, options, session
from pipeline_runner.cli.cancel import ended
from pipeline_runner.cli.exit_codes import ExitCode
from pipeline_runner.cli.main import CommandError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("run", metavar="RUN", help="the workflow id")
    parser.add_argument("--reason", metavar="TEXT", help="the reason, recorded in the run's history")
    options.add_server(parser)


def execute(args: argparse.Namespace) -> ExitCode:
    """Run the command."""
    with session.place(args) as where:
        return session.run_loop(_terminate(args, where))


async def _terminate(args: argparse.Namespace, where: session.Target) -> ExitCode:
    from temporalio.service import RPCError, RPCStatusCode

    from pipeline_runner.engine.client import ANSWER, is_open

    logs.follow(verbose=False)
    client = await session.connect(where)
    _, description = await session.find_run(client, args.run)
    if not is_open(description):
        raise CommandError(ended(args.run, description), ExitCode.FAILED)
    info = description.raw_description.workflow_execution_info
    chain = client.get_workflow_handle(
        args.run, first_execution_run_id=info.first_run_id or info.execution.run_id
    )
    try:
        await chain.terminate(reason=args.reason, rpc_timeout=timedelta(seconds=ANSWER))
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise
        raise CommandError(f'the run "{args.run}" has just ended', ExitCode.FAILED) from None
    console.tell(
        f"terminated: {args.run}. Nothing was undone, and its finally steps do not run; to undo what it has"
        f" done: {where.command('undo', args.run)}"
    )
    return ExitCode.OK
