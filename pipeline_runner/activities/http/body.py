"""Request bodies from files: a file itself, or a form with files (RFC 7578).

Files are read piece by piece while they are sent, and each attempt opens them again.
"""

import mimetypes
import os
import secrets
import stat
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Annotated, BinaryIO

import httpx
from msgspec import Meta
from temporalio.exceptions import ApplicationError

from pipeline_runner.activities.files.file import PATH
from pipeline_runner.activities.toolkit.context import absolute
from pipeline_runner.activities.toolkit.errors import explain_errors, refused
from pipeline_runner.activities.toolkit.heartbeat import Heart
from pipeline_runner.activities.toolkit.parameters import Scalar, as_text, doc
from pipeline_runner.activities.toolkit.threads import in_thread

OCTETS = "application/octet-stream"
_PIECE = 1024 * 1024
_LINE = r"^[^\x00-\x1f\x7f]+$(?!\n)"
"""The value of a header, as a regular expression for JSON Schema."""


@dataclass(frozen=True, kw_only=True)
class FilePart:
    """A file in a form."""

    file: Annotated[str, doc("The file. Relative paths are relative to the run's directory.", pattern=PATH)]
    filename: Annotated[
        Annotated[str, Meta(pattern=_LINE)] | None,
        doc("The name to send to the server. Default: the file's name."),
    ] = None
    content_type: Annotated[
        Annotated[str, Meta(pattern=r"^[!-:<-~]+(; ?[!-:<-~]+)*$(?!\n)")] | None,
        doc("The media type. Default: guessed from the file name's extension."),
    ] = None


Part = Scalar | FilePart


class Body(httpx.AsyncByteStream):
    """The bytes of a request, from memory and from files."""

    def __init__(self, heart: Heart) -> None:
        """Create an empty body."""
        self._heart = heart
        self._segments: list[bytes | _File] = []
        self.length = 0

    def add(self, segment: "bytes | _File") -> None:
        """Add the bytes to send next."""
        self._segments.append(segment)
        self.length += len(segment) if isinstance(segment, bytes) else segment.size

    async def __aiter__(self) -> AsyncIterator[bytes]:
        done = 0
        for segment in self._segments:
            async for piece in _pieces(segment):
                yield piece
                done += len(piece)
                self._heart.tell({"done": done, "total": self.length, "unit": "bytes"})


class _File:
    """An open file. What is appended to it later is not sent."""

    def __init__(self, path: str, files: ExitStack) -> None:
        self.path = os.path.realpath(absolute(path))
        with explain_errors(f"read {self.path}"):
            # Opened without waiting for the other end of a named pipe.
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            self.file: BinaryIO = files.enter_context(os.fdopen(descriptor, "rb"))
            facts = os.fstat(descriptor)
        if stat.S_ISDIR(facts.st_mode):
            raise refused(f"{self.path} is a directory, not a file", "IsADirectory")
        if not stat.S_ISREG(facts.st_mode):
            raise refused(f"{self.path} is not a regular file", "NotARegularFile")
        self.size = facts.st_size

    def read(self, at: int) -> bytes:
        with explain_errors(f"read {self.path}"):
            self.file.seek(at)
            return self.file.read(min(_PIECE, self.size - at))


async def _pieces(segment: bytes | _File) -> AsyncIterator[bytes]:
    if isinstance(segment, bytes):
        yield segment
        return
    done = 0
    while done < segment.size:
        piece = await in_thread(lambda: segment.read(done))  # noqa: B023 - awaited at once
        if not piece:
            raise ApplicationError(
                f"{segment.path} became shorter while it was being sent", type="FileChanged"
            )
        yield piece
        done += len(piece)


def of_file(path: str, files: ExitStack, heart: Heart) -> Body:
    """Return a body with the content of a file.

    Args:
        path: The file.
        files: Closes it.
        heart: Receives the progress.

    Raises:
        ApplicationError: It cannot be read.
    """
    body = Body(heart)
    body.add(_File(path, files))
    return body


def of_form(parts: dict[str, Part | list[Part]], files: ExitStack, heart: Heart) -> tuple[Body, str]:
    """Return a body with a form, and its media type.

    Args:
        parts: The form's fields.
        files: Closes the files.
        heart: Receives the progress.

    Raises:
        ApplicationError: A file cannot be read.
    """
    boundary, body = secrets.token_hex(16), Body(heart)
    for name, values in parts.items():
        for value in values if isinstance(values, list) else [values]:
            head = f'--{boundary}\r\nContent-Disposition: form-data; name="{_quoted(name)}"'
            if isinstance(value, FilePart):
                filename = value.filename or os.path.basename(value.file)
                kind = value.content_type or mimetypes.guess_type(filename)[0] or OCTETS
                head += f'; filename="{_quoted(filename)}"\r\nContent-Type: {kind}'
                content: bytes | _File = _File(value.file, files)
            else:
                content = _encoded(as_text(value))
            for segment in (_encoded(head + "\r\n\r\n"), content, b"\r\n"):
                body.add(segment)
    body.add(f"--{boundary}--\r\n".encode())
    return body, f"multipart/form-data; boundary={boundary}"


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        # Half of a surrogate pair. From None: the error contains the whole string.
        raise refused("the form is not valid Unicode", "InvalidInput") from None


def _quoted(name: str) -> str:
    """Quote a name as browsers do."""
    return name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
