"""``pivot``: once the step has completed, neither it nor what came before it is undone."""

from pathlib import Path
from typing import Any

import pytest

from pipeline_runner.core.state import Report
from tests.conftest import Pipelines, result_of
from tests.engine.test_scopes import BOOM, do, pipeline
from tests.engine.test_scopes_model import eagerly
from tests.engine.test_undo import eventually, failure
from tests.engine.test_undo_by_hand import undo


def pivot(step: str) -> str:
    return step[:-1] + ", pivot: true}"


def undos(report: Report | None) -> list[tuple[str, str]]:
    assert report is not None
    assert not report.kept
    return [(record.path, record.state) for record in report.undo]


LAST = "{id: last, fail: {message: enough}}"


async def test_only_what_came_after_is_undone(pipelines: Pipelines) -> None:
    text = pipeline(f"  - {do('a')}\n  - {pivot(do('b'))}\n  - {do('c')}\n  - {do('d')}\n  - {LAST}\n")
    async with pipelines.worker():
        _, report = await failure(await pipelines.start(pipelines.bundle(text)))
    assert undos(report) == [("d", "undone"), ("c", "undone"), ("b", "pivot")]
    assert report is not None
    assert not report.dirty
    assert pipelines.effects == ["do a", "do b", "do c", "do d", "undo d", "undo c"]


async def test_the_last_of_two_counts(pipelines: Pipelines) -> None:
    text = pipeline(f"  - {pivot(do('a'))}\n  - {do('b')}\n  - {pivot(do('c'))}\n  - {do('d')}\n  - {LAST}\n")
    async with pipelines.worker():
        _, report = await failure(await pipelines.start(pipelines.bundle(text)))
    assert undos(report) == [("d", "undone"), ("c", "pivot")]
    assert pipelines.effects[4:] == ["undo d"]


@pytest.mark.parametrize(
    ("step", "effects"),
    [
        (do("b", then="fail"), ["do a", "undo a"]),
        (
            do("b", then="hang")[:-1] + ", timeouts: {start_to_close: 300ms}, retry: {maximum_attempts: 1}}",
            ["do a", "do b", "undo b", "undo a"],
        ),
        ('{id: b, when: "false", set: {}}', ["do a", "undo a"]),
        (
            f"{{id: b, steps: [{do('c')}, {BOOM}], catch: [{{output: caught}}]}}",
            ["do a", "do c", "undo c", "undo a"],
        ),
    ],
    ids=["failed", "uncertain", "skipped", "caught"],
)
async def test_a_step_that_has_not_completed_is_no_pivot(
    pipelines: Pipelines, step: str, effects: list[str]
) -> None:
    text = pipeline(f"  - {do('a')}\n  - {pivot(step)}\n  - {LAST}\n")
    async with pipelines.worker():
        _, report = await failure(await pipelines.start(pipelines.bundle(text)))
    assert {state for _, state in undos(report)} == {"undone"}
    assert pipelines.effects == effects


async def test_what_is_inside_is_not_undone_either(pipelines: Pipelines) -> None:
    text = pipeline(
        f"""
  - {do("a")}
  - id: all
    pivot: true
    parallel:
      left: [{do("b")}]
      right: [{{id: each, for_each: [1], steps: [{do("c")}]}}, {{id: child, pipeline: ./child.yaml}}]
  - {LAST}
"""
    )
    async with pipelines.worker():
        bundle = pipelines.bundle(text, child=pipeline(f"  - {do('d')}\n"))
        _, report = await failure(await pipelines.start(bundle))
    assert undos(report) == [("all", "pivot")]
    assert sorted(pipelines.effects) == ["do a", "do b", "do c", "do d"]


CHILD = pipeline(f"  - {do('x')}\n  - {pivot(do('y'))}\n  - {do('z')}\n")


async def test_a_parent_undoes_no_more_of_a_child_that_completed(pipelines: Pipelines) -> None:
    text = pipeline(f"  - {do('a')}\n  - {{id: child, pipeline: ./child.yaml}}\n  - {LAST}\n")
    async with pipelines.worker():
        _, report = await failure(await pipelines.start(pipelines.bundle(text, child=CHILD)))
    assert undos(report) == [("child/z", "undone"), ("child/y", "pivot"), ("a", "undone")]
    assert pipelines.effects == ["do a", "do x", "do y", "do z", "undo z", "undo a"]


