"""The syntax of patterns: the regular expressions of ECMA 262, parsed into their parts.

Back-references, which no automaton can follow, are refused, and so are properties of characters other than
categories.
"""

import unicodedata
from bisect import bisect_right
from typing import Any, NamedTuple, NoReturn

MAX_REPEATS = 20_000
"""The maximum bound of a repeat."""
MAX_DEPTH = 50
"""The maximum depth of nested groups."""

_DIGIT = ((48, 57),)
_WORD = ((48, 57), (65, 90), (95, 95), (97, 122))
_SPACE = (
    (9, 13), (32, 32), (160, 160), (0x1680, 0x1680), (0x2000, 0x200A), (0x2028, 0x2029),
    (0x202F, 0x202F), (0x205F, 0x205F), (0x3000, 0x3000), (0xFEFF, 0xFEFF),
)  # fmt: skip
_BREAKS = ((10, 10), (13, 13), (0x2028, 0x2029))
_CONTROLS = {"t": 9, "n": 10, "v": 11, "f": 12, "r": 13, "0": 0}
_CATEGORIES = frozenset(
    [
        "C", "Cc", "Cf", "Cn", "Co", "Cs", "L", "Ll", "Lm", "Lo", "Lt", "Lu", "M", "Mc", "Me", "Mn", "N",
        "Nd", "Nl", "No", "P", "Pc", "Pd", "Pe", "Pf", "Pi", "Po", "Ps", "S", "Sc", "Sk", "Sm", "So", "Z",
        "Zl", "Zp", "Zs",
    ]
)  # fmt: skip
_LONG_NAMES = {
    "Letter": "L", "Uppercase_Letter": "Lu", "Lowercase_Letter": "Ll", "Mark": "M", "Number": "N",
    "Decimal_Number": "Nd", "Punctuation": "P", "Symbol": "S", "Separator": "Z", "Other": "C",
}  # fmt: skip
_HEX = frozenset("0123456789abcdefABCDEF")

Ranges = tuple[tuple[int, int], ...]


class PatternError(ValueError):
    """A pattern cannot be used, or not on this string. The message gives the reason."""


class Characters(NamedTuple):
    """A set of characters."""

    ranges: Ranges = ()
    categories: tuple[str, ...] = ()
    sets: tuple["Characters", ...] = ()
    negated: bool = False

    def has(self, character: str) -> bool:
        """Tell whether a character is in the set."""
        code = ord(character)
        place = bisect_right(self.ranges, (code, 0x110000)) - 1
        found = place >= 0 and self.ranges[place][1] >= code
        if not found and self.categories:
            found = unicodedata.category(character).startswith(self.categories)
        return (found or any(one.has(character) for one in self.sets)) is not self.negated


WORD = Characters(_WORD)
"""The characters of words."""
_NAMED = {
    "d": Characters(_DIGIT), "D": Characters(_DIGIT, negated=True),
    "w": WORD, "W": Characters(_WORD, negated=True),
    "s": Characters(_SPACE), "S": Characters(_SPACE, negated=True),
}  # fmt: skip


class Sequence(NamedTuple):
    """Parts one after the other."""

    parts: list[Any]


class Either(NamedTuple):
    """One of several parts."""

    parts: list[Any]


class Repeat(NamedTuple):
    """A repeated part; ``high`` is None if there is no limit."""

    body: Any
    low: int
    high: int | None


class Edge(NamedTuple):
    """A position: ``^``, ``$``, ``b`` or ``B``."""

    kind: str


class Look(NamedTuple):
    """A lookahead or a lookbehind, positive or negative."""

    body: Any
    behind: bool
    negative: bool


Node = Characters | Sequence | Either | Repeat | Edge | Look


