"""A client of the Python package ``docker`` that does not lose the beginning of an output.

The Engine answers the start of a command with headers, and then writes the command's output on the same
connection. Python's HTTP client reads the headers through a buffer. Output that has arrived together
with them stays in that buffer, and ``docker`` reads past it, from the socket: the output of a fast
command is lost. This client reads through the buffer.

Imports ``docker``: import this module when a client is needed.
"""

import struct
from collections.abc import Iterator
from typing import Any

from docker.api.client import APIClient
from docker.utils import kwargs_from_env

_HEADER = struct.Struct(">BxxxL")
"""Number of the stream and size of a frame, as documented in the Engine API for "attach"."""
_PIECE = 64 * 1024
_STDOUT = 1


class Client(APIClient):
    """A low-level client that reads the output of commands from its first byte."""

    def _read_from_socket(self, response: Any, stream: bool, tty: bool = True, demux: bool = False) -> Any:
        if not (stream and demux) or tty or self.base_url.startswith("http+docker://ssh"):
            return super()._read_from_socket(response, stream, tty, demux)  # type: ignore[misc]
        self._raise_for_status(response)  # type: ignore[attr-defined]
        reader = response.raw._fp.fp  # noqa: SLF001 - where `docker` itself gets its socket from
        # A command may be silent for any time.
        reader.raw._sock.settimeout(None)  # noqa: SLF001
        return _frames(reader)


def connect(timeout: int) -> Client:
    """Return a client for the Engine in the environment. ``timeout`` is in seconds without a byte."""
    return Client(version="auto", timeout=timeout, **kwargs_from_env())


def _frames(reader: Any) -> Iterator[tuple[bytes | None, bytes | None]]:
    """Yield pairs of standard output and standard error, one of them None, up to the end."""
    while len(header := reader.read(_HEADER.size)) == _HEADER.size:
        number, size = _HEADER.unpack(header)
        while size > 0 and (piece := reader.read1(min(size, _PIECE))):
            size -= len(piece)
            yield (piece, None) if number == _STDOUT else (None, piece)
