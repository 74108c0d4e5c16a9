"""The state directory: where this user's runs, and what is kept for their undos, are on this machine.

Imports nothing of Temporal, so that commands and activities can ask for it alike.
"""

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

import platformdirs

FOLDER_VARIABLE = "RUN_PIPELINE_STATE"


class StateError(Exception):
    """There is no state directory."""


class NoHomeError(StateError):
    """Nothing says where the state directory is."""


def state_folder() -> Path:
    """Return the state directory.

    That is what RUN_PIPELINE_STATE names, else the user's state directory, else, where
    that cannot be written, one of the user's own among the temporary files.

    Raises:
        NoHomeError: The user has no home directory.
        StateError: The temporary directory belongs to somebody else, or there is none.
    """
    chosen = os.environ.get(FOLDER_VARIABLE)
    if chosen:
        return Path(chosen)
    own = _users_own()
    return own if _usable(own) else temporary()


def is_temporary(folder: Path) -> bool:
    """Tell whether a state directory stands in for the user's own, which cannot be written."""
    with suppress(StateError):
        return not os.environ.get(FOLDER_VARIABLE) and folder == _temporary_path()
    return False


def temporary() -> Path:
    """Return a state directory among the temporary files.

    Raises:
        StateError: It belongs to somebody else, or there is no temporary directory.
    """
    folder = _temporary_path()
    with suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
        # Anybody may have made it first.
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
        os.environ.pop("HOME", None)  # empty, it would stand for the root directory
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
