"""``expression-syntax``, and the filters, tests and functions that the language does not have."""

import re
from collections.abc import Iterator

from pipeline_runner.core.expressions import parsing
from pipeline_runner.language.diagnostics import Diagnostic
from pipeline_runner.language.document import Document

_BRACES = re.compile(r"\{\{\s*|\s*\}\}")

RULES = {
    "syntax": "expression-syntax",
    "filter": "unknown-filter",
    "test": "unknown-test",
    "function": "unknown-function",
    "nondeterminism": "not-deterministic",
    "number": "bad-number",
}
"""By the kind of an error."""


def check(document: Document) -> Iterator[Diagnostic]:
    """Yield strings that are not valid templates or expressions."""
    source = document.source
    for use in document.uses:
        if not use.errors or not use.text.strip():
            continue  # another rule reports that it is empty
        if use.errors and use.bare and "{{" in use.text:
            inner = _BRACES.sub("", use.text).strip()
            help_ = f"write {inner}" if _is_expression(inner) else None
            message = "this is already an expression, so it must not have braces"
            yield source.diagnostic(use.node.span, "expression-syntax", message, help_)
            continue
        for error in use.errors:
            message, help_ = error.message, ""
            if error.kind != "syntax":
                message, _, help_ = message.partition(": ")
            if use.bare:  # which has no closing braces
                message = message.replace('token "}}"', "the end of the expression")
            span = use.at(source, error.offset, error.word)
            yield source.diagnostic(span, RULES[error.kind], message, help_ or None)


def _is_expression(text: str) -> bool:
    try:
        parsed = parsing.parse(text, bare=True)
    except parsing.ExpressionError:
        return False
    return parsing.is_lone(parsed.tree) and not parsed.problems
