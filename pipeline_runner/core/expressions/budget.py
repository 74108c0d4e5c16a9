"""How much work the expressions of one step may do."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

MAX_UNITS = 1_000_000
"""Units of work that one rendering may take: elements, blocks of 16 characters, operations. That is well
under a second, and far more than a payload of Temporal's two MiB needs."""

MAX_TEXT = 4 * 1024 * 1024
"""Characters that one string may have."""

MAX_BITS = 1024
"""Bits of an integer."""

CALL = 3
"""Units of one operation, such as a look-up or the call of a filter, beside what its operands count."""


class BudgetError(Exception):
    """An expression did too much."""


class Budget:
    """Counts what the expressions of one step handle, and stops them when it is too much."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = MAX_UNITS

    def spend(self, value: Any) -> None:
        """Count a value that was handled, without what is in it.

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
        """Units that were counted."""
        return MAX_UNITS - self._left

    def weigh(self, value: Any, times: int = 1) -> None:
        """Count a value with all that is in it, as often as it is gone through.

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
        """Count so many units.

        Raises:
            BudgetError: The budget is used up.
        """
        self._left -= number
        if self._left < 0:
            raise BudgetError("this expression takes too long")

    def text(self, length: int) -> None:
        """Check the length of a string before it is made.

        Raises:
            BudgetError: It would be too long.
        """
        if length > MAX_TEXT:
            raise BudgetError("the string is too long")

    def counted(self, value: Any) -> Any:
        """Count a result; an iterator is counted as it is consumed."""
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
    """Return the budget of the rendering that is going on, a new one if there is none."""
    return _CURRENT.get() or Budget()


@contextmanager
def shared() -> Iterator[None]:
    """Let all that is rendered inside have one budget: that of the rendering around it, else a new one."""
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
    """Adds up what many renderings take, one after the other."""

    def __init__(self) -> None:
        self.units = 0


_METER: ContextVar[Meter | None] = ContextVar("pipeline_runner_expression_meter", default=None)


def metered() -> Meter:
    """Return a meter of all that is rendered from now on in this context."""
    meter = Meter()
    _METER.set(meter)
    return meter
