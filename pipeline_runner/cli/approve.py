"""Approve what a step of a run waits for.

STEP is the path of the step, such as deploy.ok, copy[3].ok or child/ok, or its id if no other open approval
of the run has it.
"""

import argparse
from typing import TYPE_CHECKING, Any

from pipeline_runner.cli import sending

if TYPE_CHECKING:
    from temporalio.client import Client, WorkflowHandle

    from pipeline_runner.cli.exit_codes import ExitCode


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    add_step(parser)
    sending.add_payload(parser)
    sending.add_arguments(parser)


def add_step(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say which step is answered, and why."""
    parser.add_argument("run", metavar="RUN", help="the workflow id")
    parser.add_argument("step", metavar="STEP", help="the step's path, or its id")
    parser.add_argument("--comment", default="", metavar="TEXT", help="a comment, recorded in the history")


def execute(args: argparse.Namespace) -> "ExitCode":
    """Run the command."""
    payload = sending.payload_of(args)

    async def approve(client: "Client", run: "WorkflowHandle[Any, Any]") -> str:
        from pipeline_runner.engine import messages

        step, missing = await messages.answer(
            client, run, args.step, approves=True, payload=payload, comment=args.comment
        )
        more = f": {missing} more {'approval is' if missing == 1 else 'approvals are'} needed"
        return f"approved: {step}{more if missing else ''}"

    return sending.tell(args, approve)
