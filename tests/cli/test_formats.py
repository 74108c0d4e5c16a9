"""The formats of ``validate``, and pipelines on standard input, through the real command."""

import base64
import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
import tarfile
import urllib.parse
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.cli.command import Done, feed, run
from tests.cli.test_telling import BAD, GOOD
from tests.services import unavailable

FORMATS = ["text", "json", "sarif", "github"]
WARNING = "name: w\nsteps:\n  - {id: a, activity: payment.charge, task_queue: payments}\n"

# The licence of the schema's own text is not plain, so it is not kept here; this package brings it.
SARIF_PACKAGE = "@microsoft/jest-sarif@1.0.0-beta.0"
SARIF_INTEGRITY = "A1fOhPd6Ic5iDk4F9YPw1qNB4XF+7+IviR7xl8r2F6QzQkx5cpY9LsGk2rExiFIEcBbjpVnSmwWGBukASkiQ9A=="
SARIF_SCHEMA = "package/lib/schemas/sarif-2.1.0-rtm.5.json"


@pytest.fixture(scope="session")
def sarif(tmp_path_factory: pytest.TempPathFactory) -> jsonschema.Draft4Validator:
    """The JSON Schema of SARIF 2.1.0, which also checks that URIs are well-formed."""
    if shutil.which("npm") is None:
        unavailable("there is no npm, which brings the schema of SARIF (Debian: npm)")
    folder = tmp_path_factory.mktemp("sarif")
    words = ["npm", "pack", SARIF_PACKAGE, "--silent", "--prefer-offline"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        unavailable(f"npm cannot get {SARIF_PACKAGE}, which has the schema of SARIF: {done.stderr}")
    packed = folder / done.stdout.strip()
    digest = base64.b64encode(hashlib.sha512(packed.read_bytes()).digest()).decode()
    assert digest == SARIF_INTEGRITY
    with tarfile.open(packed) as archive:
        member = archive.extractfile(SARIF_SCHEMA)
        assert member is not None
        schema = json.load(member)
    checker = jsonschema.FormatChecker()
    assert {"uri", "uri-reference"} <= set(checker.checkers)
    return jsonschema.Draft4Validator(schema, format_checker=checker)


def results(done: Done) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = done.json["runs"][0]["results"]
    return found


@pytest.mark.parametrize("how", FORMATS)
def test_each_format_has_its_stream_and_the_same_exit_codes(tmp_path: Path, how: str) -> None:
    for name, text in (("good", GOOD), ("bad", BAD), ("warning", WARNING)):
        (tmp_path / f"{name}.yaml").write_text(text)
    for words, code in ((["good"], 0), (["bad"], 1), (["warning"], 0), (["warning", "--strict"], 1)):
        done = run(tmp_path, "validate", f"{words[0]}.yaml", "--format", how, *words[1:])
        assert done.code == code
        if how == "text":
            assert done.out == ""
            assert done.err.splitlines()[-1].startswith("1 file: ")
        else:
            assert done.err == ""
            assert ("no activity" in done.out) == (words != ["good"])
    missing = run(tmp_path, "validate", "none.yaml", "--format", how)
    assert (missing.code, missing.out) == (2, "")
    assert missing.err == "run-pipeline: there is no file none.yaml\n"


SURPRISE = """
import os
print("printed")
os.system("echo printed too; touch ran.txt")
from temporalio import activity
@activity.defn(name="shop.surprise")
def surprise(amount: int) -> int: ...
"""


def test_modules_print_nothing_into_results_and_are_not_imported_if_unwanted(tmp_path: Path) -> None:
    (tmp_path / "surprise.py").write_text(SURPRISE)
    (tmp_path / "activities.yaml").write_text("modules: [surprise]\n")
    (tmp_path / "p.yaml").write_text(
        "name: p\nsteps: [{id: a, activity: shop.surprise, args: [no], compensate: none}]\n"
    )
    command = ("validate", "p.yaml", "--format", "json")
    done = run(tmp_path, *command, "--no-modules")
    assert (done.code, done.json) == (0, [])
    assert "note: not imported, so their activities are not checked: surprise. " in done.err
    assert not (tmp_path / "ran.txt").exists()
    done = run(tmp_path, *command)
    assert [one["rule"] for one in done.json] == ["type-mismatch"]
    (tmp_path / "activities.lock.json").write_text(run(tmp_path, "activities", "--json").out)
    (tmp_path / "ran.txt").unlink()
    done = run(tmp_path, *command, "--no-modules")
    assert ([one["rule"] for one in done.json], done.err) == (["type-mismatch"], "")
    assert not (tmp_path / "ran.txt").exists()
    done = run(tmp_path, *command, "--no-modules", "--activities", "surprise")
    assert (done.code, "it cannot be used with --no-modules" in done.err) == (2, True)


def test_an_unknown_format_is_refused_with_those_there_are(tmp_path: Path) -> None:
    done = run(tmp_path, "validate", ".", "--format", "xml")
    assert done.code == 2
    assert all(how in done.err for how in FORMATS)


def test_sarif_has_a_rule_and_a_place_for_each_result(
    tmp_path: Path, sarif: jsonschema.Draft4Validator
) -> None:
    (tmp_path / "bad.yaml").write_text(BAD)
    (tmp_path / "w.yaml").write_text(WARNING)
    done = run(tmp_path, "validate", ".", "--format", "sarif")
    log = done.json
    sarif.validate(log)
    assert (log["version"], len(log["runs"])) == ("2.1.0", 1)
    one = log["runs"][0]
    driver = one["tool"]["driver"]
    assert (driver["name"], driver["version"]) == ("run-pipeline", version("pipeline-runner"))
    assert driver["rules"] == [
        {"id": "undeclared-activity", "defaultConfiguration": {"level": "warning"}},
        {"id": "unknown-activity", "defaultConfiguration": {"level": "error"}},
        {"id": "unknown-key", "defaultConfiguration": {"level": "error"}},
    ]
    assert one["columnKind"] == "unicodeCodePoints"
    assert one["results"][1] == {
        "ruleId": "unknown-key",
        "ruleIndex": 2,
        "level": "error",
        "message": {"text": 'unknown key "retrys" in a step\nhelp: did you mean "retry"?'},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": "bad.yaml"},
                    "region": {"startLine": 4, "startColumn": 51, "endLine": 4, "endColumn": 57},
                }
            }
        ],
    }
    assert [(r["ruleId"], r["level"]) for r in one["results"]] == [
        ("unknown-activity", "error"),
        ("unknown-key", "error"),
        ("undeclared-activity", "warning"),
    ]
    assert done.out == run(tmp_path, "validate", ".", "--format", "sarif").out


