"""``bad-value``: what ``with`` says literally fits the schema of the activity, or of the child's input.

Bad: ``{activity: shell.run, with: {command: ls}}``; good: ``with: {command: [ls]}``. A value
with a template anywhere in it is not judged: nobody knows yet what it will be.
"""

from collections.abc import Iterator
from typing import Any

from pipeline_runner.core.expressions import contains_template
from pipeline_runner.core.inputs import JsonSchema, dotted, misfits, schema_problems
from pipeline_runner.language.checks.parameters import resolved
from pipeline_runner.language.checks.schemas import at
from pipeline_runner.language.diagnostics import Diagnostic
from pipeline_runner.language.document import Document
from pipeline_runner.language.nodes import Entry, Mapping, Node, Source, plain
from pipeline_runner.language.shapes import AnyValue

_TEXTS = AnyValue(template=True)
_DEFINITIONS = ("$defs", "definitions")
_OF_VALUES = ("properties", "patternProperties", "additionalProperties")


def check(document: Document) -> Iterator[Diagnostic]:
    """Yield literal values that an activity does not take."""
    for call in document.calls:
        activity, given = document.activity(call), call.node.mapping("with")
        if activity and activity.input is not None and given:
            schema = _of_values(activity.input)
            for entry in _literal(given):
                yield from _misfits(document.source, entry, schema, {entry.name: plain(entry.value)})


def check_inputs(source: Source, given: Mapping, inputs: dict[str, Node]) -> Iterator[Diagnostic]:
    """Yield literal values that are not what a child declares."""
    for entry in _literal(given):
        schema: JsonSchema = plain(inputs[entry.name]) if entry.name in inputs else True
        if not schema_problems(schema):
            yield from _misfits(source, entry, schema, plain(entry.value), (entry.name,))


def _of_values(schema: dict[str, Any]) -> dict[str, Any]:
    """Return what a schema says of its values one by one, not of how they go together."""
    top = resolved(schema)
    parts = {key: top[key] for key in _OF_VALUES if key in top}
    return {**parts, **{key: schema[key] for key in _DEFINITIONS if key in schema}}


def _literal(given: Mapping) -> Iterator[Entry]:
    for entry in given:
        if not any(contains_template(text.text) for text, _ in _TEXTS.templates(entry.value)):
            yield entry


def _misfits(
    source: Source, entry: Entry, schema: JsonSchema, value: Any, above: tuple[str, ...] = ()
) -> Iterator[Diagnostic]:
    for path, message in misfits(schema, value):
        # The value itself; without a path it is about all of them, such as an unknown parameter.
        if inner := (*above, *path):
            where = dotted(inner).removeprefix(".")
            yield source.error(at(entry.value, inner[1:]).span, "bad-value", f'"{where}" {message}')
