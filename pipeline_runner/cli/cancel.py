"""Cancel a run. The run undoes what it has done, and then ends.

This command does not wait for the end. To follow the run, use run-pipeline watch RUN.
"""

import argparse
import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from pipeline_runner.cli import console, logs, options, session, watch
from pipeline_runner.cli.exit_codes import ExitCode
from pipeline_runner.cli.main import CommandError

if TYPE_CHECKING:
    from temporalio.client import Client, WorkflowExecutionDescription, WorkflowHandle

_LOOK = 0.2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("run", metavar="RUN", help="the workflow id")
    parser.add_argument(
        "--reason", default="", metavar="TEXT", help="the reason, recorded in the run's error and history"
    )
    options.add_server(parser)


def execute(args: argparse.Namespace) -> ExitCode:
    """Run the command."""
    with session.place(args) as where:
        return session.run_loop(_cancel(args, where))


async def _cancel(args: argparse.Namespace, where: session.Target) -> ExitCode:
    from temporalio.service import RPCError, RPCStatusCode

    from pipeline_runner.engine.client import ANSWER, is_open

    logs.follow(verbose=False)
    client = await session.connect(where)
    _, description = await session.find_run(client, args.run)
    if not is_open(description):
        raise CommandError(ended(args.run, description), ExitCode.FAILED)
    asked = description.raw_description.workflow_extended_info.cancel_requested
    info = description.raw_description.workflow_execution_info
    chain = client.get_workflow_handle(
        args.run, first_execution_run_id=info.first_run_id or info.execution.run_id
    )
    try:
        await chain.cancel(reason=args.reason, rpc_timeout=timedelta(seconds=ANSWER))
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise
        raise CommandError(f'the run "{args.run}" has just ended', ExitCode.FAILED) from None
    again = " again" if asked else ""
    console.tell(
        f"cancellation requested{again}: {args.run}. The run undoes what it has done; to follow it:"
        f" {where.command('watch', args.run)}"
    )
    if await _is_left_lying(chain):
        console.tell(await _remedy(client, args.run, description, where))
    return ExitCode.OK


def ended(run: str, description: "WorkflowExecutionDescription") -> str:
    """Say that a run is not open."""
    state = description.status.name.lower().replace("_", " ") if description.status else "ended"
    return f'the run "{run}" is not open: its status is {state}'


async def _is_left_lying(handle: "WorkflowHandle[Any, Any]") -> bool:
    """Tell whether no worker takes the cancellation within a moment."""
    from pipeline_runner.engine.follow import LYING, is_unserved

    while True:
        described = (await handle.describe()).raw_description
        if is_unserved(described, LYING):
            return True
        if not is_unserved(described, 0.0):
            return False
        await asyncio.sleep(_LOOK)


async def _remedy(
    client: "Client", run: str, description: "WorkflowExecutionDescription", where: session.Target
) -> str:
    """Say what to do about a run that no worker serves."""
    from pipeline_runner.cli.following import unserved_line

    if await watch.memo_of(client, description, where.embedded) is not None:
        return (
            f"no worker serves the run: it will be undone when you follow it ({where.command('watch', run)})"
        )
    return unserved_line(client, where, run, description.task_queue)
