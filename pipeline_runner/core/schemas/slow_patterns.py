"""Finds regular expressions that take other engines exponential time, without running them.

If a repeated part can match one string in two ways, n repetitions can match in 2^n ways, and a
backtracking engine tries all of them before it fails. To find that, the parsed pattern becomes a graph
of which character may follow which (Glushkov's automaton), with one edge for each way from one to
another. The pattern is slow if two paths with the same string lead from a node of a cycle back to it.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from functools import lru_cache
from itertools import combinations
from typing import NamedTuple

from pipeline_runner.core.schemas.pattern_syntax import (
    Characters,
    Edge,
    Either,
    Look,
    Node,
    PatternError,
    Repeat,
    Sequence,
    parse,
)  # fmt: skip

_SAMPLE = "".join(map(chr, range(0x180))) + "ΑΩαωАЯая٠٩את一龥ぁンア가힣\u2028😀"
"""Characters that represent all others."""
_COUNTED = 16
"""Repetitions that are distinguished. A larger number counts as unlimited."""
_LONGEST = 10_000
"""The maximum length of the patterns that are examined."""
_MOST = 500
"""The maximum number of parts, counted in each repetition. A longer pattern counts as harmless."""


class _TooLongError(Exception):
    """The pattern has too many parts."""


class _Part(NamedTuple):
    """A part of a pattern: where it begins and ends, with the number of ways to each node."""

    first: Counter[int]
    last: Counter[int]
    empty: int
    """In how many ways it matches the empty string."""


_NOTHING = _Part(Counter(), Counter(), 1)


@lru_cache(maxsize=1000)
def is_slow(pattern: str) -> bool:
    """Tell whether some strings take a backtracking engine exponential time."""
    if ")" not in pattern or len(pattern) > _LONGEST:  # without a group there are no nested repeats
        return False
    try:
        graph = _Graph(parse(pattern), _SAMPLE + pattern)
    except (PatternError, _TooLongError):
        return False
    return any(map(graph.doubles, graph.circles()))


class _Graph:
    """Which of a pattern's characters may follow which. An edge counts as a character."""

    def __init__(self, tree: Node, sample: str) -> None:
        self._sample = sample
        self._characters: list[frozenset[str]] = []
        self._next: list[Counter[int]] = []
        self._looked_at = 0
        self._looks_around = False
        whole = self._part(tree, inside=False)
        # At the end the string matches, and no other way is tried.
        self._ends = set() if self._looks_around else set(whole.last)

    def circles(self) -> Iterable[set[int]]:
        """Yield the sets of nodes that can reach each other, without the end."""
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
        """Tell whether two paths with the same string lead from a node of a cycle back to it."""
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

    def _part(self, node: Node, *, inside: bool) -> _Part:
        """Add a part of the pattern. ``inside``: it is part of something that is repeated."""
        self._looked_at += 1
        if self._looked_at > _MOST:
            raise _TooLongError
        match node:
            case Characters():
                return self._place(_sampled(node, self._sample))
            case Sequence(parts):
                whole = _NOTHING
                for part in parts:
                    whole = self._then(whole, self._part(part, inside=inside))
                return whole
            case Either(parts):
                return self._either(parts, inside=inside)
            case Repeat():
                return self._repeat(node, inside=inside)
            case Edge(kind) if kind != "B":
                return self._place(frozenset([kind * 2]))  # only one of these can be at a position
            case Look(body):
                self._part(body, inside=False)
        self._looks_around = True
        return _NOTHING

    def _either(self, parts: list[Sequence], *, inside: bool) -> _Part:
        alone = [part.parts[0] for part in parts if len(part.parts) == 1]
        sets = {one for one in alone if isinstance(one, Characters) and not one.negated}
        if len(sets) == len(parts):  # all different: many engines turn them into one set
            return self._part(Characters(sets=tuple(sets)), inside=inside)
        whole = _Part(Counter(), Counter(), 0)
        for one in parts:
            part = self._part(one, inside=inside)
            whole = _Part(whole.first + part.first, whole.last + part.last, min(2, whole.empty + part.empty))
        return whole

    def _repeat(self, node: Repeat, *, inside: bool) -> _Part:
        low, high = node.low, node.high
        endless = high is None or low < high > _COUNTED
        within = inside or endless
        most = _COUNTED if inside else 1  # nothing repeats it: one repetition is enough
        low, high = min(low, most), min(high or 0, most)
        part = _NOTHING
        if endless:
            part = self._part(node.body, inside=within)
            self._link(part.last, part.first)
            part = part if low else _maybe(part)
            low = high = max(low - 1, 0)
        for _ in range(high - low):
            part = _maybe(self._then(self._part(node.body, inside=within), part))
        for _ in range(low):
            part = self._then(self._part(node.body, inside=within), part)
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

    def _place(self, characters: frozenset[str]) -> _Part:
        place = Counter([len(self._next)])
        self._characters.append(characters)
        self._next.append(Counter())
        return _Part(place, place, 0)


@lru_cache(maxsize=1000)
def _sampled(characters: Characters, sample: str) -> frozenset[str]:
    return frozenset(filter(characters.has, sample))


def _times(places: Counter[int], ways: int) -> Counter[int]:
    return Counter({place: min(2, number * ways) for place, number in places.items()} if ways else {})


def _maybe(part: _Part) -> _Part:
    return part._replace(empty=min(2, part.empty + 1))


def _reached(start: int, within: set[int], after: Callable[[int], Iterable[int]]) -> set[int]:
    """Return the nodes that can be reached."""
    found: set[int] = set()
    todo = [start]
    while todo:
        new = (set(after(todo.pop())) & within) - found
        found |= new
        todo += new
    return found
