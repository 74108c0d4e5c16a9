"""Every step and every undo of every example goes wrong in every way, one after the other.

The examples run as they are, but a recorder stands in for their activities. The suite takes a sample;
``FAIL_EVERY_NODE=1 ./dev test tests/engine/test_fail_every_node.py -s`` takes them all, and prints figures.
"""

import asyncio
import json
import os
import random
import sys
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client, WorkflowFailureError
from temporalio.exceptions import ApplicationError, CancelledError

from pipeline_runner.core import model
from pipeline_runner.core.paths import Path as StepPath
from pipeline_runner.core.state import Report
from pipeline_runner.engine import client as starting
from pipeline_runner.engine.worker import pipeline_worker
from pipeline_runner.engine.workflow.outcomes import report_of
from pipeline_runner.language.workspace import load
from pipeline_runner.server import devserver
from tests.engine.recorder import Fault, Line, Recorder
from tests.engine.test_undo import eventually

ALL = os.environ.get("FAIL_EVERY_NODE") == "1"
EXAMPLES = Path(__file__).parents[2] / "pipelines"
INPUTS: dict[str, dict[str, Any]] = {
    "container-lifecycle": {"container": "web"},
    "deploy-app": {"app": "shop", "version": "x", "domain": "shop.example.test"},
    "download-and-load": {"url": "http://localhost/x", "checksum": "sha256:" + "0" * 64},
    "hold-file": {"path": "x"},
    "notify": {"path": "x"},
    "parent-close": {},
    "polyglot": {"order": "x", "account": "y", "amount": 1},
    "provision-resource": {"name": "x"},
    "ship-order": {"order": "x", "amount": 1},
    "stage-rollout": {"version": "2.0.0"},
    "stop-and-snapshot": {"container": "web", "image": "web:1", "tag": "web:latest"},
    "write-stage": {"stage": "a", "version": "1", "root": "x"},
}
OUTPUTS = {
    "dns.upsert": {"replaced": {"values": ["x"], "ttl": 60}},
    "sql.execute": {"rows": [{"measurements": 7, "stations": 2}]},
}
"""Of activities whose catalogue does not say what the examples read."""

STEP_MODES = ("fail-before", "fail-after", "hang-before", "hang-after", "cancel-before", "cancel-after")
UNDO_MODES = ("fail-before", "hang-before", "hang-after", "stuck")
KILLS = ("die-before", "die-after")


def sample(schema: Any) -> Any:
    """Return a value that a JSON Schema of the catalogue describes, more or less."""
    if not isinstance(schema, dict):
        return "x"
    for choices in ("anyOf", "oneOf"):
        if choices in schema:
            return sample(schema[choices][0])
    if "enum" in schema or "const" in schema:
        return schema.get("const", schema.get("enum", [None])[0])
    kind = schema.get("type")
    match kind[0] if isinstance(kind, list) else kind:
        case "object":
            return {key: sample(inner) for key, inner in schema.get("properties", {}).items()}
        case "array":
            return [sample(schema.get("items"))]
        case "integer" | "number":
            return 200
        case "boolean":
            return False
        case "null":
            return None
    return "x"


class Example:
    """One of the pipelines in ``pipelines/``, with other timeouts and retries, and on one task queue."""

    def __init__(self, name: str) -> None:
        loaded = load(EXAMPLES / f"{name}.yaml")
        assert loaded.bundle is not None, loaded.diagnostics
        self.name = name
        self.outputs = {entry: sample(loaded.catalogue[entry].output) for entry in loaded.catalogue} | OUTPUTS
        self._bundle = json.loads(model.encode(loaded.bundle))
        pipelines = loaded.bundle.pipelines
        self.steps = {step.id: step for one in pipelines.values() for step in model.steps_of(one)}
        calls = {step.id: step.action for step in self.steps.values()}
        self.apart = {
            step
            for step, call in calls.items()
            if isinstance(call, model.ChildCall) and not call.wait_for_completion
        }
        """Steps whose child goes its own way."""
        self.final = {step.id for one in pipelines.values() for step in one.finally_}

    def bundle(self, short: str | None = None) -> bytes:
        """Return the bundle to run; ``short``: the path of the step, or of the undo, that has little time."""
        data = json.loads(json.dumps(self._bundle))
        step = {"maximum_attempts": 1}
        undo = {"maximum_attempts": 3, "initial_interval": 0.01}
        data["policies"] = [
            {"timeouts": {"start_to_close": seconds}, "retry": retry}
            for seconds in (30.0, 1.5)
            for retry in (step, undo)
        ]
        hurried = None if short is None else (_id(short), "undo:" in short)
        for pipeline in data["pipelines"].values():
            _rewritten(pipeline, hurried)
        return model.encode(model.decode(json.dumps(data).encode()))

    def is_undone(self, path: str) -> bool:
        """Tell whether a step of that path is undone when its run fails."""
        step = self.steps[_id(path)]
        return isinstance(step.compensate, model.Compensation) and step.id not in self.final


