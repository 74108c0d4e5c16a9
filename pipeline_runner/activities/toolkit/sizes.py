"""How much an activity may hand back. Imports nothing but the standard library.

A result travels in the run's history; Temporal refuses what is over 2 MiB once encoded,
and JSON writes one byte of text as up to six.
"""

import json
from typing import Any

MIB = 1024 * 1024
RESULT_LIMIT = MIB + MIB // 2
"""Bytes of JSON that a result may take, with room left for what travels beside it."""


def encoded_size(value: Any) -> int:
    """Return how many bytes of JSON a value becomes."""
    return len(json.dumps(value))


def clip(text: str, limit: int) -> str:
    """Return the start of a text that takes at most ``limit`` bytes as JSON."""
    while (size := encoded_size(text)) > limit:
        text = text[: len(text) * limit // size - 1]
    return text


def clip_start(text: str, limit: int) -> str:
    """Return the end of a text that takes at most ``limit`` bytes as JSON."""
    return clip(text[::-1], limit)[::-1]


def one_line(text: str, limit: int) -> str:
    """Return a text for a message: on one line, and cut."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
