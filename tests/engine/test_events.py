"""Events: signals and updates that steps wait for."""

import asyncio
from typing import Any

import pytest
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode
from temporalio.testing import TimeSkipper

from pipeline_runner.core.state import WAITING_MEMO
from pipeline_runner.engine.workflow import events
from tests.conftest import Pipelines, result_of
from tests.engine.test_continue import runs
from tests.engine.test_scopes import do, failed, pipeline

PAID = "  - {id: paid, wait: {event: paid, schema: {type: object, required: [amount]}}}\n"


async def refused(sent: Any) -> ApplicationError:
    """Return why an update was refused."""
    with pytest.raises(WorkflowUpdateFailedError) as caught:
        await sent
    assert isinstance(caught.value.cause, ApplicationError)
    return caught.value.cause


async def waits(handle: WorkflowHandle[Any, Any]) -> dict[str, Any]:
    """Return what a run waits for, as its memo has it, without a worker."""
    description = await handle.describe()
    shown = (await description.memo()).get(WAITING_MEMO, {})
    return {path: wait for path, wait in shown.items() if wait.get("state", "waiting") == "waiting"}


async def waiting(handle: WorkflowHandle[Any, Any], *paths: str) -> None:
    """Wait until these steps wait, and no others."""
    async with asyncio.timeout(20):
        while {*await waits(handle)} != {*paths}:
            await asyncio.sleep(0.02)


async def started(handle: WorkflowHandle[Any, Any]) -> None:
    """Wait until a child exists."""
    async with asyncio.timeout(20):
        while True:
            try:
                await handle.describe()
            except RPCError as error:
                assert error.status is RPCStatusCode.NOT_FOUND
                await asyncio.sleep(0.02)
            else:
                return


async def newest(handle: WorkflowHandle[Any, Any], pipelines: Pipelines) -> WorkflowHandle[Any, Any]:
    return pipelines.client.get_workflow_handle(handle.id, result_type=handle._result_type)


