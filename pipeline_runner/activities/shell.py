"""The ``shell`` family: programs that run on the worker's machine.

A program is started from a list of arguments, never through a shell. The step ends with the program,
and no process that the program started outlives the step, its cancellation, its timeout, or a worker
killed with -9 (see ``guardian.py``). A program that should keep running must be started by something
permanent, such as the service manager.
"""

import asyncio
import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from temporalio.exceptions import ApplicationError

from pipeline_runner.activities.toolkit.context import absolute, working_directory
from pipeline_runner.activities.toolkit.errors import refused
from pipeline_runner.activities.toolkit.heartbeat import heartbeating, time_left
from pipeline_runner.activities.toolkit.json_text import parse
from pipeline_runner.activities.toolkit.output import STDOUT_ENCODED, Output
from pipeline_runner.activities.toolkit.parameters import Scalar, as_text, built_in, doc
from pipeline_runner.activities.toolkit.programs import (
    GuardianLostError,
    LeftRunningError,
    Program,
    StartError,
)
from pipeline_runner.activities.toolkit.sizes import encoded_size
from pipeline_runner.core.errors import UNCERTAIN
from pipeline_runner.core.model import Retry, Timeouts

GRACE = 2.0
"""Seconds between SIGTERM and SIGKILL."""
DRAIN = 1.0
"""Seconds to wait for the end of the output after the program itself has ended."""
_FIRST_LINE = 256
"""The number of bytes of a script's first line that the system reads."""


@dataclass(frozen=True, kw_only=True)
class RunInput:
    """The program to run, and how to run it."""

    command: Annotated[list[Scalar], doc("The program and its arguments, run without a shell.", min_length=1)]
    env: Annotated[dict[str, Scalar], doc("Environment variables to add to the worker's.")] = field(
        default_factory=dict
    )
    cwd: Annotated[str | None, doc("The working directory. Default: the run's directory.")] = None
    stdin: Annotated[str | None, doc("The string to pass on standard input. Default: it is empty.")] = None
    parse: Annotated[
        Literal["json", "lines", "none"],
        doc("How to parse standard output into `parsed`: as one JSON value or as a list of lines."),
    ] = "none"


@dataclass(frozen=True, kw_only=True)
class RunOutput:
    """How the program ended."""

    exit_code: Annotated[int, doc("Always 0, because any other exit code fails the step.")]
    stdout: Annotated[str, doc("Standard output. Empty if it was parsed.")]
    stderr: Annotated[str, doc("The end of standard error.")]
    parsed: Annotated[Any, doc("The parsed standard output. Null without `parse`.")]
    truncated: Annotated[
        bool,
        doc(
            "Whether output was dropped, because there was more than 768 KiB of standard output"
            " or 256 KiB of standard error."
        ),
    ]


@built_in("shell.run", timeouts=Timeouts(heartbeat=10.0), retry=Retry(maximum_attempts=1))
async def run(parameters: RunInput) -> RunOutput:
    """Run a program and wait until it exits. An exit code other than 0 fails the step."""
    output = Output()
    async with heartbeating():
        code = await _run(parameters, output)
    if code != 0:
        raise output.failure(code)
    return _result(output, parameters.parse)


async def _run(parameters: RunInput, output: Output) -> int:
    """Run the program, and return its exit code when nothing of it is left."""
    command, environment, cwd = _prepared(parameters)
    stdin = None if parameters.stdin is None else parameters.stdin.encode()
    with _explained(command[0], environment, cwd):
        program = Program(output.add, stdin)
        try:
            await program.start(command, environment, cwd)
            await program.exited.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(DRAIN):
                    await program.drained.wait()
        finally:
            await program.end(0 if program.exited.is_set() else time_left(GRACE))
        if program.code is None:
            raise GuardianLostError
        return program.code


def _prepared(parameters: RunInput) -> tuple[list[bytes], dict[bytes, bytes], bytes]:
    """Return the command, the environment and the directory in the system's encoding."""
    try:
        cwd = working_directory() if parameters.cwd is None else absolute(parameters.cwd)
    except OSError as error:
        raise _start_error(error.errno or 0, "the program") from None
    environment = os.environ | {name: as_text(value) for name, value in parameters.env.items()}
    try:
        command = [os.fsencode(as_text(part)) for part in parameters.command]
        encoded = {os.fsencode(name): os.fsencode(value) for name, value in environment.items()}
        if any(b"\0" in text for text in (*command, *encoded, *encoded.values(), os.fsencode(cwd))):
            raise ValueError("a null byte")
        if any(not name or b"=" in name for name in encoded):
            raise ValueError("a name that is none")
    except ValueError:
        # From None: Python's own message may show the string that it rejects.
        raise refused(
            "the command or its environment contains a character that cannot be passed to a program",
            "InvalidInput",
        ) from None
    return command, encoded, os.fsencode(cwd)


