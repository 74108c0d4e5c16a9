"""The ``shell`` family: programs run on the worker's machine.

A program is started from a list of arguments, never through a shell. It gets a process
group of its own; the step ends when the program does, and nothing of the group outlives
the step: not its cancellation, not its timeout, not a worker killed with -9. A program that
is to live on must be started by something that stays, such as the service manager.
"""

import asyncio
import errno
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from msgspec import Meta
from temporalio import activity
from temporalio.exceptions import ApplicationError

from pipeline_runner.activities import reaper
from pipeline_runner.activities.context import absolute, working_directory
from pipeline_runner.activities.door import describe
from pipeline_runner.activities.errors import refused
from pipeline_runner.activities.json_text import parse
from pipeline_runner.activities.pulse import heartbeating
from pipeline_runner.activities.sizes import RESULT_LIMIT, clip, encoded_size, one_line
from pipeline_runner.activities.strict import Scalar, as_text, checked
from pipeline_runner.core.model import Timeouts

STDOUT_LIMIT = 768 * 1024
STDERR_LIMIT = 256 * 1024
STDOUT_ENCODED = RESULT_LIMIT - STDERR_LIMIT
"""Bytes of JSON that standard output, or what was parsed from it, may become."""
ERROR_TAIL = 4 * 1024
"""Bytes of standard error that a failure carries in its details."""
GRACE = 2.0
"""Seconds between SIGTERM and SIGKILL."""
DRAIN = 1.0
"""Seconds to wait for the end of the output when the program itself has ended."""


@dataclass(frozen=True, kw_only=True)
class RunInput:
    """What to run, and how."""

    command: Annotated[
        list[Scalar], Meta(min_length=1, description="The program and its arguments; no shell.")
    ]
    env: Annotated[
        dict[str, Scalar],
        Meta(description="Environment variables, added to those of the worker."),
    ] = field(default_factory=dict)
    cwd: Annotated[str | None, Meta(description="The directory to run in; default: the run's.")] = None
    stdin: Annotated[str | None, Meta(description="Text for standard input; default: nothing to read.")] = (
        None
    )
    parse: Annotated[
        Literal["json", "lines", "none"],
        Meta(description="Make `parsed` from standard output: one JSON value, or a list of lines."),
    ] = "none"


@dataclass(frozen=True, kw_only=True)
class RunOutput:
    """How it ended."""

    exit_code: Annotated[int, Meta(description="Always 0: another exit code fails the step.")]
    stdout: Annotated[str, Meta(description="Standard output; empty if it was parsed.")]
    stderr: Annotated[str, Meta(description="The end of standard error.")]
    parsed: Annotated[Any, Meta(description="Standard output as `parse` says; else null.")]
    truncated: Annotated[
        bool,
        Meta(description="Whether output was dropped: over 768 KiB out, or 256 KiB of errors."),
    ]


@describe(timeouts=Timeouts(heartbeat=10.0))
@activity.defn(name="shell.run")
@checked
async def run(parameters: RunInput) -> RunOutput:
    """Run a program and wait for its end; an exit code other than 0 fails the step."""
    async with heartbeating():
        program = await _start(parameters)
        reaper.guard(program.group)
        try:
            await program.exited.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(DRAIN):
                    await program.drained.wait()
        finally:
            await program.end()
            reaper.release(program.group)
    return _result(program, parameters.parse)


class _Program(asyncio.SubprocessProtocol):
    """A program under way, and the ends of its output that are kept.

    The transport is used directly: ``Process.wait()`` of asyncio's streams may wait for
    whatever else holds the pipes open.
    """

    def __init__(self) -> None:
        self.exited, self.drained = asyncio.Event(), asyncio.Event()
        self.stdout, self.stderr = bytearray(), bytearray()
        self.truncated = self.stdout_truncated = False
        self.transport: asyncio.SubprocessTransport
        self._open = {1, 2}

    @property
    def group(self) -> int:
        """The process group: it has the number of the program that leads it."""
        return self.transport.get_pid()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.SubprocessTransport)
        self.transport = transport

    def feed(self, text: str) -> None:
        """Write all of standard input; a program that does not read it is no mistake."""
        pipe = self.transport.get_pipe_transport(0)
        assert isinstance(pipe, asyncio.WriteTransport)
        pipe.write(text.encode())
        pipe.close()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if fd == 1:
            rest = STDOUT_LIMIT - len(self.stdout)
            self.stdout += data[:rest]
            self.stdout_truncated |= len(data) > rest
        else:
            self.stderr += data
            self.truncated |= len(self.stderr) > STDERR_LIMIT
            del self.stderr[:-STDERR_LIMIT]

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        self._open.discard(fd)
        if not self._open:
            self.drained.set()

    def process_exited(self) -> None:
        self.exited.set()

    async def end(self) -> None:
        """Stop the program if it still runs, and whatever else is in its process group."""
        try:
            if not self.exited.is_set():
                self._signal(signal.SIGTERM)
                with suppress(TimeoutError):
                    async with asyncio.timeout(GRACE):
                        await self.exited.wait()
        finally:
            self._signal(signal.SIGKILL)
            self.transport.close()

    def _signal(self, number: signal.Signals) -> None:
        # PermissionError: macOS says so of a group in which only zombies are left.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.group, number)


