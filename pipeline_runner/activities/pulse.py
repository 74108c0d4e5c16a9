"""An attempt's life signs: heartbeats while it works, and an end when it is cancelled.

The server gives up on an attempt after ``start_to_close``, but does not stop it: the
attempt would go on beside its own retry, or its undo. The worker stops an async activity
at that time (``engine/interceptor.py``); a thread has to watch the time itself, here.

Imported by implementations only: it imports temporalio.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from temporalio import activity
from temporalio.exceptions import ApplicationError, CancelledError

from pipeline_runner.core.durations import spell
from pipeline_runner.core.errors import START_TO_CLOSE_TIMEOUT, UNCERTAIN

HEARTBEAT_EVERY = 2.0
"""Seconds; well below the heartbeat timeout that the catalogue gives these activities."""


@asynccontextmanager
async def heartbeating() -> AsyncIterator[None]:
    """Heartbeat while the body runs."""
    beats = asyncio.create_task(_beat())
    try:
        yield
    finally:
        beats.cancel()


async def _beat() -> None:
    while True:
        activity.heartbeat()
        await asyncio.sleep(HEARTBEAT_EVERY)


def pulse() -> Callable[[], None]:
    """Return what a synchronous activity calls between pieces of its work.

    The call heartbeats, and raises when the attempt was cancelled or its time is up.
    Outside an activity it does nothing.
    """
    if not activity.in_activity():
        return lambda: None
    started = time.monotonic()
    limit = activity.info().start_to_close_timeout

    def beat() -> None:
        activity.heartbeat()
        if activity.is_cancelled():
            raise CancelledError("Cancelled")
        if limit is not None and time.monotonic() - started > limit.total_seconds():
            raise too_late(limit.total_seconds())

    return beat


def too_late(seconds: float) -> ApplicationError:
    """Return the error of an attempt whose ``start_to_close`` has passed.

    Should it reach the server before the server's own timer does, it says the same: the
    outcome is not known.
    """
    message = f"no result within {spell(seconds)} (start_to_close)"
    return ApplicationError(message, UNCERTAIN, type=START_TO_CLOSE_TIMEOUT)
