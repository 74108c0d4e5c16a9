"""Resume: a run that ended goes on where it stopped, or from what was undone, and does nothing twice."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowHandle

from pipeline_runner.engine.client import ConflictError, find
from pipeline_runner.engine.reports import read_report
from pipeline_runner.engine.resuming import NotResumableError, Resuming, resuming, start_resumed
from tests.conftest import Pipelines, result_of
from tests.engine.test_undo import eventually, failure
from tests.engine.test_undo_by_hand import states, undo

KEEP = "on_failure: keep\n"


def step(name: str, indent: int = 2, **more: str) -> str:
    pad = " " * indent
    given = "".join(f", {key}: {value}" for key, value in more.items())
    return (
        f"{pad}- id: {name}\n{pad}  activity: effect.do\n{pad}  with: {{log: LOG, name: {name}{given}}}\n"
        f"{pad}  timeouts: {{start_to_close: 60s}}\n"
        f"{pad}  compensate: {{activity: effect.undo, with: {{log: LOG, name: {name}}}}}\n"
    )


@pytest.fixture
def blocker(tmp_path: Path) -> Path:
    path = tmp_path / "blocker"
    path.touch()
    return path


async def prepared(pipelines: Pipelines, handle: WorkflowHandle[Any, Any], **how: Any) -> Resuming:
    _, description = await find(pipelines.client, handle.id)
    return await resuming(pipelines.client, description, **how)


async def resume(
    pipelines: Pipelines, handle: WorkflowHandle[Any, Any], **how: Any
) -> WorkflowHandle[Any, Any]:
    return await start_resumed(pipelines.client, await prepared(pipelines, handle, **how), {})


async def test_a_kept_run_goes_on_in_the_middle_of_its_scopes(pipelines: Pipelines, blocker: Path) -> None:
    """Finished items and branches are not run again, what failed runs again, and results are still seen."""
    item = step("i", 10).replace("name: i}", "name: 'i{{ item }}'}")
    text = (
        f"name: p\n{KEEP}steps:\n{step('a')}"
        f"  - id: block\n    steps:\n{step('b', 6)}"
        "      - id: each\n        for_each: [0, 1, 2]\n        max_concurrency: 2\n        steps:\n"
        f"{item}"
        "          - id: check\n            when: item == 1\n            activity: effect.do\n"
        f"            with: {{log: LOG, name: check, blocker: {blocker}}}\n"
        f"{step('c', 6)}"
        f"{step('d')}output: {{first: '{{{{ steps.a.output.name }}}}', each: '{{{{ steps.block.output.name }}}}'}}\n"
    )
    bundle = pipelines.bundle(text)
    async with pipelines.worker():
        handle = await pipelines.start(bundle)
        _, report = await failure(handle)
        assert report is not None
        assert report.kept
        before = pipelines.effects
        assert sorted(before[:4]) == ["do a", "do b", "do i0", "do i1"]
        blocker.unlink()
        resumed = await resume(pipelines, handle)
        assert await result_of(resumed) == {"first": "a", "each": "c"}
        after = pipelines.effects[len(before) :]
        assert [line for line in after if line not in ("do i2", "do check")] == ["do c", "do d"]
        assert "do check" in after
        assert sorted(pipelines.effects) == sorted({*pipelines.effects})
        # All of it is undone as one, whichever run has done it.
        await undo(pipelines, resumed)
    undone = [line for line in pipelines.effects if line.startswith("undo")]
    assert undone[:2] == ["undo d", "undo c"]
    assert sorted(undone) == [f"undo {name}" for name in ("a", "b", "c", "d", "i0", "i1", "i2")]


async def test_an_undone_run_goes_on_from_the_first_step_that_was_undone(
    pipelines: Pipelines, blocker: Path
) -> None:
    look = "  - {id: look, activity: effect.do, with: {log: LOG, name: look}}\n"
    text = f"name: p\nsteps:\n{look}{step('a')}{step('b', blocker=str(blocker))}"
    bundle = pipelines.bundle(f"{text}output: '{{{{ steps.look.output.name }}}}'\n")
    async with pipelines.worker():
        handle = await pipelines.start(bundle)
        await failure(handle)
        assert pipelines.effects == ["do look", "do a", "undo a"]
        blocker.unlink()
        what = await prepared(pipelines, handle)
        assert what.step == "a"
        resumed = await resume(pipelines, handle)
        assert await result_of(resumed) == "look"
    assert pipelines.effects[3:] == ["do a", "do b"]


async def test_a_terminated_run_goes_on_with_what_was_under_way_and_its_child(
    pipelines: Pipelines, blocker: Path
) -> None:
    child = f"name: child\nsteps:\n{step('c1')}{step('c2', then='hang')}"
    text = f"name: p\nsteps:\n{step('a')}  - {{id: inner, pipeline: ./child.yaml}}\n{step('z')}"
    bundle = pipelines.bundle(text, child=child.replace("then: hang", f"hangs_while: {blocker}"))
    async with pipelines.worker():
        handle = await pipelines.start(bundle)
        await eventually(lambda: pipelines.effects == ["do a", "do c1", "do c2"])
        await handle.terminate()
        blocker.unlink()
        resumed = await resume(pipelines, handle)
        await result_of(resumed)
        assert pipelines.effects[3:] == ["do c2", "do z"]
        report = await undo(pipelines, resumed)
    assert states(report) == [(path, "undone") for path in ("z", "inner/c2", "inner/c1", "a")]


async def test_it_goes_back_to_a_step_and_undoes_what_came_after(pipelines: Pipelines, blocker: Path) -> None:
    text = f"name: p\n{KEEP}steps:\n{step('a')}{step('b')}{step('c')}{step('d', blocker=str(blocker))}"
    bundle = pipelines.bundle(text)
    async with pipelines.worker():
        handle = await pipelines.start(bundle)
        await failure(handle)
        with pytest.raises(NotResumableError, match='"x" is not a step of the pipeline\'s own list'):
            await prepared(pipelines, handle, step="x")
        what = await prepared(pipelines, handle, step="b")
        assert (what.step, what.undoes_first) == ("b", ("d", "c", "b"))
        blocker.unlink()
        await result_of(await resume(pipelines, handle, step="b"))
    assert pipelines.effects == ["do a", "do b", "do c", "undo c", "undo b", "do b", "do c", "do d"]


async def test_what_cannot_be_resumed_says_why(pipelines: Pipelines, blocker: Path) -> None:
    bundle = pipelines.bundle(f"name: p\n{KEEP}steps:\n{step('a')}{step('b', blocker=str(blocker))}")
    async with pipelines.worker():
        handle = await pipelines.start(bundle)
        await failure(handle)
        blocker.unlink()
        first, second = [await prepared(pipelines, handle) for _ in range(2)]
        resumed = await start_resumed(pipelines.client, first, {})
        await result_of(resumed)
        assert pipelines.effects == ["do a", "do b"]
        with pytest.raises(NotResumableError, match="there is nothing to resume"):
            await prepared(pipelines, handle)
        with pytest.raises(ConflictError):
            # It would do again what the other one has done.
            await start_resumed(pipelines.client, second, {})


async def test_what_was_sent_is_kept_and_what_is_left_is_still_told(
    pipelines: Pipelines, blocker: Path, tmp_path: Path
) -> None:
    stuck = tmp_path / "stuck"
    stuck.touch()
    inside = step("b", 6).replace(
        "name: b}}", f"name: b, blocker: {stuck}}}, retry: {{maximum_attempts: 1}}}}"
    )
    tried = (
        f"  - id: tried\n    steps:\n{inside}      - {{id: no, fail: {{message: no}}}}\n    catch: [{{}}]\n"
    )
    text = f"name: p\nsteps:\n{tried}{step('a', hangs_while=str(blocker))}  - {{id: paid, wait: {{event: paid}}}}\n"
    bundle = pipelines.bundle(f"{text}output: '{{{{ steps.paid.output }}}}'\n")
    async with pipelines.worker():
        handle = await pipelines.start(bundle)
        await eventually(lambda: pipelines.effects == ["do b", "do a"])
        await handle.signal("paid", 7)
        await eventually_seen(handle)
        await handle.terminate()
        blocker.unlink()
        resumed = await resume(pipelines, handle)
        assert await result_of(resumed) == 7
        report = await read_report(pipelines.client, resumed.id, resumed.run_id, "p")
        assert report.dirty
        assert [(record.path, record.state) for record in report.undo] == [("tried.b", "failed")]
        stuck.unlink()
        assert states(await undo(pipelines, resumed)) == [("a", "undone"), ("tried.b", "undone")]


async def test_what_an_earlier_error_has_left_does_not_keep_it_from_going_back(
    pipelines: Pipelines, blocker: Path, tmp_path: Path
) -> None:
    (tmp_path / "stuck").touch()
    inside = step("b", 6).replace(
        "name: b}}", f"name: b, blocker: {tmp_path}/stuck}}, retry: {{maximum_attempts: 1}}}}"
    )
    tried = (
        f"  - id: tried\n    steps:\n{inside}      - {{id: no, fail: {{message: no}}}}\n    catch: [{{}}]\n"
    )
    text = f"name: p\n{KEEP}steps:\n{tried}{step('a')}{step('c', blocker=str(blocker))}"
    bundle = pipelines.bundle(text)
    async with pipelines.worker():
        handle = await pipelines.start(bundle)
        await failure(handle)
        blocker.unlink()
        await result_of(await resume(pipelines, handle, step="a"))
    assert pipelines.effects == ["do b", "do a", "undo a", "do a", "do c"]


async def eventually_seen(handle: WorkflowHandle[Any, Any]) -> None:
    """Wait until a workflow task has taken the signal."""
    async with asyncio.timeout(20):
        while True:
            kinds = [event.event_type async for event in handle.fetch_history_events()]
            signalled = EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED
            if (
                signalled in kinds
                and EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED in kinds[kinds.index(signalled) :]
            ):
                return
            await asyncio.sleep(0.05)
