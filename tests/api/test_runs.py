"""Runs are started, found, waited for, looked at and cancelled by programs, on a real server."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import msgspec
import pydantic
import pytest
from temporalio.client import Client

import pipeline_runner
from pipeline_runner import (
    ConflictError,
    Ended,
    InvalidInputs,
    InvalidPipeline,
    Pipeline,
    Progress,
    RefusedError,
    RunCancelled,
    RunFailed,
    Runner,
    WorkflowIdError,
    load_text,
)
from tests import effects

GREET = """\
name: greet
workflow_id: "greet-{{ inputs.of }}"
inputs: {of: {type: string}, often: {type: integer, default: 2}}
steps:
  - {id: a, set: {text: "Hello, {{ inputs.of }}"}}
output: {text: "{{ steps.a.output.text }}", often: "{{ inputs.often }}"}
"""


class Greeting(TypedDict):
    text: str
    often: int


@dataclass
class AsDataclass:
    text: str
    often: int


class AsStruct(msgspec.Struct):
    text: str
    often: int


class AsModel(pydantic.BaseModel):
    text: str
    often: int = pydantic.Field(gt=0)


class World:
    """A task queue of its own, with a log of effects."""

    def __init__(self, client: Client, folder: Path) -> None:
        self.queue = f"api-{uuid.uuid4().hex[:12]}"
        self.log = folder / "effects.log"
        self.client = client
        self.runner = Runner(client, task_queue=self.queue)

    def pipeline(self, *steps: str, head: str = "", activities: Any = ("tests.effects",)) -> Pipeline:
        """Return a pipeline of steps of the recorder: ``a``, or ``a then`` with what the step does then."""
        lines = [f"name: {self.queue}\n", head, "steps:\n"]
        for step in steps:
            name, _, then = step.partition(" ")
            given = f"{{log: {self.log}, name: {name}, then: '{then}'}}"
            lines.append(
                f"  - id: {name}\n    activity: effect.do\n    with: {given}\n    timeouts: {{heartbeat: 5s}}\n"
                f"    compensate: {{activity: effect.undo, with: {{log: {self.log}, name: {name}}}}}\n"
            )
        return load_text("".join(lines), activities=activities)

    @asynccontextmanager
    async def worker(self, *pipelines: Pipeline, **settings: Any) -> AsyncIterator[None]:
        async with pipeline_runner.worker(
            self.client, pipelines, task_queue=self.queue, activities=[effects.do, effects.undo], **settings
        ):
            yield

    @property
    def effects(self) -> list[str]:
        return effects.lines(self.log)


@pytest.fixture
def world(client: Client, tmp_path: Path) -> World:
    return World(client, tmp_path)


def unique(text: str, world: World) -> str:
    return text.replace("greet-", f"{world.queue}-")


async def test_a_loaded_pipeline_runs(world: World) -> None:
    pipeline = load_text(unique(GREET, world))
    async with world.worker():
        run = await world.runner.start(pipeline, {"of": "Ada"})
        assert (run.workflow_id, run.pipeline, run.new) == (f"{world.queue}-Ada", "greet", True)
        assert await run.result() == {"text": "Hello, Ada", "often": 2}
        again = await world.runner.get(run.workflow_id)
    assert await again.result() == {"text": "Hello, Ada", "often": 2}
    assert (again.run_id, again.pipeline, again.new) == (run.run_id, "greet", False)
    assert repr(again) == f"<Run {run.workflow_id}>"


@pytest.mark.parametrize("kind", [Greeting, AsDataclass, AsStruct, AsModel])
async def test_a_result_has_the_type_that_is_asked_for(world: World, kind: Any) -> None:
    pipeline = load_text(unique(GREET, world))
    async with world.worker():
        run = await world.runner.start(pipeline, {"of": "Ada", "often": 3})
        assert await run.result(kind) == kind(text="Hello, Ada", often=3)
        assert await run.result(dict[str, Any]) == {"text": "Hello, Ada", "often": 3}
        if kind is AsModel:
            maybe: Any = kind | None
            assert await run.result(maybe) == kind(text="Hello, Ada", often=3)
        with pytest.raises(ValueError, match=r"Expected `int`, got `str`"):
            await run.result(dict[str, int])


async def test_a_pydantic_model_checks_the_result_itself(world: World) -> None:
    async with world.worker():
        run = await world.runner.start(load_text(unique(GREET, world)), {"of": "Ada", "often": 0})
        with pytest.raises(ValueError, match="greater than 0"):
            await run.result(AsModel)


async def test_bad_input_starts_nothing(world: World) -> None:
    pipeline = load_text(unique(GREET, world))
    with pytest.raises(InvalidInputs, match="often: must be an integer"):
        await world.runner.start(pipeline, {"of": "Ada", "often": "3"})
    with pytest.raises(InvalidPipeline, match="unknown-key"):
        await world.runner.start(load_text("name: a\nsteps: [{id: b, sets: {c: 1}}]\n"))
    with pytest.raises(WorkflowIdError, match="1 to 1000 bytes"):
        await world.runner.start(pipeline, {"of": "A" * 1000})
    with pytest.raises(WorkflowIdError, match="1 to 1000 bytes"):
        await world.runner.start("greet", workflow_id="")
    with pytest.raises(LookupError, match=f'there is no run "{world.queue}-Ada" here'):
        await world.runner.get(f"{world.queue}-Ada")


@pytest.mark.parametrize("by_name", [False, True])
async def test_the_open_run_of_the_same_id_is_found_if_it_is_the_same(world: World, by_name: bool) -> None:
    what: Any = "greet" if by_name else load_text(GREET)
    first = await world.runner.start(what, {"of": "Ada"}, workflow_id=world.queue)
    second = await world.runner.start(what, {"of": "Ada"}, workflow_id=world.queue)
    assert (first.new, second.new, second.run_id) == (True, False, first.run_id)
    with pytest.raises(ConflictError, match="a different pipeline or different inputs"):
        await world.runner.start(what, {"of": "Eve"}, workflow_id=world.queue)
    other: Any = load_text(GREET) if by_name else "greet"
    with pytest.raises(ConflictError, match="a different pipeline or different inputs"):
        await world.runner.start(other, {"of": "Ada"}, workflow_id=world.queue)
    async with world.worker(load_text(GREET)):
        assert await second.result() == await first.result() == {"text": "Hello, Ada", "often": 2}


async def test_a_pipeline_that_a_worker_serves_is_started_by_its_name(world: World) -> None:
    async with world.worker(load_text(GREET)):
        run = await world.runner.start("greet", {"of": "Ada"})
        assert run.workflow_id.startswith("greet-")
        assert await run.result(Greeting) == {"text": "Hello, Ada", "often": 2}
        refused = await world.runner.start("greet", {"off": "Ada"})
        with pytest.raises(RunFailed) as caught:
            await refused.result()
    assert caught.value.type == "InvalidInputs"
    assert not caught.value.report.dirty


async def test_a_failure_carries_the_report(world: World) -> None:
    pipeline = world.pipeline("a", "b", "c fail")
    async with world.worker():
        run = await world.runner.start(pipeline)
        with pytest.raises(RunFailed) as caught:
            await run.result()
    error = caught.value
    assert str(error) == "c: c is out of order [Broken]"
    assert (error.type, error.message, error.workflow_id) == (
        "Broken",
        "c: c is out of order",
        run.workflow_id,
    )
    assert [(record.path, record.state) for record in error.report.undo] == [("b", "undone"), ("a", "undone")]
    assert error.report.steps == {"a": "completed", "b": "completed", "c": "failed"}
    assert not error.report.dirty
    assert world.effects == ["do a", "do b", "undo b", "undo a"]
    # The worker is gone; its history tells as much, and how often each undo was tried.
    report = await run.report()
    assert [record.attempts for record in report.undo] == [1, 1]
    assert (report.status, report.error, report.steps) == ("failed", error.report.error, error.report.steps)


async def test_a_report_of_a_run_that_is_open_or_has_completed(world: World) -> None:
    pipeline = world.pipeline("a", "b hang", "c")
    async with world.worker():
        run = await world.runner.start(pipeline)
        async for event in run.events():
            if isinstance(event, Progress) and event.path == "b":
                break
        report = await run.report()
        assert (report.status, report.steps) == ("running", {"a": "completed", "b": "running"})
        await run.cancel("enough")
        with pytest.raises(RunCancelled, match="cancelled: enough") as caught:
            await run.result()
    assert caught.value.report.status == "cancelled"
    assert [record.path for record in (await run.report()).undo] == ["b", "a"]
    async with world.worker():
        run = await world.runner.start(world.pipeline("a", "b"))
        assert await run.result() is None
    report = await run.report()
    assert (report.status, report.dirty, report.undo) == ("completed", False, ())
    assert report.steps == {"a": "completed", "b": "completed"}


async def test_a_cancellation_that_cannot_undo_all_is_a_failure(world: World) -> None:
    text = f"""\
