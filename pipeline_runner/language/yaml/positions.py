"""Finds the position in the file of a part of a scalar's value.

In the file, a value may be folded, indented, quoted and escaped, and follow an anchor or a tag. These
change only white space, quotes and escapes: the other characters have the same order in the file as in
the value (YAML 1.2.2, chapters 7 and 8), and can be counted.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import accumulate

from pipeline_runner.language.yaml.nodes import Scalar, Source, Span

_PROPERTIES = re.compile(r"(?:[&!]\S*\s+)+")
_ESCAPE = re.compile(r"\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)", re.DOTALL)
# Escapes for white space, or for nothing: "\" at the end of a line.
_BLANK = frozenset("tnrNLP_ \t\nvf")
_NAMED = frozenset("0abe")


def part_of(source: Source, scalar: Scalar, start: int, end: int) -> Span:
    """Return the position of the characters ``start`` to ``end`` of a scalar's value.

    A part of white space alone has the position of the next character. If the value cannot be found in
    the file, return the span of the whole scalar.
    """
    before, places = _layout(source, scalar.span, scalar.text)
    first, after = (before[min(max(0, place), len(scalar.text))] for place in (start, end))
    if first >= len(places) or len(places) != before[-1]:
        return scalar.span
    line, column, _ = places[first]
    last = places[max(first, min(after, len(places)) - 1)]
    return Span(line, column, last[0], last[2])


# A value may have thousands of parts, requested one after the other.
@lru_cache(maxsize=4)
def _layout(source: Source, span: Span, text: str) -> tuple[list[int], list[tuple[int, int, int]]]:
    """Return the number of visible characters before each character and in all, and the position of each."""
    before = [0, *accumulate(not character.isspace() for character in text)]
    return before, list(_visible(source, span))


def _visible(source: Source, span: Span) -> Iterator[tuple[int, int, int]]:
    """Yield the line, the column and the end column of each visible character of the value."""
    raw, begin = _raw(source, span)
    style = raw[begin : begin + 1]
    if style in ("|", ">"):
        begin, end = (raw + "\n").index("\n", begin), len(raw)
    elif style in ("'", '"'):
        begin, end = begin + 1, len(raw.rstrip()) - 1
    else:
        end = len(raw)
    line = span.line + raw.count("\n", 0, begin)
    origin = raw.rfind("\n", 0, begin) + 1
    while begin < end:
        width, visible = _one(raw, begin, style)
        if visible:
            yield line, begin - origin + 1, begin - origin + 1 + width
        if "\n" in raw[begin : begin + width]:
            line, origin = line + 1, begin + width
        begin += width


def _raw(source: Source, span: Span) -> tuple[str, int]:
    """Return the lines of a scalar as they are in the file, and where it begins after its properties."""
    lines = source.lines[span.line - 1 : span.end_line]
    if len(lines) > span.end_line - span.line:  # else it continues to the end of the file
        lines[-1] = lines[-1][: span.end_column - 1]
    raw = "\n".join(lines)
    properties = _PROPERTIES.match(raw, span.column - 1)
    return raw, properties.end() if properties else span.column - 1


def _one(raw: str, begin: int, style: str) -> tuple[int, bool]:
    """Return the width of a character in the file, and whether it is visible."""
    character = raw[begin]
    if style == "'" and character == "'":
        return 2, True
    if style == '"' and character == "\\" and (escape := _ESCAPE.match(raw, begin)):
        return len(escape[0]), _is_visible(escape[0][1:])
    return 1, not character.isspace()


def _is_visible(escape: str) -> bool:
    if len(escape) > 1:
        return not chr(int(escape[1:], 16)).isspace()
    return escape in _NAMED or escape not in _BLANK