class _Parser:
    """Parses a pattern."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0

    def whole(self) -> Any:
        node = self._either()
        if self._at < len(self._text):
            self._fail('a ")" has no matching "("')
        return node

    def _fail(self, what: str) -> NoReturn:
        raise PatternError(f"{what}, at character {self._at + 1} of the pattern")

    def _take(self, text: str) -> bool:
        if not self._text.startswith(text, self._at):
            return False
        self._at += len(text)
        return True

    def _next(self) -> str:
        if self._at >= len(self._text):
            self._fail("the pattern ends too early")
        self._at += 1
        return self._text[self._at - 1]

    def _either(self) -> Any:
        parts = [self._sequence()]
        while self._take("|"):
            parts.append(self._sequence())
        return parts[0] if len(parts) == 1 else Either(parts)

    def _sequence(self) -> Any:
        parts: list[Any] = []
        while self._at < len(self._text) and self._text[self._at] not in "|)":
            node = self._atom()
            parts.append(self._repeated(node))
        return Sequence(parts)

    def _atom(self) -> Any:
        character = self._next()
        if character in "*+?":
            self._at -= 1
            self._fail("there is nothing to repeat")
        match character:
            case "^" | "$":
                return Edge(character)
            case ".":
                return Characters(_BREAKS, negated=True)
            case "[":
                return self._class()
            case "(":
                return self._group()
            case "\\":
                return self._escape()
        return _one(ord(character))

    def _group(self) -> Any:
        look = self._look()
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._fail("the pattern is nested too deeply")
        node = self._either()
        self._depth -= 1
        if not self._take(")"):
            self._fail('a "(" is not closed')
        return node if look is None else look._replace(body=node)

    def _look(self) -> Look | None:
        """Parse what follows the bracket of a group; None: it is neither a lookahead nor a lookbehind."""
        if not self._take("?") or self._take(":"):
            return None
        for sign, behind, negative in (
            ("=", False, False), ("!", False, True), ("<=", True, False), ("<!", True, True),
        ):  # fmt: skip
            if self._take(sign):
                return Look(None, behind, negative)
        if not self._take("<"):
            self._fail(
                '"(?" does not begin a group of ECMA 262: there are no flags, and a named group is (?<name>…)'
            )
        if not self._until(">").isidentifier():
            self._fail("this is not a valid group name")
        return None

    def _until(self, end: str) -> str:
        place = self._text.find(end, self._at)
        if place < 0:
            self._fail(f'a "{end}" is missing')
        found, self._at = self._text[self._at : place], place + 1
        return found

    def _repeated(self, node: Any) -> Any:
        bounds = self._bounds()
        if bounds is None:
            return node
        if isinstance(node, Edge):
            self._fail("an assertion cannot be repeated")
        self._take("?")  # the order of the alternatives does not matter here
        low, high = bounds
        if high is not None and high < low:
            self._fail("the bounds of a repeat are out of order")
        return Repeat(node, low, high)

    def _bounds(self) -> tuple[int, int | None] | None:
        for sign, bounds in (("*", (0, None)), ("+", (1, None)), ("?", (0, 1))):
            if self._take(sign):
                return bounds
        end = self._text.find("}", self._at)
        if not self._text.startswith("{", self._at) or end < 0:
            return None
        low, comma, high = self._text[self._at + 1 : end].partition(",")
        if not _is_count(low) or (high and not _is_count(high)):
            return None  # then the brace is literal
        self._at = end + 1
        if any(len(count) > 9 or int(count or 0) > MAX_REPEATS for count in (low, high)):
            self._fail("the pattern is too large: it repeats too much")
        return int(low), (int(high) if high else None if comma else int(low))

    def _class(self) -> Characters:
        negated = self._take("^")
        ranges: list[tuple[int, int]] = []
        sets: list[Characters] = []
        while not self._take("]"):
            low = self._member()
            if self._text.startswith("-", self._at) and not self._text.startswith("-]", self._at):
                self._at += 1
                high = self._member()
                if isinstance(low, int) and isinstance(high, int):
                    if high < low:
                        self._fail("a range of characters is out of order")
                    ranges.append((low, high))
                    continue
                sets += [_one(one) if isinstance(one, int) else one for one in (low, high)] + [_one(45)]
            elif isinstance(low, int):
                ranges.append((low, low))
            else:
                sets.append(low)
        return Characters(_merged(ranges), (), tuple(sets), negated)

    def _member(self) -> "int | Characters":
        character = self._next()
        if character != "\\":
            return ord(character)
        if self._take("b"):
            return 8
        found = self._escape()
        if isinstance(found, Edge):
            self._fail("an assertion is not a character")
        code = found.ranges[0][0] if found.ranges else -1
        return code if found == _one(code) else found

    def _escape(self) -> Any:
        character = self._next()
        if character in "bB":
            return Edge(character)
        if character in _NAMED:
            return _NAMED[character]
        if character in "pP":
            return self._property(negated=character == "P")
        return _one(self._code_of(character))

    def _code_of(self, character: str) -> int:
        """Return the code of the character in an escape sequence."""
        match character:
            case "c":
                return ord(self._next()) % 32
            case "x":
                return self._code(2)
            case "u":
                return self._unicode()
        if character in _CONTROLS:
            return _CONTROLS[character]
        if character in "123456789k":
            self._fail("back-references are not available")
        if character.isascii() and character.isalpha():
            instead = {"A": ": write ^", "Z": ": write $", "z": ": write $"}.get(character, "")
            self._fail(f'"\\{character}" has no meaning in ECMA 262{instead}')
        return ord(character)

    def _code(self, length: int) -> int:
        digits = self._text[self._at : self._at + length]
        if len(digits) < length or not set(digits) <= _HEX:
            self._fail(f"{length} hexadecimal digits are missing")
        self._at += length
        return int(digits, 16)

    def _unicode(self) -> int:
        if self._take("{"):
            digits = self._until("}")
            if not 0 < len(digits) <= 6 or not set(digits) <= _HEX or int(digits, 16) > 0x10FFFF:
                self._fail("this is not a character code")
            return int(digits, 16)
        code = self._code(4)
        if 0xD800 <= code < 0xDC00 and self._text.startswith("\\u", self._at):
            before, self._at = self._at, self._at + 2
            low = self._code(4)
            if 0xDC00 <= low < 0xE000:
                return 0x10000 + (code - 0xD800) * 0x400 + low - 0xDC00
            self._at = before
        return code

    def _property(self, *, negated: bool) -> Characters:
        if not self._take("{"):
            self._fail('a "{" is missing')
        name = self._until("}").removeprefix("gc=").removeprefix("General_Category=")
        category = _LONG_NAMES.get(name, name)
        if category not in _CATEGORIES:
            self._fail(f'there is no character category "{name}"')
        return Characters((), (category,), negated=negated)


def _one(code: int) -> Characters:
    return Characters(((code, code),))


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _merged(ranges: list[tuple[int, int]]) -> Ranges:
    merged: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], high))
        else:
            merged.append((low, high))
    return tuple(merged)


def parse(text: str) -> Node:
    """Return the parts of a pattern.

    Raises:
        PatternError: It is not a pattern, or uses what no automaton can follow.
    """
    node: Node = _Parser(text).whole()
    return node
