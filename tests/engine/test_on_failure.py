"""``on_failure``: what becomes of a run that has failed."""

import pytest
from temporalio import workflow

from pipeline_runner.core.state import Report
from tests.conftest import Pipelines, result_of
from tests.engine.test_scopes import BOOM, do, pipeline
from tests.engine.test_undo import eventually, failure
from tests.engine.test_undo_by_hand import undo

KEEP = "on_failure: keep\n"
LAST = "{id: last, fail: {message: enough}}"


def undos(report: Report | None) -> list[tuple[str, str]]:
    assert report is not None
    return [(record.path, record.state) for record in report.undo]


async def test_keep_undoes_nothing(pipelines: Pipelines) -> None:
    text = pipeline(
        f"  - {do('a')}\n  - {{id: block, steps: [{do('b')}, {do('c', then='fail')}]}}\n",
        KEEP + "finally:\n  - {id: f, activity: effect.do, with: {log: LOG, name: finally}}\n",
    )
    async with pipelines.worker():
        error, report = await failure(await pipelines.start(pipelines.bundle(text)))
    assert str(error) == "Broken: c: c is out of order"
    assert report is not None
    assert (report.status, report.kept, report.dirty) == ("failed", True, False)
    assert undos(report) == [("block.b", "kept"), ("a", "kept")]
    assert pipelines.effects == ["do a", "do b", "do finally"]


async def test_keep_is_for_the_pipelines_own_deadline_too(pipelines: Pipelines) -> None:
    text = pipeline(f"  - {do('a')}\n  - {do('b', then='hang')}\n", KEEP + "timeout: 700ms\n")
    async with pipelines.worker():
        _, report = await failure(await pipelines.start(pipelines.bundle(text)))
    assert report is not None
    assert (report.status, report.kept, report.dirty) == ("timed_out", True, False)
    assert [(r.path, r.state, r.outcome) for r in report.undo] == [
        ("b", "kept", "uncertain"),
        ("a", "kept", "completed"),
    ]
    assert pipelines.effects == ["do a", "do b"]


async def test_a_cancellation_undoes_all_the_same(pipelines: Pipelines) -> None:
    text = pipeline(f"  - {do('a')}\n  - {do('b', then='hang')}\n", KEEP)
    async with pipelines.worker():
        handle = await pipelines.start(pipelines.bundle(text))
        await eventually(lambda: "do b" in pipelines.effects)
        await handle.cancel()
        _, report = await failure(handle)
    assert report is None or not report.kept
    assert pipelines.effects == ["do a", "do b", "undo b", "undo a"]


async def test_an_error_that_is_caught_is_undone(pipelines: Pipelines) -> None:
    text = pipeline(f"  - {{id: tried, steps: [{do('a')}, {BOOM}], catch: [{{}}]}}\n  - {LAST}\n", KEEP)
    async with pipelines.worker():
        _, report = await failure(await pipelines.start(pipelines.bundle(text)))
    assert undos(report) == [("tried.a", "undone")]
    assert pipelines.effects == ["do a", "undo a"]


async def test_of_a_child_that_completed_all_is_kept(pipelines: Pipelines) -> None:
    text = pipeline(f"  - {{id: child, pipeline: ./child.yaml}}\n  - {LAST}\n", KEEP)
    async with pipelines.worker():
        bundle = pipelines.bundle(text, child=pipeline(f"  - {do('a')}\n  - {do('b')}\n"))
        _, report = await failure(await pipelines.start(bundle))
    assert undos(report) == [("child/b", "kept"), ("child/a", "kept")]


KEEPING = pipeline(f"  - {do('x')}\n  - {do('y', then='fail')}\n", KEEP)


async def test_what_a_child_keeps_makes_its_parent_dirty(pipelines: Pipelines) -> None:
    text = pipeline(
        f"  - {do('a')}\n  - {{id: child, pipeline: ./child.yaml, retry: {{maximum_attempts: 2}}}}\n"
    )
    async with pipelines.worker():
        _, report = await failure(await pipelines.start(pipelines.bundle(text, child=KEEPING)))
    assert undos(report) == [("child/x", "kept"), ("child", "not undone"), ("a", "undone")]
    assert report is not None
    assert report.dirty
    assert not report.kept
    assert report.undo[1].error is not None
    assert (
        report.undo[1].error.message == "the child has failed and keeps what it had done (on_failure: keep)"
    )
    assert pipelines.effects == ["do a", "do x", "undo a"]


