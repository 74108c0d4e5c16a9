"""The file family on real files."""

import errno
import os
import shutil
import stat
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError, CancelledError
from temporalio.testing import ActivityEnvironment

from pipeline_runner.activities.files import copying
from pipeline_runner.activities.files import file as files
from pipeline_runner.activities.toolkit.context import set_idempotency_key
from pipeline_runner.core.errors import UNCERTAIN

Run = Callable[..., Any]
NewEnvironment = Callable[..., ActivityEnvironment]
OTHER_KEY = "f" * 32


def _failure(run: Run, activity: Any, **parameters: Any) -> ApplicationError:
    with pytest.raises(ApplicationError) as caught:
        run(activity, **parameters)
    assert caught.value.__cause__ is None  # it is the root of the chain, its type the run's
    return caught.value


def _record(state: Path) -> Path:
    """Return the one record that there is."""
    (found,) = state.glob("kept/*/*.kept")
    return found


def _names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_write_makes_a_file(run: Run, tmp_path: Path) -> None:
    result = run(files.write, path=str(tmp_path / "f"), content="déjà\n")
    assert (tmp_path / "f").read_bytes() == "déjà\n".encode()
    assert (result.path, result.bytes, result.replaced) == (str(tmp_path / "f"), 7, False)
    assert _names(tmp_path) == ["f"]  # without a key nothing is kept


