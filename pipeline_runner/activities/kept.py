"""What a file step replaces is kept beside it, so that the step can be undone at any moment.

Before a step touches ``DIR/NAME`` it makes the folder ``DIR/.NAME.KEY.kept``, where KEY is
the step's idempotency key::

    record.json   what was there: a file or nothing; what a move took away; what was created
    original      the file that was there: a hard link to it, a copy where links do not work
    new.XXXX      what an attempt is about to put in place

* The folder is prepared under another name and appears by one rename, which fails when it
  exists already. So the first attempt's record wins: a retry cannot take the result of
  the attempt before for the original.
* New content is written inside the folder and put in place by one rename; what is removed
  is renamed into the folder first.
* Undo first renames the folder to ``.NAME.KEY.undoing``. Both renames of an attempt that is
  still alive then fail, and it can no longer change anything.
* Every step of undo may be repeated, and the folder goes last. Without a folder there is
  nothing to undo: the step did nothing, or has been undone.

A completed run may be undone later, so its kept folders stay. Who will not undo runs older
than a month may delete them: ``find DIR -name '.*.kept' -prune -mtime +30 -exec rm -r {} +``.

Raises plain OSErrors. Imports no temporalio.
"""

import errno
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import msgspec

Beat = Callable[[], None]
CHUNK = 4 * 1024 * 1024
LONGEST_NAME = 128
"""Bytes of a name that go into its kept folder's, which may have 255; else a hash stands for it."""

_NO_LINKS = {errno.EPERM, errno.EXDEV, errno.EMLINK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}
"""What a file system without hard links, or a kernel that forbids this one, answers."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What a step found at a path before it changed it."""

    existed: bool
    """False: undo removes what is there."""
    moved_from: str | None = None
    """The source of a move, which has a record of its own under the same key."""
    made: tuple[str, ...] = ()
    """Directories to be created, outermost first."""


def kept_folder(path: str, key: str) -> str:
    """Return the folder that keeps what was at this path, whether it exists or not."""
    return _beside(path, key, "kept")


def find(path: str, key: str) -> Record | None:
    """Return what is recorded of a path under a key, None if nothing is."""
    return _read(kept_folder(path, key))


def original(path: str, key: str) -> str:
    """Return where the file is kept that was at this path."""
    return os.path.join(kept_folder(path, key), "original")


def keep(path: str, key: str, beat: Beat, *, moved_from: str | None = None) -> Record:
    """Record what is at a path before a step changes it, unless an earlier attempt has."""
    draft = _beside(path, key, f"{secrets.token_hex(4)}.tmp")

    def preserve() -> Record:
        return Record(existed=_preserve(path, os.path.join(draft, "original"), beat), moved_from=moved_from)

    return _record(path, key, draft, preserve)


def keep_made(path: str, key: str, made: tuple[str, ...]) -> Record:
    """Record that a step is about to create directories, the first of which is ``path``."""
    draft = _beside(path, key, f"{secrets.token_hex(4)}.tmp")
    return _record(path, key, draft, lambda: Record(existed=False, made=made))


def finish_undo(path: str, key: str) -> None:
    """Complete an undo that was cut off, before the step runs again."""
    if os.path.lexists(_beside(path, key, "undoing")):
        put_back(path, key)


def put_back(path: str, key: str, *, recursive: bool = False) -> bool:
    """Undo what a step did at a path; False if there is nothing to undo.

    Args:
        path: Where the record is: the file, or the outermost directory that was made.
        key: The idempotency key of the step.
        recursive: Remove a directory that the step made with whatever is in it now.
    """
    undoing = _start_undo(path, key)
    if undoing is None:
        return False
    record = _read(undoing)
    if record is not None:  # else only the folder was left
        if record.moved_from is not None:  # first, so that the file is never in neither place
            put_back(record.moved_from, key)
        if record.made:
            _remove_made(record.made, recursive=recursive)
        elif record.existed:
            with suppress(FileNotFoundError):  # it is back already
                os.replace(os.path.join(undoing, "original"), path)
        else:
            remove_file(path)
        sync_folder(os.path.dirname(path))
    shutil.rmtree(undoing)
    return True


