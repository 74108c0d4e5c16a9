"""Process groups that must not outlive this process, not even when it is killed with -9.

A small watcher process reads a pipe whose other end only this process holds. It is told
which process groups to guard; when the pipe closes, for whatever reason, it kills those
that are still listed. This needs nothing but POSIX; Linux's parent-death signal would miss
macOS, and a child's own children.

A group is guarded from just after its start: a kill between the two is not covered.
Imports the standard library only.
"""

import atexit
import os
import subprocess
import sys
import threading
from contextlib import suppress

_WATCHER = """
import os, signal, sys
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
groups = set()
for line in sys.stdin:
    (groups.add if line[0] == "+" else groups.discard)(int(line[1:]))
for group in groups:
    try:
        os.killpg(group, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass  # gone, or nothing but a zombie
"""


class _Reaper:
    """The watcher of one process, started when first needed and again when it died."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._groups: set[int] = set()
        self._watcher: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def guard(self, group: int) -> None:
        """Add a group."""
        with self._lock:
            if self._owner != os.getpid():  # first use, or a fork: its parent's groups are not its own
                self._forget()
            self._groups.add(group)
            self._tell(b"+%d\n" % group)

    def release(self, group: int) -> None:
        """Drop a group."""
        with self._lock:
            if group in self._groups:
                self._groups.discard(group)
                self._tell(b"-%d\n" % group)

    def stop(self) -> None:
        """Let the watcher do its work, now that this process ends in an orderly way."""
        if self._watcher is not None and self._owner == os.getpid():
            assert self._watcher.stdin is not None
            self._watcher.stdin.close()
            with suppress(subprocess.TimeoutExpired):  # a fork of this process still holds the pipe
                self._watcher.wait(timeout=1)

    def _tell(self, line: bytes) -> None:
        if self._watcher is None:
            self._start()
            return
        try:
            self._write(self._watcher, line)
        except BrokenPipeError:  # somebody killed the watcher
            self.stop()
            self._start()

    def _start(self) -> None:
        """Start a watcher that knows all groups."""
        self._watcher = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _WATCHER],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
        self._write(self._watcher, b"".join(b"+%d\n" % group for group in sorted(self._groups)))

    def _write(self, watcher: "subprocess.Popen[bytes]", lines: bytes) -> None:
        assert watcher.stdin is not None
        watcher.stdin.write(lines)

    def _forget(self) -> None:
        self._owner = os.getpid()
        self._groups.clear()
        self._watcher = None


_reaper = _Reaper()
atexit.register(_reaper.stop)


def guard(group: int) -> None:
    """Have a process group killed (SIGKILL) as soon as this process has ended."""
    _reaper.guard(group)


def release(group: int) -> None:
    """Guard a process group no longer: it has ended, or may live on."""
    _reaper.release(group)
