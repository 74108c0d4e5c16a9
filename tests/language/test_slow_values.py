"""Values are not held against patterns that would take for ever: the checker comes to its end."""

from pathlib import Path

import pytest

from tests.cli.command import run

SCHEMA = r'{type: string, pattern: "^(\\w+\\s?)+$"}'
FILES = {
    "child.yaml": """\
name: child
inputs: {x: SCHEMA}
steps:
  - {id: s, set: {x: "{{ inputs.x }}"}}
""",
    "activities.yaml": """\
activities:
  tree.plant: {input: {type: object, properties: {x: SCHEMA}}}
""",
    "default.yaml": r"""
name: default
inputs: {x: {type: string, pattern: "^(\\w+\\s?)+$", default: VALUE}}
steps:
  - {id: s, set: {x: "{{ inputs.x }}"}}
""",
    "keys.yaml": r"""
name: keys
inputs: {x: {type: object, patternProperties: {"^(\\w+\\s?)+$": true}, default: {VALUE: 1}}}
steps:
  - {id: s, set: {x: "{{ inputs.x }}"}}
""",
    "parent.yaml": """\
name: parent
steps:
  - {id: a, pipeline: child.yaml, with: {x: VALUE}, compensate: none}
""",
    "parameter.yaml": """\
name: parameter
steps:
  - {id: a, activity: tree.plant, with: {x: VALUE}, compensate: none}
""",
    "schedule.yaml": """\
name: schedule
inputs: {x: SCHEMA}
schedules: {now: {every: 1h, inputs: {x: VALUE}}}
steps:
  - {id: s, set: {x: "{{ inputs.x }}"}}
""",
}


@pytest.mark.parametrize("name", [name for name, text in FILES.items() if "VALUE" in text])
def test_the_checker_comes_to_its_end(name: str, tmp_path: Path) -> None:
    for file, text in FILES.items():
        (tmp_path / file).write_text(text.replace("SCHEMA", SCHEMA).replace("VALUE", "a" * 40 + "!"))
    done = run(tmp_path, "validate", name)
    assert done.code == 1, done.err
    assert "[slow-pattern]" in done.err
    assert "wrong-type" not in done.err
