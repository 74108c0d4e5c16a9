"""Attempts that the server hands to a worker which is stopping: they are given back to the server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from temporalio import activity
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import PollActivityTaskQueueRequest
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker

from pipeline_runner.engine.worker import pipeline_worker
from tests import effects
from tests.conftest import Pipelines
from tests.engine.test_undo import eventually, failure

PIPE = """
name: p
steps:
  - id: first
    activity: effect.do
    with: {log: LOG, name: first}
    compensate: {activity: effect.undo, with: {log: LOG, name: first}}
  - id: lost
    task_queue: QUEUE-lost
    activity: effect.do
    with: {log: LOG, name: lost}
    MORE
    compensate: {activity: effect.undo, task_queue: QUEUE, with: {log: LOG, name: lost}}
"""


def _pipe(pipelines: Pipelines, more: str = "retry: {initial_interval: 10ms}") -> str:
    return PIPE.replace("QUEUE", pipelines.queue).replace("MORE", more)


async def _take(pipelines: Pipelines, queue: str, identity: str) -> None:
    """Take an activity task as the worker would, and do nothing about it."""
    request = PollActivityTaskQueueRequest(
        namespace="default", task_queue=TaskQueue(name=queue), identity=identity
    )
    taken = await pipelines.client.workflow_service.poll_activity_task_queue(
        request, timeout=timedelta(seconds=30)
    )
    assert taken.activity_type.name == "effect.do"


@asynccontextmanager
async def _worker(pipelines: Pipelines, more: str = "", **settings: Any) -> AsyncIterator[Worker]:
    worker = pipeline_worker(
        pipelines.client, task_queue=pipelines.queue + more, activities=[effects.do, effects.undo], **settings
    )
    async with worker:
        yield worker


def _identity(worker: Worker) -> str:
    identity = worker.config(active_config=True)["identity"]
    assert identity is not None
    return identity


async def test_an_attempt_that_a_stopped_worker_never_saw_is_retried_at_once(pipelines: Pipelines) -> None:
    queue = f"{pipelines.queue}-lost"
    async with _worker(pipelines) as worker:
        handle = await pipelines.start(pipelines.bundle(_pipe(pipelines)))
        await _take(pipelines, queue, _identity(worker))
    [pending] = (await handle.describe()).raw_description.pending_activities
    assert pending.last_failure.application_failure_info.type == "WorkerShutdown"
    async with (
        _worker(pipelines),
        pipeline_worker(pipelines.client, task_queue=queue, activities=[effects.do]),
        asyncio.timeout(20),
    ):
        await handle.result()
    assert pipelines.effects == ["do first", "do lost"]


async def test_its_step_is_undone_where_there_is_no_other_attempt(pipelines: Pipelines) -> None:
    """Nobody proves that it has not begun."""
    bundle = pipelines.bundle(_pipe(pipelines, "retry: {maximum_attempts: 1}"))
    async with _worker(pipelines) as worker:
        handle = await pipelines.start(bundle)
        await _take(pipelines, f"{pipelines.queue}-lost", _identity(worker))
    async with _worker(pipelines), asyncio.timeout(20):
        cause, report = await failure(handle)
    assert isinstance(cause, ApplicationError)
    assert (cause.type, cause.message) == ("WorkerShutdown", "lost: the worker was stopped")
    assert report is not None
    assert [(r.path, r.outcome, r.state) for r in report.undo] == [
        ("lost", "uncertain", "undone"),
        ("first", "completed", "undone"),
    ]
    assert not report.dirty


@pytest.mark.parametrize(
    ("identity", "more"),
    [
        ("another", "retry: {initial_interval: 10ms}"),
        (None, "timeouts: {start_to_close: 9s}"),
    ],
)
async def test_the_server_keeps_what_may_run_elsewhere_or_times_out_soon(
    pipelines: Pipelines, identity: str | None, more: str
) -> None:
    async with _worker(pipelines) as worker:
        handle = await pipelines.start(pipelines.bundle(_pipe(pipelines, more)))
        await _take(pipelines, f"{pipelines.queue}-lost", identity or _identity(worker))
    [pending] = (await handle.describe()).raw_description.pending_activities
    assert (pending.attempt, pending.HasField("last_failure")) == (1, False)
    await handle.terminate()


async def test_an_activity_that_others_complete_is_theirs(pipelines: Pipelines) -> None:
    @activity.defn(name="test.later")
    def later(given: dict[str, str]) -> None:
        effects.note(given["log"], "later")
        activity.raise_complete_async()

    bundle = pipelines.bundle(
        "name: p\nsteps:\n  - {id: a, activity: test.later, task_queue: QUEUE, with: {log: LOG}}\n".replace(
            "QUEUE", pipelines.queue
        )
    )
    async with pipelines.worker(later):
        handle = await pipelines.start(bundle)
        await eventually(lambda: pipelines.effects == ["later"])
    [pending] = (await handle.describe()).raw_description.pending_activities
    outside = pipelines.client.get_async_activity_handle(
        workflow_id=handle.id, run_id=None, activity_id=pending.activity_id
    )
    async with pipelines.worker(later), asyncio.timeout(20):
        await outside.complete("done")
        await handle.result()


async def test_workers_of_one_process_have_names_of_their_own(pipelines: Pipelines) -> None:
    async with (
        _worker(pipelines) as one,
        _worker(pipelines, "-2") as other,
        _worker(pipelines, "-3", identity="x") as named,
    ):
        assert _identity(one) != _identity(other)
        assert _identity(one).startswith(f"{pipelines.client.identity}-")
        assert _identity(named) == "x"
