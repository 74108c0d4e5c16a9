"""Blocking calls: what they return, and what becomes of those that nobody waits for."""

import asyncio
import logging
import threading
import time
from contextvars import ContextVar

import pytest

from pipeline_runner.activities.toolkit.threads import in_thread

_name: ContextVar[str] = ContextVar("name")


async def test_a_call_runs_in_a_thread_with_the_callers_context() -> None:
    _name.set("caller")
    assert await in_thread(lambda: (_name.get(), threading.current_thread().daemon)) == ("caller", True)


async def test_a_call_raises_what_it_raises() -> None:
    def fail() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError, match="x"):
        await in_thread(fail)


async def test_a_cancelled_call_is_left_at_once_and_its_result_is_removed() -> None:
    """The call cannot be stopped; what it brings about is not kept."""
    release, removed, late = threading.Event(), threading.Event(), []

    def work() -> str:
        release.wait(10)
        return "made"

    def remove(result: str) -> None:
        late.append(result)
        removed.set()

    task = asyncio.create_task(in_thread(work, late=remove))
    await asyncio.sleep(0.05)
    began = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - began < 0.5
    assert late == []
    release.set()
    assert await asyncio.to_thread(removed.wait, 5)
    assert late == ["made"]


async def test_a_result_that_comes_with_the_cancellation_is_removed() -> None:
    """It is there, but the caller is cancelled before it has seen it."""
    removed = threading.Event()
    loop = asyncio.get_running_loop()

    def work() -> str:
        # Queued before the result is, so that the cancellation comes right behind it.
        loop.call_soon_threadsafe(lambda: loop.call_soon(task.cancel))
        return "made"

    task = asyncio.create_task(in_thread(work, late=lambda _: removed.set()))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(removed.wait, 5)


async def test_nothing_is_removed_when_the_result_arrived() -> None:
    late: list[int] = []
    assert await in_thread(lambda: 1, late=late.append) == 1
    await asyncio.sleep(0.05)
    assert late == []


def test_a_result_after_the_end_of_the_loop_is_removed() -> None:
    release, removed = threading.Event(), threading.Event()

    def work() -> None:
        release.wait(10)

    async def leave() -> None:
        task = asyncio.create_task(in_thread(work, late=lambda _: removed.set()))
        await asyncio.sleep(0.05)
        task.cancel()

    asyncio.run(leave())
    release.set()
    assert removed.wait(5)


async def test_a_removal_that_fails_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """There is nobody to raise it to."""
    release = threading.Event()

    def remove(_: object) -> None:
        raise OSError("the Engine is gone")

    task = asyncio.create_task(in_thread(lambda: release.wait(10), late=remove))
    await asyncio.sleep(0.05)
    task.cancel()
    with caplog.at_level(logging.ERROR):
        release.set()
        async with asyncio.timeout(5):
            while not caplog.records:
                await asyncio.sleep(0.01)
    assert caplog.records[0].message == "what a cancelled activity brought about could not be removed"
    assert "the Engine is gone" in caplog.text


async def test_a_call_that_must_not_go_on_is_waited_for() -> None:
    """A copy for an undo, say, which would come after the undo."""
    release, order = threading.Event(), []

    def work() -> None:
        release.wait(10)
        order.append("over")

    task = asyncio.create_task(in_thread(work, patience=10))
    await asyncio.sleep(0.05)
    task.cancel()
    asyncio.get_running_loop().call_later(0.1, release.set)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert order == ["over"]


async def test_but_not_for_ever(caplog: pytest.LogCaptureFixture) -> None:
    release = threading.Event()
    task = asyncio.create_task(in_thread(lambda: release.wait(10), patience=0.1))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    release.set()
    assert "a call of a cancelled activity goes on: it did not end within 0.1 s" in caplog.text
