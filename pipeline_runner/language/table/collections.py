"""Shapes of lists and mappings, and of values that may be one or the other."""

from collections.abc import Callable
from collections.abc import Mapping as AnyMapping
from functools import cached_property
from typing import Any

import msgspec

from pipeline_runner.core.suggest import listed, nearest
from pipeline_runner.language.diagnostics import Diagnostic
from pipeline_runner.language.table.shapes import (
    Found,
    Schema,
    Shape,
    Text,
    Texts,
    not_yet,
    spelt,
    wrong_type,
)
from pipeline_runner.language.yaml.nodes import Entry, MappingNode, Node, Scalar, SequenceNode, Source


class ListOf(Shape, frozen=True, kw_only=True):
    """A list."""

    item: Shape
    title: str
    """One element in messages: ``a step``."""
    at_least: int = 0
    unique: bool = False
    hint: str | None = None
    """Help for a value that is not a list."""

    def check(self, node: Node, source: Source, what: str) -> Found:
        if not isinstance(node, SequenceNode):
            return [wrong_type(node, source, what, "a list", self._help(node, source))]
        found: list[Diagnostic] = []
        if len(node.items) < self.at_least:
            found.append(source.diagnostic(node.span, "empty-list", f"{what} must have at least one element"))
        seen: set[str] = set()
        for item in node.items:
            found += self.item.check(item, source, self.title)
            if self.unique and isinstance(item, Scalar):
                if item.text in seen:
                    found.append(
                        source.diagnostic(
                            item.span, "duplicate-entry", f'{what} already contains "{item.text}"'
                        )
                    )
                seen.add(item.text)
        return found

    def _help(self, node: Node, source: Source) -> str | None:
        if isinstance(node, Scalar) and node.value is not None:
            return self.hint if any(self.item.check(node, source, self.title)) else f"write [{spelt(node)}]"
        if isinstance(node, MappingNode) and isinstance(self.item, Text):
            return f"write [{listed(node.by_name)}]"
        return self.hint

    def schema(self, defs: Schema) -> Schema:
        schema: Schema = {"type": "array", "items": self.item.schema(defs)}
        if self.at_least:
            schema["minItems"] = self.at_least
        return {**schema, "uniqueItems": True} if self.unique else schema

    def templates(self, node: Node) -> Texts:
        items = node.items if isinstance(node, SequenceNode) else ()
        return [found for item in items for found in self.item.templates(item)]

    def is_templated(self) -> bool:
        return self.item.is_templated()


class MapOf(Shape, frozen=True, kw_only=True):
    """A mapping whose keys are names that the author chooses."""

    value: Shape
    key: Text | None = None
    title: str = "a name"
    """One key in messages: ``the name of an input``."""
    at_least: int = 0
    hint: str | None = None
    """Help for a value that is not a mapping."""

    def check(self, node: Node, source: Source, what: str) -> Found:
        if not isinstance(node, MappingNode):
            return [wrong_type(node, source, what, "a mapping", self.hint)]
        found: list[Diagnostic] = []
        if len(node.entries) < self.at_least:
            found.append(source.diagnostic(node.span, "empty-list", f"{what} must have at least one entry"))
        for name, entry in node.by_name.items():
            if self.key:
                found += self.key.check(entry.key, source, self.title)
            found += self.value.check(entry.value, source, f'"{name}"')
        return found

    def schema(self, defs: Schema) -> Schema:
        value = self.value.schema(defs)
        schema: Schema = {"type": "object", "additionalProperties": value or True}
        if self.key:
            schema["propertyNames"] = self.key.schema(defs)
        return {**schema, "minProperties": self.at_least} if self.at_least else schema

    def templates(self, node: Node) -> Texts:
        entries = node if isinstance(node, MappingNode) else ()
        return [found for entry in entries for found in self.value.templates(entry.value)]

    def is_templated(self) -> bool:
        return self.value.is_templated()


