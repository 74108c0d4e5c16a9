"""The entry point: finds the sub-command, and handles all errors in one place.

Imports nothing heavy: a sub-command's module is imported when it is needed.
"""

import argparse
import importlib
import logging
import os
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Sequence
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import NoReturn

from pipeline_runner.cli import console
from pipeline_runner.cli.exit_codes import ExitCode

COMMANDS = {
    "run": "check a pipeline file, run it, follow it, and print its output",
    "validate": "check files and directories without running anything",
    "plan": "show what would be undone if a step failed",
    "list": "list runs, newest first",
    "show": "show a run with its steps, inputs, outputs and errors",
    "watch": "follow a run to its end, and resume it if it was interrupted",
    "cancel": "cancel a run and undo what it has done",
    "resume": "go on with a run that failed or was terminated",
    "terminate": "end a run at once, without undo",
    "undo": "undo an ended run: everything, or what is left",
    "approve": "approve what a step of a run waits for",
    "reject": "reject it, which fails the step",
    "decide": "decide about the failed step of a run: retry, skip or undo",
    "send": "send an event to a run",
    "worker": "serve runs, pipelines by name, and activities until stopped",
    "server": "run the embedded Temporal server and its web UI, with a worker",
    "activities": "list the activities that steps can use",
    "explain": "explain a rule of the checker",
    "schema": "print the JSON Schema of pipeline files",
}
"""Every sub-command is the module of that name in this package."""


early: list[int] = []
"""Signals before a command counts them. An exception in their handler may be lost, if it is raised where no
exception can propagate, such as in a finalizer."""
_programs: list[None] = []
"""Has an element if this process belongs to the command alone, as set by :func:`main`."""


class CommandError(Exception):
    """A command cannot continue. The message is for the user; no traceback is shown."""

    def __init__(self, message: str, code: ExitCode = ExitCode.USAGE) -> None:
        super().__init__(message)
        self.code = code


class _Helped(Exception):
    """The parser has shown the help."""


class _Parser(argparse.ArgumentParser):
    def _print_message(self, message: str, file: object = None) -> None:
        console.result(message)

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        raise _Helped

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
            "Run YAML pipelines on Temporal. If a pipeline fails, its steps are undone in reverse order.",
            "",
            *lines,
            "",
            "For help on a command: run-pipeline COMMAND --help",
        ]
    )


def _split(arguments: Sequence[str]) -> tuple[str, Sequence[str]]:
    """Return the sub-command and its arguments. A file alone means ``run``."""
    first = arguments[0]
    if first in COMMANDS:
        return first, arguments[1:]
    if first.startswith("-") or Path(first).suffix in (".yaml", ".yml") or Path(first).exists():
        return "run", arguments
    close = get_close_matches(first, COMMANDS, n=1)
    hint = f'did you mean "{close[0]}"?' if close else f"the commands are {', '.join(COMMANDS)}"
    raise CommandError(f'"{first}" is neither a command nor a file: {hint}')


def _check_surroundings(arguments: Sequence[str]) -> None:
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise CommandError(f"an argument is not UTF-8: {argument!r}") from None
    try:
        os.getcwd()
    except OSError as error:
        raise CommandError(f"the current directory cannot be used: {error.strerror}") from None


def run(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code. Every error is reported on standard error."""
    try:
        return _dispatch(arguments)
    except CommandError as error:
        console.tell(f"run-pipeline: {error}")
        return error.code
    except console.OutputError as error:
        console.tell(f"run-pipeline: the output cannot be written: {error}")
        return ExitCode.FAILED
    except _Helped:
        return ExitCode.OK
    except KeyboardInterrupt:
        console.tell("interrupted: nothing was started")
        return ExitCode.DETACHED
    except Exception as error:  # noqa: BLE001 - the last place where an internal error can be reported
        _report(error)
        return ExitCode.INTERNAL


def _dispatch(arguments: Sequence[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        console.result(_overview() + "\n")
        return ExitCode.OK if arguments else ExitCode.USAGE
    if arguments[0] == "--version":
        from importlib.metadata import version

        console.result(f"run-pipeline {version('pipeline-runner')}\n")
        return ExitCode.OK
    _check_surroundings(arguments)
    name, rest = _split(arguments)
    module = importlib.import_module(f"pipeline_runner.cli.{name}")
    parser = _Parser(
        prog=f"run-pipeline {name}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(parser)
    args = parser.parse_args(rest)
    if getattr(args, "events", None) == "json":
        console.tell_objects()
    return int(module.execute(args))


def _report(error: Exception) -> None:
    """Report an internal error in one line, and write its location to a file."""
    first = (str(error).splitlines() or [""])[0]
    told = f"run-pipeline: internal error in run-pipeline ({type(error).__name__}: {first})"
    text = "".join(traceback.format_exception(error))
    for directory_of in (_state_directory, tempfile.gettempdir):
        with suppress(OSError):  # also if there is no temporary directory
            descriptor, path = tempfile.mkstemp(prefix="error-", suffix=".txt", dir=directory_of())
            with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
            console.tell(f"{told}; please report it and attach {path}")
            return
    console.tell(f"{text}{told}; please report it")


def _state_directory() -> str:
    from pipeline_runner.server.devserver import ServerError
    from pipeline_runner.server.embedded import state_folder

    try:
        return str(state_folder())
    except ServerError:
        return tempfile.gettempdir()


def _interrupt(number: int, _: object) -> NoReturn:
    early.append(number)
    raise KeyboardInterrupt


def leave_within(seconds: float, code: ExitCode) -> None:
    """End the command's process with this code if closing takes longer.

    An activity in a thread cannot be stopped, and a worker cannot stop without an answer from the
    server. A process that only calls functions of the command continues.
    """
    if not _programs:
        return
    timer = threading.Timer(seconds, os._exit, (int(code),))
    timer.daemon = True
    timer.start()


def main() -> NoReturn:
    """Run as a program.

    Ends with ``os._exit``: with an RPC in flight, the ordinary exit of a Python process that has used
    the Temporal SDK sometimes hangs or crashes (sdk-python issue 300).
    """
    _programs.append(None)
    console.keep_stdout()
    # Until a run is followed, both signals have the same meaning: stop here.
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # it is ignored on purpose
        signal.signal(signal.SIGINT, _interrupt)
    code = run(sys.argv[1:])
    logging.shutdown()
    os._exit(code)
