"""The reaper on real processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline_runner.activities.toolkit import process_reaper

_OWNER = """
import os, signal, subprocess, sys
from pipeline_runner.activities.toolkit import process_reaper
def start():
    return subprocess.Popen(["sleep", "600"], start_new_session=True, stdout=subprocess.DEVNULL)
first, second, third = start(), start(), start()
process_reaper.guard(first.pid)
if "lost" in sys.argv:
    watcher = process_reaper._reaper._watcher
    os.kill(watcher.pid, signal.SIGKILL)
    watcher.wait()
process_reaper.guard(second.pid)
process_reaper.guard(third.pid)
process_reaper.release(third.pid)
process_reaper.release(424242)
print(first.pid, second.pid, third.pid, flush=True)
if "exit" not in sys.argv:
    sys.stdin.read()
"""


def _state(pid: int) -> str:
    return subprocess.run(
        ["/bin/ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout.strip()[:1]


@pytest.mark.parametrize("how", [("kill",), ("kill", "lost"), ("exit",)])
def test_guarded_groups_end_with_their_owner_and_released_ones_live(how: tuple[str, ...]) -> None:
    """However the owner ends; also when somebody killed the first watcher."""
    owner = subprocess.Popen(
        [sys.executable, "-c", _OWNER, *how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert owner.stdout is not None
    first, second, third = map(int, owner.stdout.readline().split())
    if "kill" in how:
        owner.kill()
    try:
        deadline = time.monotonic() + 3
        while (_state(first) + _state(second)).replace("Z", "") and time.monotonic() < deadline:
            time.sleep(0.02)
        assert (_state(first) + _state(second)).replace("Z", "") == ""
        assert _state(third) == "S"
    finally:
        os.kill(third, signal.SIGKILL)
        owner.communicate()


_KILLED = """
import os, signal, subprocess, sys
from pipeline_runner.activities.toolkit import process_reaper
if "lost" in sys.argv:
    process_reaper.guard(424242)
    os.kill(process_reaper._reaper._watcher.pid, signal.SIGKILL)
    process_reaper._reaper._watcher.wait()
made = subprocess.Popen.__init__
def dies(self, *args, **settings):
    made(self, *args, **settings)
    if {"600", "start-dev"} & set(self.args):
        print(self.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
if "lost" not in sys.argv:
    subprocess.Popen.__init__ = dies
if "server" in sys.argv:
    from pipeline_runner.server import devserver
    devserver.start()
process = process_reaper.start(["sleep", "600"], stdout=subprocess.DEVNULL)
print(process.pid, flush=True)
sys.stdin.read()
"""


def _gone(pid: int) -> bool:
    return _state(pid) in ("", "Z")


@pytest.mark.parametrize("how", ["killed", "server", "lost"])
def test_a_program_is_guarded_from_its_first_moment_on(how: str) -> None:
    """Its owner is killed as soon as it is there; or somebody had killed the watcher."""
    owner = subprocess.Popen(
        [sys.executable, "-c", _KILLED, how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert owner.stdout is not None
    pid = int(owner.stdout.readline())
    try:
        if how == "lost":
            assert not _gone(pid)
            owner.kill()
        deadline = time.monotonic() + 10
        while not _gone(pid):
            assert time.monotonic() < deadline, "it outlives its owner"
            time.sleep(0.02)
        assert owner.wait(10) == -signal.SIGKILL
    finally:
        if not _gone(pid):
            os.killpg(pid, signal.SIGKILL)
        owner.communicate()


def test_a_program_that_is_started_is_the_one_that_was_wanted() -> None:
    """It has its own process number, no input, the usual signals, and its arguments as they are."""
    code = 'echo $$; ps -o pgid= -p $$; echo "[$0][$1][$(cat)]"; exec sleep 600'
    process = process_reaper.start(["/bin/sh", "-c", code, "$HOME 'x'", ""], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        told = [process.stdout.readline().decode().strip() for _ in range(3)]
        assert told == [str(process.pid), str(process.pid), "[$HOME 'x'][][]"]
        os.kill(process.pid, signal.SIGPIPE)
        assert process.wait(10) == -signal.SIGPIPE
    finally:
        process_reaper.release(process.pid)
        process.stdout.close()
