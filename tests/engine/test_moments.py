"""What happens at an awkward moment: together with something else, over a new run, or out of turn."""

import asyncio
import json
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from temporalio import activity
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import WorkflowExecutionStatus, WorkflowFailureError, WorkflowHandle, WorkflowHistory
from temporalio.exceptions import ApplicationError, CancelledError
from temporalio.worker import Replayer

from pipeline_runner.activities.toolkit.context import idempotency_key
from pipeline_runner.core import model
from pipeline_runner.engine.interceptor import WorkflowSide
from pipeline_runner.engine.worker import pipeline_worker
from pipeline_runner.engine.workflow.interpreter import Interpreter
from tests.conftest import Pipelines, result_of
from tests.effects import lines, note
from tests.engine.test_continue import steps
from tests.engine.test_undo import eventually, failure
from tests.engine.texts import CHILD, FAIL, effect, pipeline, step, undone

DEADLINE = 60.0
UNDO_15 = [f"undo s{k} true" for k in reversed(range(15))]
RETRIED = "retry: {maximum_attempts: 3, initial_interval: 10ms}"


async def newest(pipelines: Pipelines, handle: WorkflowHandle[Any, Any]) -> Any:
    """Wait for the end of the chain of runs, however it ends; one that hangs is ended."""
    last: WorkflowHandle[Any, Any] = pipelines.client.get_workflow_handle(handle.id)
    try:
        async with asyncio.timeout(DEADLINE):
            return await failure(last)
    except TimeoutError:
        await last.terminate()
        raise


async def status_of(pipelines: Pipelines, workflow_id: str) -> WorkflowExecutionStatus | None:
    return (await pipelines.client.get_workflow_handle(workflow_id).describe()).status


def fails(times: int) -> Callable[..., Any]:
    """An activity ``test.fails`` that says no as many times, and notes each try."""

    @activity.defn(name="test.fails")
    async def one(given: dict[str, str]) -> None:
        note(given["log"], "try")
        if lines(given["log"]).count("try") <= times:
            raise ApplicationError("not yet", type="NotYet")

    return one


# A child that has gone on in a new run.


@pytest.mark.parametrize("how", ["cancelled", "timed_out"])
async def test_an_interruption_reaches_a_child_that_went_on_in_a_new_run(small: Pipelines, how: str) -> None:
    bundle = small.bundle(
        pipeline(effect("a"), CHILD, head="timeout: 6s\n" if how == "timed_out" else ""),
        c=pipeline(steps(15, "hang")),
    )
    async with small.worker():
        handle = await small.start(bundle)
        await eventually(lambda: "do last" in small.effects)
        if how == "cancelled":
            await handle.cancel()
        cause, report = await newest(small, handle)
        state = await handle.query("report")
    if how == "cancelled":
        assert isinstance(cause, CancelledError)
    else:
        assert isinstance(cause, ApplicationError)
        assert cause.type == "PipelineTimeout"
        assert cause.message == 'p did not complete within 6s during "c"'
        assert report is not None
        assert not report.dirty
    assert (state["status"], state.get("dirty", False)) == (how, False)
    assert [record["path"] for record in state["undo"]] == [*(f"c/s{k}" for k in reversed(range(15))), "a"]
    assert small.effects[16:] == ["do last", *UNDO_15, "undo a"]


