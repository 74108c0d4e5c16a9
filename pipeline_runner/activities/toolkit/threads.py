"""Blocking calls of async activities: each in a thread of its own, which can be left behind.

A call of a library that blocks cannot be stopped from outside. When its activity is
cancelled, or its time is up, the activity ends at once and the thread goes on alone; what
the call then still brings about is handed to ``late``, which removes it. The threads are
daemons: none of them delays the end of the process. Imports no temporalio.
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
    """Run a blocking call, and return what it returns.

    Args:
        call: What to run. It sees the context variables of the caller.
        late: What to do with the result when nobody waits for it any more, in a thread too.
        patience: Seconds that a cancelled caller waits for the end of a call which must not
            go on beside a retry or an undo.
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
    """A call in a thread, and who waits for its result."""

    def __init__(self, call: Callable[[], T], late: Callable[[T], object] | None) -> None:
        self._call, self._late = call, late
        self._loop = asyncio.get_running_loop()
        self.done: asyncio.Future[T] = self._loop.create_future()
        self.over = threading.Event()
        """The thread has done its work."""

    def work(self) -> None:
        """Run the call; this is the thread."""
        try:
            self._work()
        finally:
            self.over.set()

    def _work(self) -> None:
        try:
            result = self._call()
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits
            with suppress(RuntimeError):  # the loop is closed: nobody waits
                self._loop.call_soon_threadsafe(self._fail, error)
            return
        try:
            self._loop.call_soon_threadsafe(self._settle, result)
        except RuntimeError:  # the same
            self._clean_up(result)

    async def end(self, patience: float) -> None:
        """Wait for the end of the call, but not for ever."""
        until = time.monotonic() + patience
        while patience > 0 and not self.over.is_set():
            if time.monotonic() > until:
                _log.warning("a call of a cancelled activity goes on: it did not end within %.1f s", patience)
                return
            await asyncio.sleep(_LOOK)

    def leave(self) -> None:
        """Have a result removed that came at the same time as the cancellation of who waits."""
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
        except Exception:  # noqa: BLE001 - told, and there is nobody to raise it to
            _log.exception("what a cancelled activity brought about could not be removed")


def _start(work: Callable[[], None]) -> None:
    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(work,), name="blocking-call", daemon=True).start()
