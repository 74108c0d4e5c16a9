"""Splits SQL into statements: just enough to find where each ends and how it begins.

Semicolons and colons in quotes, comments and bodies of triggers and functions do not count. Imports
only the standard library.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_COMMON = r"""
    (?P<skip> \s+ | --[^\n]* | /\*.*?(?:\*/|\Z) )
  | (?P<end> ; )
  | (?P<cast> :: )
"""
TOKENS = {
    "postgresql": re.compile(
        _COMMON
        + r"""
      | (?P<quoted>
          [eE]'(?:[^'\\]++|\\.|'')*+' | '[^']*' | "[^"]*" | (?P<tag>\$(?:[^\W\d]\w*)?\$).*?(?P=tag)
        )
      | (?P<word> [^\W\d][\w$]* )
      | (?P<other> \d[\w$.]* | . )
    """,
        re.DOTALL | re.VERBOSE,
    ),
    "sqlite": re.compile(
        _COMMON
        + r"""
      | (?P<quoted> '[^']*' | "[^"]*" | `[^`]*` | \[[^\]]*\] )
      | (?P<word> [^\W\d][\w$]* )
      | (?P<other> \d[\w$.]* | . )
    """,
        re.DOTALL | re.VERBOSE,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Statement:
    """One statement without its semicolon, and its words outside of quotes."""

    text: str
    words: list[str]

    def only_reads(self) -> bool:
        """Tell whether a cursor can be declared for it."""
        return self.words[:1] in (["SELECT"], ["VALUES"], ["TABLE"]) and "INTO" not in self.words


def split(text: str, tokens: re.Pattern[str]) -> Iterator[Statement]:
    """Split a string at its semicolons, except those in quotes, comments and bodies."""
    start, depth, some = 0, 0, False
    words: list[str] = []
    for token in tokens.finditer(text):
        kind = token.lastgroup
        if kind == "skip":
            continue
        if kind == "end" and depth == 0:
            if some:
                yield Statement(text=text[start : token.start()], words=words)
            start, some, words = token.end(), False, []
            continue
        some = True
        if kind == "word":
            words.append(token.group().upper())
            depth = _depth(depth, words)
    if some:
        yield Statement(text=text[start:], words=words)


def _depth(depth: int, words: list[str]) -> int:
    """Return the depth of the last word in the body of a trigger or a function."""
    word = words[-1]
    if depth:
        return depth + (word == "CASE") - (word == "END")
    if words[0] != "CREATE":
        return 0
    atomic = word == "ATOMIC" and words[-2] == "BEGIN"  # PostgreSQL: CREATE FUNCTION
    return int(atomic or (word == "BEGIN" and "TRIGGER" in words[1:3]))


def literal(text: str, tokens: re.Pattern[str]) -> str:
    """Escape the colons that do not begin a parameter: those in quotes and comments, and casts."""
    pieces = (
        token.group().replace(":", r"\:") if token.lastgroup in {"quoted", "skip", "cast"} else token.group()
        for token in tokens.finditer(text)
    )
    return "".join(pieces)
