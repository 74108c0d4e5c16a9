"""Regular expressions that would take for ever, found without running them.

Where what is repeated can match one text in two ways, so many rounds of it can in two to the power of
so many, and all of them are tried before a text that does not match is given up. To find that, the
parsed pattern is made a graph of which character comes after which (Glushkov's automaton), with as
many arrows between two as there are ways from one to the other. It is slow if two ways with the
same text lead from a place in a circle back to it.
"""

import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from functools import lru_cache
from importlib import import_module
from itertools import combinations
from typing import Any, NamedTuple

_parser: Any = import_module("re._parser")
_compiler: Any = import_module("re._compiler")

_SAMPLE = "".join(map(chr, range(0x180))) + "ΑΩαωАЯая٠٩את一龥ぁンア가힣\u2028😀"
"""Characters that stand for all the others."""
_COUNTED = 16
"""Rounds of a repeat that are told apart; one of more is taken for one without end."""
_LONGEST = 10_000
"""Characters of a pattern that is looked at."""
_MOST = 500
"""Parts of a pattern that are looked at, in each round again: a longer one counts as good."""


class _TooLongError(Exception):
    """There are more parts than are looked at."""


class _Part(NamedTuple):
    """A part of a pattern: where it begins and ends, with the number of ways to each place."""

    first: Counter[int]
    last: Counter[int]
    empty: int
    """In how many ways it matches nothing."""


_NOTHING = _Part(Counter(), Counter(), 1)


@lru_cache(maxsize=1000)
def is_slow(pattern: str) -> bool:
    """Tell whether there are texts that a regular expression would be held against for ever."""
    if ")" not in pattern or len(pattern) > _LONGEST:  # without a group there are no repeats in repeats
        return False
    try:
        with warnings.catch_warnings(action="ignore"):
            graph = _Graph(pattern)
    except (re.error, OverflowError, RecursionError, _TooLongError):
        return False
    return any(map(graph.doubles, graph.circles()))


def has_slow_pattern(schema: Any) -> bool:
    """Tell whether a JSON Schema, or a part of it, has a pattern that is slow."""
    if isinstance(schema, list):
        return any(map(has_slow_pattern, schema))
    if not isinstance(schema, dict):
        return False
    keys = schema.get("patternProperties")
    patterns = [schema.get("pattern"), *(keys if isinstance(keys, dict) else ())]
    slow = any(isinstance(one, str) and is_slow(one) for one in patterns)
    return slow or any(map(has_slow_pattern, schema.values()))


