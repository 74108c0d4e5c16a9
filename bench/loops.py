"""Measure what uvloop saves: the CPU of a step in worker and SDK, with one event loop and the other.

Run from the root of the repository::

    python -m bench.loops [--rounds N]

Two processes, one for each loop, have a worker on the same dev server. They take turns, and which is
first alternates. Figures are medians; the ratio comes with a 95 % interval (paired bootstrap).
"""

import argparse
import asyncio
import importlib
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench import subjects
from bench.interpreter import PIPELINE, Bench
from pipeline_runner.engine import client as starting
from pipeline_runner.engine.worker import pipeline_worker
from pipeline_runner.server import devserver

RUNS = 12
STEPS = 10
LOOPS = ("asyncio", "uvloop")


async def side(address: str) -> None:
    """Measure a round for every line of standard input."""
    client = await starting.connect({"target_host": address})
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(client, Path(folder), 0)
        served: list[Any] = [subjects.add, subjects.remove]
        async with pipeline_worker(client, task_queue=f"{bench._queue}{PIPELINE}", activities=served):  # noqa: SLF001
            for _ in range(STEPS):
                await bench.run(PIPELINE, STEPS)
            print("ready", flush=True)
            while await asyncio.to_thread(sys.stdin.readline):
                before, start = _cpu(), time.perf_counter()
                for _ in range(RUNS):
                    await bench.run(PIPELINE, STEPS)
                print(_cpu() - before, time.perf_counter() - start, flush=True)


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _serve(loop: str, address: str) -> None:
    factory = importlib.import_module("uvloop").new_event_loop if loop == "uvloop" else None
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(side(address))


def _compare(rounds: int, address: str) -> None:
    command = [sys.executable, "-m", "bench.loops", "--address", address, "--loop"]
    sides = {
        loop: subprocess.Popen([*command, loop], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for loop in LOOPS
    }
    figures: dict[str, list[tuple[float, float]]] = {loop: [] for loop in LOOPS}
    for number in range(-1, rounds):
        for loop in LOOPS if number % 2 else LOOPS[::-1]:
            process = sides[loop]
            assert process.stdin is not None
            assert process.stdout is not None
            if number >= 0:
                process.stdin.write("\n")
                process.stdin.flush()
                cpu, wall = map(float, process.stdout.readline().split())
                figures[loop].append((cpu, wall))
            else:
                assert process.stdout.readline() == "ready\n", "is uvloop installed?"
    for process in sides.values():
        process.communicate()
    for place, what in enumerate(("CPU", "time")):
        one, other = ([round_[place] * 1000 / RUNS / STEPS for round_ in figures[loop]] for loop in LOOPS)
        ratios = [b / a for a, b in zip(one, other, strict=True)]
        drawn = sorted(statistics.median(random.choices(ratios, k=len(ratios))) for _ in range(2000))
        print(
            f"{what} of a step, ms: asyncio {statistics.median(one):.2f},"
            f" uvloop {statistics.median(other):.2f}, ratio {statistics.median(ratios):.3f}"
            f" ({drawn[50]:.3f} to {drawn[1950]:.3f})"
        )


def main() -> None:
    """Run as a program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=16)
    parser.add_argument("--loop", choices=LOOPS, help=argparse.SUPPRESS)
    parser.add_argument("--address", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.loop:
        _serve(args.loop, args.address)
        os._exit(0)
    server = devserver.start()
    try:
        time.sleep(3)  # it makes its namespace
        _compare(args.rounds, server.address)
    finally:
        server.stop()


if __name__ == "__main__":
    main()
