"""Measure branches and loops against code written by hand, side by side in one run.

Run from the root of the repository::

    python -m bench.scopes [--quick] [--only PART ...]

By hand means ``asyncio.gather`` over coroutines that each take a semaphore, and the list of what was
begun that a saga keeps. Both subjects have a worker in this process with the settings of
``pipeline_worker``; they take turns as in :mod:`bench.interpreter`, whose figures these look like.
"""

import argparse
import asyncio
import gc
import statistics
import tempfile
import time
import tracemalloc
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from temporalio import workflow
from temporalio.api.enums.v1 import EventType
from temporalio.bridge.proto.workflow_activation import WorkflowActivation
from temporalio.bridge.proto.workflow_completion import WorkflowActivationCompletion
from temporalio.client import Client, WorkflowHandle, WorkflowHistory
from temporalio.worker import (
    Replayer,
    UnsandboxedWorkflowRunner,
    Worker,
    WorkflowInstance,
    WorkflowInstanceDetails,
)

from bench import subjects
from bench.interpreter import Samples, _replayed, connected, ratio, rounds
from pipeline_runner.core import model
from pipeline_runner.engine import client as starting
from pipeline_runner.engine.cancelling import DetailedRunner
from pipeline_runner.engine.interceptor import PipelineInterceptor
from pipeline_runner.engine.worker import pipeline_worker
from pipeline_runner.engine.workflow.interpreter import Interpreter
from pipeline_runner.language.workspace import load
from pipeline_runner.server import devserver

HAND, PIPELINE = "by hand", "pipeline"
BOTH = (HAND, PIPELINE)


@dataclass
class Fan:
    """The input of the workflow written by hand."""

    name: str
    step: str
    items: list[int]
    limit: int


@workflow.defn(name="fan-by-hand")
class FanByHand:
    """One activity for each item, at most so many at a time; what was begun is undone if one fails."""

    @workflow.run
    async def run(self, fan: Fan) -> list[subjects.Tally]:
        """Run all."""
        begun: list[tuple[str, subjects.Tally]] = []
        limit = asyncio.Semaphore(fan.limit)

        async def one(number: int, item: int) -> subjects.Tally:
            async with limit:
                step, given = f"{fan.step}[{number}]", subjects.Tally(name=fan.name, total=item)
                begun.append((step, given))
                return await workflow.execute_activity(
                    subjects.add,
                    given,
                    activity_id=step,
                    summary=f"add {item}",
                    start_to_close_timeout=subjects.TIMEOUT,
                    retry_policy=subjects.RETRY,
                    cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
                )

        try:
            return await asyncio.gather(*(one(*pair) for pair in enumerate(fan.items)))
        except Exception:
            for step, given in reversed(begun):
                await workflow.execute_activity(
                    subjects.remove,
                    given,
                    activity_id=f"undo:{step}",
                    summary=f"undo {step}",
                    start_to_close_timeout=subjects.TIMEOUT,
                    retry_policy=subjects.UNDO_RETRY,
                )
            raise


_HEAD = """\
version: 1
name: bench-scopes
inputs:
  name: {type: string, default: tally}
  items: {type: array, items: {type: integer}, default: []}
policies:
  step:
    timeouts: {start_to_close: 30s}
    retry: {initial_interval: 1s, backoff_coefficient: 2.0, maximum_interval: 1m, maximum_attempts: 5}
defaults:
  policy: step
  compensate: {timeouts: {start_to_close: 30s}}
steps:
"""
_UNDO = """
    compensate:
      activity: bench.remove
      with: {name: "{{ step.input.name }}", total: "{{ step.input.total }}"}
"""


def _looped(limit: int, *, undo: bool = True, output: str = '"{{ steps.each.output }}"') -> str:
    step = f"""\
  - id: each
    for_each: inputs.items
    max_concurrency: {limit}
    name: add {{{{ item }}}}
    activity: bench.add
    with: {{name: "{{{{ inputs.name }}}}", total: "{{{{ item }}}}"}}
"""
    return _HEAD + step.rstrip() + (_UNDO if undo else "\n") + f"output: {output}\n"


