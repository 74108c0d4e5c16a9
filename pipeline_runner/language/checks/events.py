"""``event-name``, ``event-schemas``: an event that a step waits for can be sent."""

from collections.abc import Iterator
from typing import Any

from pipeline_runner.language.diagnostics import Diagnostic
from pipeline_runner.language.document import Document
from pipeline_runner.language.yaml.nodes import MappingNode, Scalar, plain

_RESERVED = {"__temporal_": "Temporal", "pipeline_runner.": "this product"}
"""What the names of signals begin with that are not for events, and whom they belong to."""


def check(document: Document) -> Iterator[Diagnostic]:
    """Yield events that nobody can send, and those that no payload may fit."""
    first: dict[str, tuple[int, Any]] = {}
    for step in document.steps:
        wait = step.node.mapping("wait")
        event = wait.get("event") if wait else None
        if wait is None or not isinstance(event, Scalar) or not isinstance(event.value, str):
            continue
        yield from _name(document, event, event.value)
        schema = _schema(wait)
        if schema is True:
            continue
        known = first.setdefault(event.value, (event.span.line, schema))
        if known[1] != schema:
            message = (
                f'the event "{event.value}" has another schema in line {known[0]}: its payload must fit both'
            )
            help_ = "use the same schema, or another name for the other event"
            yield document.source.diagnostic(event.span, "event-schemas", message, help_)


def _name(document: Document, node: Scalar, name: str) -> Iterator[Diagnostic]:
    for prefix, owner in _RESERVED.items():
        if name.startswith(prefix):
            reserved = f'signals that begin with "{prefix}" are reserved for {owner}'
            message = f'nobody can send the event "{name}": {reserved}'
            help_ = f'choose another name, such as "{rest}"' if (rest := name.removeprefix(prefix)) else None
            yield document.source.diagnostic(node.span, "event-name", message, help_)


def _schema(wait: MappingNode) -> Any:
    """Return the schema of a payload, without what is only for people; True: everything fits."""
    schema = plain(node) if (node := wait.get("schema")) else True
    if not isinstance(schema, dict):
        return schema
    return {key: value for key, value in schema.items() if key not in ("title", "description")} or True
