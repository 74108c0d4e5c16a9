"""``expression-syntax``: every template and expression can be parsed.

Bad: ``when: "{{ inputs.go }}"``; good: ``when: inputs.go``.
"""

import re
from collections.abc import Iterator

from pipeline_runner.language.diagnostics import Diagnostic
from pipeline_runner.language.document import Document, Use
from pipeline_runner.language.nodes import Span

_NAMED = re.compile(r'"(?:\.?(\w+)(?:\(\))?|([^"\w]+))"')
"""What a message quotes first: a word, or an operator."""


def check(document: Document) -> Iterator[Diagnostic]:
    """Yield texts that are no templates, or no expressions."""
    for use in document.uses:
        if use.error is None:
            continue
        if use.bare and "{{" in use.text:
            inner = use.text.strip().removeprefix("{{").removesuffix("}}").strip()
            help_ = f"write {inner}" if "{" not in inner else None
            message = "this is an expression already, and takes no braces"
            yield document.source.error(use.node.span, "expression-syntax", message, help_)
        else:
            span = _place(document, use, use.error.line, use.error.message)
            message = use.error.message
            if use.bare:  # which has no closing braces
                message = message.replace('token "}}"', "the end of the expression")
            yield document.source.error(span, "expression-syntax", message)


def _place(document: Document, use: Use, line: int, message: str) -> Span:
    """Return the line of a block text that the mistake is in, and the word that the message names."""
    span = use.node.span
    if document.source.lines[span.line - 1][span.column - 1 : span.column] == "|":
        number = min(span.line + line, len(document.source.lines))
        content = document.source.lines[number - 1]
        span = Span(number, len(content) - len(content.lstrip()) + 1, number, len(content) + 1)
    named = _NAMED.search(message)
    if not named:
        return span
    operator = rf"(?<![=<>!&|?]){re.escape(named[2] or '')}(?!=)"
    return document.source.find(span, re.compile(rf"\b{named[1]}\b" if named[1] else operator)) or span
