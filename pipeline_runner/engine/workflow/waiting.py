"""Steps that wait for something from outside: an event, or the approval of people.

All there is to such a wait is in the run's state, in the order in which the steps began to wait, so that it
goes on in a new run. What a run waits for is also in its memo, where anybody can read it without a worker.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

import msgspec
from msgspec.structs import replace
from temporalio import workflow

from pipeline_runner.core.errors import shortened
from pipeline_runner.core.state import WAITING_MEMO, Continuation, ShownWait, Waiting
from pipeline_runner.engine.workflow import calls
from pipeline_runner.engine.workflow.cancel import Interrupted
from pipeline_runner.engine.workflow.gate import Gate
from pipeline_runner.engine.workflow.scopes import Scope

SHOWN = 10
"""Waits that the memo names: those that began first."""

MESSAGE = 300
"""Characters of a message in there."""

PAYLOAD_BYTES = 128 * 1024
"""Bytes of a payload from outside, as JSON: to validate it takes a part of the time that a task has."""

Later = Callable[[], bool]


class Waits:
    """The open waits of one run."""

    def __init__(self, state: Continuation, gate: Gate) -> None:
        """Keep the waits in a run's state; ``gate``: where the run goes on in a new one."""
        self._state = state
        self._gate = gate
        self._open: dict[str, ShownWait] = {}
        self._shown: dict[str, ShownWait] = {}

    def of(self, path: str) -> Waiting | None:
        """Return the open wait of a step; None: it has none."""
        return next((one for one in self._state.waits if one.path == path), None)

    def begin(self, path: str, *, event: str | None, timeout: float | None) -> Waiting:
        """Begin a wait, or take up the one that the run before has begun.

        Args:
            path: The step's path.
            event: The event that it waits for; None: an approval.
            timeout: Seconds after which it waits no longer.
        """
        found = self.of(path)
        if found is None:
            until = None
            if timeout is not None:
                until = (workflow.now() + timedelta(seconds=timeout)).isoformat()
            found = Waiting(path=path, event=event, until=until)
            self._state.waits.append(found)
        return found

    async def wait(self, waiting: Waiting, scope: Scope, is_answered: Later, *, name: str, what: str) -> bool:
        """Wait until a step is answered, or its time is over.

        Args:
            waiting: The step's wait, which stays open: see :meth:`end`.
            scope: What the step is a part of.
            is_answered: Tells whether it is.
            name: The step's name.
            what: What it waits for, as :class:`ShownWait` has it.

        Returns:
            Whether it was answered.

        Raises:
            Interrupted: The work is to end. The wait has ended.
        """
        self._open[waiting.path] = ShownWait(name=name, what=shortened(what, MESSAGE))
        timer = None if is_answered() else _timer(waiting, name)
        self._show()
        try:
            await self._until(scope, lambda: is_answered() or _is_over(waiting, timer))
        except Interrupted:
            self.end(waiting, "cancelled")
            raise
        finally:
            if timer is not None:
                timer.cancel()
        return is_answered()

    async def _until(self, scope: Scope, is_over: Later) -> None:
        """Wait for the end of a wait; a run that only waits goes on in a new one when its history is long."""
        goes_on = scope.outermost

        def is_due() -> bool:
            return is_over() or (goes_on and self._gate.is_due())

        while not is_over():
            with self._gate.stopped():
                await scope.cancel.wait(asyncio.create_task(workflow.wait_condition(is_due)))
            if not is_over():
                await self._gate.pass_(scope.cancel)
                # It is still here: its state is too large to go on in a new one.
                goes_on = False

    def end(self, waiting: Waiting, state: Any, error: str | None = None) -> None:
        """End a wait; ``state`` and ``error``: how, as :class:`ShownWait` has it."""
        self._state.waits.remove(waiting)
        ended = replace(self._open.pop(waiting.path), state=state, error=error)
        self._show({waiting.path: ended})

    def _show(self, ended: dict[str, ShownWait] | None = None) -> None:
        shown = dict(islice(self._open.items(), SHOWN))
        if shown != self._shown:
            self._shown = shown
            workflow.upsert_memo({WAITING_MEMO: msgspec.to_builtins({**shown, **(ended or {})})})


def size_of(payload: Any) -> int:
    """Return the bytes of a payload as JSON."""
    return len(msgspec.json.encode(payload))


def _timer(waiting: Waiting, name: str) -> "asyncio.Task[None] | None":
    left = _seconds_left(waiting)
    return None if left is None or left <= 0 else calls.timer(left, f"timeout of {name}")


def _is_over(waiting: Waiting, timer: "asyncio.Task[None] | None") -> bool:
    if timer is not None:
        return timer.done()
    return waiting.until is not None


def _seconds_left(waiting: Waiting) -> float | None:
    if waiting.until is None:
        return None
    return (datetime.fromisoformat(waiting.until) - workflow.now()).total_seconds()
