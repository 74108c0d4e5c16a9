"""Translates the YAML parser's errors: what is wrong, and what would be correct."""

import yaml

from pipeline_runner.language.diagnostics import lines_of
from pipeline_runner.language.yaml.nodes import Source, Span

_QUOTE = "put the string in quotes"
_SENTENCES = {
    "mapping values are not allowed": (
        'a ":" is not allowed here',
        'put a string that contains ": " in quotes, or check the indentation',
    ),
    "found a tab character": ("tabs are not allowed for indentation", "indent with spaces"),
    "found unknown escape character": (
        'this "\\" does not begin a known escape sequence',
        'write "\\\\", or use single quotes',
    ),
    "found undefined tag handle": ("this tag has no meaning here", "remove it"),
    "found incompatible YAML document": ("only YAML 1.x can be read", None),
    "did not find expected <document start>": ("the document already ended before this", None),
    "expected '<document start>'": ("the document already ended before this", None),
    "did not find expected comment or line break": (
        'only a comment may follow "|" or ">" on its line',
        None,
    ),
    "did not find expected '-' indicator": (
        "this line is not an element of the list that begins in line {context}",
        'start it with "- " or check the indentation',
    ),
    "could not find expected ':'": ('a ":" is missing after the key in line {context}', None),
    "block sequence entries are not allowed": ("a list is not allowed here", "begin it on a new line"),
    "did not find expected ',' or ']'": ('the "[" in line {context} is not closed before this', None),
    "expected ',' or ']'": ('the "[" in line {context} is not closed before this', None),
    "did not find expected ',' or '}'": ('the "{{" in line {context} is not closed before this', None),
    "expected ',' or '}'": ('the "{{" in line {context} is not closed before this', None),
    "found unexpected end of stream": ("the quote in line {context} is never closed", None),
    "did not find expected alphabetic or numeric": (
        'a name must follow "*" or "&"',
        "put the string in quotes if it merely begins with that character",
    ),
    "expected alphabetic or numeric": (
        'a name must follow "*" or "&"',
        "put the string in quotes if it merely begins with that character",
    ),
    "did not find expected node content": ("a value was expected here", None),
    "expected the node content": ("a value was expected here", None),
    "did not find expected key": (
        "this does not belong here: the mapping in line {context} continues with a key",
        "put the whole string in quotes, or check the indentation",
    ),
    "expected <block end>": (
        "this does not belong here: the mapping in line {context} continues with a key",
        "put the whole string in quotes, or check the indentation",
    ),
}


def explain(error: yaml.MarkedYAMLError, source: Source) -> tuple[Span, str, str | None]:
    """Return where a syntax error is, what is wrong, and what would be correct."""
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    problem = str(error.problem)
    if "tab character" in problem or "cannot start any token" in problem:
        column = _first_odd(source, line, column)
    last, end = _end(source)
    opened = None
    if (line, column) >= (last, end):
        # The end of the file explains nothing; the part that is still open there does.
        unclosed = "end of stream" in problem or "',' or '" in problem
        opened = error.context_mark if unclosed else None
        line, column = (opened.line + 1, opened.column + 1) if opened else (last, end)
    span = Span(line, column, line, column + 1)
    if ("expected key" in problem or "'-' indicator" in problem or "<block end>" in problem) and (
        found := _element(source, line)
    ):
        return span, *found
    message, help_ = _sentence(problem, _character(source, span))
    if opened:
        message = message.replace("is not closed before this", "is never closed")
    context = error.context_mark.line + 1 if error.context_mark else line
    if "{{" in _before(source, span) and not message.startswith('the "['):
        help_ = 'put a string that contains a template in quotes: "{{ … }}"'
    return span, message.format(context=context), help_


def _element(source: Source, line: int) -> tuple[str, str] | None:
    """Return how an element of a list should be indented; None: the line is not an element."""
    own = _indent(source, line)
    if own is None:
        return None
    others = []
    for number in range(line - 1, 0, -1):
        text = source.lines[number - 1]
        bare = text.strip()
        if bare and not bare.startswith("#") and len(text) - len(text.lstrip()) <= own:
            break
        if (indent := _indent(source, number)) is not None:
            others.append((indent, number))
    if not others:
        return None
    indent, number = min(others)
    mine = f"is indented by {_spaces(own)}" if own else "is not indented"
    message = f"this element {mine}, but the elements before it by {_spaces(indent)}"
    return message, f"indent it like line {number}"


def _indent(source: Source, line: int) -> int | None:
    """Return the indentation of a line that begins an element of a list; None: it begins none."""
    text = source.lines[line - 1] if line <= len(source.lines) else ""
    bare = text.lstrip(" ")
    return len(text) - len(bare) if bare.startswith("- ") or bare == "-" else None


def _spaces(count: int) -> str:
    return "1 space" if count == 1 else f"{count} spaces"


def _sentence(problem: str, character: str) -> tuple[str, str | None]:
    if "cannot start any token" in problem:
        if character == "\t":
            return _SENTENCES["found a tab character"]
        return f'a string cannot begin with "{character}" here', _QUOTE
    for start, sentence in _SENTENCES.items():
        if problem.startswith(start):
            return sentence
    return "this is not valid YAML: " + problem.replace("{", "{{").replace("}", "}}"), None


def _end(source: Source) -> tuple[int, int]:
    """Return the line and column after the last character other than white space."""
    lines = source.text.rstrip() and lines_of(source.text.rstrip())
    return (len(lines), len(lines[-1]) + 1) if lines else (1, 1)


def _character(source: Source, span: Span) -> str:
    lines = source.lines
    line = lines[span.line - 1] if span.line <= len(lines) else ""
    return line[span.column - 1 : span.column] or "the end of the line"


def _before(source: Source, span: Span) -> str:
    lines = source.lines
    line = lines[span.line - 1] if span.line <= len(lines) else ""
    return line[: span.column - 1].partition(": ")[2].lstrip("- ")[:2]


def _first_odd(source: Source, line: int, column: int) -> int:
    """Return the column of a tab in the indentation. The parser reports the start of the indentation."""
    text = source.lines[line - 1] if line <= len(source.lines) else ""
    indent = text[: len(text) - len(text.lstrip())]
    return indent.index("\t") + 1 if "\t" in indent and column <= len(indent) else column