async def test_and_says_so_if_nothing_came_after(pipelines: Pipelines) -> None:
    text = pipeline(f"  - {{id: child, pipeline: ./child.yaml}}\n  - {LAST}\n")
    async with pipelines.worker():
        bundle = pipelines.bundle(text, child=pipeline(f"  - {pivot(do('y'))}\n"))
        _, report = await failure(await pipelines.start(bundle))
    assert undos(report) == [("child/y", "pivot")]


async def test_the_compensation_of_the_childs_step_is_the_parents_own(pipelines: Pipelines) -> None:
    own = "compensate: {activity: effect.undo, with: {log: LOG, name: all}}"
    text = pipeline(f"  - {{id: child, pipeline: ./child.yaml, {own}}}\n  - {LAST}\n")
    async with pipelines.worker():
        _, report = await failure(await pipelines.start(pipelines.bundle(text, child=CHILD)))
    assert undos(report) == [("child", "undone")]
    assert pipelines.effects[3:] == ["undo all"]


async def test_a_child_that_has_passed_one_is_not_started_again(pipelines: Pipelines) -> None:
    retried = "retry: {maximum_attempts: 3, initial_interval: 10ms}"
    text = pipeline(f"  - {do('a')}\n  - {{id: child, pipeline: ./child.yaml, {retried}}}\n")
    async with pipelines.worker():
        bundle = pipelines.bundle(text, child=CHILD + f"  - {do('fails', then='fail')}\n")
        _, report = await failure(await pipelines.start(bundle))
    assert undos(report) == [("child/z", "undone"), ("child/y", "pivot"), ("a", "undone")]
    assert pipelines.effects == ["do a", "do x", "do y", "do z", "undo z", "undo a"]


async def test_a_cancellation_undoes_what_came_after(pipelines: Pipelines) -> None:
    text = pipeline(f"  - {do('a')}\n  - {pivot(do('b'))}\n  - {do('c', then='hang')}\n")
    async with pipelines.worker():
        handle = await pipelines.start(pipelines.bundle(text))
        await eventually(lambda: "do c" in pipelines.effects)
        await handle.cancel()
        await failure(handle)
    assert pipelines.effects == ["do a", "do b", "do c", "undo c"]


async def test_it_holds_in_the_next_run_of_a_chain(
    pipelines: Pipelines, monkeypatch: pytest.MonkeyPatch
) -> None:
    eagerly(monkeypatch)
    text = pipeline(f"  - {do('a')}\n  - {pivot(do('b'))}\n  - {do('c')}\n  - {LAST}\n")
    async with pipelines.worker():
        handle = await pipelines.start(pipelines.bundle(text))
        _, report = await failure(pipelines.client.get_workflow_handle(handle.id))
    assert undos(report) == [("c", "undone"), ("b", "pivot")]
    assert pipelines.effects == ["do a", "do b", "do c", "undo c"]


async def test_a_completed_run_needs_no_word_about_it(pipelines: Pipelines) -> None:
    text = pipeline(f"  - {pivot(do('a'))}\n", "output: done\n")
    async with pipelines.worker():
        output: Any = await result_of(await pipelines.start(pipelines.bundle(text)))
    assert output == "done"


async def test_no_more_is_undone_by_hand(pipelines: Pipelines) -> None:
    text = pipeline(f"  - {do('a')}\n  - {pivot(do('b'))}\n  - {do('c')}\n")
    async with pipelines.worker():
        handle = await pipelines.start(pipelines.bundle(text))
        await result_of(handle)
        report = await undo(pipelines, handle)
    assert undos(report) == [("c", "undone"), ("b", "pivot")]
    assert pipelines.effects[3:] == ["undo c"]


async def test_what_a_handled_error_has_left_stays_for_an_undo_by_hand(
    pipelines: Pipelines, tmp_path: Path
) -> None:
    blocked = do("a").replace(
        'name: "a"}}}', f'name: "a", blocker: {tmp_path}/blocker}}, retry: {{maximum_attempts: 1}}}}}}'
    )
    assert "blocker" in blocked
    (tmp_path / "blocker").touch()
    text = pipeline(f"  - {{id: tried, steps: [{blocked}, {BOOM}], catch: [{{}}]}}\n  - {pivot(do('b'))}\n")
    async with pipelines.worker():
        handle = await pipelines.start(pipelines.bundle(text))
        await result_of(handle)
        (tmp_path / "blocker").unlink()
        report = await undo(pipelines, handle)
    assert undos(report) == [("tried.a", "undone"), ("b", "pivot")]
    assert pipelines.effects == ["do a", "do b", "undo a"]
