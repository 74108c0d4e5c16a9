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
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_log = logging.getLogger(__name__)


async def in_thread(call: Callable[[], T], *, late: Callable[[T], object] | None = None) -> T:
    """Run a blocking call, and return what it returns.

    Args:
        call: What to run. It sees the context variables of the caller.
        late: What to do with the result when nobody waits for it any more, in a thread too.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if not done.cancelled():
            if error is not None:
                done.set_exception(error)
            else:
                done.set_result(result)  # type: ignore[arg-type]  # without an error it is a T
        elif error is None and late is not None:
            _start(lambda: _clean_up(late, result))

    def work() -> None:
        result, failure = None, None
        try:
            result = call()
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits
            failure = error
        try:
            loop.call_soon_threadsafe(settle, result, failure)
        except RuntimeError:  # the loop is closed: nobody waits
            if failure is None and late is not None:
                _clean_up(late, result)

    _start(work)
    return await done


def _start(work: Callable[[], None]) -> None:
    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(work,), name="blocking-call", daemon=True).start()


def _clean_up(late: Callable[[T], object], result: T | None) -> None:
    try:
        late(result)  # type: ignore[arg-type]  # the call succeeded: it is a T
    except Exception:  # noqa: BLE001 - told, and there is nobody to raise it to
        _log.exception("what a cancelled activity brought about could not be removed")