@pytest.mark.parametrize("policy", ["terminate", "request_cancel"])
async def test_the_close_policy_of_a_child_that_went_on_in_a_new_run(small: Pipelines, policy: str) -> None:
    """One whose cancellation is asked for undoes itself; a terminated one is just gone."""
    child = CHILD.replace("}", f", parent_close_policy: {policy}}}")
    bundle = small.bundle(pipeline(effect("a"), child), c=pipeline(steps(15, "hang")))
    async with small.worker():
        handle = await small.start(bundle)
        await eventually(lambda: "do last" in small.effects)
        await handle.terminate()
        async with asyncio.timeout(DEADLINE):
            with pytest.raises(WorkflowFailureError) as caught:
                await small.client.get_workflow_handle(f"{handle.id}/c").result()
        status = await status_of(small, f"{handle.id}/c")
    expected = [f"do s{k}" for k in range(15)] + ["do last"]
    if policy == "terminate":
        assert status is WorkflowExecutionStatus.TERMINATED
        assert small.effects == ["do a", *expected]
    else:
        # Temporal lets a run that went on while it undid itself end as failed only.
        assert status is WorkflowExecutionStatus.FAILED
        assert isinstance(caught.value.cause, ApplicationError)
        assert caught.value.cause.type == "Cancelled"
        assert small.effects == ["do a", *expected, *UNDO_15]


async def test_a_child_that_failed_in_a_later_run_is_retried(small: Pipelines) -> None:
    bundle = small.bundle(
        pipeline(CHILD.replace("}", f", {RETRIED}}}")),
        c=pipeline(steps(15), step(small, "test.fails")),
    )
    async with small.worker(fails(1)):
        async with asyncio.timeout(DEADLINE):
            await result_of(await small.start(bundle))
    forward = [f"do s{k}" for k in range(15)]
    assert small.effects == [*forward, "try", *UNDO_15, *forward, "try"]


@pytest.mark.parametrize("value", ["a\udcff", 2**70], ids=["surrogate", "integer"])
async def test_a_result_that_nothing_can_encode_again_is_no_obstacle_to_a_new_run(
    small: Pipelines, value: object
) -> None:
    @activity.defn(name="test.odd")
    async def odd(given: dict[str, str]) -> Any:
        return value

    bundle = small.bundle(pipeline(steps(6), step(small, "test.odd"), FAIL))
    async with small.worker(odd):
        cause, report = await newest(small, await small.start(bundle))
    assert cause.message == "f: enough"
    assert not report.dirty
    assert small.effects[6:] == [f"undo s{k} true" for k in reversed(range(6))]


async def test_finally_sees_the_same_names_in_every_run(small: Pipelines) -> None:
    """A failure of its own is nothing that it sees, before or after it goes on in a new run."""
    final = "".join(
        f"  - {{id: f{k}, activity: effect.do, with: {{log: LOG, name: '{{{{ run.status }}}} {{{{ error is none }}}}'}}}}\n"
        for k in range(20)
    )
    bundle = small.bundle(
        pipeline("  - {id: s, set: {x: 1}}\n", "finally:\n  - {id: bad, fail: {message: enough}}\n", final)
    )
    async with small.worker():
        handle = await small.start(bundle)
        cause, _ = await newest(small, handle)
    assert cause.message == "bad: enough"
    assert small.effects == ["do completed true"] * 20


# Two things at once.


def with_event_after(history: Any, kind: str, event: dict[str, Any]) -> Any:
    """Splice an event into a recorded history, behind the one of that kind."""
    events = history["events"]
    at = next(i for i, e in enumerate(events) if e["eventType"] == f"EVENT_TYPE_{kind}")
    before = int(events[at]["eventId"])

    def moved(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: later(key, item) for key, item in value.items()}
        return [moved(item) for item in value] if isinstance(value, list) else value

    def later(key: str, item: Any) -> Any:
        is_id = key.lower().endswith("eventid") and isinstance(item, str) and item.isdigit()
        return str(int(item) + 1) if is_id and int(item) > before else moved(item)

    inserted = {"eventId": str(before + 1), "eventTime": events[at]["eventTime"], "taskId": "1", **event}
    return {"events": [*events[: at + 1], inserted, *(moved(e) for e in events[at + 1 :])]}


