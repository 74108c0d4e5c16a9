"""Undo by hand: whatever way a run has ended, what it has left done is undone once, later, by another run."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
from temporalio.client import WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ApplicationError

from pipeline_runner.core.state import Report
from pipeline_runner.engine.client import find
from pipeline_runner.engine.undoing import Undoing, plan, start_undo, undoing
from pipeline_runner.engine.workflow.outcomes import report_of
from tests.conftest import Pipelines, result_of
from tests.engine.test_undo import ORDER, eventually, failure, ten_steps


def step(name: str, **more: str) -> str:
    undo = f"activity: effect.undo, with: {{log: LOG, name: {name}, blocker: BLOCKER-{name}}}, retry: {{maximum_attempts: 1}}"
    extra = "".join(f"    {key}: {value}\n" for key, value in more.items())
    return f"  - id: {name}\n    activity: effect.do\n    with: {{log: LOG, name: {name}}}\n{extra}    compensate: {{{undo}}}\n"


class Blockers:
    """Keep the undo of a step from working."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def text(self, text: str) -> str:
        return text.replace("BLOCKER", str(self._folder / "blocker"))

    def set(self, *names: str) -> None:
        for name in names:
            (self._folder / f"blocker-{name}").touch()

    def clear(self, *names: str) -> None:
        for name in names:
            (self._folder / f"blocker-{name}").unlink()


@pytest.fixture
def blockers(tmp_path: Path) -> Blockers:
    return Blockers(tmp_path)


async def left(pipelines: Pipelines, handle: WorkflowHandle[Any, Any]) -> Undoing:
    _, description = await find(pipelines.client, handle.id)
    return await undoing(pipelines.client, description)


async def undo(pipelines: Pipelines, handle: WorkflowHandle[Any, Any]) -> Report:
    """Undo a run, and return the report of the undo."""
    started = await start_undo(pipelines.client, await left(pipelines, handle), {})
    try:
        return msgspec.convert(await result_of(started), Report)
    except WorkflowFailureError as error:
        assert isinstance(error.cause, ApplicationError)
        assert error.cause.type == "UndoFailed"
        report = report_of(error.cause)
        assert report is not None
        assert report.dirty
        return report


def states(report: Report) -> list[tuple[str, str]]:
    return [(record.path, record.state) for record in report.undo]


async def test_a_completed_run_is_undone_with_its_children_and_only_once(pipelines: Pipelines) -> None:
    async with pipelines.worker():
        handle = await pipelines.start(ten_steps(pipelines), log=pipelines.log)
        await result_of(handle)
        assert [one.path for one in plan(await left(pipelines, handle))][2:6] == ["s8", "s7", "s6", "s5/c2"]
        report = await undo(pipelines, handle)
        assert pipelines.effects[len(ORDER) :] == [f"undo {name}" for name in reversed(ORDER)]
        assert (report.dirty, len(report.undo)) == (False, len(ORDER))
        again = await left(pipelines, handle)
        assert [*plan(again)] == []
        assert again.workflow_id.endswith("#2")


async def test_of_a_dirty_run_what_is_left_is_undone(pipelines: Pipelines, blockers: Blockers) -> None:
    text = f"name: p\nsteps:\n{step('a')}{step('b')}{step('c')}  - {{id: end, fail: {{message: no}}}}\n"
    bundle = pipelines.bundle(blockers.text(text))
    blockers.set("a", "c")
    async with pipelines.worker():
        handle = await pipelines.start(bundle)
        _, report = await failure(handle)
        assert report is not None
        assert states(report) == [("c", "failed"), ("b", "undone"), ("a", "failed")]
        blockers.clear("c")
        assert states(await undo(pipelines, handle)) == [("c", "undone"), ("a", "failed")]
        blockers.clear("a")
        assert states(await undo(pipelines, handle)) == [("a", "undone")]
        assert [*plan(await left(pipelines, handle))] == []
    assert pipelines.effects[3:] == ["undo b", "undo c", "undo a"]


async def test_a_terminated_run_is_undone_with_the_child_that_it_left(pipelines: Pipelines) -> None:
    """The child was terminated with it; what ended after the run's last task counts, too."""
    child = f"name: child\nsteps:\n{step('c1')}{step('c2', when='true')}".replace(
        "name: c2}", "name: c2, then: hang}"
    )
    text = f"name: p\nsteps:\n{step('a')}  - {{id: inner, pipeline: ./child.yaml}}\n{step('z')}"
    bundle = pipelines.bundle(text.replace("BLOCKER", "none"), child=child.replace("BLOCKER", "none"))
    async with pipelines.worker():
        handle = await pipelines.start(bundle)
        await eventually(lambda: pipelines.effects == ["do a", "do c1", "do c2"])
        await handle.terminate()
        assert [one.path for one in plan(await left(pipelines, handle))] == ["inner/c2", "inner/c1", "a"]
        report = await undo(pipelines, handle)
    assert states(report) == [("inner/c2", "undone"), ("inner/c1", "undone"), ("a", "undone")]
    assert [record.outcome for record in report.undo] == ["uncertain", "completed", "completed"]
    assert pipelines.effects[3:] == ["undo c2", "undo c1", "undo a"]


