"""How long ``run-pipeline FILE`` takes until the first step has a result, phase by phase.

``python -m bench.start`` prints a table in Markdown: cold (no server runs, its database is there)
and warm (a server runs). Linux: the command runs in a terminal of its own, and its phases are told
from what appears there, so nothing in the command is changed for the measurement. Run it on an
idle machine.
"""

import argparse
import os
import platform
import pty
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

PIPELINE = """name: three
steps:
  - {id: one, activity: shell.run, with: {command: ["true"]}, compensate: none}
  - {id: two, activity: shell.run, with: {command: ["true"]}, compensate: none}
  - {id: three, activity: shell.run, with: {command: ["true"]}, compensate: none}
"""
MARKS = {
    "first output": r"checking ",
    "file checked": r"connecting to Temporal",
    "workflow started": r"run: three-",
    "first result": r"completed",
}
"""What appears in the terminal at the end of each phase."""
PHASES = ("interpreter", *list(MARKS)[:2], "server ready", *list(MARKS)[2:], "exit", "CPU")
WANTED = {("first output", "cold"): 0.3, ("first output", "warm"): 0.3}
WANTED |= {("first result", "cold"): 1.2, ("first result", "warm"): 0.8}


def interpreter() -> float:
    """Return the seconds in which Python starts and ends."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    return time.perf_counter() - begin


def command(*words: str) -> list[str]:
    """Return the command line of a command."""
    return [sys.executable, "-m", "pipeline_runner", *words]


def environment(folder: Path) -> dict[str, str]:
    """Return an environment without Temporal's settings, and with a state directory for this benchmark."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("TEMPORAL_")}
    return {**kept, "RUN_PIPELINE_STATE": str(folder / "state"), "TERM": "xterm", "COLUMNS": "200"}


def started(folder: Path) -> dict[str, float]:
    """Run the pipeline once; return the seconds from the start to the end of each phase."""
    phases = {"interpreter": interpreter()}
    master, terminal = pty.openpty()
    os.set_blocking(master, False)
    card = folder / "state/server.json"
    output = ""
    begin = time.perf_counter()
    process = subprocess.Popen(
        command(str(folder / "three.yaml")),
        env=environment(folder),
        stdin=subprocess.DEVNULL,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    usage = None
    while usage is None:
        output += read(master)
        now = time.perf_counter() - begin
        for phase, mark in MARKS.items():
            if phase not in phases and re.search(mark, output):
                phases[phase] = now
        if "server ready" not in phases and card.exists():
            phases["server ready"] = now
        ended, status, found = os.wait4(process.pid, os.WNOHANG)
        if ended:
            usage = found
            assert status == 0, output
        time.sleep(0.001)
    os.close(master)
    return {**phases, "exit": now, "CPU": usage.ru_utime + usage.ru_stime}


def read(master: int) -> str:
    """Return what has appeared in the terminal since the last time."""
    try:
        return os.read(master, 65536).decode(errors="replace")
    except OSError:  # nothing yet, or nobody writes any more
        return ""


def wait_until_gone(card: Path) -> None:
    """Wait until the server of the run before has ended."""
    end = time.monotonic() + 30
    while card.exists():
        assert time.monotonic() < end, "the server does not end"
        time.sleep(0.05)
    time.sleep(2)


@contextmanager
def running_server(folder: Path) -> Iterator[None]:
    """Keep a server running."""
    words = command("server", "--no-worker")
    with subprocess.Popen(words, env=environment(folder), stderr=subprocess.DEVNULL) as server:
        try:
            while not (folder / "state/server.json").exists():
                assert server.poll() is None, "the server has not started"
                time.sleep(0.05)
            time.sleep(1)
            yield
        finally:
            server.terminate()


def measured(folder: Path, runs: int) -> dict[str, list[dict[str, float]]]:
    """Return the phases of all runs, cold and warm, after one of each that does not count."""
    found: dict[str, list[dict[str, float]]] = {"cold": [], "warm": []}
    for _ in range(runs + 1):
        found["cold"].append(started(folder))
        wait_until_gone(folder / "state/server.json")
    with running_server(folder):
        found["warm"] = [started(folder) for _ in range(runs + 1)]
    return {kind: samples[1:] for kind, samples in found.items()}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=11, help="number of runs of each kind")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "three.yaml").write_text(PIPELINE)
        found = measured(folder, args.runs)
    print(f"Python {platform.python_version()}, temporalio {version('temporalio')}, medians of {args.runs}\n")
    print("| seconds from the start until | cold | warm | goal, cold | goal, warm |")
    print("|---|--:|--:|--:|--:|")
    for phase in PHASES:
        medians = [
            f"{statistics.median([sample[phase] for sample in found[kind]]):.2f}" for kind in ("cold", "warm")
        ]
        wanted = [f"{WANTED[phase, kind]}" if (phase, kind) in WANTED else "" for kind in ("cold", "warm")]
        print(f"| {phase} | {' | '.join([*medians, *wanted])} |")


if __name__ == "__main__":
    main()
