"""What the checker says of the keywords of JSON Schemas."""

from importlib import import_module

from jsonschema import Draft202012Validator

from pipeline_runner.language.checks.keywords import KEYWORDS


def test_keywords_are_those_of_the_specification() -> None:
    """All that its schemas of schemas list; and one that older schemas refer to."""
    registry = import_module("jsonschema_specifications").REGISTRY
    meta = Draft202012Validator.META_SCHEMA
    parts = [
        registry.contents(f"https://json-schema.org/draft/2020-12/{part['$ref']}") for part in meta["allOf"]
    ]
    assert len(parts) == 7
    assert {name for part in parts for name in part["properties"]} | {"definitions"} == KEYWORDS
