"""The types of values before a run: a lattice.

``ANY`` includes every value; a value of a union has one of its types. Everything that is not understood
is ``ANY``: a missing schema is not a reason for a false alarm.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, TypeVar

import msgspec

from pipeline_runner.core.suggest import listed

T = TypeVar("T")

_MAX_DEPTH = 12
"""The maximum depth to which schemas are read. Below it, nothing is known."""


class Type(msgspec.Struct, frozen=True):
    """Any value. The other types are narrower."""


class Plain(Type, frozen=True):
    """A string, a number, a boolean or null."""

    kind: Literal["string", "number", "boolean", "null"]
    values: tuple[Any, ...] | None = None
    """The possible values; None: not known."""


class Secret(Type, frozen=True):
    """A secret, which is a string only for the activity."""


class List(Type, frozen=True):
    """A list whose elements have one type."""

    item: Type


class Map(Type, frozen=True):
    """A mapping."""

    keys: Mapping[str, Type]
    others: Literal["none", "undeclared", "some"]
    """Whether it has other keys: no; not declared, but the schema allows them; yes."""
    rest: Type = Type()
    """The type of the values of other keys."""


class Union(Type, frozen=True):
    """One of several types, none of which is ``ANY`` or a union."""

    options: tuple[Type, ...]


ANY = Type()
STRING = Plain("string")
NUMBER = Plain("number")
BOOLEAN = Plain("boolean")
NULL = Plain("null")
SECRET = Secret()
ANY_LIST = List(ANY)
ANY_MAP = Map({}, "some")
ERROR = Map({"type": STRING, "message": STRING, "step": Union((STRING, NULL))}, "none")

_JSON_TYPES: dict[str, Type] = {
    "string": STRING, "number": NUMBER, "integer": NUMBER, "boolean": BOOLEAN, "null": NULL,
}  # fmt: skip


def options(kind: Type) -> tuple[Type, ...]:
    """Return the alternatives of a type."""
    return kind.options if isinstance(kind, Union) else (kind,)


def union(types: Iterable[Type]) -> Type:
    """Return the type of a value that has one of these types."""
    found: list[Type] = []
    given = list(types)
    if len(given) == 1:
        return given[0]
    for one in given:
        for kind in options(one):
            if type(kind) is Type:
                return ANY
            for place, other in enumerate(found):
                if is_alike(kind, other):
                    found[place] = _joined(other, kind)
                    break
            else:
                found.append(kind)
    return found[0] if len(found) == 1 else Union(tuple(found)) if found else ANY


def is_alike(one: Type, other: Type) -> bool:
    """Tell whether two types, neither of them a union, are of the same kind, whatever their content."""
    if isinstance(one, Plain) and isinstance(other, Plain):
        return one.kind == other.kind
    return type(one) is type(other)


def may_be(kind: Type, wanted: Iterable[Type]) -> bool:
    """Tell whether a value may have one of these types. Secrets are handled separately."""
    for option in options(kind):
        if type(option) is Type or isinstance(option, Secret):
            return True
        for one in wanted:
            if is_alike(option, one):
                return True
    return False


def _joined(one: Type, other: Type) -> Type:
    """Return the type of a value that has one or the other of two types of the same kind."""
    if one is other or one == other:
        return one
    match one, other:
        case Plain(kind=kind, values=a), Plain(values=b):
            return Plain(kind, None if a is None or b is None else tuple(dict.fromkeys((*a, *b))))
        case List(item=a), List(item=b):
            return List(union([a, b]))
        case Map(), Map():
            # A key that only one of them has may be missing. Nothing is said about the other keys.
            keys = {key: union([one.keys[key], other.keys[key]]) for key in one.keys if key in other.keys}
            return Map(keys, "some")
    return one


def base(kind: Type) -> Type:
    """Return a type without its possible values."""
    return Plain(kind.kind) if isinstance(kind, Plain) else kind


def without_null(kind: Type) -> Type:
    """Return the type of a value that is known not to be null."""
    left = [option for option in options(kind) if option != NULL]
    return union(left) if left else ANY


def of_value(value: Any) -> Type:
    """Return the type of JSON data."""
    if isinstance(value, str):  # as most are
        return Plain("string", (value,))
    if value is None:
        return NULL
    if isinstance(value, bool):
        return Plain("boolean", (value,))
    if isinstance(value, int | float):
        return Plain("number", (value,))
    if isinstance(value, list):
        return List(union(map(of_value, value)))
    if isinstance(value, dict):
        return Map({str(key): of_value(item) for key, item in value.items()}, "none")
    return ANY


_MOST_KNOWN = 10_000


def by_identity(function: Callable[[Any], T]) -> Callable[[Any], T]:
    """Cache a function's results for schemas of the catalogue, which live long and never change."""
    found: dict[int, tuple[Any, T]] = {}

    def remembered(schema: Any) -> T:
        known = found.get(id(schema))
        if known is None or known[0] is not schema:
            if len(found) >= _MOST_KNOWN:
                found.clear()
            known = found[id(schema)] = schema, function(schema)
        return known[1]

    return remembered


