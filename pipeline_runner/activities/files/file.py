"""The ``file`` family: files of the worker's machine, changed completely or not at all.

New content is put into place by one rename, so that nobody ever sees half a file. A replaced file keeps
its mode, and its owner where the worker may give files away. What is replaced or removed is kept
outside of the tree, under the step's idempotency key (see ``kept.py``), and ``file.restore`` puts it
back, after any crash
or timeout::

    compensate:
      activity: file.restore
      with: {path: "{{ step.input.path }}", key: "{{ step.key }}"}

For a copy and a move, ``path`` is the destination; the undo of a move also restores its source. Outside
a pipeline the activities work too, but keep nothing. The same holds for a removal that undoes a step.

Writing to a symbolic link writes to the file that it points to. Moving or removing a link moves or
removes the link itself.
"""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, BinaryIO

from msgspec import Meta
from temporalio.exceptions import ApplicationError

from pipeline_runner.activities.catalogue.undo import Undo
from pipeline_runner.activities.files.copying import Beat, adopt, link_or_copy, pour, remove_file, sync_folder
from pipeline_runner.activities.files.kept import Kept, NothingKeptError, new_name
from pipeline_runner.activities.toolkit.context import absolute, is_compensation, step_key, undone_outcome
from pipeline_runner.activities.toolkit.errors import explain_errors, refused
from pipeline_runner.activities.toolkit.heartbeat import pulse
from pipeline_runner.activities.toolkit.parameters import built_in, doc
from pipeline_runner.activities.toolkit.sizes import MIB, RESULT_LIMIT, encoded_size

_ASK_AGAIN = timedelta(seconds=1)
"""Where several workers take turns, the next attempt may reach the worker that has the record."""

PATH = r"^[^\x00]+$(?!\n)"
"""A path is any string without a NUL; as a regular expression for JSON Schema."""

Path = Annotated[str, doc("The file. Relative paths are relative to the run's directory.", pattern=PATH)]
Source = Annotated[str, doc("The source file.", pattern=PATH)]
Destination = Annotated[str, doc("The destination file. Its directory must exist.", pattern=PATH)]
AbsolutePath = Annotated[str, doc("The file's absolute path.")]
Bytes = Annotated[int, doc("The file's size in bytes.")]
Replaced = Annotated[bool, doc("Whether a file existed at `path` before this step.")]
Key = Annotated[
    str,
    Meta(
        pattern=r"^[0-9A-Za-z_-]{1,64}$(?!\n)",  # Python's $ matches before a line end
        description='The idempotency key of the step to undo: "{{ step.key }}".',
    ),
]


@dataclass(frozen=True, kw_only=True)
class WriteInput:
    """The string to write, and the file to write it to."""

    path: Path
    content: Annotated[str, doc("The string to write, encoded as UTF-8.")]
    append: Annotated[bool, doc("Append to the file. A missing file is created.")] = False


@dataclass(frozen=True, kw_only=True)
class PathInput:
    """A file."""

    path: Path


@dataclass(frozen=True, kw_only=True)
class TransferInput:
    """The source and the destination."""

    source: Source
    destination: Destination


@dataclass(frozen=True, kw_only=True)
class RestoreInput:
    """The file to restore."""

    path: Annotated[
        Annotated[str, Meta(pattern=PATH)] | None,
        doc("The file. Relative paths are relative to the run's directory. Null: do nothing."),
    ]
    key: Key


@dataclass(frozen=True, kw_only=True)
class Written:
    """The file that was written."""

    path: AbsolutePath
    bytes: Bytes
    replaced: Replaced


@dataclass(frozen=True, kw_only=True)
class Content:
    """The content of the file."""

    path: AbsolutePath
    bytes: Bytes
    content: Annotated[str, doc("The file's content.")]


@dataclass(frozen=True, kw_only=True)
class Moved:
    """The file that was moved."""

    path: Annotated[str, doc("The destination's absolute path.")]
    source: Annotated[str, doc("The source's absolute path.")]
    bytes: Bytes
    replaced: Replaced


@dataclass(frozen=True, kw_only=True)
class Removed:
    """Whether the file was removed."""

    path: AbsolutePath
    removed: Annotated[bool, doc("False if the file did not exist.")]


@dataclass(frozen=True, kw_only=True)
class Restored:
    """Whether the file was restored."""

    path: Annotated[str | None, doc("The file's absolute path. Null if there is none.")]
    restored: Annotated[bool, doc("False if the step changed nothing, or has been undone.")]


def _restores(parameter: str) -> Undo:
    """Return the undo of a step that changes the file in this parameter."""
    return Undo("file.restore", {"path": f"{{{{ step.input.{parameter} }}}}", "key": "{{ step.key }}"})


