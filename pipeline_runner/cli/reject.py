"""Reject what a step of a run waits for. The step fails with the error type ApprovalRejected.

STEP is the path of the step, such as deploy.ok, copy[3].ok or child/ok, or its id if no other open approval
of the run has it.
"""

import argparse
from typing import TYPE_CHECKING, Any

from pipeline_runner.cli import approve, sending

if TYPE_CHECKING:
    from temporalio.client import Client, WorkflowHandle

    from pipeline_runner.cli.exit_codes import ExitCode


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    approve.add_step(parser)
    sending.add_arguments(parser)


def execute(args: argparse.Namespace) -> "ExitCode":
    """Run the command."""

    async def reject(client: "Client", run: "WorkflowHandle[Any, Any]") -> str:
        from pipeline_runner.engine import messages

        step, _ = await messages.answer(client, run, args.step, approves=False, comment=args.comment)
        return f"rejected: {step}"

    return sending.tell(args, reject)
