"""Programs and what they start: nothing outlives the step, however it ends."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from pipeline_runner.activities.shell import GRACE, RunInput
from pipeline_runner.activities.shell import run as shell_run
from pipeline_runner.activities.toolkit import guardian, programs

NewEnvironment = Callable[..., ActivityEnvironment]

if sys.platform != "linux":
    pytest.skip("only Linux lets a process adopt orphans", allow_module_level=True)

WAYS = {
    "child": "sleep 600 & echo",
    "session": "setsid sleep 600 >/dev/null 2>&1 & echo",
    "timeout": "timeout 600 sleep 600 & echo",
    "job": "set -m; sleep 600 & echo",
    "daemon": "(setsid sh -c 'sleep 600 & wait' >/dev/null 2>&1 &) ; echo",
    "deaf": "setsid sh -c 'trap \"\" TERM HUP INT; sleep 600 & wait' & echo",
}


class Mark:
    """A word in the environment of what a test starts, by which it is found."""

    def __init__(self) -> None:
        self.word = uuid.uuid4().hex

    @property
    def env(self) -> dict[str, Any]:
        return {"TEST_MARK": self.word}

    def running(self) -> list[int]:
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                state = (process / "stat").read_text().rpartition(")")[2].split()[0]
                if self.word.encode() in (process / "environ").read_bytes() and state not in "ZX":
                    found.append(int(process.name))
            except (OSError, IndexError):
                continue
        return found

    def wait(self, number: int) -> None:
        """Wait until so many processes run."""
        end = time.monotonic() + 5
        while len(self.running()) < number:
            assert time.monotonic() < end, self.running()
            time.sleep(0.01)

    def wait_gone(self) -> None:
        end = time.monotonic() + 5
        while self.running():
            assert time.monotonic() < end, self.running()
            time.sleep(0.01)


@pytest.fixture
def mark() -> Iterator[Mark]:
    made = Mark()
    yield made
    for process in made.running():
        with suppress(ProcessLookupError):  # its guardian was faster
            os.kill(process, signal.SIGKILL)


def _input(mark: Mark, code: str, **more: Any) -> RunInput:
    return RunInput(command=["bash", "-c", code], env=mark.env, **more)


@pytest.mark.parametrize("way", WAYS)
def test_nothing_outlives_a_step_that_ends_well(
    environment: NewEnvironment, mark: Mark, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline_runner.activities.shell.DRAIN", 0.1)
    output = asyncio.run(environment().run(shell_run, _input(mark, f"{WAYS[way]} started")))
    assert output.stdout == "started\n"
    assert mark.running() == []


@pytest.mark.parametrize("way", WAYS)
def test_nothing_outlives_a_cancelled_step(
    environment: NewEnvironment, mark: Mark, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline_runner.activities.shell.GRACE", 0.2)

    async def scenario() -> float:
        env = environment()
        task = asyncio.ensure_future(env.run(shell_run, _input(mark, f"{WAYS[way]}; wait; sleep 600")))
        await asyncio.to_thread(mark.wait, 2)
        began = time.monotonic()
        env.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return time.monotonic() - began

    assert asyncio.run(scenario()) < 1
    assert mark.running() == []


@pytest.mark.parametrize("turns", range(1, 9))
def test_a_cancellation_at_any_moment_of_the_start_leaves_nothing(
    environment: NewEnvironment, mark: Mark, turns: int
) -> None:
    """Here the program gets under way while the loop is busy, and the cancellation comes first."""

    async def scenario() -> float:
        env = environment()
        task = asyncio.ensure_future(env.run(shell_run, _input(mark, "sleep 600 & wait")))
        for _ in range(turns):
            await asyncio.sleep(0)
        time.sleep(0.1)
        began = time.monotonic()
        env.cancel()
        with pytest.raises(asyncio.CancelledError):
            async with asyncio.timeout(5):
                await task
        return time.monotonic() - began

    assert asyncio.run(scenario()) < 1
    assert mark.running() == []


def test_everything_that_was_started_is_asked_and_may_take_the_grace(
    environment: NewEnvironment, mark: Mark, tmp_path: Path
) -> None:
    """Not only the program itself, which ends first."""
    # No wait: bash can sleep through a signal that comes between its fork and its wait.
    idle = "while :; do sleep 0.02; done"
    deep = f"trap 'sleep 0.2; echo bye > {tmp_path}/bye; exit' TERM; touch {tmp_path}/up; {idle}"

    async def scenario() -> None:
        env = environment()
        task = asyncio.ensure_future(env.run(shell_run, _input(mark, f'setsid bash -c "{deep}" & wait')))
        async with asyncio.timeout(5):
            while not (tmp_path / "up").exists():
                await asyncio.sleep(0.01)
        env.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())
    assert (tmp_path / "bye").read_text() == "bye\n"
    assert mark.running() == []


def test_a_parent_is_signalled_before_its_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell whose command ends before it is asked itself goes on with the next one."""
    told: list[int] = []
    monkeypatch.setattr(guardian, "_descendants", lambda: iter([15, 8, 9, 1]))
    monkeypatch.setattr(os, "kill", lambda process, _: told.append(process))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        guardian._Guardian(theirs)._signal(signal.SIGTERM)
    assert told == [15, 8, 9, 1]


