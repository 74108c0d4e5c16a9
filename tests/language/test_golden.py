"""Every mistake in ``data/err`` is told exactly so; every file in ``data/ok`` is silent.

``UPDATE_GOLDEN=1 pytest tests/language/test_golden.py`` rewrites the expected texts; read
the difference before committing it.
"""

import os
from pathlib import Path

import pytest

from pipeline_runner.language.diagnostics import has_errors, render
from pipeline_runner.language.resolve import load

DATA = Path(__file__).parent.parent / "data"
ERR = sorted((DATA / "err").glob("*.yaml"))
OK = sorted((DATA / "ok").glob("**/*.yaml"))


@pytest.fixture(autouse=True)
def _in_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths in messages are relative to the data folder."""
    monkeypatch.chdir(DATA)


@pytest.mark.parametrize("path", ERR, ids=lambda path: path.stem)
def test_mistake_is_told_exactly(path: Path) -> None:
    """What is wrong, where, and what would be right."""
    loaded = load(path.relative_to(DATA))
    text = "".join(f"{render(d, loaded.sources[d.path])}\n" for d in loaded.diagnostics)
    expected = path.with_suffix(".out")
    if os.environ.get("UPDATE_GOLDEN"):
        expected.write_text(text, encoding="utf-8")
    assert text == expected.read_text(encoding="utf-8")
    assert has_errors(loaded.diagnostics)
    assert loaded.bundle is None


@pytest.mark.parametrize("path", OK, ids=lambda path: str(path.relative_to(DATA / "ok")))
def test_good_file_is_silent(path: Path) -> None:
    """A file without mistakes gives a bundle and not a word."""
    loaded = load(path.relative_to(DATA))
    assert [render(d, loaded.sources[d.path]) for d in loaded.diagnostics] == []
    assert loaded.bundle is not None
