"""Where a command's words go: results to standard output, all else to standard error.

Standard output is for JSON alone. What activities and modules print would land there too,
so it is kept aside, and file descriptor 1 then leads to standard error. What cannot be
written to standard error is lost, and never ends a run.
"""

import os
import re
import sys
from typing import TextIO

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_kept: TextIO | None = None


def keep_stdout() -> None:
    """Keep standard output for :func:`result`; everything else that writes to it is redirected."""
    global _kept  # noqa: PLW0603 - there is one per process
    for descriptor in (1, 2):
        try:
            os.fstat(descriptor)
        except OSError:  # closed by whoever started us
            os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
    _kept = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="backslashreplace")
    os.dup2(2, 1)


def result(text: str) -> None:
    """Write to standard output.

    Raises:
        OSError: It cannot be written. Where the reader has gone, there is no error.
    """
    stream = _kept or sys.stdout
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        _lead_nowhere(stream)


def tell(text: str, *, steering: bool = False) -> None:
    """Write a line to standard error; ``steering``: it may steer a terminal, with colours."""
    if sys.stderr is None:
        return
    try:
        sys.stderr.write((text if steering else _CONTROL.sub("�", text)) + "\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        _lead_nowhere(sys.stderr)


def _lead_nowhere(stream: TextIO) -> None:
    """Have a stream that nobody reads any more swallow what comes, at exit too."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    except (OSError, ValueError):
        return
