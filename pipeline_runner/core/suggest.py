"""Guess which known name a misspelt one stands for. Imports only the standard library."""

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that this one most likely stands for, None if there is none near."""
    plain = {_plain(candidate): candidate for candidate in sorted(known)}
    match = get_close_matches(_plain(name), plain, n=1, cutoff=0.7)
    return plain[match[0]] if match else None


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
    """Return the help line for a misspelt name, None if no known name is near."""
    match = nearest(name, known)
    return f'did you mean "{match}"?' if match else None


def listed(names: Iterable[str], nothing: str = "nothing") -> str:
    """Return the names in order, separated by commas, or the word for an empty list."""
    return ", ".join(sorted(names)) or nothing


def _plain(name: str) -> str:
    # startToClose, start-to-close and start_to_close are one name to a reader.
    return name.replace("-", "_").lower()
