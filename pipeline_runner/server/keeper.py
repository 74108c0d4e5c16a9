"""The keeper of the embedded server: starts it, watches it, ends it with its last user.

Run as ``python -m pipeline_runner.server.keeper FOLDER PORT UI_PORT START`` (ports: 0: any;
START: the descriptor of ``start.lock``). Three lock files in the folder say who is there; the
kernel drops a lock with the process that holds it, however that ends:

``users.lock``
    Shared, by every command that uses the server. When the keeper can have it for itself,
    nobody is left. It keeps it until it has gone, so that a newcomer waits.
``keeper.lock``
    Exclusive, by the keeper: there is one per folder, and so one server per database file
    (the server itself would let two open the same file).
``start.lock``
    Exclusive, by the command that is looking whether there is a keeper, and starts one; then
    by that keeper, until its server answers.
"""

import fcntl
import json
import os
import signal
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import IO

from pipeline_runner.activities.toolkit import process_reaper
from pipeline_runner.server import devserver

_POLL = 0.1
_LINGER = 1.0
_RESTARTS = 5


def lock(file: IO[bytes], *, shared: bool = False, timeout: float = 0.0) -> bool:
    """Take a lock on an open file; return whether it was had within ``timeout`` seconds."""
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    end = time.monotonic() + timeout
    while True:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                return False
            time.sleep(0.02)
        else:
            return True


def keep(folder: Path, port: int, ui_port: int, start: int) -> int:
    """Run the server until nobody uses it any more; return an exit code.

    Args:
        folder: The state folder.
        port: Port of the frontend; 0: any.
        ui_port: Port of the web UI; 0: any.
        start: Descriptor of ``start.lock``, closed as soon as the server answers.
    """
    # In this order: who gets hold of the users' lock must not find the keeper's still taken.
    with (folder / "users.lock").open("ab") as users, (folder / "keeper.lock").open("ab") as mine:
        if not lock(mine, timeout=10):
            return 0  # another keeper has come first
        stopping: list[int] = []
        signal.signal(signal.SIGTERM, lambda number, _: stopping.append(number))
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        card = folder / "server.json"
        server = _start(folder, port, ui_port)
        try:
            _announce(card, server)
            os.close(start)
            restarts = 0
            while not stopping and not _deserted(users):
                time.sleep(_POLL)
                if server.process.poll() is not None:
                    if restarts == _RESTARTS:
                        return 1
                    restarts += 1
                    # On the same port: workers and clients find it again by themselves.
                    server = _start(folder, server.port, server.ui_port or 0)
                    _announce(card, server)
        finally:
            card.unlink(missing_ok=True)
            server.stop()
        return 0


def _deserted(users: IO[bytes]) -> bool:
    """Tell whether nobody uses the server; then the lock is held, and newcomers wait.

    The next command of a script gets a moment to come, since a stop takes the server a second.
    """
    if not lock(users):
        return False
    fcntl.flock(users, fcntl.LOCK_UN)
    time.sleep(_LINGER)
    return lock(users)


def _start(folder: Path, port: int, ui_port: int) -> devserver.DevServer:
    database, made = folder / "temporal.db", folder / "temporal.db.made"
    if not made.exists():
        _remove_half_made(database)
    server = devserver.start(
        database=database,
        port=port or None,
        ui_port=ui_port or devserver.free_port(),
        log=sys.stderr.fileno(),
        new_session=False,
    )
    made.touch()
    return server


def _remove_half_made(database: Path) -> None:
    """Remove a database whose first server was killed while it made the tables.

    The server would take the file as it is, and never answer. One that holds runs is sound,
    and was made by a version that did not mark it.
    """
    if not database.exists() or _holds_runs(database):
        return
    for end in ("", "-wal", "-shm", "-journal"):
        Path(f"{database}{end}").unlink(missing_ok=True)


def _holds_runs(database: Path) -> bool:
    import sqlite3

    with closing(sqlite3.connect(database, timeout=5)) as connection:
        try:
            return connection.execute("SELECT 1 FROM executions LIMIT 1").fetchone() is not None
        except sqlite3.DatabaseError:  # no such table, or no database
            return False


def _announce(card: Path, server: devserver.DevServer) -> None:
    text = json.dumps({"address": server.address, "ui": f"http://127.0.0.1:{server.ui_port}"})
    draft = card.with_suffix(".new")
    draft.write_text(text)
    draft.replace(card)


def main() -> int:
    """Run as a program."""
    # The keeper leads a process group. It is guarded before the server becomes a part of it, so that
    # there is no moment in which a kill leaves the server behind.
    group = os.getpid()
    if os.getpgrp() != group:
        os.setsid()
    process_reaper.guard(group)
    try:
        ended = keep(Path(sys.argv[1]), *map(int, sys.argv[2:5]))
    except devserver.ServerError as error:
        sys.stderr.write(f"{error}\n")
        ended = 1
    process_reaper.release(group)
    return ended


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)
