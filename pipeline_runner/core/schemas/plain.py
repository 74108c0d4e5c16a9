"""The simple part of JSON Schema, checked without the library.

Most schemas consist of a type, a length and the like, and most values match. jsonschema takes longer to
find that than all other checks of a file, and importing it takes longer still. Whatever is not certain
here (another keyword, a value that does not match) is left to the library.
"""

from collections.abc import Callable
from typing import Any

from pipeline_runner.core.schemas.pattern_syntax import PatternError
from pipeline_runner.core.schemas.patterns import compiled

_PYTHON_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,),
    "object": (dict,), "array": (list,), "null": (type(None),),
}  # fmt: skip
_ANNOTATIONS = ("default", "examples", "$comment")
_TEXTS = ("title", "description")


def is_plain(schema: Any) -> bool:
    """Tell whether a value certainly is a JSON Schema (2020-12) that :func:`fits` knows."""
    if isinstance(schema, bool):
        return True
    return isinstance(schema, dict) and all(
        keyword in _SCHEMA_OF and _SCHEMA_OF[keyword](limit) for keyword, limit in schema.items()
    )


def fits(schema: Any, value: Any) -> bool:
    """Tell whether a value certainly matches a valid schema."""
    if not isinstance(schema, dict):
        return schema is True
    for keyword, limit in schema.items():
        judge = _VALUE_FITS.get(keyword)
        if judge is None or not judge(limit, value, schema):
            return False
    return True


def is_pattern(limit: Any) -> bool:
    """Tell whether a value is a pattern that can be used."""
    try:
        return isinstance(limit, str) and compiled(limit) is not None
    except PatternError:
        return False


def _is_count(limit: Any) -> bool:
    return type(limit) is int and limit >= 0


def _is_number(limit: Any) -> bool:
    return type(limit) in (int, float)


def _is_type(limit: Any) -> bool:
    if isinstance(limit, list):
        return bool(limit) and _is_names(limit) and all(map(_is_type, limit))
    return isinstance(limit, str) and limit in _PYTHON_TYPES


def _is_names(limit: Any) -> bool:
    return (
        isinstance(limit, list)
        and all(isinstance(one, str) for one in limit)
        and len(set(limit)) == len(limit)
    )


def _is_mapping(limit: Any) -> bool:
    return isinstance(limit, dict) and all(map(is_plain, limit.values()))


_SCHEMA_OF: dict[str, Callable[[Any], bool]] = {
    "default": lambda _: True,
    **dict.fromkeys(_TEXTS, lambda limit: isinstance(limit, str)),
    **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems"), _is_count),
    **dict.fromkeys(("minimum", "maximum"), _is_number),
    **dict.fromkeys(("exclusiveMinimum", "exclusiveMaximum"), _is_number),
    "type": _is_type,
    "enum": lambda limit: isinstance(limit, list) and bool(limit),
    "const": lambda _: True,
    "pattern": is_pattern,
    "required": _is_names,
    "items": is_plain,
    "additionalProperties": is_plain,
    "properties": _is_mapping,
}
"""By keyword: whether its value is valid."""


def _of_type(limit: Any, value: Any, _: Any) -> bool:
    names = [limit] if isinstance(limit, str) else limit
    return any(type(value) in _PYTHON_TYPES.get(name, ()) for name in names)


def _others(limit: Any, value: Any, schema: dict[str, Any]) -> bool:
    if not isinstance(value, dict) or limit is True:
        return True
    known = schema.get("properties", {})
    return "patternProperties" not in schema and all(
        key in known or fits(limit, item) for key, item in value.items()
    )


def _known(limit: Any, value: Any, _: Any) -> bool:
    return not isinstance(value, dict) or all(
        fits(limit[key], item) for key, item in value.items() if key in limit
    )


def _matches(limit: Any, value: Any, _: Any) -> bool:
    try:
        return not isinstance(value, str) or compiled(limit).search(value)
    except PatternError:
        return False


_VALUE_FITS: dict[str, Callable[[Any, Any, Any], bool]] = {
    **dict.fromkeys((*_ANNOTATIONS, *_TEXTS, "$defs"), lambda *_: True),
    "type": _of_type,
    "minLength": lambda limit, value, _: not isinstance(value, str) or len(value) >= limit,
    "maxLength": lambda limit, value, _: not isinstance(value, str) or len(value) <= limit,
    "minItems": lambda limit, value, _: not isinstance(value, list) or len(value) >= limit,
    "maxItems": lambda limit, value, _: not isinstance(value, list) or len(value) <= limit,
    "minimum": lambda limit, value, _: not isinstance(value, int | float) or value >= limit,
    "maximum": lambda limit, value, _: not isinstance(value, int | float) or value <= limit,
    "pattern": _matches,
    "enum": lambda limit, value, _: isinstance(value, str) and value in limit,
    "const": lambda limit, value, _: isinstance(value, str) and value == limit,
    "items": lambda limit, value, _: not isinstance(value, list) or all(fits(limit, one) for one in value),
    "anyOf": lambda limit, value, _: any(fits(one, value) for one in limit),
    "properties": _known,
    "additionalProperties": _others,
    "required": lambda limit, value, _: not isinstance(value, dict) or all(key in value for key in limit),
}
"""By keyword: whether a value certainly matches. The last argument is the schema with the keyword."""
