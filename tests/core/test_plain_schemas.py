"""What is judged without jsonschema is what jsonschema says."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from pipeline_runner.core.schemas.plain import fits, is_plain

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.floats(-2, 2)
    | st.sampled_from(["", "a", "ab", "é😀"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=5,
)
TYPES = st.sampled_from(["string", "integer", "number", "boolean", "object", "array", "null", "strin"])
LIMITS = st.integers(-1, 3) | st.sampled_from([1.5, True, "1"])
NAMES = st.lists(st.sampled_from("abc"), max_size=3)


def schemas(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.booleans() | st.fixed_dictionaries(
        {},
        optional={
            "type": TYPES | st.lists(TYPES, max_size=2),
            **dict.fromkeys(["minLength", "maxLength", "minItems", "maxItems", "minimum", "maximum"], LIMITS),
            "pattern": st.sampled_from(["^a", "b$"]),
            "enum": NAMES | st.lists(SCALARS, max_size=3),
            "const": SCALARS,
            "required": NAMES,
            "items": inner,
            "anyOf": st.lists(inner, min_size=1, max_size=2),
            "not": inner,
            "properties": st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
            "patternProperties": st.dictionaries(st.sampled_from(["^c"]), inner, max_size=1),
            "additionalProperties": inner,
            "title": st.sampled_from(["", 1]),
            "default": SCALARS,
        },
    )


SCHEMAS: st.SearchStrategy[Any] = st.recursive(st.booleans() | st.builds(dict), schemas, max_leaves=4)


@given(SCHEMAS, VALUES)
def test_what_is_certain_is_true(schema: Any, value: Any) -> None:
    valid = Draft202012Validator(Draft202012Validator.META_SCHEMA).is_valid(schema)
    if is_plain(schema):
        assert valid
    if valid and fits(schema, value):
        assert Draft202012Validator(schema).is_valid(value)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "minLength": 1, "description": "A name.", "default": "x"},
        {"type": "integer", "minimum": 1, "maximum": 9},
        {"enum": ["dev", "prod"]},
        {"type": ["string", "null"]},
        {
            "type": "array",
            "items": {"type": "object", "properties": {"to": {"type": "number"}}, "required": ["to"]},
        },
        {"type": "object", "additionalProperties": {"type": "string"}},
    ],
)
def test_the_usual_schemas_are_plain(schema: dict[str, Any]) -> None:
    assert is_plain(schema)


def test_the_usual_values_fit() -> None:
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer", "minimum": 1}},
        "required": ["n"],
        "additionalProperties": False,
    }
    assert fits(schema, {"n": 1})
    assert not fits(schema, {"n": 0})
    assert not fits(schema, {})
    assert not fits(schema, {"n": 1, "m": 1})
