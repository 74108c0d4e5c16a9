"""Every mistake in ``data/err`` is told exactly so; every file in ``data/ok`` is silent.

A case of ``err`` is a YAML file with an ``.out`` beside it; the others are files that cases need. Cases
of a rule stand in a folder of its name. A case that needs an ``activities.yaml`` of its own, or other
files, has a folder of its own there, and is the ``main.yaml`` in it.

Cases use all of the language: ``not-supported-yet`` is told in its own cases only.

``UPDATE_GOLDEN=1 pytest tests/language/test_golden.py`` rewrites the expected texts, and writes those of new
cases; read the difference before committing it.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

from pipeline_runner.language import rules
from pipeline_runner.language.catalogue_file import NAMES
from pipeline_runner.language.diagnostics import Diagnostic, has_errors, render
from pipeline_runner.language.workspace import load

DATA = Path(__file__).parent.parent / "data"
UPDATE = bool(os.environ.get("UPDATE_GOLDEN"))


def is_case(path: Path) -> bool:
    """Whether a file below ``err`` or ``ok`` stands where cases stand."""
    folders = path.relative_to(DATA).parts[1:-1]
    if path.name in NAMES:
        return False
    match folders:
        case ():
            return True
        case (rule,):
            return "-" in rule
        case (rule, _):
            return "-" in rule and path.name == "main.yaml"
    return False


YAML = sorted((DATA / "err").glob("**/*.yaml"))
ERR = [path for path in YAML if path.with_suffix(".out").exists() or (UPDATE and is_case(path))]
OK = [path for path in sorted((DATA / "ok").glob("**/*.yaml")) if path.name not in NAMES]

ELSEWHERE = {
    "file-too-large": "tests/language/test_loader.py::test_file_over_one_mebibyte_is_refused",
    "missing-extra": "tests/cli/test_extras.py::test_the_checker_warns",
    "payload-size": "tests/language/test_payload_size.py::test_file_that_is_too_large_to_be_handed_over",
    "same-activity": "tests/language/test_directories.py::test_checker_tells_activities_of_one_name",
    "same-name": "tests/language/test_workspace.py::test_two_files_of_one_name",
    "unreadable-file": "tests/language/test_workspace.py::test_activities_file_that_cannot_be_read",
}
"""The rules that no file can have here, and the test of each."""


def of_interest(path: Path, found: Iterable[Diagnostic]) -> list[Diagnostic]:
    """Return what a case is about: what is not run yet has mistakes of its own all the same."""
    about = path.relative_to(DATA).parts[1]
    own = "-" not in about or about == "not-supported-yet"
    return [diagnostic for diagnostic in found if own or diagnostic.rule != "not-supported-yet"]


@pytest.fixture(autouse=True)
def _in_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths in messages are relative to the data folder."""
    monkeypatch.chdir(DATA)


@pytest.mark.parametrize("path", ERR, ids=lambda path: str(path.relative_to(DATA / "err").with_suffix("")))
def test_mistake_is_told_exactly(path: Path) -> None:
    """What is wrong, where, and what would be right."""
    loaded = load(path.relative_to(DATA))
    told = of_interest(path, loaded.diagnostics)
    text = "".join(f"{render(d, loaded.sources[d.path])}\n" for d in told)
    expected = path.with_suffix(".out")
    if UPDATE:
        expected.write_text(text, encoding="utf-8")
    assert text == expected.read_text(encoding="utf-8")
    assert text
    assert has_errors(loaded.diagnostics) == (loaded.bundle is None)


@pytest.mark.parametrize("path", OK, ids=lambda path: str(path.relative_to(DATA / "ok")))
def test_good_file_is_silent(path: Path) -> None:
    """A file without mistakes gives a bundle and not a word."""
    loaded = load(path.relative_to(DATA))
    assert [render(d, loaded.sources[d.path]) for d in of_interest(path, loaded.diagnostics)] == []
    assert has_errors(loaded.diagnostics) == (loaded.bundle is None)


def test_no_case_is_passed_over() -> None:
    """A text without its file, or a file where cases stand without its text."""
    texts = {path.with_suffix(".yaml") for path in (DATA / "err").glob("**/*.out")}
    assert texts <= set(YAML)
    assert [path for path in YAML if is_case(path) and path not in texts] == []


def test_every_rule_has_cases() -> None:
    """At least three mistakes, and two files that look like the mistake and are fine."""
    told = Counter(
        rule
        for path in (DATA / "err").glob("**/*.out")
        for rule in re.findall(r"^\S+:\d+:\d+: .*\[([a-z0-9-]+)\]$", path.read_text(), re.MULTILINE)
    )
    good = Counter(path.relative_to(DATA / "ok").parts[0] for path in OK if is_case(path))
    missing = {
        rule: (told[rule], good[rule])
        for rule in rules.ids()
        if rule not in ELSEWHERE and (told[rule] < 3 or good[rule] < 2)
    }
    assert missing == {}
    assert {folder.name for folder in (DATA / "ok").iterdir() if "-" in folder.name} <= set(rules.ids())
    assert {folder.name for folder in (DATA / "err").iterdir() if "-" in folder.name} <= set(rules.ids())


@pytest.mark.parametrize("rule", ELSEWHERE)
def test_rule_has_a_test_elsewhere(rule: str) -> None:
    path, _, name = ELSEWHERE[rule].partition("::")
    text = (DATA.parents[1] / path).read_text(encoding="utf-8")
    _, found, test = text.partition(f"def {name}(")
    assert found, "there is no such test"
    assert f"{rule}" in test.partition("\ndef ")[0]
