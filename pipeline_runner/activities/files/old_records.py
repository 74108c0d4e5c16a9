"""Old records for undo: finds and removes them.

The caller decides whether a record is still needed. Imports no temporalio.
"""

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec

from pipeline_runner.activities.files import stores
from pipeline_runner.activities.files.kept import ORIGIN_FILE, remove_all
from pipeline_runner.activities.toolkit.context import Origin

_STAMP = ".swept"
_KEY = re.compile(r"[0-9A-Za-z_-]{1,64}")


@dataclass(frozen=True)
class OldRecord:
    """The records of one step, and the run that the step belongs to."""

    path: str
    origin: Origin | None
    """None: not known."""

    def remove(self) -> None:
        """Remove the records."""
        remove_all(self.path)


def due_stores(every: float) -> list[str]:
    """Return the stores that have not been searched for so many seconds, and mark them as searched now."""
    due = []
    for store in stores.all_stores():
        stamp = Path(store, _STAMP)
        try:
            age = time.time() - stamp.stat().st_mtime
        except FileNotFoundError:
            age = every
        if age >= every or age < 0:
            stamp.touch()
            due.append(store)
    return due


def older_than(store: str, seconds: float) -> list[OldRecord]:
    """Return the records of a store that were made, or undone, more than so many seconds ago."""
    limit = time.time() - seconds
    with os.scandir(store) as entries:
        return [
            OldRecord(entry.path, _origin(entry.path))
            for entry in entries
            if _KEY.fullmatch(entry.name)
            and entry.is_dir(follow_symlinks=False)
            and entry.stat(follow_symlinks=False).st_mtime < limit
        ]


def _origin(record: str) -> Origin | None:
    try:
        return msgspec.json.decode(Path(record, ORIGIN_FILE).read_bytes(), type=Origin)
    except (FileNotFoundError, msgspec.DecodeError):
        return None  # the worker died while writing it
