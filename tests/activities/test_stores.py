"""Where records for an undo lie, on real file systems, and who may touch them."""

import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError

from pipeline_runner.activities.files import file as files
from pipeline_runner.activities.files import stores
from pipeline_runner.activities.toolkit.context import set_working_directory

Run = Callable[..., Any]
OTHER = 1234
"""A user who is not this one."""

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts file systems and gives files away")


def _records(directory: Path) -> list[Path]:
    return sorted(directory.glob("*/*.kept"))


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file that a step replaces, in the tree that a pipeline works on."""
    path = tmp_path / "work" / "file"
    path.parent.mkdir()
    path.write_text("old")
    return path


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """Another file system."""
    path = tmp_path / "mounted"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755,size=4m", "none", str(path)], check=True)
    yield path
    subprocess.run(["umount", str(path)], check=True)


def test_a_record_is_in_the_state_directory_and_nobody_else_can_read_it(
    run: Run, file: Path, state: Path, key: str
) -> None:
    inode = file.stat().st_ino
    run(files.write, path=str(file), content="new")
    (record,) = _records(state / "kept")
    assert record.parent.name == key
    assert [_mode(path) for path in (state / "kept", record.parent, record)] == [0o700] * 3
    assert (record / "original").stat().st_ino == inode  # nothing was copied
    assert os.listdir(file.parent) == ["file"]
    run(files.restore, path=str(file), key=key)
    assert (file.read_text(), file.stat().st_ino) == ("old", inode)


def test_a_store_that_was_open_to_others_is_closed(run: Run, file: Path, state: Path, key: str) -> None:
    (state / "kept").mkdir()
    (state / "kept").chmod(0o777)
    run(files.write, path=str(file), content="new")
    assert (_mode(state / "kept"), len(_records(state / "kept"))) == (0o700, 1)


@pytest.mark.parametrize(
    "kind", ["a link", "a file", pytest.param("another user's", marks=root_only), "nothing that can be made"]
)
def test_what_is_no_store_is_not_used(
    run: Run, file: Path, state: Path, key: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another user may have made it, to read what is kept or to have it lead elsewhere."""
    monkeypatch.setattr(stores, "_at_root", lambda _: None)
    trap, kept = state / "trap", state / "kept"
    trap.mkdir(mode=0o700)
    match kind:
        case "a link":
            kept.symlink_to(trap)
        case "a file":
            kept.touch()
        case "another user's":
            kept.mkdir()
            os.chown(kept, OTHER, OTHER)
        case _:
            monkeypatch.setenv("RUN_PIPELINE_STATE", str(file / "below"))
            kept = file / "below" / "kept"
    with pytest.raises(ApplicationError) as caught:
        run(files.write, path=str(file), content="new")
    assert caught.value.message == (
        f"cannot write {file}: cannot keep what the undo needs: {kept} is not a directory that the worker's user "
        "owns and can write to (set RUN_PIPELINE_STATE to use another state directory)"
    )
    assert (file.read_text(), os.listdir(trap), os.listdir(file.parent)) == ("old", [], ["file"])


@root_only
def test_a_file_of_another_file_system_is_kept_at_its_root(
    run: Run, mounted: Path, state: Path, key: str
) -> None:
    path = mounted / "tree" / "file"
    path.parent.mkdir()
    path.write_text("old")
    inode = path.stat().st_ino
    run(files.write, path=str(path), content="new")
    store = mounted / f".run-pipeline-{os.geteuid()}"
    assert (_mode(store), len(_records(store)), _records(state / "kept")) == (0o700, 1, [])
    assert os.listdir(path.parent) == ["file"]
    run(files.restore, path=str(path), key=key)
    assert (path.read_text(), path.stat().st_ino) == ("old", inode)


@root_only
@pytest.mark.parametrize(
    "kind", ["open to others", "another user's", "taken", "the tree", "the run's directory"]
)
def test_a_root_that_cannot_be_trusted_or_is_the_tree_takes_no_records(
    run: Run, mounted: Path, state: Path, key: str, kind: str
) -> None:
    path = (mounted if kind == "the tree" else mounted / "tree") / "file"
    path.parent.mkdir(exist_ok=True)
    path.write_text("old")
    path.chmod(0o640)
    match kind:
        case "open to others":
            mounted.chmod(0o777)
        case "another user's":
            os.chown(mounted, OTHER, OTHER)
        case "taken":
            (mounted / ".run-pipeline-0").mkdir()
            os.chown(mounted / ".run-pipeline-0", OTHER, OTHER)
        case "the run's directory":
            set_working_directory(str(mounted))
    before = sorted(os.listdir(mounted))
    try:
        run(files.write, path=str(path), content="new")
        assert len(_records(state / "kept")) == 1
        assert sorted(os.listdir(mounted)) == before
        run(files.restore, path=str(path), key=key)
    finally:
        set_working_directory(None)
    assert (path.read_text(), _mode(path)) == ("old", 0o640)
    assert sorted(os.listdir(mounted)) == before


@root_only
def test_a_root_like_tmp_takes_records(run: Run, mounted: Path, state: Path, key: str) -> None:
    """Everybody may write there, and nobody may exchange what is not theirs."""
    mounted.chmod(0o1777)
    (mounted / "tree").mkdir()
    run(files.write, path=str(mounted / "tree" / "file"), content="new")
    assert len(_records(mounted / ".run-pipeline-0")) == 1


@root_only
def test_one_file_system_in_two_places_counts_as_two(run: Run, tmp_path: Path, state: Path, key: str) -> None:
    """Nothing can be renamed from one to the other, though it is the same device."""
    place, bound = tmp_path / "place", tmp_path / "bound"
    (place / "tree").mkdir(parents=True)
    bound.mkdir()
    subprocess.run(["mount", "--bind", str(place), str(bound)], check=True)
    try:
        assert bound.stat().st_dev == state.stat().st_dev
        run(files.write, path=str(bound / "tree" / "file"), content="new")
        assert _records(state / "kept") == []
        assert run(files.restore, path=str(bound / "tree" / "file"), key=key).restored
        assert os.listdir(bound / "tree") == []
    finally:
        subprocess.run(["umount", str(bound)], check=True)


def test_while_an_attempt_works_its_content_is_near_and_then_nothing_is(
    run: Run, file: Path, far_state: Path, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    near = file.parent / f".file.{key}.near"
    seen: list[int] = []
    replace = os.replace

    def noted(one: str, other: str) -> None:
        assert Path(one).parent == near
        seen.append(_mode(near))
        replace(one, other)

    monkeypatch.setattr(os, "replace", noted)
    run(files.write, path=str(file), content="new")
    assert seen == [0o700]
    assert os.listdir(file.parent) == ["file"]
