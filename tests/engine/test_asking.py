"""``on_failure: ask``: a run whose step has failed waits for a decision about that step."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio import workflow
from temporalio.client import WorkflowHandle, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError

from pipeline_runner.core.state import WAITING_MEMO, Report
from pipeline_runner.engine.client import find
from pipeline_runner.engine.converting import json_of
from pipeline_runner.engine.messages import RefusedError, decide
from pipeline_runner.engine.workflow.asking import DECIDE
from tests.conftest import Pipelines, result_of
from tests.engine.test_resume import resume
from tests.engine.test_scopes import do, pipeline
from tests.engine.test_undo import failure

ASK = "on_failure: ask\n"


def undos(report: Report | None) -> list[tuple[str, str]]:
    assert report is not None
    return [(record.path, record.state) for record in report.undo]


def newest(pipelines: Pipelines, handle: WorkflowHandle[Any, Any]) -> WorkflowHandle[Any, Any]:
    return pipelines.client.get_workflow_handle(handle.id, result_type=handle._result_type)


async def asked(pipelines: Pipelines, workflow_id: str) -> str:
    """Wait until a run asks, and return the path of the step that it asks about."""
    async with asyncio.timeout(20):
        while True:
            try:
                _, description = await find(pipelines.client, workflow_id)
            except LookupError:
                continue  # a child that has not started yet
            payload = description.raw_description.workflow_execution_info.memo.fields.get(WAITING_MEMO)
            waits = {} if payload is None else await json_of(pipelines.client.data_converter, [payload])
            for path, wait in waits.items():
                if wait.get("state", "waiting") == "waiting":
                    assert wait["for"] == "decision"
                    return str(path)
            await asyncio.sleep(0.02)


def flaky(id_: str, tmp_path: Path) -> str:
    """A step that fails as long as a file is there."""
    return do(id_, blocker=f"{tmp_path}/blocked", again="true")[:-1] + ", retry: {maximum_attempts: 1}}"


@pytest.fixture
def blocked(tmp_path: Path) -> Path:
    file = tmp_path / "blocked"
    file.touch()
    return file


OUTPUT = 'output: ["{{ steps.b.status }}", "{{ steps.b.output }}"]\n'


async def test_a_step_is_run_again_under_a_key_of_its_own(
    pipelines: Pipelines, blocked: Path, tmp_path: Path
) -> None:
    text = pipeline(
        f"""
  - {do("a")}
  - id: block
    steps: [{do("b")}, {flaky("c", tmp_path)}]
  - {do("d")}
