"""Answers that the server packs: whole, cut off, and in several members."""

import gzip
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError

from pipeline_runner.activities.http.download import download
from pipeline_runner.activities.http.request import request
from tests.rawserver import RawServer, ok

Run = Callable[..., Any]

TEXT = "".join(f"{number}\n" for number in range(20_000))


def _raw(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


PACKED = {
    "gzip": gzip.compress(TEXT.encode(), mtime=0),
    "deflate": zlib.compress(TEXT.encode()),
    "Deflate": _raw(TEXT.encode()),
    "gzip, deflate": zlib.compress(gzip.compress(TEXT.encode(), mtime=0)),
    "deflate, gzip, identity": gzip.compress(_raw(TEXT.encode())),
}


def _without_length(body: bytes, coding: str) -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\nConnection: close\r\n\r\n".encode() + body


@pytest.mark.parametrize("coding", PACKED)
def test_packed_answers_are_unpacked(run: Run, tmp_path: Path, coding: str) -> None:
    with RawServer(lambda *_: ok(PACKED[coding], f"Content-Encoding: {coding}")) as server:
        assert run(request, url=server.url).body == TEXT
        result = run(download, url=server.url, path=str(tmp_path / "got"))
        assert server.seen[0][2]["accept-encoding"] == "gzip, deflate"
    assert (result.bytes, (tmp_path / "got").read_text()) == (len(TEXT), TEXT)


@pytest.mark.parametrize("share", [0.0001, 0.5, 0.9999])
@pytest.mark.parametrize("coding", PACKED)
@pytest.mark.parametrize("activity", [request, download])
def test_what_is_cut_off_is_an_error(
    run: Run, tmp_path: Path, activity: Any, coding: str, share: float
) -> None:
    packed = PACKED[coding]
    body = packed[: max(1, int(len(packed) * share))]
    path = {"path": str(tmp_path / "got")} if activity is download else {}
    for answer in (ok(body, f"Content-Encoding: {coding}"), _without_length(body, coding)):
        with RawServer(lambda *_, answer=answer: answer) as server, pytest.raises(ApplicationError) as caught:
            run(activity, url=server.url, **path)
        assert (caught.value.type, caught.value.non_retryable) == ("HttpConnectionError", False)
        assert caught.value.message.startswith(f"GET {server.url}: the ")
        assert caught.value.message.endswith(" data is incomplete")
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (gzip.compress(b"first\n", mtime=0) + gzip.compress(b"second\n", mtime=0), "first\nsecond\n"),
        (
            gzip.compress(b"first\n", mtime=0)
            + gzip.compress(b"", mtime=0)
            + gzip.compress(b"second\n", mtime=0),
            "first\nsecond\n",
        ),
        (gzip.compress(b"padded\n", mtime=0) + bytes(512), "padded\n"),
        (gzip.compress(b"a" * 300_000, mtime=0) + gzip.compress(b"b", mtime=0), "a" * 300_000 + "b"),
        (b"", None),
    ],
)
def test_all_members_are_read(run: Run, tmp_path: Path, body: bytes, text: str | None) -> None:
    with RawServer(lambda *_: ok(body, "Content-Encoding: gzip")) as server:
        assert run(request, url=server.url).body == text
        run(download, url=server.url, path=str(tmp_path / "got"))
    assert (tmp_path / "got").read_text() == (text or "")


@pytest.mark.parametrize(
    "body",
    [
        b"this is plain",
        PACKED["gzip"][:500] + b"broken" + PACKED["gzip"][506:],
        PACKED["gzip"] + b"garbage",
        PACKED["gzip"] + PACKED["gzip"][:300],
    ],
)
def test_what_is_broken_is_an_error(run: Run, body: bytes) -> None:
    with (
        RawServer(lambda *_: ok(body, "Content-Encoding: gzip")) as server,
        pytest.raises(ApplicationError) as caught,
    ):
        run(request, url=server.url)
    assert (caught.value.type, caught.value.non_retryable) == ("HttpConnectionError", False)


@pytest.mark.parametrize("coding", ["x-gzip", "br", "zstd", "gzip, br"])
def test_other_codings_stay_as_they_are(run: Run, tmp_path: Path, coding: str) -> None:
    with RawServer(lambda *_: ok(b"\xff\x00", f"Content-Encoding: {coding}")) as server:
        assert run(request, url=server.url).body == "/wA="
        run(download, url=server.url, path=str(tmp_path / "got"))
    assert (tmp_path / "got").read_bytes() == b"\xff\x00"


def test_an_answer_without_a_body_is_not_cut_off(run: Run) -> None:
    with RawServer(lambda *_: ok(b"", "Content-Encoding: gzip")) as server:
        assert run(request, url=server.url, method="HEAD").status == 200
