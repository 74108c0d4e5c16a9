"""Send an event to a run, for a step that waits for it now or later.

The run refuses an event that none of its steps waits for, and a payload that does not fit its schema.
"""

import argparse
from typing import TYPE_CHECKING, Any

from pipeline_runner.cli import sending

if TYPE_CHECKING:
    from temporalio.client import Client, WorkflowHandle

    from pipeline_runner.cli.exit_codes import ExitCode


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("run", metavar="RUN", help="the workflow id")
    parser.add_argument("event", metavar="EVENT", help="the event's name")
    sending.add_payload(parser)
    sending.add_arguments(parser)


def execute(args: argparse.Namespace) -> "ExitCode":
    """Run the command."""
    payload = sending.payload_of(args)

    async def send(_: "Client", run: "WorkflowHandle[Any, Any]") -> str:
        from pipeline_runner.engine import messages

        await messages.send(run, args.event, payload)
        return f"sent: {args.event}"

    return sending.tell(args, send)