class Forms(Shape, frozen=True, kw_only=True):
    """A value whose shape depends on whether it is a scalar, a list or a mapping."""

    expected: str
    """All forms in words."""
    scalar: Shape | None = None
    sequence: Shape | None = None
    mapping: Shape | None = None
    hint: str | None = None
    """Help for a value that has none of the forms."""

    def _of(self, node: Node) -> Shape | None:
        match node:
            case Scalar(value=None):
                return None
            case Scalar():
                return self.scalar
            case SequenceNode():
                return self.sequence
            case MappingNode():
                return self.mapping

    def check(self, node: Node, source: Source, what: str) -> Found:
        shape = self._of(node)
        if shape is None:
            return (wrong_type(node, source, what, self.expected, self.hint),)
        return shape.check(node, source, what)

    def schema(self, defs: Schema) -> Schema:
        shapes = [shape for shape in (self.scalar, self.sequence, self.mapping) if shape]
        return {"anyOf": [shape.schema(defs) for shape in shapes]}

    def templates(self, node: Node) -> Texts:
        shape = self._of(node)
        return shape.templates(node) if shape else ()

    def is_templated(self) -> bool:
        return any(
            one is not None and one.is_templated() for one in (self.scalar, self.sequence, self.mapping)
        )


class OneOf(Shape, frozen=True, kw_only=True):
    """A mapping of one of two shapes: a key decides which."""

    key: str
    shape: Shape
    """The shape of a mapping with the key."""
    other: Shape

    def _of(self, node: Node) -> Shape:
        return self.shape if isinstance(node, MappingNode) and self.key in node else self.other

    def check(self, node: Node, source: Source, what: str) -> Found:
        return self._of(node).check(node, source, what)

    def schema(self, defs: Schema) -> Schema:
        shapes = {"then": self.shape.schema(defs), "else": self.other.schema(defs)}
        return {"type": "object", "if": {"required": [self.key]}, **shapes}

    def templates(self, node: Node) -> Texts:
        return self._of(node).templates(node)

    def is_templated(self) -> bool:
        return self.shape.is_templated() or self.other.is_templated()


class Later(Shape, frozen=True):
    """A named shape that contains itself: the steps of a block. It does not report their templates."""

    get: Callable[[], Shape]

    def check(self, node: Node, source: Source, what: str) -> Found:
        return self.get().check(node, source, what)

    def schema(self, defs: Schema) -> Schema:
        return self.get().schema(defs)


class Field(msgspec.Struct, frozen=True):
    """One key of a mapping."""

    shape: Shape
    doc: str
    later: str = ""
    """What it is, if this version reads it but does not run it yet."""

    def check(self, entry: Entry, source: Source) -> Found:
        """Return the errors of an entry of this field."""
        found = self.shape.check(entry.value, source, f'"{entry.name}"')
        if not self.later:
            return found
        return [not_yet(source, entry.key, f'"{entry.name}" ({self.later})'), *found]

    def schema(self, defs: Schema) -> Schema:
        """Return the schema of the value, with the description."""
        doc = self.doc + (" This version does not run it yet." if self.later else "")
        return {"description": doc, **self.shape.schema(defs)}


class Fields(Shape, frozen=True, kw_only=True):
    """A mapping with known keys."""

    name: str
    """In the JSON Schema's ``$defs``."""
    title: str
    """In messages: ``a retry policy``."""
    fields: AnyMapping[str, Field]
    required: tuple[str, ...] = ()
    hints: AnyMapping[str, str] | None = None
    """Help for keys that belong elsewhere."""
    lone: str | None = None
    """The key that a single value in place of the mapping is meant for."""

    def check(self, node: Node, source: Source, what: str) -> Found:
        if not isinstance(node, MappingNode):
            return [wrong_type(node, source, what, "a mapping", self._help(node, source))]
        found: list[Diagnostic] = []
        for name, entry in node.by_name.items():
            if field := self.fields.get(name):
                found += field.check(entry, source)
            else:
                found.append(unknown_key(entry, source, self.title, self.fields, _hint(name, self.hints)))
        if self.required and not (node.by_name and all(_hint(name, self.hints) for name in node.by_name)):
            found += missing_keys(node, source, self.title, self.required, self.fields)
        return found

    def _help(self, node: Node, source: Source) -> str | None:
        if self.lone is None:
            return None
        fits = isinstance(node, Scalar) and not any(self.fields[self.lone].shape.check(node, source, ""))
        return f"write {{{self.lone}: {spelt(node) if isinstance(node, Scalar) and fits else '…'}}}"

    def schema(self, defs: Schema) -> Schema:
        if self.name not in defs:
            defs[self.name] = {}
            defs[self.name] = {
                "type": "object",
                "properties": {name: field.schema(defs) for name, field in self.fields.items()},
                "additionalProperties": False,
                **({"required": list(self.required)} if self.required else {}),
            }
        return {"$ref": f"#/$defs/{self.name}"}

    def templates(self, node: Node) -> Texts:
        return _templates(self.fields, node) if isinstance(node, MappingNode) else ()

    def is_templated(self) -> bool:
        return any(field.shape.is_templated() for field in self.fields.values())


