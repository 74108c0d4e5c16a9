"""A run whose history grows long goes on by continue-as-new, forward, in undo and in finally."""

from pathlib import Path

import pytest
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowFailureError
from temporalio.exceptions import ActivityError, ApplicationError

from tests.conftest import Pipelines, result_of
from tests.engine.test_undo import eventually, failure


@pytest.fixture
def pipelines(small: Pipelines) -> Pipelines:
    """On a server that suggests to continue as new after 60 events."""
    return small


def steps(count: int, then: str = "") -> str:
    text = "".join(
        f"""
  - id: s{k}
    activity: effect.do
    with: {{log: LOG, name: s{k}}}
    compensate: {{activity: effect.undo, with: {{log: LOG, name: "{{{{ step.output.name }}}} {{{{ step.key == step.output.key }}}}"}}}}
"""
        for k in range(count)
    )
    return text + (
        f"  - {{id: last, activity: effect.do, with: {{log: LOG, name: last, then: {then}}}}}\n"
        if then
        else ""
    )


async def runs(client: Client, workflow_id: str) -> int:
    count = 0
    run_id: str | None = None
    while True:
        handle = client.get_workflow_handle(workflow_id, run_id=run_id)
        events = [event async for event in handle.fetch_history_events()]
        count += 1
        started = events[0].workflow_execution_started_event_attributes
        run_id = started.continued_execution_run_id
        if not run_id:
            return count


async def test_results_survive(pipelines: Pipelines) -> None:
    bundle = pipelines.bundle(
        f"version: 1\nname: long\ninputs: {{x: {{type: integer}}}}\nsteps:{steps(40)}"
        'output: ["{{ steps.s0.output.name }}", "{{ steps.s39.output.name }}", "{{ inputs.x }}", "{{ run.run_id }}"]\n'
    )
    async with pipelines.worker():
        handle = await pipelines.start(bundle, x=7)
        output = await result_of(
            pipelines.client.get_workflow_handle(handle.id, result_type=handle._result_type)
        )
    assert output[:3] == ["s0", "s39", 7]
    assert output[3] == handle.run_id
    assert pipelines.effects == [f"do s{k}" for k in range(40)]
    assert await runs(pipelines.client, handle.id) > 3


async def test_undo_survives_with_order_keys_and_causes(pipelines: Pipelines) -> None:
    bundle = pipelines.bundle(f"version: 1\nname: long\nsteps:{steps(40, 'fail')}")
    async with pipelines.worker():
        handle = await pipelines.start(bundle)
        newest = pipelines.client.get_workflow_handle(handle.id)
        cause, report = await failure(newest)
    assert isinstance(cause, ApplicationError)
    assert (cause.type, cause.message) == ("Broken", "last: last is out of order")
    assert cause.non_retryable
    assert isinstance(cause.__cause__, ActivityError)
    assert isinstance(cause.__cause__.__cause__, ApplicationError)
    assert cause.__cause__.__cause__.message == "last is out of order"
    assert report is not None
    assert [record.path for record in report.undo] == [f"s{k}" for k in reversed(range(40))]
    assert pipelines.effects == [f"do s{k}" for k in range(40)] + [
        f"undo s{k} true" for k in reversed(range(40))
    ]
    assert await runs(pipelines.client, handle.id) > 6


async def test_a_childs_long_log_is_undone_by_the_parent(pipelines: Pipelines) -> None:
    bundle = pipelines.bundle(
        "version: 1\nname: p\nsteps:\n  - {id: c, pipeline: ./c.yaml}\n  - {id: f, fail: {message: enough}}\n",
        c=f"version: 1\nname: c\nsteps:{steps(25)}",
    )
    async with pipelines.worker():
        handle = await pipelines.start(bundle)
        _, report = await failure(pipelines.client.get_workflow_handle(handle.id))
    assert report is not None
    assert [record.path for record in report.undo] == [f"c/s{k}" for k in reversed(range(25))]
    assert pipelines.effects == [f"do s{k}" for k in range(25)] + [
        f"undo s{k} true" for k in reversed(range(25))
    ]


async def test_cancellation_and_deadline_reach_a_later_run(pipelines: Pipelines) -> None:
    text = f"version: 1\nname: long\ntimeout: TIMEOUT\nsteps:{steps(15, 'hang')}"
    cancelled = pipelines.bundle(text.replace("TIMEOUT", "1h"))
    late = pipelines.bundle(text.replace("TIMEOUT", "2s"))
    expected = (
        [f"do s{k}" for k in range(15)] + ["do last"] + [f"undo s{k} true" for k in reversed(range(15))]
    )
    async with pipelines.worker():
        handle = await pipelines.start(cancelled)
        await eventually(lambda: "do last" in pipelines.effects)
        newest = pipelines.client.get_workflow_handle(handle.id)
        await newest.cancel()
        with pytest.raises(WorkflowFailureError) as caught:
            await newest.result()
        assert pipelines.effects == expected
        # The cancellation was the server's matter of a run before this one, which goes on undoing:
        # Temporal lets it end as failed only, and type and report say what it was.
        assert isinstance(caught.value.cause, ApplicationError)
        assert caught.value.cause.type == "Cancelled"
        Path(pipelines.log).unlink()
        handle = await pipelines.start(late)
        cause, report = await failure(pipelines.client.get_workflow_handle(handle.id))
    assert isinstance(cause, ApplicationError)
    assert cause.type == "PipelineTimeout"
    assert report is not None
    assert report.status == "timed_out"
    assert pipelines.effects == expected


async def test_finally_survives(pipelines: Pipelines) -> None:
    final = "".join(
        f"\n  - {{id: f{k}, activity: effect.do, with: {{log: LOG, name: f{k}}}}}" for k in range(20)
    )
    bundle = pipelines.bundle(
        f'version: 1\nname: long\nsteps:{steps(5)}finally:{final}\noutput: "{{{{ steps.s4.output.name }}}}"\n'
    )
    async with pipelines.worker():
        handle = await pipelines.start(bundle)
        newest = pipelines.client.get_workflow_handle(handle.id, result_type=handle._result_type)
        assert await result_of(newest) == "s4"
        assert (await newest.describe()).status is WorkflowExecutionStatus.COMPLETED
    assert pipelines.effects == [f"do s{k}" for k in range(5)] + [f"do f{k}" for k in range(20)]