class _Graph:
    """Which of a pattern's characters come after which."""

    def __init__(self, pattern: str) -> None:
        self._characters: list[frozenset[str]] = []
        self._next: list[Counter[int]] = []
        self._looked_at = 0
        self._looks_around = False
        self._sets: dict[str, frozenset[str]] = {}
        self._sample = _SAMPLE + pattern
        tree = _parser.parse(pattern)
        self._state = tree.state
        whole = self._sequence(tree, 0, inside=False)
        # Once the end is reached the text matches, and no other way is tried.
        self._ends = set() if self._looks_around else set(whole.last)

    def circles(self) -> Iterable[set[int]]:
        """Yield the places that lead to one another, none of which is the end."""
        left = set(range(len(self._next))) - self._ends
        before: dict[int, list[int]] = {}
        for place in left:
            for after in self._next[place]:
                before.setdefault(after, []).append(place)
        while left:
            start = min(left)
            circle = _reached(start, left, self._next.__getitem__) & _reached(
                start, left, lambda place: before.get(place, ())
            )
            yield circle
            left -= circle | {start}

    def doubles(self, circle: set[int]) -> bool:
        """Tell whether there are two ways for one text from a place in a circle back to it."""
        after = {place: [one for one in self._next[place] if one in circle] for place in circle}
        if any(self._next[place][one] > 1 for place in circle for one in after[place]):
            return True
        forks = {pair for place in circle for pair in combinations(after[place], 2)}
        todo = [pair for pair in forks if self._overlap(*pair)]
        seen = set(todo)
        while todo:
            one, other = todo.pop()
            for pair in ((a, b) for a in after[one] for b in after[other] if self._overlap(a, b)):
                if pair[0] == pair[1]:
                    return True
                if pair not in seen:
                    seen.add(pair)
                    todo.append(pair)
        return False

    def _overlap(self, one: int, other: int) -> bool:
        return not self._characters[one].isdisjoint(self._characters[other])

    def _sequence(self, items: Iterable[Any], flags: int, *, inside: bool) -> _Part:
        """Add what stands one after the other; ``inside``: of something that is repeated."""
        whole = _NOTHING
        for item in items:
            whole = self._then(whole, self._item(item, flags, inside=inside))
        return whole

    def _item(self, item: tuple[Any, Any], flags: int, *, inside: bool) -> _Part:
        self._looked_at += 1
        if self._looked_at > _MOST:
            raise _TooLongError
        operator, argument = item[0].name, item[1]
        match operator:
            case "MAX_REPEAT" | "MIN_REPEAT":
                low, high, body = argument
                within = inside or low < high > _COUNTED
                return self._repeat(
                    low, high, lambda: self._sequence(body, flags, inside=within), inside=inside
                )
            case "POSSESSIVE_REPEAT":
                low, _, body = argument
                part = self._only_way(body, flags)
                return part if low else _maybe(part)
            case "ATOMIC_GROUP":
                return self._only_way(argument, flags)
            case "SUBPATTERN":
                _, added, removed, body = argument
                return self._sequence(body, flags & ~removed | added, inside=inside)
            case "BRANCH":
                return _either([self._sequence(body, flags, inside=inside) for body in argument[1]])
            case "GROUPREF_EXISTS":
                return _either([self._sequence(body or (), flags, inside=inside) for body in argument[1:]])
            case "GROUPREF" | "GROUPREF_IGNORE":
                return _maybe(self._character(frozenset(self._sample)))
            case "ASSERT" | "ASSERT_NOT" | "AT":
                return self._condition(operator, argument, flags)
        return self._character(self._set(item, flags))

    def _condition(self, operator: str, argument: Any, flags: int) -> _Part:
        if operator == "AT" and "NON_BOUNDARY" not in argument.name:
            # As if it were a character: where one of these is, no other is.
            return self._character(frozenset([argument.name]))
        self._looks_around = True
        if operator != "AT":
            self._sequence(argument[1], flags, inside=False)
        return _NOTHING

    def _repeat(self, low: int, high: int, body: Callable[[], _Part], *, inside: bool) -> _Part:
        endless = low < high > _COUNTED
        if not inside:  # nothing repeats the rounds: one of them says it all
            low, high = min(low, 1), 1
        part = _NOTHING
        if endless:
            part = body()
            self._link(part.last, part.first)
            part = part if low else _maybe(part)
            low -= 1
        else:
            for _ in range(min(high, _COUNTED) - low):
                part = _maybe(self._then(body(), part))
        for _ in range(min(low, _COUNTED)):
            part = self._then(body(), part)
        return part

    def _then(self, one: _Part, other: _Part) -> _Part:
        self._link(one.last, other.first)
        return _Part(
            one.first + _times(other.first, one.empty),
            other.last + _times(one.last, other.empty),
            min(2, one.empty * other.empty),
        )

    def _link(self, one: Counter[int], other: Counter[int]) -> None:
        for place, ways in one.items():
            self._next[place].update(_times(other, ways))

    def _only_way(self, body: Iterable[Any], flags: int) -> _Part:
        """Add what is matched in one way or not at all, whatever comes after it."""
        inner = self._sequence(body, flags, inside=False)
        begins = frozenset().union(*(self._characters[place] for place in inner.first))
        part = self._character(begins)
        return _maybe(part) if inner.empty else part

    def _character(self, one_of: frozenset[str]) -> _Part:
        place = Counter([len(self._next)])
        self._characters.append(one_of)
        self._next.append(Counter())
        return _Part(place, place, 0)

    def _set(self, item: tuple[Any, Any], flags: int) -> frozenset[str]:
        """Return what one character of the pattern stands for, of the sample."""
        key = f"{item} {flags}"
        if key not in self._sets:
            alone = _compiler.compile(_parser.SubPattern(self._state, [item]), flags)
            self._sets[key] = frozenset(found.group() for found in alone.finditer(self._sample))
        return self._sets[key]


def _times(places: Counter[int], ways: int) -> Counter[int]:
    return Counter({place: min(2, number * ways) for place, number in places.items()} if ways else {})


def _maybe(part: _Part) -> _Part:
    return part._replace(empty=min(2, part.empty + 1))


def _either(parts: list[_Part]) -> _Part:
    whole = _Part(Counter(), Counter(), 0)
    for part in parts:
        empty = min(2, whole.empty + part.empty)
        whole = _Part(whole.first + part.first, whole.last + part.last, empty)
    return whole


def _reached(start: int, within: set[int], after: Callable[[int], Iterable[int]]) -> set[int]:
    """Return the places that a way leads to."""
    found: set[int] = set()
    todo = [start]
    while todo:
        new = (set(after(todo.pop())) & within) - found
        found |= new
        todo += new
    return found
