"""The output of a command: results go to standard output, everything else to standard error.

Standard output is for JSON alone. Output of activities and modules would get there too, so the original
is kept aside, and file descriptor 1 leads to standard error. What cannot be written to standard error
is lost, and never ends a run.

Much of the output comes from elsewhere: names, outputs, errors. None of it may control the terminal, or
count as a command for the service that reads the log.
"""

import json
import os
import re
import shutil
import sys
from typing import Any, TextIO

_STEERING = "\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069"
"""Control characters beyond ASCII, line separators, and characters that change the direction of text."""
_CONTROL = re.compile(f"[\x00-\x08\x0b-\x1f{_STEERING}]")
# "##[error]" (GitHub, Azure), "##vso[" and "##teamcity[" are commands anywhere in a line.
_HASHES = re.compile(r"##(?=\w*\[)")
# "::error::" is a command at the start of a line, after any white space.
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
    """Keep standard output for :func:`result`, and redirect everything else that writes to it."""
    global _kept  # noqa: PLW0603 - there is one per process
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:  # our parent has closed it: no other file may get its number
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
        OutputError: It cannot be written. It is not an error if the reader has gone.
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
    """Return the width of standard output in columns; None: it is not a terminal."""
    stream = _kept or sys.stdout
    return shutil.get_terminal_size().columns if stream is not None and stream.isatty() else None


def result_json(value: Any) -> None:
    """Write a value to standard output, as JSON.

    Raises:
        OutputError: It cannot be written.
    """
    result(json_text(value))


def json_text(value: Any, *, indent: int | None = 2) -> str:
    """Return a value as JSON that cannot control a terminal, and is not a command for a reader of logs."""
    text = json.dumps(value, ensure_ascii=False, indent=indent) + "\n"
    return _IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def plain(text: str) -> str:
    """Return a string without parts that control a terminal or are commands for a reader of logs."""
    return harmless(_CONTROL.sub("\ufffd", text))


def harmless(text: str) -> str:
    """Return a string in which no line is a command for a service that reads logs."""
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
    """Write a line to standard error. ``steering``: it may control a terminal, for colours."""
    if _objects:
        tell_object({"event": "note", "text": plain(text)})
        return
    _write_error(_erased() + (harmless(text) if steering else plain(text)) + "\n")


def show_for_now(text: str) -> None:
    """Show the current activity in a terminal until the next line replaces it."""
    if _objects or sys.stderr is None or not sys.stderr.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        return
    shown = plain(" ".join(text.split()))
    width = shutil.get_terminal_size().columns - 1
    _write_error(_erased() + (shown if len(shown) <= width else f"{shown[: width - 1]}…"))
    _for_now.append(None)


def _erased() -> str:
    """Return the control sequence that removes the line of :func:`show_for_now`."""
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
    """Make a stream that nobody reads any more discard its output, also at exit."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    except (OSError, ValueError):
        return
