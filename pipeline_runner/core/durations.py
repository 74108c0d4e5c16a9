"""Durations of the language: ``500ms``, ``30s``, ``5m``, ``1h30m``, ``2d``."""

import re
from functools import lru_cache

_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+)ms)?", re.ASCII)
PATTERN = r"^(?=[0-9])([0-9]+d)?([0-9]+h)?([0-9]+m(?!s))?([0-9]+(\.[0-9]+)?s)?([0-9]+ms)?$"
"""The same language as a JSON Schema pattern (ECMA 262)."""

MAXIMUM = 10 * 365 * 86400.0
"""The longest duration that is accepted, in seconds: ten years."""

# A longer string is not a misspelled duration: it is neither analyzed nor shown completely.
_LONGEST = 80
_ISO = re.compile(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?", re.IGNORECASE)
_WORDS = re.compile(
    r"(\d*\.\d+|\d+)\s*"
    r"(milliseconds?|msecs?|ms|seconds?|secs?|minutes?|mins?|hours?|hrs?|days?|d|h|m|s)",
    re.IGNORECASE,
)
_WORD_UNITS = {"mi": "m", "ms": "ms", "s": "s", "h": "h", "d": "d", "m": "m"}


class DurationError(ValueError):
    """A string is not a duration. The message says what would be correct."""


@lru_cache(maxsize=1000)
def parse(text: str) -> float:
    """Return the seconds of a duration such as ``1h30m``.

    Raises:
        DurationError: The string is not a duration. The message gives the correct spelling.
    """
    match = _DURATION.fullmatch(text) if text else None
    shown = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
    if match is None:
        raise DurationError(f'"{shown}" is not a duration, {suggestion(text)}')
    seconds = sum(
        float(number) * unit for number, unit in zip(match.groups(), _UNITS.values(), strict=True) if number
    )
    if seconds > MAXIMUM:
        raise DurationError(f'"{shown}" is longer than ten years')
    return seconds


def suggestion(text: str) -> str:
    """Return the correct spelling of a duration, for a help line."""
    right = _respell(text.strip()) if len(text) <= _LONGEST else None
    return f'write "{right}"' if right else 'write for example "500ms", "30s", "5m" or "1h30m"'


def _respell(text: str) -> str | None:
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return f"{text}s"
    iso = _ISO.fullmatch(text)
    if iso and any(iso.groups()):
        return "".join(f"{n}{u}" for n, u in zip(iso.groups(), "dhms", strict=True) if n)
    words = _WORDS.findall(text)
    if words and not re.sub(r"[\s,]|and", "", _WORDS.sub("", text)):
        parts = [(number, _unit_of(word.lower())) for number, word in words]
        candidate = "".join(number + unit for number, unit in parts)
        if _DURATION.fullmatch(candidate):
            return candidate
        seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
        return spell(seconds) if 0.001 <= seconds <= MAXIMUM else None
    return None


def _unit_of(word: str) -> str:
    if word.startswith(("milli", "ms")):
        return "ms"
    return _WORD_UNITS["mi" if word.startswith("min") else word[0]]


def spell(seconds: float) -> str:
    """Write seconds as the language does: 90.0 becomes ``1m30s``.

    Fractions of a millisecond are dropped; zero is ``0s``.
    """
    rest = round(seconds * 1000)
    parts = []
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"
