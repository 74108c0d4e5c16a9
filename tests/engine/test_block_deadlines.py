"""``timeout`` of blocks, arms, branches and loops: what is cancelled and undone, and where a run goes on."""

import asyncio
from collections import Counter
from typing import Any

import pytest
from temporalio import activity
from temporalio.client import WorkflowFailureError, WorkflowHandle

from pipeline_runner.engine.worker import pipeline_worker
from tests.conftest import Pipelines, result_of
from tests.effects import note
from tests.engine.test_scopes import do, failed, pipeline, runs_of
from tests.engine.test_undo import eventually

HANG = do("hang", then="hang")


HOLDERS = {
    "block": f"steps: [{do('a')}, {HANG}]",
    "switch": f"switch: [{{steps: [{do('a')}, {HANG}]}}]",
    "parallel": f"parallel: {{x: [{do('a')}, {HANG}], y: [{{id: rest, wait: 1h}}]}}",
}


@pytest.mark.parametrize("kind", HOLDERS)
async def test_what_takes_too_long_is_cancelled_and_undone(pipelines: Pipelines, kind: str) -> None:
    text = pipeline(f"  - {do('before')}\n  - id: slow\n    timeout: 300ms\n    {HOLDERS[kind]}\n")
    async with pipelines.worker():
        error, report = await failed(await pipelines.start(pipelines.bundle(text)))
    assert (error.type, error.message) == ("BlockTimeout", '"slow" did not complete within 300ms')
    assert report is not None
    assert report.status == "failed"
    assert [record.outcome for record in report.undo] == ["uncertain", "completed", "completed"]
    assert pipelines.effects == ["do before", "do a", "do hang", "undo hang", "undo a", "undo before"]


async def test_a_loop_has_one_limit_for_all_items(pipelines: Pipelines) -> None:
    text = pipeline(
        """
  - id: slow
    name: a slow loop
    timeout: 300ms
    for_each: [1, 2, 3]
    max_concurrency: 2
    activity: effect.do
    with: {log: LOG, name: "{{ item }}", then: "{{ 'hang' if item > 1 else '' }}"}
    compensate: {activity: effect.undo, with: {log: LOG, name: "{{ item }}"}}
    catch: [{types: [BlockTimeout], output: "{{ error.message }}"}]
""",
        'output: "{{ steps.slow.output }}"\n',
    )
    async with pipelines.worker():
        output = await result_of(await pipelines.start(pipelines.bundle(text)))
    assert output == '"slow" did not complete within 300ms'
    assert sorted(pipelines.effects[:3]) == ["do 1", "do 2", "do 3"]
    assert sorted(pipelines.effects[3:]) == ["undo 1", "undo 2", "undo 3"]


async def test_a_named_block_adds_its_name(pipelines: Pipelines) -> None:
    text = pipeline("  - {id: slow, name: rest, timeout: 10ms, steps: [{id: rest, wait: 1h}]}\n")
    async with pipelines.worker():
        error, _ = await failed(await pipelines.start(pipelines.bundle(text)))
    assert error.message == 'rest: "slow" did not complete within 10ms'


async def test_what_is_done_in_time_leaves_no_timer(pipelines: Pipelines) -> None:
    text = pipeline(f"  - {{id: quick, timeout: 1h, steps: [{do('a')}]}}\n  - {do('b')}\n")
    async with pipelines.worker():
        handle = await pipelines.start(pipelines.bundle(text))
        await result_of(handle)
    kinds = [event.WhichOneof("attributes") async for event in handle.fetch_history_events()]
    assert kinds.count("timer_started_event_attributes") == 1
    assert kinds.count("timer_canceled_event_attributes") == 1


async def test_an_inner_limit_is_an_error_like_any_other_to_the_scopes_around(pipelines: Pipelines) -> None:
    text = pipeline(
        f"""
  - id: outer
    timeout: 1h
    parallel:
      slow:
        - id: inner
          timeout: 200ms
          steps: [{do("a")}, {HANG}]
          catch: [{{types: [BlockTimeout], steps: [{do("instead")}]}}]
      other: [{do("b")}]
""",
        "output: done\n",
    )
    async with pipelines.worker():
        assert await result_of(await pipelines.start(pipelines.bundle(text))) == "done"
    assert sorted(pipelines.effects[:3]) == ["do a", "do b", "do hang"]
    assert pipelines.effects[3:] == ["undo hang", "undo a", "do instead"]


async def test_an_outer_limit_ends_an_inner_one_which_does_not_catch_it(pipelines: Pipelines) -> None:
    text = pipeline(
        f"""
  - id: outer
    timeout: 200ms
    steps:
      - id: inner
        timeout: 1h
        steps: [{do("a")}, {HANG}]
        catch: [{{steps: [{do("never")}]}}]
"""
    )
    async with pipelines.worker():
        error, _ = await failed(await pipelines.start(pipelines.bundle(text)))
    assert error.message == '"outer" did not complete within 200ms'
    assert pipelines.effects == ["do a", "do hang", "undo hang", "undo a"]


async def test_the_pipelines_own_deadline_is_not_caught_by_a_block(pipelines: Pipelines) -> None:
    text = pipeline(
        f"""
  - id: block
    timeout: 1h
    steps: [{do("a")}, {HANG}]
    catch: [{{steps: [{do("never")}]}}]
""",
        "timeout: 300ms\n",
    )
    async with pipelines.worker():
        error, _ = await failed(await pipelines.start(pipelines.bundle(text)))
    assert error.type == "PipelineTimeout"
    assert pipelines.effects == ["do a", "do hang", "undo hang", "undo a"]


