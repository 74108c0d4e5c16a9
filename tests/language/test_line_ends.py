"""Files of other editors: with ``\\r\\n`` at the ends of lines, or a byte order mark, the same is told."""

import codecs
import re
import shutil
from pathlib import Path

import pytest
from msgspec.structs import replace

from pipeline_runner.language.diagnostics import Diagnostic, render
from pipeline_runner.language.workspace import load
from tests.language.test_golden import DATA, ERR, OK

CASES = [
    path
    for path in (*ERR, *OK)
    if not path.name.startswith(("utf16", "utf32")) and (path in ERR or path.parent.name == "unneeded-ignore")
]


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return two copies of the cases, as they are with other ends of lines and with a mark."""
    crlf, marked = (tmp_path_factory.mktemp(name) / "data" for name in ("crlf", "marked"))
    for folder in (crlf, marked):
        shutil.copytree(DATA, folder, ignore=shutil.ignore_patterns("histories", "*.out"))
    for path in crlf.glob("**/*.yaml"):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    for path in marked.glob("**/*.yaml"):
        path.write_bytes(codecs.BOM_UTF8 + path.read_bytes())
    return crlf, marked


def told(folder: Path, path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[list[Diagnostic], list[str]]:
    monkeypatch.chdir(folder)
    loaded = load(path)
    # Which byte of the file it is does differ.
    found = [replace(d, message=re.sub(r"\bbyte \d+", "a byte", d.message)) for d in loaded.diagnostics]
    return found, [render(d, loaded.sources[d.path]) for d in found]


@pytest.mark.parametrize("path", CASES, ids=lambda path: str(path.relative_to(DATA).with_suffix("")))
def test_the_same_is_told(changed: tuple[Path, Path], path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = path.relative_to(DATA)
    expected = told(DATA, case, monkeypatch)
    assert [told(folder, case, monkeypatch) for folder in changed] == [expected, expected]


def test_place_of_what_is_not_utf8_in_a_file_with_a_mark(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_bytes(codecs.BOM_UTF8 + b"name: x\nsteps: \xe9\n")
    (found,) = load(tmp_path / "x.yaml").diagnostics
    assert (found.line, found.column) == (2, 8)
    assert found.message == "the file is not UTF-8: byte 19 is 0xe9"
