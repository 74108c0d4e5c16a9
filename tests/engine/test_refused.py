"""A worker that may not, or cannot, take a run: what of the run was done is not called clean.

The next run of a chain is sent to another task queue, so that another worker takes it up.
"""

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from temporalio import workflow
from temporalio.client import WorkflowExecutionStatus, WorkflowHandle
from temporalio.common import HeaderCodecBehavior
from temporalio.converter import DefaultFailureConverterWithEncodedAttributes, default
from temporalio.exceptions import ApplicationError

from pipeline_runner.core.state import Report
from pipeline_runner.engine import client as starting
from pipeline_runner.engine.signing import signed
from pipeline_runner.engine.worker import pipeline_worker
from pipeline_runner.engine.workflow import interpreter
from pipeline_runner.engine.workflow.program import UnsupportedBundleError, program_of
from pipeline_runner.server import devserver
from tests import effects
from tests.codecs import UpsideDown
from tests.conftest import Pipelines, connected
from tests.engine.test_continue import steps
from tests.engine.test_undo import failure

DONE = [f"do s{k}" for k in range(6)]
LONG = f"name: long\nsteps:{steps(12)}"
PARENT = """
name: parent
steps:
  - id: before
    activity: effect.do
    with: {log: LOG, name: before}
    compensate: {activity: effect.undo, with: {log: LOG, name: before}}
  - {id: child, pipeline: ./child.yaml, retry: {maximum_attempts: 3, initial_interval: 10ms}QUEUE}
"""


async def _pipelines(address: str, folder: Path, key: int, **settings: Any) -> Pipelines:
    return Pipelines(
        await starting.connect(signed({"target_host": address, **settings}, bytes([key] * 32))), folder
    )


@pytest_asyncio.fixture
async def own(short_histories: devserver.DevServer, tmp_path: Path) -> AsyncIterator[Pipelines]:
    await connected(short_histories.address)
    yield await _pipelines(short_histories.address, tmp_path, 1)


@pytest_asyncio.fixture
async def other(
    short_histories: devserver.DevServer, tmp_path: Path, own: Pipelines
) -> AsyncIterator[Pipelines]:
    """Those of a user with another key."""
    yield await _pipelines(short_histories.address, tmp_path, 2)


@pytest.fixture
def moved(monkeypatch: pytest.MonkeyPatch) -> str:
    """The task queue on which runs of the pipeline ``long`` go on."""
    queue = "moved-to"
    going_on = workflow.continue_as_new

    def elsewhere(**how: Any) -> Any:
        if workflow.info().workflow_type == "long":
            how["task_queue"] = queue
        return going_on(**how)

    monkeypatch.setattr(workflow, "continue_as_new", elsewhere)
    return queue


async def _end(pipelines: Pipelines, workflow_id: str) -> tuple[ApplicationError, Report]:
    """Return how the newest run of a chain failed."""
    async with asyncio.timeout(30):
        cause, report = await failure(pipelines.client.get_workflow_handle(workflow_id))
    assert isinstance(cause, ApplicationError)
    assert report is not None
    return cause, report


async def _waits_for(handle: WorkflowHandle[Any, Any], activity_id: str) -> None:
    """Wait until a run has nothing to do but wait for an activity."""
    async with asyncio.timeout(30):
        while True:
            run = (await handle.describe()).raw_description
            if [one.activity_id for one in run.pending_activities] == [activity_id]:
                return
            await asyncio.sleep(0.02)


async def _still_runs(handle: WorkflowHandle[Any, Any]) -> None:
    """Check that a run was not ended; end it, since the server tries again only after ten seconds."""
    assert (await handle.describe()).status is WorkflowExecutionStatus.RUNNING
    await handle.terminate()


def _on(pipelines: Pipelines, queue: str) -> Any:
    return pipeline_worker(pipelines.client, task_queue=queue, activities=[effects.do, effects.undo])


async def test_a_run_that_goes_on_at_another_user_s_worker_is_dirty(
    own: Pipelines, other: Pipelines, moved: str
) -> None:
    async with own.worker(), _on(other, moved):
        cause, report = await _end(own, (await own.start(own.bundle(LONG))).id)
    assert (cause.type, cause.non_retryable) == ("NotSigned", True)
    assert (report.status, report.dirty, report.undo) == ("failed", True, ())
    assert own.effects[:6] == DONE
    assert not [line for line in own.effects if line.startswith("undo")]