@by_identity
def of_catalogue(schema: Any) -> Type:
    """Return the type for a schema of the catalogue, which many files share; see :func:`of_schema`."""
    return of_schema(schema)


def of_schema(schema: Any, definitions: Mapping[str, Any] | None = None, depth: int = 0) -> Type:
    """Return the type of the values that a JSON Schema (2020-12) accepts; ``ANY`` if it is not understood."""
    if not isinstance(schema, dict) or depth > _MAX_DEPTH:
        return ANY
    definitions = definitions if definitions is not None else schema.get("$defs", {})
    if "$ref" in schema:
        name = str(schema["$ref"]).removeprefix("#/$defs/")
        inner = definitions.get(name) if isinstance(definitions, dict) else None
        return of_schema(inner, definitions, depth + 1)
    if "const" in schema:
        return of_value(schema["const"])
    if isinstance(values := schema.get("enum"), list):
        return union(map(of_value, values))
    for key in ("anyOf", "oneOf"):
        if isinstance(parts := schema.get(key), list) and "type" not in schema:
            return union(of_schema(part, definitions, depth + 1) for part in parts)
    names = schema.get("type")
    if not isinstance(names, str | list):
        return ANY
    kinds = [names] if isinstance(names, str) else names
    return union(_of_type(name, schema, definitions, depth) for name in kinds)


def _of_type(name: Any, schema: dict[str, Any], definitions: Mapping[str, Any], depth: int) -> Type:
    if name == "array":
        item = ANY if "prefixItems" in schema else of_schema(schema.get("items"), definitions, depth + 1)
        return List(item)
    if name != "object":
        return _JSON_TYPES.get(name, ANY) if isinstance(name, str) else ANY
    properties = schema.get("properties")
    keys = {}
    if isinstance(properties, dict):
        keys = {str(key): of_schema(value, definitions, depth + 1) for key, value in properties.items()}
    others = schema.get("additionalProperties")
    if others is False and "patternProperties" not in schema:
        return Map(keys, "none")
    composed = any(key in schema for key in ("patternProperties", "allOf", "anyOf", "oneOf", "$dynamicRef"))
    if others is None and keys and not composed:
        return Map(keys, "undeclared")
    return Map(keys, "some", ANY if composed else of_schema(others, definitions, depth + 1))


def words(kind: Type) -> str:
    """Return the name of a type, as the language names values: ``a string``, ``a list``."""
    match kind:
        case Plain(kind="null"):
            return "null"
        case Plain(kind=name):
            return f"a {name}"
        case Secret():
            return "a secret"
        case List():
            return "a list"
        case Map():
            return "a mapping"
        case Union(options=several):
            *most, last = dict.fromkeys(map(words, several))
            return f"{', '.join(most)} or {last}" if most else last
        case _:
            return "anything"


Place = tuple[str | int, ...]


def misfits(actual: Type, expected: Type) -> Iterator[tuple[Place, Type, Type]]:
    """Yield where a value certainly does not match: the path, its type, the expected type."""
    if type(expected) is Type or type(actual) is Type or actual is expected:
        return
    wanted = options(expected)
    if isinstance(actual, Plain):
        for one in wanted:
            if isinstance(one, Plain) and one.kind == actual.kind and one.values is None:
                return  # the most common case
    found = [list(_misfit(one, wanted)) for one in options(actual)]
    if all(found):
        path, inner, outer = found[0][0]
        yield (path, actual, expected) if not path else (path, inner, outer)


def _misfit(actual: Type, wanted: tuple[Type, ...]) -> Iterator[tuple[Place, Type, Type]]:
    alike = [
        one
        for one in wanted
        if is_alike(actual, one)
        or (isinstance(actual, Secret) and one.__class__ is Plain and one.kind == "string")
    ]
    if not alike:
        yield (), actual, union(wanted)
        return
    expected = alike[0]
    match actual, expected:
        case Plain(values=tuple(values)), Plain(values=tuple(allowed)) if not set(values) & set(allowed):
            yield (), actual, expected
        case List(item=item), List(item=inner):
            for path, one, other in misfits(item, inner):
                yield (0, *path), one, other
        case Map(), Map():
            for key, value in actual.keys.items():
                for path, one, other in misfits(value, expected.keys.get(key, expected.rest)):
                    yield (key, *path), one, other


def shown(values: Iterable[Any]) -> str:
    """Return a list of possible values for a message."""
    return listed([f'"{value}"' if isinstance(value, str) else str(value) for value in values])