async def test_what_a_failed_child_has_left_is_undone(pipelines: Pipelines, blockers: Blockers) -> None:
    child = f"name: child\nsteps:\n{step('c1')}{step('c2')}  - {{id: end, fail: {{message: no}}}}\n"
    text = f"name: p\nsteps:\n{step('a')}  - {{id: inner, pipeline: ./child.yaml}}\n"
    bundle = pipelines.bundle(blockers.text(text), child=blockers.text(child))
    blockers.set("c1")
    async with pipelines.worker():
        handle = await pipelines.start(bundle)
        _, report = await failure(handle)
        assert report is not None
        assert report.dirty
        assert pipelines.effects[-2:] == ["undo c2", "undo a"]
        blockers.clear("c1")
        assert states(await undo(pipelines, handle)) == [("inner/c1", "undone")]
    assert pipelines.effects[-1] == "undo c1"


async def test_what_a_caught_error_has_left_is_undone(pipelines: Pipelines, blockers: Blockers) -> None:
    inside = "".join(f"    {line}\n" for line in f"{step('b')}{step('c')}".splitlines())
    block = (
        f"  - id: tried\n    steps:\n{inside}      - {{id: end, fail: {{message: no}}}}\n    catch: [{{}}]\n"
    )
    bundle = pipelines.bundle(blockers.text(f"name: p\nsteps:\n{step('a')}{block}{step('d')}"))
    blockers.set("b")
    async with pipelines.worker():
        handle = await pipelines.start(bundle)
        await result_of(handle)
        blockers.clear("b")
        report = await undo(pipelines, handle)
    assert states(report) == [("d", "undone"), ("tried.b", "undone"), ("a", "undone")]


async def test_two_who_undo_at_once_undo_once(pipelines: Pipelines) -> None:
    bundle = pipelines.bundle(f"name: p\nsteps:\n{step('a')}{step('b')}".replace("BLOCKER", "none"))
    async with pipelines.worker():
        handle = await pipelines.start(bundle)
        await result_of(handle)
        both = await asyncio.gather(*[left(pipelines, handle) for _ in range(2)])
        first, second = [await start_undo(pipelines.client, one, {}) for one in both]
        assert (first.id, first.run_id) == (second.id, second.run_id)
        await result_of(first)
    assert pipelines.effects == ["do a", "do b", "undo b", "undo a"]


async def test_an_undo_by_hand_has_the_keys_of_the_runs_own(pipelines: Pipelines, blockers: Blockers) -> None:
    """So that an activity which did its work, and could not say so, does not do it twice."""
    keys: list[str] = []

    from temporalio import activity

    from pipeline_runner.activities.toolkit.context import idempotency_key

    @activity.defn(name="effect.undo")
    async def noted(given: dict[str, Any]) -> None:
        keys.append(idempotency_key())
        raise ApplicationError("no", type="Stuck", non_retryable=True)

    text = f"name: p\nsteps:\n{step('a')}  - {{id: end, fail: {{message: no}}}}\n"
    bundle = pipelines.bundle(blockers.text(text))
    from pipeline_runner.engine.worker import pipeline_worker
    from tests import effects

    async with pipeline_worker(pipelines.client, task_queue=pipelines.queue, activities=[effects.do, noted]):
        handle = await pipelines.start(bundle)
        await failure(handle)
        await undo(pipelines, handle)
    assert len(keys) == 2
    assert keys[0] == keys[1]


async def test_a_plan_says_what_is_skipped_and_why(pipelines: Pipelines) -> None:
    undo_b = "{activity: effect.undo, with: {log: LOG, name: b}, after: completed}"
    text = (
        f"name: p\non_failure: keep\nsteps:\n{step('a')}    pivot: true\n{step('c')}"
        f"  - id: b\n    activity: effect.do\n    with: {{log: LOG, name: b, then: fail}}\n    compensate: {undo_b}\n"
    )
    bundle = pipelines.bundle(text.replace("BLOCKER", "none"))
    async with pipelines.worker():
        handle = await pipelines.start(bundle)
        await failure(handle)
        planned = [*plan(await left(pipelines, handle))]
    assert [(one.path, one.action, one.skipped, one.reason) for one in planned] == [
        ("b", None, True, "it failed, and its compensation runs only after: completed"),
        ("c", "effect.undo", False, None),
        ("a", None, True, "the point of no return: it and the steps before it are not undone"),
    ]
