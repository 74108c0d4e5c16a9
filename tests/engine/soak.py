"""Soak: hundreds of runs with random faults, while workers are killed and the server is restarted once.

``python -m tests.engine.soak [--runs N] [--seed N]`` runs for some minutes. Every run must end; what it did
must be undone in reverse order, or the run must say what is left; only runs whose undo was made to fail may
be dirty; and nothing is done or undone under two keys. It exits with 1 and says what is wrong otherwise.
"""

import argparse
import asyncio
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from temporalio.client import Client, WorkflowExecutionStatus, WorkflowFailureError
from temporalio.exceptions import ApplicationError, CancelledError
from temporalio.service import RPCError

from pipeline_runner.core import model
from pipeline_runner.core.state import Report
from pipeline_runner.engine import client as starting
from pipeline_runner.engine.workflow.outcomes import report_of
from pipeline_runner.language.workspace import load
from pipeline_runner.server import devserver
from tests.conftest import connected
from tests.engine.recorder import Fault, Line, Recorder

AT_A_TIME = 25
WORKERS = 3
QUEUE = "soak"
KILL_EVERY = 4.0


def _do(step: str, name: str = "x") -> str:
    return (
        f'{{id: {step}, activity: effect.do, with: {{log: l, name: "{name}"}}, compensate: {{activity:'
        f' effect.undo, with: {{log: l, name: "{{{{ step.input.name }}}}"}}}}}}'
    )


CHILD = f"version: 1\nname: child\ndefaults: {{policy: p, compensate: {{policy: p}}}}\nPOLICIES\nsteps:\n  - {_do('c1')}\n  - {_do('c2')}\n"
MAIN = f"""\
version: 1
name: soak
inputs: {{odd: {{type: boolean}}}}
defaults: {{policy: p, compensate: {{policy: p}}}}
POLICIES
steps:
  - {_do("a")}
  - id: both
    parallel:
      one: [{_do("b")}, {_do("c")}]
      two: [{_do("d")}, {{id: rest, wait: 50ms}}, {_do("e")}]
  - id: each
    for_each: [0, 1, 2]
    max_concurrency: 2
    steps: [{_do("f", "{{ item }}")}, {_do("g", "{{ index }}")}]
  - id: tried
    steps: [{_do("h")}, {_do("i")}]
    catch: [{{steps: [{_do("j")}]}}]
  - id: chosen
    switch:
      - {{when: inputs.odd, steps: [{_do("k")}]}}
      - {{steps: [{_do("l")}]}}
  - {{id: child, pipeline: ./child.yaml}}
  - {_do("z")}
"""
POLICIES = """\
policies:
  p: {timeouts: {start_to_close: 8s}, retry: {initial_interval: 100ms, maximum_attempts: 4}}
"""
NODES = [
    "a",
    "both.one.b",
    "both.one.c",
    "both.two.d",
    "both.two.e",
    "each[0].f",
    "each[1].g",
    "each[2].f",
    "tried.h",
    "tried.i",
    "chosen.switch[0].k",
    "chosen.switch[1].l",
    "child/c1",
    "child/c2",
    "z",
]
"""Of steps: the paths of their activities."""


