"""Diagnostics: the errors and warnings of a file, as data and as text.

A check only yields diagnostics. :func:`tidy` sorts them and removes repetitions; they are printed
elsewhere. Imports only the standard library, msgspec and the table of rules.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

import msgspec

from pipeline_runner.language.severities import Severity

_LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
_COLOURS = {"error": "\x1b[1;31m", "warning": "\x1b[1;33m", "bold": "\x1b[1m", "dim": "\x1b[2m"}
_RESET = "\x1b[0m"
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_SHOWN = 160


class Diagnostic(msgspec.Struct, frozen=True, kw_only=True):
    """One error or warning: what is wrong, where, and what would be correct."""

    path: str
    """The path of the file, as the user gave it or relative to that."""
    line: int
    """1 for the first line."""
    column: int
    """1 for the first character of the line."""
    end_line: int
    end_column: int
    """The column after the last character."""
    severity: Severity
    rule: str
    """The id of the rule, such as ``unknown-key``."""
    message: str
    help: str | None = None
    """What would be correct, if that is known."""


def tidy(diagnostics: Iterable[Diagnostic]) -> list[Diagnostic]:
    """Return diagnostics in the order of their positions, without repetitions.

    If an anchor is used several times, the help may differ from use to use: the first one is kept.
    """
    unique: dict[Diagnostic, Diagnostic] = {}
    for diagnostic in diagnostics:
        unique.setdefault(msgspec.structs.replace(diagnostic, help=None), diagnostic)
    return sorted(unique.values(), key=lambda d: (d.path, d.line, d.column, d.severity, d.rule, d.message))


def has_errors(diagnostics: Iterable[Diagnostic]) -> bool:
    """Tell whether any of these prevents a start."""
    return any(diagnostic.severity == "error" for diagnostic in diagnostics)


def as_json(diagnostic: Diagnostic) -> dict[str, Any]:
    """Return the fields as plain data, in the order of the JSON format."""
    return msgspec.structs.asdict(diagnostic)


def render(diagnostic: Diagnostic, source: str, *, colour: bool = False) -> str:
    """Return a diagnostic as text, with the line of the source that it is about.

    Args:
        diagnostic: The diagnostic.
        source: The content of the file. If it is empty, no line is shown.
        colour: Use the colours of a terminal.
    """
    d = diagnostic
    paint = _painter(colour=colour)
    head = paint("bold", f"{d.path}:{d.line}:{d.column}:")
    lines = [f"{head} {paint(d.severity, f'{d.severity}:')} {d.message} {paint('dim', f'[{d.rule}]')}"]
    margin = " " * (len(str(d.line)) + 1)
    if text := _line(source, d.line):
        start = min(d.column - 1, len(text))
        end = d.end_column - 1 if d.end_line == d.line else len(text)
        text, start, end = _excerpt(text, start, max(start + 1, min(end, len(text))))
        carets = "^" + "~" * (_width(text[start:end]) - 1)
        lines += [
            paint("dim", f"{margin}|"),
            f"{paint('dim', f'{d.line} |')} {text}".rstrip(),
            f"{paint('dim', f'{margin}|')} {_blank(text[:start])}{paint(d.severity, carets)}",
        ]
    if d.help:
        lines.append(f"{margin}= help: {d.help}")
    return "\n".join(lines)


def _painter(*, colour: bool) -> Callable[[str, str], str]:
    return (lambda name, text: f"{_COLOURS[name]}{text}{_RESET}") if colour else (lambda _, text: text)


@lru_cache(maxsize=8)
def lines_of(text: str) -> list[str]:
    """Return the lines of a source as the YAML parser counts them, without their line breaks."""
    # If all breaks are "\n", as in most files, there is a faster way.
    return text.split("\n") if text.isascii() and "\r" not in text else _LINE_BREAK.split(text)


def _line(source: str, number: int) -> str | None:
    lines = lines_of(source)
    return lines[number - 1] if source and number <= len(lines) else None


def _excerpt(text: str, start: int, end: int) -> tuple[str, int, int]:
    """Return the part of a line to show, and the position of the span in it."""
    # A terminal obeys control characters; a file must not control it.
    text = _CONTROL.sub("\ufffd", text)
    first = max(0, start - _SHOWN // 2) if len(text) > _SHOWN else 0
    shown = text[first : first + _SHOWN]
    if first:
        shown = "…" + shown[1:]
    if first + _SHOWN < len(text):
        shown = shown[:-1] + "…"
    return shown, start - first, max(start - first + 1, min(end - first, len(shown)))


def _blank(text: str) -> str:
    """Return white space as wide as a string on a terminal. Tabs stay tabs."""
    return "".join("\t" if character == "\t" else " " * _width(character) for character in text)


def _width(text: str) -> int:
    """Return the width of a string on a terminal in columns. A tab counts as one."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text
    )
