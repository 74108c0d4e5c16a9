"""A client whose codec encrypts everything: payloads, errors, headers. Nothing is lost by it."""

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from temporalio import activity
from temporalio.api.common.v1 import Payload
from temporalio.client import Client
from temporalio.common import HeaderCodecBehavior, RawValue
from temporalio.converter import DefaultFailureConverterWithEncodedAttributes, default
from temporalio.exceptions import ApplicationError, CancelledError
from temporalio.worker import Worker

from pipeline_runner.cli import following
from pipeline_runner.cli.exit_codes import ExitCode
from pipeline_runner.core import model
from pipeline_runner.engine import client as starting
from pipeline_runner.engine.follow import Follower
from pipeline_runner.engine.history.happenings import Progress
from pipeline_runner.engine.worker import pipeline_worker
from pipeline_runner.server import devserver
from tests.codecs import ENCODING, UpsideDown
from tests.conftest import Pipelines, result_of
from tests.engine.test_undo import eventually, failure
from tests.engine.texts import CHILD, FAIL, effect, pipeline, step, undone


@pytest.fixture(scope="module")
def encoding() -> Any:
    return dataclasses.replace(
        default(),
        payload_codec=UpsideDown(),
        failure_converter_class=DefaultFailureConverterWithEncodedAttributes,
    )


@pytest_asyncio.fixture
async def encoded(server: devserver.DevServer, encoding: Any, tmp_path: Path) -> AsyncIterator[Pipelines]:
    client = await Client.connect(
        server.address, data_converter=encoding, header_codec_behavior=HeaderCodecBehavior.CODEC
    )
    yield Pipelines(client, tmp_path)


@pytest.fixture(params=["plain", "encoded"])
def either(request: pytest.FixtureRequest) -> Pipelines:
    found = request.getfixturevalue("pipelines" if request.param == "plain" else "encoded")
    assert isinstance(found, Pipelines)
    return found


async def test_what_an_attempt_left_behind_is_undone(either: Pipelines) -> None:
    """The worker is stopped in the first attempt; the second one fails outright."""
    left: list[str] = []
    begun = asyncio.Event()

    @activity.defn(name="test.create")
    async def create(given: dict[str, str]) -> None:
        if activity.info().attempt == 1:
            left.append("vm")
            begun.set()
            await asyncio.sleep(3600)
        raise ApplicationError("quota", type="Quota", non_retryable=True)

    @activity.defn(name="test.delete")
    async def delete(given: dict[str, str]) -> None:
        left.clear()

    bundle = either.bundle(
        pipeline(
            step(
                either,
                "test.create",
                more="retry: {initial_interval: 10ms}, compensate:"
                f" {{activity: test.delete, task_queue: {either.queue}, with: {{a: b}}}}",
            )
        )
    )
    async with either.worker(create, delete, graceful_shutdown=timedelta(0)):
        handle = await either.start(bundle)
        await begun.wait()
    async with either.worker(create, delete):
        cause, report = await failure(handle)
    assert isinstance(cause, ApplicationError)
    assert (cause.type, cause.message) == ("Quota", "o: quota")
    assert report is not None
    assert [(r.outcome, r.state) for r in report.undo] == [("uncertain", "undone")]
    assert (report.dirty, left) == (False, [])


