"""Activities of workers that know nothing of this package."""

import asyncio

from temporalio import activity
from temporalio.exceptions import ApplicationError, CancelledError
from temporalio.worker import Worker

from pipeline_runner.core.errors import in_brackets
from tests.conftest import Pipelines
from tests.engine.test_undo import failure
from tests.engine.texts import pipeline, step, undone


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
