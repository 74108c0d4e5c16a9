"""``lost-brace``: a template has two braces on each side."""

import re
from collections.abc import Iterator

from jinja2 import nodes

from pipeline_runner.language.diagnostics import Diagnostic
from pipeline_runner.language.document import Document

_LOST = re.compile(
    r"(?<!\{)\{(?![{%#])\s*(?:inputs|steps|secrets|run|item|step|error)(?:\.\w+|\[[^\]{}]*\])+[^{}]*\}\}?(?!\})"
)


def check(document: Document) -> Iterator[Diagnostic]:
    """Yield strings that look like templates, but lack a brace."""
    for use in document.uses:
        text = use.text
        paired = text.count("{") == 2 * text.count("{{")  # as they nearly always are
        if paired or use.bare or use.tree is None or not _LOST.search(text):
            continue
        for data in use.tree.find_all(nodes.TemplateData):  # not what is already an expression
            match = _LOST.search(data.data)
            if match is None:
                continue
            span = use.at(document.source, data.lineno - 1 + match.start(), match[0])
            inner = match[0].strip("{}").strip()
            message = "this is a plain string: a template begins with two braces"
            yield document.source.diagnostic(span, "lost-brace", message, f"write {{{{ {inner} }}}}")
