"""The state directory: where a user's runs, and the records for their undo, are on this machine.

Imports nothing of Temporal, so that commands and activities can use it alike.
"""

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

import platformdirs

FOLDER_VARIABLE = "RUN_PIPELINE_STATE"


class StateError(Exception):
    """No state directory can be used."""


class NoHomeError(StateError):
    """There is no home directory, so there is no default for the state directory."""


def state_folder() -> Path:
    """Return the state directory.

    It is the value of RUN_PIPELINE_STATE, else the user's state directory, else, if that is not
    writable, a directory of the user among the temporary files.

    Raises:
        NoHomeError: The user has no home directory.
        StateError: The temporary directory belongs to another user, or there is none.
    """
    chosen = os.environ.get(FOLDER_VARIABLE)
    if chosen:
        return Path(chosen)
    own = _users_own()
    return own if _usable(own) else temporary()


def is_temporary(folder: Path) -> bool:
    """Tell whether this state directory replaces the user's own, which is not writable."""
    with suppress(StateError):
        return not os.environ.get(FOLDER_VARIABLE) and folder == _temporary_path()
    return False


def temporary() -> Path:
    """Return a state directory among the temporary files.

    Raises:
        StateError: It belongs to another user, or there is no temporary directory.
    """
    folder = _temporary_path()
    with suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
        # Another user may have created it first.
        if stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o077:
            return folder
    raise StateError(
        f"neither the user's state directory nor {folder} can be used: set {FOLDER_VARIABLE} to a directory"
    )


def _temporary_path() -> Path:
    try:
        directory = tempfile.gettempdir()
    except FileNotFoundError:
        raise StateError(
            "neither the user's state directory nor a temporary directory can be written:"
            f" set {FOLDER_VARIABLE} to a directory"
        ) from None
    return Path(directory) / f"run-pipeline-{os.getuid()}"


def _users_own() -> Path:
    if not os.environ.get("HOME"):
        os.environ.pop("HOME", None)  # an empty value would mean the root directory
    try:
        path = platformdirs.user_state_path("run-pipeline", appauthor=False)
    except RuntimeError:
        path = Path()
    if not path.is_absolute():
        raise NoHomeError(f"there is no home directory: set HOME, or {FOLDER_VARIABLE} to a directory")
    return path


def _usable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError:
        return False
    return os.access(folder, os.W_OK)
