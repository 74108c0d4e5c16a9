"""The published JSON Schema is fresh, and agrees with the checker."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from pipeline_runner.language.table import schema
from pipeline_runner.language.table.shapes import Identifier
from pipeline_runner.language.yaml import loader
from pipeline_runner.language.yaml.nodes import START, Scalar, Source, plain

ROOT = Path(__file__).parent.parent.parent
DATA = ROOT / "tests" / "data"
NOT_A_PIPELINE = {"activities.yaml", "activities.yml"}
GOOD = [
    path
    for path in (*sorted((DATA / "ok").glob("**/*.yaml")), *sorted((ROOT / "pipelines").glob("*.yaml")))
    if path.name not in NOT_A_PIPELINE and not path.stem.endswith(".test")
]
STRUCTURAL = [
    "bad_duration", "bad_identifier", "bad_schema", "empty", "missing_key", "not_a_mapping", "step_kind",
    "unknown_key", "wrong_kind_key", "wrong_type",
]  # fmt: skip


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    """The committed schema."""
    return Draft202012Validator(json.loads((ROOT / "schemas" / "pipeline.schema.json").read_text("utf-8")))


def data(path: Path) -> Any:
    """Return what a file holds."""
    source, _ = loader.read(path, path.name)
    node, found = loader.load(source)
    assert found == []
    assert node is not None
    return plain(node)


def test_committed_schema_is_fresh() -> None:
    """``python -m pipeline_runner.language.table.schema > schemas/pipeline.schema.json`` renews it."""
    assert (ROOT / "schemas" / "pipeline.schema.json").read_text(encoding="utf-8") == schema.text()


def test_schema_is_a_schema(validator: Draft202012Validator) -> None:
    """By the meta-schema of its own dialect."""
    Draft202012Validator.check_schema(validator.schema)


@pytest.mark.parametrize("path", GOOD, ids=lambda path: str(path.relative_to(ROOT)))
def test_good_file_fits(path: Path, validator: Draft202012Validator) -> None:
    """An editor does not complain of what the checker lets pass."""
    assert [error.message for error in validator.iter_errors(data(path))] == []


@pytest.mark.parametrize("case", STRUCTURAL)
def test_mistake_of_structure_does_not_fit(case: str, validator: Draft202012Validator) -> None:
    """An editor sees what a schema can know."""
    assert not validator.is_valid(data(DATA / "err" / f"{case}.yaml"))


def test_constructs_of_later_versions_fit(validator: Draft202012Validator) -> None:
    """The schema holds the whole language, whatever this version runs."""
    assert validator.is_valid(data(DATA / "err" / "not_supported_yet.yaml"))


@pytest.mark.parametrize(
    "step",
    [
        {"id": "a"},
        {"id": "a", "activity": "x", "wait": "1s"},
        {"id": "a", "activity": "x", "parent_close_policy": "abandon"},
        {"id": "a", "activity": "x", "timeouts": {"run": "1s"}},
        {"id": "a", "pipeline": "x", "timeouts": {"start_to_close": "1s"}},
        {"id": "a", "set": {}, "with": {}},
        {"id": "catch", "set": {}},
        {"id": "a", "wait": "soon"},
        {"id": "a", "set": {}, "compensate": "nothing"},
        {"id": "a", "set": {}, "compensate": {"activity": "x", "pipeline": "y"}},
        {"id": "a", "steps": [{"id": "b"}]},
    ],
)
def test_each_kind_of_step_has_its_own_keys(step: dict[str, Any], validator: Draft202012Validator) -> None:
    """One mistake each."""
    assert not validator.is_valid({"version": 1, "name": "x", "steps": [step]})


NAMES = st.one_of(
    st.text(st.characters(max_codepoint=0x7F), min_size=1, max_size=4),
    st.text(st.characters(categories=["L", "M", "Nd", "Nl", "Pc"]), min_size=1, max_size=4),
)


@settings(max_examples=300, derandomize=True, database=None, deadline=None)
@given(NAMES)
def test_schema_and_checker_agree_about_names(name: str) -> None:
    """The schema cannot know letters from other characters beyond ASCII, so there the checker refuses more."""
    fits = re.search(Identifier().schema({})["pattern"], name) is not None
    source = Source("p.yaml", name)
    accepted = not Identifier().check(Scalar(START, name, name), source, "the name")
    assert fits or not accepted
    if name.isascii() and name.strip() and not name.endswith("\n"):
        assert fits == accepted
