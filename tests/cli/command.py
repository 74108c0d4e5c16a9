"""Running the command as a user does: a process of its own, its own state folder."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def environment(folder: Path, **more: str) -> dict[str, str]:
    """The environment without Temporal's variables, with a state folder of the test's own."""
    # pytest-xdist says how wide the terminal is, which a terminal of the test's own is not.
    others = ("TEMPORAL_", "RUN_PIPELINE", "COLUMNS", "LINES")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(others)}
    root = str(Path(__file__).parents[2])
    return kept | {
        "RUN_PIPELINE_STATE": str(folder / "state"),
        "XDG_CONFIG_HOME": str(folder / "config"),
        "PYTHONPATH": root,
        **more,
    }


def popen(folder: Path, *args: str, **more: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline_runner", *args],
        cwd=folder,
        env=environment(folder, **more),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(folder: Path, *args: str, **more: str) -> Done:
    return finish(popen(folder, *args, **more))


def feed(folder: Path, data: bytes, *args: str) -> Done:
    """Run the command with something on its standard input."""
    done = subprocess.run(
        [sys.executable, "-m", "pipeline_runner", *args],
        cwd=folder,
        env=environment(folder),
        input=data,
        capture_output=True,
        timeout=60,
        check=False,
    )
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


def finish(process: "subprocess.Popen[str]", timeout: float = 60) -> Done:
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"no end within {timeout} s\n{out}\n{err}") from None
    return Done(process.returncode, out, err)


def processes_of(folder: Path) -> list[str]:
    """The processes whose command line or environment names this folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            text = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
        except OSError:
            continue  # it has ended in the meantime
        if str(folder / "state").encode() in text:
            found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode() or entry.name)
    return found


def assert_nothing_left(folder: Path, seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while left := processes_of(folder):
        assert time.monotonic() < end, left
        time.sleep(0.1)


def wait_for(condition: Any, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def interrupt(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGINT)


def wait_for_handlers(process: "subprocess.Popen[str]") -> None:
    """Wait until the command catches signals: until then, Python starts."""
    status = Path(f"/proc/{process.pid}/status")

    def catches() -> bool:
        caught = next(line for line in status.read_text().splitlines() if line.startswith("SigCgt:"))
        return bool(int(caught.split()[1], 16) & 1 << (signal.SIGTERM - 1))

    wait_for(catches)
