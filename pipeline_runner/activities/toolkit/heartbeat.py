"""An attempt's life signs: heartbeats while it works, and an end when it is cancelled.

The server gives up on an attempt after ``start_to_close`` or ``schedule_to_close``, but does
not stop it: the attempt would go on beside its own retry, or its undo. So the worker ends it
itself, a little earlier, and says what the server would have said. It stops an async activity
(``engine/interceptor.py``); a thread has to watch the time itself, here.

::

    start of the attempt ────── ask ───────── last ──── given up ──── the server's timeout
                                 └── ENDING ───┘└──────── AHEAD ───────┘

Imported by implementations only: it imports temporalio.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from temporalio import activity
from temporalio.client import AsyncActivityCancelledError
from temporalio.exceptions import ApplicationError, CancelledError

from pipeline_runner.activities.toolkit.secret_values import in_use, masked
from pipeline_runner.core.durations import spell
from pipeline_runner.core.errors import SCHEDULE_TO_CLOSE_TIMEOUT, START_TO_CLOSE_TIMEOUT, UNCERTAIN

HEARTBEAT_EVERY = 2.0
"""Seconds between two heartbeats, at most; a third of a short heartbeat timeout."""
ENDING = 2.0
"""Seconds, at most, that an attempt may take to end when its time is up; a tenth of a short timeout."""
AHEAD = 1.0
"""Seconds, at most, by which the worker is ahead of the server; a fifth of a short timeout."""
_DELAY = 5.0
"""Seconds, at most, that a task took from the server to here; clocks may differ, so no more is believed."""

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
    every = heartbeat_every()
    while True:
        heart.beat()
        await asyncio.sleep(every)


def heartbeat_every() -> float:
    """Return the seconds between two heartbeats of the current attempt."""
    timeout = activity.info().heartbeat_timeout
    return min(HEARTBEAT_EVERY, timeout.total_seconds() / 3) if timeout else HEARTBEAT_EVERY


@dataclass(frozen=True, kw_only=True)
class Deadline:
    """When an attempt is to end, in the time of ``time.monotonic()``."""

    seconds: float
    """The limit that was set."""
    kind: str
    """The error type of what passes it."""
    ask: float
    """From then on it is to end."""
    last: float
    """What has not ended by itself by then is killed."""
    given_up: float
    """If it is not over by then, nobody waits for it: the server's timeout is near."""

    def error(self, *, going_on: bool = False) -> ApplicationError:
        """Return the error of an attempt whose time is up, which says what the server would say.

        Args:
            going_on: It could not be stopped.
        """
        message = {
            START_TO_CLOSE_TIMEOUT: f"no result within {spell(self.seconds)} (start_to_close)",
            SCHEDULE_TO_CLOSE_TIMEOUT: f"not completed within {spell(self.seconds)}, including retries"
            " (schedule_to_close)",
        }[self.kind]
        more = "; the attempt cannot be stopped and may still run" if going_on else ""
        # A retry would begin when the time of all attempts is over: then there is none, as after the
        # server's own timeout. "Not retryable" would say that what is around the step is not either.
        delay = timedelta(seconds=self.seconds) if self.kind == SCHEDULE_TO_CLOSE_TIMEOUT else None
        return ApplicationError(message + more, UNCERTAIN, type=self.kind, next_retry_delay=delay)


def deadline() -> Deadline | None:
    """Return when the current attempt, which begins now, is to end; None: it may take any time."""
    info = activity.info()
    limits = []
    if info.schedule_to_close_timeout:
        limit = info.schedule_to_close_timeout.total_seconds()
        waited = (info.started_time - info.scheduled_time).total_seconds()
        limits.append((limit - waited, limit, SCHEDULE_TO_CLOSE_TIMEOUT))
    if info.start_to_close_timeout:
        limit = info.start_to_close_timeout.total_seconds()
        limits.append((limit, limit, START_TO_CLOSE_TIMEOUT))
    if not limits:
        return None
    left, limit, kind = min(limits)
    delay = (datetime.now(UTC) - info.started_time).total_seconds()
    end = time.monotonic() + left - min(max(delay, 0), _DELAY, left / 4)
    ahead = min(AHEAD, left / 5)
    return Deadline(
        seconds=limit,
        kind=kind,
        ask=end - ahead - min(ENDING, left / 10),
        last=end - ahead,
        given_up=end - ahead / 2,
    )


_deadline: ContextVar[Deadline | None] = ContextVar("pipeline_runner_deadline", default=None)


def set_deadline(value: Deadline | None) -> None:
    """Set when the current attempt is to end. The worker does this; tests may."""
    _deadline.set(value)


def time_left(longest: float) -> float:
    """Return how many seconds the end of the current attempt may take, if it is to end now."""
    until = _deadline.get()
    return longest if until is None else max(0.0, min(longest, until.last - time.monotonic()))


def pulse() -> Callable[[], None]:
    """Return what a synchronous activity calls between pieces of its work.

    The call heartbeats, and raises when the attempt was cancelled or its time is up.
    Outside an activity it does nothing.
    """
    if not activity.in_activity():
        return lambda: None
    until = _deadline.get() or deadline()

    def beat() -> None:
        activity.heartbeat()
        if activity.is_cancelled():
            raise CancelledError("Cancelled")
        if until is not None and time.monotonic() > until.ask:
            raise until.error()

    return beat
