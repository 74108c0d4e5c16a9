"""What a run carries: its file and those of its children."""

from pathlib import Path

from pipeline_runner.language.diagnostics import Diagnostic
from pipeline_runner.language.workspace import load

KIB = 1024


def write(path: Path, kib: int, child: str = "") -> Path:
    """Write a pipeline with a text of a length."""
    step = f"  - {{id: b, pipeline: {child}}}\n" if child else ""
    path.write_text(f"name: {path.stem}\nsteps:\n  - {{id: a, set: {{x: {'x' * kib * KIB}}}}}\n{step}")
    return path


def told(path: Path) -> list[Diagnostic]:
    return [found for found in load(path).diagnostics if found.rule == "payload-size"]


def test_file_that_is_too_large_to_be_handed_over(tmp_path: Path) -> None:
    (found,) = told(write(tmp_path / "large.yaml", 600))
    assert (found.rule, found.severity, found.line, found.column) == ("payload-size", "warning", 1, 1)
    assert found.message == (
        "this pipeline and its children have 600 KiB, sent to the server as one payload: "
        "it warns at 512 KiB and refuses 2,048 KiB"
    )


def test_children_count(tmp_path: Path) -> None:
    """The warning is about the parent; the child alone is small enough."""
    child = write(tmp_path / "child.yaml", 300)
    parent = write(tmp_path / "parent.yaml", 300, "./child.yaml")
    (found,) = told(parent)
    assert (Path(found.path).name, found.line) == ("parent.yaml", 1)
    assert told(child) == []


def test_child_that_is_called_twice_counts_once(tmp_path: Path) -> None:
    write(tmp_path / "child.yaml", 300)
    parent = write(tmp_path / "parent.yaml", 100, "./child.yaml")
    parent.write_text(parent.read_text() + "  - {id: c, pipeline: ./child.yaml}\n")
    assert told(parent) == []


def test_file_below_the_limit(tmp_path: Path) -> None:
    assert told(write(tmp_path / "some.yaml", 500)) == []


def test_comments_are_not_handed_over(tmp_path: Path) -> None:
    path = write(tmp_path / "some.yaml", 1)
    path.write_text(path.read_text() + f"# {'x' * 600 * KIB}\n")
    assert told(path) == []
