"""Regular expressions that other engines would take for ever for, found without running them.

Where what is repeated can match one text in two ways, so many rounds of it can in two to the power of
so many, and an engine that tries one way after the other tries all before it gives a text up. To find
that, the parsed pattern is made a graph of which character comes after which (Glushkov's automaton),
with as many arrows between two as there are ways from one to the other. It is slow if two ways with the
same text lead from a place in a circle back to it.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from functools import lru_cache
from itertools import combinations
from typing import NamedTuple

from pipeline_runner.core.schemas.patterns import (
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
    """Tell whether there are texts that an engine would hold against a regular expression for ever."""
    if ")" not in pattern or len(pattern) > _LONGEST:  # without a group there are no repeats in repeats
        return False
    try:
        graph = _Graph(parse(pattern), _SAMPLE + pattern)
    except (PatternError, _TooLongError):
        return False
    return any(map(graph.doubles, graph.circles()))


class _Graph:
    """Which of a pattern's characters come after which; an edge counts as one."""

    def __init__(self, tree: Node, sample: str) -> None:
        self._sample = sample
        self._characters: list[frozenset[str]] = []
        self._next: list[Counter[int]] = []
        self._looked_at = 0
        self._looks_around = False
        whole = self._part(tree, inside=False)
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

    def _part(self, node: Node, *, inside: bool) -> _Part:
        """Add a part of the pattern; ``inside``: of something that is repeated."""
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
                return self._place(frozenset([kind * 2]))  # where one of these is, no other is
            case Look(body):
                self._part(body, inside=False)
        self._looks_around = True
        return _NOTHING

    def _either(self, parts: list[Sequence], *, inside: bool) -> _Part:
        alone = [part.parts[0] for part in parts if len(part.parts) == 1]
        sets = {one for one in alone if isinstance(one, Characters) and not one.negated}
        if len(sets) == len(parts):  # all different, which many an engine makes one set of
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
        most = _COUNTED if inside else 1  # nothing repeats the rounds: one of them says it all
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
    """Return the places that a way leads to."""
    found: set[int] = set()
    todo = [start]
    while todo:
        new = (set(after(todo.pop())) & within) - found
        found |= new
        todo += new
    return found
