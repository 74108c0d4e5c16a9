"""Keeps what a file step replaces, so that the step can be undone at any moment.

Before a step changes a path it makes a record, a directory in a store (see ``stores.py``) for the
step's
idempotency key and the path::

    STORE/KEY/run.json
        the run that the step belongs to, for the removal of old records
    STORE/KEY/HASH.kept/
        record.json   what was there: a file or nothing; what a move took away; what was created
        original      the file that was there: a hard link to it, or a copy where links do not work
        new.XXXX      what an attempt is about to put into place

* The record is prepared under another name and appears by one rename, which fails if a record exists. The
  first attempt's record therefore remains: a retry cannot take the result of an earlier attempt for the
  original.
* New content is written inside the record and put into place by one rename. What is removed is renamed
  into the record first.
* Undo first renames the record to ``HASH.undoing``. Both renames of an attempt that is still alive then
  fail, and it can no longer change anything.
* Every part of an undo can be repeated. ``HASH.undone`` is written when everything is back, and the record
  is removed last. If a completed step has neither of them, its record is somewhere else.
* The undo of a step that may not have done anything writes ``HASH.undone`` as well. An attempt removes that
  note when it begins, and does nothing if the note exists once the record has appeared.

From a store on another file system, nothing can be renamed into place. A hidden directory beside the
path, ``.NAME.KEY.near``, then takes the role of the record in the second and third rule while an
attempt runs. The undo removes it after renaming the record, and an attempt looks for its record after
creating this directory.

Earlier versions kept the record beside the path, in ``.NAME.KEY.kept``. It is still found there.

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
from dataclasses import dataclass
from pathlib import Path

import msgspec

from pipeline_runner.activities.files import stores
from pipeline_runner.activities.files.copying import Beat, link_or_copy, remove_file, sync_folder
from pipeline_runner.activities.toolkit.context import origin

ORIGIN_FILE = "run.json"
LONGEST_NAME = 128
"""Bytes of a file's name that are used in the name of its hidden directory, which may have 255. Longer names
are hashed."""


class NothingKeptError(Exception):
    """There is no record of what a completed step did at a path, and it has not been undone."""

    def __init__(self, path: str, looked: list[str]) -> None:
        super().__init__(path)
        self.path, self.looked = path, looked


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a path before a step changed it."""

    existed: bool
    """False: undo removes the file."""
    unchanged: bool = False
    """The step had nothing to change, so there is nothing to undo."""
    moved_from: str | None = None
    """The source of a move, which has its own record under the same key."""
    made: tuple[str, ...] = ()
    """The directories to create, outermost first."""
    near: str | None = None
    """The directory from which changes are renamed into place; None: the record itself."""


@dataclass(frozen=True)
class _RecordPath:
    """The names of a record in a directory."""

    folder: str
    stem: str

    def named(self, ending: str) -> str:
        return os.path.join(self.folder, f"{self.stem}.{ending}")

    @property
    def taken(self) -> bool:
        return os.path.isdir(self.named("kept")) or os.path.isdir(self.named("undoing"))

    def new_draft(self) -> str:
        return self.named(f"{secrets.token_hex(4)}.tmp")

    def remove_drafts(self) -> None:
        # If nobody may look, or the directory does not exist, nothing was prepared.
        with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            for name in os.listdir(self.folder):
                if name.startswith(f"{self.stem}.") and name.endswith(".tmp"):
                    remove_all(os.path.join(self.folder, name))


