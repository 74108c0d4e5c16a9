"""An attempt's life signs: heartbeats while it works, and an end when its time is up.

The server gives up on an attempt after ``start_to_close``, but does not stop it: the
attempt would go on beside its own retry. So every attempt ends itself at that time. It
then waits a moment before it reports, so that the server's verdict stands: a timeout is an
outcome that is not known, an activity's own error would pass for one that is.

Imported by implementations only: it imports temporalio.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

from temporalio import activity
from temporalio.exceptions import ApplicationError, CancelledError

HEARTBEAT_EVERY = 2.0
"""Seconds; well below the heartbeat timeout that the catalogue gives these activities."""
REPORT_AFTER = 1.5
"""Seconds between an attempt's end and its report; a server's timers may be a second late."""


@asynccontextmanager
async def attempt() -> AsyncIterator[None]:
    """Heartbeat while the body runs, and cancel it when the attempt's time is up."""
    limit = activity.info().start_to_close_timeout
    beats = asyncio.create_task(_beat())
    try:
        async with asyncio.timeout(limit.total_seconds() if limit else None) as time_limit:
            yield
    except TimeoutError:
        if limit is None or not time_limit.expired():
            raise
        await asyncio.sleep(REPORT_AFTER)
        raise _too_late(limit) from None
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
            time.sleep(REPORT_AFTER)
            raise _too_late(limit)

    return beat


def _too_late(limit: timedelta) -> ApplicationError:
    return ApplicationError(
        f"not done within {limit.total_seconds():g} s (start_to_close)", type="StartToCloseTimeout"
    )
