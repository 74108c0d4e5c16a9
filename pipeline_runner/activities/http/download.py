"""``http.download``: a file from the web, put into place completely or not at all.

The data is collected in the step's record, or near the file (see ``kept.py``). The undo is therefore
that
of the file family, and a retry continues from the data that is there::

    part        the data so far
    part.json   its source: the URL, its strong ETag, the size

A retry requests the rest on the condition that the ETag is unchanged (RFC 9110, 13.1.5). ``part`` is
only ever appended to, and is put into place by one rename out of the record, which fails once an undo
has begun.

When it is certain that no attempt follows, because the error is final or the step was cancelled, the
activity undoes itself: a pipeline does not undo a step that failed.
"""

import fcntl
import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path as FilePath
from typing import Annotated, BinaryIO

import httpx
import msgspec
from msgspec import Meta
from temporalio.exceptions import ApplicationError

from pipeline_runner.activities.catalogue.undo import Undo
from pipeline_runner.activities.files.copying import remove_file, sync_folder
from pipeline_runner.activities.files.file import (
    AbsolutePath,
    Bytes,
    Path,
    Replaced,
    check_target,
    followed,
    named,
)
from pipeline_runner.activities.http.arriving import given_up_at_last, keep, seal
from pipeline_runner.activities.http.client import http_client, send
from pipeline_runner.activities.http.coding import is_packed, size_of, unpacked
from pipeline_runner.activities.http.request import (
    CONNECT_TIMEOUT,
    addressed,
    explain_request_errors,
    status_error,
)
from pipeline_runner.activities.toolkit.context import step_key
from pipeline_runner.activities.toolkit.errors import explain_errors, refused
from pipeline_runner.activities.toolkit.heartbeat import Heart, heartbeating, time_left
from pipeline_runner.activities.toolkit.parameters import Scalar, as_text, built_in, doc
from pipeline_runner.activities.toolkit.sizes import MIB
from pipeline_runner.activities.toolkit.threads import PATIENCE, in_thread
from pipeline_runner.core.model import Timeouts

STALLED = 30.0
"""Seconds without data after which the attempt fails, and is retried."""

_ERROR_BODY = 4096
_FOREVER = 2**62
_ABOUT_RANGES = {HTTPStatus.PARTIAL_CONTENT, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE}


@dataclass(frozen=True, kw_only=True)
class DownloadInput:
    """The file to download, and where to save it."""

    url: Annotated[str, doc("An http or https URL. Redirects are followed.", min_length=1)]
    path: Path
    headers: Annotated[dict[str, Scalar], doc("Request headers.")] = field(default_factory=dict)
    checksum: Annotated[
        Annotated[str, Meta(pattern=r"^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$(?!\n)")] | None,
        doc("The expected checksum: `sha256:` or `sha512:`, followed by lowercase hex digits."),
    ] = None
    max_bytes: Annotated[
        Annotated[int, Meta(ge=0)] | None,
        doc("The maximum size in bytes. A larger file fails the step. Default: no limit."),
    ] = None


@dataclass(frozen=True, kw_only=True)
class Downloaded:
    """The downloaded file."""

    path: AbsolutePath
    bytes: Bytes
    checksum: Annotated[
        str, doc("The file's checksum, by the algorithm of the given checksum, else `sha256:…`.")
    ]
    replaced: Replaced
    resumed: Annotated[int, doc("The number of bytes that earlier attempts had downloaded.")]


class _Source(msgspec.Struct, frozen=True, kw_only=True):
    """The source of a part."""

    url: str
    """Its SHA-256, because a URL may contain secrets."""
    etag: str
    total: int | None


@built_in(
    "http.download",
    timeouts=Timeouts(heartbeat=10.0),
    undo=Undo("file.restore", {"path": "{{ step.input.path }}", "key": "{{ step.key }}"}),
)
async def download(parameters: DownloadInput) -> Downloaded:
    """Download a file of any size. It appears only when it is complete and its checksum matches.

    A retry resumes the download if the server supports ranges and the ETag has not changed.
    Heartbeats report `done` and `total` in bytes. The undo removes the file, or restores the
    previous one.
    """
    target = followed(named(parameters.path))
    async with given_up_at_last(target), heartbeating() as heart:
        with explain_errors(f"write {target}"):
            return await _download(parameters, target, heart)


