"""What ends a run's forward work from outside: a cancellation, or the pipeline's deadline.

The workflow's primary task only supervises (see ``interpreter.py``). The work runs in a
task of its own that nobody ever cancels, so that a cancellation cannot land on an
arbitrary ``await``. Instead the activities, children and timers in flight are cancelled
here, one by one, and the work learns how each of them really ended before it goes on.
"""

import asyncio
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.exceptions import FailureError

from pipeline_runner.core.state import RunStatus

T = TypeVar("T")

_PATCH = "finally is not interrupted"
"""In runs that were open before, an interruption that came together with a failure cancelled a step there."""


class Interrupted(Exception):
    """The forward work was ended from outside."""

    def __init__(self, status: RunStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


class Interruption:
    """Ends the forward work of one run, once."""

    def __init__(self) -> None:
        self._reason: Interrupted | None = None
        self._closed = False
        # A dict, since the order in which a set is walked is not the same on replay.
        self._in_flight: dict[asyncio.Future[Any], str | None] = {}
        # Kept, since the event loop holds tasks weakly.
        self._cancelling: list[asyncio.Task[None]] = []

    async def request(self, reason: Interrupted) -> None:
        """End the forward work, unless it is over or being ended already."""
        if self._closed or self._reason is not None:
            return
        self._reason = reason
        # A result that arrived in the same activation still has to reach its task: to cancel
        # the handle now would lose it (the SDK raises CancelledError over a finished future).
        # Conditions are looked at when every task has run as far as it can.
        await workflow.wait_condition(lambda: True)
        if self._closed and workflow.patched(_PATCH):
            # It ended meanwhile: what is in flight now belongs to ``finally``.
            return
        for handle, child in list(self._in_flight.items()):
            if not handle.done():
                self._cancel(handle, child)

    def _cancel(self, handle: "asyncio.Future[Any]", child: str | None) -> None:
        if child is None:
            handle.cancel()
        else:
            # Its handle would cancel the child's first run, and it may have gone on in a new one.
            self._cancelling.append(asyncio.create_task(_cancel_newest(child)))

    @property
    def requested(self) -> bool:
        """Whether the forward work is to end."""
        return self._reason is not None and not self._closed

    def check(self) -> None:
        """Raise :class:`Interrupted` if the forward work is to end."""
        if self._reason is not None and not self._closed:
            raise self._reason

    def close(self) -> None:
        """Say that the forward work is over: nothing interrupts what comes now."""
        self._closed = True

    async def wait(self, handle: "asyncio.Future[T]", child: str | None = None) -> T:
        """Wait for something in flight, which an interruption cancels; ``child``: its workflow id.

        Returns:
            Its result, also when it completed although it was cancelled.

        Raises:
            Interrupted: A timer was cancelled. Activities and children raise their own error.
        """
        if self.requested:
            self._cancel(handle, child)
        self._in_flight[handle] = child
        try:
            return await handle
        except asyncio.CancelledError:
            self.check()
            raise
        finally:
            del self._in_flight[handle]


async def _cancel_newest(child: str) -> None:
    try:
        await workflow.get_external_workflow_handle(child).cancel()
    except FailureError as error:
        workflow.logger.info("the child %s has ended: %s", child, error.message)
