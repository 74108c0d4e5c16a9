"""Activities of workers that know nothing of this package."""

import asyncio
import re
from typing import Any

from msgspec.structs import replace
from temporalio import activity
from temporalio.client import WorkflowHandle
from temporalio.exceptions import ApplicationError, CancelledError
from temporalio.worker import Worker

from pipeline_runner.core.errors import in_brackets
from pipeline_runner.core.model import ActivityCall, decode, encode
from pipeline_runner.engine.workflow.outcomes import unknown_activity
from tests.conftest import Pipelines
from tests.engine.test_undo import failure
from tests.engine.texts import FAIL, pipeline, step, undone

AGAIN = "retry: {maximum_attempts: 3, initial_interval: 10ms}"


async def test_an_error_after_a_cancellation_is_uncertain(pipelines: Pipelines) -> None:
    """A worker that wraps the error of the program that it killed: nobody knows what the program had done."""
    begun = asyncio.Event()

    @activity.defn(name="test.tidy")
    async def tidy(given: dict[str, str]) -> None:
        begun.set()
        try:
            while True:
                activity.heartbeat()
                await asyncio.sleep(0.05)
        except asyncio.CancelledError:
            raise RuntimeError("signal: killed") from None

    queue = f"{pipelines.queue}-other"
    text = step(pipelines, "test.tidy", more=f"timeouts: {{heartbeat: 2s}}, {undone('o')}").replace(
        f"task_queue: {pipelines.queue}", f"task_queue: {queue}"
    )
    async with (
        pipelines.worker(),
        Worker(pipelines.client, task_queue=queue, activities=[tidy]),
        asyncio.timeout(20),
    ):
        handle = await pipelines.start(pipelines.bundle(pipeline(text)))
        await begun.wait()
        await handle.cancel()
        cause, _ = await failure(handle)
    assert isinstance(cause, CancelledError)
    assert pipelines.effects == ["undo o"]


async def test_a_step_that_no_worker_took_before_the_cancellation_has_done_nothing(
    pipelines: Pipelines,
) -> None:
    """The run learns of both at once. A step whose time in the queue was over cannot have started."""
    text = step(
        pipelines, "test.nobody", more=f"timeouts: {{schedule_to_start: 300ms}}, {undone('o')}"
    ).replace(f"task_queue: {pipelines.queue}", f"task_queue: {pipelines.queue}-dead")
    handle = await pipelines.start(pipelines.bundle(pipeline(text)))

    async def seen(kind: str) -> bool:
        return any([event.HasField(kind) async for event in handle.fetch_history_events()])  # type: ignore[arg-type]

    async with asyncio.timeout(30):
        async with pipelines.worker():
            while not await seen("activity_task_scheduled_event_attributes"):
                await asyncio.sleep(0.02)
        while not await seen("activity_task_timed_out_event_attributes"):
            await asyncio.sleep(0.02)
        await handle.cancel()
        async with pipelines.worker():
            cause, report = await failure(handle)
    assert isinstance(cause, CancelledError)
    assert report is not None
    assert (report.undo, report.dirty) == ((), False)
    assert pipelines.effects == []


async def test_an_error_without_a_type_has_none(pipelines: Pipelines) -> None:
    """It must not look as if ``non_retryable_error_types`` could match it."""

    @activity.defn(name="test.plain")
    async def plain(given: dict[str, str]) -> None:
        raise ApplicationError("no luck", non_retryable=True)

    async with pipelines.worker(plain):
        handle = await pipelines.start(pipelines.bundle(pipeline(step(pipelines, "test.plain"))))
        cause, report = await failure(handle)
    assert isinstance(cause, ApplicationError)
    assert (cause.type, cause.message) == (None, "o: no luck")
    assert report is not None
    assert report.error is not None
    assert report.error.type == ""
    assert in_brackets(report.error.type) == ""


