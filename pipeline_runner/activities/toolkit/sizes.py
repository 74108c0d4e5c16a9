"""The maximum size of an activity's result. Imports only the standard library.

A result is part of the run's history. Temporal refuses results over 2 MiB in encoded form, and JSON may
use six bytes for one byte of a string.
"""

import json
from typing import Any

MIB = 1024 * 1024
RESULT_LIMIT = MIB + MIB // 2
"""The maximum size of a result in bytes of JSON, with room for the data around it."""


def encoded_size(value: Any) -> int:
    """Return the size of a value as JSON, in bytes."""
    return len(json.dumps(value))


def clip(text: str, limit: int) -> str:
    """Return the start of a string that fits into ``limit`` bytes of JSON."""
    while (size := encoded_size(text)) > limit:
        text = text[: len(text) * limit // size - 1]
    return text


def clip_start(text: str, limit: int) -> str:
    """Return the end of a string that fits into ``limit`` bytes of JSON."""
    return clip(text[::-1], limit)[::-1]


def one_line(text: str, limit: int) -> str:
    """Return a string for a message: on one line, and cut to the limit."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