def _rewritten(
    value: Any, hurried: tuple[str, bool] | None, step: str | None = None, *, undo: bool = False
) -> None:
    if isinstance(value, list):
        for item in value:
            _rewritten(item, hurried, step, undo=undo)
    if not isinstance(value, dict):
        return
    if "action" in value and "id" in value:
        step = value["id"]
    match value.get("kind"):
        case "activity":
            value["policy"] = int(undo) + (2 if (step, undo) == hurried else 0)
            value.pop("task_queue", None)
            value.pop("secrets", None)
        case "pipeline":
            for key in ("workflow_id", "task_queue", "retry", "timeouts"):
                value.pop(key, None)
        case "wait":
            value.pop("until", None)
            value["duration"] = "10ms"
    value.pop("task_queue", None)
    for key, inner in value.items():
        _rewritten(inner, hurried, step, undo=undo or key == "compensate")


def _id(path: str) -> str:
    return StepPath.parse(path).levels[-1].segments[-1].name


@dataclass(frozen=True)
class Case:
    """One thing that goes wrong."""

    node: str
    mode: str

    @property
    def fault(self) -> Fault:
        mode = self.mode.replace("cancel", "hang").replace("stuck", "fail-before")
        return Fault(node=self.node, mode=mode, times=100 if self.mode == "stuck" else 1)


@dataclass(frozen=True)
class Ended:
    """How a run ended."""

    cause: BaseException | None
    """None: it completed."""
    report: Report | None
    lines: list[Line]


class Place:
    """Where examples run."""

    def __init__(self, client: Client, directory: Path) -> None:
        self.client = client
        self.directory = directory
        self.recorder = Recorder(directory)
        self.queue = f"nodes-{uuid.uuid4().hex[:8]}"

    async def run(self, example: Example, *cases: Case) -> Ended:
        """Run an example in which things go wrong."""
        run = f"n-{uuid.uuid4().hex[:12]}"
        self.recorder.inject(run, [case.fault for case in cases])
        slow = [case.node for case in cases if case.mode.startswith(("hang", "die"))]
        handle, _ = await starting.start(
            self.client,
            starting.Start(
                name=example.name,
                bundle=example.bundle(*slow),
                inputs=INPUTS[example.name],
                workflow_id=run,
                task_queue=self.queue,
            ),
        )
        if any(case.mode.startswith("cancel") for case in cases):
            await eventually(lambda: any(line.event == "fault" for line in self.recorder.lines(run)))
            await handle.cancel()
        cause: BaseException | None = None
        try:
            async with asyncio.timeout(60):
                await handle.result()
        except WorkflowFailureError as error:
            cause = error.cause
        report = report_of(cause) if isinstance(cause, ApplicationError | CancelledError) else None
        lines = self.recorder.lines(run)
        return Ended(cause, report, [line for line in lines if line.node.split("/")[0] not in example.apart])


def judged(example: Example, case: Case, ended: Ended) -> None:
    """Assert that what was done is undone in reverse order, or that the run says what is left."""
    lines = ended.lines
    begun = list(dict.fromkeys(line.node for line in lines if line.undoes is None))
    done = [n for n in begun if any(line.node == n and line.event == "effect" for line in lines)]
    undone = list(dict.fromkeys(line.undoes for line in lines if line.undoes and line.event == "effect"))
    assert ended.report is not None
    told = {record.path.replace("undo:", ""): record.state for record in ended.report.undo}
    left = {path for path, state in told.items() if state != "undone"}
    assert ended.report.dirty == bool(left), told
    owed = [node for node in done if example.is_undone(node)]
    assert [node for node in owed if node not in undone and node not in left] == [], (told, undone)
    assert set(undone) <= set(begun), "what was never begun is not undone"
    assert undone == sorted(undone, key=begun.index, reverse=True), "not in reverse order"
    keys = {(line.node, line.key) for line in lines}
    assert len(keys) == len({node for node, _ in keys}), "a node has two keys"
    for node, times in Counter(line.node for line in lines if line.event == "effect").items():
        assert times == 1 or node == case.node, (node, times)


