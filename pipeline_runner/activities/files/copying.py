"""Copies files with their attributes, and flushes them to the disk.

A copy replaces the file itself where nothing can be linked or renamed. It gets the owner, the group,
the times and the mode of the original, in this order, before others can open it. Where the worker may
not give files away, the copy does not get the set-user-id and set-group-id bits: they would lend the
worker's rights to code that somebody else wrote.

Raises plain OSErrors. Imports no temporalio.
"""

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import BinaryIO

Beat = Callable[[], None]
CHUNK = 4 * 1024 * 1024
"""Bytes that are copied between two heartbeats."""
_PIECE = 256 * 1024
"""Bytes that are copied at once. In the kernel, a mebibyte takes much longer than its four quarters."""

_NO_LINKS = {errno.EPERM, errno.EXDEV, errno.EMLINK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}
"""Errors of a file system without hard links, and of a kernel that forbids this one."""
_NOT_GIVEN = {errno.EPERM, errno.EINVAL}
"""Errors of a kernel that forbids giving files away; EINVAL: the container does not know the user."""
_NO_ATTRIBUTES = {errno.EPERM, errno.EACCES, errno.EINVAL, errno.ENODATA, errno.EOPNOTSUPP, errno.ENOTSUP}
"""Errors of a file system that does not have an extended attribute, or not for this user."""


def link_or_copy(source: str, target: str, beat: Beat) -> None:
    """Make ``target`` the same file as ``source``, or, where that is impossible, a copy of it."""
    if os.path.islink(source):
        _copy_link(source, target)
        return
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        _copy(source, target, beat)


def _copy_link(source: str, target: str) -> None:
    old = os.lstat(source)
    os.symlink(os.readlink(source), target)
    if (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
        with _allowed(_NOT_GIVEN):
            os.chown(target, old.st_uid, old.st_gid, follow_symlinks=False)


def _copy(source: str, target: str, beat: Beat) -> None:
    with open(source, "rb", opener=_itself) as reading, open(target, "xb", opener=_private) as writing:
        pour(reading, writing, beat)
        writing.flush()
        old = os.fstat(reading.fileno())
        give(writing.fileno(), old)
        os.utime(writing.fileno(), ns=(old.st_atime_ns, old.st_mtime_ns))
        _copy_attributes(reading.fileno(), writing.fileno())
        os.fchmod(writing.fileno(), _mode(writing.fileno(), old))
        os.fsync(writing.fileno())


def pour(reading: BinaryIO, writing: BinaryIO, beat: Beat) -> None:
    """Copy a stream piece by piece, with heartbeats."""
    since = 0
    while piece := reading.read(min(_PIECE, CHUNK)):
        writing.write(piece)
        since += len(piece)
        if since >= CHUNK:
            beat()
            since = 0


def adopt(descriptor: int, old: os.stat_result) -> None:
    """Give an open file the owner, the group and the mode of another, as far as the worker may."""
    give(descriptor, old)
    os.fchmod(descriptor, _mode(descriptor, old))


def give(descriptor: int, old: os.stat_result) -> None:
    """Give an open file the owner and the group of another, or only the group, or neither."""
    mine = os.fstat(descriptor)
    if (mine.st_uid, mine.st_gid) == (old.st_uid, old.st_gid):
        return
    for owner in (old.st_uid, -1):
        with _allowed(_NOT_GIVEN):
            os.fchown(descriptor, owner, old.st_gid)
            return


def _mode(descriptor: int, old: os.stat_result) -> int:
    """Return the mode that an open file may get from another, after its owner was set."""
    mine, mode = os.fstat(descriptor), stat.S_IMODE(old.st_mode)
    if (mine.st_uid, mine.st_gid) == (old.st_uid, old.st_gid):
        return mode
    return mode & ~(stat.S_ISUID | stat.S_ISGID)


def _copy_attributes(source: int, target: int) -> None:
    if not hasattr(os, "listxattr"):
        return
    names: list[str] = []
    with _allowed(_NO_ATTRIBUTES):
        names = os.listxattr(source)
    for name in names:
        with _allowed(_NO_ATTRIBUTES):
            os.setxattr(target, name, os.getxattr(source, name))


class _allowed:  # noqa: N801 - reads like suppress
    """Ignores the system errors with these numbers."""

    def __init__(self, numbers: set[int]) -> None:
        self._numbers = numbers

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        return isinstance(error, OSError) and error.errno in self._numbers


def remove_file(path: str) -> None:
    """Remove a file. A missing file is not an error."""
    with suppress(FileNotFoundError):
        os.unlink(path)


def sync_folder(folder: str) -> None:
    """Make the names in a directory survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _itself(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
