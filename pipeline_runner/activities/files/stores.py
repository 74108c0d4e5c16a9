"""Where the records for undo are: outside of the trees that pipelines work on.

A store is a directory that belongs to the worker's user alone. On the same file system as the files,
nothing has to be copied: a record needs only a hard link or a rename. The first usable one of these is
chosen:

1. ``kept/`` in the state directory, if it is on that file system; 2. ``.run-pipeline-UID`` at the root
of that file system, like a trash directory, unless the step works in
   that very directory or the run's directory is above it;
3. ``kept/`` in the state directory, with copies.

A directory that another user has created or could exchange is not used. Raises plain OSErrors. Imports
no temporalio.
"""

import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from pipeline_runner.activities.toolkit.context import working_directory
from pipeline_runner.activities.toolkit.state_directory import (
    FOLDER_VARIABLE,
    NoHomeError,
    StateError,
    state_folder,
    temporary,
)

_OTHERS = ".others"
"""The directory in the state directory's store with links to stores on other file systems."""
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True)
class Store:
    """A directory of records."""

    path: str
    joined: bool
    """Whether files can be renamed from here into the directory in question."""


def store_for(directory: str) -> Store:
    """Return the store for records of a directory's content. Create it if it does not exist.

    Raises:
        OSError: No directory can be used as a store.
    """
    state = _state()
    usable = _usable(state)
    if usable and _joined(state, directory):
        return Store(state, joined=True)
    root = _at_root(directory)
    if root is not None and _usable(root) and _joined(root, directory):
        if usable:
            _remember(root, state)
        return Store(root, joined=True)
    if usable:
        return Store(state, joined=False)
    raise OSError(
        f"cannot keep what the undo needs: {state} is not a directory that the worker's user owns and can "
        f"write to (set {FOLDER_VARIABLE} to use another state directory)"
    )


def stores_about(directory: str) -> Iterator[str]:
    """Yield every store that may have a record of something in a directory."""
    for path in (_state(), _at_root(directory)):
        if path is not None and _is_own(path):
            yield path


def all_stores() -> list[str]:
    """Return every store of this user: that of the state directory, and those that it has links to."""
    state = _state()
    if not _is_own(state):
        return []
    links = os.path.join(state, _OTHERS)
    others = [os.readlink(entry.path) for entry in os.scandir(links)] if os.path.isdir(links) else []
    return [state, *(store for store in others if _is_own(store))]


def _remember(store: str, state: str) -> None:
    name = os.path.join(state, _OTHERS, hashlib.sha256(os.fsencode(store)).hexdigest()[:32])
    with suppress(FileExistsError):
        os.mkdir(os.path.dirname(name), 0o700)
    with suppress(FileExistsError):
        os.symlink(store, name)


def nearest(path: str) -> str:
    """Return the innermost existing directory above a path."""
    path = os.path.dirname(path)
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def _state() -> str:
    try:
        try:
            folder = state_folder()
        except NoHomeError:
            folder = temporary()  # of a service without a home directory
    except StateError as error:
        raise OSError(str(error)) from None
    return os.path.join(os.path.abspath(folder), "kept")


def _at_root(directory: str) -> str | None:
    """Return the store at the root of a directory's file system; None: it cannot be used."""
    root = _mount_point(directory)
    if root == directory or _is_in(root, _run_directory()):
        return None
    found = os.stat(root)
    if found.st_uid not in {0, os.geteuid()} or (
        found.st_mode & _OTHERS_WRITE and not found.st_mode & stat.S_ISVTX
    ):
        return None  # another user could replace it
    return os.path.join(root, f".run-pipeline-{os.geteuid()}")


def _run_directory() -> str:
    try:
        return os.path.realpath(working_directory())
    except OSError:
        return os.sep


def _is_in(path: str, directory: str) -> bool:
    return directory != os.sep and os.path.commonpath((path, directory)) == directory


def _mount_point(directory: str) -> str:
    """Return the root of a directory's file system, as far as it is mounted there."""
    while (parent := os.path.dirname(directory)) != directory and _joined(directory, parent):
        directory = parent
    return directory


def _joined(one: str, other: str) -> bool:
    """Tell whether files can be renamed from one directory to the other.

    This asks the kernel, with a file that does not exist: one file system may be mounted in several
    places, and renames between them fail.
    """
    if os.stat(one).st_dev != os.stat(other).st_dev:
        return False
    name = f".{secrets.token_hex(8)}"
    try:
        os.rename(os.path.join(one, name), os.path.join(other, name))
    except OSError as error:
        return error.errno != errno.EXDEV
    raise AssertionError  # pragma: no cover - there is no file with that name


def _usable(path: str) -> bool:
    """Create a store if it does not exist, and tell whether it can be used."""
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        with suppress(FileExistsError):
            os.mkdir(path, 0o700)
    except OSError:
        return False
    return _is_own(path)


def _is_own(path: str) -> bool:
    """Tell whether a store exists, is this user's, and is writable. Close it to others."""
    try:
        found = os.lstat(path)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            return False
        if stat.S_IMODE(found.st_mode) & 0o077:
            os.chmod(path, 0o700)
    except OSError:
        return False
    return os.access(path, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids)
