"""Ends work from outside: a cancellation, the pipeline's deadline, or the failure of a sibling.

The workflow's primary task only supervises (see ``interpreter.py``). The work runs in tasks that are
never cancelled, so that a cancellation cannot reach an arbitrary ``await``. Instead, the open
activities, children and timers are cancelled here, one by one, and the work learns how each of them
really ended before it continues.
"""

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from temporalio import workflow
from temporalio.exceptions import FailureError

from pipeline_runner.core.state import RunStatus

if TYPE_CHECKING:
    from datetime import datetime

T = TypeVar("T")

_PATCH = "finally is not interrupted"
"""Earlier versions cancelled a step of ``finally`` if an interruption came together with a failure."""


class Interrupted(Exception):
    """The forward work was ended from outside."""

    def __init__(self, status: RunStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


class CancelScope:
    """Cancels some of the forward work of a run, once: its own, and that of the scopes inside it."""

    def __init__(
        self, parent: "CancelScope | None" = None, *, limit: "tuple[datetime, Interrupted] | None" = None
    ) -> None:
        """Open a scope.

        Args:
            parent: The scope around it.
            limit: A time, from which on nothing begins in here, and the reason. A request cancels what is
                running then.
        """
        self._parent = parent
        self._limit = limit
        self._reason: Interrupted | None = None
        self._closed = False
        # Dicts, because the iteration order of a set differs in a replay.
        self._inside: dict[CancelScope, None] = {}
        self._in_flight: dict[asyncio.Future[Any], str | None] = {}
        # Kept, because the event loop holds only weak references to tasks.
        self._cancelling: list[asyncio.Task[None]] = []
        if parent is not None:
            parent._inside[self] = None  # noqa: SLF001 - one of its kind

    async def request(self, reason: Interrupted) -> None:
        """Cancel the work in this scope, unless it has ended or is already being cancelled."""
        if self._closed or self._reason is not None:
            return
        self._reason = reason
        # A result that arrived in the same activation must still reach its task: cancelling the handle now
        # would lose it (the SDK raises CancelledError over a finished future). Conditions are checked when
        # every task has run as far as it can.
        await workflow.wait_condition(lambda: True)
        if self._closed and workflow.patched(_PATCH):
            # It ended in the meantime: what is open now belongs to ``finally``.
            return
        self._cancel_all()

    def _cancel_all(self) -> None:
        for handle, child in list(self._in_flight.items()):
            if not handle.done():
                self._cancel(handle, child)
        for scope in self._inside:
            scope._cancel_all()  # noqa: SLF001 - one of its kind

    def _cancel(self, handle: "asyncio.Future[Any]", child: str | None) -> None:
        if child is None:
            handle.cancel()
        else:
            # Its handle would cancel the child's first run, and the child may have continued as new.
            self._cancelling.append(asyncio.create_task(_cancel_newest(child)))

    @property
    def _why(self) -> Interrupted | None:
        if self._closed:
            return None
        above = None if self._parent is None else self._parent._why  # noqa: SLF001 - one of its kind
        return above or self._reason or self._late

    @property
    def _late(self) -> Interrupted | None:
        # The timer may fire in the same activation, and its task may have its turn after this one.
        return self._limit[1] if self._limit is not None and workflow.now() >= self._limit[0] else None

    @property
    def requested(self) -> bool:
        """Whether the work in this scope is being cancelled."""
        return self._why is not None

    def check(self) -> None:
        """Raise :class:`Interrupted` if the work in this scope is being cancelled."""
        if (reason := self._why) is not None:
            raise reason

    def close(self) -> None:
        """Close the scope: its work has ended, and nothing interrupts what comes now."""
        self._closed = True
        if self._parent is not None:
            self._parent._inside.pop(self, None)  # noqa: SLF001 - one of its kind

    async def wait(self, handle: "asyncio.Future[T]", child: str | None = None) -> T:
        """Wait for an operation, which an interruption cancels. ``child`` is its workflow id.

        Returns:
            Its result, even if it completed although it was cancelled.

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
