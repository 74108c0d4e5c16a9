"""Ends attempts before the server gives them up, so that none runs beside its retry or its undo."""

import asyncio
import logging
import time
from collections.abc import Coroutine
from typing import Any

from temporalio import activity
from temporalio.exceptions import ApplicationError, CancelledError

from pipeline_runner.activities.toolkit import heartbeat
from pipeline_runner.core.errors import MARK

_log = logging.getLogger(__name__)


async def in_time(run: Coroutine[Any, Any, Any], until: heartbeat.Deadline | None, *, threaded: bool) -> Any:
    """Run an activity, and end it when its time is up.

    Args:
        run: The activity.
        until: When its time is up; None: there is no limit.
        threaded: It runs in a thread, which only the activity itself can stop.

    Raises:
        ApplicationError: Its time was up. The type is that of the server's timeout.
    """
    heartbeat.set_deadline(until)
    if until is None:
        return await run
    if time.monotonic() >= until.ask:  # the task arrived too late: nothing is started
        run.close()
        raise until.error()
    return await _Attempt(asyncio.ensure_future(run), until, threaded=threaded).result()


class _Attempt:
    def __init__(self, work: "asyncio.Future[Any]", until: heartbeat.Deadline, *, threaded: bool) -> None:
        self._work, self._until, self._threaded = work, until, threaded
        self._asked = False
        self._cancelled: asyncio.CancelledError | None = None

    async def result(self) -> Any:
        """Return the activity's result, or raise its error."""
        await self._over()
        failed = None if self._work.cancelled() else self._work.exception()
        if self._asked and (self._work.cancelled() or (failed is not None and not is_uncertain(failed))):
            raise self._until.error()
        if self._cancelled is not None and self._work.cancelled():
            raise self._cancelled
        return self._work.result()

    async def _over(self) -> None:
        """Wait until it has ended. Ask it to end when its time is up, and give it up at last."""
        while not self._work.done():
            ending = self._asked or self._cancelled is not None
            due = self._until.given_up if ending else self._until.ask
            try:
                await asyncio.wait({self._work}, timeout=due - time.monotonic())
            except asyncio.CancelledError as error:
                self._cancelled = error
                self._work.cancel()
                continue
            if self._work.done() or time.monotonic() < due:
                continue
            if ending:
                raise self._given_up()
            self._asked = True
            self._ask()

    def _ask(self) -> None:
        if not self._threaded:
            self._work.cancel()
            return
        # The exception with which the SDK ends a thread; None if the activity does not want it.
        shield = activity._Context.current().shield_thread_cancel_exception  # noqa: SLF001
        raiser = getattr(shield, "__self__", None)
        if raiser is not None:
            raiser.raise_in_thread(CancelledError)

    def _given_up(self) -> ApplicationError:
        name = activity.info().activity_type
        _log.warning("%s: the attempt timed out but did not stop, and may still be running", name)
        self._work.add_done_callback(lambda work: _tell_end(name, work))
        return self._until.error(going_on=True)


def _tell_end(name: str, work: "asyncio.Future[Any]") -> None:
    how = "cancelled" if work.cancelled() else "failed" if work.exception() else "completed"
    _log.warning("%s: an abandoned attempt has ended (%s)", name, how)


def is_uncertain(error: BaseException) -> bool:
    """Tell whether an activity's error itself says that the outcome is not known."""
    details = error.details if isinstance(error, ApplicationError) else ()
    return any(isinstance(detail, dict) and MARK in detail for detail in details)
