"""Running programs, seen from the worker: started, read, and ended with all their processes.

This module does not use asyncio's own subprocesses, which leave a program behind if its start is
cancelled: a program belongs to a guardian (see ``guardian.py``) before it exists, and ends when the
socket to the guardian closes. Imports no temporalio.
"""

import asyncio
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

from pipeline_runner.activities.toolkit import guardian

KILL = 1.0
"""Seconds to wait for the end of what was killed."""
_READ = 256 * 1024


class StartError(OSError):
    """The system could not start a program."""

    def __init__(self, number: int, *, directory: bool) -> None:
        """Keep the system's error, and whether it concerns the working directory."""
        super().__init__(number, os.strerror(number))
        self.number = number
        self.directory = directory


class GuardianLostError(Exception):
    """The guardian of a program was killed, and the program with it."""


class LeftRunningError(Exception):
    """A process that a program started cannot be ended."""


class Program:
    """A program, and everything that it starts. :meth:`end` ends all of it."""

    def __init__(self, on_output: Callable[[int, bytes], None], stdin: bytes | None) -> None:
        """Prepare a program. This starts nothing and does not wait.

        Args:
            on_output: Receives the program's output: 1 or 2, and the bytes.
            stdin: The program's input; None: nothing.
        """
        self._loop = asyncio.get_running_loop()
        self._on_output = on_output
        self._started: asyncio.Future[None] = self._loop.create_future()
        self._said = b""
        self._requested = False
        self.code: int | None = None
        """The exit code, or the negative number of the signal, once it has ended."""
        self.left = ""
        """The processes that could not be ended."""
        self.exited, self.drained, self.over = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._files: dict[int, int] = {}
        self._feed = -1
        self._control, control = socket.socketpair()
        self._control.setblocking(False)
        theirs: list[int] = []
        try:
            self._open(theirs, reads=stdin is not None)
            _nursery.send([control.fileno(), *theirs])
        except BaseException:
            self._close()
            raise
        finally:
            control.close()
            for file in theirs:
                os.close(file)
        self._loop.add_reader(self._control, self._hear)
        for number, file in self._files.items():
            self._loop.add_reader(file, self._read, number, file)
        if stdin is not None:
            self._loop.add_writer(self._feed, self._write, memoryview(stdin))

    def _open(self, theirs: list[int], *, reads: bool) -> None:
        """Open the pipes. The program's ends are added to ``theirs``, in the order of their numbers."""
        if reads:
            file, self._feed = os.pipe()
            os.set_blocking(self._feed, False)
        else:
            file = os.open(os.devnull, os.O_RDONLY)
        theirs.append(file)
        for number in (1, 2):
            self._files[number], file = os.pipe()
            theirs.append(file)
            os.set_blocking(self._files[number], False)

    async def start(self, command: list[bytes], environment: dict[bytes, bytes], directory: bytes) -> None:
        """Start the program.

        Raises:
            StartError: It cannot be started.
            GuardianLostError: It is not known whether it was started.
        """
        request = guardian.encode(command, environment, directory)
        with suppress(ConnectionError):  # the end of the socket reports it
            await self._loop.sock_sendall(self._control, request)
            self._requested = True
        await asyncio.shield(self._started)

    async def end(self, grace: float) -> None:
        """End what still runs, and return when it has ended.

        A cancellation during this time ends the grace period, and is raised again when everything has
        ended.

        Args:
            grace: Seconds between SIGTERM and SIGKILL; 0: SIGKILL at once.

        Raises:
            LeftRunningError: A process is still running.
        """
        cancelled: asyncio.CancelledError | None = None
        # Also if its start has not been reported: it may have begun its work all the same.
        if grace > 0 and self._requested and not self.over.is_set():
            with suppress(OSError):
                self._control.send(b"T")
            try:
                await _within(grace, self.over)
            except asyncio.CancelledError as error:
                cancelled = error
        cancelled = await self._kill() or cancelled
        self._close()
        if self.left or not self.over.is_set():
            raise LeftRunningError(self.left)
        if cancelled is not None:
            raise cancelled

    async def _kill(self) -> asyncio.CancelledError | None:
        """Kill everything, and wait for that. Return a cancellation that arrived in the meantime."""
        with suppress(OSError):
            self._control.shutdown(socket.SHUT_WR)
        waiting = asyncio.ensure_future(_within(KILL, self.over))
        cancelled = None
        while not waiting.done():
            try:
                await asyncio.shield(waiting)
            except asyncio.CancelledError as error:
                cancelled = error
        return cancelled

    def _hear(self) -> None:
        """Read the guardian's reports."""
        try:
            said = self._control.recv(4096)
        except BlockingIOError:
            return
        except ConnectionError:
            said = b""
        if not said:
            self._loop.remove_reader(self._control)
            self._lost()
            return
        *lines, self._said = (self._said + said).split(b"\n")
        for line in lines:
            self._take(*line.decode().split(" ", 1))

    def _take(self, word: str, rest: str = "") -> None:
        match word:
            case "started":
                self._settle(None)
            case "failed":
                number, where = rest.split()
                self._settle(StartError(int(number), directory=where == "directory"))
                self.over.set()
            case "ended":
                self.code = int(rest)
                self.exited.set()
            case "over":
                self.left = rest.strip()
                self.over.set()

    def _lost(self) -> None:
        """Handle the end of the guardian."""
        self._settle(GuardianLostError())
        self.exited.set()
        self.over.set()

    def _settle(self, error: Exception | None) -> None:
        if self._started.done():
            return
        if error is None:
            self._started.set_result(None)
        else:
            self._started.set_exception(error)
            self._started.exception()  # there may be nobody left who awaits it

    def _read(self, number: int, file: int) -> None:
        try:
            data = os.read(file, _READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._on_output(number, data)
            return
        self._loop.remove_reader(file)
        os.close(self._files.pop(number))
        if not self._files:
            self.drained.set()

    def _write(self, rest: memoryview) -> None:
        """Write the program's input. It is not an error if the program does not read it."""
        try:
            rest = rest[os.write(self._feed, rest) :] if rest else rest
        except BlockingIOError:
            return
        except OSError:
            rest = rest[:0]
        self._loop.remove_writer(self._feed)
        if rest:
            self._loop.add_writer(self._feed, self._write, rest)
        else:
            os.close(self._feed)
            self._feed = -1

    def _close(self) -> None:
        self._loop.remove_reader(self._control)
        self._control.close()
        if self._feed >= 0:
            self._loop.remove_writer(self._feed)
            os.close(self._feed)
            self._feed = -1
        while self._files:
            file = self._files.popitem()[1]
            self._loop.remove_reader(file)
            os.close(file)


async def _within(seconds: float, event: asyncio.Event) -> None:
    """Wait for an event for a limited time."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


class _Nursery:
    """The process that forks guardians. It starts when it is first needed, and again after it was killed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._link: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def send(self, descriptors: list[int]) -> None:
        """Make the nursery fork a guardian with these descriptors."""
        with self._lock:
            if self._link is None or self._owner != os.getpid():  # a fork: the parent's nursery is not ours
                self._link = self._start()
            try:
                socket.send_fds(self._link, [b"+"], descriptors)
            except ConnectionError:  # the nursery was killed
                self._link.close()
                self._link = self._start()
                socket.send_fds(self._link, [b"+"], descriptors)

    def _start(self) -> socket.socket:
        self._owner = os.getpid()
        ours, theirs = socket.socketpair()
        ours.settimeout(5)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", guardian.__file__],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,
            )
        # It ends with its link. If it ends before this process, this thread reaps it.
        threading.Thread(target=self._process.wait, name="nursery", daemon=True).start()
        return ours


_nursery = _Nursery()
