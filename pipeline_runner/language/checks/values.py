"""``bad-value``, ``type-mismatch``: ``with`` matches the input of the activity or the child.

A value without templates is validated (``bad-value``). For a value with templates, the types are
compared (``type-mismatch``), and unknown types match everything.
"""

import json
import re
import shlex
from collections.abc import Iterator
from typing import Any

from pipeline_runner.core.expressions.parsing import contains_template
from pipeline_runner.core.inputs import JsonSchema, dotted, schema_problems
from pipeline_runner.language import types
from pipeline_runner.language.checks.parameters import resolved
from pipeline_runner.language.checks.schemas import at, quick_misfits
from pipeline_runner.language.diagnostics import Diagnostic
from pipeline_runner.language.document import Call, Document
from pipeline_runner.language.table.shapes import AnyValue, boolean_help
from pipeline_runner.language.typing.inference import Inference
from pipeline_runner.language.yaml.nodes import MappingNode, Node, Scalar, SequenceNode, Source, plain

_TEXTS = AnyValue(template=True)
_FOR_A_SHELL = re.compile(r"[|&;<>$`*?~]")
"""Characters that only a shell interprets."""
_PLAIN_WORD = re.compile(r"(?!(?i:null|true|false)$)(?:[A-Za-z_/]|--?[A-Za-z]|\./)[\w./=@+-]*")
"""A word that is a string in a list without quotes."""
_TEMPLATE = re.compile(r"\{\{.*?\}\}", re.DOTALL)
_LONE = re.compile(r"\{\{((?!\}\}).)*\}\}", re.DOTALL)
_DEFINITIONS = ("$defs", "definitions")
_OF_VALUES = ("properties", "patternProperties", "additionalProperties")


def check(document: Document, inferred: Inference) -> Iterator[Diagnostic]:
    """Yield values that an activity or a child does not accept."""
    for call in document.calls:
        given, activity = call.given, call.activity
        if given is None:
            continue
        child = document.children.get(call.name or "")
        if activity and activity.input is not None:
            yield from _check_activity(document, inferred, call, given, activity.input)
        elif child and call.kind == "pipeline":
            yield from _check_child(document, inferred, call, given, child)


def _check_activity(
    document: Document, inferred: Inference, call: Call, given: MappingNode, schema: dict[str, Any]
) -> Iterator[Diagnostic]:
    expected = types.of_catalogue(schema)
    if not isinstance(expected, types.Map) and any(types.misfits(types.ANY_MAP, expected)):
        message = f'"{call.name}" takes {types.words(expected)}, but "with" is a mapping'
        help_ = 'write "args: [VALUE]"'
        yield document.source.diagnostic(given.span, "type-mismatch", message, help_)
        return
    values = _of_values(schema)
    keys = expected.keys if isinstance(expected, types.Map) else {}
    for name, entry in given.by_name.items():
        if is_literal(entry.value):
            yield from _misfits(document.source, entry.value, values, {name: plain(entry.value)})
        elif name in keys:
            yield from mismatches(document, inferred, call, entry.value, keys[name], name)


def _check_child(
    document: Document, inferred: Inference, call: Call, given: MappingNode, child: Document
) -> Iterator[Diagnostic]:
    for entry in given:
        if entry.name not in child.inputs:
            continue
        schema: JsonSchema = plain(child.inputs[entry.name])
        if not is_literal(entry.value):
            yield from mismatches(document, inferred, call, entry.value, types.of_schema(schema), entry.name)
        elif not schema_problems(schema):
            yield from _misfits(document.source, entry.value, schema, plain(entry.value), (entry.name,))


def mismatches(
    document: Document, inferred: Inference, call: Call, node: Node, expected: types.Type, where: str
) -> Iterator[Diagnostic]:
    """Yield the parts of a value that do not have the expected type."""
    if isinstance(node, SequenceNode):
        lists = [one for one in types.options(expected) if isinstance(one, types.List)]
        if len(lists) == 1:
            for number, item in enumerate(node.items):
                yield from mismatches(document, inferred, call, item, lists[0].item, f"{where}[{number}]")
            return
    elif isinstance(node, MappingNode):
        maps = [one for one in types.options(expected) if isinstance(one, types.Map)]
        if len(maps) == 1:
            for name, entry in node.by_name.items():
                inner = maps[0].keys.get(name, maps[0].rest)
                yield from mismatches(document, inferred, call, entry.value, inner, f"{where}.{name}")
            return
    actual = inferred.value(node, call.step, compensates=call.compensates)
    for path, found, wanted in types.misfits(actual, expected):
        what = where + dotted(path)
        values = [one.values for one in (found, wanted) if isinstance(one, types.Plain) and one.values]
        if types.words(found) == types.words(wanted) and len(values) == 2:
            message = f'"{what}" must be {_one_of(values[1])}, but this is {_one_of(values[0])}'
        else:
            message = (
                f'"{what}" of "{call.name}" must be {types.words(wanted)}, but this is {types.words(found)}'
            )
        help_ = None if path else _help(node, found, wanted)
        yield document.source.diagnostic(node.span, "type-mismatch", message, help_)


