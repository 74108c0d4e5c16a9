"""``-i name=value``: literal where the schema says string, YAML otherwise."""

import pytest

from pipeline_runner.core.inputs import JsonSchema
from pipeline_runner.language.input_text import InputTextError, parse_input


@pytest.mark.parametrize(
    ("text", "schema", "value"),
    [
        ("1.10", {"type": "string"}, "1.10"),
        ("no", {"type": "string"}, "no"),
        ("{a: 1", {"type": "string"}, "{a: 1"),
        ("", {"type": "string"}, ""),
        ("5", {"type": "integer"}, 5),
        ("no", {"type": "boolean"}, "no"),
        ("true", {"type": "boolean"}, True),
        ("{a: [1, no]}", {"type": "object"}, {"a": [1, "no"]}),
        ('{"a": 1}', {}, {"a": 1}),
        ("5", True, 5),
        ("plain", {}, "plain"),
        ("", {}, None),
        ("1", {"enum": ["1", "2"]}, "1"),
        ("1", {"enum": [1, 2]}, 1),
        ("null", {"type": ["string", "null"]}, None),
        ("5", {"type": ["string", "null"]}, "5"),
        ("5", {"type": ["string", "integer"]}, 5),
        ("true", {"type": ["string", "integer"]}, "true"),
        ("a: b: c", {"type": ["string", "object"]}, "a: b: c"),
        ("", {"type": ["string", "null"]}, ""),
        (r'{"a": "\ud83d\ude00"}', {}, {"a": "😀"}),
        (r'["\\ud83d\\ude00", "\uD83D\uDE00\n"]', {"type": "array"}, [r"\ud83d\ude00", "😀\n"]),
    ],
)
def test_value_of_a_text(text: str, schema: JsonSchema, value: object) -> None:
    """The type decides, not the look."""
    found = parse_input(text, schema)
    assert found == value
    assert type(found) is type(value)


def test_text_that_is_no_yaml_is_a_mistake() -> None:
    """With the place in the text."""
    with pytest.raises(InputTextError, match=r'the "\{" in line 1 is never closed \(column 1\)'):
        parse_input("{a: 1", {"type": "object"})


@pytest.mark.parametrize("schema", [{"type": "string"}, {"type": "object"}, True])
def test_text_that_is_not_utf_8_is_a_mistake(schema: JsonSchema) -> None:
    """Whatever the type: such bytes cannot travel."""
    with pytest.raises(InputTextError, match="character 2 is not UTF-8"):
        parse_input("s\udcff", schema)


def test_json_is_held_to_the_rules_of_yaml() -> None:
    """A key that stands twice, half a pair, and what only looks like JSON."""
    with pytest.raises(InputTextError, match='duplicate key "a": it is already in line'):
        parse_input(r'{"a": "\ud83d\ude00", "a": 1}', {"type": "object"})
    with pytest.raises(InputTextError):
        parse_input(r'{"a": "\ud83d"}', {"type": "object"})
    assert parse_input(r"['\ud83d\ude00']", {"type": "array"}) == [r"\ud83d\ude00"]