async def test_a_cancellation_that_comes_with_the_last_start_of_a_child_is_too_late(
    pipelines: Pipelines,
) -> None:
    """One activation brings both. The run is done then: it completes, as it did without."""
    bundle = pipelines.bundle(
        pipeline(
            effect("a"), CHILD.replace("}", ", parent_close_policy: abandon, wait_for_completion: false}")
        ),
        c=pipeline("  - {id: w, wait: 1ms}\n"),
    )  # fmt: skip
    async with pipelines.worker():
        handle = await pipelines.start(bundle)
        await result_of(handle)
    history = with_event_after(
        json.loads((await handle.fetch_history()).to_json()),
        "CHILD_WORKFLOW_EXECUTION_STARTED",
        {
            "eventType": "EVENT_TYPE_WORKFLOW_EXECUTION_CANCEL_REQUESTED",
            "workflowExecutionCancelRequestedEventAttributes": {"identity": "test"},
        },
    )
    replayer = Replayer(workflows=[Interpreter], interceptors=[WorkflowSide()])
    result = await replayer.replay_workflow(
        WorkflowHistory.from_json(handle.id, history), raise_on_replay_failure=False
    )
    assert result.replay_failure is None


async def test_a_cancellation_that_comes_with_the_end_of_a_backoff_starts_nothing(
    pipelines: Pipelines,
) -> None:
    """The child's second attempt, which was due, has nothing to be undone."""
    bundle = pipelines.bundle(
        pipeline(effect("a"), CHILD.replace("}", ", retry: {maximum_attempts: 3, initial_interval: 1s}}")),
        c=pipeline(effect("x"), step(pipelines, "test.fails")),
    )
    async with pipelines.worker(fails(9)):
        handle = await pipelines.start(bundle)
        await eventually(lambda: "undo x" in pipelines.effects)
        await asyncio.sleep(0.3)
    # Nobody serves the run while both happen.
    await asyncio.sleep(1.2)
    await handle.cancel()
    async with pipelines.worker(fails(9)):
        async with asyncio.timeout(DEADLINE):
            cause, _ = await failure(handle)
        report = await handle.query("report")
    assert isinstance(cause, CancelledError)
    assert (report["status"], report.get("dirty", False)) == ("cancelled", False)
    assert [(r["path"], r["state"]) for r in report["undo"]] == [("c/x", "undone"), ("a", "undone")]
    assert pipelines.effects == ["do a", "do x", "try", "undo x", "undo a"]


async def test_a_cancellation_that_comes_with_a_failure_leaves_finally_alone(pipelines: Pipelines) -> None:
    """One activation brings both, and begins with ``finally``: nothing of it is cancelled."""
    begun, go = asyncio.Event(), asyncio.Event()

    @activity.defn(name="test.held")
    async def held(given: dict[str, str]) -> None:
        begun.set()
        await go.wait()
        raise ApplicationError("no", type="No")

    queue = f"{pipelines.queue}-held"
    text = pipeline(step(pipelines, "test.held").replace(pipelines.queue, queue))
    last = "  - {id: last, activity: effect.do, with: {log: LOG, name: last}}\n"
    bundle = pipelines.bundle(f"{text}finally:\n{last}")
    async with pipeline_worker(pipelines.client, task_queue=queue, activities=[held]):
        async with pipelines.worker():
            handle = await pipelines.start(bundle)
            await begun.wait()
        # Nobody serves the run while both happen.
        go.set()
    await handle.cancel()
    async with pipelines.worker(), asyncio.timeout(DEADLINE):
        cause, report = await failure(handle)
    assert isinstance(cause, CancelledError)
    assert report is not None
    assert (report.status, report.finally_errors) == ("cancelled", ())
    assert pipelines.effects == ["do last"]
    replayer = Replayer(workflows=[Interpreter], interceptors=[WorkflowSide()])
    await replayer.replay_workflow(await handle.fetch_history())


# Activities that do not go as activities go.


