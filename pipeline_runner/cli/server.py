"""Run the embedded Temporal server and its web UI, with a worker, until stopped."""

import argparse
import socket

from pipeline_runner.cli import console, options, session, worker
from pipeline_runner.cli.exit_codes import ExitCode
from pipeline_runner.cli.main import CommandError

PORT = 7233
UI_PORT = 8233


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    options.add_serving(parser)
    options.add_codec(parser)
    parser.add_argument("--no-worker", action="store_true", help="start only the server, without a worker")
    parser.add_argument("--port", type=int, help=f"default: {PORT} if it is free")
    parser.add_argument("--ui-port", type=int, help=f"default: {UI_PORT} if it is free")


def execute(args: argparse.Namespace) -> ExitCode:
    """Run the command."""
    if args.no_worker and (args.path or args.activities or args.task_queue):
        raise CommandError("--no-worker cannot be used with PATH, --activities or --task-queue")
    found = worker.load_served(args.path, args.activities)
    port, ui_port = args.port or _if_free(PORT), args.ui_port or _if_free(UI_PORT)
    with session.embedded_place(args.codec, stays=True, port=port, ui_port=ui_port) as where:
        server = where.embedded
        assert server is not None
        console.tell(f"Temporal server: {server.address}\nweb UI: {server.ui}\ndatabase: {server.folder}")
        if args.port and not server.address.endswith(f":{args.port}"):
            console.tell("another command has already started the server, on a different port")
        return session.run_loop(_stay() if args.no_worker else worker.serve(args, found, where))


async def _stay() -> ExitCode:
    await worker.wait_until_stopped(["no worker: this command runs no pipelines"])
    return ExitCode.OK


def _if_free(port: int) -> int:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return 0
        return port
