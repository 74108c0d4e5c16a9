"""An undo that finds nothing: what it says depends on how its step ended."""

import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from temporalio.exceptions import ApplicationError

from pipeline_runner.activities.files import directory as directories
from pipeline_runner.activities.files import file as files
from pipeline_runner.activities.files.kept import beside
from pipeline_runner.activities.toolkit.context import set_idempotency_key, set_undone_outcome

Run = Callable[..., Any]


@pytest.fixture(autouse=True)
def _no_outcome() -> Iterator[None]:
    yield
    set_undone_outcome(None)


def _lost(run: Run, activity: Any, **parameters: Any) -> ApplicationError:
    set_undone_outcome("completed")
    with pytest.raises(ApplicationError) as caught:
        run(activity, **parameters)
    error = caught.value
    assert (error.type, error.non_retryable, error.next_retry_delay) == (
        "NothingKept",
        False,
        timedelta(seconds=1),
    )
    return error


@pytest.mark.parametrize("outcome", [None, "uncertain", "failed"])
def test_nothing_is_undone_of_a_step_that_may_have_done_nothing(
    run: Run, tmp_path: Path, key: str, outcome: str | None
) -> None:
    set_undone_outcome(outcome)
    assert not run(files.restore, path=str(tmp_path / "f"), key=key).restored
    assert not run(directories.remove, path=str(tmp_path / "d"), key=key).removed


