r"""The patterns of JSON Schema: regular expressions of ECMA 262, matched without backtracking.

Python's ``re`` has another language (``$`` also matches before a last line break, ``\d`` matches the
digits of all scripts), and may try exponentially many ways to match a string. Here a pattern becomes an
automaton that reads a string once, in all of its states at the same time. The work is limited, and
depends only on the pattern and the string: a replay gets the same result.

Lookahead and lookbehind are computed for all positions of the string in advance.
"""

from functools import lru_cache
from typing import Any

from pipeline_runner.core.schemas.pattern_syntax import (
    WORD,
    Characters,
    Edge,
    Either,
    Look,
    PatternError,
    Repeat,
    Sequence,
    parse,
)

MAX_STATES = 20_000
"""The maximum number of states in an automaton. ``[a-z]{1,5000}`` has two for each repetition."""
MAX_WORK = 500_000
"""The maximum number of transitions per search that are not cached: at most half a second."""

ACCEPT = 0
"""The state that accepts."""


class _Automaton:
    """States and their transitions."""

    def __init__(self, node: Any, looks: list[tuple[Look, "_Automaton"]], *, backwards: bool) -> None:
        self.backwards = backwards
        self.characters: list[Characters | None] = [None]
        self.after: list[tuple[int, ...]] = [()]
        self.conditions: list[Any] = [None]
        """For a state that needs no character: an edge, or the number of a lookaround."""
        self._looks = looks
        self.start = self._build(node, ACCEPT)

    def _state(
        self, after: tuple[int, ...], characters: Characters | None = None, condition: Any = None
    ) -> int:
        if len(self.after) >= MAX_STATES:
            raise PatternError("the pattern is too large: it repeats too much")
        self.after.append(after)
        self.characters.append(characters)
        self.conditions.append(condition)
        return len(self.after) - 1

    def _build(self, node: Any, after: int) -> int:
        """Add the states of a part of the pattern, before a state. Return the first one."""
        if isinstance(node, Characters):
            return self._state((after,), node)
        if isinstance(node, Sequence):
            for part in node.parts if self.backwards else reversed(node.parts):
                after = self._build(part, after)
            return after
        if isinstance(node, Either):
            return self._state(tuple(self._build(part, after) for part in node.parts))
        if isinstance(node, Repeat):
            return self._repeat(node, after)
        if isinstance(node, Edge):
            return self._state((after,), condition=node)
        # A lookahead is read from the end of the string, a lookbehind from its start.
        automaton = _Automaton(node.body, self._looks, backwards=not node.behind)
        self._looks.append((node, automaton))
        return self._state((after,), condition=len(self._looks) - 1)

    def _repeat(self, node: Repeat, after: int) -> int:
        first = after
        if node.high is None:
            loop = self._state(())
            self.after[loop] = (self._build(node.body, loop), after)
            first = loop
        else:
            for _ in range(node.high - node.low):
                first = self._state((self._build(node.body, first), after))
        for _ in range(node.low):
            before, first = first, self._build(node.body, first)
            if before == first:  # it is empty
                break
        return first


class Pattern:
    """A pattern that can be used."""

    def __init__(self, text: str) -> None:
        self._looks: list[tuple[Look, _Automaton]] = []
        self._whole = _Automaton(parse(text), self._looks, backwards=False)

    def search(self, text: str) -> bool:
        """Tell whether the pattern matches anywhere in a string.

        Raises:
            PatternError: The search takes too long.
        """
        search = _Search(text)
        for look, automaton in self._looks:  # inner ones come before the enclosing ones
            search.looks.append((search.places(automaton), look.negative))
        return search.first(self._whole)


class _Search:
    """A search for one pattern in one string."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._work = 0
        self.looks: list[tuple[bytearray, bool]] = []
        """By number: for each position whether there is a match, and whether there should be none."""

    def first(self, automaton: _Automaton) -> bool:
        """Tell whether there is a match anywhere."""
        return self._run(automaton, None)

    def places(self, automaton: _Automaton) -> bytearray:
        """Return for each position whether a match ends there, in the direction of reading."""
        found = bytearray(len(self._text) + 1)
        self._run(automaton, found)
        return found

    def _run(self, automaton: _Automaton, found: bytearray | None) -> bool:
        text, length = self._text, len(self._text)
        conditional = any(condition is not None for condition in automaton.conditions)
        known: dict[Any, frozenset[int]] = {}
        states: frozenset[int] = frozenset()
        for number in range(length + 1):
            place = length - number if automaton.backwards else number
            character = "" if not number else text[place if automaton.backwards else place - 1]
            here = self._here(automaton, place) if conditional else None
            key = (states, character, here)
            after = known.get(key)
            if after is None:
                after = known[key] = self._step(automaton, states, character, place)
            states = after
            if ACCEPT in states:
                if found is None:
                    return True
                found[place] = 1
        return False

    def _here(self, automaton: _Automaton, place: int) -> Any:
        """Return everything that conditions depend on at a position."""
        looks = tuple(found[place] for found, _ in self.looks)
        return place == 0, place == len(self._text), self._is_between(place), looks

    def _is_between(self, place: int) -> bool:
        """Tell whether a word begins or ends at a position."""
        sides = self._text[place - 1 : place] if place else "", self._text[place : place + 1]
        before, after = (bool(side) and WORD.has(side) for side in sides)
        return before is not after

    def _step(
        self, automaton: _Automaton, states: frozenset[int], character: str, place: int
    ) -> frozenset[int]:
        """Return the states after a character, including those that need none, and the first state."""
        waiting = [automaton.start]
        for state in states:
            wanted = automaton.characters[state]
            if wanted is not None and wanted.has(character):
                waiting += automaton.after[state]
        seen: set[int] = set()
        while waiting:
            state = waiting.pop()
            if state in seen or not self._holds(automaton.conditions[state], place):
                continue
            seen.add(state)
            if automaton.characters[state] is None:
                waiting += automaton.after[state]
        self._work += len(seen) + len(states)
        if self._work > MAX_WORK:
            raise PatternError("the pattern takes too long on this string")
        return frozenset(one for one in seen if automaton.characters[one] is not None or one == ACCEPT)

    def _holds(self, condition: Any, place: int) -> bool:
        if condition is None:
            return True
        if isinstance(condition, int):
            found, negative = self.looks[condition]
            return bool(found[place]) is not negative
        match condition.kind:
            case "^":
                return place == 0
            case "$":
                return place == len(self._text)
        return self._is_between(place) is (condition.kind == "b")


@lru_cache(maxsize=1000)
def compiled(text: str) -> Pattern:
    """Return a pattern.

    Raises:
        PatternError: It is not a pattern, or uses what no automaton can follow.
    """
    return Pattern(text)