class Kept:
    """What is kept of one path for one step, whether the record exists or not."""

    def __init__(self, path: str, key: str) -> None:
        """Look for the record of an absolute and resolved path, under a step's idempotency key."""
        self.path, self._key = path, key
        self._record: Record | None = None
        self._begun = False
        self._look()

    def _look(self) -> None:
        self._directory = stores.nearest(self.path)
        in_stores = [self._in_store(store) for store in stores.stores_about(self._directory)]
        self._places = [*in_stores, self._beside]
        self._place = next((place for place in self._places if place.taken), None)

    def _in_store(self, store: str) -> _RecordPath:
        name = hashlib.sha256(os.fsencode(self.path)).hexdigest()[:32]
        return _RecordPath(os.path.join(store, self._key), name)

    @property
    def _beside(self) -> _RecordPath:
        """Where earlier versions kept records, and where changes are prepared if the store is elsewhere."""
        return beside(self.path, self._key)

    @property
    def folder(self) -> str:
        """The path of the record."""
        assert self._place is not None
        return self._place.named("kept")

    @property
    def original(self) -> str:
        """The path of the original file in the record."""
        return os.path.join(self.folder, "original")

    @property
    def near(self) -> str:
        """The directory from which changes are renamed into place, once the record exists."""
        assert self._record is not None
        return self._record.near or self.folder

    def find(self) -> Record | None:
        """Return the content of the record; None: it does not exist."""
        if self._place is None:
            return None
        self._record = _read(self.folder)
        return self._record

    def keep(self, beat: Beat, *, moved_from: str | None = None) -> Record:
        """Record what is at the path before a step changes it, unless an earlier attempt has."""

        def preserve(draft: str, near: str | None) -> Record:
            existed = _preserve(self.path, os.path.join(draft, "original"), beat)
            return Record(existed=existed, moved_from=moved_from, near=near)

        return self._keep(preserve, near=self.path)

    def keep_made(self, made: tuple[str, ...]) -> Record:
        """Record that a step is about to create directories, the last of which is the path."""
        return self._keep(lambda _, near: Record(existed=False, made=made, near=near), near=made[0])

    def keep_nothing(self) -> None:
        """Record that a step found nothing to change, unless an earlier attempt has changed something."""
        if self.find() is None:
            self._keep(lambda _, __: Record(existed=False, unchanged=True), near=None)
        self.close()

    def begin(self) -> None:
        """Begin an attempt of the step: complete an earlier undo if it was interrupted.

        A later undo stops the attempt. This must therefore happen once, before the attempt looks at
        anything.
        """
        if self._begun:
            return
        self._begun = True
        if self._place is not None and os.path.lexists(self._place.named("undoing")):
            self.put_back()
            self._look()
        for place in self._places:
            remove_file(place.named("undone"))

    def put_back(
        self, *, completed: bool = False, recursive: bool = False, beat: Beat = lambda: None
    ) -> bool:
        """Undo what a step did at the path. Return False if there is nothing to undo.

        Args:
            completed: The step is known to have completed: the record must exist.
            recursive: Remove a directory that the step created with everything that is in it now.
            beat: Called between pieces of a file that must be copied.

        Raises:
            NothingKeptError: There is no record, and the step has not been undone.
        """
        undoing = self._start_undo()
        if undoing is None and not completed:
            self._note_undone()
            self._look()  # an attempt that came in between does not know of the note
            undoing = self._start_undo()
        if undoing is None:
            if not self._is_undone():
                raise NothingKeptError(self.path, [place.folder for place in self._places[:-1]])
            return False
        record = _read(undoing)
        if record is not None and not record.unchanged:  # else only the directory was left
            self._put_back(record, undoing, completed=completed, recursive=recursive, beat=beat)
        self._note_undone()
        shutil.rmtree(undoing)
        self._place = None
        return record is None or not record.unchanged

    def take_away(self) -> None:
        """Remove the file by renaming it into the record. If the record is gone, the file stays."""
        taken = new_name(self.near)
        os.rename(self.path, taken)
        os.unlink(taken)

    def close(self) -> None:
        """Remove what an attempt leaves beside the path. Call this at the end of the attempt."""
        if self._record is not None and self._record.near is not None:
            remove_all(self._record.near)

    def _keep(self, preserve: Callable[[str, str | None], Record], *, near: str | None) -> Record:
        """Make the record unless it exists.

        Args:
            preserve: Fills a draft. It receives the draft, and the directory beside the path if needed.
            near: The path that is going to change.
        """
        self.begin()
        record = self.find()
        if record is not None and record.unchanged:
            remove_all(self.folder)  # now there is something to change
            record = None
        if record is None:
            self._make(preserve, near)
        record = self._open()
        if (
            self._is_undone()
        ):  # in the meantime; the record stays, in case that undo or another attempt uses it
            self.close()
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.folder)
        return record

    def _make(self, preserve: Callable[[str, str | None], Record], near: str | None) -> None:
        store = stores.store_for(self._directory)
        place = self._place = self._in_store(store.path)
        if place not in self._places:
            self._places.insert(0, place)
        _make_folder(place.folder)
        place.remove_drafts()
        prepared = None if store.joined or near is None else beside(near, self._key).named("near")
        draft = place.new_draft()
        _prepare(draft, lambda: preserve(draft, prepared))
        _publish(draft, place.named("kept"))

    def _open(self) -> Record:
        """Return the record, and remove what attempts left that died or must stop."""
        record = self.find()
        if record is not None and record.near is not None:
            with suppress(FileExistsError):
                os.mkdir(record.near, 0o700)
            if not os.path.isdir(self.folder):
                remove_all(record.near)  # an undo has begun in the meantime, and may not have seen it
                record = None
        if record is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.folder)
        for entry in os.scandir(self.near):
            if entry.name.startswith("new."):
                remove_all(entry.path)
        return record

    def _start_undo(self) -> str | None:
        """Take the record away from attempts that may still run; None: there is none."""
        for place in self._places:
            place.remove_drafts()
        if self._place is None:
            return None
        undoing = self._place.named("undoing")
        with suppress(FileNotFoundError):
            if not os.path.isdir(undoing):
                os.rename(self.folder, undoing)
        return undoing if os.path.isdir(undoing) else None

    def _put_back(
        self, record: Record, undoing: str, *, completed: bool, recursive: bool, beat: Beat
    ) -> None:
        if record.near is not None:
            _remove_near(record.near)
        if record.moved_from is not None:  # first, so that the file is always in one of the two places
            Kept(record.moved_from, self._key).put_back(completed=completed, beat=beat)
        if record.made:
            _remove_made(record.made, recursive=recursive)
        elif record.existed:
            self._bring_back(os.path.join(undoing, "original"), beat)
        else:
            remove_file(self.path)
        sync_folder(stores.nearest(self.path))

    def _bring_back(self, original: str, beat: Beat) -> None:
        if not os.path.lexists(original):
            return  # it is already back
        try:
            os.replace(original, self.path)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            draft = self._beside.new_draft()
            try:
                link_or_copy(original, draft, beat)
                os.replace(draft, self.path)
            finally:
                remove_file(draft)

    def _is_undone(self) -> bool:
        return any(os.path.lexists(place.named("undone")) for place in self._places)

    def _note_undone(self) -> None:
        """Leave a note for an undo that is retried because its response was lost."""
        place = self._place
        if place is None or place == self._beside:  # not in the tree that the pipeline works on
            place = self._in_store(stores.store_for(self._directory).path)
            _make_folder(place.folder)
        os.close(os.open(place.named("undone"), os.O_WRONLY | os.O_CREAT, 0o600))
        sync_folder(place.folder)


