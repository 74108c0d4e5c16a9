"""Ends process groups together with this process, even if it is killed with -9.

A small watcher process reads a pipe whose other end only this process holds. It receives the process
groups to guard; when the pipe closes, for any reason, it kills those that are still on its list. This
needs only POSIX. Linux's parent-death signal would not work on macOS, nor for a child's own children.

A process from :func:`start` is guarded before it becomes the wanted program: it registers itself with
the watcher, so that it does not matter when this process is killed. Imports only the standard library.
"""

import atexit
import os
import subprocess
import sys
import threading
from contextlib import suppress
from typing import Any

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


# Its input is the watcher's pipe. If the watcher was killed, the owner registers the group with the next one.
_TELLING = """trap '' PIPE; echo "+$$" 2>/dev/null >&0; trap - PIPE; exec "$@" </dev/null"""


class _Reaper:
    """The watcher of one process. It starts when it is first needed, and again after it was killed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._groups: set[int] = set()
        self._watcher: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def start(self, command: list[str], settings: dict[str, Any]) -> "subprocess.Popen[bytes]":
        """Start a process that leads a group, and guard the group."""
        with self._lock:
            self._own()
            watcher = self._watcher or self._start()
            process = subprocess.Popen(
                ["/bin/sh", "-c", _TELLING, "sh", *command],
                stdin=watcher.stdin,
                start_new_session=True,
                **settings,
            )
        self.guard(process.pid)
        return process

    def guard(self, group: int) -> None:
        """Guard a group."""
        with self._lock:
            self._own()
            self._groups.add(group)
            self._tell(b"+%d\n" % group)

    def release(self, group: int) -> None:
        """Stop guarding a group."""
        with self._lock:
            if group in self._groups:
                self._groups.discard(group)
                self._tell(b"-%d\n" % group)

    def stop(self) -> None:
        """Let the watcher kill what is left, because this process ends in an orderly way."""
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
        except BrokenPipeError:  # the watcher was killed
            self.stop()
            self._start()

    def _start(self) -> "subprocess.Popen[bytes]":
        """Start a watcher that guards all groups."""
        watcher = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _WATCHER],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
        self._watcher = watcher
        self._write(watcher, b"".join(b"+%d\n" % group for group in sorted(self._groups)))
        return watcher

    def _write(self, watcher: "subprocess.Popen[bytes]", lines: bytes) -> None:
        assert watcher.stdin is not None
        watcher.stdin.write(lines)

    def _own(self) -> None:
        """Start from nothing at the first use and after a fork: the groups of the parent are not ours."""
        if self._owner != os.getpid():
            self._owner = os.getpid()
            self._groups.clear()
            self._watcher = None


_reaper = _Reaper()
atexit.register(_reaper.stop)


def start(command: list[str], **settings: Any) -> "subprocess.Popen[bytes]":
    """Start a program without input, as the leader of a process group that is guarded from the start.

    Args:
        command: The program's path, and its arguments.
        settings: Further settings for ``Popen``.
    """
    return _reaper.start(command, settings)


def guard(group: int) -> None:
    """Guard a process group: kill it (SIGKILL) as soon as this process has ended."""
    _reaper.guard(group)


def release(group: int) -> None:
    """Stop guarding a process group, which has ended or may live on."""
    _reaper.release(group)