def test_sarif_without_results_is_valid(tmp_path: Path, sarif: jsonschema.Draft4Validator) -> None:
    (tmp_path / "good.yaml").write_text(GOOD)
    done = run(tmp_path, "validate", "good.yaml", "--format", "sarif")
    sarif.validate(done.json)
    assert (done.code, results(done), done.json["runs"][0]["tool"]["driver"]["rules"]) == (0, [], [])


def test_sarif_of_every_recorded_mistake_is_valid(tmp_path: Path, sarif: jsonschema.Draft4Validator) -> None:
    shutil.copytree(
        Path(__file__).parents[1] / "data", tmp_path / "data", ignore=shutil.ignore_patterns("histories")
    )
    done = run(tmp_path, "validate", "data", "--format", "sarif")
    sarif.validate(done.json)
    assert len(results(done)) > 100


def test_the_schema_would_find_a_mistake(sarif: jsonschema.Draft4Validator) -> None:
    log: dict[str, Any] = {"version": "2.1.0", "runs": [{"tool": {"driver": {"name": "x"}}, "results": []}]}
    assert sarif.is_valid(log)
    place = {"physicalLocation": {"artifactLocation": {"uri": "a b\n.yaml"}}}
    log["runs"][0]["results"] = [{"message": {"text": "x"}, "locations": [place]}]
    assert not sarif.is_valid(log)


