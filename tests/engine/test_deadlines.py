"""While the worker lives, an attempt has ended before its retry or the step's undo begins."""

import asyncio
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio import activity
from temporalio.client import WorkflowHandle
from temporalio.exceptions import ApplicationError

from pipeline_runner.activities import shell
from pipeline_runner.activities.toolkit.heartbeat import heartbeating
from pipeline_runner.core.model import Bundle
from pipeline_runner.engine.worker import SLOTS
from tests.conftest import Pipelines, result_of
from tests.engine.test_undo import eventually, failure

Held = Callable[..., Bundle]

PROGRAM = """
name: program
steps:
  - id: write
    activity: shell.run
    timeouts: TIMEOUTS
    retry: {maximum_attempts: ATTEMPTS, initial_interval: 1ms}
    with: {cwd: ROOT, command: [bash, -c, "CODE"]}
    compensate: {activity: shell.run, with: {cwd: ROOT, command: [sh, -c, 'LOOK; echo undo >> order']}}
"""
LOOK = "kill -0 $(cat pid) 2>/dev/null && echo beside >> order"
CODES = {
    "ends late": "trap 'sleep 0.05; echo late >> order; exit 1' TERM",
    "is deaf": "trap '' TERM",
    "left its group": "setsid sleep 600 & echo $! > pid; trap '' TERM",
}


def program(root: Path, code: str, timeouts: str, attempts: int = 1) -> str:
    whole = f"test -f pid && {LOOK}; echo $$ > pid; {CODES[code]}; echo begin >> order; while :; do sleep 0.02; done"
    text = PROGRAM.replace("CODE", whole).replace("LOOK", LOOK).replace("ROOT", str(root))
    return text.replace("TIMEOUTS", timeouts).replace("ATTEMPTS", str(attempts))


_BEFORE = tuple(f"activity_task_{what}" for what in ("scheduled", "started", "cancel_requested"))


async def ends(handle: WorkflowHandle[Any, Any]) -> list[str]:
    """Return how activities ended in a history, and by whom: ``failed`` is the worker's word."""
    kinds = [event.WhichOneof("attributes") async for event in handle.fetch_history_events()]
    return [
        kind.removeprefix("activity_task_").removesuffix("_event_attributes")
        for kind in kinds
        if kind and kind.startswith("activity_task_") and not kind.startswith(_BEFORE)
    ]


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("attempts", [1, 3])
async def test_a_program_has_ended_before_its_retry_and_its_undo(
    pipelines: Pipelines, tmp_path: Path, code: str, attempts: int
) -> None:
    bundle = pipelines.bundle(program(tmp_path, code, "{start_to_close: 500ms}", attempts))
    async with pipelines.worker(shell.run):
        handle = await pipelines.start(bundle)
        cause, report = await failure(handle)
    assert isinstance(cause, ApplicationError)
    assert (cause.type, cause.message) == (
        "StartToCloseTimeout",
        "write: no result within 500ms (start_to_close)",
    )
    assert report is not None
    assert [(r.outcome, r.state) for r in report.undo] == [("uncertain", "undone")]
    order = (tmp_path / "order").read_text().split()
    assert [one for one in order if one != "late"] == [*["begin"] * attempts, "undo"]
    assert order[-1] == "undo"
    assert await ends(handle) == ["failed", "completed"]


async def test_the_limit_of_all_attempts_counts_too(pipelines: Pipelines, tmp_path: Path) -> None:
    """The second attempt has what the first one left; there is no third."""
    timeouts = "{start_to_close: 1500ms, schedule_to_close: 2500ms}"
    bundle = pipelines.bundle(program(tmp_path, "is deaf", timeouts, 5))
    async with pipelines.worker(shell.run):
        cause, report = await failure(await pipelines.start(bundle))
    assert isinstance(cause, ApplicationError)
    assert cause.type == "ScheduleToCloseTimeout"
    assert cause.message == "write: not completed within 2s500ms, including retries (schedule_to_close)"
    assert report is not None
    assert [(r.outcome, r.state) for r in report.undo] == [("uncertain", "undone")]
    assert (tmp_path / "order").read_text().split() == ["begin", "begin", "undo"]


async def test_a_timeout_can_still_be_excluded_from_retries(pipelines: Pipelines, tmp_path: Path) -> None:
    text = program(tmp_path, "is deaf", "{start_to_close: 300ms}", 5)
    text = text.replace("retry: {", "retry: {non_retryable_error_types: [StartToCloseTimeout], ")
    async with pipelines.worker(shell.run):
        await failure(await pipelines.start(pipelines.bundle(text)))
    assert (tmp_path / "order").read_text().split() == ["begin", "undo"]


async def test_a_cancellation_near_the_timeout_ends_before_it(pipelines: Pipelines, tmp_path: Path) -> None:
    """The grace of two seconds would go beyond."""
    bundle = pipelines.bundle(program(tmp_path, "is deaf", "{start_to_close: 2s}"))
    async with pipelines.worker(shell.run):
        handle = await pipelines.start(bundle)
        await eventually((tmp_path / "order").exists)
        await handle.cancel()
        await failure(handle)
    assert (tmp_path / "order").read_text().split() == ["begin", "undo"]
    assert (await ends(handle))[0] == "canceled"


HELD = """
name: held
steps:
  - id: a
    activity: test.hold
    timeouts: {start_to_close: 500ms}
    retry: {maximum_attempts: 1}
    compensate: {activity: effect.undo, with: {log: LOG, name: a}}
"""

