"""Inputs are validated all at once, filled up with defaults, and never follow a remote schema."""

from typing import Any

import pytest

from pipeline_runner.core.inputs import InvalidInputs, JsonSchema, schema_problems, validate_inputs


def problems(declared: dict[str, JsonSchema], given: dict[str, Any]) -> list[str]:
    """Return what is wrong with inputs."""
    with pytest.raises(InvalidInputs) as caught:
        validate_inputs(declared, given)
    return [str(problem) for problem in caught.value.problems]


def test_defaults_fill_what_is_left_out() -> None:
    """Given values win; a given null is a value."""
    declared: dict[str, JsonSchema] = {
        "a": {"type": "string"}, "b": {"default": [1]}, "c": {"default": 3}, "d": True,
    }  # fmt: skip
    assert validate_inputs(declared, {"a": "x", "c": None, "d": 1}) == {"a": "x", "b": [1], "c": None, "d": 1}


def test_defaults_and_values_are_copies() -> None:
    """A run cannot change what the next one gets."""
    declared: dict[str, JsonSchema] = {"a": {"default": {"x": []}}, "b": {}}
    given: dict[str, Any] = {"b": [[]]}
    found = validate_inputs(declared, given)
    found["a"]["x"].append(1)
    found["b"][0].append(1)
    assert declared == {"a": {"default": {"x": []}}, "b": {}}
    assert given == {"b": [[]]}


def test_everything_wrong_is_told_at_once() -> None:
    """Unknown with a guess, missing, ill-typed with the path inside the value."""
    declared: dict[str, JsonSchema] = {
        "name": {"type": "string", "minLength": 3},
        "size": {"type": "integer"},
        "ports": {"type": "array", "items": {"type": "object", "properties": {"to": {"type": "integer"}}}},
    }
    given: dict[str, Any] = {"nmae": "x", "zzz": 1, "name": "ab", "ports": [{"to": 1}, {"to": "http"}]}
    assert problems(declared, given) == [
        'nmae: there is no such input (did you mean "name"?)',
        "zzz: there is no such input (the inputs are name, size, ports)",
        'name: must have 3 or more characters, not "ab"',
        "size: this input is missing",
        'ports[1].to: must be an integer, not "http"',
    ]


def test_misspelt_input_is_not_missing_as_well() -> None:
    declared: dict[str, JsonSchema] = {"name": {}, "size": {}}
    assert problems(declared, {"nmae": 1}) == [
        'nmae: there is no such input (did you mean "name"?)',
        "size: this input is missing",
    ]


@pytest.mark.parametrize(
    ("schema", "value", "message"),
    [
        ({"type": "integer"}, True, "x: must be an integer, not true"),
        ({"type": ["string", "null"]}, 1, "x: must be a string or null, not 1"),
        ({"enum": ["a", 1]}, "b", 'x: must be one of "a", 1, not "b"'),
        ({"const": 3}, 4, "x: must be 3, not 4"),
        ({"minimum": 3}, 1, "x: must be 3 or more, not 1"),
        ({"pattern": "^a$"}, "b", 'x: must match the pattern "^a$", not "b"'),
        ({"required": ["p", "q"]}, {}, 'x: needs "p", "q"'),
        (
            {"properties": {"port": {}}, "additionalProperties": False}, {"prot": 1},
            'x: must not have the key "prot", did you mean "port"?',
        ),
        (False, 1, "x: no value is allowed here"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, 1, "x: must be a string or null, not 1"),
        ({"anyOf": [{"minLength": 3, "type": "string"}, {"type": "null"}]}, "a", 'x: must have 3 or more characters, not "a"'),
        ({"anyOf": [{"minLength": 3}, {"minLength": 2}]}, "a", "x: does not match any of the allowed forms"),
        ({"type": ["string", "null", "array"]}, 1, "x: must be a string, null or a list, not 1"),
        ({"uniqueItems": True}, [1, 1], "x: must not contain duplicates"),
    ],
)  # fmt: skip
def test_messages_say_what_would_be_right(schema: JsonSchema, value: object, message: str) -> None:
    """In words, not in Python."""
    assert problems({"x": schema}, {"x": value}) == [message]


def test_integers_may_be_written_as_floats_without_fraction() -> None:
    """As JSON Schema has it."""
    assert validate_inputs({"x": {"type": "integer"}}, {"x": 3.0}) == {"x": 3.0}


def test_schema_without_end_is_a_problem_and_no_crash() -> None:
    """Even where no check has seen it."""
    assert problems({"x": {"$ref": "#"}}, {"x": 1}) == [
        "x: cannot be checked: its schema refers to itself without end"
    ]


def test_local_references_work() -> None:
    """A schema may refer to its own definitions."""
    schema: JsonSchema = {"$ref": "#/$defs/port", "$defs": {"port": {"type": "integer"}}}
    assert schema_problems(schema) == []
    assert problems({"x": schema}, {"x": "y"}) == ['x: must be an integer, not "y"']


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ({"$ref": "https://example.com/s.json"}, ("$ref",)),
        ({"items": {"$ref": "other.json"}}, ("items", "$ref")),
        ({"$ref": "#/$defs/nope"}, ("$ref",)),
        ({"$ref": "#nope"}, ()),
        ({"$ref": "#"}, ()),
        ({"allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"$ref": "#/$defs/a"}}}, ()),
        ({"type": "strin"}, ("type",)),
        ({"type": 3}, ("type",)),
        ({"minLength": -1}, ("minLength",)),
        ({"pattern": "("}, ("pattern",)),
        ({"properties": {"a": {"required": "b"}}}, ("properties", "a", "required")),
        ({"description": 3}, ("description",)),
    ],
)
def test_schema_that_cannot_be_used_is_told_with_its_place(schema: JsonSchema, path: tuple[str, ...]) -> None:
    """Before anything is started."""
    assert [found[0] for found in schema_problems(schema)] == [path]


@pytest.mark.parametrize("pattern", ["[", "a{99999999999999}", "(" * 3000 + ")" * 3000])
def test_pattern_that_python_cannot_read(pattern: str) -> None:
    ((path, message),) = schema_problems({"pattern": pattern})
    assert path == ("pattern",)
    assert message.startswith("is not a valid pattern: the pattern ")