async def test_an_activity_that_swallows_its_cancellation_has_completed(pipelines: Pipelines) -> None:
    @activity.defn(name="test.swallow")
    async def swallow(given: dict[str, str]) -> str:
        note(given["log"], "do o")
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            note(given["log"], "swallowed")
        return "done anyway"

    more = undone("{{ step.outcome }}, {{ step.output }}")
    bundle = pipelines.bundle(pipeline(step(pipelines, "test.swallow", more=more)))
    async with pipelines.worker(swallow):
        handle = await pipelines.start(bundle)
        await eventually(lambda: "do o" in pipelines.effects)
        await handle.cancel()
        cause, _ = await failure(handle)
    assert isinstance(cause, CancelledError)
    assert pipelines.effects == ["do o", "swallowed", "undo completed, done anyway"]


async def test_a_sync_activity_whose_worker_stops_is_uncertain(pipelines: Pipelines) -> None:
    """Its thread may do its work to the end: the step is undone."""

    @activity.defn(name="test.sync")
    def sync(given: dict[str, str]) -> str:
        note(given["log"], "do o")
        for _ in range(30):
            time.sleep(0.1)
        return "ok"

    more = f"timeouts: {{start_to_close: 5s}}, {undone('o')}"
    bundle = pipelines.bundle(pipeline(step(pipelines, "test.sync", more=more)))
    async with pipelines.worker(sync, graceful_shutdown=timedelta(seconds=0.1)):
        handle = await pipelines.start(bundle)
        await eventually(lambda: "do o" in pipelines.effects)
    async with pipelines.worker(sync):
        cause, report = await failure(handle)
    assert isinstance(cause, ApplicationError)
    assert (cause.type, cause.message) == ("WorkerShutdown", "o: the worker was stopped")
    assert report is not None
    assert [(r.outcome, r.state) for r in report.undo] == [("uncertain", "undone")]
    assert pipelines.effects == ["do o", "undo o"]


async def test_an_async_callable_is_stopped_at_its_start_to_close(pipelines: Pipelines) -> None:
    """Else it would go on with its work after its undo."""

    @activity.defn(name="test.slow")
    class Slow:
        async def __call__(self, given: dict[str, str]) -> None:
            await asyncio.sleep(1)
            note(given["log"], "late")

    more = f"timeouts: {{start_to_close: 400ms}}, {undone('o')}"
    bundle = pipelines.bundle(pipeline(step(pipelines, "test.slow", more=more)))
    async with pipelines.worker(Slow()):
        cause, _ = await failure(await pipelines.start(bundle))
        await asyncio.sleep(1)
    assert isinstance(cause, ApplicationError)
    assert cause.type == "StartToCloseTimeout"
    assert pipelines.effects == ["undo o"]


async def test_an_activity_may_complete_later_by_its_token(
    pipelines: Pipelines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "hunter2-correct-horse")
    later: list[asyncio.Task[None]] = []

    @activity.defn(name="test.later")
    async def one(given: dict[str, str]) -> str:
        token = activity.info().task_token

        async def complete() -> None:
            await asyncio.sleep(0.2)
            await pipelines.client.get_async_activity_handle(task_token=token).complete("done")

        later.append(asyncio.create_task(complete()))
        activity.raise_complete_async()

    text = pipeline(
        step(pipelines, "test.later", "with: {token: '{{ secrets.TOKEN }}'}"),
        "output: '{{ steps.o.output }}'\n",
        head="secrets: [TOKEN]\n",
    )
    async with pipelines.worker(one):
        assert await result_of(await pipelines.start(pipelines.bundle(text))) == "done"


async def test_a_result_that_is_no_json_leaves_a_step_that_was_done(pipelines: Pipelines) -> None:
    """It is undone, and not tried again: it would end no other way."""

    @activity.defn(name="test.object")
    async def one(given: dict[str, str]) -> Any:
        note(given["log"], "do o")
        return object()

    bundle = pipelines.bundle(pipeline(step(pipelines, "test.object", more=f"{RETRIED}, {undone('o')}")))
    async with pipelines.worker(one):
        cause, report = await failure(await pipelines.start(bundle))
    assert isinstance(cause, ApplicationError)
    assert cause.type == "TypeError"
    assert cause.message == (
        'o: the result of "test.object" is not JSON data: Object of type object is not JSON serializable'
    )
    assert report is not None
    assert [(r.outcome, r.state) for r in report.undo] == [("uncertain", "undone")]
    assert pipelines.effects == ["do o", "undo o"]


