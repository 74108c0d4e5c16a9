"""Reads the pages of the documentation: their code blocks, and what is said of each in comments.

A comment right before a block is for the tests; readers do not see it::

    <!-- file: greet.yaml -->                             the block is a file of this name
    <!-- run: {"name": "Ada"} -> "Hello, Ada" -->         inputs, and the output
    <!-- fails: {} -> first: exit code 1 [CommandFailed]; undone: b, a -->
    <!-- error: unknown-key -->                           the rule that the checker reports
"""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "docs/examples").glob("*.md"))
"""Their sessions need services: see test_example_sessions.py."""
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *EXAMPLES]

_BLOCK = re.compile(r"((?:^<!-- [^\n]* -->\n+)*)^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NOTE = re.compile(r"^<!-- (\w+): (.*) -->$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Block:
    """A code block of a page."""

    page: Path
    line: int
    language: str
    text: str
    notes: tuple[tuple[str, str], ...]

    def noted(self, kind: str) -> list[str]:
        """Return what the comments of a kind say."""
        return [text for key, text in self.notes if key == kind]

    @property
    def name(self) -> str:
        """The file that the block is."""
        return next(iter(self.noted("file")), f"block_{self.line}.yaml")

    @property
    def is_pipeline(self) -> bool:
        return self.language == "yaml" and re.search(r"^steps:", self.text, re.MULTILINE) is not None

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """Return the code blocks of a page."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            page=page,
            line=text.count("\n", 0, match.start(2)) + 1,
            language=match[2],
            text=match[3],
            notes=tuple(_NOTE.findall(match[1])),
        )
        for match in _BLOCK.finditer(text)
    ]


EVERY = [block for page in PAGES for block in blocks(page)]