def _remove_made(made: tuple[str, ...], *, recursive: bool) -> None:
    *parents, directory = made
    with suppress(FileNotFoundError):
        (shutil.rmtree if recursive else os.rmdir)(directory)
    for parent in reversed(parents):
        try:
            os.rmdir(parent)
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:  # in use by others: it stays
                raise


def take_away(path: str, folder: str) -> None:
    """Remove a file by way of its kept folder: when that is gone, the file stays."""
    taken = new_name(folder)
    os.rename(path, taken)
    os.unlink(taken)


def new_name(folder: str) -> str:
    """Return an unused name in a kept folder, which the next attempt or the undo cleans up."""
    return os.path.join(folder, f"new.{secrets.token_hex(4)}")


def remove_file(path: str) -> None:
    """Remove a file; none is fine."""
    with suppress(FileNotFoundError):
        os.unlink(path)


def link_or_copy(source: str, target: str, beat: Beat) -> None:
    """Make ``target`` the same file as ``source``, or where that cannot be, one like it."""
    if os.path.islink(source):
        os.symlink(os.readlink(source), target)
        return
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        with open(source, "rb") as reading, open(target, "xb") as writing:
            pour(reading, writing, beat)
            writing.flush()
            shutil.copystat(source, target)
            os.fsync(writing.fileno())


def pour(reading: BinaryIO, writing: BinaryIO, beat: Beat) -> None:
    """Copy a stream piece by piece, with a sign of life after each."""
    while piece := reading.read(CHUNK):
        writing.write(piece)
        beat()


def sync_folder(folder: str) -> None:
    """Make the names in a folder survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _beside(path: str, key: str, ending: str) -> str:
    folder, name = os.path.split(path)
    if len(os.fsencode(name)) > LONGEST_NAME:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    return os.path.join(folder, f".{name}.{key}.{ending}")


def _record(path: str, key: str, draft: str, preserve: Callable[[], Record]) -> Record:
    finish_undo(path, key)
    folder = kept_folder(path, key)
    if not os.path.isdir(folder):
        _remove_drafts(path, key)
        _prepare(draft, preserve)
        _publish(draft, folder)
    for entry in os.scandir(folder):  # of attempts that died, or are to be stopped
        if entry.name.startswith("new."):
            (shutil.rmtree if entry.is_dir(follow_symlinks=False) else remove_file)(entry.path)
    record = _read(folder)
    if record is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), folder)
    return record


def _prepare(draft: str, preserve: Callable[[], Record]) -> None:
    os.mkdir(draft, 0o700)
    try:
        data = msgspec.json.encode(preserve())
        with open(os.path.join(draft, "record.json"), "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        sync_folder(draft)
    except BaseException:
        shutil.rmtree(draft)
        raise


def _publish(draft: str, folder: str) -> None:
    try:
        os.rename(draft, folder)
    except OSError as error:
        shutil.rmtree(draft)
        if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:  # another attempt was first
            raise
    sync_folder(os.path.dirname(folder))


def _preserve(path: str, target: str, beat: Beat) -> bool:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return False
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    link_or_copy(path, target, beat)
    return True


def _start_undo(path: str, key: str) -> str | None:
    """Take a record out of the hands of attempts that may still run; None: there is none."""
    undoing = _beside(path, key, "undoing")
    with suppress(FileNotFoundError):
        if not os.path.isdir(undoing):
            os.rename(kept_folder(path, key), undoing)
    _remove_drafts(path, key)
    return undoing if os.path.isdir(undoing) else None


def _remove_drafts(path: str, key: str) -> None:
    folder, start = os.path.split(_beside(path, key, ""))
    # Where nobody may look, or there is no folder, nothing was prepared.
    with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
        for name in os.listdir(folder):
            if name.startswith(start) and name.endswith(".tmp"):
                shutil.rmtree(os.path.join(folder, name))


def _read(folder: str) -> Record | None:
    try:
        return msgspec.json.decode(Path(folder, "record.json").read_bytes(), type=Record)
    except FileNotFoundError:
        return None
