"""The embedded server as commands see it: there while somebody uses it, gone afterwards."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from pipeline_runner.activities import state
from pipeline_runner.engine.devserver import ServerError, find_binary
from pipeline_runner.engine.keeper import lock
from pipeline_runner.engine.key import signing_key

_WAIT = 40.0


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """Where the embedded server listens."""

    address: str
    ui: str
    """URL of the web UI."""
    folder: Path
    key: bytes = field(repr=False)
    """Signs what the workers of this user's commands run."""


class NoHomeError(ServerError):
    """Nothing says where the state directory is."""


def state_folder() -> Path:
    """Return the directory of the database file, which is the state directory.

    Raises:
        NoHomeError: The user has no home directory.
        ServerError: It cannot be used.
    """
    try:
        return state.state_folder()
    except state.NoHomeError as error:
        raise NoHomeError(str(error)) from None
    except state.StateError as error:
        raise ServerError(str(error)) from None


@contextmanager
def embedded_server(
    folder: Path, *, stays: bool = False, port: int = 0, ui_port: int = 0
) -> Iterator[Embedded]:
    """Use the embedded server: join the one that runs, or have one started.

    Args:
        folder: The state folder; made if it is not there.
        stays: The caller is a server command, which others may leave a run to.
        port: Port of the frontend if one is started here; 0: any.
        ui_port: Port of the web UI, likewise.

    Raises:
        ServerError: It cannot be started. The message holds the end of its log.
    """
    find_binary()
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            users = stack.enter_context((folder / "users.lock").open("ab"))
            stay = stack.enter_context((folder / "stays.lock").open("ab"))
        except OSError as error:
            raise ServerError(f"the state folder {folder} cannot be used: {error.strerror}") from None
        if not lock(users, shared=True, timeout=_WAIT):
            raise ServerError(f"the server of {folder} does not stop; its log is {folder / 'server.log'}")
        # Whoever looks whether a server stays holds this lock for a moment.
        if stays and not lock(stay, shared=True, timeout=_WAIT):
            raise ServerError(f"the lock {folder / 'stays.lock'} is not to be had")
        try:
            joined = _join(folder, port, ui_port)
        except OSError as error:
            raise ServerError(f"the state folder {folder} cannot be used: {error.strerror}") from None
        yield joined


def server_stays(folder: Path) -> bool:
    """Tell whether a ``run-pipeline server`` keeps the embedded server of a folder running."""
    if not (folder / "stays.lock").exists():
        return False
    with (folder / "stays.lock").open("ab") as stay:
        return not lock(stay)


def _join(folder: Path, port: int, ui_port: int) -> Embedded:
    with (folder / "start.lock").open("ab") as starting:
        if not lock(starting, timeout=_WAIT):
            raise ServerError(f"another command is starting the server of {folder}, and does not finish")
        return _ready(folder, port, ui_port)


def _spawn(folder: Path, port: int, ui_port: int) -> "subprocess.Popen[bytes]":
    (folder / "server.json").unlink(missing_ok=True)
    log: IO[bytes]
    with (folder / "server.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "pipeline_runner.engine.keeper", str(folder), str(port), str(ui_port)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            # Ctrl-C in the terminal is for the command, which still needs the server.
            start_new_session=True,
        )


def _ready(folder: Path, port: int, ui_port: int) -> Embedded:
    """Wait for the server, and start a keeper where there is none, or none any more."""
    process = None
    end = time.monotonic() + _WAIT
    while time.monotonic() < end:
        if process is None and _has_no_keeper(folder):
            process = _spawn(folder, port, ui_port)
        ended = process is not None and process.poll() is not None
        try:
            card = json.loads((folder / "server.json").read_text())
        except FileNotFoundError:
            if ended:
                break
            time.sleep(0.02)
        else:
            return Embedded(address=card["address"], ui=card["ui"], folder=folder, key=signing_key(folder))
    log = folder / "server.log"
    raise ServerError(f"the embedded server did not start:\n{_tail(log)}\n(log: {log})")


def _has_no_keeper(folder: Path) -> bool:
    with (folder / "keeper.lock").open("ab") as keeper:
        return lock(keeper)


def _tail(log: Path) -> str:
    """Return the end of a log, its last error first, in lines that people can read."""
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    errors = [line for line in lines if line.startswith("Error:")][-1:]
    rest = [line for line in lines[-4:] if line not in errors]
    return "\n".join(line if len(line) <= 200 else f"{line[:199]}…" for line in (*errors, *rest))
