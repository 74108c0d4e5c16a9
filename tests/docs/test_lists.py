"""The pages that list something list all of it: rules, activities, keys, filters, error types."""

import ast
import re
from collections.abc import Iterator

import pytest

from pipeline_runner.activities.catalogue.entries import Entry, builtin
from pipeline_runner.activities.catalogue.undo import Undo
from pipeline_runner.cli.exit_codes import ExitCode
from pipeline_runner.core import errors
from pipeline_runner.core.expressions import filters
from pipeline_runner.language import rules
from pipeline_runner.language.checks import expressions
from pipeline_runner.language.rules.__main__ import generate
from pipeline_runner.language.severities import SEVERITIES
from pipeline_runner.language.table import fields
from pipeline_runner.language.table.collections import Fields
from tests.docs.pages import PAGES, ROOT

DOCS = ROOT / "docs"
REFERENCE = (DOCS / "reference.md").read_text(encoding="utf-8")
ACTIVITIES = (DOCS / "activities.md").read_text(encoding="utf-8")


def reported() -> set[str]:
    """Return the ids of the rules that the language's code reports."""
    found = {f"{shape.name}-kind" for shape in (fields.STEP, fields.COMPENSATION)}
    found |= set(expressions.RULES.values())
    for path in (ROOT / "pipeline_runner/language").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                found |= {rule for argument in node.args for rule in _rules_in(argument)}
    return found


def _rules_in(argument: ast.expr) -> Iterator[str]:
    for node in [argument.body, argument.orelse] if isinstance(argument, ast.IfExp) else [argument]:
        if isinstance(node, ast.Constant) and re.fullmatch(r"[a-z]+(-[a-z][a-z0-9]*)+", str(node.value)):
            yield str(node.value)


def told() -> dict[str, set[str]]:
    """Return the rules that the files of mistakes get, and as what."""
    found: dict[str, set[str]] = {}
    for path in (ROOT / "tests/data/err").rglob("*.out"):
        for severity, rule in re.findall(
            r"^\S+:\d+:\d+: (error|warning): .*\[([a-z0-9-]+)\]$", path.read_text(), re.MULTILINE
        ):
            found.setdefault(rule, set()).add(severity)
    return found


def test_every_rule_has_a_page_and_an_entry() -> None:
    headings = re.findall(r"^### (.+)$", (DOCS / "checks.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert rules.ids() == sorted(headings) == sorted(reported())
    assert set(told()) <= set(headings)


def test_rules_are_told_as_the_table_says() -> None:
    assert {rule: {SEVERITIES[rule]} for rule in told()} == told()


def test_checks_are_written_from_the_pages() -> None:
    assert (DOCS / "checks.md").read_text(encoding="utf-8") == generate(rules.every())


def test_every_built_in_activity_is_listed_and_no_other() -> None:
    assert re.findall(r"^## ([a-z.]+)$", ACTIVITIES, re.MULTILINE) == sorted(builtin())


@pytest.mark.parametrize("entry", builtin().values(), ids=lambda entry: entry.name)
def test_every_parameter_is_told_as_the_code_tells_it(entry: Entry) -> None:
    """``builtin.json`` says what the activity is, takes and gives; the page says the same."""
    start = ACTIVITIES.index(f"## {entry.name}\n")
    section = ACTIVITIES[start : (ACTIVITIES + "\n## ").index("\n## ", start)]
    assert entry.description.replace("``", "`").splitlines()[0] in section
    rows = re.findall(r"^\| `(\w+)` \|.*\| (.*) \|$", section, re.MULTILINE)
    assert rows == [
        (key, value.get("description", ""))
        for schema in (entry.input, entry.output)
        for key, value in (schema or {})["properties"].items()
    ]
    undo = entry.undo
    assert re.findall(r"(?i)undone by `(\S+)`\.$", section, re.MULTILINE) == (
        [undo.activity] if isinstance(undo, Undo) else []
    )


def test_every_key_of_the_language_is_in_the_reference() -> None:
    tables = [fields.PIPELINE, fields.RETRY, fields.ACTIVITY_TIMEOUTS, fields.CHILD_TIMEOUTS, fields.DEFAULTS]
    for table in tables:
        assert isinstance(table, Fields)
        missing = [key for key in table.fields if f"`{key}`" not in REFERENCE]
        assert missing == [], table.name
    step = {
        *fields.STEP.common,
        *fields.STEP.kinds,
        *(key for kind in fields.STEP.kinds.values() for key in kind),
    }
    step |= {*fields.COMPENSATION.common}
    assert [key for key in sorted(step) if f"`{key}`" not in REFERENCE and f"`{key}:" not in REFERENCE] == []


def test_every_filter_and_test_is_in_the_reference() -> None:
    for title, names in (("Filters: ", filters.FILTERS), ("Tests, after `is`: ", filters.TESTS)):
        paragraph = REFERENCE.partition(title)[2].partition("\n\n")[0]
        assert sorted(re.findall(r"`([^`]+)`", paragraph)) == sorted(names)


def test_every_error_type_is_in_the_reference() -> None:
    types = {value for name, value in vars(errors).items() if name.isupper() and str(value).isalpha()}
    assert {one for one in types if f"`{one}`" not in REFERENCE} == set()


def test_every_exit_code_is_in_the_reference() -> None:
    table = REFERENCE.partition("| exit code | meaning |")[2].partition("\n\n")[0]
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)] == sorted(ExitCode)


def test_every_link_leads_somewhere() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)]+)\)", text):
            if target.startswith("https://"):
                continue
            path, _, anchor = target.partition("#")
            goal = page.parent / path if path else page
            assert goal.exists(), f"{page.name}: {target}"
            if anchor:
                titles = re.findall(r"^#+ (.+)$", goal.read_text(encoding="utf-8"), re.MULTILINE)
                slugs = [re.sub(r"[^a-z0-9 _-]", "", title.lower()).replace(" ", "-") for title in titles]
                assert anchor in slugs, f"{page.name}: {target}"
