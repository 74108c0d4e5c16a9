"""The pages of the rules: how they are written, and that checking does not read them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline_runner.language import rules
from pipeline_runner.language.severities import SEVERITIES
from tests.cli.command import environment

UNSHOWN = {
    "bad-module": "a Python module",
    "file-too-large": "a file of 1 MiB",
    "missing-extra": "another installation",
    "missing-undo": "an activities.yaml",
    "not-utf8": "bytes",
    "payload-size": "512 KiB of text",
    "same-activity": "two folders with modules",
    "same-name": "two files",
    "secret-elsewhere": "an activities.yaml",
    "too-deep": "64 levels",
    "too-many-values": "100,000 values",
    "unreadable-file": "a file without rights",
}
"""The rules whose pages have no examples, and what one would take."""

EVERY = rules.every()
_BLOCK = re.compile(r"((?:<!-- [^\n]* -->\n)*)```yaml\n(.*?)\n```", re.DOTALL)
_FILE = re.compile(r"<!-- file: (\S+) -->")
_NOTED = re.compile(r"<!-- error: (.+) -->")


def blocks(text: str) -> list[tuple[str, str]]:
    """Return the comments and the text of each block; there is nothing beside them."""
    assert _BLOCK.sub("", text).strip() == ""
    return _BLOCK.findall(text)


@pytest.mark.parametrize("rule", EVERY, ids=lambda rule: rule.id)
def test_page(rule: rules.Rule) -> None:
    assert f"\n# {rule.id}\n" in "\n" + rules.page(rule.id)
    assert rules.load(rule.id) == rule
    assert (rule.bad is None) == (rule.good is None) == (rule.id in UNSHOWN)
    assert ("There is no example" in " ".join(rule.what.split())) == (rule.id in UNSHOWN)
    assert rule.what.endswith(".")
    assert rule.why.endswith(".")
    if rule.bad and rule.good:
        *files, (notes, _) = blocks(rule.bad)
        if said := _NOTED.search(notes):
            assert rule.id in said[1].split(", ")
            assert said[1] != rule.id, "it is assumed"
        good = blocks(rule.good)
        assert "<!-- error" not in rule.good + "".join(notes for notes, _ in files)
        for notes, text in [blocks(rule.bad)[-1], good[-1]]:
            assert rule.id == "yaml-syntax" or "steps:" in text, notes
        for notes, text in [*files, *good[:-1]]:
            name = _FILE.search(notes)
            assert name, "a file without a name"
            assert text.startswith(f"# {name[1]}\n"), "readers do not see the comment"


def test_table_of_rules_has_those_of_the_pages() -> None:
    assert {rule.id: rule.severity for rule in EVERY} == SEVERITIES


def test_files_of_all_pages_have_names_of_their_own() -> None:
    """They stand in one folder when the examples of docs/checks.md are checked."""
    names = [name for rule in EVERY for name in _FILE.findall(f"{rule.bad}{rule.good}")]
    assert sorted(set(names)) == sorted(names)
    assert "activities.yaml" not in names


def test_groups() -> None:
    assert {rule.group for rule in EVERY} <= set(rules.GROUPS)
    found = [rules.GROUPS.index(rule.group) for rule in EVERY]
    assert found == sorted(found)


def test_unknown_rule() -> None:
    with pytest.raises(rules.UnknownRuleError) as caught:
        rules.load("unknwon-key")
    assert str(caught.value) == 'there is no rule "unknwon-key": did you mean "unknown-key"?'
    with pytest.raises(rules.UnknownRuleError) as caught:
        rules.load("/tmp/nothing")
    assert (str(caught.value), caught.value.suggestion) == ('there is no rule "/tmp/nothing"', None)


PAGE = """\
# some-rule

Group: Size
Severity: warning

What, such
as `this`. And more.

And more still.

Why: so.

Bad:

<!-- file: x.yaml -->
```yaml
# x.yaml
a: 1
```

```yaml
b: 2
```

Good:

```yaml
c: 3
```
"""


def test_parse() -> None:
    rule = rules.parse(PAGE)
    assert (rule.id, rule.group, rule.severity, rule.why) == ("some-rule", "Size", "warning", "so.")
    assert rule.what == "What, such\nas `this`. And more.\n\nAnd more still."
    assert rule.first_sentence == "What, such\nas `this`."
    assert rule.bad == "<!-- file: x.yaml -->\n```yaml\n# x.yaml\na: 1\n```\n\n```yaml\nb: 2\n```"
    assert rule.good == "```yaml\nc: 3\n```"
    assert rules.parse(PAGE.partition("\nBad:")[0]).bad is None
    assert rules.readable(PAGE) == PAGE.replace("<!-- file: x.yaml -->\n", "")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Group: Size", "Group: Sizes"),
        ("warning", "hint"),
        ("Why: ", ""),
        ("Good:", "Right:"),
        ("# some-rule\n\n", "# some-rule\n"),
    ],
)
def test_page_that_is_written_otherwise(old: str, new: str) -> None:
    with pytest.raises(rules.PageError):
        rules.parse(PAGE.replace(old, new, 1))


def test_checking_reads_no_pages(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("name: x\nsteps: [{id: a, sett: {}}]\n")
    code = (
        "import sys\nfrom pipeline_runner.cli import starting as _\nfrom pipeline_runner.cli.main import run\n"
        "assert run(['validate', 'x.yaml']) == 1\n"
        "assert 'pipeline_runner.language.rules' not in sys.modules\n"
    )
    subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment(tmp_path), check=True, capture_output=True
    )
