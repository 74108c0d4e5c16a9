"""Loops: a step that runs once for each item of a list, or until a condition holds."""

from collections.abc import Awaitable, Callable
from typing import Any

from pipeline_runner.core import errors
from pipeline_runner.core.errors import ErrorInfo
from pipeline_runner.core.model import Step, Until
from pipeline_runner.core.state import Frame, StepResult
from pipeline_runner.engine.workflow.gate import Gate
from pipeline_runner.engine.workflow.group import Group
from pipeline_runner.engine.workflow.limits import limit_of, within
from pipeline_runner.engine.workflow.liveness import Liveness
from pipeline_runner.engine.workflow.scopes import Scope, Turn
from pipeline_runner.engine.workflow.step_errors import StepError, named
from pipeline_runner.engine.workflow.values import holds, items_of, later
from pipeline_runner.engine.workflow.work import Work

Taking = Callable[[Turn], Awaitable[StepResult]]
"""Runs a step once."""


class Loops:
    """Runs the loops of one run. The frame of the enclosing list holds their state."""

    def __init__(self, take: Taking, gate: Gate, work: Work, liveness: Liveness) -> None:
        """Prepare to run loops.

        Args:
            take: Runs one turn of a loop.
            gate: The run's.
            work: Counts the run's computation.
            liveness: Says whose outputs are read.
        """
        self._take = take
        self._gate = gate
        self._work = work
        self._liveness = liveness

    async def run(self, step: Step, scope: Scope) -> Any:
        """Run a loop within its time limit, and return its output.

        Raises:
            StepError: An item or a repetition failed, or the loop itself.
            Interrupted: It was interrupted.
        """

        async def run(inside: Scope) -> Any:
            if step.until is not None:
                return await self._until(step, step.until, inside)
            return await self._for_each(step, inside)

        return await within(limit_of(step), scope, run)

    async def _for_each(self, step: Step, scope: Scope) -> list[Any] | None:
        """Run a step for each item; the output is None where nobody reads it."""
        path = scope.path_of(step)
        assert step.for_each is not None
        try:
            items = items_of(step.for_each, scope.names)
        except Exception as failure:  # noqa: BLE001 - it becomes a step's error, and is never lost
            raise named(step, step.id, failure) from None

        async def run(key: str, inside: Scope) -> Any:
            index = int(key)
            inside.names.update(item=items[index], index=index)
            try:
                result = await self._take(Turn(step=step, path=path.item(index), scope=inside))
            finally:
                scope.frame.tried = max(scope.frame.tried, inside.frame.attempt)
            return result.output

        keys = [str(index) for index in range(len(items))]
        group = Group(
            self._gate,
            scope,
            run,
            fail_fast=step.fail_fast,
            name_of=lambda key: f"{step.id}[{key}]",
            keep=self._liveness.is_read(step),
        )
        outputs = await group.run(keys, limit=step.max_concurrency or 1)
        return [outputs[key] for key in keys] if self._liveness.is_read(step) else None

    async def _until(self, step: Step, until: Until, scope: Scope) -> Any:
        """Repeat a step. The frame holds the end of a pause if there is one."""
        frame = scope.frame
        while True:
            if frame.until is None:
                await self._repeat(step, scope)
                if _is_met(step, until, scope):
                    return frame.last
            assert frame.until is not None
            await self._gate.pause(scope.cancel, frame.until, f"pause of {scope.path_of(step)}")
            frame.until = None
            await self._gate.pass_(scope.cancel)

    async def _repeat(self, step: Step, scope: Scope) -> None:
        frame, index = scope.frame, scope.frame.index
        inside = scope.inside(frame.open.setdefault(str(index), Frame()), scope.path)
        inside.names.update(last=frame.last, index=index)
        path = scope.path_of(step).item(index)
        try:
            result = await self._take(Turn(step=step, path=path, scope=inside))
        finally:
            frame.tried = max(frame.tried, inside.frame.attempt)
        self._work.count_step()
        frame.open, frame.last = {}, result.output


def _is_met(step: Step, until: Until, scope: Scope) -> bool:
    """Evaluate the condition after a repetition. If it does not hold, the pause before the next one begins.

    Raises:
        StepError: The condition cannot be evaluated, or it was the last repetition.
    """
    frame, index = scope.frame, scope.frame.index
    names = {**scope.names, "last": frame.last, "index": index}
    try:
        if holds("the condition of until", until.condition, names):
            return True
        if index + 1 < until.at_most:
            frame.index, frame.until = index + 1, later("every", until.every, names)
            return False
    except Exception as failure:  # noqa: BLE001 - it becomes a step's error, and is never lost
        raise named(step, f"{step.id}[{index}]", failure) from None
    message = f'the condition of "{step.id}" was not met in {_repetitions(until.at_most)}'
    info = ErrorInfo(type=errors.UNTIL_TIMEOUT, message=message, step=step.id)
    raise StepError(info, non_retryable=False, cause=None)


def _repetitions(number: int) -> str:
    return "1 repetition" if number == 1 else f"{number} repetitions"