def _branches(number: int) -> str:
    branches = "".join(
        f"""\
      b{branch}:
        - id: s{branch}
          name: add {branch}
          activity: bench.add
          with: {{name: "{{{{ inputs.name }}}}", total: {branch}}}
          compensate:
            activity: bench.remove
            with: {{name: "{{{{ step.input.name }}}}", total: "{{{{ step.input.total }}}}"}}
"""
        for branch in range(number)
    )
    return f'{_HEAD}  - id: fan\n    parallel:\n{branches}output: "{{{{ steps.fan.output }}}}"\n'


_SETS = (
    _HEAD
    + """\
  - id: each
    for_each: inputs.items
    steps:
      - {id: one, set: {x: "{{ item + 1 }}"}}
      - {id: two, set: {x: "{{ steps.one.output.x * 2 }}"}}
"""
)
_TRIED = (
    _HEAD
    + """\
  - id: all
    catch: [{output: handled}]
    steps:
      - id: each
        for_each: inputs.items
        steps:
          - id: one
            set: {x: "{{ item }}"}
            compensate: {activity: bench.remove, with: {name: x, total: 0}}
          - {id: last, when: item == inputs.items | length - 1, fail: {message: enough}}
"""
)
_WHOLE = (
    _HEAD
    + """\
  - id: each
    for_each: inputs.items
    max_concurrency: 50
    compensate: {activity: bench.remove, with: {name: x, total: 0}}
    steps:
      - id: one
        set: {x: "{{ item }}"}
        compensate: {activity: bench.remove, with: {name: x, total: 0}}
"""
)


class Timed(DetailedRunner):
    """Notes how long the code of every workflow task takes."""

    def __init__(self) -> None:
        """Note nothing yet."""
        self.seconds: list[float] = []

    def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
        """Create an instance that is timed."""
        instance = super().create_instance(det)
        activate = instance.activate

        def timed(task: WorkflowActivation) -> WorkflowActivationCompletion:
            begin = time.perf_counter()
            try:
                return activate(task)
            finally:
                self.seconds.append(time.perf_counter() - begin)

        instance.activate = timed  # type: ignore[assignment, method-assign]
        return instance


