"""http.request with files: sent as a body or in a form, and answers that become files."""

import asyncio
import dataclasses
import email.message
import email.parser
import os
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from temporalio.activity import ActivityCancellationDetails
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from pipeline_runner.activities.files import file as files
from pipeline_runner.activities.files.kept import Kept
from pipeline_runner.activities.http.request import request
from pipeline_runner.activities.toolkit import heartbeat
from pipeline_runner.activities.toolkit.context import set_working_directory
from tests.rawserver import Connection, RawServer, ok

Run = Callable[..., Any]
NewEnvironment = Callable[..., ActivityEnvironment]

BODY = os.urandom(1_000_000)


def _failure(run: Run, **parameters: Any) -> ApplicationError:
    with pytest.raises(ApplicationError) as caught:
        run(request, **parameters)
    assert caught.value.__cause__ is None
    return caught.value


def _names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# Sent


def test_a_file_is_sent_as_it_is(
    environment: NewEnvironment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "_OFTEN", 0.0)
    (tmp_path / "app.bin").write_bytes(BODY)
    told: list[Any] = []
    env = environment()
    env.on_heartbeat = lambda *details: told.extend(details)
    with RawServer(lambda *_: ok()) as server:
        given = {"url": server.url, "method": "PUT", "file": str(tmp_path / "app.bin")}
        asyncio.run(env.run(cast("Any", request), given))
    _, _, headers, body = server.seen[0]
    assert body == BODY
    assert (headers["content-length"], headers["content-type"]) == ("1000000", "application/octet-stream")
    assert "transfer-encoding" not in headers
    assert told[0] == {"done": 1_000_000, "total": 1_000_000, "unit": "bytes"}


