"""How ``container.exec`` works: a command in a container, which ends with the step.

The Engine has no call that ends such a command. The command therefore gets a mark, an environment
variable with the step's idempotency key, and a second command in the container sends a signal to every
process with that mark. For this the container needs ``sh`` and ``cat``.
"""

import asyncio
import logging
import re
import time
import uuid
from dataclasses import dataclass, field
from typing import Annotated, Any

from temporalio import activity
from temporalio.exceptions import ApplicationError

from pipeline_runner.activities.docker.engine import Container, Engine, Variables, environment
from pipeline_runner.activities.docker.errors import MISSING, is_type
from pipeline_runner.activities.shell import DRAIN, GRACE
from pipeline_runner.activities.toolkit.context import step_key
from pipeline_runner.activities.toolkit.errors import refused, uncertain
from pipeline_runner.activities.toolkit.heartbeat import time_left
from pipeline_runner.activities.toolkit.output import Output
from pipeline_runner.activities.toolkit.parameters import Scalar, as_text, doc
from pipeline_runner.activities.toolkit.sizes import one_line

MARK = "PIPELINE_RUNNER_EXEC"
"""The environment variable by which the processes of a command are found."""
LOOK_EVERY = 2.0
"""Seconds between two requests to the Engine whether the command is still running."""
POLL = 0.05
BEGIN = 1.0
"""Seconds to wait for a command that the Engine may be starting, before it counts as never started."""

KILL = (
    'for p in /proc/[0-9]*; do case "$(cat "$p/environ" 2>/dev/null)" in'
    ' *"$1"*) kill -s "$2" "${p#/proc/}" 2>/dev/null;; esac; done; true'
)
"""A script that sends the signal ``$2`` to every process with ``$1`` in its environment."""
_NOT_STARTED = re.compile(r"OCI runtime exec failed|unable to (find|start)")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ExecInput:
    """The container, the command, and how to run it."""

    container: Container
    command: Annotated[list[Scalar], doc("The program and its arguments, run without a shell.", min_length=1)]
    env: Annotated[Variables, doc("Environment variables to add to the container's.")] = field(
        default_factory=dict
    )
    user: Annotated[str | None, doc("The user. Default: the container's.")] = None
    working_dir: Annotated[str | None, doc("The working directory. Default: the container's.")] = None


@dataclass(frozen=True, kw_only=True)
class ExecOutput:
    """How the command ended."""

    exit_code: Annotated[int, doc("Always 0, because any other exit code fails the step.")]
    stdout: Annotated[str, doc("Standard output.")]
    stderr: Annotated[str, doc("The end of standard error.")]
    truncated: Annotated[
        bool,
        doc(
            "Whether output was dropped, because there was more than 768 KiB of standard output"
            " or 256 KiB of standard error."
        ),
    ]


async def execute(engine: Engine, parameters: ExecInput) -> ExecOutput:
    """Run a command in a container. It ends with the activity, whatever the activity's outcome."""
    command = _Command(engine, parameters)
    await command.end_earlier()
    await command.create()
    output = Output()
    reading = asyncio.ensure_future(command.read(output))
    try:
        state = await command.watch(reading)
    except asyncio.CancelledError:
        await command.end()
        raise
    finally:
        reading.cancel()
    return _result(parameters, state["ExitCode"], output)