@contextmanager
def _explained(program: bytes, environment: dict[bytes, bytes], cwd: bytes) -> Iterator[None]:
    """Turn errors between start and end into errors for people."""
    name = os.fsdecode(program)
    try:
        yield
    except StartError as error:
        if error.directory:
            reason = os.strerror(error.number).lower()
            message = f"cannot run in the directory {os.fsdecode(cwd)}: {reason}"
            raise refused(message, "BadWorkingDirectory") from None
        if error.number == errno.ENOENT and (missing := _interpreter(program, environment, cwd)) is not None:
            raise refused(f"cannot run {name}: {missing}", "CommandNotExecutable") from None
        raise _start_error(error.number, name) from None
    except GuardianLostError:
        message = f"{name}: the process that guards it was killed, and the program with it"
        raise ApplicationError(message, UNCERTAIN, type="CommandLost") from None
    except LeftRunningError as error:
        message = f"{name}: a process that it started is still running and cannot be stopped: process {error}"
        raise refused(message, "CommandLeftRunning", UNCERTAIN) from None
    except OSError as error:  # no descriptors, no memory
        raise _start_error(error.errno or 0, name) from None


def _start_error(number: int, name: str) -> ApplicationError:
    reason = os.strerror(number).lower()
    if number == errno.ENOENT:
        return refused(f"there is no program {name}", "CommandNotFound")
    if number in {errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.ENOEXEC}:
        return refused(f"cannot run {name}: {reason}", "CommandNotExecutable")
    if number == errno.E2BIG:
        return refused(f"cannot run {name}: {reason}", "CommandTooLong")
    return ApplicationError(f"cannot run {name}: {reason}", type="CommandNotStarted")


def _interpreter(program: bytes, environment: dict[bytes, bytes], cwd: bytes) -> str | None:
    """Return what is missing although the program's file exists, or None if the file does not exist."""
    places = [b""] if b"/" in program else environment.get(b"PATH", os.defpath.encode()).split(b":")
    for place in places:
        path = os.path.join(cwd, place, program)
        try:
            with open(path, "rb") as file:
                first = file.read(_FIRST_LINE).split(b"\n")[0]
        except OSError:
            continue
        if not first.startswith(b"#!"):
            return "the loader that it was built for does not exist"
        name = os.fsdecode(first[2:].strip(b" \t").split(b" ")[0])
        ends = " (the file has Windows line endings)" if name.endswith("\r") else ""
        return f"its first line names an interpreter that does not exist, {json.dumps(name)}{ends}"
    return None


def _result(output: Output, parse: str) -> RunOutput:
    stdout, parsed = output.stdout(), None
    if parse != "none":
        parsed, stdout = _parsed(stdout, parse, truncated=output.stdout_truncated), ""
    shown, tail, truncated = output.result(stdout)
    return RunOutput(exit_code=0, stdout=shown, stderr=tail, parsed=parsed, truncated=truncated)


def _parsed(stdout: str, parse: str, *, truncated: bool) -> Any:
    too_large = refused("standard output is too large to parse", "OutputTooLarge")
    if truncated:
        raise too_large
    parsed = _lines(stdout) if parse == "lines" else _json(stdout)
    if encoded_size(parsed) > STDOUT_ENCODED:
        raise too_large
    return parsed


def _lines(text: str) -> list[str]:
    """Return lines that end with LF or CRLF: file names may contain any other line separator."""
    *lines, rest = text.replace("\r\n", "\n").split("\n")
    return [*lines, rest] if rest else lines


def _json(text: str) -> Any:
    try:
        return parse(text)
    except RecursionError:
        reason = "nested too deeply"
    except ValueError as error:
        # The position, but not the string: the cause of an error would contain all of it.
        reason = str(error) if text.strip() else "it is empty"
    raise refused(f"standard output is not JSON: {reason}", "OutputNotJson")
