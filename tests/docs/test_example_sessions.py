"""The sessions of the examples' pages, run on the services that each page asks for."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.cli.command import run
from tests.docs.pages import ROOT, blocks
from tests.docs.test_sessions import commands, plain
from tests.pipelines.test_polyglot import Place, built, place

__all__ = ["built", "place"]  # fixtures

EXAMPLES = ROOT / "docs/examples"


@dataclass
class Reader:
    """Somebody who follows a page, in a folder that has the checkout's pipelines."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    instead: dict[str, str] = field(default_factory=dict)
    """What stands in the page, and what it is here."""

    def follow(self, page: str) -> None:
        """Run the sessions of a page and compare what the command prints."""
        if not (self.folder / "pipelines").exists():
            (self.folder / "pipelines").symlink_to(ROOT / "pipelines")
        code, sessions = None, [b for b in blocks(EXAMPLES / page) if b.language == "console"]
        assert sessions
        for line, printed in (pair for block in sessions for pair in commands(block.text)):
            if line == "echo $?":
                assert printed == f"{code}\n"
                continue
            words = shlex.split(self.here(line))
            done = run(self.folder, *words[words.index("run-pipeline") + 1 :], **self.environment)
            code = done.code
            shown = (done.err + done.out).replace(str(self.folder), "/home/ada/pages")
            for said, real in self.instead.items():
                shown = shown.replace(real, said)
            assert plain(shown) == plain(printed), line

    def here(self, text: str) -> str:
        for said, real in self.instead.items():
            text = text.replace(said, real)
        return text


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    yield Reader(tmp_path)


def test_polyglot(reader: Reader, place: Place) -> None:
    reader.follow("polyglot.md")