async def test_a_signal_of_any_client_is_an_event(pipelines: Pipelines) -> None:
    text = pipeline(
        PAID + "  - {id: shipped, wait: {event: shipped}}\n",
        'output: ["{{ steps.paid.output }}", "{{ steps.shipped.output }}"]\n',
    )
    plain = await Client.connect(pipelines.client.service_client.config.target_host)
    async with pipelines.worker():
        handle = await pipelines.start(pipelines.bundle(text))
        await waiting(handle, "paid")
        assert await waits(handle) == {"paid": {"name": "paid", "for": "event paid"}}
        program = await asyncio.create_subprocess_exec(
            "temporal", "workflow", "signal", "--address", plain.service_client.config.target_host,
            "--workflow-id", handle.id, "--name", "paid", "--input", '{"amount": 5}',
            stdout=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        assert await program.wait() == 0
        await waiting(handle, "shipped")
        await plain.get_workflow_handle(handle.id).signal("shipped")
        assert await result_of(handle) == [{"amount": 5}, None]
    assert await waits(handle) == {}


async def test_events_are_kept_in_order_until_steps_wait_for_them(pipelines: Pipelines) -> None:
    text = pipeline(
        f"  - {do('a', seconds=0.2)}\n  - {{id: each, for_each: [1, 2, 3], wait: {{event: x}}}}\n"
        "  - {id: other, wait: {event: y}}\n",
        'output: ["{{ steps.each.output }}", "{{ steps.other.output }}"]\n',
    )
    handle = await pipelines.start(pipelines.bundle(text))
    for number, name in enumerate("xyxx"):
        await handle.signal(name, number)
    async with pipelines.worker():
        assert await result_of(handle) == [[0, 2, 3], 1]


async def test_those_that_began_to_wait_first_get_an_event_first(pipelines: Pipelines) -> None:
    text = pipeline(
        """
  - id: both
    parallel:
      late: [{id: go, wait: {event: go}}, {id: l, wait: {event: x}}]
      early: [{id: e, wait: {event: x}}, {id: e2, wait: {event: x}}]
""",
        'output: "{{ steps.both.output }}"\n',
    )
    async with pipelines.worker():
        handle = await pipelines.start(pipelines.bundle(text))
        await waiting(handle, "both.late.go", "both.early.e")
        await handle.signal("go")
        await waiting(handle, "both.early.e", "both.late.l")
        for number in (1, 2, 3):
            await handle.signal("x", number)
        assert await result_of(handle) == {"late": 2, "early": 3}


async def test_what_does_not_fit_is_refused_or_ignored(
    pipelines: Pipelines, caplog: pytest.LogCaptureFixture
) -> None:
    async with pipelines.worker():
        handle = await pipelines.start(
            pipelines.bundle(pipeline(PAID, 'output: "{{ steps.paid.output }}"\n'))
        )
        await waiting(handle, "paid")
        await handle.signal("paid", {"sum": 1})
        await handle.signal("paid", args=[1, 2])
        await handle.signal("piad", {"amount": 1})
        error = await refused(handle.execute_update("paid", {"sum": 1}))
        assert (error.type, error.message) == (
            events.REFUSED,
            'the payload of the event "paid" does not fit its schema: payload: needs "amount"',
        )
        error = await refused(handle.execute_update("piad", {"amount": 1}))
        assert error.message == (
            'no step of the pipeline "p" waits for the event "piad": did you mean "paid"?'
        )
        error = await refused(handle.execute_update("sold", {"amount": 1}))
        assert error.message == (
            'no step of the pipeline "p" waits for the event "sold": the events that it waits for are paid'
        )
        await handle.execute_update("paid", {"amount": 3})
        assert await result_of(handle) == {"amount": 3}
    ignored = [
        record.getMessage() for record in caplog.records if "ignored the signal" in record.getMessage()
    ]
    assert [line.partition(": ")[0] for line in ignored] == [
        f'ignored the signal "{name}"' for name in ("paid", "paid", "piad")
    ]
    assert "an event has one payload, not 2" in ignored[1]


async def test_too_many_events_are_refused_and_do_no_harm(
    pipelines: Pipelines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "KEPT", 3)
    monkeypatch.setattr(events, "KEPT_BYTES", 30)
    text = pipeline("  - {id: go, wait: {event: go}}\n" + "  - {id: each, for_each: [1, 2, 3], wait: {event: x}}\n",
        'output: "{{ steps.each.output }}"\n')  # fmt: skip
    async with pipelines.worker():
        handle = await pipelines.start(pipelines.bundle(text))
        await waiting(handle, "go")
        error = await refused(handle.execute_update("x", "a" * 40))
        assert error.message.startswith("the run keeps events of up to 30 bytes that no step has waited for")
        error = await refused(handle.execute_update("x", "a" * 140_000))
        assert error.message == "the payload has 140,002 bytes, and may have 131,072: send a reference"
        for number in range(3):
            await handle.execute_update("x", number)
        error = await refused(handle.execute_update("x", 3))
        assert error.message == "the run keeps 3 events that no step has waited for: it takes no more"
        await handle.signal("x", 4)
        await handle.execute_update("go", None)
        assert await result_of(handle) == [0, 1, 2]


async def test_an_event_that_does_not_come_in_time(pipelines: Pipelines) -> None:
    text = pipeline(
        f"""
  - {do("a")}
  - id: caught
    wait: {{event: x, timeout: 2d}}
    catch: [{{types: [EventTimeout], output: "{{{{ error.message }}}}"}}]
  - {{id: b, set: {{status: "{{{{ steps.caught.status }}}}", said: "{{{{ steps.caught.output }}}}"}}}}
  - {{id: late, wait: {{event: x, timeout: 1h}}}}
"""
    )
    skipping = Pipelines(TimeSkipper(pipelines.client).client, pipelines.folder)
    async with skipping.worker():
        error, report = await failed(await skipping.start(skipping.bundle(text)))
    assert (error.type, error.message) == ("EventTimeout", 'late: the event "x" did not arrive within 1h')
    assert not error.non_retryable
    assert report is not None
    assert report.steps == {"a": "completed", "caught": "caught", "b": "completed", "late": "failed"}
    assert pipelines.effects == ["do a", "undo a"]


async def test_cancelled_while_it_waits(pipelines: Pipelines) -> None:
    text = pipeline(f"  - {do('a')}\n" + PAID)
    async with pipelines.worker():
        handle = await pipelines.start(pipelines.bundle(text))
        await waiting(handle, "paid")
        report = await handle.query("report")
        assert report["steps"] == {"a": "completed", "paid": "waiting"}
        await handle.cancel()
        with pytest.raises(WorkflowFailureError):
            await handle.result()
        assert (await handle.describe()).status.name == "CANCELED"  # type: ignore[union-attr]
        report = await handle.query("report")
    assert report["steps"] == {"a": "completed", "paid": "cancelled"}
    assert pipelines.effects == ["do a", "undo a"]


async def test_an_event_comes_with_the_start(pipelines: Pipelines) -> None:
    """Before the run has its pipeline: a signal is kept, and an update waits."""
    bundle = pipelines.bundle(
        pipeline(PAID + "  - {id: last, wait: {event: y}}\n", 'output: "{{ steps.paid.output }}"\n')
    )
    from pipeline_runner.core import model

    handle = await pipelines.client.start_workflow(
        "p",
        {},
        id=f"early-{pipelines.queue}",
        task_queue=pipelines.queue,
        start_signal="paid",
        start_signal_args=[{"amount": 1}],
    )
    sent = asyncio.create_task(handle.execute_update("y", 1))
    async with pipelines.worker(bundles={"p": model.encode(bundle)}):
        assert await handle.result() == {"amount": 1}
        await sent


async def test_waits_go_on_in_a_new_run(small: Pipelines) -> None:
    """The order of waiting, kept events, and the deadline; none of the signals in between is lost."""
    text = pipeline(
        """
  - id: all
    parallel:
      late: [{id: go, wait: {event: go}}, {id: l, wait: {event: x, timeout: 1h}}, {id: l2, wait: {event: x}}]
      early: [{id: e, wait: {event: x}}, {id: e2, wait: {event: x}}]
  - {id: alone, wait: {event: z}}
  - {id: kept, for_each: [0, 1, 2], wait: {event: n}}
""",
        'output: ["{{ steps.all.output }}", "{{ steps.kept.output }}", "{{ steps.alone.output }}"]\n',
    )
    async with small.worker():
        started = await small.start(small.bundle(text))
        handle = await newest(started, small)
        await waiting(handle, "all.late.go", "all.early.e")
        await handle.signal("go")
        await waiting(handle, "all.early.e", "all.late.l")
        for number in range(30):
            await handle.signal("n", number)
        await handle.signal("x", 1)
        # Two that begin to wait in the same task have no order that anybody could tell.
        await waiting(handle, "all.early.e2", "all.late.l")
        for number in (2, 3, 4):
            await handle.signal("x", number)
        await waiting(handle, "alone")
        for number in range(30, 60):
            await handle.signal("n", number)
        await handle.signal("z", "end")
        assert await result_of(handle) == [{"late": 4, "early": 3}, [0, 1, 2], "end"]
    assert await runs(small.client, handle.id) > 1


async def test_a_childs_event_goes_to_the_child(pipelines: Pipelines) -> None:
    bundle = pipelines.bundle(
        pipeline("  - {id: c, pipeline: ./c.yaml}\n", 'output: "{{ steps.c.output }}"\n'),
        c="version: 1\nname: c\nsteps:\n" + PAID + 'output: "{{ steps.paid.output }}"\n',
    )
    async with pipelines.worker():
        handle = await pipelines.start(bundle)
        child = pipelines.client.get_workflow_handle(f"{handle.id}/c")
        await started(child)
        await waiting(child, "paid")
        error = await refused(handle.execute_update("paid", {"amount": 1}))
        assert "the events that it waits for are none" in error.message
        await child.signal("paid", {"amount": 1})
        assert await result_of(handle) == {"amount": 1}


async def test_a_repetition_waits_and_a_deadline_ends_the_wait(pipelines: Pipelines) -> None:
    """The block's own deadline cuts its wait short; the event that comes then is for the next step."""
    text = pipeline(
        """
  - {id: poll, wait: {event: x}, until: {condition: last == 2, every: 0s}}
  - id: block
    timeout: 1h
    steps: [{id: inner, wait: {event: x}}]
    catch: [{types: [BlockTimeout]}]
  - {id: after, wait: {event: x}}
""",
        'output: ["{{ steps.poll.output }}", "{{ steps.block.status }}", "{{ steps.after.output }}"]\n',
    )
    skipping = Pipelines(TimeSkipper(pipelines.client).client, pipelines.folder)
    async with skipping.worker():
        handle = await skipping.start(skipping.bundle(text))
        await waiting(handle, "poll[0]")
        await handle.signal("x", 1)
        await waiting(handle, "poll[1]")
        await handle.signal("x", 2)
        await waiting(handle, "after")
        await handle.signal("x", 3)
        assert await result_of(handle) == [2, "caught", 3]


async def test_events_wait_for_each_other_in_finally(pipelines: Pipelines) -> None:
    text = pipeline(
        f"  - {do('a')}\n  - {{id: boom, fail: {{message: no}}}}\n",
        "finally:\n  - {id: told, wait: {event: told}}\n",
    )
    async with pipelines.worker():
        handle = await pipelines.start(pipelines.bundle(text))
        await waiting(handle, "told")
        assert pipelines.effects == ["do a", "undo a"]
        await handle.execute_update("told", None)
        error, report = await failed(handle)
    assert error.message == "boom: no"
    assert report is not None
    assert report.finally_errors == ()


async def test_a_killed_worker_forgets_nothing(pipelines: Pipelines) -> None:
    """Another worker takes up the waits, the kept events and the approvals so far, from the history."""
    text = pipeline(
        "  - {id: go, wait: {event: go}}\n  - {id: kept, wait: {event: kept}}\n",
        'output: "{{ steps.kept.output }}"\n',
    )
    bundle = pipelines.bundle(text)
    async with pipelines.worker():
        handle = await pipelines.start(bundle)
        await waiting(handle, "go")
        await handle.execute_update("kept", 1)
    async with pipelines.worker(max_cached_workflows=0):
        await handle.signal("go")
        assert await result_of(handle) == 1
