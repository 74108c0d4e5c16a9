"""Reads JSON from other programs, as strictly as the standard. Imports only the standard library.

Python's own reader accepts ``NaN``, turns ``1e400`` into infinity, and accepts halves of surrogate
pairs; Temporal can carry none of them.
"""

import json
import math
import re
from typing import Any

_HALF = re.compile("[\ud800-\udfff]")


def parse(data: str | bytes) -> Any:
    """Return the value of a JSON string. Half of a surrogate pair becomes U+FFFD.

    Raises:
        ValueError: It is not JSON, or contains a number that is too large.
        RecursionError: It is nested too deeply.
    """
    text = data if isinstance(data, str) else data.decode(json.detect_encoding(data))
    value = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    if "\\ud" in text or "\\uD" in text:
        value = json.loads(mend(json.dumps(value, ensure_ascii=False)))
    return value


def mend(text: str) -> str:
    """Return a string with U+FFFD in place of each half of a surrogate pair."""
    return _HALF.sub("\ufffd", text)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not in JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError("a number is too large")
    return number