class Variants(Shape, frozen=True, kw_only=True, dict=True):
    """A mapping that does exactly one of several things, each with its own keys."""

    name: str
    title: str
    common: AnyMapping[str, Field]
    kinds: AnyMapping[str, AnyMapping[str, Field]]
    """By the key that decides what it does: the keys that go with it, and that key itself."""
    required: tuple[str, ...] = ()
    hints: AnyMapping[str, str] | None = None
    """Help for keys of other tools."""
    foreign_kinds: frozenset[str] = frozenset()
    """Keys that decide what it does in other tools."""

    @cached_property
    def _fields(self) -> dict[str, dict[str, Field]]:
        """By kind. The empty string stands for the keys of all kinds."""
        kinds = {kind: {**self.common, **own} for kind, own in self.kinds.items()}
        return {**kinds, "": {name: field for fields in kinds.values() for name, field in fields.items()}}

    @cached_property
    def _templated(self) -> dict[str, dict[str, Field]]:
        return {
            kind: {name: field for name, field in fields.items() if field.shape.is_templated()}
            for kind, fields in self._fields.items()
        }

    def fields(self, node: MappingNode) -> dict[str, Field]:
        """Return the fields that a mapping may have, depending on what it does."""
        return self._fields[self.kind(node) or ""]

    def templated(self, node: MappingNode) -> dict[str, Field]:
        """Return those of :meth:`fields` that may contain templates."""
        return self._templated[self.kind(node) or ""]

    def kind(self, node: MappingNode) -> str | None:
        """Return the key that decides what it does; None: that is not clear."""
        present = self.kinds.keys() & node.by_name.keys()
        return present.pop() if len(present) == 1 else None

    def is_templated(self) -> bool:
        return any(field.shape.is_templated() for field in self._fields[""].values())

    def check(self, node: Node, source: Source, what: str) -> Found:
        if not isinstance(node, MappingNode):
            return [wrong_type(node, source, what, "a mapping")]
        found: list[Diagnostic] = []
        present = [entry for name, entry in node.by_name.items() if name in self.kinds]
        fields = self.fields(node)
        if len(present) != 1 and (present or not self._is_misspelt(node, fields)):
            found.append(self._not_one(node, source, present))
        for name, entry in node.by_name.items():
            if field := fields.get(name):
                found += field.check(entry, source)
            else:
                found.append(self._unknown(entry, source, present, fields))
        found += missing_keys(node, source, self.title, self.required, fields)
        return found

    def _is_misspelt(self, node: MappingNode, fields: AnyMapping[str, Field]) -> bool:
        """Tell whether an unknown key is meant to decide what it does."""
        return any(
            name in self.foreign_kinds or nearest(name, self.kinds)
            for name in node.by_name
            if name not in fields
        )

    def _not_one(self, node: MappingNode, source: Source, present: list[Entry]) -> Diagnostic:
        rule = f"{self.name}-kind"
        if not present:
            message = f"{self.title} needs one of {', '.join(self.kinds)}"
            return source.diagnostic(node.span, rule, message)
        has = " and ".join(f'"{entry.name}"' for entry in present)
        message = f"{self.title} does exactly one thing, but this one has {has}"
        return source.diagnostic(present[1].key.span, rule, message)

    def _unknown(
        self, entry: Entry, source: Source, present: list[Entry], fields: AnyMapping[str, Field]
    ) -> Diagnostic:
        owners = [kind for kind, own in self.kinds.items() if entry.name in own]
        if not owners:
            return unknown_key(entry, source, self.title, fields, _hint(entry.name, self.hints))
        *others, last = [f'"{owner}"' for owner in owners]
        with_ = f"{', '.join(others)} or {last}" if others else last
        message = f'"{entry.name}" is only allowed with {with_}, but this {self.title.removeprefix("a ")} has'
        return source.diagnostic(entry.key.span, "wrong-kind-key", f'{message} "{present[0].name}"')

    def schema(self, defs: Schema) -> Schema:
        if self.name not in defs:
            defs[self.name] = {}
            every = {**self.common, **{kind: own[kind] for kind, own in self.kinds.items()}}
            defs[self.name] = {
                "type": "object",
                "properties": {name: field.schema(defs) for name, field in every.items()},
                "required": list(self.required),
                "oneOf": [{"required": [kind]} for kind in self.kinds],
                "allOf": [
                    {"if": {"required": [kind]}, "then": self._kind_schema(kind, defs)} for kind in self.kinds
                ],
            }
        return {"$ref": f"#/$defs/{self.name}"}

    def _kind_schema(self, kind: str, defs: Schema) -> Schema:
        name = f"{self.name}_{kind}"
        own = {key: field.schema(defs) for key, field in self.kinds[kind].items() if key != kind}
        defs[name] = {
            "properties": {**dict.fromkeys((*self.common, kind), True), **own},
            "additionalProperties": False,
        }
        return {"$ref": f"#/$defs/{name}"}

    def templates(self, node: Node) -> Texts:
        return _templates(self.fields(node), node) if isinstance(node, MappingNode) else ()