def _one_of(values: tuple[Any, ...]) -> str:
    return f"{'one of ' if len(values) > 1 else ''}{types.shown(values)}"


def meant(node: Node, message: str) -> str | None:
    """Return how to write a value of the wrong type."""
    expected = message.removeprefix("must be ").partition(",")[0]
    if isinstance(node, MappingNode | SequenceNode) and expected == "a string":
        return 'write "{{ VALUE | tojson }}" for a value as JSON, or put the JSON in quotes'
    if not isinstance(node, Scalar):
        return None
    if expected == "a string" and isinstance(node.value, int | float):
        return f"put it in quotes: {json.dumps(node.text)}"
    if expected == "a list" and isinstance(node.value, str) and node.value.strip():
        return f"write [{', '.join(map(_word, _words(node.value)))}]"
    return None


def _words(text: str) -> list[str]:
    """Return a command as the intended list."""
    if _FOR_A_SHELL.search(text):
        return ["sh", "-c", text]
    try:
        return shlex.split(text)
    except ValueError:  # a quote is not closed
        return [text]


def _word(text: str) -> str:
    return text if _PLAIN_WORD.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def _help(node: Node, found: types.Type, wanted: types.Type) -> str | None:
    text = node.text.strip() if isinstance(node, Scalar) else ""
    if types.words(found) == "a string" and types.words(wanted) == "a list" and not _LONE.fullmatch(text):
        return _as_list(text)
    inner = text.removeprefix("{{").removesuffix("}}").strip()
    if not text.startswith("{{") or not text.endswith("}}") or "{{" in inner:
        return None
    match types.words(found), types.words(wanted):
        case "a number" | "a boolean", "a string":
            return f"write {{{{ {inner} | string }}}}"
        case "a string", "a number":
            return f"write {{{{ {inner} | int }}}}, or {{{{ {inner} | float }}}}"
        case (("a string" | "a number"), "a list"):
            return f'write ["{text}"]'
    return None


def _as_list(text: str) -> str | None:
    """Return how to write a command with templates as a list. Each template stays in its word."""
    if "{%" in text or not text:
        return None
    marks = {f"\0{number}\0": template for number, template in enumerate(_TEMPLATE.findall(text))}
    rest = iter(marks)
    plain_text = _TEMPLATE.sub(lambda _: next(rest), text)
    if _FOR_A_SHELL.search(plain_text):
        return 'pass values to the shell as arguments: [sh, -c, \'… "$1"\', sh, "{{ … }}"]'
    words = _words(plain_text)
    if words == [plain_text] and " " in plain_text:  # a quote is not closed
        return None
    for mark, template in marks.items():
        words = [word.replace(mark, template) for word in words]
    return f"write [{', '.join(map(_word, words))}]"


@types.by_identity
def _of_values(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a schema about single values, without relations between them."""
    top = resolved(schema)
    parts = {key: top[key] for key in _OF_VALUES if key in top}
    return {**parts, **{key: schema[key] for key in _DEFINITIONS if key in schema}}


def is_literal(node: Node) -> bool:
    """Tell whether a value has no templates."""
    if isinstance(node, Scalar):  # as most are
        return not contains_template(node.text)
    return not any(contains_template(text.text) for text, _ in _TEXTS.templates(node))


def argument(
    document: Document, inferred: Inference, call: Call, node: Node, schema: JsonSchema, name: str
) -> Iterator[Diagnostic]:
    """Yield what is wrong with a positional argument."""
    found = list(mismatches(document, inferred, call, node, types.of_catalogue(schema), name))
    yield from found or (
        _misfits(document.source, node, schema, plain(node), (name,)) if is_literal(node) else ()
    )


def _misfits(
    source: Source, node: Node, schema: JsonSchema, value: Any, above: tuple[str, ...] = ()
) -> Iterator[Diagnostic]:
    for path, message in quick_misfits(schema, value):
        # The value itself; without a path it is about all of them, such as an unknown parameter.
        if inner := (*above, *path):
            where = dotted(inner).removeprefix(".")
            part = at(node, inner[1:])
            help_ = boolean_help(part) if "true or false" in message else meant(part, message)
            yield source.diagnostic(part.span, "bad-value", f'"{where}" {message}', help_)
