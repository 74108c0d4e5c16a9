"""The pages for those who write activities or embed the package: their files, as a project of a reader's."""

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

from tests.docs.pages import ROOT, blocks

PAGES = [ROOT / "docs/writing-activities.md", ROOT / "docs/in-your-service.md"]


def write(folder: Path) -> None:
    """Write the files of the pages into one directory."""
    for page in PAGES:
        for block in blocks(page):
            if block.noted("file"):
                (folder / block.name).parent.mkdir(exist_ok=True)
                (folder / block.name).write_text(block.text)


def test_the_tests_that_are_shown_pass(tmp_path: Path) -> None:
    write(tmp_path)
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--durations=10"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stdout
    assert "11 passed" in result.stdout


def test_the_members_that_are_listed_exist() -> None:
    for page, name in zip(PAGES, ["pipeline_runner.activity", "pipeline_runner"], strict=True):
        rows = re.findall(r"^\| (`\w.*?) \|", page.read_text().split("\n## ")[0], re.MULTILINE)
        listed = {found for row in rows for found in re.findall(r"`(\w+)(?:\(|`)", row)} - {name}
        assert listed <= set(import_module(name).__all__)
        assert len(listed) >= 6