async def _download(parameters: DownloadInput, target: str, heart: Heart) -> Downloaded:
    addressed("GET", parameters.url)  # refuses a wrong URL before anything is created
    check_target(target)
    key = step_key()
    # Where the file system has no hard links, the old file is copied, which may take long.
    old, kept = await in_thread(lambda: keep(target, key), patience=time_left(PATIENCE))
    folder = os.path.dirname(target) if kept is None else kept.near
    part = os.path.join(folder, "part" if key else f".{os.path.basename(target)}.{secrets.token_hex(4)}.part")
    try:
        with _opened(part) as file:
            fetched = _Fetch(parameters, part, file, heart)
            await fetched.run()
            await in_thread(lambda: seal(file, old), patience=time_left(PATIENCE))
            fetched.forget()
            os.replace(part, target)
    finally:
        if key is None:
            remove_file(part)
    if kept is not None:
        kept.close()
    sync_folder(os.path.dirname(target))
    return Downloaded(
        path=target,
        bytes=fetched.done,
        checksum=fetched.checksum,
        replaced=old is not None,
        resumed=fetched.resumed,
    )


@contextmanager
def _opened(part: str) -> Iterator[BinaryIO]:
    """Open the part at its end. Nobody else can write to it in the meantime."""
    with os.fdopen(os.open(part, os.O_RDWR | os.O_CREAT, 0o666), "r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # That attempt has lost its server and does not know yet that it was given up.
            raise ApplicationError(
                "an earlier attempt is still writing the file", type="StillWriting"
            ) from None
        if not os.path.exists(part) or not os.path.samestat(os.fstat(file.fileno()), os.stat(part)):
            # It has just put its file into place: this is no longer a part.
            raise ApplicationError("an earlier attempt has just finished", type="StillWriting")
        file.seek(0, os.SEEK_END)
        yield file


class _Fetch:
    """An attempt to complete a part."""

    def __init__(self, parameters: DownloadInput, part: str, file: BinaryIO, heart: Heart) -> None:
        self._parameters = parameters
        self._url, self._what = addressed("GET", parameters.url)
        self._file, self._heart = file, heart
        self._note = FilePath(f"{part}.json")
        self._method = (parameters.checksum or "sha256").partition(":")[0]
        self._total: int | None = None
        self._hash = hashlib.new(self._method)
        self.done = 0
        """The size of the part, in bytes."""
        self.resumed = 0
        """The size of the data from earlier attempts, in bytes."""

    @property
    def checksum(self) -> str:
        """Return the checksum of the part, with the method's name in front."""
        return f"{self._method}:{self._hash.hexdigest()}"

    async def run(self) -> None:
        """Fetch what is missing, and flush it to the disk."""
        async with http_client(httpx.Timeout(STALLED, connect=CONNECT_TIMEOUT)) as client:
            with explain_request_errors(self._what):
                source = self._source()
                if source is None or not await self._ask(client, source):
                    await self._ask(client, None)
        self._check()
        self._file.flush()

    def _source(self) -> _Source | None:
        """Return the source of the part; None: there is nothing to continue from."""
        try:
            source = msgspec.json.decode(self._note.read_bytes(), type=_Source)
        except (FileNotFoundError, msgspec.DecodeError):
            return None
        return source if source.url == self._hidden_url and self._file.tell() else None

    @property
    def _hidden_url(self) -> str:
        return hashlib.sha256(str(self._url).encode()).hexdigest()

    def forget(self) -> None:
        """Remove the note about the source: the part is complete."""
        self._note.unlink(missing_ok=True)

    async def _ask(self, client: httpx.AsyncClient, source: _Source | None) -> bool:
        """Request the rest of the part, or all of it. Return False if there is no such rest."""
        headers = {name: as_text(value) for name, value in self._parameters.headers.items()}
        # Ranges and sizes count the bytes that are sent, which must be those of the file.
        headers["Accept-Encoding"] = "identity"
        if source is not None:
            # One byte at least, so that a complete part gets a response like any other.
            self._file.truncate(min(self._file.tell(), max((source.total or _FOREVER) - 1, 0)))
            start = self._file.seek(0, os.SEEK_END)
            headers |= {"Range": f"bytes={start}-", "If-Range": source.etag}
        try:
            request = client.build_request("GET", self._url, headers=headers)
        except (ValueError, TypeError):
            # From None: the cause shows the value.
            raise refused(f"{self._what}: a header is not plain ASCII text", "InvalidInput") from None
        response = await send(client, request, follow=True)
        try:
            if response.status_code == HTTPStatus.OK:
                self._start_over()
            elif source is not None and response.status_code in _ABOUT_RANGES:
                if not _goes_on(response, source, self._file.tell()):
                    return False
                await self._reread()
                self._total = source.total or _size_in(response)
            else:
                raise status_error(response, self._what, await _start_of(response))
            await self._take(response)
        finally:
            await response.aclose()
        return True

    async def _reread(self) -> None:
        """Add the data of earlier attempts to the checksum."""
        self._file.seek(0)
        while piece := await in_thread(lambda: self._file.read(4 * MIB)):
            self._add(piece)
        self.resumed = self.done

    async def _take(self, response: httpx.Response) -> None:
        encoded = is_packed(response)
        size = size_of(response)
        if size is not None and self._total is None:
            self._total = self.done + size
        self._limit(self._total or 0)
        etag = response.headers.get("etag", "")
        if etag.startswith('"') and not encoded and step_key() is not None:
            note = _Source(url=self._hidden_url, etag=etag, total=self._total)
            self._note.write_bytes(msgspec.json.encode(note))
        async for piece in unpacked(response):
            self._limit(self.done + len(piece))
            self._file.write(piece)
            self._add(piece)
        if self._total is not None and self.done != self._total:
            # A server may send less of a range than requested (RFC 9110, 15.3.7).
            message = f"{self._what}: received {self.done:,} of {self._total:,} bytes"
            raise ApplicationError(message, type="HttpConnectionError")

    def _add(self, piece: bytes) -> None:
        self._hash.update(piece)
        self.done += len(piece)
        self._heart.tell({"done": self.done, "total": self._total, "unit": "bytes"})

    def _limit(self, size: int) -> None:
        limit = self._parameters.max_bytes
        if limit is not None and size > limit:
            raise refused(
                f"{self._what}: the file is larger than {limit:,} bytes (max_bytes)", "FileTooLarge"
            )

    def _check(self) -> None:
        """Refuse a file that is not the expected one."""
        wanted = self._parameters.checksum
        if wanted is None or wanted == self.checksum:
            return
        message = f"{self._what}: the file's checksum is {self.checksum}, not {wanted}"
        resumed = self.resumed > 0
        self._start_over()
        # A file that was assembled wrongly may be correct in one piece; a file in one piece stays wrong.
        raise ApplicationError(message, type="ChecksumMismatch", non_retryable=not resumed)

    def _start_over(self) -> None:
        self._note.unlink(missing_ok=True)
        self._file.seek(0)
        self._file.truncate()
        self._hash = hashlib.new(self._method)
        self.done = self.resumed = 0
        self._total = None


def _goes_on(response: httpx.Response, source: _Source, start: int) -> bool:
    """Tell whether a response continues where the part ends. Not every server respects If-Range."""
    same = response.headers.get("etag") == source.etag
    return (
        response.status_code == HTTPStatus.PARTIAL_CONTENT
        and same
        and not is_packed(response)
        and _range_fits(response.headers.get("content-range", ""), start, source.total)
    )


_RANGE = re.compile(r"\s*bytes (\d+)-\d+/(\d+|\*)\s*")
"""A Content-Range: its start, and the size of the whole file if known."""


def _range_fits(text: str, start: int, total: int | None) -> bool:
    match = _RANGE.fullmatch(text)
    if match is None or int(match[1]) != start:
        return False
    return total is None or match[2] in {"*", str(total)}


def _size_in(response: httpx.Response) -> int | None:
    match = _RANGE.fullmatch(response.headers.get("content-range", ""))
    return int(match[2]) if match and match[2] != "*" else None


async def _start_of(response: httpx.Response) -> bytes:
    data = b""
    async for piece in unpacked(response):
        data += piece
        if len(data) >= _ERROR_BODY:
            break
    return data[:_ERROR_BODY]
