"""``changed-number``: a number keeps its digits when it becomes a string."""

import json
from collections.abc import Iterator

from pipeline_runner.language import types
from pipeline_runner.language.diagnostics import Diagnostic
from pipeline_runner.language.document import Document
from pipeline_runner.language.yaml.nodes import Node, Scalar, SequenceNode

_AS_STRINGS = frozenset(["command", "entrypoint", "env", "labels"])
"""Parameters that also accept numbers, and turn them into strings."""


def check(document: Document) -> Iterator[Diagnostic]:
    """Yield numbers that an activity turns into different strings."""
    for call in document.calls:
        given, activity = call.given, call.activity
        found = [] if given is None else [entry for entry in given if entry.name in _AS_STRINGS]
        if not found or activity is None or activity.input is None:
            continue
        expected = types.of_catalogue(activity.input)
        keys = expected.keys if isinstance(expected, types.Map) else {}
        for node in (one for entry in found for one in _texts(entry.value, keys.get(entry.name, types.ANY))):
            message = f"this number becomes the string {json.dumps(_shown(node))}"
            help_ = f"put it in quotes: {json.dumps(node.text)}"
            yield document.source.diagnostic(node.span, "changed-number", message, help_)


def _texts(node: Node, expected: types.Type) -> Iterator[Scalar]:
    """Yield the numbers that change where strings and numbers are accepted.

    Elsewhere another rule applies.
    """
    options = types.options(expected)
    if isinstance(node, Scalar):
        kinds = {one.kind for one in options if isinstance(one, types.Plain)}
        if _changes(node) and kinds >= {"string", "number"}:
            yield node
    elif isinstance(node, SequenceNode):
        for kind in (one.item for one in options if isinstance(one, types.List)):
            for item in node.items:
                yield from _texts(item, kind)
    else:
        for one in (one for one in options if isinstance(one, types.Map)):
            for entry in node:
                yield from _texts(entry.value, one.keys.get(entry.name, one.rest))


def _changes(node: Scalar) -> bool:
    value = node.value
    return isinstance(value, int | float) and not isinstance(value, bool) and _shown(node) != node.text


def _shown(node: Scalar) -> str:
    return json.dumps(node.value)