""",
        ASK + 'output: "{{ steps.block.output.key }}"\n',
    )
    async with pipelines.worker():
        handle = await pipelines.start(pipelines.bundle(text))
        assert await asked(pipelines, handle.id) == "block"
        assert pipelines.effects == ["do a", "do b", "undo b"]
        await decide(handle, "retry")
        assert await asked(pipelines, handle.id) == "block#2"
        blocked.unlink()
        assert await decide(handle, "retry") == "block#2"
        assert await result_of(handle)
        history = await handle.fetch_history()
    ids = [
        event.activity_task_scheduled_event_attributes.activity_id
        for event in history.events
        if event.HasField("activity_task_scheduled_event_attributes")
    ]
    assert ids == [
        "a",
        *("block.b", "block.c", "undo:block.b"),
        *("block#2.b", "block#2.c", "undo:block#2.b"),
        *("block#3.b", "block#3.c", "d"),
    ]


async def test_a_step_is_skipped(pipelines: Pipelines) -> None:
    text = pipeline(f"  - {do('a')}\n  - {do('b', then='fail')}\n  - {do('c')}\n", ASK + OUTPUT)
    async with pipelines.worker():
        handle = await pipelines.start(pipelines.bundle(text))
        assert await asked(pipelines, handle.id) == "b"
        await decide(handle, "skip")
        assert await result_of(handle) == ["skipped", None]
    assert pipelines.effects == ["do a", "do c"]


async def test_a_run_is_undone(pipelines: Pipelines) -> None:
    text = pipeline(f"  - {do('a')}\n  - {do('b', then='fail')}\n", ASK)
    async with pipelines.worker():
        handle = await pipelines.start(pipelines.bundle(text))
        await asked(pipelines, handle.id)
        await decide(handle, "undo")
        error, report = await failure(handle)
    assert str(error) == "Broken: b: b is out of order"
    assert undos(report) == [("a", "undone")]
    assert report is not None
    assert (report.status, report.kept, report.dirty) == ("failed", False, False)


async def test_a_run_is_undone_if_nobody_decides_in_time(pipelines: Pipelines) -> None:
    text = pipeline(f"  - {do('a')}\n  - {do('b', then='fail')}\n", "on_failure: {ask: {timeout: 300ms}}\n")
    async with pipelines.worker():
        _, report = await failure(await pipelines.start(pipelines.bundle(text)))
    assert undos(report) == [("a", "undone")]


async def test_a_cancellation_undoes_a_run_that_asks(pipelines: Pipelines) -> None:
    text = pipeline(f"  - {do('a')}\n  - {do('b', then='fail')}\n", ASK)
    async with pipelines.worker():
        handle = await pipelines.start(pipelines.bundle(text))
        await asked(pipelines, handle.id)
        await handle.cancel()
        _, _ = await failure(handle)
        description = await handle.describe()
    assert description.status is not None
    assert description.status.name == "CANCELED"
    assert pipelines.effects == ["do a", "undo a"]


async def test_the_time_of_the_pipeline_stands_still_while_it_asks(
    pipelines: Pipelines, blocked: Path, tmp_path: Path
) -> None:
    text = pipeline(f"  - {flaky('a', tmp_path)}\n", ASK + "timeout: 1h\noutput: done\n")
    async with pipelines.worker():
        handle = await pipelines.start(pipelines.bundle(text))
        await asked(pipelines, handle.id)
        await asyncio.sleep(1)  # what is measured
        blocked.unlink()
        await decide(handle, "retry")
        assert await result_of(handle) == "done"
        history = await handle.fetch_history()
    first, _, second = (e for e in history.events if e.HasField("timer_started_event_attributes"))
    stopped = next(e for e in history.events if e.HasField("timer_canceled_event_attributes"))
    left = [e.timer_started_event_attributes.start_to_fire_timeout.ToTimedelta() for e in (first, second)]
    begun, held, ended = (e.event_time.ToDatetime() for e in (first, stopped, second))
    assert ended - held > timedelta(seconds=1)
    counted = left[0] - left[1]
    assert abs(counted - (held - begun)) < (ended - held) / 2


async def test_and_runs_on_afterwards(pipelines: Pipelines) -> None:
    text = pipeline(
        f"  - {do('a')}\n  - {do('b', then='fail')}\n  - {do('c', then='hang')}\n", ASK + "timeout: 1500ms\n"
    )
    async with pipelines.worker():
        handle = await pipelines.start(pipelines.bundle(text))
        await asked(pipelines, handle.id)
        await decide(handle, "skip")
        _, report = await failure(handle)
    assert report is not None
    assert report.status == "timed_out"
    assert undos(report) == [("c", "undone"), ("a", "undone")]


async def refusal(handle: WorkflowHandle[Any, Any], what: Any) -> str:
    with pytest.raises(RefusedError) as caught:
        await decide(handle, what)
    return str(caught.value)


async def test_what_is_not_asked_cannot_be_decided(pipelines: Pipelines) -> None:
    failing = f"  - {do('a')}\n  - {do('b', then='fail')}\n"
    async with pipelines.worker():
        handle = await pipelines.start(pipelines.bundle(pipeline(f"  - {do('a', then='hang')}\n", ASK)))
        assert await refusal(handle, "retry") == "the run does not wait for a decision now"
        await handle.cancel()
        other = await pipelines.start(pipelines.bundle(pipeline(f"  - {do('a', then='hang')}\n")))
        assert '"on_failure: ask"' in await refusal(other, "retry")
        await other.cancel()
        asking = await pipelines.start(pipelines.bundle(pipeline(failing, ASK)))
        await asked(pipelines, asking.id)
        assert await refusal(asking, "again") == "a decision is one of retry, skip, undo"
        assert await refusal(asking, {"what": "retry"}) == "a decision is one of retry, skip, undo"
        with pytest.raises(WorkflowUpdateFailedError) as caught:
            await asking.execute_update(DECIDE, args=["skip", "undo"])
        assert isinstance(caught.value.cause, ApplicationError)
        await decide(asking, "skip")
        await asking.result()


async def test_a_child_asks_by_itself(pipelines: Pipelines) -> None:
    child = pipeline(f"  - {do('x')}\n  - {do('y', then='fail')}\n", ASK + "output: fine\n")
    text = pipeline("  - {id: child, pipeline: ./child.yaml}\n", 'output: "{{ steps.child.output }}"\n')
    async with pipelines.worker():
        handle = await pipelines.start(pipelines.bundle(text, child=child))
        assert await asked(pipelines, f"{handle.id}/child") == "y"
        await decide(pipelines.client.get_workflow_handle(f"{handle.id}/child"), "skip")
        assert await result_of(handle) == "fine"
    assert pipelines.effects == ["do x"]


async def test_attempts_of_a_loop_never_share_a_key(
    pipelines: Pipelines, blocked: Path, tmp_path: Path
) -> None:
    """Items that were retried by themselves go on counting."""
    text = pipeline(
        f"""
  - id: each
    for_each: [1, 2]
    retry: {{maximum_attempts: 2, initial_interval: 10ms}}
    steps: [{do("a", "{{ item }}")}, {{id: check, when: item == 2, steps: [{flaky("b", tmp_path)}]}}]
