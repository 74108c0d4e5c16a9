"""Parses YAML into a tree with positions, within limits. Every error becomes a diagnostic.

A loop with its own stack composes the tree from the parser's events: libyaml's own composer recurses in
C, and crashes on a file of a million brackets. Values follow YAML 1.2 (:mod:`scalars`). Imports yaml,
and nothing of the language but nodes and diagnostics.
"""

import codecs
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from pipeline_runner.language.diagnostics import Diagnostic, lines_of
from pipeline_runner.language.yaml import scalars, syntax_errors
from pipeline_runner.language.yaml.nodes import (
    START,
    Entry,
    MappingNode,
    Node,
    Scalar,
    SequenceNode,
    Source,
    Span,
)

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 64
MAX_NODES = 100_000

# Without libyaml, Python produces the same events, ten times more slowly.
_PARSER: Any = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
# The characters that YAML excludes. Compiling the complement would take much longer at every start.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ufffe\uffff]")
# How JSON writes characters beyond U+FFFF. The pattern skips any other escape as a whole.
_PAIR = re.compile(r"\\(?:u(d[89ab]..)\\u(d[c-f]..)|.)", re.IGNORECASE)
_TEMPLATE_HELP = 'put a string that contains a template in quotes: "{{ … }}"'


class _StopError(Exception):
    """The rest of the file cannot be parsed."""

    def __init__(self, diagnostic: Diagnostic) -> None:
        self.diagnostic = diagnostic


def read(path: Path, shown: str) -> tuple[Source, list[Diagnostic]]:
    """Read a file.

    Args:
        path: The file.
        shown: The path that messages show.

    Returns:
        The source, and the errors in its bytes. With errors, the source is empty.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        return decode(file.read(MAX_BYTES + 1), shown)


def decode(data: bytes, shown: str) -> tuple[Source, list[Diagnostic]]:
    """Decode the bytes of a file, like :func:`read`."""
    empty = Source(shown, "")
    if len(data) > MAX_BYTES:
        return empty, [empty.diagnostic(START, "file-too-large", "the file is larger than 1 MiB")]
    if wide := _wide(data):
        message = f"the file is {wide}, not UTF-8"
        return empty, [empty.diagnostic(START, "not-utf8", message, "save the file as UTF-8")]
    body = data.removeprefix(codecs.BOM_UTF8)
    try:
        source = Source(shown, body.decode("utf-8"))
    except UnicodeDecodeError as error:
        line = body.count(b"\n", 0, error.start) + 1
        column = len(body[body.rfind(b"\n", 0, error.start) + 1 : error.start].decode("utf-8", "replace")) + 1
        number = len(data) - len(body) + error.start + 1
        message = f"the file is not UTF-8: byte {number} is 0x{body[error.start]:02x}"
        at = Span(line, column, line, column + 1)
        return empty, [empty.diagnostic(at, "not-utf8", message, "save the file as UTF-8")]
    if bad := _UNPRINTABLE.search(source.text):
        lines = lines_of(source.text[: bad.start()])
        at = Span(len(lines), len(lines[-1]) + 1, len(lines), len(lines[-1]) + 2)
        message = f"the control character U+{ord(bad.group()):04X} is not allowed in YAML"
        return source, [source.diagnostic(at, "yaml-syntax", message)]
    return source, []


def _wide(data: bytes) -> str | None:
    """Return the name of an encoding that uses more than a byte per letter."""
    if data.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "UTF-32"
    # Without a byte order mark, half of the bytes of a Latin text are zero.
    marked = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    start = data[:200]
    return "UTF-16" if marked or start.count(0) > len(start) // 3 else None


def load(source: Source) -> tuple[Node | None, list[Diagnostic]]:
    """Parse a file that contains one YAML document.

    Returns:
        The tree, or None if there are errors; and the errors.
    """
    composer = _Composer(source)
    try:
        composer.compose(_PARSER(_without_pairs(source.text)).get_event)
    except _StopError as stop:
        composer.diagnostics.append(stop.diagnostic)
    except yaml.MarkedYAMLError as error:
        span, message, help_ = syntax_errors.explain(error, source)
        # A key that is a mapping, such as an unquoted template, often breaks the rest of its line.
        if all(found.line != span.line for found in composer.diagnostics):
            composer.diagnostics.append(source.diagnostic(span, "yaml-syntax", message, help_))
    if composer.root is None and not composer.diagnostics:
        composer.diagnostics.append(source.diagnostic(START, "empty-file", "the file is empty"))
    return (None if composer.diagnostics else composer.root), composer.diagnostics


def _without_pairs(text: str) -> str:
    """Return JSON with its surrogate pairs written as in YAML: the only point in which JSON is not YAML."""
    if not text.lstrip().startswith(("{", "[")) or "\\ud" not in text.lower():
        return text
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return text
    return _PAIR.sub(_as_one, text)


def _as_one(escape: re.Match[str]) -> str:
    if not escape[1]:
        return escape[0]
    high, low = (int(part, 16) - start for part, start in ((escape[1], 0xD800), (escape[2], 0xDC00)))
    return f"\\U{0x10000 + (high << 10) + low:08X}"


class _Frame:
    """A list or mapping that is still open."""

    __slots__ = (
        "anchor", "entries", "height", "items", "key", "last", "mapping", "merges", "merging", "size",
        "start",
    )  # fmt: skip

    def __init__(self, start: Any, anchor: str | None, *, mapping: bool) -> None:
        self.start = start
        """The parser's mark."""
        self.anchor = anchor
        self.mapping = mapping
        self.items: list[Node] = []
        self.entries: dict[str, Entry] = {}
        self.merges: list[Node] = []
        self.key: Scalar | None = None
        self.merging = False
        """The key is ``<<``: the value is merged into the mapping."""
        self.size = 1
        self.height = 1
        """The height of the content so far, as in :class:`Sequence`, without merged entries."""
        self.last: Span | None = None
        """Where the last node in it is."""