class _Command:
    """A command in a container."""

    def __init__(self, engine: Engine, parameters: ExecInput) -> None:
        self._engine, self._parameters = engine, parameters
        self._container = parameters.container
        self._program = as_text(parameters.command[0])
        self._doing = f"run {one_line(self._program, 100)} in container {self._container}"
        self._mark = step_key() or uuid.uuid4().hex
        self._id = ""

    async def create(self) -> None:
        """Create the command in the Engine, without starting it."""
        parameters = self._parameters
        variables = [*environment(parameters.env), f"{MARK}={self._mark}"]
        made = await self._engine.call(
            self._doing,
            lambda docker: docker.exec_create(
                self._container,
                [as_text(part) for part in parameters.command],
                environment=variables,
                user=parameters.user or "",
                workdir=parameters.working_dir,
            ),
        )
        self._id = made["Id"]

    async def read(self, output: Output) -> None:
        """Start the command, and read its output to the end."""

        def pump(docker: Any) -> None:
            for stdout, stderr in docker.exec_start(self._id, stream=True, demux=True):
                output.add(1, stdout or b"")
                output.add(2, stderr or b"")

        await self._engine.call(self._doing, pump, effect=True)

    async def watch(self, reading: "asyncio.Future[None]") -> Any:
        """Wait for the command's end, and return the Engine's description of it."""
        pause = POLL
        while True:
            await asyncio.wait({reading}, timeout=LOOK_EVERY)
            if reading.done():
                reading.result()
            state = await self._state()
            if _ended(state):
                # Other processes that hold its output open may do so for ever.
                await asyncio.wait({reading}, timeout=DRAIN)
                return state
            if reading.done():  # the end of the output comes first, or the connection broke
                await asyncio.sleep(pause)
                pause = min(pause * 2, LOOK_EVERY)

    async def _state(self) -> Any:
        try:
            return await self._engine.call(self._doing, lambda docker: docker.exec_inspect(self._id))
        except ApplicationError as error:
            if "no such exec" not in error.message.lower():
                raise uncertain(error) from None
            message = f"cannot {self._doing}: the container or the Engine stopped in the meantime"
            raise uncertain(ApplicationError(message, type="DockerError")) from None

    async def end_earlier(self) -> None:
        """End what an earlier attempt may have left running."""
        if activity.info().attempt == 1 or step_key() is None:
            return
        try:
            await self._signal("KILL")
        except ApplicationError as error:
            if is_type(error, *MISSING, "EngineUnreachable"):
                raise
            # There may be no sh, and most likely nothing is left: the attempt continues.
            _log.warning("cannot look for what an earlier attempt left running: %s", error.message)

    async def end(self) -> None:
        """End the command, or raise an error that says that it is still running."""
        try:
            ended = await self._ended()
            reason = "it could not be stopped"
        except ApplicationError as error:
            if is_type(error, *MISSING) or "not running" in error.message:
                return  # the command ended with its container
            ended, reason = False, error.message
        if not ended:
            message = f"{self._program} is still running in container {self._container}: {reason}"
            raise uncertain(refused(message, "CommandLeftRunning"))

    async def _ended(self) -> bool:
        """Send SIGTERM, and after a grace period SIGKILL. Return whether the command has ended."""
        begun = time.monotonic()
        grace = time_left(GRACE)
        asked = False
        while time.monotonic() < begun + grace:
            state = await self._engine.call(self._doing, lambda docker: docker.exec_inspect(self._id))
            if _ended(state):
                break
            if state["Running"] and not asked:
                await self._signal("TERM")
                asked = True
            elif not state["Running"] and time.monotonic() > begun + BEGIN:
                return True  # it was never started
            await asyncio.sleep(POLL)
        if asked:
            await self._signal("KILL")
        end = time.monotonic() + BEGIN
        while time.monotonic() < end:
            state = await self._engine.call(self._doing, lambda docker: docker.exec_inspect(self._id))
            if _ended(state):
                return True
            await asyncio.sleep(POLL)
        return False

    async def _signal(self, name: str) -> None:
        """Send a signal to every process in the container that has the mark.

        It runs as the same user: another one, even root without all capabilities, may not look.
        """
        script = ["sh", "-c", KILL, "sh", f"{MARK}={self._mark}", name]
        doing = f"stop {one_line(self._program, 100)} in container {self._container}"

        def send(docker: Any) -> tuple[Any, bytes]:
            made = docker.exec_create(self._container, script, user=self._parameters.user or "")
            said = b"".join(
                piece or b""
                for pieces in docker.exec_start(made["Id"], stream=True, demux=True)
                for piece in pieces
            )
            return docker.exec_inspect(made["Id"]), said

        state, said = await self._engine.call(doing, send)
        if state["ExitCode"]:
            text = one_line(said.decode(errors="replace"), 300)
            raise ApplicationError(f"cannot {doing}: {text}", type="DockerError")


def _ended(state: Any) -> bool:
    return not state["Running"] and state["ExitCode"] is not None


def _result(parameters: ExecInput, code: int, output: Output) -> ExecOutput:
    stdout = output.stdout()
    if code in {126, 127} and _NOT_STARTED.match(stdout):
        raise _start_error(parameters, one_line(stdout, 300))
    if code != 0:
        raise output.failure(code)
    shown, tail, truncated = output.result(stdout)
    return ExecOutput(exit_code=0, stdout=shown, stderr=tail, truncated=truncated)


def _start_error(parameters: ExecInput, said: str) -> ApplicationError:
    """Return the error for a command that the Engine could not start, from the output that says why."""
    program, container = as_text(parameters.command[0]), parameters.container
    reason = said.removesuffix(": unknown").rpartition("container process: ")[2]
    if "chdir to cwd" in said:
        return refused(
            f"cannot run in the directory {parameters.working_dir} of container {container}",
            "BadWorkingDirectory",
        )
    if "executable file not found" in said or re.search(r"stat .*no such file", said):
        return refused(f"there is no program {program} in container {container}", "CommandNotFound")
    if "unable to find user" in said:
        return refused(f"there is no user {parameters.user} in container {container}", "InvalidInput")
    if "permission denied" in said or "exec format error" in said:
        return refused(f"cannot run {program} in container {container}: {reason}", "CommandNotExecutable")
    return ApplicationError(
        f"cannot run {program} in container {container}: {reason}", type="CommandNotStarted"
    )
