"""``bad-time``: a constant ``until`` is a time as RFC 3339 writes it.

Bad: ``wait: {until: tomorrow}``; good: ``wait: {until: 2030-01-31T12:00:00Z}``.
"""

import re
from collections.abc import Iterator
from datetime import datetime

from pipeline_runner.core.expressions import contains_template
from pipeline_runner.language.diagnostics import Diagnostic
from pipeline_runner.language.document import Document

_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")


def check(document: Document) -> Iterator[Diagnostic]:
    """Yield constant times that cannot be read."""
    for step in document.steps:
        wait = step.node.mapping("wait")
        until = wait.get("until") if wait else None
        text = wait.text("until") if wait else None
        if until and text and not contains_template(text) and not _is_time(text):
            message = f'"{text}" is not a time'
            help_ = "write it as RFC 3339, with the time zone: 2030-01-31T12:00:00Z"
            yield document.source.error(until.span, "bad-time", message, help_)


def _is_time(text: str) -> bool:
    if not _RFC_3339.fullmatch(text):
        return False
    try:
        # Longer fractions than microseconds are allowed, but not read by this function.
        datetime.fromisoformat(re.sub(r"\.\d+", "", text.upper()))
    except ValueError:
        return False
    return True