class _Composer:
    """Builds the tree from events."""

    def __init__(self, source: Source) -> None:
        self.root: Node | None = None
        self.diagnostics: list[Diagnostic] = []
        self._source = source
        self._lines = source.lines
        self._stack: list[_Frame] = []
        self._anchors: dict[str, Node | None] = {}
        """None while the anchored node is still open."""

    def compose(self, events: Callable[[], Any]) -> None:
        """Process the events of a parser. Each call of ``events`` returns the next one.

        A third of the time for checking a file is spent here, so there are no more calls than
        necessary.
        """
        stack, count = self._stack, 0
        while True:
            event = events()
            kind = type(event)
            size = 1  # the content of a list or mapping has been counted when it ends
            if kind is yaml.ScalarEvent:
                node: Node = self._scalar(event)
                at, anchor = node.span, event.anchor
            elif kind is yaml.MappingStartEvent or kind is yaml.SequenceStartEvent:
                self._open(event)
                continue
            elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
                frame = stack.pop()
                node = self._close(frame, event)
                at, anchor = node.span, frame.anchor
            elif kind is yaml.AliasEvent:
                node, at, anchor = self._alias(event), _span(event), None
                size = node.size
            elif kind is yaml.StreamEndEvent:
                return
            else:
                self._check_document(event)
                continue
            count += size
            if count > MAX_NODES:
                raise self._stop(at, "too-many-values", f"the file has more than {MAX_NODES:,} values")
            if anchor:
                self._anchors[anchor] = node
            if stack:
                self._add(stack[-1], node, at)
            else:
                self.root = node

    def _check_document(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.DocumentStartEvent) and self.root is not None:
            message = "a second document begins here, but a file must contain only one"
            raise self._stop(_span(event), "yaml-syntax", message)

    def _scalar(self, event: Any) -> Scalar:
        begin, end = event.start_mark, event.end_mark
        span = Span(begin.line + 1, begin.column + 1, end.line + 1, end.column + 1)
        text: str = event.value
        if not text and span.line > len(self._lines):  # nothing after "---" at the end of the file
            line, column = len(self._lines), len(self._lines[-1]) + 1
            span = Span(line, column, line, column)
        value: Any = text
        try:
            if event.tag is None:
                if event.implicit[0] and text[:1] in scalars.STARTS:
                    value = scalars.resolve(text)
            elif event.tag in scalars.TAGS:
                value = scalars.tagged(text, event.tag)
            elif event.tag != "!":
                self._unknown_tag(span, event.tag)
        except scalars.ScalarError as error:
            self._error(span, "bad-number", str(error))
        if text == "<<" and event.implicit[0] and self._stack and self._stack[-1].key is None:
            self._stack[-1].merging = True
        return Scalar(span, value, text)

    def _open(self, event: yaml.MappingStartEvent | yaml.SequenceStartEvent) -> None:
        mapping = isinstance(event, yaml.MappingStartEvent)
        if event.tag not in (None, "!", f"tag:yaml.org,2002:{'map' if mapping else 'seq'}"):
            self._unknown_tag(_span(event), event.tag)
        if len(self._stack) >= MAX_DEPTH:
            raise self._stop(_span(event), "too-deep", f"this is nested deeper than {MAX_DEPTH} levels")
        if event.anchor:
            self._anchors[event.anchor] = None
        self._stack.append(_Frame(event.start_mark, event.anchor, mapping=mapping))

    def _close(self, frame: _Frame, event: Any) -> Node:
        start, last, end = frame.start, frame.last, event.end_mark
        if last and end.column == event.start_mark.column:
            # For the parser, a block collection ends where the next token starts.
            span = Span(start.line + 1, start.column + 1, last.end_line, last.end_column)
        else:
            span = Span(start.line + 1, start.column + 1, end.line + 1, end.column + 1)
        if frame.merges:
            return self._merged(frame, span)
        if frame.mapping:
            return MappingNode(span, frame.entries, frame.size, frame.height)
        return SequenceNode(span, tuple(frame.items), frame.size, frame.height)

    def _merged(self, frame: _Frame, span: Span) -> MappingNode:
        """Return a mapping with the merged entries. Its own entries take precedence, and come last."""
        entries: dict[str, Entry] = {}
        for merged in frame.merges:
            for source in merged.items if isinstance(merged, SequenceNode) else [merged]:
                if not isinstance(source, MappingNode):
                    self._error(source.span, "merge-key", '"<<" requires a mapping or a list of mappings')
                    continue
                for entry in source:
                    entries.setdefault(entry.name, entry)
        own = frame.entries
        kept = {name: entry for name, entry in entries.items() if name not in own} | own
        size = 1 + sum(1 + entry.value.size for entry in kept.values())
        height = 1 + max((entry.value.height for entry in kept.values()), default=0)
        return MappingNode(span, kept, size, height)

    def _alias(self, event: yaml.AliasEvent) -> Node:
        name = event.anchor
        if name not in self._anchors:
            raise self._stop(_span(event), "unknown-anchor", f'there is no anchor "&{name}" before this')
        node = self._anchors[name]
        if node is None:
            raise self._stop(_span(event), "recursive-alias", f'"*{name}" is inside its own "&{name}"')
        if len(self._stack) + node.height > MAX_DEPTH:
            message = f'"*{name}" nests deeper than {MAX_DEPTH} levels'
            raise self._stop(_span(event), "too-deep", message)
        return node

    def _add(self, frame: _Frame, node: Node, at: Span) -> None:
        """Add a complete node to the open list or mapping."""
        frame.last = at
        key = frame.key
        if key is None:
            if frame.mapping:
                if isinstance(node, Scalar) and isinstance(node.value, str):
                    frame.key = node
                else:
                    frame.key = self._no_text(node, at)
                return
            frame.items.append(node)
            frame.size += node.size
        else:
            frame.key = None
            name = key.text
            if frame.merging:
                frame.merges.append(node)
                frame.merging = False
            elif name in frame.entries:
                line = frame.entries[name].key.span.line
                message = f'duplicate key "{name}": it is already in line {line}'
                self._error(key.span, "duplicate-key", message)
            else:
                frame.entries[name] = Entry(key, node)
                frame.size += 1 + node.size
        if not isinstance(node, Scalar) and node.height >= frame.height:
            frame.height = node.height + 1

    def _no_text(self, node: Node, at: Span) -> Scalar:
        """Report a key that is not a string, and return a replacement."""
        if isinstance(node, Scalar):
            self._error(at, "bad-key", f"a key must be a string: put {node.text or 'it'} in quotes")
            return node
        template = self._source.lines[at.line - 1][max(0, at.column - 2) : at.column] == "{{"
        what = "mapping" if isinstance(node, MappingNode) else "list"
        help_ = _TEMPLATE_HELP if template else None
        self._error(at, "bad-key", f"a key must be a string, not a {what}", help_)
        # Unique, so that a second error of this kind does not count as a duplicate.
        return Scalar(at, None, f"{at.line}:{at.column}")

    def _unknown_tag(self, span: Span, tag: str) -> None:
        name = tag.replace("tag:yaml.org,2002:", "!!")
        self._error(span, "unknown-tag", f'the tag "{name}" has no meaning here', "remove it")

    def _error(self, span: Span, rule: str, message: str, help_: str | None = None) -> None:
        self.diagnostics.append(self._source.diagnostic(span, rule, message, help_))

    def _stop(self, span: Span, rule: str, message: str) -> _StopError:
        return _StopError(self._source.diagnostic(span, rule, message))


def _span(event: yaml.Event) -> Span:
    start: Any = event.start_mark
    end: Any = event.end_mark
    return Span(start.line + 1, start.column + 1, end.line + 1, end.column + 1)
