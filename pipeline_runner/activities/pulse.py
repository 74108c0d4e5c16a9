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
from typing import Any

from temporalio import activity
from temporalio.client import AsyncActivityCancelledError
from temporalio.exceptions import ApplicationError, CancelledError

from pipeline_runner.activities.secret_values import in_use, masked
from pipeline_runner.core.durations import spell
from pipeline_runner.core.errors import START_TO_CLOSE_TIMEOUT, UNCERTAIN

HEARTBEAT_EVERY = 2.0
"""Seconds; well below the heartbeat timeout that the catalogue gives these activities."""


_OFTEN = 0.2
"""Seconds between two heartbeats that tell of progress; the SDK sends even fewer."""


class Heart:
    """What an async activity says of itself while it works."""

    def __init__(self) -> None:
        # What the attempt before told: a heartbeat without it would have the server forget it.
        self._details: tuple[Any, ...] = tuple(activity.info().heartbeat_details)
        self._last = 0.0

    def tell(self, details: Any) -> None:
        """Heartbeat with details, JSON data, which the live view shows."""
        self._details = (details,)
        if time.monotonic() - self._last >= _OFTEN:
            self.beat()

    def beat(self) -> None:
        """Heartbeat with what was told last."""
        self._last = time.monotonic()
        activity.heartbeat(*self._details)

    async def remember(self, details: Any) -> None:
        """Have the server keep details for the attempts after this one, before anything is done.

        An ordinary heartbeat is on its way for a while, and is lost with its worker; this
        one has arrived when the call returns. Read it with :func:`remembered`.
        """
        self.tell(details)
        try:
            client = activity.client()
        except RuntimeError:  # a test without a server: nobody is going to ask
            return
        handle = client.get_async_activity_handle(task_token=activity.info().task_token)
        try:
            await handle.heartbeat(masked(details, in_use.get()))
        except AsyncActivityCancelledError:
            # It has arrived, and says so in passing; the worker hears of it the ordinary way.
            self.beat()
            async with asyncio.timeout(HEARTBEAT_EVERY):
                await activity.wait_for_cancelled()


def remembered() -> Any:
    """Return what an attempt before this one told last; None: nothing."""
    details = activity.info().heartbeat_details
    return details[0] if details else None


@asynccontextmanager
async def heartbeating() -> AsyncIterator[Heart]:
    """Heartbeat while the body runs."""
    heart = Heart()
    beats = asyncio.create_task(_beat(heart))
    try:
        yield heart
    finally:
        beats.cancel()


async def _beat(heart: Heart) -> None:
    while True:
        heart.beat()
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