def _templates(fields: AnyMapping[str, Field], node: MappingNode) -> Texts:
    return [
        found
        for name, entry in node.by_name.items()
        if (field := fields.get(name))
        for found in field.shape.templates(entry.value)
    ]


_SYNONYMS = {
    "retries": "retry", "retry_policy": "retry", "backoff": "backoff_coefficient",
    "attempts": "maximum_attempts", "max_attempts": "maximum_attempts", "limit": "maximum_attempts",
    "delay": "initial_interval", "interval": "initial_interval", "max_interval": "maximum_interval",
    "parameters": "inputs", "params": "inputs", "variables": "inputs", "outputs": "output",
    "jobs": "steps", "tasks": "steps", "stages": "steps", "title": "name", "text": "message",
}  # fmt: skip
"""Names of keys in other tools."""


def _plain(name: str) -> str:
    return name.replace("-", "_").lower()


def _hint(name: str, hints: AnyMapping[str, str] | None) -> str | None:
    return (hints or {}).get(_plain(name))


def unknown_key(
    entry: Entry, source: Source, title: str, known: AnyMapping[str, Any], help_: str | None
) -> Diagnostic:
    """Return the diagnostic of a key that is not allowed."""
    near = _meant(entry.name, known)
    help_ = help_ or (f'did you mean "{near}"?' if near else None) or f"the keys are {', '.join(known)}"
    return source.diagnostic(entry.key.span, "unknown-key", f'unknown key "{entry.name}" in {title}', help_)


def _meant(name: str, known: AnyMapping[str, Any]) -> str | None:
    """Return the key that an unknown one most likely means."""
    synonym = _SYNONYMS.get(_plain(name))
    return synonym if synonym in known else nearest(name, known)


def missing_keys(
    node: MappingNode, source: Source, title: str, required: tuple[str, ...], known: AnyMapping[str, Any]
) -> Found:
    """Return a diagnostic for each required key that is missing and that no unknown key means."""
    missing = [name for name in required if name not in node.by_name]
    if not missing:
        return ()
    meant = {_meant(one, known) for one in node.by_name if one not in known}
    return [
        source.diagnostic(node.span, "missing-key", f'{title} needs "{name}"')
        for name in missing
        if name not in meant
    ]
