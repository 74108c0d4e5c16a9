"""``bad-schema``, ``bad-default``: a JSON Schema is valid, and an input's default matches it."""

from collections.abc import Iterator
from typing import Any

from pipeline_runner.core.inputs import CANNOT, JsonSchema, Path, dotted, misfits, schema_problems
from pipeline_runner.core.schemas.plain import fits
from pipeline_runner.language.checks import keywords
from pipeline_runner.language.diagnostics import Diagnostic, has_errors
from pipeline_runner.language.document import Document
from pipeline_runner.language.table.shapes import boolean_help
from pipeline_runner.language.yaml.nodes import MappingNode, Node, Scalar, SequenceNode, Source, plain


def check(document: Document) -> Iterator[Diagnostic]:
    """Yield mistakes in the schemas of the inputs, and of the answers and events that steps take."""
    for name, node in document.inputs.items():
        if not isinstance(node, MappingNode):
            continue
        found = list(check_schema(document.source, node))
        yield from found
        default = node.get("default")
        if default is None or has_errors(found):
            continue
        for path, problem in quick_misfits(plain(node), plain(default)):
            part = at(default, path)
            message = f"the default is not valid: {name}{dotted(path)}: {problem}"
            help_ = boolean_help(part) if "true or false" in problem else None
            yield document.source.diagnostic(part.span, "bad-default", message, help_)
    for step in document.steps:
        for waits in (step.node.mapping("approval"), step.node.mapping("wait")):
            if waits and (schema := waits.mapping("schema")):
                yield from check_schema(document.source, schema)


def check_schema(source: Source, node: MappingNode) -> Iterator[Diagnostic]:
    """Yield why a mapping is not a JSON Schema, and keywords in it without the intended effect."""
    for path, message in schema_problems(plain(node)):
        keys = [key for key in path if isinstance(key, str)]
        where = f'"{keys[-1]}" ' if keys else ""
        part = at(node, path)
        help_ = _required_help(part) if keys[-1:] == ["required"] else None
        yield source.diagnostic(
            part.span, "bad-schema", f"this is not a valid JSON Schema: {where}{message}", help_
        )
    yield from keywords.check(source, node)


def _required_help(node: Node) -> str | None:
    if not isinstance(node, Scalar) or not isinstance(node.value, bool):
        return None
    says = "remove it" if node.value else 'give it a "default", which may be null'
    return f'an input without a "default" is required: {says}; for an object, "required" is a list of keys'


def quick_misfits(schema: JsonSchema, value: Any) -> list[tuple[Path, str]]:
    """Return the certain errors of a value."""
    if fits(schema, value):
        return []
    return [one for one in misfits(schema, value) if not one[1].startswith(CANNOT)]


def at(node: Node, path: Path) -> Node:
    """Return the node at a path, or the last existing one on the way."""
    for step in path:
        inner: Node | None = None
        if isinstance(node, MappingNode):
            inner = node.get(str(step))
        elif isinstance(node, SequenceNode) and isinstance(step, int):
            inner = node.items[step]
        if inner is None:
            break
        node = inner
    return node
