"""A step that dies at any moment can be retried and undone, and so can its undo.

Death is simulated at every system call that changes something: from then on all of them
fail, those of the clean-up included, as in a process that is no more.
"""

import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from pipeline_runner.activities.files import directory as directories
from pipeline_runner.activities.files import file as files

CALLS = ("open", "mkdir", "link", "symlink", "rename", "replace", "unlink", "rmdir", "fsync")
KEY = "0123456789abcdef0123456789abcdef"


class _DeadError(BaseException):
    """The process has died."""


@contextmanager
def _dying(after: int) -> Iterator[Callable[[], bool]]:
    """Let ``after`` system calls pass and no more; the result says whether that was too few."""
    left, died = after, False

    def guarded(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal left, died
            if left <= 0:
                died = True
                raise _DeadError
            left -= 1
            return real(*args, **kwargs)

        return call

    with pytest.MonkeyPatch.context() as patch, suppress(_DeadError):
        for name in CALLS:
            patch.setattr(os, name, guarded(getattr(os, name)))
        # The variant for removing trees that does not use what was replaced here.
        patch.setattr(shutil, "_use_fd_functions", False)
        yield lambda: died


@pytest.fixture(params=["state", "far_state"])
def store(request: pytest.FixtureRequest) -> Path:
    """Where records are: on the file system of the step, or on another one."""
    state: Path = request.getfixturevalue(request.param)
    return state / "kept"


def _tree(root: Path) -> dict[str, Any]:
    """Return all that there is: content, mode, and where links lead."""
    found: dict[str, Any] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = os.readlink(path)
        elif path.is_dir():
            found[name] = None
        else:
            found[name] = (path.read_text(), path.stat().st_mode)
    return found


def _visible(root: Path) -> dict[str, Any]:
    """Return what users look at: names and contents."""
    return {name: entry[0] if isinstance(entry, tuple) else entry for name, entry in _tree(root).items()}


def _no_files(root: Path) -> None:
    (root / "other").write_text("other")


def _both_files(root: Path) -> None:
    (root / "a").write_text("a")
    (root / "b").write_text("b")
    (root / "b").chmod(0o640)


def _one_file(root: Path) -> None:
    (root / "a").write_text("a")


def _a_link(root: Path) -> None:
    (root / "real").write_text("real")
    (root / "a").symlink_to("real")


CASES: dict[str, tuple[Any, Callable[[Path], None], dict[str, Any], dict[str, Any]]] = {
    "write": (files.write, _both_files, {"path": "b", "content": "new"}, {"a": "a", "b": "new"}),
    "write-new": (files.write, _no_files, {"path": "b", "content": "n"}, {"other": "other", "b": "n"}),
    "append": (
        files.write,
        _both_files,
        {"path": "b", "content": "+", "append": True},
        {"a": "a", "b": "b+"},
    ),
    "copy": (files.copy, _both_files, {"source": "a", "destination": "b"}, {"a": "a", "b": "a"}),
    "copy-new": (files.copy, _one_file, {"source": "a", "destination": "b"}, {"a": "a", "b": "a"}),
    "move": (files.move, _both_files, {"source": "a", "destination": "b"}, {"b": "a"}),
    "move-new": (files.move, _one_file, {"source": "a", "destination": "b"}, {"b": "a"}),
    "move-link": (files.move, _a_link, {"source": "a", "destination": "b"}, {"real": "real", "b": "real"}),
    "remove": (files.remove, _both_files, {"path": "b"}, {"a": "a"}),
    "remove-link": (files.remove, _a_link, {"path": "a"}, {"real": "real"}),
    "create": (
        directories.create,
        _no_files,
        {"path": "d/e/f"},
        {"other": "other", "d": None, "d/e": None, "d/e/f": None},
    ),
}


class _Step:
    """A step of one case, in a folder of its own."""

    def __init__(self, name: str, root: Path, store: Path) -> None:
        self.activity, prepare, parameters, self.after = CASES[name]
        self.root = root
        self.store = store
        shutil.rmtree(root, ignore_errors=True)
        shutil.rmtree(store, ignore_errors=True)
        root.mkdir()
        prepare(root)
        self.parameters = {
            key: str(root / value) if key in {"path", "source", "destination"} else value
            for key, value in parameters.items()
        }
        self.before = _tree(root)

    def do(self) -> None:
        self.activity(self.parameters)

    def undo(self) -> None:
        undo: Any = directories.remove if self.activity is directories.create else files.restore
        path = self.parameters.get("destination", self.parameters.get("path"))
        undo({"path": path, "key": KEY})


def _all_deaths(name: str, root: Path, store: Path, action: str) -> Iterator[_Step]:
    """Yield the step after its action has died at the first, the second, … system call."""
    for calls in itertools.count():
        step = _Step(name, root, store)
        if action == "undo":
            step.do()
        with _dying(calls) as died:
            getattr(step, action)()
        if not died():
            assert calls > 3
            return
        yield step


@pytest.mark.usefixtures("key")
@pytest.mark.parametrize("name", CASES)
class TestDeath:
    """Whenever it strikes."""

    def test_of_a_step_that_is_then_undone(self, name: str, tmp_path: Path, store: Path) -> None:
        for step in _all_deaths(name, tmp_path / "t", store, "do"):
            step.undo()
            assert _tree(step.root) == step.before
            step.undo()
            assert _tree(step.root) == step.before

    def test_of_a_step_that_is_then_retried_and_undone(self, name: str, tmp_path: Path, store: Path) -> None:
        for step in _all_deaths(name, tmp_path / "t", store, "do"):
            step.do()
            assert _visible(step.root) == step.after
            step.undo()
            assert _tree(step.root) == step.before

    def test_of_an_undo_that_is_then_repeated(self, name: str, tmp_path: Path, store: Path) -> None:
        for step in _all_deaths(name, tmp_path / "t", store, "undo"):
            step.undo()
            assert _tree(step.root) == step.before

    def test_of_an_undo_before_the_step_runs_again(self, name: str, tmp_path: Path, store: Path) -> None:
        """A reset brings the same key again."""
        for step in _all_deaths(name, tmp_path / "t", store, "undo"):
            step.do()
            assert _visible(step.root) == step.after
            step.undo()
            assert _tree(step.root) == step.before

    def test_of_a_step_a_second_time(self, name: str, tmp_path: Path, store: Path) -> None:
        for first in range(0, 30, 5):
            for second in range(0, 30, 6):
                step = _Step(name, tmp_path / "t", store)
                for calls in (first, second):
                    with _dying(calls):
                        step.do()
                step.undo()
                assert _tree(step.root) == step.before


@pytest.mark.usefixtures("key")
@pytest.mark.parametrize("name", CASES)
def test_an_attempt_that_was_overtaken_by_its_undo_changes_nothing(
    name: str, tmp_path: Path, store: Path
) -> None:
    """It hangs at any system call, the step is undone meanwhile, and then it goes on."""
    for calls in itertools.count():
        step = _Step(name, tmp_path / "t", store)
        before = _visible(step.root)
        if not _overtaken(step, calls):
            return
        if _visible(step.root) != before:
            # It had not even noted what was there, so the undo could not know of it. It then
            # has noted it by now, and can be undone. Until then it only looks for the store of its
            # file system, with a call for each directory above the file.
            assert calls < len(step.root.parts)
            step.undo()
        assert _visible(step.root) == before


def _overtaken(step: _Step, calls: int) -> bool:
    left, overtaken = calls, False

    def guarded(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal left, overtaken
            left -= 1
            if left == -1:
                overtaken = True
                step.undo()
            return real(*args, **kwargs)

        return call

    with pytest.MonkeyPatch.context() as patch, suppress(Exception):
        for name in CALLS:
            patch.setattr(os, name, guarded(getattr(os, name)))
        step.do()
    return overtaken