async def test_a_cancelled_run_ends_with_its_report_and_needs_no_worker_to_tell_it(
    either: Pipelines, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = either.bundle(
        """
version: 1
name: p
steps:
  - {id: a, activity: effect.do, with: {log: LOG, name: a}, compensate: {activity: effect.undo, with: {log: LOG, name: a}}}
  - {id: b, activity: effect.do, with: {log: LOG, name: b, then: hang}, compensate: none}
"""
    )
    async with either.worker():
        handle = await either.start(bundle)
        await eventually(lambda: "do b" in either.effects)
        await handle.cancel(reason="enough")
        cause, report = await failure(handle)
    assert isinstance(cause, CancelledError)
    assert report is not None
    assert (report.pipeline, report.status, report.dirty) == ("p", "cancelled", False)
    assert [(r.path, r.state) for r in report.undo] == [("a", "undone")]
    # What the command does at the end; the worker has gone, and a query would wait for it.
    file = tmp_path / "report.json"
    follower = Follower(either.client, handle.id, handle.run_id)
    assert await following._tell(either.client, handle, follower, str(file)) is ExitCode.CANCELLED
    assert json.loads(file.read_text())["undo"][0]["path"] == "a"
    assert capsys.readouterr().err == "cancelled: enough\n  undone: a\n"


async def test_details_that_cannot_be_read_count_as_uncertain(pipelines: Pipelines) -> None:
    """The first attempt is somebody else's, with details that the worker of the second cannot decode."""
    queue = f"{pipelines.queue}-other"

    @activity.defn(name="test.flaky")
    async def flaky(given: str) -> None:
        if activity.info().attempt == 1:
            strange = RawValue(Payload(metadata={"encoding": ENCODING}, data=b"?"))
            raise ApplicationError("once", strange, type="Once")
        raise ApplicationError("twice", type="Twice", non_retryable=True)

    text = step(
        pipelines, "test.flaky", "args: [x]", more=f"retry: {{initial_interval: 1s}}, {undone('o')}"
    ).replace(f"task_queue: {pipelines.queue}", f"task_queue: {queue}")
    async with pipelines.worker(), asyncio.timeout(20):
        handle = await pipelines.start(pipelines.bundle(pipeline(text)))
        async with Worker(pipelines.client, task_queue=queue, activities=[flaky]):
            attempt = 1
            while attempt < 2:
                described = (await handle.describe()).raw_description.pending_activities
                attempt = max((pending.attempt for pending in described), default=1)
                await asyncio.sleep(0.02)
        async with pipeline_worker(pipelines.client, task_queue=queue, activities=[flaky]):
            cause, report = await failure(handle)
    assert isinstance(cause, ApplicationError)
    assert cause.type == "Twice"
    assert report is not None
    assert [(r.outcome, r.state) for r in report.undo] == [("uncertain", "undone")]


async def test_nothing_of_a_run_can_be_read_without_the_codec(
    encoded: Pipelines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "hunter2-correct-horse")

    @activity.defn(name="test.say")
    async def say(given: dict[str, str]) -> None:
        raise ApplicationError("visible message", {"visible": 1}, type="Said", non_retryable=True)

    bundle = encoded.bundle(
        pipeline(
            effect("a"),
            step(encoded, "test.say", "with: {visible: '{{ secrets.TOKEN }}'}", more="name: visible title"),
            head="secrets: [TOKEN]\n",
        )
    )
    async with encoded.worker(say):
        handle = await encoded.start(bundle)
        cause, report = await failure(handle)
    assert isinstance(cause, ApplicationError)
    assert cause.message == "visible title: visible message"
    assert report is not None
    assert [r.state for r in report.undo] == ["undone"]
    assert encoded.effects == ["do a", "undo a"]
    assert "visible" not in (await handle.fetch_history()).to_json()


async def test_the_same_id_with_the_same_inputs_is_the_same_run(encoded: Pipelines) -> None:
    """No two encodings of a payload are equal: what is compared is what they hold."""
    bundle = encoded.bundle(pipeline("  - {id: w, wait: 1h}\n", head="inputs: {n: {type: integer}}\n"))
    what = starting.Start(
        name="p",
        bundle=model.encode(bundle),
        inputs={"n": 1},
        workflow_id=encoded.queue,
        task_queue=encoded.queue,
    )
    first, new = await starting.start(encoded.client, what)
    again, also_new = await starting.start(encoded.client, what)
    assert (again.run_id, new, also_new) == (first.run_id, True, False)
    with pytest.raises(starting.ConflictError):
        await starting.start(encoded.client, dataclasses.replace(what, inputs={"n": 2}))
    await first.terminate()


async def test_a_follower_sees_titles_errors_progress_and_children(either: Pipelines) -> None:
    seen: list[Progress] = []
    beaten = asyncio.Event()

    @activity.defn(name="test.beat")
    async def beat(given: dict[str, str]) -> None:
        activity.heartbeat({"done": 1, "total": 2})
        await beaten.wait()
        raise ApplicationError("broke", type="Broke", non_retryable=True)

    bundle = either.bundle(
        pipeline(effect("a"), CHILD, FAIL), c=pipeline(step(either, "test.beat", more="name: the title"))
    )
    async with either.worker(beat), asyncio.timeout(20):
        handle = await either.start(bundle)
        async for event in Follower(either.client, handle.id, handle.result_run_id).events():
            if isinstance(event, Progress):
                seen.append(event)
                if event.details is not None:
                    beaten.set()
    assert [(p.path, p.name, p.state, p.error) for p in seen if p.path == "c/o" and p.details is None] == [
        ("c/o", "the title", "running", None),
        ("c/o", "the title", "failed", "broke"),
    ]
    assert {"done": 1, "total": 2} in [p.details for p in seen]
    assert ("c", "failed", "o: broke") in [
        (p.path, p.state, (p.error or "").replace("the title", "o")) for p in seen
    ]
    assert [(p.path, p.name, p.state) for p in seen if p.undo] == [
        ("a", "a", "running"),
        ("a", "a", "completed"),
    ]


async def test_results_of_children_and_continued_runs_go_through(encoded: Pipelines) -> None:
    bundle = encoded.bundle(
        pipeline(CHILD, "output: '{{ steps.c.output }}'\n"),
        c=pipeline("  - {id: s, set: {x: 1}}\n", "output: '{{ steps.s.output }}'\n"),
    )
    async with encoded.worker():
        assert await result_of(await encoded.start(bundle)) == {"x": 1}


async def test_a_run_waits_for_a_worker_that_has_its_codec(encoded: Pipelines, pipelines: Pipelines) -> None:
    """The arguments may be those of a continued run: ended here, what it had done would be forgotten."""
    bundle = encoded.bundle(pipeline("  - {id: s, set: {x: 1}}\n", "output: '{{ steps.s.output }}'\n"))
    handle = await encoded.start(bundle)
    async with (
        pipeline_worker(pipelines.client, task_queue=encoded.queue, activities=[]),
        asyncio.timeout(20),
    ):
        failed = None
        while failed is None:
            events = [event async for event in handle.fetch_history_events()]
            found = [e for e in events if e.HasField("workflow_task_failed_event_attributes")]
            failed = found[0].workflow_task_failed_event_attributes if found else None
    assert failed.failure.message.startswith(
        "the run's arguments are encoded: configure this worker with the codec"
    )
    async with encoded.worker(), asyncio.timeout(20):
        assert await result_of(handle) == {"x": 1}