async def test_a_run_that_goes_on_at_a_worker_of_another_version_is_dirty(
    own: Pipelines, moved: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def older(data: bytes) -> Any:
        if workflow.info().continued_run_id is not None:
            raise UnsupportedBundleError("this worker runs an older format")
        return program_of(data)

    monkeypatch.setattr(interpreter, "program_of", older)
    async with own.worker(), _on(own, moved):
        cause, report = await _end(own, (await own.start(own.bundle(LONG))).id)
    assert (cause.type, cause.non_retryable) == ("UnsupportedBundle", True)
    assert (report.status, report.dirty) == ("failed", True)


async def test_so_is_the_parent_of_such_a_child(own: Pipelines, other: Pipelines, moved: str) -> None:
    """And the child is not started again beside what it left."""
    bundle = own.bundle(PARENT.replace("QUEUE", ""), child=LONG)
    async with own.worker(), _on(other, moved):
        cause, report = await _end(own, (await own.start(bundle)).id)
    assert cause.type == "NotSigned"
    assert report.dirty
    assert [(record.path, record.state) for record in report.undo] == [("before", "undone")]
    assert own.effects.count("do s0") == 1
    assert own.effects[-1] == "undo before"


async def test_a_child_that_another_user_s_worker_refuses_has_done_nothing(
    own: Pipelines, other: Pipelines
) -> None:
    bundle = own.bundle(PARENT.replace("QUEUE", f", task_queue: {other.queue}"), child=LONG)
    async with own.worker(), other.worker():
        cause, report = await _end(own, (await own.start(bundle)).id)
    assert cause.type == "NotSigned"
    assert not report.dirty
    assert own.effects == ["do before", "undo before"]


async def test_a_run_that_another_user_s_worker_finds_in_the_middle_waits_for_its_own(
    own: Pipelines, other: Pipelines
) -> None:
    """To end it there would forget what it has done."""
    first = "  - {id: first, activity: effect.do, with: {log: LOG, name: first}}\n"
    last = f"  - {{id: last, task_queue: {own.queue}-last, activity: effect.do, with: {{log: LOG, name: last}}}}\n"
    bundle = own.bundle(f"name: short\nsteps:\n{first}{last}")
    # Without a cache, tasks go to whichever worker there is at once.
    async with own.worker(max_cached_workflows=0):
        handle = await own.start(bundle)
        # A task that is in flight when its worker stops would time out, and the history would not tell what
        # becomes of the next attempt.
        await _waits_for(handle, "last")
    # What it waits for comes when its own worker has gone.
    failed: Any = None
    async with _on(other, own.queue), _on(own, f"{own.queue}-last"), asyncio.timeout(30):
        while failed is None:
            async for event in handle.fetch_history_events():
                if event.HasField("workflow_task_failed_event_attributes"):
                    failed = event.workflow_task_failed_event_attributes.failure
    assert "ondeterminism" in failed.message
    await _still_runs(handle)


async def test_a_run_that_goes_on_at_a_worker_without_its_codec_waits_for_one_that_has_it(
    short_histories: devserver.DevServer, own: Pipelines, moved: str, tmp_path: Path
) -> None:
    converter = dataclasses.replace(
        default(),
        payload_codec=UpsideDown(),
        failure_converter_class=DefaultFailureConverterWithEncodedAttributes,
    )
    encoded = await _pipelines(
        short_histories.address,
        tmp_path,
        1,
        data_converter=converter,
        header_codec_behavior=HeaderCodecBehavior.CODEC,
    )
    async with encoded.worker():
        handle = await encoded.start(encoded.bundle(LONG))
        newest = encoded.client.get_workflow_handle(handle.id)
        failed: Any = None
        async with _on(own, moved), asyncio.timeout(30):
            while failed is None:
                async for event in newest.fetch_history_events():
                    if event.HasField("workflow_task_failed_event_attributes"):
                        failed = event.workflow_task_failed_event_attributes.failure
        assert failed.message.startswith(
            "the run's arguments are encoded: configure this worker with the codec"
        )
        assert encoded.effects[:6] == DONE
    await _still_runs(newest)