def judged_step(example: Example, case: Case, ended: Ended, order: list[str]) -> None:
    """Assert that a step failed where the fault was, and nothing came after it."""
    assert [line.node for line in ended.lines if line.event == "fault"] == [case.node]
    begun = {line.node for line in ended.lines if line.undoes is None}
    later = {node for node in order[order.index(case.node) + 1 :] if _id(node) not in example.final}
    if _id(case.node) in example.final:
        # What the pipeline is for is done.
        return
    assert not begun & later, "something came after the step that failed"
    assert ended.report is not None
    if case.mode.startswith("cancel"):
        assert ended.report.status == "cancelled"
    else:
        assert ended.report.status == "failed"
        assert ended.report.error is not None
        kinds = {"fail": "Injected", "hang": "StartToCloseTimeout", "die": "StartToCloseTimeout"}
        assert ended.report.error.type == kinds[case.mode.partition("-")[0]]
    judged(example, case, ended)


def judged_undo(example: Example, case: Case, ended: Ended, failing: Case) -> None:
    """Assert that an undo went wrong where the fault was, and that the others were done all the same."""
    faults = [line.node for line in ended.lines if line.event == "fault"]
    times = 3 if case.mode == "stuck" else 1
    assert faults == [failing.node] + [case.node] * times
    assert ended.report is not None
    assert ended.report.dirty == (case.mode == "stuck")
    judged(example, case, ended)


def sampled(cases: list[tuple[Case, ...]], number: int) -> list[tuple[Case, ...]]:
    """Return some of the cases, the same in every run, or all of them if that is asked for."""
    return cases if ALL or len(cases) <= number else random.Random(len(cases)).sample(cases, number)


async def each(example: Example, place: Place, modes: tuple[tuple[str, ...], tuple[str, ...]]) -> int:
    """Run an example once for each case, some at a time; return how many there were."""
    place.recorder.describe(example.outputs)
    clean = await place.run(example)
    assert clean.cause is None, clean.cause
    order = [line.node for line in clean.lines if line.event == "start"]
    failing = Case([node for node in order if _id(node) not in example.final][-1], "fail-before")
    undos = [line.node for line in (await place.run(example, failing)).lines if line.undoes is not None]
    undos = list(dict.fromkeys(undos))
    steps: list[tuple[Case, ...]] = [(Case(node, mode),) for node in order for mode in modes[0]]
    undoing: list[tuple[Case, ...]] = [(failing, Case(node, mode)) for node in undos for mode in modes[1]]
    limit = asyncio.Semaphore(1 if modes[0] == KILLS else 6)

    async def one(cases: tuple[Case, ...]) -> None:
        async with limit:
            ended = await place.run(example, *cases)
            try:
                if len(cases) == 1:
                    judged_step(example, cases[0], ended, order)
                else:
                    judged_undo(example, cases[1], ended, failing)
            except AssertionError as error:
                shown = "\n".join(map(str, [*cases, ended.report, *ended.lines]))
                raise AssertionError(f"{example.name}: {error}\n{shown}") from error

    chosen = [*sampled(steps, 3), *sampled(undoing, 1)]
    await asyncio.gather(*map(one, chosen))
    return len(chosen)


@pytest.mark.parametrize("name", INPUTS)
async def test_whatever_goes_wrong_wherever_it_does(name: str, client: Client, tmp_path: Path) -> None:
    place = Place(client, tmp_path)
    activities = [place.recorder.activity()]
    async with pipeline_worker(client, task_queue=place.queue, activities=activities):
        number = await each(Example(name), place, (STEP_MODES, UNDO_MODES))
    print(f"{name}: {number} faults")


async def _kill_a_worker(name: str, client: Client, server: devserver.DevServer, tmp_path: Path) -> None:
    place = Place(client, tmp_path)
    async with workers(server.address, place):
        number = await each(Example(name), place, (KILLS, KILLS))
    print(f"{name}: {number} kills")


if ALL:  # a worker for each fault takes long
    test_a_worker_that_is_killed_wherever_it_is = pytest.mark.parametrize("name", INPUTS)(_kill_a_worker)


@asynccontextmanager
async def workers(address: str, place: Place) -> AsyncIterator[None]:
    """Have a worker in a process, and another one whenever it has died."""
    command = [sys.executable, "-m", "tests.engine.recorder", address, place.queue, str(place.directory)]

    async def always() -> None:
        while True:
            process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
            try:
                await process.wait()
            except asyncio.CancelledError:
                process.kill()
                await process.wait()
                raise

    task = asyncio.create_task(always())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_every_example_is_here() -> None:
    assert sorted(INPUTS) == sorted(
        path.stem for path in EXAMPLES.glob("*.yaml") if path.stem != "activities"
    )
