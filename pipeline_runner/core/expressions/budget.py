"""Limits the work of the expressions of one step."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

MAX_UNITS = 1_000_000
"""Units of work that one rendering may use: elements, blocks of 16 characters, operations. That takes well
under a second, and is far more than a payload of 2 MiB, Temporal's limit, needs."""

MAX_TEXT = 4 * 1024 * 1024
"""The maximum number of characters in a string."""

MAX_BITS = 1024
"""The maximum number of bits in an integer."""

CALL = 3
"""Units of one operation, such as a lookup or a filter, in addition to its operands."""


class BudgetError(Exception):
    """An expression exceeded its budget."""


class Budget:
    """Counts the work of the expressions of one step, and stops them when it is too much."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = MAX_UNITS

    def spend(self, value: Any) -> None:
        """Count a value that was handled, without its content.

        Raises:
            BudgetError: The budget is used up.
        """
        units = 1
        if isinstance(value, str):
            self.text(len(value))
            units += len(value) // 16
        elif isinstance(value, list | tuple | dict):
            units += len(value)
        elif isinstance(value, int) and value.bit_length() > MAX_BITS:
            raise BudgetError("the number is too large")
        self.units(units)

    @property
    def spent(self) -> int:
        """The number of units used."""
        return MAX_UNITS - self._left

    def weigh(self, value: Any, times: int = 1) -> None:
        """Count a value with its content, once for each time it is traversed.

        Raises:
            BudgetError: The budget is used up.
        """
        before = self._left
        waiting = [value]
        while waiting:
            one = waiting.pop()
            self.spend(one)
            if isinstance(one, dict):
                waiting += one
                waiting += one.values()
            elif isinstance(one, list | tuple):
                waiting += one
        self.units((before - self._left) * (times - 1))

    def units(self, number: int) -> None:
        """Count a number of units.

        Raises:
            BudgetError: The budget is used up.
        """
        self._left -= number
        if self._left < 0:
            raise BudgetError("this expression takes too long")

    def text(self, length: int) -> None:
        """Check the length of a string before it is created.

        Raises:
            BudgetError: It would be too long.
        """
        if length > MAX_TEXT:
            raise BudgetError("the string is too long")

    def counted(self, value: Any) -> Any:
        """Count a result. An iterator is counted as it is consumed."""
        if isinstance(value, Iterator):
            return self._each(value)
        self.spend(value)
        return value

    def _each(self, values: Iterable[Any]) -> Iterator[Any]:
        for value in values:
            self.spend(value)
            yield value


_CURRENT: ContextVar[Budget | None] = ContextVar("pipeline_runner_expression_budget", default=None)


def current() -> Budget:
    """Return the budget of the current rendering, or a new one if there is none."""
    return _CURRENT.get() or Budget()


@contextmanager
def shared() -> Iterator[None]:
    """Let everything that is rendered inside share one budget: the enclosing rendering's, or a new one."""
    if _CURRENT.get() is not None:
        yield
        return
    budget = Budget()
    token = _CURRENT.set(budget)
    try:
        yield
    finally:
        _CURRENT.reset(token)
        meter = _METER.get()
        if meter is not None:
            meter.units += budget.spent


class Meter:
    """Adds up the work of many renderings."""

    def __init__(self) -> None:
        self.units = 0


_METER: ContextVar[Meter | None] = ContextVar("pipeline_runner_expression_meter", default=None)


def metered() -> Meter:
    """Return a meter for everything that is rendered from now on in this context."""
    meter = Meter()
    _METER.set(meter)
    return meter