async def test_a_secret_does_not_go_to_a_worker_that_cannot_resolve_it(pipelines: Pipelines) -> None:
    """By way of ``step.input``, say; nothing is scheduled."""
    text = step(pipelines, "effect.do", given='with: {log: LOG, name: "x{{ secrets.HOME }}"}')
    bundle = pipelines.bundle(pipeline(text, head="secrets: [HOME]\n"))
    [key] = bundle.pipelines
    made = bundle.pipelines[key]
    action = made.steps[0].action
    assert isinstance(action, ActivityCall)
    assert action.secrets  # nothing is known of it
    told = replace(made.steps[0], action=replace(action, secrets=False))
    bundle = replace(bundle, pipelines={key: replace(made, steps=(told,))})
    assert decode(encode(bundle)) == bundle
    async with pipelines.worker():
        handle = await pipelines.start(bundle)
        cause, _ = await failure(handle)
    assert isinstance(cause, ApplicationError)
    assert cause.type == "ExpressionError"
    assert cause.message.startswith(
        'o: a secret cannot be passed to "effect.do", which another worker serves'
    )
    assert pipelines.effects == []


async def test_a_step_and_its_undo_see_the_same_key(pipelines: Pipelines) -> None:
    keyed = (
        '  - {id: a, activity: effect.do, with: {log: LOG, name: "{{ step.key }}"},'
        ' compensate: {activity: effect.undo, with: {log: LOG, name: "{{ step.key }}"}}}\n'
    )
    async with pipelines.worker():
        handle = await pipelines.start(pipelines.bundle(pipeline(keyed, FAIL)))
        await failure(handle)
    done, undone_ = pipelines.effects
    assert re.fullmatch(r"do [0-9a-f]{32}", done)
    assert undone_ == f"un{done}"


async def test_an_unknown_activity_is_not_asked_for_again(pipelines: Pipelines) -> None:
    text = step(pipelines, "test.unheard-of", more=f"{AGAIN}, {undone('o')}")
    async with pipelines.worker():
        handle = await pipelines.start(pipelines.bundle(pipeline(text)))
        cause, _ = await failure(handle)
    assert isinstance(cause, ApplicationError)
    assert cause.type == "UnknownActivity"
    assert (
        f'the worker on the task queue "{pipelines.queue}" does not have the activity "test.unheard-of"'
        in (cause.message)
    )
    assert await _attempts(handle) == [1]
    assert pipelines.effects == []


async def test_an_unknown_activity_of_another_sdk_is_told_as_such(pipelines: Pipelines) -> None:
    """The SDK's own answer, as a worker without this package gives it."""

    @activity.defn(name="test.other")
    async def other() -> None:
        raise AssertionError

    queue = f"{pipelines.queue}-other"
    text = step(pipelines, "test.unheard-of", more=f"{AGAIN}, {undone('o')}").replace(
        f"task_queue: {pipelines.queue}", f"task_queue: {queue}"
    )
    async with pipelines.worker(), Worker(pipelines.client, task_queue=queue, activities=[other]):
        handle = await pipelines.start(pipelines.bundle(pipeline(text)))
        cause, _ = await failure(handle)
    assert isinstance(cause, ApplicationError)
    assert cause.type == "UnknownActivity"
    assert cause.message == f"o: {unknown_activity('test.unheard-of', queue)}"
    assert await _attempts(handle) == [3]
    assert pipelines.effects == []


async def test_a_worker_in_go_is_not_asked_again(pipelines: Pipelines) -> None:
    @activity.defn(name="test.go")
    async def go(given: dict[str, str]) -> None:
        raise ApplicationError("unable to find activityType=test.go", type="ActivityNotRegisteredError")

    async with pipelines.worker(go):
        handle = await pipelines.start(pipelines.bundle(pipeline(step(pipelines, "test.go", more=AGAIN))))
        cause, _ = await failure(handle)
    assert isinstance(cause, ApplicationError)
    assert cause.type == "UnknownActivity"
    assert await _attempts(handle) == [1]


async def test_an_activity_may_have_such_a_type_of_its_own(pipelines: Pipelines) -> None:
    @activity.defn(name="test.look-up")
    async def look_up(given: dict[str, str]) -> None:
        raise ApplicationError("no such customer", type="NotFoundError")

    async with pipelines.worker(look_up):
        text = step(pipelines, "test.look-up", more=AGAIN)
        handle = await pipelines.start(pipelines.bundle(pipeline(text)))
        cause, _ = await failure(handle)
    assert isinstance(cause, ApplicationError)
    assert (cause.type, cause.message) == ("NotFoundError", "o: no such customer")
    assert await _attempts(handle) == [3]


async def _attempts(handle: WorkflowHandle[Any, Any]) -> list[int]:
    """Return in which attempt each activity started for the last time."""
    return [
        event.activity_task_started_event_attributes.attempt
        async for event in handle.fetch_history_events()
        if event.HasField("activity_task_started_event_attributes")
    ]