async def _start(parameters: RunInput) -> _Program:
    command = [as_text(part) for part in parameters.command]
    cwd = _directory(parameters.cwd)
    try:
        _, program = await asyncio.get_running_loop().subprocess_exec(
            _Program,
            *command,
            env=os.environ | {name: as_text(value) for name, value in parameters.env.items()},
            cwd=cwd,
            stdin=DEVNULL if parameters.stdin is None else PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise _start_error(error, command[0], cwd) from None
    except ValueError:
        # from None: Python's own message may show the text that it does not like.
        raise refused(
            "the command or its environment has a character that no program can be given",
            "InvalidInput",
        ) from None
    if parameters.stdin is not None:
        program.feed(parameters.stdin)
    return program


def _directory(cwd: str | None) -> str:
    try:
        return working_directory() if cwd is None else absolute(cwd)
    except OSError as error:
        raise _start_error(error, "", None) from None


def _start_error(error: OSError, name: str, cwd: str | None) -> ApplicationError:
    reason = os.strerror(error.errno or 0).lower()
    if cwd is not None and error.filename == cwd:
        return refused(f"cannot run in the folder {cwd}: {reason}", "BadWorkingDirectory")
    if error.errno == errno.ENOENT:
        return refused(f"there is no program {name}", "CommandNotFound")
    if error.errno in {errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.ENOEXEC}:
        return refused(f"cannot run {name}: {reason}", "CommandNotExecutable")
    if error.errno == errno.E2BIG:
        return refused(f"cannot run {name}: {reason}", "CommandTooLong")
    return ApplicationError(f"cannot run {name}: {reason}", type="CommandNotStarted")


def _result(program: _Program, parse: str) -> RunOutput:
    code = program.transport.get_returncode()
    assert code is not None
    stdout, stderr = (bytes(b).decode(errors="replace") for b in (program.stdout, program.stderr))
    if code != 0:
        raise _failure(code, stderr)
    if parse != "none":
        parsed = _parsed(stdout, parse, truncated=program.stdout_truncated)
        shown = ""
    else:
        parsed, shown = None, clip(stdout, STDOUT_ENCODED)
    tail = clip(stderr[::-1], STDERR_LIMIT)[::-1]
    cut = (parse == "none" and len(shown) < len(stdout)) or len(tail) < len(stderr)
    return RunOutput(
        exit_code=0,
        stdout=shown,
        stderr=tail,
        parsed=parsed,
        truncated=program.truncated or program.stdout_truncated or cut,
    )


def _failure(code: int, stderr: str) -> ApplicationError:
    what = f"exit code {code}" if code > 0 else f"killed by signal {-code} ({signal.Signals(-code).name})"
    lines = [line for line in stderr.splitlines() if line.strip()]
    message = f"{what}: {one_line(lines[-1], 300)}" if lines else what
    return ApplicationError(
        message, {"exit_code": code, "stderr": stderr[-ERROR_TAIL:]}, type="CommandFailed"
    )


def _parsed(stdout: str, parse: str, *, truncated: bool) -> Any:
    too_large = refused("standard output is too large to be parsed", "OutputTooLarge")
    if truncated:
        raise too_large
    parsed = _lines(stdout) if parse == "lines" else _json(stdout)
    if encoded_size(parsed) > STDOUT_ENCODED:
        raise too_large
    return parsed


def _lines(text: str) -> list[str]:
    """Return lines that end with LF or CRLF: the name of a file may have any other character in it."""
    *lines, rest = text.replace("\r\n", "\n").split("\n")
    return [*lines, rest] if rest else lines


def _json(text: str) -> Any:
    try:
        return parse(text)
    except RecursionError:
        reason = "nested too deeply"
    except ValueError as error:
        # The position, but not the text: an error's cause would carry all of it.
        reason = str(error) if text.strip() else "it is empty"
    raise refused(f"standard output is not JSON: {reason}", "OutputNotJson")
