"""Parses the values of ``-i name=value``."""

from typing import Any

from pipeline_runner.core.inputs import JsonSchema
from pipeline_runner.language.yaml import loader
from pipeline_runner.language.yaml.nodes import plain

_KINDS: dict[str, tuple[type, ...]] = {
    "integer": (int,), "number": (int, float), "boolean": (bool,), "null": (type(None),),
    "object": (dict,), "array": (list,),
}  # fmt: skip


class InputTextError(ValueError):
    """A value on the command line is not valid YAML, or not valid UTF-8."""


def parse_input(text: str, schema: JsonSchema) -> Any:
    """Return the value of a string on the command line.

    If the schema's type is string, the string is used literally. If string is one of several types, a
    string that is a YAML value of another of these types becomes that value, and is used literally
    otherwise. In all other cases it is parsed as YAML.

    Raises:
        InputTextError: It is not valid YAML where it should be, or contains bytes that are not UTF-8.
    """
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError as error:
        message = f"character {error.start + 1} is not UTF-8"
        raise InputTextError(message) from None
    types = _types(schema)
    if types == ["string"]:
        return text
    source, problems = loader.decode(data, "value")
    node = None
    if not problems and text.strip():
        node, problems = loader.load(source)
    if problems and "string" not in types:
        raise InputTextError(f"{problems[0].message} (column {problems[0].column})")
    value = plain(node) if node else None
    if "string" not in types:
        return value
    return value if not problems and text and _is_one_of(value, types) else text


def _types(schema: JsonSchema) -> list[str]:
    if not isinstance(schema, dict):
        return []
    kind = schema.get("type")
    if kind is None and "enum" in schema:
        return ["string"] if all(isinstance(item, str) for item in schema["enum"]) else []
    return [kind] if isinstance(kind, str) else list(kind or [])


def _is_one_of(value: Any, types: list[str]) -> bool:
    # bool is an int in Python, but not in JSON.
    return any(type(value) in _KINDS.get(name, ()) for name in types)
