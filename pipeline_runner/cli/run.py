"""Check a pipeline file, run it, follow it, and print its output as JSON.

The output goes to standard output, all messages go to standard error. Ctrl-C cancels
and undoes the run; a second Ctrl-C detaches from it.
"""

# Heavy modules are imported by execute, while the server boots.
import argparse
import os
from typing import TYPE_CHECKING

from pipeline_runner.cli import console, options
from pipeline_runner.cli.exit_codes import ExitCode
from pipeline_runner.cli.main import CommandError

if TYPE_CHECKING:
    from pipeline_runner.server.embedded import Joining


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("file", help="a pipeline file")
    parser.add_argument(
        "-i",
        "--input",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an input; overrides --input-file",
    )
    parser.add_argument("--input-file", metavar="FILE", help="a YAML or JSON file with inputs")
    parser.add_argument(
        "--workflow-id",
        metavar="ID",
        help="default: the pipeline's workflow_id, or else its name and a random suffix",
    )
    parser.add_argument(
        "--detach", action="store_true", help="start the run, print its id, and leave it to other workers"
    )
    parser.add_argument(
        "--then-undo",
        action="store_true",
        help="a rehearsal: undo everything once the run has completed; exit code 0 only if nothing is left",
    )
    options.add_following(parser)
    options.add_activities(parser)
    parser.add_argument(
        "--task-queue",
        metavar="QUEUE",
        help="task queue on a configured server (default: the pipeline's task_queue, or else pipelines)",
    )
    options.add_identity(parser)
    options.add_server(parser)


def execute(args: argparse.Namespace) -> ExitCode:
    """Run the command."""
    if args.detach and args.then_undo:
        raise CommandError("--then-undo waits for the run to end, and --detach does not: use one of them")
    console.show_for_now(f"checking {args.file}")
    from pipeline_runner.cli import session

    # A detached run needs a server that keeps running: it exists already, or the run is refused.
    if args.detach or not os.path.isfile(args.file):
        return _checked_and_run(args, None)
    with session.server_begun(args) as server:
        return _checked_and_run(args, server)


def _checked_and_run(args: argparse.Namespace, server: "Joining | None") -> ExitCode:
    from pipeline_runner.cli.starting import check_and_run

    return check_and_run(args, server)
