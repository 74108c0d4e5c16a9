"""``bad-cron``, ``bad-time-zone``, ``missing-input``, …: schedules that the server accepts.

Cron strings follow Temporal's documentation ("Schedule", "Cron expressions"): five to seven fields, or
words such as ``@daily``.
"""

import re
from collections.abc import Iterator

from pipeline_runner.core.inputs import schema_problems
from pipeline_runner.core.suggest import did_you_mean, listed
from pipeline_runner.language.checks.schemas import at, quick_misfits
from pipeline_runner.language.diagnostics import Diagnostic
from pipeline_runner.language.document import Document
from pipeline_runner.language.yaml.nodes import Entry, MappingNode, Node, Scalar, SequenceNode, plain

_MONTHS = (
    "january", "february", "march", "april", "may", "june",
    "july", "august", "september", "october", "november", "december",
)  # fmt: skip
_DAYS = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
_FIELDS: dict[str, tuple[int, int, tuple[str, ...], int]] = {
    "second": (0, 59, (), 0), "minute": (0, 59, (), 0), "hour": (0, 23, (), 0),
    "day of the month": (1, 31, (), 0), "month": (1, 12, _MONTHS, 3),
    "day of the week": (0, 7, _DAYS, 2), "year": (2000, 2100, (), 0),
}  # fmt: skip
"""The minimum, the maximum, the names, and how many of their letters are required."""
_NAMES = {
    5: ("minute", "hour", "day of the month", "month", "day of the week"),
    6: ("minute", "hour", "day of the month", "month", "day of the week", "year"),
    7: ("second", "minute", "hour", "day of the month", "month", "day of the week", "year"),
}
_CRON = 'write minute, hour, day of the month, month and day of the week, such as "0 3 * * 1-5"'
_WORDS = ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")
_INTERVAL = re.compile(r"@every (?:[0-9.]+[a-zµ]+)+(?:/(?:[0-9.]+[a-zµ]+)+)?")
_ITEM = re.compile(r"(?:\*|([0-9A-Za-z]{1,20})(?:-([0-9A-Za-z]{1,20}))?)(?:/([0-9]{1,20}))?")


def check(document: Document) -> Iterator[Diagnostic]:
    """Yield errors in the schedules of a pipeline."""
    for entry in document.root.mapping("schedules") or ():
        if isinstance(entry.value, MappingNode):
            yield from _schedule(document, entry, entry.value)


def _schedule(document: Document, entry: Entry, node: MappingNode) -> Iterator[Diagnostic]:
    source = document.source
    if "cron" not in node and "every" not in node:
        message = f'the schedule "{entry.name}" never starts a run: it needs "cron" or "every"'
        yield source.diagnostic(entry.key.span, "missing-key", message)
    if (offset := node.entry("offset")) and "every" not in node:
        yield source.diagnostic(offset.key.span, "key-conflict", '"offset" is only allowed with "every"')
    cron = node.get("cron")
    for text in cron.items if isinstance(cron, SequenceNode) else [cron]:
        value = text.value if isinstance(text, Scalar) else None
        if text and isinstance(value, str) and value.strip() and (problem := _cron_problem(value)):
            help_ = f"the words are {listed([*_WORDS, '@every'])}" if value.startswith("@") else _CRON
            yield source.diagnostic(
                text.span, "bad-cron", f'"{value}" is not a cron expression: {problem}', help_
            )
    yield from _time_zone(document, node.get("time_zone"))
    yield from _inputs(document, entry, node)


def _cron_problem(text: str) -> str | None:
    """Return what is wrong with a cron string."""
    text = re.sub(r"^(CRON_)?TZ=\S+\s+", "", text.strip()).split("#")[0].strip()
    if text.startswith("@every"):
        return None if _INTERVAL.fullmatch(text) else "@every needs an interval, such as 30m"
    if text.startswith("@"):
        return None if text in _WORDS else f"there is no {text}"
    fields = text.split()
    names = _NAMES.get(len(fields))
    if names is None:
        return f"it has {len(fields)} fields"
    for name, field in zip(names, fields, strict=True):
        for item in field.split(","):
            if problem := _item_problem(name, item):
                return problem
    return None


def _item_problem(name: str, item: str) -> str | None:
    low, high, words, letters = _FIELDS[name]
    match = _ITEM.fullmatch(item)
    if match is None:
        return f'"{item}" is not a {name}'
    bounds = []
    for text in match.groups()[:2]:
        if text is None:
            continue
        named = [n for n, word in enumerate(words, low) if word.startswith(text.lower())]
        if text.isdecimal():
            value = int(text)
        elif named and len(text) >= letters:
            value = named[0]
        else:
            return f'"{text}" is not a {name}'
        if not low <= value <= high:
            return f"the {name} {text} is not between {low} and {high}"
        bounds.append(value)
    if len(bounds) == 2 and bounds[0] > bounds[1]:
        return f"{item} ends before it begins"
    return "a step of 0 never occurs" if match[3] is not None and int(match[3]) == 0 else None


def _time_zone(document: Document, node: Node | None) -> Iterator[Diagnostic]:
    if not isinstance(node, Scalar) or not isinstance(node.value, str) or not node.value.strip():
        return
    from zoneinfo import available_timezones

    known = available_timezones()
    if known and node.value not in known:  # without the system's time zones this cannot be checked
        message = f'there is no time zone "{node.value}"'
        help_ = did_you_mean(node.value, known) or "write an IANA name, such as Europe/Berlin"
        yield document.source.diagnostic(node.span, "bad-time-zone", message, help_)


def _inputs(document: Document, entry: Entry, node: MappingNode) -> Iterator[Diagnostic]:
    """Yield inputs of the scheduled runs that the pipeline does not declare, and missing ones."""
    source, given = document.source, node.get("inputs")
    if given is not None and not isinstance(given, MappingNode):
        return
    for one in given or ():
        schema = document.inputs.get(one.name)
        if schema is None:
            declared = (
                f"the inputs are {listed(document.inputs)}"
                if document.inputs
                else "the file declares no inputs"
            )
            help_ = did_you_mean(one.name, document.inputs) or declared
            yield source.diagnostic(one.key.span, "unknown-input", f'there is no input "{one.name}"', help_)
        elif not schema_problems(plain(schema)):
            for path, message in quick_misfits(plain(schema), plain(one.value)):
                yield source.diagnostic(at(one.value, path).span, "bad-value", f'"{one.name}" {message}')
    if needed := document.needed(given):
        names = ", ".join(f'"{name}"' for name in needed)
        message = f'the schedule "{entry.name}" needs {names} in its "inputs"'
        yield source.diagnostic(entry.key.span, "missing-input", message)
