"""The terminal sessions of the pages are what the command prints: times, ids and ports aside."""

import re
import shlex
from pathlib import Path

import pytest

from tests.cli.command import run
from tests.docs.pages import EXAMPLES, PAGES, ROOT, blocks

SESSIONS = {
    page: found
    for page in PAGES
    if page not in EXAMPLES and (found := [b for b in blocks(page) if b.language == "console"])
}


def plain(text: str) -> str:
    """Leave out what differs between two runs."""
    text = re.sub(r" +\d+\.\d\ds", " 0.00s", text)
    text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "RUN", text)
    text = re.sub(r"-[0-9a-f]{8}\b", "-ID", text)
    text = re.sub(r"\b[0-9a-f]{32}\b", "KEY", text)
    return re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:PORT", text)


def commands(text: str) -> list[tuple[str, str]]:
    """Split a session into its commands and what each prints."""
    parts = re.split(r"^\$ (.*)\n", text, flags=re.MULTILINE)
    return list(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("page", SESSIONS, ids=lambda page: page.name)
def test_sessions_are_what_the_command_prints(page: Path, tmp_path: Path) -> None:
    """The sessions of a page follow each other in one folder."""
    for block in blocks(page):
        if block.noted("file"):
            (tmp_path / block.name).write_text(block.text)
    code = None
    for line, printed in (pair for block in SESSIONS[page] for pair in commands(block.text)):
        if line == "echo $?":
            assert printed == f"{code}\n"
            continue
        words = shlex.split(line)
        done = run(tmp_path, *words[words.index("run-pipeline") + 1 :])
        code = done.code
        shown = (done.err + done.out).replace(str(tmp_path), "/home/ada/pages")
        assert plain(shown) == plain(printed), line


def test_the_readme_has_the_two_commands_in_one_block() -> None:
    """A reader, and whoever automates one, finds how to run and how to test at once."""
    [found] = [block for block in blocks(ROOT / "README.md") if "./dev test" in block.text]
    assert found.language == "sh"
    assert found.text.splitlines() == [
        "./dev run-pipeline pipelines/provision-resource.yaml -i name=demo",
        "./dev test",
    ]
    assert "./dev test" in (ROOT / ".ci/run").read_text()