class Soak:
    """The runs, their faults, and what came of them."""

    def __init__(self, directory: Path, seed: int) -> None:
        """Load the pipeline; the seed chooses faults and kills."""
        self._directory = directory
        self._dice = random.Random(seed)
        self.recorder = Recorder(directory / "records")
        (directory / "records").mkdir()
        (directory / "main.yaml").write_text(MAIN.replace("POLICIES\n", POLICIES))
        (directory / "child.yaml").write_text(CHILD.replace("POLICIES\n", POLICIES))
        loaded = load(directory / "main.yaml", modules=["tests.effects"])
        assert loaded.bundle is not None, loaded.diagnostics
        self._bundle = model.encode(loaded.bundle)
        self.ended: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.kills = 0

    def faults(self) -> list[Fault]:
        """Choose what goes wrong in a run."""
        dice, faults = self._dice, []
        node = dice.choice(NODES)
        kind = dice.random()
        if kind < 0.45:
            faults.append(Fault(node=node, mode=dice.choice(["fail-before", "fail-after"]), times=100))
        elif kind < 0.6:
            faults.append(Fault(node=node, mode=dice.choice(["fail-before", "fail-after", "hang-after"])))
        elif kind < 0.7:
            faults.append(Fault(node=node, mode=dice.choice(["die-before", "die-after"])))
        if dice.random() < 0.3:
            undo = f"undo:{dice.choice(NODES)}"
            faults.append(Fault(node=undo, mode=dice.choice(["fail-before", "fail-after", "die-after"])))
        if dice.random() < 0.1:
            faults.append(Fault(node=f"undo:{dice.choice(NODES)}", mode="fail-before", times=100))
        return faults

    async def run(self, client: Client, number: int) -> None:
        """Run the pipeline once, to its end, and judge what came of it."""
        run, faults = f"soak-{number}", self.faults()
        cancel_after = self._dice.uniform(0.1, 3.0) if self._dice.random() < 0.15 else None
        self.recorder.inject(run, faults)
        start = starting.Start(
            name="soak",
            bundle=self._bundle,
            inputs={"odd": number % 2 == 1},
            workflow_id=run,
            task_queue=QUEUE,
        )
        await _again(lambda: starting.start(client, start), unless=starting.ConflictError)
        handle = client.get_workflow_handle(run)
        if cancel_after is not None:
            await asyncio.sleep(cancel_after)
            await _again(handle.cancel)
        report: Report | None = None
        try:
            async with asyncio.timeout(300):
                await _again(handle.result, unless=WorkflowFailureError)
        except TimeoutError:
            shown = await handle.describe()
            pending = shown.raw_description
            self.wrong.append(
                f"{run} has not ended: {faults}; {shown.status}, {shown.history_length} events;"
                f" {pending.pending_activities} {pending.pending_children} {pending.pending_workflow_task}"
            )
            return
        except WorkflowFailureError as error:
            cause = error.cause
            report = report_of(cause) if isinstance(cause, ApplicationError | CancelledError) else None
            if report is None:
                self.wrong.append(f"{run} ended without a report: {cause}")
                return
        described = await _again(handle.describe)
        assert described.status is not None
        self.ended[WorkflowExecutionStatus(described.status).name.lower()] += 1
        self._judge(run, faults, report)

    def _judge(self, run: str, faults: list[Fault], report: Report | None) -> None:
        lines = self.recorder.lines(run)
        problems = [*_keys(lines), *(_left(lines, report) if report is not None else _caught(lines))]
        stuck = any(fault.times > 1 and fault.node.startswith("undo:") for fault in faults)
        if report is not None and report.dirty:
            self.ended["dirty"] += 1
            if not stuck:
                problems.append(f"dirty: {report.undo}")
        self.wrong += [f"{run}: {problem}; {faults}" for problem in problems]

    async def kill_workers(self, workers: "list[asyncio.subprocess.Process]") -> None:
        """Kill one worker after the other, at random."""
        while True:
            await asyncio.sleep(KILL_EVERY)
            with suppress(ProcessLookupError):
                self._dice.choice(workers).kill()
                self.kills += 1


def _keys(lines: list[Line]) -> list[str]:
    keys = {(line.node, line.key) for line in lines}
    return [f"two keys of {node}" for node, count in Counter(n for n, _ in keys).items() if count > 1]