def test_a_second_cancellation_ends_the_grace(environment: NewEnvironment, mark: Mark) -> None:
    async def scenario() -> float:
        code = "trap '' TERM; echo up; while :; do sleep 0.02; done"
        task = asyncio.ensure_future(environment().run(shell_run, _input(mark, code)))
        await asyncio.to_thread(mark.wait, 2)
        task.cancel()
        await asyncio.sleep(0.05)
        began = time.monotonic()
        task.cancel()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return time.monotonic() - began

    assert asyncio.run(scenario()) < GRACE / 2
    assert mark.running() == []


def test_who_forks_all_the_time_is_killed_too(
    environment: NewEnvironment, mark: Mark, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each lives for a moment only, and has a child by then."""
    monkeypatch.setattr("pipeline_runner.activities.shell.GRACE", 0.1)
    code = "import os, time\nwhile True:\n    os.setsid() if os.fork() == 0 else os._exit(0)\n    time.sleep(0.001)"

    async def scenario() -> None:
        env = environment()
        command = RunInput(command=["sh", "-c", f'{sys.executable} -c "{code}" & sleep 600'], env=mark.env)
        task = asyncio.ensure_future(env.run(shell_run, command))
        await asyncio.to_thread(mark.wait, 2)
        await asyncio.sleep(0.1)
        env.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())
    assert mark.running() == []


_WORKER = """
import asyncio, dataclasses
from temporalio.testing import ActivityEnvironment
from pipeline_runner.activities.shell import run
env = ActivityEnvironment()
env.info = dataclasses.replace(env.info, start_to_close_timeout=None, schedule_to_close_timeout=None)
async def main():
    inputs = [{{'command': ['bash', '-c', way + '; wait; sleep 600'], 'env': {env!r}}} for way in {ways!r}]
    await asyncio.gather(*(env.run(run, one) for one in inputs))
asyncio.run(main())
"""


def test_a_killed_worker_takes_everything_with_it(mark: Mark) -> None:
    """Several programs side by side; a kill -9 leaves nobody to clean up but the guardians."""
    ways = list(WAYS.values())
    code = _WORKER.format(env=mark.env, ways=ways)
    worker = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2])
    try:
        mark.wait(2 * len(ways))
    finally:
        worker.kill()
        worker.wait()
    mark.wait_gone()


def _parent(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def test_a_guardian_that_is_killed_takes_its_program_with_it(environment: NewEnvironment, mark: Mark) -> None:
    """It says so, and nobody waits for ever; other programs go on."""

    async def scenario() -> ApplicationError:
        lost = asyncio.ensure_future(
            environment().run(shell_run, _input(mark, WAYS["session"] + "; sleep 600"))
        )
        await asyncio.to_thread(mark.wait, 2)
        running = mark.running()
        (process,) = {_parent(one) for one in running} - set(running)
        os.kill(process, signal.SIGKILL)
        with pytest.raises(ApplicationError) as caught:
            await lost
        return caught.value

    error = asyncio.run(scenario())
    assert error.message == "bash: the process that guards it was killed, and the program with it"
    assert error.type == "CommandLost"
    assert error.details == ({"pipeline_runner": {"outcome": "uncertain"}},)
    mark.wait_gone()


def test_a_nursery_that_is_killed_is_started_again(environment: NewEnvironment, mark: Mark) -> None:
    """Programs that are under way go on, and end as they should."""

    async def scenario() -> None:
        env = environment()
        task = asyncio.ensure_future(env.run(shell_run, _input(mark, WAYS["session"] + "; sleep 600")))
        await asyncio.to_thread(mark.wait, 2)
        assert programs._nursery._process is not None
        programs._nursery._process.kill()
        programs._nursery._process.wait()
        output = await environment().run(shell_run, RunInput(command=["echo", "again"]))
        assert output.stdout == "again\n"
        assert len(mark.running()) == 2
        env.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())
    assert mark.running() == []


def test_what_cannot_be_ended_is_told(
    environment: NewEnvironment, mark: Mark, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fake: the guardian's last word never comes."""
    monkeypatch.setattr(programs, "KILL", 0.1)
    monkeypatch.setattr(programs.Program, "_kill", _no_kill)

    async def scenario() -> ApplicationError:
        env = environment()
        task = asyncio.ensure_future(env.run(shell_run, _input(mark, "trap '' TERM; sleep 600")))
        await asyncio.to_thread(mark.wait, 1)
        env.cancel()
        with pytest.raises(ApplicationError) as caught:
            await task
        return caught.value

    monkeypatch.setattr("pipeline_runner.activities.shell.GRACE", 0.1)
    error = asyncio.run(scenario())
    assert (
        error.message
        == "bash: a process that it started is still running and cannot be stopped: process 4711"
    )
    assert (error.type, error.non_retryable) == ("CommandLeftRunning", True)
    assert error.details == ({"pipeline_runner": {"outcome": "uncertain"}},)


async def _no_kill(program: programs.Program) -> None:
    program.left = "4711"


def test_no_descriptor_and_no_process_is_left_behind(environment: NewEnvironment) -> None:
    asyncio.run(environment().run(shell_run, RunInput(command=["true"])))
    before = sorted(os.listdir("/proc/self/fd"))
    for _ in range(3):
        asyncio.run(environment().run(shell_run, RunInput(command=["cat"], stdin="x")))
        with pytest.raises(ApplicationError):
            asyncio.run(environment().run(shell_run, RunInput(command=["no-such-program"])))
    assert sorted(os.listdir("/proc/self/fd")) == before
    nursery = programs._nursery._process
    assert nursery is not None
    children = Path(f"/proc/{nursery.pid}/task/{nursery.pid}/children")
    end = time.monotonic() + 5
    while children.read_text().split():
        assert time.monotonic() < end
        time.sleep(0.01)
