"""The gate: where a run stops, in all of its branches at once, to continue as new.

The server suggests continue-as-new when a history has grown long. From then on, every list of steps
stops before its next step. Waits on timers count as stopped, because the state holds their ends. When
everything has stopped, the state is complete, and is passed to the new run.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

from temporalio import workflow

from pipeline_runner.engine.workflow import calls
from pipeline_runner.engine.workflow.cancel import CancelScope


class Gate:
    """Counts the tasks that do the work of a run, and how many of them have stopped."""

    def __init__(self, go_on: Callable[[], None], work: CancelScope) -> None:
        """Create the gate of a run.

        Args:
            go_on: Continues as new and does not return, or returns if the state is too large for that.
            work: The scope of all its work.
        """
        self._go_on = go_on
        self._work = work
        self._working = 1
        self._groups = 0
        self._stopped = 0
        self._failing = 0
        """The number of groups of which one task has failed: the other tasks must end first."""
        self._is_late = False
        """Whether the run cannot continue as new, because its state was too large."""

    def is_due(self) -> bool:
        """Tell whether a run that does one thing alone is to go on in a new one: at :meth:`pass_`."""
        return not self._groups and workflow.info().is_continue_as_new_suggested()

    async def pass_(self, cancel: CancelScope | None = None) -> None:
        """Pass, or stop while the run prepares to continue as new.

        Args:
            cancel: The scope of the work that is about to be done; None: nothing cancels it.

        Raises:
            Interrupted: It is being cancelled.
        """
        if workflow.info().is_continue_as_new_suggested():
            if cancel is not None:
                # The new run would not know of a cancellation that arrived in this very activation.
                await workflow.wait_condition(lambda: True)
                cancel.check()
            if not self._groups:
                await _handlers_finished()
                self._go_on()
            else:
                with self.stopped():
                    await workflow.wait_condition(
                        lambda: self._is_late or (cancel is not None and cancel.requested)
                    )
        if cancel is not None:
            cancel.check()

    async def pause(self, cancel: CancelScope, until: str, summary: str) -> None:
        """Wait until a time in the state (RFC 3339).

        Raises:
            Interrupted: The work is being cancelled.
        """
        seconds = (datetime.fromisoformat(until) - workflow.now()).total_seconds()
        if seconds > 0:
            with self.stopped():
                await cancel.wait(calls.timer(seconds, summary))

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Count as stopped while the body runs: the state holds what the body waits for."""
        self._stopped += 1
        try:
            yield
        finally:
            self._stopped -= 1

    @contextmanager
    def failing(self) -> Iterator[None]:
        """Prevent the run from continuing as new while the body runs."""
        self._failing += 1
        try:
            yield
        finally:
            self._failing -= 1

    def begin(self, tasks: int) -> None:
        """Record that so many tasks do the work of one, which waits for them."""
        self._working += tasks - 1
        self._groups += 1

    def end(self) -> None:
        """Record that one of these tasks has ended."""
        self._working -= 1

    async def wait_for(self, are_done: Callable[[], bool], *, outermost: bool) -> None:
        """Wait for such tasks, and then count as a task again.

        Args:
            are_done: Tells whether all have ended.
            outermost: Whether the caller is the run's main task, which continues as new for all.
        """
        while not are_done():
            await workflow.wait_condition(lambda: are_done() or (outermost and self._is_ready()))
            if not are_done():
                await workflow.wait_condition(lambda: True)
                await _handlers_finished()
                if self._is_ready() and not are_done():
                    self._go_on()
                    self._is_late = True
        self._working += 1
        self._groups -= 1

    def _is_ready(self) -> bool:
        return (
            workflow.info().is_continue_as_new_suggested()
            and self._working == self._stopped
            and not (self._is_late or self._failing or self._work.requested)
        )


async def _handlers_finished() -> None:
    """Have everybody answered who has sent an update that is being handled."""
    if not workflow.all_handlers_finished():
        await workflow.wait_condition(workflow.all_handlers_finished)
