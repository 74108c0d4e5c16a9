"""Arguments that several commands share."""

import argparse
import os
import re
from pathlib import Path

from pipeline_runner.cli.main import CommandError


def add_activities(parser: argparse.ArgumentParser) -> None:
    """Add ``--activities``, which may be repeated."""
    parser.add_argument(
        "--activities",
        action="append",
        default=[],
        metavar="MODULE",
        help="a Python module with activities",
    )


def add_serving(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of commands that serve runs until they are stopped."""
    parser.add_argument("path", nargs="*", help="pipeline files and directories to serve by name")
    add_activities(parser)
    _add_verbose(parser, "also log tracebacks of activities")
    parser.add_argument(
        "--task-queue",
        metavar="QUEUE",
        help="default: pipelines, and the task queues that the served pipelines name",
    )


def add_following(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of commands that follow a run to its end."""
    _add_verbose(parser, "also show what activities log")
    parser.add_argument(
        "--events", choices=["json"], help="write standard error as JSON objects, one per line"
    )
    parser.add_argument("--report", metavar="FILE", help="write the report to FILE, as JSON")


def _add_verbose(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("-v", "--verbose", action="store_true", help=what)


def check_report(file: str) -> None:
    """Check before the start whether a report can be written to a file.

    Raises:
        CommandError: It cannot.
    """
    path = Path(file)
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise CommandError(f"the report cannot be written to {file}: nothing was started")


def add_server(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that select the server."""
    group = parser.add_argument_group(
        "server", "default: Temporal's own configuration, or else an embedded server"
    )
    group.add_argument("--address", metavar="HOST:PORT", help="the Temporal server")
    group.add_argument("--namespace", help="the Temporal namespace")
    group.add_argument("--profile", help="a profile of Temporal's configuration file")
    add_codec(parser)


def add_identity(parser: argparse.ArgumentParser) -> None:
    """Add ``--identity``."""
    parser.add_argument(
        "--identity", metavar="NAME", help="who you are, as the server records it (default: USER@HOST)"
    )


def server_options(args: argparse.Namespace) -> tuple[str, ...]:
    """Return the given options of :func:`add_server`, for a command that is shown to the user."""
    given = {name: getattr(args, name) for name in ("address", "namespace", "profile")}
    options = [word for name, value in given.items() if value is not None for word in (f"--{name}", value)]
    return (*options, *codec_option(args.codec))


def codec_option(codec: str | None) -> tuple[str, ...]:
    """Return ``--codec`` in the same way, without the user and the password of a URL."""
    if codec is None:
        return ()
    return "--codec", re.sub(r"(?<=://)[^/?#]*@", "USER:PASSWORD@", codec)


def add_codec(parser: argparse.ArgumentParser) -> None:
    """Add ``--codec``."""
    parser.add_argument(
        "--codec",
        metavar="CODEC",
        help="encode and decode payloads: MODULE:NAME of a PayloadCodec or of a callable that returns one,"
        " or the URL of a codec server",
    )
