"""Finds the known name that a misspelled one most likely means. Imports only the standard library."""

import re
import unicodedata
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from difflib import get_close_matches
from functools import lru_cache

_MOST = 10
"""How many names are listed at most."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the most similar known name; None: none is similar."""
    return _nearest(name, tuple(sorted(known)))


@lru_cache(maxsize=1000)
def _nearest(name: str, known: tuple[str, ...]) -> str | None:
    plain = {_plain(candidate): candidate for candidate in known}
    match = get_close_matches(_plain(name), plain, n=1, cutoff=0.7)
    return plain[match[0]] if match else None


def meant(names: Iterable[str], known: Iterable[str]) -> set[str | None]:
    """Return the known names that misspelled ones most likely mean. These are therefore not missing."""
    known = tuple(known)
    return {nearest(name, known) for name in names}


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
    """Return the help line for a misspelled name; None: no known name is similar."""
    match = nearest(name, known)
    if match and match != name and match == unicodedata.normalize("NFC", name):
        return f'did you mean "{match}" in composed characters (Unicode NFC)?'
    return f'did you mean "{match}"?' if match else None


def listed(names: Iterable[str], nothing: str = "nothing") -> str:
    """Return the first names, separated by commas, or the word for an empty list.

    They keep their order. Names in a set, which has no order, are sorted as people do: a2 before a10.
    """
    ordered = sorted(names, key=_natural) if isinstance(names, AbstractSet) else list(names)
    shown = ordered if len(ordered) <= _MOST else [*ordered[: _MOST - 1], "…"]
    return ", ".join(shown) or nothing


def _natural(name: str) -> list[tuple[int, str]]:
    parts = re.findall(r"[0-9]+|[^0-9]+", name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _plain(name: str) -> str:
    # startToClose, start-to-close and start_to_close are the same name to a reader.
    return unicodedata.normalize("NFC", name.replace("-", "_").lower())
