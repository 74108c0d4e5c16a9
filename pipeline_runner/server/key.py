"""The key of a state directory, by which the commands of a user recognize each other's runs.

Imports no temporalio.
"""

import os
import secrets
from pathlib import Path

from pipeline_runner.server.devserver import ServerError

NAME = "signing.key"
SIZE = 32
"""Bytes."""


def signing_key(directory: Path) -> bytes:
    """Return the key of a state directory. Create it if there is none.

    Raises:
        ServerError: It cannot be read or created, belongs to another user, or is damaged.
    """
    file = directory / NAME
    try:
        if not os.path.lexists(file):
            _make(file)
        return _read(file)
    except OSError as error:
        raise ServerError(f"the key {file} cannot be used: {error.strerror}") from None


def _make(file: Path) -> None:
    """Create a key, unless another command has created one first."""
    draft = file.with_name(f"{NAME}.{secrets.token_hex(4)}.new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with os.fdopen(os.open(draft, flags, 0o600), "wb") as new:
        new.write(secrets.token_bytes(SIZE))
        new.flush()
        os.fsync(new.fileno())
    try:
        os.link(draft, file)
    except FileExistsError:
        pass
    except OSError:  # a file system without hard links
        if not file.exists():
            draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)


def _read(file: Path) -> bytes:
    with os.fdopen(os.open(file, os.O_RDONLY | os.O_NOFOLLOW), "rb") as opened:
        owner = os.fstat(opened.fileno()).st_uid
        key = opened.read(SIZE + 1)
    if owner not in (os.geteuid(), 0):
        # Whoever knows the key can make this user run anything.
        raise ServerError(
            f"the key {file} belongs to another user (uid {owner}): use your own state directory"
        )
    if len(key) != SIZE:
        raise ServerError(f"the key {file} is damaged. Remove it; runs that are open then cannot be resumed")
    return key