class Bench:
    """Both subjects, ready to run on one server."""

    def __init__(self, client: Client, folder: Path) -> None:
        """Serve nothing yet: see :meth:`serving`."""
        self.client = client
        self.timed = Timed()
        self._folder = folder
        self._bundles: dict[str, bytes] = {}
        self._queue = f"bench-{uuid.uuid4().hex[:8]}-"

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Have a worker for each subject."""
        pipelines = pipeline_worker(
            self.client,
            task_queue=self._queue + PIPELINE,
            activities=[subjects.add, subjects.remove],
            unsandboxed_workflow_runner=self.timed,
        )
        settings: dict[str, Any] = {
            **pipelines.config(),
            "task_queue": self._queue + HAND,
            "workflows": [FanByHand],
            "activities": [subjects.add, subjects.remove],
            "interceptors": [],
            "plugins": [],
            "workflow_runner": UnsandboxedWorkflowRunner(),
        }
        async with pipelines, Worker(**settings):
            yield

    def bundle(self, text: str) -> bytes:
        """Return the encoded bundle of a file."""
        if text not in self._bundles:
            path = self._folder / f"{len(self._bundles)}.yaml"
            path.write_text(text)
            loaded = load(path, modules=["bench.subjects"])
            assert loaded.bundle is not None, loaded.diagnostics
            self._bundles[text] = model.encode(loaded.bundle)
        return self._bundles[text]

    async def run(
        self, subject: str, text: str, items: int, limit: int, step: str = "each"
    ) -> WorkflowHandle[Any, Any]:
        """Run one of both, to the end."""
        workflow_id, queue = f"{subject}-{uuid.uuid4().hex[:12]}", self._queue + subject
        numbers = list(range(items))
        if subject == HAND:
            fan = Fan(name="tally", step=step, items=numbers, limit=limit)
            handle = await self.client.start_workflow(FanByHand.run, fan, id=workflow_id, task_queue=queue)
        else:
            what = starting.Start(
                name="bench-scopes",
                bundle=self.bundle(text),
                inputs={"items": numbers},
                workflow_id=workflow_id,
                task_queue=queue,
            )
            handle = (await starting.start(self.client, what))[0]
        await self.client.get_workflow_handle(handle.id).result()
        return handle

    def replayer(self, subject: str) -> Replayer:
        """Return what replays the histories of a subject."""
        if subject == PIPELINE:
            return Replayer(workflows=[Interpreter], interceptors=[PipelineInterceptor(self.client)])
        return Replayer(workflows=[FanByHand], workflow_runner=UnsandboxedWorkflowRunner())


def _header(title: str) -> None:
    print(f"\n### {title}\n\n| | {HAND} | {PIPELINE} | {PIPELINE} / {HAND} | rounds |\n|---|--:|--:|--:|--:|")


def _row(what: str, samples: Samples, scale: float = 1000.0, digits: int = 1) -> None:
    shown = [f"{statistics.median(samples[s]) * scale:.{digits}f}" for s in BOTH]
    cells = [what, *shown, ratio(samples, PIPELINE), str(len(samples[HAND]))]
    print(f"| {' | '.join(cells)} |", flush=True)


_SIZES = {
    "parallel of 100": (_branches(100), 100, 100, "s"),
    "1,000 items, 50 at a time": (_looped(50), 1000, 50, "each"),
}


async def latency(bench: Bench, number: int) -> None:
    """Time runs, and count their events."""
    _header("Latency, ms; and CPU of the worker's process meanwhile, ms")
    for what, (text, items, limit, step) in _SIZES.items():

        async def measure(subject: str) -> tuple[float, ...]:
            wall, cpu = time.perf_counter(), time.process_time()
            handle = await bench.run(subject, text, items, limit, step)  # noqa: B023 - called in here
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            return wall, cpu, await _events(handle)

        for subject in BOTH:
            await bench.run(subject, text, items, limit, step)
        walls, cpus, events = await rounds(number, BOTH, measure)
        _row(what, walls)
        _row(f"{what}, CPU", cpus)
        _row(f"{what}, events", events, 1.0, 0)


async def _events(handle: WorkflowHandle[Any, Any]) -> float:
    # Those of workflow tasks depend on what arrives together.
    kinds = [EventType.Name(event.event_type) async for event in handle.fetch_history_events()]
    return float(sum("WORKFLOW_TASK" not in kind for kind in kinds))


async def flat(bench: Bench, number: int) -> None:
    """Time loops by the item, whatever their length."""
    _header("Milliseconds an item, 50 at a time")
    text = _looped(50)
    for items in (100, 1000, 10_000):

        async def measure(subject: str) -> tuple[float, ...]:
            wall, cpu = time.perf_counter(), time.process_time()
            await bench.run(subject, text, items, 50)  # noqa: B023 - called in here
            return (time.perf_counter() - wall) / items, (time.process_time() - cpu) / items  # noqa: B023

        walls, cpus = await rounds(
            max(1, min(number, 10_000 // items)) if items > 100 else number, BOTH, measure
        )
        _row(f"{items} items", walls, digits=2)
        _row(f"{items} items, CPU", cpus, digits=2)


async def memory(bench: Bench, _: int) -> None:
    """Measure what a run holds in memory at most, and what it hands to the next run of its chain."""
    print("\n### Memory of one run at most, KiB; and what it hands on to the next run, KiB\n")
    print("| | 100 items | 1,000 items | 10,000 items | handed on |\n|---|--:|--:|--:|--:|")
    unread = _looped(50, undo=False, output='"{{ steps.each.status }}"')
    for what, subject, text in (
        (HAND, HAND, ""),
        ("pipeline that can be undone, and returns all outputs", PIPELINE, _looped(50)),
        ("pipeline whose outputs nobody reads", PIPELINE, unread),
    ):
        peaks = []
        for items in (100, 1000, 10_000):
            gc.collect()
            tracemalloc.start()
            before = tracemalloc.get_traced_memory()[0]
            handle = await bench.run(subject, text, items, 50)
            peaks.append((tracemalloc.get_traced_memory()[1] - before) / 1024)
            tracemalloc.stop()
        cells = [f"{peak:,.0f}" for peak in peaks]
        print(f"| {what} | {' | '.join(cells)} | {await _handed_on(bench, handle)} |", flush=True)


async def _handed_on(bench: Bench, handle: WorkflowHandle[Any, Any]) -> str:
    """Return the size of the largest state with which a run of a chain began."""
    sizes: list[int] = []
    run_id: str | None = None
    while True:
        events = bench.client.get_workflow_handle(handle.id, run_id=run_id).fetch_history_events()
        started = (await anext(events)).workflow_execution_started_event_attributes
        run_id = started.continued_execution_run_id
        if not run_id:
            break
        sizes.append(len(started.input.payloads[2].data))
    return f"{max(sizes) / 1024:.1f}" if sizes else "not at all"


async def replay(bench: Bench, number: int) -> None:
    """Replay a history of some 5,000 events."""
    _header("Replay of a history of 1,400 items, ms")
    recorded: dict[str, WorkflowHistory] = {}
    text = _looped(50)
    for subject in BOTH:
        recorded[subject] = await (await bench.run(subject, text, 1400, 50)).fetch_history()
    lengths = " and ".join(str(len(recorded[subject].events)) for subject in BOTH)

    async def measure(subject: str) -> tuple[float, ...]:
        return (await _replayed(bench.replayer(subject), recorded[subject], 1),)

    _row(f"{lengths} events", (await rounds(number, BOTH, measure))[0])


async def tasks(bench: Bench, _: int) -> None:
    """Find the longest workflow task of long loops."""
    print(
        "\n### Workflow tasks, ms\n\n| | tasks | median | longest | seconds in all |\n|---|--:|--:|--:|--:|"
    )
    for what, text, items in (
        ("10,000 items with an activity, 50 at a time", _looped(50), 10_000),
        ("10,000 items with an activity, 500 at a time", _looped(500), 10_000),
        ("10,000 items of two `set` steps", _SETS, 10_000),
        ("the same, 50 at a time", _SETS.replace("each\n", "each\n    max_concurrency: 50\n"), 10_000),
        ("1,000 items that fail at the end, undone and caught", _TRIED, 1000),
        ("10,000 items with an undo of their own", _WHOLE, 10_000),
    ):
        bench.timed.seconds.clear()
        begin = time.perf_counter()
        await bench.run(PIPELINE, text, items, 0)
        took = sorted(bench.timed.seconds)
        cells = [f"{len(took)}", f"{took[len(took) // 2] * 1000:.1f}", f"{took[-1] * 1000:.0f}"]
        print(f"| {what} | {' | '.join(cells)} | {time.perf_counter() - begin:.1f} |", flush=True)


PARTS: dict[str, Callable[[Bench, int], Awaitable[None]]] = {
    "latency": latency,
    "flat": flat,
    "memory": memory,
    "replay": replay,
    "tasks": tasks,
}


async def measured(parts: list[str], number: int, folder: Path) -> None:
    """Measure on two servers of our own, which are stopped afterwards.

    One of them does not suggest continue-as-new, so that long histories can be compared.
    """
    for chosen, settings in (
        ([part for part in parts if part != "replay"], ()),
        ([part for part in parts if part == "replay"], ("limit.historyCount.suggestContinueAsNew=40000",)),
    ):
        if not chosen:
            continue
        server = devserver.start(settings=settings)
        try:
            bench = Bench(await connected(server.address), folder)
            async with bench.serving():
                for part in chosen:
                    await PARTS[part](bench, number)
        finally:
            server.stop()


def main() -> None:
    """Run the parts that are asked for, and print tables in Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds, wide intervals")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), help="these parts alone")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        asyncio.run(measured(options.only or list(PARTS), 4 if options.quick else 12, Path(name)))


if __name__ == "__main__":
    main()