""",
        ASK + "output: done\n",
    )
    async with pipelines.worker():
        handle = await pipelines.start(pipelines.bundle(text))
        assert await asked(pipelines, handle.id) == "each"
        blocked.unlink()
        await decide(handle, "retry")
        assert await result_of(handle) == "done"
        history = await handle.fetch_history()
    ids = [
        event.activity_task_scheduled_event_attributes.activity_id
        for event in history.events
        if event.HasField("activity_task_scheduled_event_attributes")
    ]
    assert ids == [
        *("each[0].a", "each[1].a", "each[1].check.b", "undo:each[1].a"),
        *("each[1]#2.a", "each[1]#2.check.b", "undo:each[1]#2.a", "undo:each[0].a"),
        *("each[0]#3.a", "each[1]#3.a", "each[1]#3.check.b"),
    ]


async def test_a_question_is_asked_in_the_next_run_of_a_chain(
    pipelines: Pipelines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        workflow.Info, "is_continue_as_new_suggested", lambda info: info.get_current_history_length() > 5
    )
    text = pipeline(
        f"  - {do('a')}\n  - {{id: b, steps: [{do('x')}, {do('y', then='fail')}]}}\n  - {do('c')}\n",
        ASK + OUTPUT,
    )
    async with pipelines.worker():
        handle = newest(pipelines, await pipelines.start(pipelines.bundle(text)))
        assert await asked(pipelines, handle.id) == "b"
        await decide(handle, "skip")
        assert await result_of(handle) == ["skipped", None]
    assert pipelines.effects == ["do a", "do x", "undo x", "do c"]


async def test_a_question_survives_its_worker(pipelines: Pipelines) -> None:
    text = pipeline(f"  - {do('a')}\n  - {do('b', then='fail')}\n", ASK + OUTPUT)
    async with pipelines.worker():
        handle = await pipelines.start(pipelines.bundle(text))
        await asked(pipelines, handle.id)
    async with pipelines.worker():
        await decide(handle, "skip")
        assert await result_of(handle) == ["skipped", None]


async def test_a_run_that_was_asked_and_left_something_is_dirty(pipelines: Pipelines) -> None:
    stuck = do("x").replace('name: "x"}}}', 'name: "x", then: fail}, retry: {maximum_attempts: 1}}}')
    assert "then: fail" in stuck
    text = pipeline(f"  - {{id: b, steps: [{stuck}, {do('y', then='fail')}]}}\n", ASK)
    async with pipelines.worker():
        handle = await pipelines.start(pipelines.bundle(text))
        await asked(pipelines, handle.id)
        await decide(handle, "undo")
        _, report = await failure(handle)
    assert report is not None
    assert report.dirty
    assert undos(report) == [("b.x", "failed")]


@pytest.mark.parametrize("how", ["terminated", "undone"])
async def test_a_run_that_asked_is_resumed_at_the_step(
    pipelines: Pipelines, blocked: Path, tmp_path: Path, how: str
) -> None:
    text = pipeline(
        f"  - {do('a')}\n  - {{id: b, steps: [{do('x')}, {flaky('y', tmp_path)}]}}\n", ASK + "output: done\n"
    )
    async with pipelines.worker():
        handle = await pipelines.start(pipelines.bundle(text))
        await asked(pipelines, handle.id)
        if how == "terminated":
            await handle.terminate()
        else:
            await decide(handle, "undo")
            await failure(handle)
        before = len(pipelines.effects)
        blocked.unlink()
        assert await result_of(await resume(pipelines, handle)) == "done"
    done = ["do x", "do y"]
    assert pipelines.effects[before:] == (done if how == "terminated" else ["do a", *done])
