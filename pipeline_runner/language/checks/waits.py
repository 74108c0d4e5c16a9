"""``bad-time``: a constant ``until`` is a time in RFC 3339 format."""

import re
from calendar import monthrange
from collections.abc import Iterator
from datetime import datetime

from pipeline_runner.core.expressions.parsing import contains_template
from pipeline_runner.language.diagnostics import Diagnostic
from pipeline_runner.language.document import Document

_RFC_3339 = re.compile(r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d)")


def check(document: Document) -> Iterator[Diagnostic]:
    """Yield constant times that cannot be parsed."""
    for step in document.steps:
        wait = step.node.mapping("wait")
        until = wait.get("until") if wait else None
        text = wait.text("until") if wait else None
        if not until or not text or not text.strip() or contains_template(text):
            continue
        message = f'"{text}" is not a time'
        match = _RFC_3339.fullmatch(text)
        if match is None:
            help_ = "write it as RFC 3339, with the time zone: 2030-01-31T12:00:00Z"
            yield document.source.diagnostic(until.span, "bad-time", message, help_)
        elif not _is_time(text):
            reason = _reason(*map(int, match.groups()[:6]))
            yield document.source.diagnostic(until.span, "bad-time", f"{message}: {reason}")


def _reason(year: int, month: int, day: int, hour: int, minute: int, second: int) -> str:
    """Return why a time with the right format does not exist."""
    if not 1 <= month <= 12:
        return f"there is no month {month}"
    if year and not 1 <= day <= monthrange(year, month)[1]:
        return f"the month {year:04}-{month:02} has no day {day}"
    for value, limit, name in ((hour, 23, "hour"), (minute, 59, "minute"), (second, 59, "second")):
        if value > limit:
            return f"there is no {name} {value}"
    return "there is no year 0" if not year else "its offset from UTC is too large"


def _is_time(text: str) -> bool:
    try:
        # Fractions with more digits than microseconds are allowed, but this function does not accept them.
        datetime.fromisoformat(re.sub(r"\.\d+", "", text.upper()))
    except ValueError:
        return False
    return True
