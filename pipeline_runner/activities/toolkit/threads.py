"""Blocking calls of async activities: each runs in its own thread, which can be abandoned.

A blocking call of a library cannot be stopped from outside. When its activity is cancelled, or its time
is up, the activity ends at once and the thread continues alone. If the call then still creates
something, ``late`` receives and removes it. The threads are daemons, so none of them delays the end of
the process. Imports no temporalio.
"""

import asyncio
import contextvars
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")

PATIENCE = 10.0
"""Seconds that a cancelled activity waits for a call that changes something on this machine."""
_LOOK = 0.01

_log = logging.getLogger(__name__)


async def in_thread(
    call: Callable[[], T], *, late: Callable[[T], object] | None = None, patience: float = 0.0
) -> T:
    """Run a blocking call, and return its result.

    Args:
        call: The call. It sees the context variables of the caller.
        late: Receives the result if nobody waits for it any more. It also runs in a thread.
        patience: Seconds that a cancelled caller waits for the end of a call that must not run beside a
            retry or an undo.
    """
    under_way = _Call(call, late)
    _start(under_way.work)
    try:
        return await under_way.done
    except asyncio.CancelledError:
        await under_way.end(patience)
        under_way.leave()
        raise


class _Call(Generic[T]):
    """A call in a thread, and the coroutine that waits for its result."""

    def __init__(self, call: Callable[[], T], late: Callable[[T], object] | None) -> None:
        self._call, self._late = call, late
        self._loop = asyncio.get_running_loop()
        self.done: asyncio.Future[T] = self._loop.create_future()
        self.over = threading.Event()
        """Set when the thread has done its work."""

    def work(self) -> None:
        """Run the call, in the thread."""
        try:
            self._work()
        finally:
            self.over.set()

    def _work(self) -> None:
        try:
            result = self._call()
        except BaseException as error:  # noqa: BLE001 - passed on to the caller
            with suppress(RuntimeError):  # the loop is closed: nobody waits
                self._loop.call_soon_threadsafe(self._fail, error)
            return
        try:
            self._loop.call_soon_threadsafe(self._settle, result)
        except RuntimeError:  # the same
            self._clean_up(result)

    async def end(self, patience: float) -> None:
        """Wait for the end of the call for a limited time."""
        until = time.monotonic() + patience
        while patience > 0 and not self.over.is_set():
            if time.monotonic() > until:
                _log.warning("a call of a cancelled activity goes on: it did not end within %.1f s", patience)
                return
            await asyncio.sleep(_LOOK)

    def leave(self) -> None:
        """Remove a result that arrived together with the cancellation of the caller."""
        if self.done.done() and not self.done.cancelled() and self.done.exception() is None:
            self._drop(self.done.result())

    def _settle(self, result: T) -> None:
        if self.done.cancelled():
            self._drop(result)
        else:
            self.done.set_result(result)

    def _fail(self, error: BaseException) -> None:
        if not self.done.cancelled():
            self.done.set_exception(error)

    def _drop(self, result: T) -> None:
        _start(lambda: self._clean_up(result))

    def _clean_up(self, result: T) -> None:
        if self._late is None:
            return
        try:
            self._late(result)
        except Exception:  # noqa: BLE001 - logged, because there is no caller to raise it to
            _log.exception("what a cancelled activity brought about could not be removed")


def _start(work: Callable[[], None]) -> None:
    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(work,), name="blocking-call", daemon=True).start()
