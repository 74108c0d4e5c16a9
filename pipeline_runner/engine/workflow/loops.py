"""Loops: a step that runs once for each item of a list."""

from collections.abc import Awaitable, Callable
from typing import Any

from pipeline_runner.core.model import Step
from pipeline_runner.core.state import StepResult
from pipeline_runner.engine.workflow.gate import Gate
from pipeline_runner.engine.workflow.group import Group
from pipeline_runner.engine.workflow.scopes import Scope, Turn
from pipeline_runner.engine.workflow.step_errors import named
from pipeline_runner.engine.workflow.values import items_of

Taking = Callable[[Turn], Awaitable[StepResult]]
"""Runs a step once."""


class Loops:
    """Runs the loops of one run. Where they stand is in the frame of the list that they are in."""

    def __init__(self, take: Taking, gate: Gate) -> None:
        """Prepare to run loops.

        Args:
            take: Runs one turn of a loop.
            gate: The run's.
        """
        self._take = take
        self._gate = gate

    async def for_each(self, step: Step, for_each: str | list[Any], scope: Scope) -> list[Any]:
        """Run a step once for each item.

        Returns:
            The outputs, in the order of the items.

        Raises:
            StepError: An item failed, or there are no items to be had.
            Interrupted: It was cut short.
        """
        path = scope.path_of(step)
        try:
            items = items_of(for_each, scope.names)
        except Exception as failure:  # noqa: BLE001 - named there, and never lost
            raise named(step, step.id, failure) from None

        async def run(key: str, inside: Scope) -> Any:
            index = int(key)
            inside.names.update(item=items[index], index=index)
            result = await self._take(Turn(step=step, path=path.item(index), scope=inside))
            return result.output

        keys = [str(index) for index in range(len(items))]
        outputs = await Group(self._gate, scope, run).run(keys, limit=step.max_concurrency or 1)
        return [outputs[key] for key in keys]
