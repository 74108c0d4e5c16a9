"""The processes that start a worker's programs, and end everything that these start.

::

    worker ── nursery, one a worker ── guardian, one a program ── program ── whatever it starts

The nursery is a small Python process that starts once, so that a guardian costs only a fork. A guardian
adopts orphans (``PR_SET_CHILD_SUBREAPER``, Linux): every process that the program starts stays below
its guardian, whatever process group or session it chooses, and can be found and ended. A guardian holds
one end of a socket, and only the worker holds the other. When the socket closes for any reason, such as
a kill -9 of the worker, the guardian kills what is left. If a guardian itself is killed, the nursery
kills what is left.

Where there is no subreaper (macOS), only the program's process group is ended.

The protocol of the socket, from the worker: the request, after its length (see :func:`encode`); then
``T`` for each SIGTERM; the end of the stream means SIGKILL. To the worker, a line each: ``failed ERRNO
WHERE`` or ``started``, ``ended CODE``, ``over LEFT``.

This file runs as a script. Imports only the standard library.
"""

import gc
import marshal
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress

PATIENCE = 5.0
"""Seconds for which a guardian keeps killing. A process that still exists then cannot be killed."""
_LOOK = 0.02
_HEADER = struct.Struct("!I")
_SET_CHILD_SUBREAPER = 36


def encode(command: list[bytes], environment: dict[bytes, bytes], directory: bytes) -> bytes:
    """Return the request for a program."""
    data = marshal.dumps((command, environment, directory))
    return _HEADER.pack(len(data)) + data


def serve(link: socket.socket) -> None:
    """Run the nursery: fork a guardian for each set of descriptors that arrives on the link."""
    _ignore_signals()
    _adopt_orphans()
    wake = _wake_on_children()
    gc.disable()  # so that the pages stay shared with the guardians
    guardians: set[int] = set()
    watched = [link.fileno(), wake]
    while len(watched) > 1 or guardians:
        readable, _, _ = select.select(watched, [], [])
        if wake in readable:
            os.read(wake, 4096)
            _bury(guardians)
        if link.fileno() in readable:
            data, descriptors, _, _ = socket.recv_fds(link, 1, 4)
            if data:
                guardians |= _fork_guardian(link, wake, descriptors)
            else:  # the worker has ended
                watched.remove(link.fileno())


def _fork_guardian(link: socket.socket, wake: int, descriptors: list[int]) -> set[int]:
    """Return the guardian's process. If the system has no room for it, the worker sees the socket's end."""
    try:
        child = os.fork() if len(descriptors) == 4 else -1
    except OSError:
        child = -1
    if child == 0:
        link.close()
        os.close(wake)
        _guard(descriptors)
    for descriptor in descriptors:
        os.close(descriptor)
    return {child} - {-1}


def _bury(guardians: set[int]) -> None:
    """Reap guardians, and kill what is left by guardians that were killed."""
    end = time.monotonic() + PATIENCE
    while True:
        with suppress(ChildProcessError):
            while (pid := os.waitpid(-1, os.WNOHANG)[0]) != 0:
                guardians.discard(pid)
        orphans = list(_descendants(without=guardians))
        if not orphans or time.monotonic() > end:
            return
        _send(orphans, signal.SIGKILL)
        time.sleep(_LOOK)


def _guard(descriptors: list[int]) -> None:
    """Run the guardian of one program. Never returns."""
    control = socket.socket(fileno=descriptors[0])
    try:
        request = _request(control)
        if request is not None:
            _Guardian(control).run(request, descriptors[1:])
    finally:
        os._exit(0)


def _request(control: socket.socket) -> tuple[list[bytes], dict[bytes, bytes], bytes] | None:
    """Return the request, or None if the worker has withdrawn it or is gone."""
    header = _exactly(control, _HEADER.size)
    data = None if header is None else _exactly(control, _HEADER.unpack(header)[0])
    if data is None:
        return None
    command, environment, directory = marshal.loads(data)  # noqa: S302 - the worker's own
    return command, environment, directory


def _exactly(control: socket.socket, size: int) -> bytes | None:
    """Return exactly this many bytes, without the orders after them, or None if there are fewer."""
    data = bytearray()
    while len(data) < size:
        piece = control.recv(size - len(data))
        if not piece:
            return None
        data += piece
    return bytes(data)


