"""Every activity and every undo twice with the same key: one effect.

Here are those that need no service; ``test_containers.py``, ``test_dns.py``, ``test_download.py`` and
``test_sql.py`` have the others.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipeline_runner.activities.files import directory as directories
from pipeline_runner.activities.files import file as files
from pipeline_runner.activities.toolkit.context import set_undone_outcome

Run = Callable[..., Any]


@pytest.fixture(autouse=True)
def _no_outcome() -> Iterator[None]:
    yield
    set_undone_outcome(None)


def tree(root: Path) -> dict[str, str | None]:
    """Return what is in a directory: the contents of files, and None for directories."""
    return {
        str(path.relative_to(root)): None if path.is_dir() else path.read_text()
        for path in sorted(root.rglob("*"))
    }


BEFORE: dict[str, str | None] = {"a": "old", "b": "other", "d": None, "d/inner": "deep"}


@pytest.fixture
def place(tmp_path: Path, state: Path) -> Path:
    root = tmp_path / "place"
    (root / "d").mkdir(parents=True)
    for name, content in BEFORE.items():
        if content is not None:
            (root / name).write_text(content)
    return root


@pytest.mark.parametrize(
    ("activity", "given", "after", "undo"),
    [
        (files.write, {"path": "new", "content": "x"}, {"new": "x"}, "new"),
        (files.write, {"path": "a", "content": "x"}, {"a": "x"}, "a"),
        (files.write, {"path": "a", "content": "x", "append": True}, {"a": "oldx"}, "a"),
        (files.write, {"path": "new", "content": "x", "append": True}, {"new": "x"}, "new"),
        (files.copy, {"source": "a", "destination": "new"}, {"new": "old"}, "new"),
        (files.copy, {"source": "a", "destination": "b", "overwrite": True}, {"b": "old"}, "b"),
        (files.move, {"source": "a", "destination": "new"}, {"a": ..., "new": "old"}, "new"),
        (files.move, {"source": "a", "destination": "b", "overwrite": True}, {"a": ..., "b": "old"}, "b"),
        (files.remove, {"path": "a"}, {"a": ...}, "a"),
        (directories.create, {"path": "e"}, {"e": None}, directories.remove),
        (directories.create, {"path": "d"}, {}, directories.remove),
    ],
)
def test_twice_with_the_same_key_is_once(
    run: Run, place: Path, key: str, activity: Any, given: dict[str, Any], after: dict[str, Any], undo: Any
) -> None:
    names = ("path", "source", "destination")
    absolute = {name: str(place / value) if name in names else value for name, value in given.items()}
    expected = {name: content for name, content in (BEFORE | after).items() if content is not ...}

    first = run(activity, **absolute)
    assert tree(place) == expected
    second = run(activity, **absolute)
    assert tree(place) == expected
    assert msgspec.to_builtins(second) == msgspec.to_builtins(first)

    set_undone_outcome("completed")
    for _ in range(2):
        if isinstance(undo, str):
            run(files.restore, path=str(place / undo), key=key)
        else:
            run(undo, path=absolute["path"], key=key)
        assert tree(place) == BEFORE
