"""The output of a program: the parts that are kept, and the parts that an error shows.

Imports temporalio: for implementations only.
"""

import signal
from dataclasses import dataclass, field

from temporalio import activity
from temporalio.exceptions import ApplicationError

from pipeline_runner.activities.toolkit.secret_values import MAX_BYTES, in_use, masked
from pipeline_runner.activities.toolkit.sizes import RESULT_LIMIT, clip, clip_start, one_line

STDOUT_LIMIT = 768 * 1024
STDERR_LIMIT = 256 * 1024
STDOUT_ENCODED = RESULT_LIMIT - STDERR_LIMIT
"""The maximum size of standard output, or of the result of parsing it, in bytes of JSON."""
TAIL = 16 * 1024
"""The maximum size of each stream in the details of the last attempt's error, in bytes of JSON."""
SHORT_TAIL = 1024
"""The same for an attempt that is followed by another. The server keeps at most 4 KiB of such an error, or
nothing: it would then not be known how the attempt ended."""


_MORE = MAX_BYTES
"""Bytes that are kept beyond a limit, so that a secret is not cut in two before it is masked."""


@dataclass
class Output:
    """The output of a program so far."""

    _stdout: bytearray = field(default_factory=bytearray)
    """The start of standard output."""
    _stdout_end: bytearray = field(default_factory=bytearray)
    """The end of the rest of standard output."""
    _stderr: bytearray = field(default_factory=bytearray)
    """The end of standard error."""
    _lengths: dict[int, int] = field(default_factory=lambda: {1: 0, 2: 0})

    @property
    def stdout_truncated(self) -> bool:
        """Whether a part of standard output is missing."""
        return self._lengths[1] > STDOUT_LIMIT

    def add(self, number: int, data: bytes) -> None:
        """Add output of file descriptor 1 or 2."""
        self._lengths[number] += len(data)
        if number == 1:
            rest = STDOUT_LIMIT + _MORE - len(self._stdout)
            self._stdout += data[:rest]
            self._stdout_end += data[rest:]
            del self._stdout_end[: -TAIL - _MORE]
        else:
            self._stderr += data
            del self._stderr[: -STDERR_LIMIT - _MORE]

    def stdout(self) -> str:
        """Return the start of standard output."""
        return _start(_text(self._stdout), STDOUT_LIMIT)

    def result(self, stdout: str) -> tuple[str, str, bool]:
        """Return standard output and standard error, cut to a result's size, and whether a part is missing.

        Args:
            stdout: Standard output, which may have been parsed.
        """
        stderr = _end(_text(self._stderr), STDERR_LIMIT)
        shown, tail = clip(stdout, STDOUT_ENCODED), clip_start(stderr, STDERR_LIMIT)
        dropped = self.stdout_truncated or self._lengths[2] > STDERR_LIMIT
        return shown, tail, dropped or len(shown) < len(stdout) or len(tail) < len(stderr)

    def failure(self, code: int) -> ApplicationError:
        """Return the error of a program with this exit code, with the end of its output.

        Args:
            code: The exit code, or the negative number of a signal.
        """
        limit = TAIL if _is_last_attempt() else SHORT_TAIL
        stdout = _tail((self._stdout[-TAIL - _MORE :] + self._stdout_end)[-TAIL - _MORE :], limit)
        stderr = _tail(self._stderr[-TAIL - _MORE :], limit)
        what = f"exit code {code}" if code > 0 else f"killed by signal {spell_signal(-code)}"
        last = _last_line(stderr) or _last_line(stdout)
        return ApplicationError(
            f"{what}: {one_line(last, 300)}" if last else what,
            {"exit_code": code, "stdout": stdout, "stderr": stderr},
            type="CommandFailed",
        )


def _text(data: bytes | bytearray) -> str:
    """Return output as a string without secrets.

    This must happen before it is cut: half a secret is not found.
    """
    text: str = masked(data.decode(errors="replace"), in_use.get())
    return text


def _start(text: str, limit: int) -> str:
    return text if len(data := text.encode()) <= limit else data[:limit].decode(errors="ignore")


def _end(text: str, limit: int) -> str:
    return text if len(data := text.encode()) <= limit else data[-limit:].decode(errors="ignore")


def _tail(data: bytes | bytearray, limit: int) -> str:
    """Return the last lines that fit into ``limit`` bytes of JSON, or the end of the last line."""
    text = _text(data)
    tail = clip_start(text, limit)
    if len(tail) == len(text):
        return tail
    lines = tail.split("\n", 1)
    return lines[1] if len(lines) > 1 and lines[1].strip() else tail


def spell_signal(number: int) -> str:
    """Return a signal's number and, if it has one, its name, such as ``35 (SIGRTMIN+1)``."""
    try:
        return f"{number} ({signal.Signals(number).name})"
    except ValueError:  # Python knows fewer signals than the system
        pass
    if hasattr(signal, "SIGRTMIN") and signal.SIGRTMIN < number < signal.SIGRTMAX:
        return f"{number} (SIGRTMIN+{number - signal.SIGRTMIN})"
    return str(number)


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _is_last_attempt() -> bool:
    info = activity.info()
    policy = info.retry_policy
    return policy is not None and 0 < policy.maximum_attempts <= info.attempt
