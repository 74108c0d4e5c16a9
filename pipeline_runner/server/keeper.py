"""The keeper of the embedded server: starts it, watches it, and stops it with its last user.

Run as ``python -m pipeline_runner.server.keeper FOLDER PORT UI_PORT START`` (ports: 0: any; START: the
descriptor of ``start.lock``). Three lock files in the directory show who uses it. The kernel releases a
lock when the process that holds it ends, however it ends:

``users.lock``
    Shared, held by every command that uses the server. If the keeper gets it exclusively, nobody is left.
    The keeper then holds it until it has exited, so that a new command waits.
``keeper.lock``
    Exclusive, held by the keeper: there is one per directory, and therefore one server per database file
    (the server itself would let two servers open the same file).
``start.lock``
    Exclusive, held by the command that checks whether there is a keeper and starts one, and then by that
    keeper, until its server answers.
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
    """Lock an open file. Return whether that succeeded within ``timeout`` seconds."""
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
    """Run the server until nobody uses it any more. Return an exit code.

    Args:
        folder: The state directory.
        port: Port of the frontend; 0: any.
        ui_port: Port of the web UI; 0: any.
        start: Descriptor of ``start.lock``, closed as soon as the server answers.
    """
    # In this order: whoever gets the users' lock must not find the keeper's lock still held.
    with (folder / "users.lock").open("ab") as users, (folder / "keeper.lock").open("ab") as mine:
        if not lock(mine, timeout=10):
            return 0  # another keeper was faster
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
                    # On the same port: workers and clients reconnect by themselves.
                    server = _start(folder, server.port, server.ui_port or 0)
                    _announce(card, server)
        finally:
            card.unlink(missing_ok=True)
            server.stop()
        return 0


def _deserted(users: IO[bytes]) -> bool:
    """Tell whether nobody uses the server. If so, hold the lock, so that new commands wait.

    The next command of a script gets a moment to start, because stopping the server takes a second.
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
    """Remove a database whose first server was killed while it created the tables.

    The server would use the file as it is, and never answer. A database with runs is complete; an
    earlier version created it and did not mark it.
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
        except sqlite3.DatabaseError:  # no such table, or not a database
            return False


def _announce(card: Path, server: devserver.DevServer) -> None:
    text = json.dumps({"address": server.address, "ui": f"http://127.0.0.1:{server.ui_port}"})
    draft = card.with_suffix(".new")
    draft.write_text(text)
    draft.replace(card)


def main() -> int:
    """Run as a program."""
    # The keeper leads a process group, which is guarded before the server joins it. A kill can therefore
    # never leave the server behind.
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
