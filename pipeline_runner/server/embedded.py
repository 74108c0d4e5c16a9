"""The embedded server as commands see it: it exists while somebody uses it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from pipeline_runner.activities.toolkit import state_directory as state
from pipeline_runner.server.devserver import ServerError, find_binary
from pipeline_runner.server.keeper import lock
from pipeline_runner.server.key import signing_key

_WAIT = 40.0


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """Where the embedded server listens."""

    address: str
    ui: str
    """URL of the web UI."""
    folder: Path
    key: bytes = field(repr=False)
    """The key that signs what the workers of this user's commands run."""


class NoHomeError(ServerError):
    """There is no home directory, so there is no default for the state directory."""


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


class Joining:
    """Joins the embedded server: early and without waiting, then waits when the server is needed.

    It first becomes one of the server's users, and then starts a keeper if there is none. If the server
    was started here, is not needed after all, and has no other user, it stops at once.
    """

    def __init__(self, folder: Path, *, port: int = 0, ui_port: int = 0) -> None:
        """Prepare to join. This takes no lock and starts nothing.

        Args:
            folder: The state directory. It is created if it does not exist.
            port: Port of the frontend if a server is started here; 0: any.
            ui_port: Port of the web UI if a server is started here; 0: any.
        """
        self.folder = folder
        self._ports = (port, ui_port)
        self._open = ExitStack()
        self._users: IO[bytes] | None = None
        self._keeper: subprocess.Popen[bytes] | None = None
        self._needed = False
        self._obstacle = ""

    def begin(self) -> None:
        """Start the server, as far as that is possible without waiting.

        Raises:
            ServerError: It cannot be started.
        """
        find_binary()
        try:
            self._look()
        except OSError as error:
            raise ServerError(f"the state directory {self.folder} cannot be used: {error.strerror}") from None

    def ready(self) -> Embedded:
        """Wait until the server can be used.

        Raises:
            ServerError: It cannot be started. The message contains the end of its log.
        """
        find_binary()
        try:
            server = self._wait()
        except OSError as error:
            raise ServerError(f"the state directory {self.folder} cannot be used: {error.strerror}") from None
        self._needed = True
        return server

    def close(self) -> None:
        """Leave the server. Stop it if it was started here but not needed. A second call does nothing."""
        keeper, users = self._keeper, self._users
        self._keeper = self._users = None
        with self._open:
            # If we hold the lock exclusively, nobody uses the server, and nobody waits for it.
            if keeper is not None and users is not None and not self._needed and lock(users):
                with suppress(ProcessLookupError):
                    os.killpg(keeper.pid, signal.SIGKILL)
                keeper.wait()
                (self.folder / "server.json").unlink(missing_ok=True)

    def _wait(self) -> Embedded:
        end = time.monotonic() + _WAIT
        while True:
            ended = self._keeper is not None and self._keeper.poll() is not None
            if (server := self._look()) is not None:
                return server
            if ended or time.monotonic() >= end:
                log = self.folder / "server.log"
                raise ServerError(
                    self._obstacle or f"the embedded server did not start:\n{_tail(log)}\n(log: {log})"
                )
            time.sleep(0.02)

    def _look(self) -> Embedded | None:
        """Return the server if it runs. Start a keeper if there is none, or none any more."""
        if self._users is None:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._users = self._open.enter_context((self.folder / "users.lock").open("ab"))
        self._obstacle = f"the server in {self.folder} does not stop; its log: {self.folder / 'server.log'}"
        if not lock(self._users, shared=True):
            return None
        if self._keeper is None:
            self._obstacle = f"another command is starting the server in {self.folder}, but does not finish"
            with (self.folder / "start.lock").open("ab") as starting:
                # Without this lock, the card may describe a server that has stopped.
                if not lock(starting):
                    return None
                self._obstacle = ""
                if not _has_no_keeper(self.folder):
                    return _read_card(self.folder)
                self._keeper = _spawn(self.folder, *self._ports, starting)
        self._obstacle = ""
        return _read_card(self.folder)


@contextmanager
def embedded_server(joining: Joining, *, stays: bool = False) -> Iterator[Embedded]:
    """Use the embedded server: join the running one, or start one.

    Args:
        joining: Joins the server, and is closed at the end.
        stays: The caller is a ``server`` command, which keeps running when other commands leave.

    Raises:
        ServerError: It cannot be started. The message contains the end of its log.
    """
    with ExitStack() as stack:
        stack.callback(joining.close)
        if stays:
            joining.begin()
            stack.enter_context(_staying(joining.folder))
        yield joining.ready()


@contextmanager
def _staying(folder: Path) -> Iterator[None]:
    try:
        stay = (folder / "stays.lock").open("ab")
    except OSError as error:
        raise ServerError(f"the state directory {folder} cannot be used: {error.strerror}") from None
    with stay:
        # A command that checks whether a server stays holds this lock for a moment.
        if not lock(stay, shared=True, timeout=_WAIT):
            raise ServerError(f"cannot acquire the lock {folder / 'stays.lock'}")
        yield


def server_stays(folder: Path) -> bool:
    """Tell whether a ``run-pipeline server`` keeps the embedded server of a directory running."""
    if not (folder / "stays.lock").exists():
        return False
    with (folder / "stays.lock").open("ab") as stay:
        return not lock(stay)


def _spawn(folder: Path, port: int, ui_port: int, starting: IO[bytes]) -> "subprocess.Popen[bytes]":
    """Start a keeper. It holds the start lock until its server answers."""
    (folder / "server.json").unlink(missing_ok=True)
    numbers = [str(number) for number in (port, ui_port, starting.fileno())]
    log: IO[bytes]
    with (folder / "server.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "pipeline_runner.server.keeper", str(folder), *numbers],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[starting.fileno()],
            # Ctrl-C in the terminal is meant for the command, which still needs the server.
            start_new_session=True,
        )


def _read_card(folder: Path) -> Embedded | None:
    """Return what the keeper has written about its server; None: it does not answer yet."""
    try:
        card = json.loads((folder / "server.json").read_text())
    except FileNotFoundError:
        return None
    return Embedded(address=card["address"], ui=card["ui"], folder=folder, key=signing_key(folder))


def _has_no_keeper(folder: Path) -> bool:
    with (folder / "keeper.lock").open("ab") as keeper:
        return lock(keeper)


def _tail(log: Path) -> str:
    """Return the end of a log in readable lines, with its last error first."""
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    errors = [line for line in lines if line.startswith("Error:")][-1:]
    rest = [line for line in lines[-4:] if line not in errors]
    return "\n".join(line if len(line) <= 200 else f"{line[:199]}…" for line in (*errors, *rest))
