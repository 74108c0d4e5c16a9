"""The entry point: finds the sub-command, and is the one place where failures end.

Imports nothing heavy: a sub-command's module is imported when it is asked for.
"""

import argparse
import importlib
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NoReturn

from pipeline_runner.cli.exit_codes import ExitCode

COMMANDS = {
    "run": "check a pipeline file, run it, follow it, print its output",
    "validate": "check files and folders, without running anything",
    "watch": "follow a run to its end, and go on with one that was interrupted",
    "worker": "serve runs, pipelines by name, and activities, until stopped",
    "server": "keep the embedded Temporal server and its web UI running, with a worker",
    "activities": "list what a step can name",
    "schema": "print the JSON Schema of pipeline files",
}
"""Every sub-command is the module of that name in this package."""


class CommandError(Exception):
    """A command cannot go on. The message is for the user; no traceback is shown."""

    def __init__(self, message: str, code: ExitCode = ExitCode.USAGE) -> None:
        super().__init__(message)
        self.code = code


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise CommandError(f"{message}\n{self.format_usage().rstrip()}")


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, text in COMMANDS.items()]
    return "\n".join(
        [
            "usage: run-pipeline COMMAND ...",
            "       run-pipeline FILE ...          short for: run-pipeline run FILE ...",
            "",
            "Run YAML pipelines on Temporal, undone in reverse order when they fail.",
            "",
            *lines,
            "",
            "run-pipeline COMMAND --help tells more.",
        ]
    )


def _split(arguments: Sequence[str]) -> tuple[str, Sequence[str]]:
    """Return the sub-command and its arguments; a file alone means ``run``."""
    first = arguments[0]
    if first in COMMANDS:
        return first, arguments[1:]
    if first.startswith("-") or Path(first).suffix in (".yaml", ".yml") or Path(first).exists():
        return "run", arguments
    close = get_close_matches(first, COMMANDS, n=1)
    hint = f'did you mean "{close[0]}"?' if close else f"the commands are {', '.join(COMMANDS)}"
    raise CommandError(f'there is no command and no file "{first}": {hint}')


def run(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code; whatever fails is told on standard error."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        sys.stdout.write(_overview() + "\n")
        return ExitCode.OK if arguments else ExitCode.USAGE
    if arguments[0] == "--version":
        from importlib.metadata import version

        sys.stdout.write(f"run-pipeline {version('pipeline-runner')}\n")
        return ExitCode.OK
    try:
        name, rest = _split(arguments)
        module = importlib.import_module(f"pipeline_runner.cli.{name}")
        parser = _Parser(
            prog=f"run-pipeline {name}",
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(parser)
        return int(module.execute(parser.parse_args(rest)))
    except CommandError as error:
        sys.stderr.write(f"run-pipeline: {error}\n")
        return error.code
    except KeyboardInterrupt:
        return ExitCode.DETACHED
    except BrokenPipeError:
        # The reader of our output has gone, as with "| head".
        return ExitCode.FAILED
    except Exception:  # noqa: BLE001 - the last place where a mistake of our own can be told
        traceback.print_exc()
        sys.stderr.write("run-pipeline: this is a mistake in run-pipeline itself, please report it\n")
        return ExitCode.DIRTY


def main() -> NoReturn:
    """Run as a program.

    Ends with ``os._exit``: with an RPC in flight, the ordinary exit of an interpreter that
    has used the Temporal SDK hangs or crashes now and then (sdk-python issue 300).
    """
    try:
        code: int = run(sys.argv[1:])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else ExitCode.USAGE
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            code = code or ExitCode.FAILED
    os._exit(code)