GOES_ON = "a: no result within 500ms (start_to_close); the attempt cannot be stopped and may still run"


@pytest.fixture
def held(pipelines: Pipelines) -> Callable[..., Bundle]:
    """Load the pipeline of one step, with replacements in its text."""
    (pipelines.folder / "activities.yaml").write_text("activities: {test.hold: {}}\n")

    def load(*replacements: tuple[str, str]) -> Bundle:
        text = HELD + 'output: "{{ steps.a.output }}"\n'
        for old, new in replacements:
            text = text.replace(old, new)
        return pipelines.bundle(text)

    return load


async def test_a_thread_that_cannot_be_stopped_is_told(
    pipelines: Pipelines, held: Held, caplog: pytest.LogCaptureFixture
) -> None:
    """It waits in a call, so that nothing can be raised in it."""
    release = threading.Event()

    @activity.defn(name="test.hold")
    def hold() -> None:
        release.wait(20)

    try:
        async with pipelines.worker(hold):
            handle = await pipelines.start(held())
            cause, report = await failure(handle)
            release.set()
            await eventually(lambda: "an abandoned attempt has ended" in caplog.text)
    finally:
        release.set()
    assert isinstance(cause, ApplicationError)
    assert (cause.type, cause.message) == ("StartToCloseTimeout", GOES_ON)
    assert report is not None
    assert [(r.outcome, r.state) for r in report.undo] == [("uncertain", "undone")]
    assert await ends(handle) == ["failed", "completed"]


async def test_a_thread_that_runs_python_is_stopped(pipelines: Pipelines, held: Held) -> None:
    """As at a cancellation, an exception is raised in it."""
    order: list[str] = []

    @activity.defn(name="test.hold")
    def hold() -> None:
        end = time.monotonic() + 20
        try:
            while time.monotonic() < end:
                time.sleep(0.01)
        finally:
            order.append("ended")

    async with pipelines.worker(hold):
        cause, _ = await failure(await pipelines.start(held()))
        order.append("undone")
    assert isinstance(cause, ApplicationError)
    assert cause.message == "a: no result within 500ms (start_to_close)"
    assert order == ["ended", "undone"]


async def test_a_coroutine_may_clean_up_but_not_for_ever(pipelines: Pipelines, held: Held) -> None:
    order: list[str] = []
    release = asyncio.Event()

    @activity.defn(name="test.hold")
    async def hold(stay: bool) -> None:
        try:
            await asyncio.sleep(20)
        finally:
            await asyncio.sleep(0.03)
            if stay:
                await release.wait()
            order.append("ended")

    async with pipelines.worker(hold):
        bundle = held(("test.hold", "test.hold\n    args: [false]"))
        cause, _ = await failure(await pipelines.start(bundle))
        assert isinstance(cause, ApplicationError)
        assert cause.message == "a: no result within 500ms (start_to_close)"
        assert order == ["ended"]
        bundle = held(("test.hold", "test.hold\n    args: [true]"))
        cause, _ = await failure(await pipelines.start(bundle))
        assert isinstance(cause, ApplicationError)
        assert cause.message == GOES_ON
        release.set()
        await eventually(lambda: order == ["ended", "ended"])


async def test_an_attempt_that_ends_just_when_it_is_asked_to_counts(pipelines: Pipelines, held: Held) -> None:
    """What it returns has been done; nothing is to be undone."""

    @activity.defn(name="test.hold")
    async def hold() -> str:
        try:
            await asyncio.sleep(20)
        except asyncio.CancelledError:
            return "done"
        return "never"

    async with pipelines.worker(hold):
        assert await result_of(await pipelines.start(held())) == "done"


@pytest.mark.parametrize("timeout", ["300ms", "1s", "2s"])
async def test_a_short_heartbeat_timeout_does_not_fail_what_is_alive(
    pipelines: Pipelines, held: Held, timeout: str
) -> None:
    """The pulse follows the timeout, and so does the SDK, which holds heartbeats back."""
    alive = 2.5 if timeout == "2s" else 1.5

    @activity.defn(name="test.hold")
    async def hold() -> int:
        async with heartbeating():
            await asyncio.sleep(alive)
        return activity.info().attempt

    bundle = held(("{start_to_close: 500ms}", f"{{heartbeat: {timeout}}}"))
    async with pipelines.worker(hold):
        assert await result_of(await pipelines.start(bundle)) == 1


@pytest.mark.parametrize("slots", [None, 3])
async def test_every_activity_that_a_worker_takes_has_a_thread(
    pipelines: Pipelines, slots: int | None
) -> None:
    """One that waited for a thread would run out of time without having begun."""
    number = slots or SLOTS
    barrier = threading.Barrier(number)

    @activity.defn(name="test.meet")
    def meet() -> None:
        barrier.wait(20)

    settings: dict[str, Any] = {} if slots is None else {"max_concurrent_activities": slots}
    queue = pipelines.queue
    async with pipelines.worker(meet, **settings):
        async with asyncio.timeout(30):
            await asyncio.gather(
                *(
                    pipelines.client.execute_activity(
                        "test.meet",
                        id=f"{queue}-{n}",
                        task_queue=queue,
                        start_to_close_timeout=timedelta(seconds=30),
                    )
                    for n in range(number)
                )
            )