async def test_also_if_the_parent_handles_the_error(pipelines: Pipelines) -> None:
    text = pipeline("  - {id: child, pipeline: ./child.yaml, catch: [{output: done}]}\n", "output: x\n")
    async with pipelines.worker():
        handle = await pipelines.start(pipelines.bundle(text, child=KEEPING))
        assert await result_of(handle) == "x"
        memo = (await handle.describe()).raw_description.workflow_execution_info.memo.fields
    assert b'"dirty":true' in memo["pipeline-runner-report"].data.replace(b" ", b"")


async def test_unless_the_parent_knows_how_to_undo_it(pipelines: Pipelines) -> None:
    own = "compensate: {activity: effect.undo, with: {log: LOG, name: all}}"
    text = pipeline(f"  - {{id: child, pipeline: ./child.yaml, {own}}}\n")
    async with pipelines.worker():
        _, report = await failure(await pipelines.start(pipelines.bundle(text, child=KEEPING)))
    assert undos(report) == [("child/x", "kept"), ("child", "undone")]
    assert report is not None
    assert not report.dirty
    assert pipelines.effects == ["do x", "undo all"]


async def test_or_keeps_it_too(pipelines: Pipelines) -> None:
    text = pipeline(f"  - {do('a')}\n  - {{id: child, pipeline: ./child.yaml}}\n", KEEP)
    async with pipelines.worker():
        _, report = await failure(await pipelines.start(pipelines.bundle(text, child=KEEPING)))
    assert undos(report) == [("child/x", "kept"), ("a", "kept")]
    assert report is not None
    assert not report.dirty


async def test_a_child_that_has_nothing_to_keep_is_like_any_other(pipelines: Pipelines) -> None:
    child = pipeline(f"  - {do('x', then='fail')}\n", KEEP)
    text = pipeline(f"  - {do('a')}\n  - {{id: child, pipeline: ./child.yaml}}\n")
    async with pipelines.worker():
        _, report = await failure(await pipelines.start(pipelines.bundle(text, child=child)))
    assert undos(report) == [("a", "undone")]
    assert report is not None
    assert not report.dirty


async def test_a_child_whose_finally_fails_keeps_what_it_did(pipelines: Pipelines) -> None:
    child = pipeline(f"  - {do('x')}\n", KEEP + "finally:\n  - {id: f, fail: {message: no}}\n")
    text = pipeline("  - {id: child, pipeline: ./child.yaml}\n")
    async with pipelines.worker():
        _, report = await failure(await pipelines.start(pipelines.bundle(text, child=child)))
    assert undos(report) == [("child/x", "kept"), ("child", "not undone")]
    assert pipelines.effects == ["do x"]


async def test_what_is_kept_is_kept_over_continue_as_new(
    pipelines: Pipelines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        workflow.Info, "is_continue_as_new_suggested", lambda info: info.get_current_history_length() > 10
    )
    text = pipeline(
        f"  - {do('a')}\n  - {LAST}\n",
        KEEP + "finally:\n"
        "  - {id: f, activity: effect.do, with: {log: LOG, name: f}}\n"
        "  - {id: g, activity: effect.do, with: {log: LOG, name: g}}\n",
    )
    async with pipelines.worker():
        handle = await pipelines.start(pipelines.bundle(text))
        _, report = await failure(pipelines.client.get_workflow_handle(handle.id))
    assert report is not None
    assert report.kept
    assert undos(report) == [("a", "kept")]
    assert pipelines.effects == ["do a", "do f", "do g"]


async def test_what_is_kept_can_be_undone_by_hand(pipelines: Pipelines) -> None:
    text = pipeline(f"  - {do('a')}\n  - {do('b')}\n  - {LAST}\n", KEEP)
    async with pipelines.worker():
        handle = await pipelines.start(pipelines.bundle(text))
        await failure(handle)
        report = await undo(pipelines, handle)
    assert undos(report) == [("b", "undone"), ("a", "undone")]
    assert not report.kept
    assert pipelines.effects == ["do a", "do b", "undo b", "undo a"]


async def test_and_so_can_what_a_child_has_kept(pipelines: Pipelines) -> None:
    text = pipeline(f"  - {do('a')}\n  - {{id: child, pipeline: ./child.yaml}}\n")
    async with pipelines.worker():
        handle = await pipelines.start(pipelines.bundle(text, child=KEEPING))
        await failure(handle)
        assert pipelines.effects == ["do a", "do x", "undo a"]
        report = await undo(pipelines, handle)
    assert undos(report) == [("child/x", "undone")]
    assert pipelines.effects == ["do a", "do x", "undo a", "undo x"]
