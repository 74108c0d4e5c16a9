"""Decide about the failed step of a run whose pipeline has on_failure: ask.

retry runs the step again, skip goes on without it, and undo undoes the run.
"""

import argparse
from typing import TYPE_CHECKING, Any

from pipeline_runner.cli import sending

if TYPE_CHECKING:
    from temporalio.client import Client, WorkflowHandle

    from pipeline_runner.cli.exit_codes import ExitCode

_THEN = {
    "retry": "the step runs again",
    "skip": "the run goes on without the step",
    "undo": "the run is undone",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("run", metavar="RUN", help="the workflow id; a child that asks has its own")
    parser.add_argument("decision", metavar="WHAT", choices=_THEN, help="retry, skip or undo")
    sending.add_arguments(parser)


def execute(args: argparse.Namespace) -> "ExitCode":
    """Run the command."""

    async def decide(_: "Client", run: "WorkflowHandle[Any, Any]") -> str:
        from pipeline_runner.engine import messages

        step = await messages.decide(run, args.decision)
        return f"decided: {args.decision} {step}: {_THEN[args.decision]}"

    return sending.tell(args, decide)
