"""Pipelines are loaded and checked by programs as by commands, and what is wrong is data."""

from pathlib import Path
from typing import Any

import pytest
from temporalio import activity

from pipeline_runner import InvalidInputs, InvalidPipeline, UsageError, load, load_directory, load_text

GREET = """\
name: greet
description: Greet somebody.
inputs: {name: {type: string}, often: {type: integer, default: 2}}
steps: [{id: a, set: {text: "{{ inputs.name }} {{ inputs.often }}"}}]
output: "{{ steps.a.output.text }}"
"""


@activity.defn(name="mine.add")
async def add(given: dict[str, int]) -> int:
    """Add two numbers."""
    return sum(given.values())


class Counter:
    @activity.defn(name="mine.count")
    def count(self, word: str) -> int:
        """Count letters."""
        return len(word)


def test_a_pipeline_tells_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "greet.yaml").write_text(GREET)
    pipeline = load(tmp_path / "greet.yaml")
    assert (pipeline.ok, pipeline.name, pipeline.description) == (True, "greet", "Greet somebody.")
    assert pipeline.diagnostics == ()
    assert pipeline.inputs == {"name": {"type": "string"}, "often": {"type": "integer", "default": 2}}
    assert pipeline.path == str(tmp_path / "greet.yaml")
    assert pipeline.secrets == ()
    assert repr(pipeline) == f"<Pipeline {pipeline.path}>"


def test_inputs_are_checked_and_filled_up() -> None:
    pipeline = load_text(GREET)
    assert pipeline.check_inputs({"name": "Ada"}) == {"name": "Ada", "often": 2}
    with pytest.raises(InvalidInputs) as caught:
        pipeline.check_inputs({"often": "twice", "nmae": "Ada"})
    assert [problem.path for problem in caught.value.problems] == ["nmae", "often"]


def test_errors_are_data_and_stop_whatever_needs_a_good_pipeline() -> None:
    pipeline = load_text("name: a\nsteps: [{id: b, sets: {c: 1}}]\n")
    assert not pipeline.ok
    found = [(d.path, d.line, d.rule) for d in pipeline.diagnostics if d.severity == "error"]
    assert ("<string>", 2, "unknown-key") in found
    assert repr(pipeline) == "<Pipeline <string>, with errors>"
    with pytest.raises(InvalidPipeline) as caught:
        _ = pipeline.name
    assert caught.value.diagnostics == pipeline.diagnostics
    assert str(caught.value).startswith(f"<string> has {len(found)} error")
    assert "[unknown-key]" in str(caught.value)
    with pytest.raises(InvalidPipeline):
        pipeline.check_inputs({})
    with pytest.raises(InvalidPipeline):
        _ = pipeline.secrets


def test_activities_are_callables_or_names_of_modules() -> None:
    text = """\
name: a
steps:
  - {id: b, activity: mine.add, with: {x: 1}, compensate: none}
  - {id: c, activity: mine.count, args: [word], compensate: none}
  - {id: d, activity: effect.do, with: {log: l, name: n}, compensate: none}
output: "{{ steps.c.output + 1 }}"
"""
    pipeline = load_text(text, activities=[add, Counter().count, "tests.effects"])
    assert [d for d in pipeline.diagnostics if d.severity == "error"] == []
    assert pipeline.activities[0] is add
    wrong = load_text(text.replace("[word]", "[1]"), activities=[add, Counter().count, "tests.effects"])
    assert [d.rule for d in wrong.diagnostics if d.severity == "error"] == ["type-mismatch"]
    unknown = load_text(text)
    assert [d.rule for d in unknown.diagnostics].count("unknown-activity") == 3


@pytest.mark.parametrize("given", [print, "no_such_module", Counter])
def test_what_is_no_activity_is_refused(given: Any) -> None:
    with pytest.raises(UsageError, match=r"is not an activity: decorate it|there is no Python module"):
        load_text(GREET, activities=[given])


def test_a_string_has_a_directory_for_its_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "child.yaml").write_text(GREET)
    text = "name: a\nsteps: [{id: b, pipeline: child.yaml, with: {name: Ada}}]\n"
    assert load_text(text, base=tmp_path).ok
    assert [d.rule for d in load_text(text).diagnostics] == ["unknown-child"]
    monkeypatch.chdir(tmp_path)
    assert load_text(text).ok
    wrong = load_text(text.replace("Ada", "1"), base=tmp_path)
    assert [d.path for d in wrong.diagnostics] == [str(tmp_path / "<string>")]


def test_a_string_that_is_no_text_is_an_error_in_it() -> None:
    assert [d.rule for d in load_text("name: '\ud800'\n").diagnostics] == ["not-utf8"]


def test_a_directory_gives_every_pipeline_in_it(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "z.yaml").write_text(GREET)
    (tmp_path / "below/b.yaml").write_text("name: b\nsteps: [{id: c, sets: {}}]\n")
    (tmp_path / "other.yaml").write_text("key: value\n")
    found = load_directory(tmp_path)
    assert [(Path(p.path).name, p.ok) for p in found] == [("b.yaml", False), ("z.yaml", True)]


def test_a_path_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no file"):
        load(tmp_path / "a.yaml")
    with pytest.raises(UsageError, match="is a directory, not a pipeline file"):
        load(tmp_path)
    with pytest.raises(UsageError, match="there is no directory"):
        load_directory(tmp_path / "a")