async def test_a_child_is_cancelled_in_time_and_undoes_itself(pipelines: Pipelines) -> None:
    text = pipeline(
        f"""
  - id: slow
    timeout: 500ms
    steps: [{do("a")}, {{id: child, pipeline: ./child.yaml}}]
"""
    )
    child = pipeline(f"  - {do('c')}\n  - {{id: rest, wait: 1h}}\n").replace("name: p", "name: child")
    async with pipelines.worker():
        error, report = await failed(await pipelines.start(pipelines.bundle(text, child=child)))
    assert error.type == "BlockTimeout"
    assert report is not None
    assert not report.dirty
    assert pipelines.effects == ["do a", "do c", "undo c", "undo a"]


async def test_a_cancellation_of_the_run_comes_before_a_limit(pipelines: Pipelines) -> None:
    text = pipeline(
        f"  - {{id: slow, timeout: 1h, steps: [{do('a')}, {HANG}], catch: [{{steps: [{do('never')}]}}]}}\n"
    )
    async with pipelines.worker():
        handle = await pipelines.start(pipelines.bundle(text))
        await eventually(lambda: "do hang" in pipelines.effects)
        await handle.cancel()
        with pytest.raises(WorkflowFailureError):
            await handle.result()
    assert pipelines.effects == ["do a", "do hang", "undo hang", "undo a"]


async def test_a_step_that_completes_although_it_was_cancelled_is_undone(pipelines: Pipelines) -> None:
    """Its activity does not heartbeat, and does not learn of the cancellation."""
    text = pipeline(f"  - {{id: slow, timeout: 100ms, steps: [{do('a', seconds=0.6)}, {do('never')}]}}\n")
    async with pipelines.worker():
        error, report = await failed(await pipelines.start(pipelines.bundle(text)))
    assert error.type == "BlockTimeout"
    assert report is not None
    assert [(record.path, record.state) for record in report.undo] == [("slow.a", "undone")]
    assert pipelines.effects == ["do a", "undo a"]


async def test_finally_steps_have_limits(pipelines: Pipelines) -> None:
    text = pipeline(
        f"  - {do('a')}\n",
        "finally:\n  - {id: clean, timeout: 50ms, steps: [{id: rest, wait: 1h}], catch: [{output: x}]}\n",
    )
    async with pipelines.worker():
        await result_of(await pipelines.start(pipelines.bundle(text)))
    assert pipelines.effects == ["do a"]


async def test_a_limit_survives_going_on_in_a_new_run(pipelines: Pipelines, eager: list[int]) -> None:
    """In one branch time runs out during a wait, which has its own end; in the other it does not."""
    text = pipeline(
        f"""
  - id: both
    parallel:
      slow:
        - id: block
          timeout: 3s
          steps: [{do("a")}, {do("b")}, {{id: rest, wait: 1h}}]
          catch: [{{types: [BlockTimeout], output: late}}]
      quick:
        - id: block2
          timeout: 1h
          steps: [{do("c")}, {{id: rest2, wait: 100ms}}, {do("d")}]
""",
        'output: ["{{ steps.both.output.slow }}", "{{ steps.both.output.quick.name }}"]\n',
    )
    async with pipelines.worker():
        handle = await pipelines.start(pipelines.bundle(text))
        newest = pipelines.client.get_workflow_handle(handle.id, result_type=handle._result_type)
        output = await result_of(newest)
        assert await runs_of(pipelines, handle.id) > 2
    assert output == ["late", "d"]
    assert sorted(pipelines.effects) == ["do a", "do b", "do c", "do d", "undo a", "undo b"]


@pytest.mark.parametrize("cancelled", [False, True], ids=["completion", "cancellation"])
async def test_a_limit_that_comes_together_with_something_else(pipelines: Pipelines, cancelled: bool) -> None:
    """One activation brings the end of the time and that of two items: they are undone once, and no third begins."""
    go = asyncio.Event()

    @activity.defn(name="test.held")
    async def held(given: dict[str, Any]) -> None:
        note(given["log"], f"do {given['name']}")
        await go.wait()

    queue = f"{pipelines.queue}-held"
    text = pipeline(
        f"""
  - id: each
    for_each: [1, 2, 3]
    max_concurrency: 2
    timeout: 1s
    activity: test.held
    task_queue: {queue}
    with: {{log: LOG, name: "{{{{ item }}}}"}}
    compensate: {{activity: effect.undo, with: {{log: LOG, name: "{{{{ item }}}}"}}}}
    catch: [{{types: [BlockTimeout], steps: [{do("instead")}]}}]
"""
    )
    async with pipeline_worker(pipelines.client, task_queue=queue, activities=[held]):
        async with pipelines.worker():
            handle = await pipelines.start(pipelines.bundle(text))
            await eventually(lambda: sorted(pipelines.effects) == ["do 1", "do 2"])
        # Nobody serves the run while all of it happens.
        go.set()
        await happened(handle, timer_fired=1, activity_task_completed=2)
    if cancelled:
        await handle.cancel()
    async with pipelines.worker():
        if cancelled:
            with pytest.raises(WorkflowFailureError):
                await handle.result()
        else:
            await result_of(handle)
    assert sorted(pipelines.effects[2:4]) == ["undo 1", "undo 2"]
    assert pipelines.effects[4:] == ([] if cancelled else ["do instead"])


async def happened(handle: WorkflowHandle[Any, Any], **expected: int) -> None:
    """Wait for so many events of some kinds."""
    async with asyncio.timeout(30):
        while True:
            kinds = Counter(
                [str(event.WhichOneof("attributes")) async for event in handle.fetch_history_events()]
            )
            if all(kinds[f"{kind}_event_attributes"] >= count for kind, count in expected.items()):
                return
            await asyncio.sleep(0.05)
