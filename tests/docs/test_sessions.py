"""The terminal sessions of the pages are what the command prints: times, ids and ports aside."""

import re
import shlex
from pathlib import Path

import pytest

from tests.cli.command import run
from tests.docs.pages import EVERY, ROOT, Block, blocks

SESSIONS = [block for block in EVERY if block.language == "console"]


def plain(text: str) -> str:
    """Leave out what differs between two runs."""
    text = re.sub(r" +\d+\.\d\ds", " 0.00s", text)
    text = re.sub(r"-[0-9a-f]{8}\b", "-ID", text)
    return re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:PORT", text)


def commands(text: str) -> list[tuple[str, str]]:
    """Split a session into its commands and what each prints."""
    parts = re.split(r"^\$ (.*)\n", text, flags=re.MULTILINE)
    return list(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("block", SESSIONS, ids=str)
def test_session_is_what_the_command_prints(block: Block, tmp_path: Path) -> None:
    """Also across the blocks of a page: earlier commands of the same page run first."""
    for other in blocks(block.page):
        if other.noted("file"):
            (tmp_path / other.name).write_text(other.text)
    (tmp_path / "pipelines").symlink_to(ROOT / "pipelines")
    code = None
    for line, printed in commands(block.text):
        words = shlex.split(line)
        if line == "echo $?":
            assert printed == f"{code}\n"
            continue
        words = words[words.index("run-pipeline") + 1 :]
        done = run(tmp_path, *words)
        code = done.code
        shown = (done.err + done.out).replace(str(tmp_path), "/home/ada/work")
        assert plain(shown) == plain(printed), line
