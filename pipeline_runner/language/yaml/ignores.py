"""Comments that silence a warning: ``# pipeline: ignore[rule-id]``.

At the end of a line, a comment applies to that line. On its own line, it applies to the next one,
including a block scalar that begins there, which cannot contain comments itself. The brackets may
contain several rules, separated by commas. Errors cannot be ignored, because nothing can be started
with them. A comment that silences nothing is reported as ``unneeded-ignore``.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from pipeline_runner.core.suggest import did_you_mean
from pipeline_runner.language.diagnostics import Diagnostic
from pipeline_runner.language.yaml.nodes import MappingNode, Node, Scalar, SequenceNode, Source, Span

MARK = "ignore["
"""What every file with such a comment contains."""

_COMMENT = re.compile(r"(?:^|(?<=\s))#\s*pipeline:\s*ignore\[([^\]]*)\]")
_RULE = re.compile(r"[^\s,]+")
_HEADER = re.compile(r"(?:[&!]\S*\s+)*[|>][-+\d]*\s*")
"""What may precede a comment on the line on which a block scalar begins."""


@dataclass(frozen=True)
class _Ignore:
    """One rule in a comment."""

    rule: str
    span: Span
    line: int
    """The line that it applies to."""


def apply(source: Source, root: Node, found: Iterable[Diagnostic]) -> Iterator[Diagnostic]:
    """Yield the remaining diagnostics of a file, and the comments that are not needed."""
    ignores = list(_ignores(source, root))
    long = [span for span in _scalars(root) if span.line < span.end_line] if ignores else []
    used: set[_Ignore] = set()
    errors: set[tuple[str, int]] = set()
    for diagnostic in found:
        line, column = diagnostic.line, diagnostic.column
        lines = {line, *(span.line for span in long if _is_inside(span, line, column))}
        meant = {one for one in ignores if one.rule == diagnostic.rule and one.line in lines}
        if diagnostic.severity == "error":
            errors |= {(diagnostic.rule, one) for one in lines}
        elif meant:
            used |= meant
            continue
        yield diagnostic
    for ignore in ignores:
        if ignore not in used:
            help_ = "remove it"
            if (ignore.rule, ignore.line) in errors:
                message = f'"{ignore.rule}" is an error here, and errors cannot be ignored'
            elif unknown := _unknown(ignore.rule):
                message, help_ = unknown
            elif errors and ignore.rule.startswith("unused-"):
                continue  # the rule is not checked
            else:
                message = f'there is no warning "{ignore.rule}" on line {ignore.line} to ignore'
            yield source.diagnostic(ignore.span, "unneeded-ignore", message, help_)


@lru_cache(maxsize=1000)
def _unknown(rule: str) -> tuple[str, str] | None:
    """Return that there is no such rule, and which one may be meant; None: it exists."""
    from pipeline_runner.language import rules

    known = rules.ids()
    if rule in known:
        return None
    return f'there is no rule "{rule}"', did_you_mean(rule, known) or "remove it"


def _ignores(source: Source, root: Node) -> Iterator[_Ignore]:
    spans: list[Span] | None = None
    for number, line in enumerate(source.lines, 1):
        match = _COMMENT.search(line)
        if match is None:
            continue
        if spans is None:
            spans = list(_scalars(root))
        if any(_is_text(line, span, number, match.start() + 1) for span in spans):
            continue  # it only looks like a comment
        # Another comment may precede it if the line has no code.
        before = line[: match.start()].strip()
        about = number if before and not before.startswith("#") else number + 1
        for rule in _RULE.finditer(match[1]):
            start = match.start(1) + rule.start() + 1
            yield _Ignore(rule.group(), Span(number, start, number, start + len(rule.group())), about)


def _scalars(node: Node) -> Iterator[Span]:
    match node:
        case Scalar(span=span):
            yield span
        case SequenceNode(items=items):
            for item in items:
                yield from _scalars(item)
        case MappingNode(entries=entries):
            for entry in entries:
                yield entry.key.span
                yield from _scalars(entry.value)


def _is_text(text: str, span: Span, line: int, column: int) -> bool:
    """Tell whether a position in a line belongs to the text of a scalar."""
    if not _is_inside(span, line, column):
        return False
    return span.line != line or not _HEADER.fullmatch(text, span.column - 1, column - 1)


def _is_inside(span: Span, line: int, column: int) -> bool:
    return (span.line, span.column) <= (line, column) < (span.end_line, span.end_column)
