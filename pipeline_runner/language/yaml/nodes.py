"""A YAML file as a tree in which every node knows its position.

Positions count from 1, and columns count characters; an end is the column after the last character.
Imports no parser: the loader builds these nodes, everything else reads them.
"""

import json
import re
from collections.abc import Collection, Iterator
from typing import Any, ClassVar, Self

import msgspec

from pipeline_runner.language.diagnostics import Diagnostic, lines_of
from pipeline_runner.language.severities import SEVERITIES

_BLOCK = re.compile(r"(?:[&!]\S*\s+)*[|>][-+0-9]*\s*(?:#.*)?$")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


# A tree has no cycles: "gc=False" saves the search for them.


class Span(msgspec.Struct, frozen=True, gc=False):
    """A range in the source."""

    line: int
    column: int
    end_line: int
    end_column: int

    def to(self, other: Self) -> "Span":
        """Return the span from the start of this one to the end of the other."""
        return Span(self.line, self.column, other.end_line, other.end_column)


class Scalar(msgspec.Struct, frozen=True, gc=False):
    """A single value: a string, number, boolean or null."""

    span: Span
    value: str | int | float | bool | None
    text: str
    """The text in the file, unquoted and unfolded."""
    size: ClassVar[int] = 1
    height: ClassVar[int] = 0


class SequenceNode(msgspec.Struct, frozen=True, gc=False):
    """A list."""

    span: Span
    items: tuple["Node", ...]
    size: int
    """The number of nodes in this tree, counted each time an alias repeats them."""
    height: int
    """The number of levels below this one."""


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A key of a mapping with its value."""

    key: Scalar
    value: "Node"

    @property
    def name(self) -> str:
        """Return the key's text."""
        return self.key.text


class MappingNode(msgspec.Struct, frozen=True, gc=False):
    """A mapping with strings as keys, after merging."""

    span: Span
    by_name: dict[str, Entry]
    """In the order of the file."""
    size: int
    height: int

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The entries, in the order of the file."""
        return tuple(self.by_name.values())

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.by_name.values())

    def __contains__(self, name: str) -> bool:
        return name in self.by_name

    def entry(self, name: str) -> Entry | None:
        """Return the entry of a key; None: there is none."""
        return self.by_name.get(name)

    def get(self, name: str) -> "Node | None":
        """Return the value of a key; None: there is none."""
        entry = self.by_name.get(name)
        return entry.value if entry else None

    def text(self, name: str) -> str | None:
        """Return the value of a key if it is a string."""
        value = self.get(name)
        return value.value if isinstance(value, Scalar) and isinstance(value.value, str) else None

    def mapping(self, name: str) -> "MappingNode | None":
        """Return the value of a key if it is a mapping."""
        value = self.get(name)
        return value if isinstance(value, MappingNode) else None

    def items(self, name: str) -> tuple["Node", ...]:
        """Return the elements of a key's value if that is a list, else nothing."""
        value = self.get(name)
        return value.items if isinstance(value, SequenceNode) else ()


Node = Scalar | SequenceNode | MappingNode


def plain(node: Node) -> Any:
    """Return a tree as plain data. Templates stay strings."""
    match node:
        case Scalar(value=value):
            return value
        case SequenceNode(items=items):
            return [plain(item) for item in items]
        case MappingNode(entries=entries):
            return {entry.name: plain(entry.value) for entry in entries}


def made(value: Any, span: Span) -> Node:
    """Return plain data as a tree whose nodes all have the same position."""
    match value:
        case dict():
            by_name = {key: Entry(Scalar(span, key, key), made(one, span)) for key, one in value.items()}
            inner = [entry.value for entry in by_name.values()]
            return MappingNode(span, by_name, *_extent(inner))
        case list() | tuple():
            items = tuple(made(one, span) for one in value)
            return SequenceNode(span, items, *_extent(items))
        case _:
            return Scalar(span, value, value if isinstance(value, str) else json.dumps(value))


def _extent(inner: Collection[Node]) -> tuple[int, int]:
    """Return the size and height of a node with this content."""
    return 1 + sum(one.size for one in inner), 1 + max((one.height for one in inner), default=0)


def scalars(node: Node | None) -> Iterator[Scalar]:
    """Yield the scalars of a tree, including its keys."""
    match node:
        case Scalar():
            yield node
        case SequenceNode(items=items):
            for item in items:
                yield from scalars(item)
        case MappingNode():
            for entry in node:
                yield entry.key
                yield from scalars(entry.value)


def kind_of(node: Node) -> str:
    """Return the kind of a node for a message: ``a list``, ``the number 3``, ``empty``."""
    match node:
        case MappingNode():
            return "a mapping"
        case SequenceNode():
            return "a list"
        case Scalar(value=None):
            return "empty"
        case Scalar(value=bool()):
            return f"the boolean {node.text}"
        case Scalar(value=str()):
            return "a string"
        case _:
            return f"the number {node.text}"


class Source:
    """The text of a file, with the path that messages show."""

    def __init__(self, path: str, text: str) -> None:
        self.path = path
        self.text = text

    @property
    def lines(self) -> list[str]:
        """The lines without their line breaks."""
        return lines_of(self.text)

    def find(self, span: Span, pattern: re.Pattern[str]) -> Span | None:
        """Return the first match of a pattern on the lines of a span; None: there is none."""
        for number in range(span.line, min(span.end_line, len(self.lines)) + 1):
            line = self.lines[number - 1]
            start = span.column - 1 if number == span.line else 0
            end = span.end_column - 1 if number == span.end_line else len(line)
            if match := pattern.search(line, start, end):
                return Span(number, match.start() + 1, number, match.end() + 1)
        return None

    def diagnostic(self, span: Span, rule: str, message: str, help_: str | None = None) -> Diagnostic:
        """Return the diagnostic of a rule at a position of this file. :data:`SEVERITIES` has its severity."""
        span = self._text_of(span)
        return Diagnostic(
            path=self.path,
            line=span.line,
            column=span.column,
            end_line=span.end_line,
            end_column=span.end_column,
            severity=SEVERITIES[rule],
            rule=rule,
            message=_one_line(message),
            help=_one_line(help_) if help_ else None,
        )

    def _text_of(self, span: Span) -> Span:
        """Return the lines of a block scalar; any other span is unchanged."""
        if span.end_line == span.line or not _BLOCK.match(self.lines[span.line - 1], span.column - 1):
            return span
        last = span.end_line if span.end_column > 1 else span.end_line - 1
        full = [n for n in range(span.line + 1, min(last, len(self.lines)) + 1) if self.lines[n - 1].strip()]
        if not full:
            return span
        first, end = self.lines[full[0] - 1], self.lines[full[-1] - 1]
        return Span(full[0], len(first) - len(first.lstrip()) + 1, full[-1], len(end.rstrip()) + 1)


def _one_line(message: str) -> str:
    """Escape line breaks and terminal commands that a quoted value may contain."""
    return _CONTROL.sub(lambda match: repr(match.group())[1:-1], message)


START = Span(1, 1, 1, 1)
"""The position of messages about a whole file."""