class _Guardian:
    """Starts a program, and ends it with everything that it started."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._program = 0
        self._popen: subprocess.Popen[bytes]
        """Kept but never used: its destructor would reap the program."""
        self._wake = -1

    def run(self, request: tuple[list[bytes], dict[bytes, bytes], bytes], files: list[int]) -> None:
        """Start the program, and return when nothing of it is left."""
        _adopt_orphans()
        self._wake = _wake_on_children()
        if not self._start(request, files):
            return
        for file in files:
            os.close(file)
        self._say("started")
        self._watch()
        if sys.platform != "linux":
            self._signal(signal.SIGKILL)  # orphans are somebody else's there
        left = self._kill()
        self._say(f"over {' '.join(map(str, left))}")

    def _start(self, request: tuple[list[bytes], dict[bytes, bytes], bytes], files: list[int]) -> bool:
        command, environment, directory = request
        try:
            self._popen = subprocess.Popen(
                command,
                env=environment,
                cwd=directory,
                stdin=files[0],
                stdout=files[1],
                stderr=files[2],
                start_new_session=True,
            )
        except OSError as error:
            where = "directory" if error.filename == directory else "program"
            self._say(f"failed {error.errno or 0} {where}")
            return False
        self._program = self._popen.pid
        return True

    def _watch(self) -> None:
        """Follow the worker's orders until nothing is left or everything must be killed."""
        while self._reap():
            readable, _, _ = select.select([self._control.fileno(), self._wake], [], [])
            if self._wake in readable:
                os.read(self._wake, 4096)
            if self._control.fileno() in readable:
                order = b""
                with suppress(ConnectionError):
                    order = self._control.recv(16)
                if not order:
                    return
                self._signal(signal.SIGTERM)

    def _kill(self) -> list[int]:
        """Kill everything, and return the processes that cannot be killed or do not end."""
        end = time.monotonic() + PATIENCE
        known: set[int] = set()
        while self._reap():
            found = set(self._signal(signal.SIGKILL))
            if time.monotonic() > end:
                return sorted(found)
            if found <= known:  # else again at once: a process may fork just as fast
                select.select([self._wake], [], [], _LOOK)
            known |= found
        return []

    def _reap(self) -> bool:
        """Reap what has ended. Return False if nothing is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self._program:
                self._say(f"ended {os.waitstatus_to_exitcode(status)}")

    def _signal(self, number: signal.Signals) -> list[int]:
        """Send a signal to every process, and return the processes that got it.

        Parents come first: a shell whose command ends before the shell gets the signal would start the
        next command.
        """
        found = list(_descendants())
        _send(found, number)
        if sys.platform != "linux":
            # PermissionError: macOS raises it for a group in which only zombies are left.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._program, number)
        return found

    def _say(self, line: str) -> None:
        with suppress(OSError):  # the worker is gone
            self._control.sendall(line.encode() + b"\n")


def _send(processes: list[int], number: signal.Signals) -> None:
    for process in processes:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(process, number)


def _descendants(without: "set[int] | frozenset[int]" = frozenset()) -> Iterator[int]:
    """Yield the descendants of this process, parents first, without some children and their descendants."""
    children: dict[int, list[int]] = {}
    for process, parent in _processes():
        children.setdefault(parent, []).append(process)
    open_ = [os.getpid()]
    while open_:
        for child in children.get(open_.pop(), ()):
            if child not in without:
                yield child
                open_.append(child)


def _processes() -> Iterator[tuple[int, int]]:
    """Yield each process of the system with its parent; nothing where there is no /proc."""
    try:
        names = os.listdir("/proc")
    except OSError:
        return
    for name in names:
        if name.isdigit():
            with suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                # The name, in brackets, may contain anything, including spaces and brackets.
                yield int(name), int(file.read().rpartition(b")")[2].split()[1])


def _adopt_orphans() -> None:
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _wake_on_children() -> int:
    """Return a descriptor that becomes readable when a child has ended."""
    readable, writable = os.pipe()
    os.set_blocking(writable, False)
    signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return readable


def _ignore_signals() -> None:
    """Survive signals to the worker's terminal, by a handler: programs would inherit SIG_IGN."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


if __name__ == "__main__":
    serve(socket.socket(fileno=0))
