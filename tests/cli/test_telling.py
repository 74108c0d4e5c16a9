"""The commands that only tell: ``validate``, ``activities``, ``schema``, help."""

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline_runner.cli.main import COMMANDS
from pipeline_runner.language.rules import GROUPS, ids
from tests.cli.command import environment, run

GOOD = "version: 1\nname: good\nsteps:\n  - {id: a, activity: file.read, with: {path: x}}\n"
BAD = "version: 1\nname: bad\nsteps:\n  - {id: a, activity: file.raed, with: {path: x}, retrys: 3}\n"


def test_validate_tells_all_mistakes_with_places_and_what_would_be_right(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(BAD)
    done = run(tmp_path, "validate", "bad.yaml")
    assert (done.code, done.out) == (1, "")
    assert (
        done.err
        == """\
bad.yaml:4:23: error: there is no activity "file.raed" in the catalogue [unknown-activity]
  |
4 |   - {id: a, activity: file.raed, with: {path: x}, retrys: 3}
  |                       ^~~~~~~~~
  = help: did you mean "file.read"?
bad.yaml:4:51: error: unknown key "retrys" in a step [unknown-key]
  |
4 |   - {id: a, activity: file.raed, with: {path: x}, retrys: 3}
  |                                                   ^~~~~~
  = help: did you mean "retry"?
1 file: 2 errors, 0 warnings
"""
    )


def test_what_repeats_is_counted_in_the_text_and_kept_for_programs(tmp_path: Path) -> None:
    """Three of a kind are shown; one more is not worth a count."""
    steps = "".join(f"  - {{id: s{n}, set: {{x: 1}}, retrys: 3}}\n" for n in range(40))
    (tmp_path / "bad.yaml").write_text(f"name: bad\nsteps:\n{steps}  - {{id: b, set: {{x: 1}}, ifs: 1}}\n")
    done = run(tmp_path, "validate", "bad.yaml")
    assert done.err.count('unknown key "retrys"') == 3
    assert done.err.count("37 more like this: lines 6, 7, 8, 9, 10, 11, 12, 13, 14, …\n") == 1
    assert done.err.count('unknown key "ifs"') == 1
    assert done.err.endswith("\n1 file: 41 errors, 0 warnings\n")
    assert len(json.loads(run(tmp_path, "validate", "--format", "json", "bad.yaml").out)) == 41
    (tmp_path / "four.yaml").write_text(f"name: four\nsteps:\n{''.join(steps.splitlines(keepends=True)[:4])}")
    done = run(tmp_path, "validate", "four.yaml")
    assert (done.err.count('unknown key "retrys"'), "more like this" in done.err) == (4, False)


def test_validate_searches_folders_and_prints_json(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "good.yaml").write_text(GOOD)
    (tmp_path / "one" / "bad.yml").write_text(BAD)
    (tmp_path / "one" / "compose.yaml").write_text("services: {}\n")
    (tmp_path / "one" / "broken.yaml").write_text("a: [\n")
    done = run(tmp_path, "validate", "one", "--format", "json")
    assert (done.code, done.err) == (1, "")
    found = done.json
    assert {(d["path"], d["rule"]) for d in found} == {
        ("one/bad.yml", "unknown-activity"),
        ("one/bad.yml", "unknown-key"),
        ("one/broken.yaml", "yaml-syntax"),
    }
    assert set(found[0]) == {
        "path", "line", "column", "end_line", "end_column", "severity", "rule", "message", "help",
    }  # fmt: skip
    (tmp_path / "one" / "bad.yml").unlink()
    (tmp_path / "one" / "broken.yaml").unlink()
    clean = run(tmp_path, "validate", "one")
    assert (clean.code, clean.out, clean.err) == (0, "", "1 file: 0 errors, 0 warnings\n")


def test_warnings_count_with_strict_only(tmp_path: Path) -> None:
    (tmp_path / "w.yaml").write_text(
        "version: 1\nname: w\nsteps:\n  - {id: a, activity: payment.charge, task_queue: payments}\n"
    )
    assert run(tmp_path, "validate", "w.yaml").code == 0
    done = run(tmp_path, "validate", "w.yaml", "--strict")
    assert done.code == 1
    assert "warning" in done.err


@pytest.mark.parametrize(
    ("more", "coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True)],
    ids=["not set", "set", "empty"],
)
def test_colours_are_for_terminals_and_no_color_ends_them(
    tmp_path: Path, more: dict[str, str], *, coloured: bool
) -> None:
    (tmp_path / "bad.yaml").write_text(BAD)
    surroundings = {k: v for k, v in environment(tmp_path).items() if k != "NO_COLOR"} | more
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline_runner", "validate", "bad.yaml"],
        cwd=tmp_path,
        env=surroundings,
        stdin=subprocess.DEVNULL,
        stderr=theirs,
    )
    os.close(theirs)
    assert ("\x1b[1;31merror:" in read_all(ours)) == coloured
    assert process.wait(60) == 1
    piped = run(tmp_path, "validate", "bad.yaml")
    assert "\x1b" not in piped.err


def read_all(terminal: int) -> str:
    data = b""
    while True:
        try:
            data += (part := os.read(terminal, 65536))
        except OSError:  # the other side is closed
            part = b""
        if not part:
            os.close(terminal)
            return data.decode()


def test_activities_lists_the_catalogue(tmp_path: Path) -> None:
    (tmp_path / "activities.yaml").write_text(
        "activities:\n  payment.charge: {task_queue: payments-go, description: Charge a card.}\n"
        "  payment.hold: {undo: {activity: payment.charge, args: ['{{ step.key }}', 3], task_queue: go}}\n"
    )
    done = run(tmp_path, "activities")
    assert done.code == 0, done.err
    names = [line.split()[0] for line in done.out.splitlines()]
    assert names == sorted(names)
    assert {"shell.run", "http.request", "file.write", "payment.charge"} <= set(names)
    shell = run(tmp_path, "activities", "shell.run", "--format", "json").json
    assert shell[0]["input"]["required"] == ["command"]
    assert shell[0]["timeouts"] == {"heartbeat": 10.0}
    assert "command (array, required)" in run(tmp_path, "activities", "shell.run").out
    needs = '  needs: pip install "pipeline-runner[dns]"\n'
    told = run(tmp_path, "activities", "dns.upsert", "payment.hold", "http.request").out
    assert needs in told
    assert "  undone by: dns.upsert, only if the step completed\n    name: {{ step.input.name }}\n" in told
    assert "  undone by: payment.charge\n    1: {{ step.key }}\n    2: 3\n" in told
    assert '  undone by: file.restore, if "save_as" is given\n' in told
    hold = run(tmp_path, "activities", "payment.hold", "--json").json
    undo = {
        "activity": "payment.charge",
        "args": ["{{ step.key }}", 3],
        "task_queue": "go",
        "timeouts": {},
        "retry": {},
    }
    assert hold[0]["undo"] == undo
    unknown = run(tmp_path, "activities", "shell.rnu")
    assert (unknown.code, unknown.err) == (1, "run-pipeline: there is no activity shell.rnu\n")


def test_activities_lists_arguments_where_there_is_not_one(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        "from temporalio import activity\n"
        "@activity.defn\ndef add(one: int, two: int | None = None): ...\n"
        "@activity.defn\ndef declared(one: int, two: int): ...\n"
    )
    (tmp_path / "activities.yaml").write_text(
        "modules: [shop]\nactivities: {declared: {input: {type: object}}, add: {description: Add.}}\n"
    )
    words = ["activities", "add", "declared"]
    add, declared = run(tmp_path, *words, "--format", "json").json
    assert add["arguments"] == [
        {"name": "one", "schema": {"type": "integer"}},
        {
            "name": "two",
            "schema": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
            "required": False,
        },
    ]
    assert "input" not in add
    assert declared["input"] == {"type": "object"}
    assert "arguments" not in declared
    assert "  args:\n    one (integer, required)\n    two (integer | null)\n" in run(tmp_path, *words).out


def test_schema_prints_the_published_schema(tmp_path: Path) -> None:
    published = Path(__file__).parents[2] / "schemas" / "pipeline.schema.json"
    done = run(tmp_path, "schema")
    assert (done.code, json.loads(done.out)) == (0, json.loads(published.read_text()))


def test_explain_prints_the_page_of_a_rule(tmp_path: Path) -> None:
    done = run(tmp_path, "explain", "unknown-child-input")
    assert (done.code, done.err) == (0, "")
    assert (
        done.out
        == """\
# unknown-child-input

Group: Children
Severity: error

The child does not declare this input.

Why: The child would fail with `InvalidInputs` after everything before it has been done.

Bad:

```yaml
# page.yaml
name: page
inputs: {title: {type: string, default: Welcome}}
steps:
  - {id: a, set: {text: "{{ inputs.title }}"}}
```

```yaml
name: site
steps:
  - {id: page, pipeline: ./page.yaml, with: {titel: News}}
```

Good:

```yaml
name: site
steps:
  - {id: page, pipeline: ./page.yaml, with: {title: News}}
```
"""
    )


def test_explain_lists_the_rules_by_group(tmp_path: Path) -> None:
    done = run(tmp_path, "explain")
    assert (done.code, done.err) == (0, "")
    groups = [group.splitlines() for group in done.out.split("\n\n")]
    assert [title for title, *_ in groups] == [group for group in GROUPS if f"{group}\n" in done.out]
    lines = [line for _, *lines in groups for line in lines]
    assert sorted(line.split()[0] for line in lines) == ids()
    assert any(
        re.fullmatch(r"  missing-extra  +warning  The activity requires an extra .* installed here\.", line)
        for line in lines
    )


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ("unknwon-key", 'there is no rule "unknwon-key": did you mean "unknown-key"?'),
        ("nothing", 'there is no rule "nothing": run-pipeline explain lists them'),
    ],
)
def test_explain_of_an_unknown_rule(tmp_path: Path, rule: str, told: str) -> None:
    done = run(tmp_path, "explain", rule)
    assert (done.code, done.out, done.err) == (2, "", f"run-pipeline: {told}\n")


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
def test_every_command_has_help(tmp_path: Path, command: list[str]) -> None:
    done = run(tmp_path, *command, "--help")
    assert (done.code, done.err) == (0, "")
    assert "usage: run-pipeline" in done.out


@pytest.mark.parametrize(
    "words", [["--help"], ["validate", "good.yaml"], ["schema"], ["activities"], ["explain"]]
)
def test_what_needs_no_server_imports_no_temporalio(tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "good.yaml").write_text(GOOD)
    code = (
        "import sys\nfrom pipeline_runner.cli.main import run\n"
        f"assert run({words!r}) == 0\n"
        "assert not {'temporalio', 'httpx', 'rich', 'uvloop', 'asyncio'} & set(sys.modules), sorted(sys.modules)\n"
    )
    subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment(tmp_path),
        check=True,
        stdout=subprocess.DEVNULL,
    )
