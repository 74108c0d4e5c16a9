"""What ``approve``, ``reject`` and ``send`` share: they tell a run something, and wait for its answer."""

import argparse
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline_runner.cli import console, logs, options, session, watch
from pipeline_runner.cli.cancel import ended
from pipeline_runner.cli.exit_codes import ExitCode
from pipeline_runner.cli.main import CommandError

if TYPE_CHECKING:
    from temporalio.client import Client, WorkflowExecutionDescription, WorkflowHandle

Telling = Callable[["Client", "WorkflowHandle[Any, Any]"], Awaitable[str]]
"""Tells a run something, and returns the line that says so."""

_MOST = 2 * 1024 * 1024
"""Bytes of a file with a payload: more than Temporal takes."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that all of them take last."""
    options.add_identity(parser)
    options.add_server(parser)


def add_payload(parser: argparse.ArgumentParser) -> None:
    """Add ``--payload`` and ``--payload-file``."""
    given = parser.add_mutually_exclusive_group()
    given.add_argument("--payload", metavar="VALUE", help="the payload, as YAML or JSON (default: null)")
    given.add_argument("--payload-file", metavar="FILE", help="a YAML or JSON file with the payload")


def payload_of(args: argparse.Namespace) -> Any:
    """Return the payload that the arguments give.

    Raises:
        CommandError: It cannot be read, or is no JSON data.
    """
    from pipeline_runner.language.input_text import InputTextError, parse_input

    text, what = args.payload, "--payload"
    if args.payload_file is not None:
        what = args.payload_file
        text = _read(what)
    if text is None:
        return None
    try:
        return parse_input(text, True)
    except InputTextError as error:
        raise CommandError(f"{what}: {error}") from None


def _read(file: str) -> str:
    try:
        with Path(file).open("rb") as opened:
            data = opened.read(_MOST + 1)
        if len(data) > _MOST:
            raise CommandError(f"{file} has more than {_MOST:,} bytes")
        return data.decode()
    except OSError as error:
        raise CommandError(f"{file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise CommandError(f"{file} is not UTF-8") from None


def tell(args: argparse.Namespace, telling: Telling) -> ExitCode:
    """Tell the run that the arguments name, and say what has come of it.

    Raises:
        CommandError: The run is not open, nobody serves it, or it has not taken what it was told.
    """
    with session.place(args) as where:
        return session.run_loop(_tell(args, where, telling))


async def _tell(args: argparse.Namespace, where: session.Target, telling: Telling) -> ExitCode:
    from pipeline_runner.engine.client import find, has_workers, is_open
    from pipeline_runner.engine.messages import RefusedError, UnansweredError

    logs.follow(verbose=False)
    client = await session.connect(where, identity=args.identity)
    try:
        _, description = await find(client, args.run)
        if not is_open(description):
            raise LookupError(ended(args.run, description))
        if not await has_workers(client, description.task_queue):
            raise LookupError(f"nothing was sent: {await _remedy(client, description, where)}")
        info = description.raw_description.workflow_execution_info
        chain = client.get_workflow_handle(
            args.run, first_execution_run_id=info.first_run_id or info.execution.run_id
        )
        console.tell(await telling(client, chain))
    except (LookupError, RefusedError) as error:
        raise CommandError(str(error), ExitCode.FAILED) from None
    except UnansweredError as error:
        remedy = await _remedy(client, description, where)
        raise CommandError(f"{error}. {remedy[0].upper()}{remedy[1:]}", ExitCode.FAILED) from None
    return ExitCode.OK


async def _remedy(
    client: "Client", description: "WorkflowExecutionDescription", where: session.Target
) -> str:
    """Say what to do about a run that no worker serves."""
    from pipeline_runner.cli.following import unserved_line

    if await watch.memo_of(client, description, where.embedded) is not None:
        follow = where.command("watch", description.id)
        return f"no worker serves the run. Follow it in another terminal ({follow}), and try again"
    return unserved_line(client, where, description.id, description.task_queue)