def _left(lines: list[Line], report: Report) -> list[str]:
    """Say what a run that did not complete has left without a word, or undone out of order."""
    begun = list(dict.fromkeys(line.node for line in lines if line.undoes is None))
    done = {line.node for line in lines if line.undoes is None and line.event == "effect"}
    undone = list(dict.fromkeys(line.undoes for line in lines if line.undoes and line.event == "effect"))
    told = {record.path.replace("undo:", "") for record in report.undo if record.state != "undone"}
    problems = [f"{node} is left" for node in sorted(done - set(undone) - told)]
    if bool(told) != report.dirty:
        problems.append(f"dirty is {report.dirty}, and left is {sorted(told)}")
    uncertain = {record.path.replace("undo:", "") for record in report.undo if record.outcome == "uncertain"}
    # What was cancelled on its way to a worker may have begun, for all that is known.
    undone = [node for node in undone if node in begun or node not in uncertain]
    problems += [f"{node} never began and is undone" for node in undone if node not in begun]
    # What a handler does comes after the undo of what it handles; branches begin in any order.
    last = [node for node in undone if node in begun and not node.startswith(("tried", "both", "each"))]
    if last != sorted(last, key=begun.index, reverse=True):
        problems.append(f"not in reverse order: {undone}")
    return problems


def _caught(lines: list[Line]) -> list[str]:
    """Say what is wrong with a run that completed: only what an error left that was caught is undone."""
    done = {line.node for line in lines if line.undoes is None and line.event == "effect"}
    undone = {line.undoes for line in lines if line.undoes and line.event == "effect"}
    handled = any(node.startswith("tried.catch") for node in done)
    expected = {node for node in done if node in ("tried.h", "tried.i")} if handled else set()
    asked = {line.undoes for line in lines if line.undoes}
    # What may have begun is undone too. An undo that failed for good had no effect.
    begun = {line.node for line in lines} if handled else set()
    if expected <= asked and undone <= begun & {"tried.h", "tried.i"}:
        return []
    return [f"completed, and undone is {undone}, not {expected}"]


async def _again(call: Callable[[], Awaitable[Any]], *, unless: type[Exception] | tuple[()] = ()) -> Any:
    """Call until the server answers."""
    while True:
        try:
            return await call()
        except unless as error:
            if isinstance(error, WorkflowFailureError):
                raise
            return None
        except (RPCError, starting.UnreachableError):
            await asyncio.sleep(0.5)


async def _worker(address: str, directory: Path, running: "list[asyncio.subprocess.Process]") -> None:
    """Have a worker, and another one whenever it has died."""
    command = [sys.executable, "-m", "tests.engine.recorder", address, QUEUE, str(directory / "records")]
    while True:
        log = (directory / "workers.log").open("ab")
        process = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log)
        log.close()
        running.append(process)
        try:
            await process.wait()
        finally:
            running.remove(process)
            with suppress(ProcessLookupError):
                process.kill()


async def soak(runs: int, seed: int, directory: Path) -> int:
    """Run all; return the exit code."""
    begin = time.monotonic()
    place, database = Soak(directory, seed), directory / "temporal.db"
    server = devserver.start(database=database)
    address = server.address
    client = await connected(address)
    running: list[asyncio.subprocess.Process] = []
    helpers = [asyncio.create_task(_worker(address, directory, running)) for _ in range(WORKERS)]
    helpers.append(asyncio.create_task(place.kill_workers(running)))
    numbers = iter(range(runs))

    async def some() -> None:
        for number in numbers:
            await place.run(client, number)

    tasks = [asyncio.create_task(some()) for _ in range(AT_A_TIME)]
    try:
        while sum(place.ended.values()) < runs // 2 and not all(task.done() for task in tasks):
            await asyncio.sleep(0.5)
        server.kill()
        await asyncio.sleep(2)
        server = devserver.start(database=database, port=server.port)
        await asyncio.gather(*tasks)
    finally:
        for helper in helpers:
            helper.cancel()
        await asyncio.gather(*helpers, return_exceptions=True)
        server.stop()
    ended = ", ".join(f"{count} {what}" for what, count in sorted(place.ended.items()))
    print(
        f"seed {seed}: {runs} runs in {time.monotonic() - begin:.0f} s: {ended}; {place.kills} kills of"
        f" workers from outside, 1 of the server; {len(place.wrong)} wrong"
    )
    print("\n".join(place.wrong))
    return 1 if place.wrong else 0


def main() -> None:
    """Run as a program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(3)))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        sys.exit(asyncio.run(soak(options.runs, options.seed, Path(name))))


if __name__ == "__main__":
    main()
