"""Values of expressions: copies as JSON data, and conversion to strings."""

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from jinja2.runtime import LoopContext, Undefined

from pipeline_runner.core.expressions.budget import Budget, BudgetError, current
from pipeline_runner.core.secrets import Secret, SecretMisuse, SecretText

_MAX_DEPTH = 64
_HALF = re.compile("[\ud800-\udfff]")


class ExpressionValueError(ValueError):
    """A value is not what an expression needs. The message gives the reason."""


def defined(value: Any) -> None:
    """Raise the error of an undefined value. Do nothing for other values."""
    if isinstance(value, Undefined):
        str(value)  # a strict undefined value raises its error here


def joined(pieces: Iterable[Any]) -> str | SecretText:
    """Join the parts of a template."""
    budget, length = current(), 0
    parts: list[str | Secret] = []
    for piece in pieces:
        if isinstance(piece, SecretText):
            budget.units(len(piece.parts))
            parts += piece.parts
        else:
            part = text(piece)
            budget.spend(part)
            length += len(part)
            budget.text(length)
            parts.append(part)
    if all(isinstance(part, str) for part in parts):
        return whole("".join(part for part in parts if isinstance(part, str)))
    return SecretText(tuple(part for part in parts if part != ""))


def kept(value: Any) -> Any:
    """Return a value that a name is given: it exists, and can be gone through more than once.

    Raises:
        ExpressionValueError: It is the ``loop`` of a loop.
    """
    defined(value)
    if isinstance(value, LoopContext):
        raise ExpressionValueError('"loop" cannot be kept: set one of its keys, such as loop.index')
    return list(value) if isinstance(value, Iterator) else value


def whole(text: str) -> str:
    """Return a string that UTF-8 can encode: half of a surrogate pair becomes U+FFFD."""
    return text if text.isascii() else _HALF.sub("\N{REPLACEMENT CHARACTER}", text)


def text(value: Any) -> str:
    """Return a value as a string: JSON, except for strings.

    Raises:
        ExpressionValueError: The value is null, or contains secrets.
    """
    if isinstance(value, str):
        return value
    if value is None:
        raise ExpressionValueError("null cannot be put into a string: use default('') or a condition")
    return json.dumps(plain(value, current()), ensure_ascii=False, separators=(",", ":"), default=_no_secret)


def _no_secret(_: Any) -> Any:
    raise SecretMisuse("a list or mapping that contains a secret cannot be put into a string")


def plain(value: Any, budget: Budget, depth: int = 0) -> Any:
    """Return a copy of an expression's value as JSON data.

    Raises:
        BudgetError: It is too large or too deep.
        ExpressionValueError: It is not JSON data.
    """
    if depth > _MAX_DEPTH:
        raise BudgetError("the result is nested too deeply")
    budget.spend(value)
    if isinstance(value, str):
        return whole(value)
    if value is None or isinstance(value, bool | SecretText):
        return value
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise ExpressionValueError("the result is an integer of more than 64 bits")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ExpressionValueError("the result is not a finite number")
        return value
    defined(value)
    if isinstance(value, Mapping):
        return {_key(key): plain(item, budget, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple | range | Iterator):
        return [plain(item, budget, depth + 1) for item in value]
    raise ExpressionValueError(f"the result must be a JSON value, not {kind_of(value)}")


def _key(key: Any) -> str:
    if not isinstance(key, str):
        raise ExpressionValueError(f"the keys of a mapping must be strings, not {text(key)}")
    return whole(key)


def kind_of(value: Any) -> str:
    """Return the type of a value, in the words of the language."""
    if value is None:
        return "null"
    for types, name in (
        (bool, "a boolean"), (int | float, "a number"), (str, "a string"),
        (list | tuple, "a list"), (Mapping, "a mapping"), (SecretText, "a secret"),
    ):  # fmt: skip
        if isinstance(value, types):
            return name
    return "something else"