# Out of turn.


async def test_a_signal_that_somebody_made_up_is_ignored(pipelines: Pipelines) -> None:
    bundle = pipelines.bundle(pipeline(effect("a"), "  - {id: w, wait: 1s}\n", FAIL))
    async with pipelines.worker():
        handle = await pipelines.start(bundle)
        await eventually(lambda: "do a" in pipelines.effects)
        for args in (["x", {"pipeline": "p", "status": "cancelled", "new": 1}], ["x", 1], [], ["x", {}, 3]):
            await handle.signal("pipeline_runner.child_undone", args=args)
        cause, report = await failure(handle)
    assert isinstance(cause, ApplicationError)
    assert cause.message == "f: enough"
    assert report is not None
    assert [(r.path, r.state) for r in report.undo] == [("a", "undone")]
    assert pipelines.effects == ["do a", "undo a"]


@pytest.mark.parametrize(
    ("given", "kind"), [([1], "list"), ("x", "string"), (5, "number")], ids=["list", "text", "number"]
)
async def test_inputs_that_are_no_mapping_are_refused(pipelines: Pipelines, given: Any, kind: str) -> None:
    bundle = pipelines.bundle(
        pipeline("  - {id: f, set: {x: 1}}\n", head="inputs: {a: {type: string, default: x}}\n")
    )
    async with pipelines.worker(bundles={"p": model.encode(bundle)}):
        handle = await pipelines.client.start_workflow(
            "p", given, id=f"x-{pipelines.queue}", task_queue=pipelines.queue
        )
        cause, _ = await failure(handle)
    assert isinstance(cause, ApplicationError)
    assert cause.type == "InvalidInputs"
    assert cause.message == f"the inputs must be a mapping, not a {kind}"


async def test_a_key_is_the_same_after_a_reset(pipelines: Pipelines) -> None:
    keys: list[str] = []

    @activity.defn(name="test.key")
    async def one(given: dict[str, str]) -> None:
        keys.append(idempotency_key())

    bundle = pipelines.bundle(pipeline(step(pipelines, "test.key")))
    async with pipelines.worker(one):
        handle = await pipelines.start(bundle)
        await handle.result()
        await pipelines.client.workflow_service.reset_workflow_execution(
            ResetWorkflowExecutionRequest(
                namespace=pipelines.client.namespace,
                workflow_execution=WorkflowExecution(
                    workflow_id=handle.id, run_id=handle.first_execution_run_id or handle.run_id or ""
                ),
                workflow_task_finish_event_id=4,
                request_id="reset",
            )
        )
        await pipelines.client.get_workflow_handle(handle.id).result()
    assert len(keys) == 2
    assert keys[0] == keys[1]


async def test_a_compensation_by_a_pipeline_is_retried(pipelines: Pipelines) -> None:
    bundle = pipelines.bundle(
        pipeline(
            "  - {id: a, activity: effect.do, with: {log: LOG, name: a},"
            f" compensate: {{pipeline: ./u.yaml, {RETRIED}}}}}\n",
            FAIL,
        ),
        u=pipeline(effect("half"), step(pipelines, "test.fails")),
    )
    async with pipelines.worker(fails(1)):
        _, report = await failure(await pipelines.start(bundle))
    assert report is not None
    assert not report.dirty
    assert [(r.path, r.state) for r in report.undo][-1] == ("a", "undone")
    # The attempt that failed has undone what it did.
    assert pipelines.effects == ["do a", "do half", "try", "undo half", "do half", "try"]
