"""The page for newcomers names files, packages and modules that exist."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, blocks

PAGE = ROOT / "docs/contributing.md"
PACKAGE = ROOT / "pipeline_runner"
PROSE = re.sub(r"```.*?```", "", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
COMMANDS = "".join(block.text for block in blocks(PAGE) if block.language == "sh")


def paths() -> list[str]:
    """Return every path in the prose: what is in code and has a slash."""
    return [
        code for code in re.findall(r"`([^`\n]+)`", PROSE) if "/" in code and not re.search("[ <{]", code)
    ]


@pytest.mark.parametrize("path", sorted(set(paths())))
def test_paths_exist(path: str) -> None:
    if path == "fuzz-failures/":  # made when something fails
        return
    found = [base / path for base in (ROOT, PACKAGE) if (base / path).exists()]
    assert found, path
    assert found[0].is_dir() == path.endswith("/")


def test_names_of_files_in_the_table_are_in_their_directory() -> None:
    rows = re.findall(r"^\| `([a-z/]+/)`[^|]*\| (.*) \|$", PROSE, re.MULTILINE)
    assert len(rows) > 10
    for directory, text in rows:
        for name in re.findall(r"`(\w+\.(?:py|json))`", text):
            assert (PACKAGE / directory / name).exists(), f"{directory}{name}"


def test_every_package_is_in_the_table_of_layers() -> None:
    table = PROSE.partition("## Layers")[2].partition("\n## ")[0]
    packages = {f"{path.parent.relative_to(PACKAGE)}/" for path in PACKAGE.rglob("*/__init__.py")}
    assert {one for one in packages if f"`{one}`" not in table} == {"activities/"}  # its parts have rows


@pytest.mark.parametrize("module", sorted(set(re.findall(r"-m ([\w.]+)", COMMANDS + PROSE))))
def test_modules_that_are_run_exist(module: str) -> None:
    assert find_spec(module) is not None


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\btests/[\w/]+(?:\.py)?", COMMANDS))))
def test_tests_that_are_run_exist(path: str) -> None:
    assert Path(ROOT / path).exists()