@built_in("file.write", undo=_restores("path"))
def write(parameters: WriteInput) -> Written:
    """Write a text file, or append to one.

    A retry starts again from the original file, so nothing is appended twice.
    """
    target = followed(named(parameters.path))
    beat = pulse()
    with explain_errors(f"write {target}"):
        check_target(target)
        with _before(target, beat, _begun(target)) as before:

            def fill(file: BinaryIO) -> None:
                if parameters.append and before.file is not None:
                    with open(before.file, "rb") as reading:
                        pour(reading, file, beat)
                file.write(parameters.content.encode())

            size = _put(target, before, fill, beat)
    return Written(path=target, bytes=size, replaced=before.file is not None)


@built_in("file.read", effect_free=True)
def read(parameters: PathInput) -> Content:
    """Read a UTF-8 text file of at most 1 MiB."""
    path = followed(named(parameters.path))
    with explain_errors(f"read {path}"), open(_check_regular(path), "rb") as file:
        data = file.read(MIB + 1)
    too_large = refused(
        f"cannot read {path}: it is larger than 1 MiB, which is too large for a step's output", "FileTooLarge"
    )
    if len(data) > MIB:
        raise too_large
    try:
        content = data.decode()
    except UnicodeDecodeError as error:
        # From None: the cause would contain the content.
        raise refused(f"cannot read {path}: it is not UTF-8 text (byte {error.start})", "NotText") from None
    if encoded_size(content) > RESULT_LIMIT:
        raise too_large
    return Content(path=path, bytes=len(data), content=content)


@built_in("file.copy", undo=_restores("destination"))
def copy(parameters: TransferInput) -> Written:
    """Copy a file of any size. A new file gets the source's mode."""
    source, target = followed(named(parameters.source)), followed(named(parameters.destination))
    _check_different(source, target)
    beat = pulse()
    with explain_errors(f"copy {source}"), open(_check_regular(source), "rb") as reading:
        mode = stat.S_IMODE(os.fstat(reading.fileno()).st_mode)
        with explain_errors(f"copy {source} to {target}"):
            check_target(target)
            with _before(target, beat, _begun(target)) as before:
                size = _put(target, before, lambda file: pour(reading, file, beat), beat, mode & 0o777)
    return Written(path=target, bytes=size, replaced=before.file is not None)


@built_in("file.move", undo=_restores("destination"))
def move(parameters: TransferInput) -> Moved:
    """Move or rename a file, even to another file system.

    The `path` of the undo is the destination. It moves the file back, with any changes made
    to it in place since, and restores the file that the move replaced.
    """
    source, target = itself(named(parameters.source)), itself(named(parameters.destination))
    _check_different(source, target)
    beat = pulse()
    moving = source
    with explain_errors(f"move {source}"):
        kept, taken = (
            _begun(target),
            _begun(source),
        )  # in this order: an undo of the target restores the source
        if not os.path.lexists(source) and taken is not None and taken.find():
            moving = taken.original  # an earlier attempt has taken it away
        _check_regular(moving, links=True)
    with explain_errors(f"move {source} to {target}"):
        check_target(target, links=True)
        with _before(target, beat, kept, moved_from=source) as before, _before(source, beat, taken):
            _place(target, before, lambda new: link_or_copy(moving, new, beat), beat)
            _take_away(source, taken)
        size = os.lstat(target).st_size
    return Moved(path=target, source=source, bytes=size, replaced=before.file is not None)


@built_in("file.remove", undo=_restores("path"))
def remove(parameters: PathInput) -> Removed:
    """Remove a file. A missing file is not an error."""
    path, beat = itself(named(parameters.path)), pulse()
    with explain_errors(f"remove {path}"):
        kept = None if is_compensation() else _begun(path)
        removed = os.path.lexists(path)
        if not removed:
            removed = _was_removed(kept)
        else:
            _check_regular(path, links=True)
            with _before(path, beat, kept):
                _take_away(path, kept)
    return Removed(path=path, removed=removed)


@built_in("file.restore")
def restore(parameters: RestoreInput) -> Restored:
    """Undo a step of the file family, even if it was interrupted.

    Does nothing if the step changed nothing, or has been undone. Fails with `NothingKept` if
    the step completed and nothing is kept of it here.
    """
    if parameters.path is None:
        return Restored(path=None, restored=False)
    path, beat = itself(parameters.path), pulse()
    doing = f"restore {path}"
    with explain_errors(doing):
        kept = [Kept(one, parameters.key) for one in sorted({path, followed(parameters.path)})]
        restored = put_back(kept, doing, beat=beat)
    return Restored(path=path, restored=restored)


@dataclass(frozen=True)
class _Before:
    """The state before the step, whichever attempt this is."""

    file: str | None
    """Where the original file can be read now; None: there was none."""
    kept: Kept | None
    """The record; None: nothing is kept, outside a pipeline."""