def test_a_relative_path_means_the_runs_directory(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    set_working_directory(str(tmp_path))
    try:
        with RawServer(lambda *_: ok(b"answer")) as server:
            headers = {"content-type": "application/json"}
            result = run(request, url=server.url, method="POST", file="a.json", headers=headers, save_as="b")
            run(request, url=server.url, method="POST", multipart={"part": {"file": "a.json"}})
    finally:
        set_working_directory(None)
    assert (server.seen[0][3], server.seen[0][2]["content-type"]) == (b"{}", "application/json")
    assert b"{}" in server.seen[1][3]
    assert result.saved["path"] == str(tmp_path / "b")
    assert (tmp_path / "b").read_text() == "answer"


def test_a_large_file_is_sent_in_pieces(run: Run, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(BODY * 3)
    with RawServer(lambda *_: ok()) as server:
        run(request, url=server.url, method="POST", file=str(tmp_path / "large"))
    assert server.seen[0][3] == BODY * 3


def test_an_empty_file_is_sent(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with RawServer(lambda *_: ok()) as server:
        run(request, url=server.url, method="POST", file=str(tmp_path / "empty"))
    assert (server.seen[0][2]["content-length"], server.seen[0][3]) == ("0", b"")


def test_each_attempt_opens_the_file_anew(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "file"
    with RawServer(lambda *_: ok(status="503 Busy")) as server:
        for text in ("first", "second, longer"):
            path.write_text(text)
            assert _failure(run, url=server.url, method="POST", file=str(path)).type == "HttpStatusError"
    assert [body for *_, body in server.seen] == [b"first", b"second, longer"]


def _form(seen: tuple[int, str, dict[str, str], bytes]) -> list[tuple[Any, ...]]:
    """Read a form with Python's own parser, which knows nothing of ours."""
    _, _, headers, body = seen
    whole = f"Content-Type: {headers['content-type']}\r\n\r\n".encode() + body
    parts = cast("list[email.message.Message]", email.parser.BytesParser().parsebytes(whole).get_payload())
    return [
        (
            part.get_param("name", header="content-disposition"),
            part.get_filename(),
            part.get_content_type(),
            part.get_payload(decode=True),
        )
        for part in parts
    ]


def test_a_form_has_values_and_files(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'{"a": 1}\r\n--x--\r\n')
    (tmp_path / "raw").write_bytes(BODY)
    given = {
        "name": "déjà",
        "n": [1, True, "a\r\nb"],
        'q"\r\nX: y': "quoted",
        "one": {"file": str(tmp_path / "a.json")},
        "more": [
            {"file": str(tmp_path / "raw")},
            {"file": str(tmp_path / "raw"), "filename": "été.png", "content_type": "image/x; q=1"},
        ],
    }
    with RawServer(lambda *_: ok()) as server:
        run(request, url=server.url, method="POST", multipart=given)
    assert int(server.seen[0][2]["content-length"]) == len(server.seen[0][3])
    *plain, one, first, second = _form(server.seen[0])
    assert [(name, filename, content) for name, filename, _, content in plain] == [
        ("name", None, "déjà".encode()),
        ("n", None, b"1"),
        ("n", None, b"true"),
        ("n", None, b"a\r\nb"),
        ("q%22%0D%0AX: y", None, b"quoted"),
    ]
    assert one == ("one", "a.json", "application/json", (tmp_path / "a.json").read_bytes())
    assert first == ("more", "raw", "application/octet-stream", BODY)
    assert second[2:] == ("image/x", BODY)
    assert 'filename="été.png"'.encode() in server.seen[0][3]


def test_what_cannot_be_sent_is_refused_before_anything_is_sent(run: Run, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with RawServer(lambda *_: ok()) as server:
        for name, kind in (("none", "FileNotFound"), ("", "IsADirectory"), ("pipe", "NotARegularFile")):
            path = str(tmp_path / name)
            for given in ({"file": path}, {"multipart": {"a": "b", "c": {"file": path}}}):
                error = _failure(run, url=server.url, method="POST", **given)
                assert (error.type, error.non_retryable) == (kind, True)
                assert str(tmp_path) in error.message
        for more in ({"json": 1}, {"body": "x"}, {"multipart": {"a": 1}}):
            error = _failure(run, url=server.url, method="POST", file="x", **more)
            assert error.message == "json, body, file and multipart are not allowed together: set one of them"
        bad = {"c": {"file": "x", "content_type": "a\r\nX: y"}}
        assert _failure(run, url=server.url, method="POST", multipart=bad).type == "InvalidInput"
        assert _failure(run, url=server.url, method="POST", multipart={"a": "\ud800"}).type == "InvalidInput"
    assert server.seen == []


def test_a_file_that_becomes_shorter_is_told(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(BODY)
    fstat = os.fstat

    def shorten(descriptor: int) -> os.stat_result:
        facts = fstat(descriptor)
        if facts.st_size == len(BODY):
            os.truncate(path, 1000)
        return facts

    monkeypatch.setattr(os, "fstat", shorten)
    with RawServer(lambda *_: ok()) as server:
        error = _failure(run, url=server.url, method="POST", file=str(path))
    assert (error.message, error.type) == (f"{path} became shorter while it was being sent", "FileChanged")
    assert not error.non_retryable


# Saved


@pytest.mark.parametrize("before", [None, "old"])
def test_an_answer_becomes_a_file_and_is_undone_like_one(
    run: Run, tmp_path: Path, key: str, before: str | None
) -> None:
    path = tmp_path / "answer"
    if before is not None:
        path.write_text(before)
        path.chmod(0o640)
    with RawServer(lambda *_: ok(BODY * 2, "Content-Type: application/json")) as server:
        result = run(request, url=server.url, method="POST", json=1, save_as=str(path))
    assert (result.body, result.encoding) == (None, "none")
    assert result.saved == {
        "path": str(path), "bytes": 2_000_000, "replaced": before is not None,
    }  # fmt: skip
    assert path.read_bytes() == BODY * 2
    if before is not None:
        assert path.stat().st_mode & 0o777 == 0o640
    run(files.restore, path=str(path), key=key)
    assert (path.read_text() if path.exists() else None) == before
    assert _names(tmp_path) == ([] if before is None else ["answer"])


def _cut(_: Connection, __: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nConnection: close\r\n\r\nonly this"


def _environment(environment: NewEnvironment, attempt: int) -> ActivityEnvironment:
    env = environment()
    policy = RetryPolicy(maximum_attempts=2, initial_interval=timedelta(seconds=1))
    env.info = dataclasses.replace(
        env.info, attempt=attempt, retry_policy=policy, schedule_to_close_timeout=None
    )
    return env


def test_an_answer_that_is_cut_off_changes_nothing(
    environment: NewEnvironment, tmp_path: Path, key: str
) -> None:
    path = tmp_path / "answer"
    path.write_text("old")
    with RawServer(_cut) as server:
        for attempt in (1, 2):
            env = _environment(environment, attempt)
            with pytest.raises(ApplicationError) as caught:
                asyncio.run(env.run(cast("Any", request), {"url": server.url, "save_as": str(path)}))
            assert caught.value.type == "HttpConnectionError"
            assert path.read_text() == "old"
            assert (Kept(str(path), key).find() is not None) == (attempt == 1)
    assert _names(tmp_path) == ["answer"]  # the last attempt has cleaned up


def test_a_bad_answer_is_not_saved(run: Run, tmp_path: Path, key: str) -> None:
    path = tmp_path / "answer"
    path.write_text("old")
    with RawServer(lambda *_: ok(b"no such thing", status="404 Not Found")) as server:
        error = _failure(run, url=server.url, save_as=str(path))
    assert error.message == f"GET {server.url}: status 404 Not Found: no such thing"
    assert (path.read_text(), _names(tmp_path)) == ("old", ["answer"])


def test_an_answer_that_has_no_place_is_refused_before_the_request(run: Run, tmp_path: Path) -> None:
    with RawServer(lambda *_: ok()) as server:
        error = _failure(run, url=server.url, method="POST", save_as=str(tmp_path / "none" / "answer"))
        assert error.type == "FileNotFound"
        assert _failure(run, url=server.url, method="POST", save_as=str(tmp_path)).type == "IsADirectory"
    assert server.seen == []


def test_a_cancelled_answer_leaves_nothing(
    environment: NewEnvironment, tmp_path: Path, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "_OFTEN", 0.0)
    path = tmp_path / "answer"
    path.write_text("old")
    hold = threading.Event()

    def answer(connection: Connection, _: bytes) -> bytes | None:
        connection.stream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nonly this")
        hold.wait(20)
        return None

    async def scenario() -> None:
        env = environment()
        env.on_heartbeat = lambda *details: arrived.set() if details else None
        arrived = asyncio.Event()
        task = asyncio.ensure_future(env.run(cast("Any", request), {"url": server.url, "save_as": str(path)}))
        await asyncio.wait_for(arrived.wait(), 20)
        env.cancel(ActivityCancellationDetails(cancel_requested=True))
        with pytest.raises(asyncio.CancelledError):
            await task

    with RawServer(answer) as server:
        try:
            asyncio.run(scenario())
        finally:
            hold.set()
    assert (path.read_text(), _names(tmp_path)) == ("old", ["answer"])