ODD_NAMES = ["a b.yaml", "50%.yaml", "a:b.yaml", "ä,#?.yaml", "x/[y].yaml"]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_names_of_files_are_escaped(tmp_path: Path, sarif: jsonschema.Draft4Validator, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(BAD)
    done = run(tmp_path, "validate", ".", "--format", "sarif")
    sarif.validate(done.json)
    uri = results(done)[0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    assert urllib.parse.urlsplit(uri) == ("", "", uri, "", "")
    assert urllib.parse.unquote(uri) == name
    command = run(tmp_path, "validate", ".", "--format", "github").out.splitlines()[0]
    assert annotation(command)["file"] == name


@pytest.mark.skipif(os.uname().sysname != "Linux", reason="other systems refuse such names")
def test_a_name_that_is_not_utf8_is_a_uri_too(tmp_path: Path, sarif: jsonschema.Draft4Validator) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.yaml")).write_text(BAD)
    done = run(tmp_path, "validate", ".", "--format", "sarif")
    sarif.validate(done.json)
    assert '"uri": "%FF.yaml"' in done.out
    assert len(run(tmp_path, "validate", ".", "--format", "json").json) == 2


def test_paths_are_relative_where_the_file_is_below(
    tmp_path: Path, sarif: jsonschema.Draft4Validator
) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work/in.yaml").write_text(BAD)
    (tmp_path / "out.yaml").write_text(BAD)
    files = [str(tmp_path / "work/in.yaml"), str(tmp_path / "out.yaml")]
    done = run(tmp_path / "work", "validate", *files, "--format", "sarif")
    sarif.validate(done.json)
    places = [r["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for r in results(done)]
    assert set(places) == {"in.yaml", (tmp_path / "out.yaml").as_uri()}
    told = run(tmp_path / "work", "validate", *files, "--format", "github").out.splitlines()
    assert {annotation(line)["file"] for line in told} == {"in.yaml", files[1]}


def annotation(line: str) -> dict[str, str]:
    """Read a workflow command as GitHub's runner does."""
    match = re.fullmatch(r"::(\w+) (.*?)::(.*)", line)
    assert match is not None, line
    pairs = (pair.split("=", 1) for pair in match[2].split(","))
    escapes = {"%3A": ":", "%2C": ",", "%0A": "\n", "%0D": "\r", "%25": "%"}
    plain = functools.partial(re.sub, "%(3A|2C|0A|0D|25)", lambda found: escapes[found[0]])
    return {"level": match[1], "message": plain(match[3])} | {key: plain(value) for key, value in pairs}


def test_github_gets_a_command_for_each_mistake(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(BAD)
    (tmp_path / "w.yaml").write_text(WARNING)
    first, second, third = run(tmp_path, "validate", ".", "--format", "github").out.splitlines()
    assert first == (
        "::error file=bad.yaml,line=4,endLine=4,col=23,endColumn=32,title=unknown-activity"
        '::there is no activity "file.raed" in the catalogue%0Ahelp: did you mean "file.read"?'
    )
    assert annotation(second)["message"] == 'unknown key "retrys" in a step\nhelp: did you mean "retry"?'
    assert annotation(third)["level"] == "warning"


def test_no_text_of_a_file_is_a_command_to_github(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text('name: p\n"50%: x\\n::warning::y\\r": 1\nsteps: [{id: a, set: {}}]\n')
    (line,) = run(tmp_path, "validate", "bad.yaml", "--format", "github").out.splitlines()
    told = annotation(line)
    assert (told["level"], told["title"]) == ("error", "unknown-key")
    assert told["message"].startswith('unknown key "50%: x')


def test_github_gets_no_columns_of_several_lines(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(
        "name: p\nsteps:\n  - id: a\n    activity: file.read\n    wait: [\n      1]\n"
    )
    told = [
        annotation(line) for line in run(tmp_path, "validate", ".", "--format", "github").out.splitlines()
    ]
    wide = [one for one in told if one["line"] != one["endLine"]]
    assert wide
    assert all("col" not in one and "endColumn" not in one for one in wide)


@pytest.mark.parametrize("how", FORMATS)
def test_a_pipeline_is_read_from_standard_input(tmp_path: Path, how: str) -> None:
    done = feed(tmp_path, BAD.encode(), "validate", "-", "--format", how)
    assert done.code == 1
    if how == "text":
        assert done.out == ""
        first, *_, last = done.err.splitlines()
        assert first.startswith("<stdin>:4:23: error: ")
        assert last == "1 file: 2 errors, 0 warnings"
        assert "4 |   - {id: a, activity: file.raed" in done.err
    elif how == "json":
        assert {d["path"] for d in done.json} == {"<stdin>"}
    elif how == "sarif":
        assert '"uri": "%3Cstdin%3E"' in done.out
    else:
        assert done.out.startswith("::error file=<stdin>,line=4,")
    good = feed(tmp_path, GOOD.encode(), "validate", "-", "--format", how)
    assert good.code == 0


def test_children_and_activities_of_standard_input_are_those_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "activities.yaml").write_text(
        "activities: {shop.order: {input: {type: object, required: [id]}}}\n"
    )
    (tmp_path / "child.yaml").write_text(BAD)
    text = "name: p\nsteps:\n  - {id: a, pipeline: child.yaml}\n  - {id: b, activity: shop.order, with: {}}\n"
    found = feed(tmp_path, text.encode(), "validate", "-", "--format", "json").json
    assert {(d["path"], d["rule"]) for d in found} == {
        ("<stdin>", "missing-parameter"),
        ("child.yaml", "unknown-activity"),
        ("child.yaml", "unknown-key"),
    }


def test_standard_input_goes_with_files_but_not_twice(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(BAD)
    both = feed(tmp_path, GOOD.encode(), "validate", "-", "bad.yaml")
    assert both.err.endswith("2 files: 2 errors, 0 warnings\n")
    twice = feed(tmp_path, GOOD.encode(), "validate", "-", "-", "--format", "sarif")
    assert (twice.code, twice.out) == (2, "")
    assert twice.err == 'run-pipeline: standard input, "-", can be read only once\n'


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (b"#" * (1024 * 1024 + 1), "file-too-large"),
        (b"name: \xff\n", "not-utf8"),
        (b"", "empty-file"),
        (b"- 1\n", "wrong-type"),
    ],
)
def test_standard_input_has_the_limits_of_a_file(tmp_path: Path, data: bytes, rule: str) -> None:
    done = feed(tmp_path, data, "validate", "-", "--format", "json")
    assert (done.code, [d["rule"] for d in done.json]) == (1, [rule])


def test_comments_silence_warnings_of_standard_input(tmp_path: Path) -> None:
    text = WARNING.replace("payments}", "payments}  # pipeline: ignore[undeclared-activity]")
    assert feed(tmp_path, text.encode(), "validate", "-", "--strict").code == 0


def test_a_file_may_be_named_like_standard_input(tmp_path: Path) -> None:
    (tmp_path / "-").write_text(BAD)
    (tmp_path / "<stdin>").write_text(BAD)
    assert run(tmp_path, "validate", "./-").code == 1
    child = "name: p\nsteps: [{id: a, pipeline: <stdin>}]\n"
    found = feed(tmp_path, child.encode(), "validate", "-", "--format", "json").json
    assert {d["rule"] for d in found} == {"unknown-activity", "unknown-key"}
