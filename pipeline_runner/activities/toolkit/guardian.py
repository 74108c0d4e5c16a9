"""The processes that start a worker's programs, and end all that these start.

::

    worker ── nursery, one a worker ── guardian, one a program ── program ── whatever it starts

The nursery is a small Python process, started once, so that a guardian costs no more than a
fork. A guardian adopts orphans (``PR_SET_CHILD_SUBREAPER``, Linux): whatever the program
starts stays below its guardian, whichever process group or session it chose, and so can be
found and ended. A guardian holds one end of a socket whose other end the worker alone holds.
When that is closed, for whatever reason, a kill -9 of the worker included, it kills what is
left. The nursery kills what a guardian that was itself killed leaves behind.

Where there is no subreaper (macOS) only the program's process group is ended.

What travels on the socket, from the worker: the request, its length in front (see
:func:`encode`); then ``T`` for each SIGTERM; its end means SIGKILL. To the worker, a line
each: ``failed ERRNO WHERE`` or ``started``, ``ended CODE``, ``over LEFT``.

This file is run as a script. Imports the standard library only.
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
"""Seconds that a guardian goes on killing; who is not gone by then cannot be killed."""
_LOOK = 0.02
_HEADER = struct.Struct("!I")
_SET_CHILD_SUBREAPER = 36


def encode(command: list[bytes], environment: dict[bytes, bytes], directory: bytes) -> bytes:
    """Return the request for a program."""
    data = marshal.dumps((command, environment, directory))
    return _HEADER.pack(len(data)) + data


def serve(link: socket.socket) -> None:
    """Be the nursery: fork a guardian for each set of descriptors that comes on the link."""
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
    """Return the guardian's process; none where the system has no room: the worker sees the socket's end."""
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
    """Reap guardians, and kill what those leave that were killed."""
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
    """Be the guardian of one program; never returns."""
    control = socket.socket(fileno=descriptors[0])
    try:
        request = _request(control)
        if request is not None:
            _Guardian(control).run(request, descriptors[1:])
    finally:
        os._exit(0)


def _request(control: socket.socket) -> tuple[list[bytes], dict[bytes, bytes], bytes] | None:
    """Read the request; None: the worker changed its mind, or is gone."""
    header = _exactly(control, _HEADER.size)
    data = None if header is None else _exactly(control, _HEADER.unpack(header)[0])
    if data is None:
        return None
    command, environment, directory = marshal.loads(data)  # noqa: S302 - the worker's own
    return command, environment, directory


def _exactly(control: socket.socket, size: int) -> bytes | None:
    """Read so many bytes, and none of the orders behind them; None: there are fewer."""
    data = bytearray()
    while len(data) < size:
        piece = control.recv(size - len(data))
        if not piece:
            return None
        data += piece
    return bytes(data)


class _Guardian:
    """Starts a program, and ends it and all that it started."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._program = 0
        self._popen: subprocess.Popen[bytes]
        """Kept, and never asked: at its own end it would take in the program's."""
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
        """Do as the worker says, until nothing is left or everything is to be killed."""
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
        """Kill everything, and return what cannot be killed, or does not end."""
        end = time.monotonic() + PATIENCE
        known: set[int] = set()
        while self._reap():
            found = set(self._signal(signal.SIGKILL))
            if time.monotonic() > end:
                return sorted(found)
            if found <= known:  # else at once again: somebody may be forking as fast
                select.select([self._wake], [], [], _LOOK)
            known |= found
        return []

    def _reap(self) -> bool:
        """Take in what has ended; False: nothing is left."""
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
        """Send a signal to all that is there, and return to whom.

        Parents come first: a shell that saw its command end before it is asked itself would go on with
        the next one.
        """
        found = list(_descendants())
        _send(found, number)
        if sys.platform != "linux":
            # PermissionError: macOS says so of a group in which only zombies are left.
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
    """Yield what is below this process, parents first, except for some children and what is below those."""
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
    """Yield each process of the system, and its parent; none where there is no /proc."""
    try:
        names = os.listdir("/proc")
    except OSError:
        return
    for name in names:
        if name.isdigit():
            with suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                # The name, in brackets, may hold anything, spaces and brackets included.
                yield int(name), int(file.read().rpartition(b")")[2].split()[1])


def _adopt_orphans() -> None:
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _wake_on_children() -> int:
    """Return a descriptor that can be read when a child has ended."""
    readable, writable = os.pipe()
    os.set_blocking(writable, False)
    signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return readable


def _ignore_signals() -> None:
    """Outlive what is sent to the worker's terminal. By a handler: programs inherit SIG_IGN."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


if __name__ == "__main__":
    serve(socket.socket(fileno=0))
