"""The reaper on real processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

_OWNER = """
import os, signal, subprocess, sys
from pipeline_runner.activities import reaper
def start():
    return subprocess.Popen(["sleep", "600"], start_new_session=True, stdout=subprocess.DEVNULL)
first, second, third = start(), start(), start()
reaper.guard(first.pid)
if "lost" in sys.argv:
    watcher = reaper._reaper._watcher
    os.kill(watcher.pid, signal.SIGKILL)
    watcher.wait()
reaper.guard(second.pid)
reaper.guard(third.pid)
reaper.release(third.pid)
reaper.release(424242)
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
