"""Where a command's words go: results to standard output, all else to standard error.

Standard output is for JSON alone. What activities and modules print would land there too,
so it is kept aside, and file descriptor 1 then leads to standard error. What cannot be
written to standard error is lost, and never ends a run.

Much of what is told comes from somewhere else: names, outputs, errors. None of it may
steer the terminal, or be taken for a command by the service that reads the log.
"""

import json
import os
import re
import shutil
import sys
from typing import Any, TextIO

_STEERING = "\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069"
"""Control characters beyond ASCII, line separators, and what turns the direction of a text."""
_CONTROL = re.compile(f"[\x00-\x08\x0b-\x1f{_STEERING}]")
# "##[error]" (GitHub, Azure), "##vso[" and "##teamcity[" are commands anywhere in a line.
_HASHES = re.compile(r"##(?=\w*\[)")
# "::error::" is one at the start of a line, white space aside.
_COLONS = re.compile(r"^(?=[^\S\n]*::)", re.MULTILINE)
_IN_JSON = re.compile(rf"[{_STEERING}]|(?<=#)#(?=\w*\[)")
_kept: TextIO | None = None
_objects = False
"""Whether standard error gets JSON objects, one per line."""
_for_now: list[None] = []
"""Has an element while the terminal's last line is one of :func:`show_for_now`."""


class OutputError(Exception):
    """Standard output cannot be written. The message is the system's reason."""


def keep_stdout() -> None:
    """Keep standard output for :func:`result`; everything else that writes to it is redirected."""
    global _kept  # noqa: PLW0603 - there is one per process
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:  # closed by whoever started us: nothing else may get its number
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != descriptor:
                os.dup2(nowhere, descriptor)
                os.close(nowhere)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
    _kept = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="backslashreplace")
    os.dup2(2, 1)


def result(text: str) -> None:
    """Write to standard output.

    Raises:
        OutputError: It cannot be written. Where the reader has gone, there is no error.
    """
    stream = _kept or sys.stdout
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        _lead_nowhere(stream)
    except OSError as error:
        _lead_nowhere(stream)
        raise OutputError(error.strerror or str(error)) from None


def result_width() -> int | None:
    """Return the columns of the terminal that standard output is; None: it is no terminal."""
    stream = _kept or sys.stdout
    return shutil.get_terminal_size().columns if stream is not None and stream.isatty() else None


def result_json(value: Any) -> None:
    """Write a value to standard output, as JSON.

    Raises:
        OutputError: It cannot be written.
    """
    result(json_text(value))


def json_text(value: Any, *, indent: int | None = 2) -> str:
    """Return a value as JSON that neither steers a terminal nor is a command for one that reads logs."""
    text = json.dumps(value, ensure_ascii=False, indent=indent) + "\n"
    return _IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def plain(text: str) -> str:
    """Return a text without what would steer a terminal or command a reader of logs."""
    return harmless(_CONTROL.sub("\ufffd", text))


def harmless(text: str) -> str:
    """Return a text in which no line is a command for a service that reads logs."""
    return _COLONS.sub("> ", _HASHES.sub("# #", text))


def tell_objects() -> None:
    """Write only JSON objects to standard error from now on, one per line."""
    global _objects  # noqa: PLW0603 - there is one per process
    _objects = True


def tells_objects() -> bool:
    """Tell whether only JSON objects are written to standard error."""
    return _objects


def tell_object(value: dict[str, Any]) -> None:
    """Write a JSON object to standard error, as one line."""
    _write_error(json_text(value, indent=None))


def tell(text: str, *, steering: bool = False) -> None:
    """Write a line to standard error; ``steering``: it may steer a terminal, with colours."""
    if _objects:
        tell_object({"event": "note", "text": plain(text)})
        return
    _write_error(_erased() + (harmless(text) if steering else plain(text)) + "\n")


def show_for_now(text: str) -> None:
    """Show what is being done, in a terminal, until the next line takes its place."""
    if _objects or sys.stderr is None or not sys.stderr.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        return
    shown = plain(" ".join(text.split()))
    width = shutil.get_terminal_size().columns - 1
    _write_error(_erased() + (shown if len(shown) <= width else f"{shown[: width - 1]}…"))
    _for_now.append(None)


def _erased() -> str:
    """Return what removes the line that is shown for now."""
    if not _for_now:
        return ""
    _for_now.clear()
    return "\r\x1b[K"


def _write_error(text: str) -> None:
    if sys.stderr is None:
        return
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except (OSError, ValueError):
        _lead_nowhere(sys.stderr)


def _lead_nowhere(stream: TextIO) -> None:
    """Have a stream that nobody reads any more swallow what comes, at exit too."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    except (OSError, ValueError):
        return