def _make_folder(folder: str) -> None:
    """Create the directory for the records of a step."""
    try:
        os.mkdir(folder, 0o700)
    except FileExistsError:
        return
    sync_folder(os.path.dirname(folder))
    if (run := origin()) is not None:
        with open(os.path.join(folder, ORIGIN_FILE), "wb") as file:
            file.write(msgspec.json.encode(run))


def beside(path: str, key: str) -> _RecordPath:
    """Return the names of hidden files and directories beside a path."""
    folder, name = os.path.split(path)
    if len(os.fsencode(name)) > LONGEST_NAME:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    return _RecordPath(folder, f".{name}.{key}")


def new_name(folder: str) -> str:
    """Return an unused name in a directory. The next attempt or the undo removes it."""
    return os.path.join(folder, f"new.{secrets.token_hex(4)}")


def remove_all(path: str) -> None:
    """Remove a file, a link or a directory with its content. A missing one is not an error."""
    with suppress(FileNotFoundError):
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)


def _remove_near(near: str) -> None:
    """Remove the directory beside a path at once, although an attempt may still write to it."""
    gone = f"{near.removesuffix('near')}{secrets.token_hex(4)}.tmp"
    with suppress(FileNotFoundError):
        os.rename(near, gone)
    remove_all(gone)


def _remove_made(made: tuple[str, ...], *, recursive: bool) -> None:
    *parents, directory = made
    above = os.path.dirname(directory)
    if os.path.realpath(above) != above:  # somebody has inserted a link: it leads to what is not ours
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), above)
    with suppress(FileNotFoundError):
        remove_directory(directory, recursive=recursive)
    for parent in reversed(parents):
        try:
            os.rmdir(parent)
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:  # others use it: it stays
                raise


def remove_directory(path: str, *, recursive: bool) -> None:
    """Remove a directory. A link to a directory is not one."""
    if os.path.islink(path):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
    (shutil.rmtree if recursive else os.rmdir)(path)


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
        if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:  # another attempt was faster
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


def _read(folder: str) -> Record | None:
    try:
        return msgspec.json.decode(Path(folder, "record.json").read_bytes(), type=Record)
    except FileNotFoundError:
        return None