def _begun(path: str) -> Kept | None:
    """Begin an attempt, and return the record; None: nothing is kept, outside a pipeline."""
    key = step_key()
    if key is None:
        return None
    kept = Kept(path, key)
    kept.begin()
    return kept


@contextmanager
def _before(
    target: str, beat: Beat, kept: Kept | None, *, moved_from: str | None = None
) -> Iterator[_Before]:
    """Keep the original before a step changes it, unless nothing is to be kept."""
    if kept is None:
        yield _Before(target if os.path.lexists(target) else None, None)
        return
    record = kept.keep(beat, moved_from=moved_from)
    try:
        yield _Before(kept.original if record.existed else None, kept)
    finally:
        kept.close()


def _was_removed(kept: Kept | None) -> bool:
    """Tell whether an earlier attempt has removed a file that is missing. If none has, record that."""
    if kept is None:
        return False
    kept.keep_nothing()
    record = kept.find()
    return record is not None and not record.unchanged


def put_back(kept: list[Kept], doing: str, *, recursive: bool = False, beat: Beat = lambda: None) -> bool:
    """Undo what the step with a key did at one of these paths. Return False if there is nothing to undo.

    Raises:
        ApplicationError: The step is known to have completed, and there is no record of it.
    """
    completed = undone_outcome() == "completed"
    restored, missing = False, []
    for one in kept:
        try:
            restored |= one.put_back(completed=completed, recursive=recursive, beat=beat)
        except NothingKeptError as error:
            missing.append(error)
            if error.path != one.path or len(missing) == len(kept):
                raise _lost(error, doing) from None
    return restored


def _lost(error: NothingKeptError, doing: str) -> ApplicationError:
    """Return the error for a missing record, which another worker may have."""
    return ApplicationError(
        f"cannot {doing}: the step completed, but nothing is kept here of what was at {error.path}: "
        "the step ran on another host, as another user or with another state directory, or what was kept "
        "has been removed "
        f"(looked in {', '.join(error.looked)})",
        type="NothingKept",
        next_retry_delay=_ASK_AGAIN,
    )


def _put(
    target: str, before: _Before, fill: Callable[[BinaryIO], None], beat: Beat, mode: int = 0o666
) -> int:
    """Put new content into place, and return its size."""
    old = os.stat(before.file) if before.file is not None else None

    def make(new: str) -> None:
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if old else mode)
        with os.fdopen(descriptor, "wb") as file:
            fill(file)
            file.flush()
            if old is not None:
                adopt(file.fileno(), old)
            os.fsync(file.fileno())

    _place(target, before, make, beat)
    return os.stat(target).st_size


def _place(target: str, before: _Before, make: Callable[[str], None], beat: Beat) -> None:
    """Make a new file beside the target, and rename it into place."""
    folder = os.path.dirname(target)
    new = new_name(folder if before.kept is None else before.kept.near)
    try:
        make(new)
        beat()  # too late, or cancelled: nothing may change any more
        os.replace(new, target)
    finally:
        # It is left after an error, and if a move's source and target are links to one file: such a rename
        # does nothing.
        remove_file(new)
    sync_folder(folder)


def _take_away(path: str, kept: Kept | None) -> None:
    if kept is None:
        remove_file(path)
    elif os.path.lexists(path):
        kept.take_away()
    sync_folder(os.path.dirname(path))


def named(path: str) -> str:
    """Return the path of a file unchanged. Refuse one that can only be a directory's."""
    if os.path.basename(path) in {"", os.curdir, os.pardir}:
        raise refused(f"{path} is the path of a directory, not of a file", "IsADirectory")
    return path


def followed(path: str) -> str:
    """Return the absolute path with all symbolic links resolved."""
    return os.path.realpath(absolute(path))


def itself(path: str) -> str:
    """Return the absolute path with all symbolic links but the last part resolved."""
    folder, name = os.path.split(os.path.abspath(absolute(path)))
    return os.path.join(os.path.realpath(folder), name)


def check_target(path: str, *, links: bool = False) -> None:
    """Refuse a path at which there cannot be a file."""
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        raise refused(f"cannot write {path}: the directory {folder} does not exist", "FileNotFound")
    if os.path.lexists(path):
        _check_regular(path, links=links)


def _check_regular(path: str, *, links: bool = False) -> str:
    mode = os.lstat(path).st_mode
    if stat.S_ISDIR(mode):
        raise refused(f"{path} is a directory, not a file", "IsADirectory")
    if not (stat.S_ISREG(mode) or (links and stat.S_ISLNK(mode))):
        raise refused(f"{path} is not a regular file", "NotARegularFile")
    return path


def _check_different(source: str, target: str) -> None:
    if source == target:
        raise refused(f"source and destination are the same file: {source}", "SameFile")