def test_write_replaces_and_keeps_the_mode(run: Run, tmp_path: Path, key: str) -> None:
    path = tmp_path / "f"
    path.write_text("old")
    path.chmod(0o640)
    assert run(files.write, path=str(path), content="new").replaced
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert _names(tmp_path) == ["f"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_write_keeps_the_owner_where_it_may(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("old")
    os.chown(path, 1234, 2345)
    run(files.write, path=str(path), content="new")
    assert (path.stat().st_uid, path.stat().st_gid) == (1234, 2345)


def test_a_new_file_gets_the_usual_mode(run: Run, tmp_path: Path, key: str) -> None:
    assert key
    (tmp_path / "usual").touch()
    run(files.write, path=str(tmp_path / "f"), content="x")
    assert (tmp_path / "f").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_a_reader_never_sees_half_a_file(run: Run, tmp_path: Path) -> None:
    """What had the file open goes on with the old content."""
    path = tmp_path / "f"
    path.write_text("old content")
    with path.open() as reader:
        run(files.write, path=str(path), content="new")
        assert reader.read() == "old content"


def test_append_adds_once_whatever_the_attempts(run: Run, tmp_path: Path, key: str) -> None:
    assert key
    path = tmp_path / "f"
    path.write_text("a\n")
    for _ in range(3):
        result = run(files.write, path=str(path), content="b\n", append=True)
        assert (result.bytes, result.replaced) == (4, True)
        assert path.read_text() == "a\nb\n"


def test_append_makes_a_missing_file(run: Run, tmp_path: Path) -> None:
    run(files.write, path=str(tmp_path / "f"), content="b", append=True)
    run(files.write, path=str(tmp_path / "f"), content="c", append=True)
    assert (tmp_path / "f").read_text() == "bc"


def test_writing_to_a_symbolic_link_writes_its_file(run: Run, tmp_path: Path, key: str) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    assert run(files.write, path=str(tmp_path / "link"), content="new").path == str(tmp_path / "real")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"
    assert run(files.restore, path=str(tmp_path / "link"), key=key).restored
    assert (tmp_path / "real").read_text() == "old"
    assert _names(tmp_path) == ["link", "real"]


def test_read_returns_the_text(run: Run, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("déjà")
    result = run(files.read, path=str(tmp_path / "f"))
    assert (result.path, result.content, result.bytes) == (str(tmp_path / "f"), "déjà", 6)


@pytest.mark.parametrize("data", [b"x" * (copying.CHUNK // 4 + 1), b"\0" * 500_000])
def test_read_refuses_what_no_output_can_hold(run: Run, tmp_path: Path, data: bytes) -> None:
    """A NUL takes six bytes of JSON."""
    (tmp_path / "f").write_bytes(data)
    error = _failure(run, files.read, path=str(tmp_path / "f"))
    assert (
        error.message
        == f"cannot read {tmp_path}/f: it is larger than 1 MiB, which is too large for a step's output"
    )
    assert (error.type, error.non_retryable) == ("FileTooLarge", True)


def test_read_takes_a_full_mebibyte(run: Run, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x" * 1024 * 1024)
    assert run(files.read, path=str(tmp_path / "f")).bytes == 1024 * 1024


def test_read_refuses_what_is_no_text(run: Run, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"secret\xff")
    error = _failure(run, files.read, path=str(tmp_path / "f"))
    assert error.message == f"cannot read {tmp_path}/f: it is not UTF-8 text (byte 6)"
    assert (error.type, error.non_retryable, error.__cause__) == ("NotText", True, None)


def test_copy_takes_the_mode_of_the_source_unless_it_replaces(run: Run, tmp_path: Path) -> None:
    (tmp_path / "s").write_text("x")
    (tmp_path / "s").chmod(0o750)
    (tmp_path / "old").write_text("")
    (tmp_path / "old").chmod(0o604)
    for name, replaced, mode in (("new", False, 0o750), ("old", True, 0o604)):
        result = run(files.copy, source=str(tmp_path / "s"), destination=str(tmp_path / name))
        assert (result.path, result.bytes, result.replaced) == (str(tmp_path / name), 1, replaced)
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == mode
    assert (tmp_path / "s").exists()


def test_move_moves_and_its_undo_moves_back(run: Run, tmp_path: Path, key: str) -> None:
    source, target = tmp_path / "s", tmp_path / "t"
    source.write_text("moved")
    target.write_text("old")
    result = run(files.move, source=str(source), destination=str(target))
    assert (result.path, result.source, result.bytes) == (str(target), str(source), 5)
    assert result.replaced
    assert target.read_text() == "moved"
    assert not source.exists()
    assert run(files.restore, path=str(target), key=key).restored
    assert (source.read_text(), target.read_text()) == ("moved", "old")
    assert _names(tmp_path) == ["s", "t"]


def test_move_and_remove_take_the_link_itself(run: Run, tmp_path: Path, key: str) -> None:
    (tmp_path / "real").write_text("x")
    (tmp_path / "a").symlink_to("real")
    run(files.move, source=str(tmp_path / "a"), destination=str(tmp_path / "b"))
    assert os.readlink(tmp_path / "b") == "real"
    assert not (tmp_path / "a").is_symlink()
    set_idempotency_key(OTHER_KEY)
    assert run(files.remove, path=str(tmp_path / "b")).removed
    assert (tmp_path / "real").exists()
    run(files.restore, path=str(tmp_path / "b"), key=OTHER_KEY)
    run(files.restore, path=str(tmp_path / "b"), key=key)
    assert os.readlink(tmp_path / "a") == "real"
    assert _names(tmp_path) == ["a", "real"]


def test_a_retried_move_of_what_has_come_back_moves_it_again(run: Run, tmp_path: Path, key: str) -> None:
    """After a reset the steps before run again, and this one must take their new result."""
    source, target = tmp_path / "s", tmp_path / "t"
    source.write_text("first")
    run(files.move, source=str(source), destination=str(target))
    run(files.move, source=str(source), destination=str(target))
    assert target.read_text() == "first"
    source.write_text("second")
    run(files.move, source=str(source), destination=str(target))
    assert target.read_text() == "second"
    run(files.restore, path=str(target), key=key)
    assert source.read_text() == "first"
    assert _names(tmp_path) == ["s"]


def test_remove_removes_and_nothing_is_fine(run: Run, tmp_path: Path, key: str) -> None:
    path = tmp_path / "f"
    assert not run(files.remove, path=str(path)).removed
    assert _names(tmp_path) == []
    path.write_text("x")
    assert run(files.remove, path=str(path)).removed
    assert run(files.remove, path=str(path)).removed  # a retry answers as the first attempt did
    assert not path.exists()
    run(files.restore, path=str(path), key=key)
    assert path.read_text() == "x"


def test_restore_removes_what_was_not_there(run: Run, tmp_path: Path, key: str) -> None:
    run(files.write, path=str(tmp_path / "f"), content="x")
    assert run(files.restore, path=str(tmp_path / "f"), key=key).restored
    assert _names(tmp_path) == []


def test_restore_does_nothing_when_there_is_nothing_to_undo(run: Run, tmp_path: Path, key: str) -> None:
    """The step did not come that far, or has been undone."""
    path = tmp_path / "f"
    path.write_text("old")
    assert not run(files.restore, path=str(path), key=key).restored
    run(files.write, path=str(path), content="new")
    assert not run(files.restore, path=str(path), key=OTHER_KEY).restored
    assert path.read_text() == "new"
    assert run(files.restore, path=str(path), key=key).restored
    path.write_text("later")
    assert not run(files.restore, path=str(path), key=key).restored
    assert path.read_text() == "later"
    assert not run(files.restore, path=str(tmp_path / "no" / "folder"), key=key).restored


def test_restore_gives_back_the_very_file(run: Run, tmp_path: Path, key: str) -> None:
    path = tmp_path / "f"
    path.write_text("old")
    path.chmod(0o600)
    os.utime(path, (1, 1))
    before = path.stat()
    run(files.write, path=str(path), content="new")
    run(files.restore, path=str(path), key=key)
    after = path.stat()
    assert (after.st_ino, after.st_mode, after.st_mtime) == (before.st_ino, before.st_mode, 1)


def test_steps_over_one_file_are_undone_in_reverse(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "f"
    keys = [f"{n:032x}" for n in range(3)]
    for key in keys:
        set_idempotency_key(key)
        run(files.write, path=str(path), content=f"{key}\n", append=True)
    for key in reversed(keys):
        assert path.read_text().endswith(f"{key}\n")
        run(files.restore, path=str(path), key=key)
    set_idempotency_key(None)
    assert _names(tmp_path) == []


def test_a_failed_step_leaves_nothing_but_its_record(
    run: Run, tmp_path: Path, key: str, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "f"
    path.write_text("old")
    monkeypatch.setattr(os, "replace", full)
    error = _failure(run, files.write, path=str(path), content="secret")
    assert error.message == f"cannot write {path}: no space left on device"
    assert (error.type, error.non_retryable) == ("FileSystemError", False)
    assert path.read_text() == "old"
    assert _names(tmp_path) == ["f"]
    assert _names(_record(state)) == ["original", "record.json"]


def test_file_systems_without_links_are_served_by_copies(
    run: Run, tmp_path: Path, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    source, target = tmp_path / "s", tmp_path / "t"
    source.write_text("moved")
    source.chmod(0o640)
    os.utime(source, (1, 1))
    target.write_text("old")
    run(files.move, source=str(source), destination=str(target))
    assert (target.read_text(), target.stat().st_mtime) == ("moved", 1)
    run(files.restore, path=str(target), key=key)
    assert (source.read_text(), source.stat().st_mtime) == ("moved", 1)
    assert stat.S_IMODE(source.stat().st_mode) == 0o640
    assert target.read_text() == "old"


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="needs a second file system")
def test_move_to_another_file_system(run: Run, tmp_path: Path, key: str) -> None:
    target = Path("/dev/shm", f"pipeline-runner-{os.getpid()}")
    source = tmp_path / "s"
    source.write_text("moved")
    run(files.move, source=str(source), destination=str(target))
    try:
        assert target.read_text() == "moved"
        assert not source.exists()
    finally:
        run(files.restore, path=str(target), key=key)
    assert source.read_text() == "moved"
    assert not target.exists()


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A directory on another file system."""
    path = Path("/dev/shm", f"pipeline-runner-{uuid.uuid4().hex}")
    if not path.parent.is_dir():
        pytest.skip("needs a second file system at /dev/shm")
    path.mkdir()
    yield path
    shutil.rmtree(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_move_to_another_file_system_takes_the_owner_along_first(
    run: Run, tmp_path: Path, key: str, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what somebody wrote would become a program with the worker's rights."""
    source, target = tmp_path / "s", elsewhere / "t"
    source.write_text("x")
    os.chown(source, 1234, 2345)
    source.chmod(0o6755)
    os.utime(source, (1, 1))
    modes: list[int] = []
    chown = os.fchown

    def noted(descriptor: int, owner: int, group: int) -> None:
        modes.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        chown(descriptor, owner, group)

    monkeypatch.setattr(os, "fchown", noted)
    run(files.move, source=str(source), destination=str(target))
    found = target.stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (1234, 2345, 0o6755)
    assert found.st_mtime == 1
    assert modes == [0o600]  # nobody else could open it before
    run(files.restore, path=str(target), key=key)
    found = source.stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (1234, 2345, 0o6755)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_moved_link_keeps_its_owner(run: Run, tmp_path: Path, key: str, elsewhere: Path) -> None:
    source, target = tmp_path / "s", elsewhere / "t"
    source.symlink_to("nowhere")
    os.chown(source, 1234, 2345, follow_symlinks=False)
    run(files.move, source=str(source), destination=str(target))
    assert (os.readlink(target), target.lstat().st_uid, target.lstat().st_gid) == ("nowhere", 1234, 2345)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files of others")
@pytest.mark.parametrize("number", [errno.EPERM, errno.EINVAL])
@pytest.mark.parametrize("action", ["move", "write"])
def test_a_worker_that_may_not_give_files_away_does_not_lend_its_rights(
    run: Run, tmp_path: Path, elsewhere: Path, action: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "s", elsewhere / "t"
    for path in (source, target):
        path.write_text("x")
        os.chown(path, 1234, 2345)
        path.chmod(0o6755)

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fchown", refuse)
    if action == "move":
        target.unlink()
        run(files.move, source=str(source), destination=str(target))
    else:
        run(files.write, path=str(target), content="y")
    assert (target.stat().st_uid, stat.S_IMODE(target.stat().st_mode)) == (os.geteuid(), 0o755)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_group_is_given_where_an_owner_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.touch()
    os.chown(old, 1234, 2345)
    old.chmod(0o4640)
    chown = os.fchown

    def own_groups(descriptor: int, owner: int, group: int) -> None:
        if owner != -1:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        chown(descriptor, owner, group)

    monkeypatch.setattr(os, "fchown", own_groups)
    with new.open("wb") as file:
        copying.adopt(file.fileno(), old.stat())
    found = new.stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (0, 2345, 0o640)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("where", ["state", "far_state"])
def test_what_is_kept_as_a_copy_comes_back_with_owner_and_mode(
    run: Run,
    tmp_path: Path,
    key: str,
    where: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    request.getfixturevalue(where)
    monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "f"
    path.write_text("old")
    os.chown(path, 1234, 2345)
    path.chmod(0o4751)
    run(files.write, path=str(path), content="new")
    run(files.restore, path=str(path), key=key)
    found = path.stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (1234, 2345, 0o4751)
    assert path.read_text() == "old"


def test_the_longest_names_can_be_kept(run: Run, tmp_path: Path, key: str) -> None:
    path = tmp_path / ("é" * 127)
    run(files.write, path=str(path), content="x")
    assert run(files.restore, path=str(path), key=key).restored
    assert _names(tmp_path) == []


def test_mistakes_are_not_retried_and_name_the_path(run: Run, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "f").write_text("x")
    os.mkfifo(tmp_path / "p")
    at = str(tmp_path)
    cases: list[tuple[Any, dict[str, str], str, str]] = [
        (files.read, {"path": f"{at}/no"}, f"cannot read {at}/no: no such file or directory", "FileNotFound"),
        (files.read, {"path": f"{at}/d"}, f"{at}/d is a directory, not a file", "IsADirectory"),
        (files.read, {"path": f"{at}/p"}, f"{at}/p is not a regular file", "NotARegularFile"),
        (files.read, {"path": f"{at}/f/x"}, f"cannot read {at}/f/x: not a directory", "NotADirectory"),
        (
            files.write,
            {"path": f"{at}/no/f", "content": ""},
            f"cannot write {at}/no/f: the directory {at}/no does not exist",
            "FileNotFound",
        ),
        (
            files.write,
            {"path": f"{at}/d", "content": ""},
            f"{at}/d is a directory, not a file",
            "IsADirectory",
        ),
        (files.write, {"path": f"{at}/p", "content": ""}, f"{at}/p is not a regular file", "NotARegularFile"),
        (
            files.write,
            {"path": f"{at}/{'x' * 256}", "content": ""},
            f"cannot write {at}/{'x' * 256}: file name too long",
            "NameTooLong",
        ),
        (
            files.copy,
            {"source": f"{at}/no", "destination": f"{at}/t"},
            f"cannot copy {at}/no: no such file or directory",
            "FileNotFound",
        ),
        (
            files.copy,
            {"source": f"{at}/f", "destination": f"{at}/no/t"},
            f"cannot write {at}/no/t: the directory {at}/no does not exist",
            "FileNotFound",
        ),
        (
            files.copy,
            {"source": f"{at}/f", "destination": f"{at}/d/../f"},
            f"source and destination are the same file: {at}/f",
            "SameFile",
        ),
        (
            files.move,
            {"source": f"{at}/no", "destination": f"{at}/t"},
            f"cannot move {at}/no: no such file or directory",
            "FileNotFound",
        ),
        (
            files.move,
            {"source": f"{at}/d", "destination": f"{at}/t"},
            f"{at}/d is a directory, not a file",
            "IsADirectory",
        ),
        (files.remove, {"path": f"{at}/d"}, f"{at}/d is a directory, not a file", "IsADirectory"),
        (
            files.write,
            {"path": f"{at}/t", "content": "secret\ud800"},
            f"cannot write {at}/t: the string is not valid Unicode",
            "InvalidInput",
        ),
    ]
    for activity, parameters, message, error_type in cases:
        error = _failure(run, activity, **parameters)
        assert (error.message, error.type) == (message, error_type)
        assert error.non_retryable
    assert _names(tmp_path) == ["d", "f", "p"]


@pytest.mark.parametrize("ending", ["/", "//", "/.", "/.."])
def test_the_path_of_a_directory_is_refused(run: Run, tmp_path: Path, key: str, ending: str) -> None:
    source, path = str(tmp_path / "s"), f"{tmp_path}/backup{ending}"
    Path(source).write_text("x")
    cases: list[tuple[Any, dict[str, str]]] = [
        (files.write, {"path": path, "content": "x"}),
        (files.copy, {"source": source, "destination": path}),
        (files.move, {"source": source, "destination": path}),
        (files.copy, {"source": f"{source}{ending}", "destination": f"{tmp_path}/t"}),
        (files.move, {"source": f"{source}{ending}", "destination": f"{tmp_path}/t"}),
        (files.read, {"path": f"{source}{ending}"}),
        (files.remove, {"path": f"{source}{ending}"}),
    ]
    for activity, parameters in cases:
        error = _failure(run, activity, **parameters)
        (wrong,) = {one for one in parameters.values() if one.endswith(ending)}
        assert error.message == f"{wrong} is the path of a directory, not of a file"
        assert (error.type, error.non_retryable) == ("IsADirectory", True)
    assert _names(tmp_path) == ["s"]


@pytest.mark.parametrize("path", ["", "a\0b"])
def test_what_is_no_path_does_not_fit(run: Run, path: str) -> None:
    assert _failure(run, files.remove, path=path).message.startswith("the input is not valid: ")


def test_a_forbidden_file_is_a_mistake(run: Run) -> None:
    was = os.geteuid()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o555)
        try:
            if was == 0:
                os.seteuid(65534)  # root may do anything
            error = _failure(run, files.write, path=f"{folder}/f", content="x")
        finally:
            os.seteuid(was)
            Path(folder).chmod(0o700)
    assert error.message == f"cannot write {folder}/f: permission denied"
    assert (error.type, error.non_retryable) == ("PermissionDenied", True)


@pytest.mark.parametrize("key", ["../../etc", "", "a" * 65, "a/b"])
def test_a_key_is_part_of_a_file_name_and_nothing_else(run: Run, key: str) -> None:
    assert _failure(run, files.restore, path="f", key=key).type == "InvalidInput"


def test_a_cancelled_copy_stops_between_pieces(
    environment: NewEnvironment, tmp_path: Path, key: str, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "CHUNK", 1000)
    (tmp_path / "s").write_bytes(b"x" * 10_000)
    env = environment()
    beats: list[int] = []

    def on_heartbeat(*_: object) -> None:
        beats.append(1)
        if len(beats) == 3:
            env.cancel()

    env.on_heartbeat = on_heartbeat
    transfer = files.TransferInput(source=str(tmp_path / "s"), destination=str(tmp_path / "t"))
    with pytest.raises(CancelledError):
        env.run(files.copy, transfer)
    assert len(beats) == 3
    assert _names(tmp_path) == ["s"]
    assert _names(_record(state)) == ["record.json"]


def test_a_copy_changes_nothing_after_its_time(run: Run, tmp_path: Path) -> None:
    (tmp_path / "s").write_text("x")
    with pytest.raises(ApplicationError) as caught:
        run(files.copy, 1e-6, source=str(tmp_path / "s"), destination=str(tmp_path / "t"))
    assert caught.value.type == "StartToCloseTimeout"
    assert caught.value.details == (UNCERTAIN,)
    assert _names(tmp_path) == ["s"]
