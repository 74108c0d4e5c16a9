"""The types that the language's filters accept and return."""

from collections.abc import Callable, Mapping, Sequence

from pipeline_runner.language.types import (
    ANY,
    ANY_LIST,
    ANY_MAP,
    BOOLEAN,
    NULL,
    NUMBER,
    STRING,
    List,
    Map,
    Plain,
    Type,
    options,
    union,
    without_null,
)

_TEXT = (STRING,)
_NUMBERS = (NUMBER, BOOLEAN)
_SERIES = (ANY_LIST, STRING, ANY_MAP)
_MAPS = (ANY_MAP,)
_READABLE = (STRING, NUMBER, BOOLEAN)

TAKES: dict[str, tuple[Type, ...]] = {
    **dict.fromkeys(
        ("capitalize", "indent", "lower", "replace", "split", "title", "trim", "truncate", "upper"), _TEXT
    ),
    **dict.fromkeys(("abs", "round"), _NUMBERS),
    **dict.fromkeys(("count", "length", "first", "list", "join", "max", "min", "unique", "sort"), _SERIES),
    **dict.fromkeys(("last", "reverse"), _SERIES),
    **dict.fromkeys(("map", "select", "reject", "selectattr", "rejectattr"), (*_SERIES, NULL)),
    "sum": (ANY_LIST,),
    **dict.fromkeys(("combine", "dictsort", "items", "keys", "values"), _MAPS),
    **dict.fromkeys(("int", "float"), _READABLE),
    "fromjson": _TEXT,
    **dict.fromkeys(("string", "urlencode"), (STRING, NUMBER, BOOLEAN, ANY_LIST, ANY_MAP)),
}
"""By filter: the accepted types. A filter that is not listed accepts any type."""

Arguments = Mapping[int | str, Type]
"""The types of a filter's arguments, by position or name."""


def _item(value: Type) -> Type:
    """Return the type of the elements that a filter iterates over."""
    found = []
    for option in options(value):
        match option:
            case List(item=item):
                found.append(item)
            case Plain(kind="string") | Map():  # its characters, its keys
                found.append(STRING)
            case _:
                return ANY
    return union(found)


def _default(value: Type, given: Arguments) -> Type:
    return union([without_null(value), given.get(0) or given.get("default_value") or STRING])


def _number(_: Type, given: Arguments) -> Type:
    return union([NUMBER, *(kind for key in (0, "default") if (kind := given.get(key)))])


def _sum(_: Type, given: Arguments) -> Type:
    # For an empty list, it is the start value.
    return union([NUMBER, *(kind for key in (1, "start") if (kind := given.get(key)))])


def _combine(value: Type, given: Arguments) -> Type:
    keys: dict[str, Type] = {}
    for kind in (value, *given.values()):
        if not isinstance(kind, Map):
            return ANY
        if kind.others != "none":
            return ANY_MAP
        # The later one wins if it has the key, which a schema may leave open.
        keys |= {key: union([keys[key], one]) if key in keys else one for key, one in kind.keys.items()}
    return Map(keys, "none")


def _reversed(value: Type, _: Arguments) -> Type:
    found: list[Type] = []
    for option in options(value):
        if type(option) is Type:
            return ANY
        text = isinstance(option, Plain) and option.kind == "string"
        found.append(STRING if text else List(_item(option)))
    return union(found)


def _values(value: Type, _: Arguments) -> Type:
    return List(union(value.keys.values())) if isinstance(value, Map) and value.others == "none" else ANY_LIST


_Rule = Callable[[Type, Arguments], Type]

GIVES: dict[str, Type | _Rule] = {
    **dict.fromkeys(
        ("capitalize", "indent", "join", "lower", "replace", "string", "title", "tojson", "trim"), STRING
    ),
    **dict.fromkeys(("truncate", "upper", "urlencode"), STRING),
    **dict.fromkeys(("abs", "count", "length", "round"), NUMBER),
    **dict.fromkeys(("float", "int"), _number),
    "sum": _sum,
    "split": List(STRING),
    **dict.fromkeys(("dictsort", "items"), List(ANY_LIST)),
    **dict.fromkeys(("first", "last", "max", "min"), lambda value, _: _item(value)),
    **dict.fromkeys(
        ("keys", "list", "reject", "rejectattr", "select", "selectattr", "sort", "unique"),
        lambda value, _: List(_item(value)),
    ),
    "reverse": _reversed,
    "combine": _combine,
    "values": _values,
    "map": ANY_LIST,
    "d": _default,
    "default": _default,
}
"""By filter: the type of its result, or a function that computes it from the types of the value and the
arguments."""


def takes(name: str, given: Arguments) -> Sequence[Type]:
    """Return the types that a filter accepts; empty: any type."""
    if name in ("int", "float") and (0 in given or "default" in given):
        return ()
    return TAKES.get(name, ())


def result(name: str, value: Type, given: Arguments) -> Type:
    """Return the type of a filter's result."""
    rule = GIVES.get(name, ANY)
    return rule if isinstance(rule, Type) else rule(value, given)
