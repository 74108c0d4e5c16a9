"""Plain scalars by the YAML 1.2 core schema.

PyYAML follows YAML 1.1, where ``no`` is false, ``12:30`` is 750 and ``017`` is 15. Here the first two
are strings, and the third is the number 17. Imports only the standard library.
"""

import math
import re

_NUMBER = re.compile(
    r"""(?P<integer>[-+]?[0-9]+)
    |(?P<based>0o[0-7]+|0x[0-9a-fA-F]+)
    |(?P<float>[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?)
    |[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)""",
    re.VERBOSE,
)
_NUMBER_START = frozenset("+-.0123456789")
_MAX_DIGITS = 100
_SHOWN = 40
_WORDS = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True,
    "false": False, "False": False, "FALSE": False,
}  # fmt: skip

TAGS = {
    "tag:yaml.org,2002:str": str,
    "tag:yaml.org,2002:int": int,
    "tag:yaml.org,2002:float": float,
    "tag:yaml.org,2002:bool": bool,
    "tag:yaml.org,2002:null": type(None),
}
"""The tags of scalars in the core schema, with their types."""

STARTS = _NUMBER_START.union(word[:1] for word in _WORDS)
"""The first characters of everything that may not be a string. Other scalars need not be resolved."""


class ScalarError(ValueError):
    """A pipeline cannot contain the value of a scalar."""


def resolve(text: str) -> str | int | float | bool | None:
    """Return the value of a plain scalar.

    Raises:
        ScalarError: It is a number that JSON cannot represent.
    """
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _NUMBER_START:
        return text
    number = _NUMBER.fullmatch(text)
    if not number:
        return text
    match number.lastgroup:
        case "integer":
            return _bounded(text, text, 10)
        case "based":
            return _bounded(text, text[2:], 16 if text[1] == "x" else 8)
        case "float":
            value = float(text)
            if not math.isfinite(value):
                raise ScalarError(f"{_short(text)} is too large for a number")
            return value
    raise ScalarError(f"{text} is not a number that JSON can represent")


def tagged(text: str, tag: str) -> str | int | float | bool | None:
    """Return the value of a scalar with one of :data:`TAGS`.

    Raises:
        ScalarError: The text is not a value of that type.
    """
    kind = TAGS[tag]
    if kind is str:
        return text
    value = resolve(text)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise ScalarError(f'"{_short(text)}" is not of the type !!{tag.rpartition(":")[2]}')
    return value


def _bounded(text: str, digits: str, base: int) -> int:
    # Every SDK's JSON can hold 64 bits; the limit on the length keeps int() itself cheap.
    if len(digits) > _MAX_DIGITS or not -(2**63) <= (value := int(digits, base)) < 2**63:
        raise ScalarError(f"{_short(text)} does not fit into 64 bits: put it in quotes to keep its digits")
    return value


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