def test_a_record_in_another_state_directory_is_missed(
    run: Run, tmp_path: Path, state: Path, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it is with a worker on another host, or of another user."""
    path = tmp_path / "f"
    run(files.write, path=str(path), content="new")
    monkeypatch.setenv("RUN_PIPELINE_STATE", str(tmp_path / "other"))
    (tmp_path / "other" / "kept").mkdir(parents=True, mode=0o700)
    error = _lost(run, files.restore, path=str(path), key=key)
    assert error.message.startswith(
        f"cannot restore {path}: the step completed, but nothing is kept here of what was at {path}: the step ran "
        "on another host, as another user or with another state directory, or what was kept has been removed (looked in "
    )
    assert str(tmp_path / "other" / "kept" / key) in error.message
    _lost(run, files.restore, path=str(path), key=key)  # and no less the second time
    assert path.read_text() == "new"
    monkeypatch.setenv("RUN_PIPELINE_STATE", str(state))
    assert run(files.restore, path=str(path), key=key).restored


def test_a_directory_of_another_state_directory_is_missed(
    run: Run, tmp_path: Path, state: Path, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "made" / "deep"
    run(directories.create, path=str(path))
    monkeypatch.setenv("RUN_PIPELINE_STATE", str(tmp_path / "other"))
    assert _lost(run, directories.remove, path=str(path), key=key).message.startswith(
        f"cannot remove {path}: the step completed, but nothing is kept here"
    )
    assert path.is_dir()


def test_a_source_that_cannot_come_back_is_missed(run: Run, tmp_path: Path, state: Path, key: str) -> None:
    source, target = tmp_path / "s", tmp_path / "t"
    source.write_text("moved")
    run(files.move, source=str(source), destination=str(target))
    for record in state.glob("kept/*/*.kept"):
        if (record / "original").exists():
            record.rename(tmp_path / "elsewhere")
    assert str(source) in _lost(run, files.restore, path=str(target), key=key).message
    assert target.read_text() == "moved"


def test_an_undo_whose_answer_was_lost_stays_a_success(
    run: Run, tmp_path: Path, state: Path, key: str
) -> None:
    run(files.write, path=str(tmp_path / "f"), content="new")
    run(directories.create, path=str(tmp_path / "a" / "b"))
    set_undone_outcome("completed")
    for first in (True, False):
        assert run(files.restore, path=str(tmp_path / "f"), key=key).restored == first
        assert run(directories.remove, path=str(tmp_path / "a" / "b"), key=key).removed == first
    assert os.listdir(tmp_path) == []


def test_a_completed_step_that_changed_nothing_has_a_record_of_it(
    run: Run, tmp_path: Path, state: Path, key: str
) -> None:
    (tmp_path / "d").mkdir()
    assert not run(files.remove, path=str(tmp_path / "f")).removed
    assert not run(directories.create, path=str(tmp_path / "d")).created
    set_undone_outcome("completed")
    (tmp_path / "f").write_text("somebody else's")
    assert not run(files.restore, path=str(tmp_path / "f"), key=key).restored
    assert not run(directories.remove, path=str(tmp_path / "d"), key=key, recursive=True).removed
    assert sorted(os.listdir(tmp_path)) == ["d", "f"]


def test_what_a_retry_finds_to_change_is_undone(run: Run, tmp_path: Path, state: Path, key: str) -> None:
    """The answer of the first attempt was lost, and the world has changed since."""
    (tmp_path / "d").mkdir()
    run(files.remove, path=str(tmp_path / "f"))
    run(directories.create, path=str(tmp_path / "d"))
    (tmp_path / "f").write_text("new")
    (tmp_path / "d").rmdir()
    assert run(files.remove, path=str(tmp_path / "f")).removed
    assert run(directories.create, path=str(tmp_path / "d")).created
    set_undone_outcome("completed")
    run(files.restore, path=str(tmp_path / "f"), key=key)
    run(directories.remove, path=str(tmp_path / "d"), key=key)
    assert (os.listdir(tmp_path), (tmp_path / "f").read_text()) == (["f"], "new")


def test_a_removal_that_undoes_a_step_keeps_nothing(run: Run, tmp_path: Path, state: Path, key: str) -> None:
    (tmp_path / "f").write_text("x")
    set_undone_outcome("completed")
    assert run(files.remove, path=str(tmp_path / "f")).removed
    assert not run(files.remove, path=str(tmp_path / "f")).removed
    assert (os.listdir(tmp_path), os.listdir(state)) == ([], [])


def test_a_removal_in_a_pipeline_that_undoes_is_undone_when_that_fails(
    run: Run, tmp_path: Path, state: Path, key: str
) -> None:
    (tmp_path / "f").write_text("x")
    set_undone_outcome(None, by_pipeline="completed")
    assert run(files.remove, path=str(tmp_path / "f")).removed
    set_undone_outcome("completed", by_pipeline="completed")
    assert run(files.restore, path=str(tmp_path / "f"), key=key).restored
    assert (tmp_path / "f").read_text() == "x"


def test_a_restoration_in_a_pipeline_that_undoes_misses_what_is_not_kept(
    run: Run, tmp_path: Path, state: Path, key: str
) -> None:
    for outcome in ("uncertain", "failed"):
        set_undone_outcome(None, by_pipeline=outcome)
        assert not run(files.restore, path=str(tmp_path / outcome), key=key).restored
    set_undone_outcome(None, by_pipeline="completed")
    for undo, path in ((files.restore, "f"), (directories.remove, "d")):
        with pytest.raises(ApplicationError, match="the step completed, but nothing is kept here"):
            run(undo, path=str(tmp_path / path), key=key)


def _kept_beside(path: Path, key: str, **record: Any) -> Path:
    """Write a record as versions before these did."""
    folder = Path(beside(str(path), key).named("kept"))
    assert folder.name == f".{path.name}.{key}.kept"
    folder.mkdir(mode=0o700)
    (folder / "record.json").write_bytes(msgspec.json.encode(record))
    return folder


def test_a_file_of_a_run_from_before_is_put_back(run: Run, tmp_path: Path, state: Path, key: str) -> None:
    path = tmp_path / "f"
    path.write_text("new")
    folder = _kept_beside(path, key, existed=True, moved_from=None, made=[])
    (folder / "original").write_text("old")
    set_undone_outcome("completed")
    assert run(files.restore, path=str(path), key=key).restored
    assert (path.read_text(), os.listdir(tmp_path)) == ("old", ["f"])
    assert not run(files.restore, path=str(path), key=key).restored


def test_a_directory_of_a_run_from_before_is_removed(run: Run, tmp_path: Path, state: Path, key: str) -> None:
    made = [tmp_path / "a", tmp_path / "a" / "b"]
    _kept_beside(made[0], key, existed=False, moved_from=None, made=[str(one) for one in made])
    made[1].mkdir(parents=True)
    set_undone_outcome("completed")
    assert run(directories.remove, path=str(made[1]), key=key).removed
    assert os.listdir(tmp_path) == []


def test_a_retry_goes_on_from_a_record_from_before(run: Run, tmp_path: Path, state: Path, key: str) -> None:
    path = tmp_path / "f"
    path.write_text("first attempt's")
    folder = _kept_beside(path, key, existed=True, moved_from=None, made=[])
    (folder / "original").write_text("old\n")
    run(files.write, path=str(path), content="added", append=True)
    assert path.read_text() == "old\nadded"
    run(files.restore, path=str(path), key=key)
    assert (path.read_text(), os.listdir(tmp_path)) == ("old\n", ["f"])


def test_a_step_that_runs_again_after_its_undo_can_be_undone_again(
    run: Run, tmp_path: Path, state: Path, key: str
) -> None:
    """A reset brings the same key again: what was undone then is no word about now."""
    path = tmp_path / "f"
    for content in ("one", "two"):
        set_undone_outcome(None)
        run(files.write, path=str(path), content=content)
        set_undone_outcome("completed")
        assert run(files.restore, path=str(path), key=key).restored
        assert not path.exists()
    set_undone_outcome(None)
    run(files.write, path=str(path), content="three")
    (found,) = state.glob("kept/*/*.kept")
    found.rename(tmp_path / "elsewhere")
    _lost(run, files.restore, path=str(path), key=key)


@pytest.mark.parametrize("key", ["abc\n", "abc\n\n"])
@pytest.mark.parametrize("activity", [files.restore, directories.remove])
def test_a_key_with_a_line_end_is_none(run: Run, activity: Any, key: str) -> None:
    with pytest.raises(ApplicationError) as caught:
        run(activity, path="f", key=key)
    assert caught.value.type == "InvalidInput"
    set_idempotency_key(None)
