"""How much one evaluation of an expression may do."""

from collections.abc import Iterable, Iterator
from typing import Any

MAX_UNITS = 1_000_000
"""Elements, and blocks of 16 characters, that one evaluation may handle: well under a
second of work, and far more than a payload of Temporal's two MiB needs."""

MAX_TEXT = 4 * 1024 * 1024
"""Characters that one string may have."""

MAX_BITS = 1024
"""Bits of an integer."""


class BudgetError(Exception):
    """An expression did too much."""


class Budget:
    """Counts what one evaluation handles, and stops it when it is too much."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = MAX_UNITS

    def spend(self, value: Any) -> None:
        """Count a value that was handled.

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

    def units(self, number: int) -> None:
        """Count so many units.

        Raises:
            BudgetError: The budget is used up.
        """
        self._left -= number
        if self._left < 0:
            raise BudgetError("the expression does too much work")

    def text(self, length: int) -> None:
        """Check the length of a string before it is made.

        Raises:
            BudgetError: It would be too long.
        """
        if length > MAX_TEXT:
            raise BudgetError("the text is too long")

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
