"""The heartbeats of an attempt, and its end when it is cancelled or its time is up.

The server gives up an attempt after ``start_to_close`` or ``schedule_to_close``, but does not stop it:
the attempt would run beside its own retry or undo. The worker therefore ends it a little earlier, with
the error that the server would report. The worker stops an async activity (``engine/interceptor.py``);
an activity in a thread has to check the time itself, with :func:`pulse`.

::

    start of the attempt ────── ask ───────── last ──── given up ──── the server's timeout
                                 └── ENDING ───┘└──────── AHEAD ───────┘

Imports temporalio: for implementations only.
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
"""The maximum seconds between two heartbeats; at most a third of the heartbeat timeout."""
ENDING = 2.0
"""The maximum seconds that an attempt may take to end when its time is up; at most a tenth of the timeout."""
AHEAD = 1.0
"""The maximum seconds by which the worker is ahead of the server; at most a fifth of the timeout."""
_DELAY = 5.0
"""The maximum seconds that a task may have taken from the server to here. Clocks may differ."""

_OFTEN = 0.2
"""The seconds between two heartbeats with progress. The SDK sends fewer."""


class Heart:
    """Sends the heartbeats of an async activity."""

    def __init__(self) -> None:
        # The details of the previous attempt: a heartbeat without them would make the server forget them.
        self._details: tuple[Any, ...] = tuple(activity.info().heartbeat_details)
        self._last = 0.0

    def tell(self, details: Any) -> None:
        """Send a heartbeat with details, which are JSON data and shown in the live view."""
        self._details = (details,)
        if time.monotonic() - self._last >= _OFTEN:
            self.beat()

    def beat(self) -> None:
        """Send a heartbeat with the last details."""
        self._last = time.monotonic()
        activity.heartbeat(*self._details)

    async def remember(self, details: Any) -> None:
        """Save details on the server for later attempts, before anything is done.

        An ordinary heartbeat takes a while, and is lost with its worker. This one has arrived when the
        call returns. Read the details with :func:`remembered`.
        """
        self.tell(details)
        try:
            client = activity.client()
        except RuntimeError:  # a test without a server: there is no later attempt
            return
        handle = client.get_async_activity_handle(task_token=activity.info().task_token)
        try:
            await handle.heartbeat(masked(details, in_use.get()))
        except AsyncActivityCancelledError:
            # It has arrived, and the response reports a cancellation; the worker learns of it in the ordinary
            # way.
            self.beat()
            async with asyncio.timeout(HEARTBEAT_EVERY):
                await activity.wait_for_cancelled()


def remembered() -> Any:
    """Return the last details of the previous attempts, or None."""
    details = activity.info().heartbeat_details
    return details[0] if details else None


@asynccontextmanager
async def heartbeating() -> AsyncIterator[Heart]:
    """Send heartbeats while the body runs."""
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
    """When an attempt must end, in the time of ``time.monotonic()``."""

    seconds: float
    """The timeout that was set."""
    kind: str
    """The error type of an attempt that exceeds it."""
    ask: float
    """When the attempt is asked to end."""
    last: float
    """When an attempt that has not ended is killed."""
    given_up: float
    """When the worker stops waiting for it: the server's timeout is near."""

    def error(self, *, going_on: bool = False) -> ApplicationError:
        """Return the error of an attempt whose time is up, which is the one that the server would report.

        Args:
            going_on: The attempt could not be stopped.
        """
        message = {
            START_TO_CLOSE_TIMEOUT: f"no result within {spell(self.seconds)} (start_to_close)",
            SCHEDULE_TO_CLOSE_TIMEOUT: f"not completed within {spell(self.seconds)}, including retries"
            " (schedule_to_close)",
        }[self.kind]
        more = "; the attempt cannot be stopped and may still run" if going_on else ""
        # A retry would begin after the time for all attempts is over, so there is none, as after the server's
        # own timeout. "Not retryable" would mean that enclosing blocks are not retried either.
        delay = timedelta(seconds=self.seconds) if self.kind == SCHEDULE_TO_CLOSE_TIMEOUT else None
        return ApplicationError(message + more, UNCERTAIN, type=self.kind, next_retry_delay=delay)


def deadline() -> Deadline | None:
    """Return when the current attempt, which begins now, must end, or None if there is no limit."""
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
    """Set when the current attempt must end. Only the worker and tests call this."""
    _deadline.set(value)


def time_left(longest: float) -> float:
    """Return how many seconds the current attempt may take to end, if it is asked to end now."""
    until = _deadline.get()
    return longest if until is None else max(0.0, min(longest, until.last - time.monotonic()))


def pulse() -> Callable[[], None]:
    """Return a function that a synchronous activity calls between pieces of its work.

    The function sends a heartbeat, and raises an error if the attempt was cancelled or its time is up.
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
