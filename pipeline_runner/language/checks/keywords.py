"""``unknown-schema-keyword``, ``slow-pattern``, ``unchecked-format``: keywords have the intended effect.

Keywords that begin with ``x-`` are notes, and allowed.
"""

from collections.abc import Iterator

from pipeline_runner.core.schemas.formats import FORMATS
from pipeline_runner.core.schemas.slow_patterns import is_slow
from pipeline_runner.core.suggest import did_you_mean, listed, nearest
from pipeline_runner.language.diagnostics import Diagnostic
from pipeline_runner.language.yaml.nodes import MappingNode, Node, Scalar, SequenceNode, Source

_BY_NAME = frozenset(["$defs", "definitions", "dependentSchemas", "patternProperties", "properties"])
"""Keywords whose values are mappings from names to schemas."""
_OF_SCHEMAS = frozenset(
    [
        "additionalProperties", "allOf", "anyOf", "contains", "contentSchema", "else", "if", "items", "not",
        "oneOf", "prefixItems", "propertyNames", "then", "unevaluatedItems", "unevaluatedProperties",
    ]
)  # fmt: skip
"""Keywords whose values are schemas, or lists of schemas."""
_OTHERS = frozenset(
    [
        "$anchor", "$comment", "$dynamicAnchor", "$dynamicRef", "$id", "$ref", "$schema", "$vocabulary",
        "const", "contentEncoding", "contentMediaType", "default", "dependentRequired", "deprecated",
        "description", "enum", "examples", "exclusiveMaximum", "exclusiveMinimum", "format", "maxContains",
        "maxItems", "maxLength", "maxProperties", "maximum", "minContains", "minItems", "minLength",
        "minProperties", "minimum", "multipleOf", "pattern", "readOnly", "required", "title", "type",
        "uniqueItems", "writeOnly",
    ]
)  # fmt: skip
KEYWORDS = _BY_NAME | _OF_SCHEMAS | _OTHERS
"""The keywords of JSON Schema 2020-12, and ``definitions``, to which references of older schemas lead."""

_OPTIONAL = 'a key is optional unless "required" lists it; an input is optional if it has a "default"'
_BOUNDS = 'write "{0}imum" for numbers, "{0}Length" for strings, "{0}Items" for lists'
_LENGTHS = 'write "minLength" and "maxLength", or "minItems" and "maxItems" for lists'
_FOREIGN = {
    **dict.fromkeys(("optional", "mandatory"), _OPTIONAL),
    **dict.fromkeys(("allowed", "choices", "options", "values"), 'write "enum"'),
    **dict.fromkeys(("match", "matches", "regex", "regexp"), 'write "pattern"'),
    **dict.fromkeys(("attributes", "fields", "keys"), 'write "properties"'),
    **dict.fromkeys(
        ("password", "secret", "sensitive"), 'a secret is not an input: list its name in "secrets"'
    ),
    **dict.fromkeys(("doc", "help"), 'write "description"'),
    **dict.fromkeys(("length", "size"), _LENGTHS),
    "min": _BOUNDS.format("min"),
    "max": _BOUNDS.format("max"),
    "ge": 'write "minimum"',
    "gt": 'write "exclusiveMinimum"',
    "le": 'write "maximum"',
    "lt": 'write "exclusiveMaximum"',
    "label": 'write "title"',
    "nullable": 'write a list of types with "null" in it, such as type: [string, "null"]',
    "example": 'write "examples", with a list',
    # Keywords of older versions.
    "$recursiveAnchor": 'write "$dynamicAnchor"',
    "$recursiveRef": 'write "$dynamicRef"',
    "additionalItems": 'write "prefixItems" for the first elements, and "items" for the others',
    "dependencies": 'write "dependentRequired", or "dependentSchemas"',
    "disallow": 'write "not"',
    "divisibleBy": 'write "multipleOf"',
    "extends": 'write "allOf"',
}
"""Replacements for keywords of other languages and versions."""


def check(source: Source, schema: MappingNode) -> Iterator[Diagnostic]:
    """Yield the keywords of a schema, at any depth, that have no effect, and its slow patterns."""
    for entry in schema:
        name = entry.name
        if name in _BY_NAME:
            for one in entry.value if isinstance(entry.value, MappingNode) else ():
                if name == "patternProperties":
                    yield from _pattern(source, one.key)
                yield from _check(source, one.value)
        elif name == "pattern":
            yield from _pattern(source, entry.value)
        elif name == "format":
            yield from _format(source, entry.value)
        elif name in _OF_SCHEMAS:
            yield from _check(source, entry.value)
        elif name not in _OTHERS and not name.startswith("x-"):
            message = f'JSON Schema has no keyword "{name}": it has no effect'
            yield source.diagnostic(entry.key.span, "unknown-schema-keyword", message, _help(name))


def _pattern(source: Source, node: Node) -> Iterator[Diagnostic]:
    if isinstance(node, Scalar) and isinstance(node.value, str) and is_slow(node.value):
        message = "this pattern may take for ever: it can match the same string in too many ways"
        help_ = "repeat only what matches in one way: ^a+$, not ^(a+)+$; ^a+( a+)*$, not ^(a+ ?)+$"
        yield source.diagnostic(node.span, "slow-pattern", message, help_)


def _format(source: Source, node: Node) -> Iterator[Diagnostic]:
    if isinstance(node, Scalar) and isinstance(node.value, str) and node.value not in FORMATS:
        message = f'the format "{node.value}" is not checked: every string is accepted'
        near = did_you_mean(node.value, FORMATS)
        help_ = near or f'the checked formats are {listed(FORMATS)}; use "pattern" for others'
        yield source.diagnostic(node.span, "unchecked-format", message, help_)


def _help(name: str) -> str:
    near = nearest(name, (*KEYWORDS, *_FOREIGN))
    if near is None:
        return f'for a note of your own, write "x-{name}"'
    return _FOREIGN.get(near) or f'did you mean "{near}"?'


def _check(source: Source, node: Node) -> Iterator[Diagnostic]:
    for one in node.items if isinstance(node, SequenceNode) else (node,):
        if isinstance(one, MappingNode):
            yield from check(source, one)
