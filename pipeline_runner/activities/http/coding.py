"""Decompresses responses with a Content-Encoding piece by piece, and checks that they are complete.

httpx does not notice truncated data, and drops all members of a gzip file but the first. Only gzip and
deflate are requested. If a server uses another coding all the same, the data stays as it is.
"""

import zlib
from collections.abc import AsyncIterator

import httpx

CODINGS = "gzip, deflate"
"""The codings to request, as Accept-Encoding."""

_PIECE = 256 * 1024
"""Bytes at a time: a small compressed piece may become a thousand times as large."""
_GZIP, _ZLIB, _RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS


def is_packed(response: httpx.Response) -> bool:
    """Tell whether the body is compressed."""
    return bool(_codings(response))


def size_of(response: httpx.Response) -> int | None:
    """Return how many bytes are expected; None: not known."""
    length = response.headers.get("content-length", "")
    return int(length) if length.isascii() and length.isdigit() and not is_packed(response) else None


async def unpacked(response: httpx.Response) -> AsyncIterator[bytes]:
    """Yield the decompressed bytes of a response.

    Raises:
        httpx.DecodingError: The compressed data is truncated or not valid.
    """
    pieces = response.aiter_raw()
    codings = _codings(response)
    if set(codings) <= {"gzip", "deflate"}:
        for coding in reversed(codings):
            pieces = _unpack(pieces, coding)
    try:
        async for piece in pieces:
            yield piece
    except zlib.error as error:
        raise httpx.DecodingError(f"the compressed data is not valid: {error}") from None


def _codings(response: httpx.Response) -> list[str]:
    names = (name.strip().lower() for name in response.headers.get("content-encoding", "").split(","))
    return [name for name in names if name not in {"", "identity"}]


async def _unpack(pieces: AsyncIterator[bytes], coding: str) -> AsyncIterator[bytes]:
    member: zlib._Decompress | None = None  # gzip data may consist of several members
    async for rest in pieces:
        while rest:
            if member is None:
                rest = rest.lstrip(b"\0") if coding == "gzip" else rest  # noqa: PLW2901 - padding
                if not rest:
                    break
                member = _member(coding, rest)
            if data := member.decompress(rest, _PIECE):
                yield data
            rest = member.unconsumed_tail  # noqa: PLW2901
            if member.eof:
                rest, member = member.unused_data, None  # noqa: PLW2901
    while member is not None and not member.eof:
        data = member.decompress(b"", _PIECE)
        if not data and not member.eof:
            raise httpx.DecodingError(f"the {coding} data is incomplete")
        yield data


def _member(coding: str, start: bytes) -> "zlib._Decompress":
    if coding == "gzip":
        return zlib.decompressobj(_GZIP)
    # The standard requires a zlib header, but some servers omit it.
    return zlib.decompressobj(_ZLIB if start[0] & 0x0F == 8 else _RAW)
