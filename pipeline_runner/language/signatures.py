"""What the filters of the language take, and what they give (:mod:`pipeline_runner.core.filters`)."""

from collections.abc import Callable, Sequence

from pipeline_runner.language.types import (
    ANY,
    ANY_LIST,
    ANY_MAP,
    BOOLEAN,
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
    **dict.fromkeys(("map", "select", "reject", "selectattr", "rejectattr", "last", "reverse"), _SERIES),
    "sum": (ANY_LIST,),
    **dict.fromkeys(("combine", "dictsort", "items", "keys", "values"), _MAPS),
    **dict.fromkeys(("int", "float"), _READABLE),
    "fromjson": _TEXT,
    **dict.fromkeys(("string", "urlencode"), (STRING, NUMBER, BOOLEAN, ANY_LIST, ANY_MAP)),
}
"""By filter: the types that it takes, one of which the value must be. What is not here takes any."""


def _item(value: Type) -> Type:
    """Return the type of the elements that a filter goes through."""
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


def _default(value: Type, arguments: Sequence[Type]) -> Type:
    return union([without_null(value), arguments[0] if arguments else STRING])


def _combine(value: Type, arguments: Sequence[Type]) -> Type:
    keys: dict[str, Type] = {}
    for kind in (value, *arguments):
        if not isinstance(kind, Map) or kind.others != "none":
            return ANY_MAP
        keys |= kind.keys
    return Map(keys, "none")


def _reversed(value: Type, _: Sequence[Type]) -> Type:
    found: list[Type] = []
    for option in options(value):
        if type(option) is Type:
            return ANY
        text = isinstance(option, Plain) and option.kind == "string"
        found.append(STRING if text else List(_item(option)))
    return union(found)


def _values(value: Type, _: Sequence[Type]) -> Type:
    return List(union(value.keys.values())) if isinstance(value, Map) and value.others == "none" else ANY_LIST


_Rule = Callable[[Type, Sequence[Type]], Type]

GIVES: dict[str, Type | _Rule] = {
    **dict.fromkeys(
        ("capitalize", "indent", "join", "lower", "replace", "string", "title", "tojson", "trim"), STRING
    ),
    **dict.fromkeys(("truncate", "upper", "urlencode"), STRING),
    **dict.fromkeys(("abs", "count", "float", "int", "length", "round", "sum"), NUMBER),
    **dict.fromkeys(("split", "keys"), List(STRING)),
    **dict.fromkeys(("dictsort", "items"), List(ANY_LIST)),
    **dict.fromkeys(("first", "last", "max", "min"), lambda value, _: _item(value)),
    **dict.fromkeys(
        ("list", "reject", "rejectattr", "select", "selectattr", "sort", "unique"),
        lambda value, _: List(_item(value)),
    ),
    "reverse": _reversed,
    "combine": _combine,
    "values": _values,
    "map": ANY_LIST,
    "d": _default,
    "default": _default,
}
"""By filter: the type of its result, or how it follows from those of the value and the arguments."""


def result(name: str, value: Type, arguments: Sequence[Type]) -> Type:
    """Return the type that a filter gives."""
    given = GIVES.get(name, ANY)
    return given if isinstance(given, Type) else given(value, arguments)
