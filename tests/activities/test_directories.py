"""The directory family on real directories."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError

from pipeline_runner.activities.files import directory as directories
from pipeline_runner.activities.files import file as files
from pipeline_runner.activities.toolkit.context import (
    set_idempotency_key,
    set_undone_outcome,
    set_working_directory,
)

Run = Callable[..., Any]
OTHER_KEY = "f" * 32


def _failure(run: Run, activity: Any, **parameters: Any) -> ApplicationError:
    with pytest.raises(ApplicationError) as caught:
        run(activity, **parameters)
    return caught.value


def test_create_says_whether_it_created(run: Run, tmp_path: Path) -> None:
    path = str(tmp_path / "a" / "b")
    result = run(directories.create, path=path)
    assert (result.path, result.created) == (path, True)
    assert not run(directories.create, path=path).created
    assert os.listdir(tmp_path) == ["a"]  # without a key nothing is recorded


def test_a_retry_answers_as_the_first_attempt_did(run: Run, tmp_path: Path, key: str) -> None:
    assert key
    assert run(directories.create, path=str(tmp_path / "a" / "b")).created
    assert run(directories.create, path=str(tmp_path / "a" / "b")).created


def test_undo_removes_what_was_created_and_nothing_else(run: Run, tmp_path: Path, key: str) -> None:
    (tmp_path / "a").mkdir()
    path = str(tmp_path / "a" / "b" / "c")
    run(directories.create, path=path)
    assert run(directories.remove, path=path, key=key).removed
    assert os.listdir(tmp_path) == ["a"]
    assert os.listdir(tmp_path / "a") == []
    assert not run(directories.remove, path=path, key=key).removed


def test_undo_leaves_a_directory_that_was_there(run: Run, tmp_path: Path, key: str) -> None:
    path = str(tmp_path / "a")
    (tmp_path / "a").mkdir()
    assert not run(directories.create, path=path).created
    assert not run(directories.remove, path=path, key=key).removed
    assert not run(directories.remove, path=path, key=key, recursive=True).removed
    assert os.listdir(tmp_path) == ["a"]


def test_undo_leaves_parents_that_others_use_meanwhile(run: Run, tmp_path: Path, key: str) -> None:
    path = tmp_path / "a" / "b"
    run(directories.create, path=str(path))
    (tmp_path / "a" / "other").touch()
    assert run(directories.remove, path=str(path), key=key).removed
    assert os.listdir(tmp_path / "a") == ["other"]
    assert os.listdir(tmp_path) == ["a"]


def test_undo_of_a_directory_in_use_fails_until_it_is_empty(run: Run, tmp_path: Path, key: str) -> None:
    path = tmp_path / "a"
    run(directories.create, path=str(path))
    (path / "f").touch()
    error = _failure(run, directories.remove, path=str(path), key=key)
    assert error.message == f"cannot remove {path}: directory not empty"
    assert (error.type, error.non_retryable) == ("DirectoryNotEmpty", True)
    assert run(directories.remove, path=str(path), key=key, recursive=True).removed
    assert os.listdir(tmp_path) == []


def test_files_written_into_it_do_not_hinder_the_undo(run: Run, tmp_path: Path, key: str) -> None:
    path = tmp_path / "a"
    run(directories.create, path=str(path))
    set_idempotency_key(OTHER_KEY)
    run(files.write, path=str(path / "f"), content="x")
    run(files.restore, path=str(path / "f"), key=OTHER_KEY)
    assert run(directories.remove, path=str(path), key=key).removed
    assert os.listdir(tmp_path) == []


def test_remove_takes_an_empty_directory_and_nothing_is_fine(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    result = run(directories.remove, path=str(tmp_path / "a"))
    assert (result.path, result.removed) == (str(tmp_path / "a"), True)
    assert not run(directories.remove, path=str(tmp_path / "a")).removed


def test_remove_takes_a_full_directory_only_when_told(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    error = _failure(run, directories.remove, path=str(tmp_path / "a"))
    assert error.message == f"cannot remove {tmp_path}/a: directory not empty"
    assert run(directories.remove, path=str(tmp_path / "a"), recursive=True).removed
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("recursive", [False, True])
@pytest.mark.parametrize("slash", ["", "/", "//", "/."])
@pytest.mark.parametrize("target", ["empty", "full", "nothing"])
def test_a_link_is_never_followed(
    run: Run, tmp_path: Path, target: str, slash: str, *, recursive: bool
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "full" / "d").mkdir(parents=True)
    link = tmp_path / "current"
    link.symlink_to(target)
    error = _failure(run, directories.remove, path=f"{link}{slash}", recursive=recursive)
    assert error.message == (
        f"cannot remove {link}: it is a symbolic link, not a directory (file.remove removes links)"
    )
    assert (error.type, error.non_retryable) == ("NotADirectory", True)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["current", "d", "empty", "full"]


def test_links_inside_are_removed_and_not_followed(run: Run, tmp_path: Path) -> None:
    (tmp_path / "target" / "d").mkdir(parents=True)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "link").symlink_to(tmp_path / "target")
    assert run(directories.remove, path=str(tmp_path / "a"), recursive=True).removed
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["d", "target"]


@pytest.mark.parametrize("swapped", ["a", "a/b", "a/b/c"])
@pytest.mark.parametrize("recursive", [False, True])
def test_undo_does_not_follow_a_link_that_somebody_has_put_in(
    run: Run, tmp_path: Path, state: Path, key: str, swapped: str, *, recursive: bool
) -> None:
    path = tmp_path / "a" / "b" / "c"
    run(directories.create, path=str(path))
    other = tmp_path / "other"
    (other / "b" / "c").mkdir(parents=True)
    (other / "c").mkdir()
    (tmp_path / swapped).rename(tmp_path / "away")
    (tmp_path / swapped).symlink_to(other)
    set_undone_outcome("completed")
    try:
        error = _failure(run, directories.remove, path=str(path), key=key, recursive=recursive)
    finally:
        set_undone_outcome(None)
    assert error.type in {"NotADirectory", "NothingKept"}
    assert sorted(str(one.relative_to(other)) for one in other.rglob("*")) == ["b", "b/c", "c"]


@pytest.mark.parametrize("recursive", [False, True])
def test_a_file_is_no_directory(run: Run, tmp_path: Path, *, recursive: bool) -> None:
    path = tmp_path / "f"
    path.write_text("x")
    error = _failure(run, directories.create, path=str(path))
    assert error.message == f"cannot create {path}: there is a file with that name"
    assert (error.type, error.non_retryable) == ("FileExists", True)
    error = _failure(run, directories.create, path=str(path / "d"))
    assert (error.type, error.non_retryable) == ("NotADirectory", True)
    error = _failure(run, directories.remove, path=str(path), recursive=recursive)
    assert error.message == f"cannot remove {path}: not a directory"
    assert path.read_text() == "x"


def _never(path: str, *, recursive: bool) -> None:
    """Stand in for the removal, so that nothing is lost where the test fails."""
    raise AssertionError(f"would have removed {path}")


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/", "it is the root directory"),
        ("//", "it is the root directory"),
        ("//HERE/work", "it is the run's directory"),
        ("/..", "it is the root directory"),
        (".", "it is the run's directory"),
        ("deep/..", "it is the run's directory"),
        ("..", "it contains the run's directory, HERE/work"),
        ("../..", "it contains the run's directory, HERE/work"),
        ("../way/here", "it contains the run's directory, HERE/work"),
        ("../me", "it is the user's home directory"),
        ("../me/", "it is the user's home directory"),
    ],
)
@pytest.mark.parametrize("recursive", [False, True])
def test_what_nobody_means_to_remove_is_not(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, recursive: bool, path: str, reason: str
) -> None:
    here = tmp_path / "here"
    for name in ("work/deep", "me"):
        (here / name).mkdir(parents=True)
    (here / "way").symlink_to(tmp_path)
    monkeypatch.setenv("HOME", str(here / "me"))
    monkeypatch.setattr(directories, "remove_directory", _never)
    set_working_directory(str(here / "work"))
    try:
        error = _failure(run, directories.remove, path=path.replace("HERE", str(here)), recursive=recursive)
    finally:
        set_working_directory(None)
    assert (error.type, error.non_retryable) == ("ProtectedDirectory", True)
    assert error.message.endswith(f": {reason.replace('HERE', str(here))}")
    assert sorted(os.listdir(here)) == ["me", "way", "work"]