name: {world.queue}
steps:
  - {{id: a, activity: effect.do, with: {{log: {world.log}, name: a}}, compensate: {{fail: stuck}}}}
  - {{id: b, wait: 1h}}
"""
    broken = text.replace(
        "{fail: stuck}", "{activity: no.such, task_queue: nowhere, timeouts: {schedule_to_start: 50ms}}"
    )
    pipeline = load_text(broken, activities=["tests.effects"])
    async with world.worker():
        run = await world.runner.start(pipeline)
        async for event in run.events():
            if isinstance(event, Progress) and event.path == "b":
                await run.cancel()
                break
        with pytest.raises(RunFailed) as caught:
            await run.result()
    assert caught.value.report.dirty
    assert [(r.path, r.state) for r in caught.value.report.undo] == [("a", "failed")]


async def test_events_come_from_the_start_to_the_end(world: World) -> None:
    pipeline = world.pipeline("a", "b fail")
    async with world.worker():
        run = await world.runner.start(pipeline)
        events = [event async for event in run.events()]
    told = [(e.path, e.state, e.undo) for e in events if isinstance(e, Progress)]
    assert told == [
        ("a", "running", False),
        ("a", "completed", False),
        ("b", "running", False),
        ("b", "failed", False),
        ("a", "running", True),
        ("a", "completed", True),
    ]
    assert isinstance(events[-1], Ended)
    assert events[-1].state == "failed"
    # Without a worker, and for whoever finds the run later.
    found = await world.runner.get(run.workflow_id)
    assert [event async for event in found.events()] == events


async def test_a_run_that_the_server_ended_says_so(world: World) -> None:
    run = await world.runner.start(world.pipeline("a hang"))
    await world.client.get_workflow_handle(run.workflow_id).terminate()
    with pytest.raises(RunFailed, match="terminated: nothing was undone") as caught:
        await run.result()
    assert (caught.value.type, caught.value.report.dirty) == ("Terminated", False)
    async with world.worker():
        run = await world.runner.start(world.pipeline("a hang"))
        async for event in run.events():
            if isinstance(event, Progress):
                break
        await world.client.get_workflow_handle(run.workflow_id).terminate()
        with pytest.raises(RunFailed) as caught:
            await run.result()
    assert caught.value.report.dirty


async def test_relative_paths_refer_to_the_directory_of_the_run(world: World, tmp_path: Path) -> None:
    text = "name: a\nsteps: [{id: b, activity: shell.run, with: {command: [pwd]}, compensate: none}]\noutput: '{{ steps.b.output.stdout }}'\n"
    async with world.worker(load_text(text), directory=tmp_path):
        loaded = await world.runner.start(load_text(text), directory=tmp_path)
        named = await world.runner.start("a")
        assert (await loaded.result()).strip() == (await named.result()).strip() == str(tmp_path)


async def test_the_task_queue_is_that_of_the_runner_else_of_the_pipeline(world: World) -> None:
    text = f"name: a\ntask_queue: {world.queue}\nsteps: [{{id: b, set: {{c: 1}}}}]\noutput: 3\n"
    async with world.worker():
        run = await Runner(world.client).start(load_text(text))
        assert await asyncio.wait_for(run.result(), 30) == 3


WAITING = """\
name: waiting
steps:
  - {id: paid, wait: {event: paid, schema: {type: integer}}}
  - id: block
    steps: [{id: ok, approval: {approvals: 2}}]
    catch: [{types: [ApprovalRejected], output: "{{ error.message }}"}]
output: ["{{ steps.paid.output }}", "{{ steps.block.output }}"]
"""


async def test_a_run_takes_events_and_answers(world: World) -> None:
    async with world.worker():
        run = await world.runner.start(load_text(WAITING), workflow_id=world.queue)
        with pytest.raises(RefusedError, match='the payload of the event "paid" does not'):
            await run.send("paid", "much")
        with pytest.raises(RefusedError, match='waits for the event "paid"'):
            await run.approve("ok")
        await run.send("paid", 5)
        assert await run.approve("ok", {"build": 7}, comment="tested") == 1
        with pytest.raises(RefusedError, match="already: it needs 2 approvals"):
            await run.approve("block.ok")
        with pytest.raises(LookupError, match='the step "block" of the run'):
            await run.reject("block/ok")
        await run.reject("ok", comment="too late")
        identity = world.client.identity
        assert await run.result() == [5, f"ok: rejected by {identity}: too late"]
        with pytest.raises(LookupError, match="has just ended"):
            await run.send("paid", 5)
