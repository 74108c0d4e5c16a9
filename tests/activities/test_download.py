"""http.download against a real server on the loopback, which breaks off when it is told to."""

import asyncio
import dataclasses
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from pipeline_runner.activities.files import file as files
from pipeline_runner.activities.http import download as module
from pipeline_runner.activities.http.download import download
from tests.fileserver import PIECE, FileServer

BODY = os.urandom(3 * PIECE + 123)
SHA256 = "sha256:" + hashlib.sha256(BODY).hexdigest()

Run = Callable[..., Any]
NewEnvironment = Callable[..., ActivityEnvironment]


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer(BODY) as running:
        yield running


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "file.bin"


def attempt(environment: NewEnvironment, server: FileServer, target: Path, **more: Any) -> Any:
    """Return the coroutine of an attempt."""
    return environment().run(cast("Any", download), {"url": server.url, "path": str(target), **more})


def failure(run: Run, **parameters: Any) -> ApplicationError:
    with pytest.raises(ApplicationError) as caught:
        run(download, **parameters)
    assert caught.value.__cause__ is None
    return caught.value


def part_of(state: Path) -> Path:
    """Return the one part that there is."""
    (found,) = state.rglob("part")
    return found


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_file_is_fetched(run: Run, server: FileServer, target: Path) -> None:
    result = run(download, url=server.url, path=str(target))
    assert target.read_bytes() == BODY
    assert dataclasses.asdict(result) == {
        "path": str(target), "bytes": len(BODY), "checksum": SHA256, "replaced": False, "resumed": 0,
    }  # fmt: skip
    assert names(target.parent) == ["file.bin"]  # outside a pipeline nothing is kept


def test_an_empty_file_is_a_file(run: Run, server: FileServer, target: Path, key: str) -> None:
    server.body = b""
    assert run(download, url=server.url, path=str(target)).bytes == 0
    assert target.read_bytes() == b""


@pytest.mark.parametrize("before", [None, "old"])
def test_the_undo_brings_back_what_was_there(
    run: Run, server: FileServer, target: Path, key: str, before: str | None
) -> None:
    if before is not None:
        target.write_text(before)
        target.chmod(0o640)
    result = run(download, url=server.url, path=str(target), checksum=SHA256)
    assert target.read_bytes() == BODY
    assert result.replaced == (before is not None)
    if before is not None:
        assert target.stat().st_mode & 0o777 == 0o640
    run(files.restore, path=str(target), key=key)
    assert (target.read_text() if target.exists() else None) == before
    assert names(target.parent) == ([] if before is None else ["file.bin"])


def test_a_retry_goes_on_from_what_is_there(
    run: Run, server: FileServer, target: Path, key: str, state: Path
) -> None:
    server.breaks = [PIECE, 2 * PIECE - 50]
    for there in (PIECE, 3 * PIECE - 50):
        error = failure(run, url=server.url, path=str(target), checksum=SHA256)
        assert (error.type, error.non_retryable) == ("HttpConnectionError", False)
        assert error.message.startswith(f"GET {server.url}: peer closed connection")
        assert not target.exists()
        assert part_of(state).stat().st_size == there
    result = run(download, url=server.url, path=str(target), checksum=SHA256)
    assert target.read_bytes() == BODY
    assert (result.resumed, result.checksum) == (3 * PIECE - 50, SHA256)
    assert server.seen == [None, f"bytes={PIECE}-", f"bytes={3 * PIECE - 50}-"]


@pytest.mark.parametrize(
    ("etag", "ranges", "asked"),
    [
        ('"v2"', True, f"bytes={PIECE}-"),  # another file by now
        ('"v1"', False, f"bytes={PIECE}-"),  # a server that does not do ranges
    ],
)
def test_a_retry_starts_over_where_it_has_to(
    run: Run, server: FileServer, target: Path, key: str, etag: str, ranges: bool, asked: str
) -> None:
    server.breaks = [PIECE]
    failure(run, url=server.url, path=str(target))
    server.etag, server.ranges = etag, ranges
    result = run(download, url=server.url, path=str(target), checksum=SHA256)
    assert (result.resumed, target.read_bytes()) == (0, BODY)
    assert server.seen == [None, asked]


@pytest.mark.parametrize("etag", ["", 'W/"v1"'])
def test_without_a_strong_etag_nothing_is_put_together(
    run: Run, server: FileServer, target: Path, key: str, etag: str
) -> None:
    server.etag, server.breaks = etag, [PIECE]
    failure(run, url=server.url, path=str(target))
    assert run(download, url=server.url, path=str(target)).resumed == 0
    assert server.seen == [None, None]


def test_a_server_that_sends_less_than_it_was_asked_for(
    run: Run, server: FileServer, target: Path, key: str
) -> None:
    """It may (RFC 9110, 15.3.7): the file is not whole then."""
    server.breaks, server.short = [PIECE], [1000]
    failure(run, url=server.url, path=str(target))
    error = failure(run, url=server.url, path=str(target))
    assert (error.type, error.non_retryable) == ("HttpConnectionError", False)
    assert error.message == f"GET {server.url}: received {PIECE + 1000:,} of {len(BODY):,} bytes"
    assert not target.exists()
    result = run(download, url=server.url, path=str(target))
    assert (result.resumed, target.read_bytes()) == (PIECE + 1000, BODY)


def test_the_size_is_learnt_from_the_range(
    run: Run, server: FileServer, target: Path, key: str, state: Path
) -> None:
    """The first answer did not say how large the file is, and the next is short."""
    server.breaks, server.short = [PIECE], [1000]
    failure(run, url=server.url, path=str(target))
    (note,) = state.rglob("part.json")
    note.write_text(json.dumps({**json.loads(note.read_text()), "total": None}))
    assert failure(run, url=server.url, path=str(target)).message.endswith(f" of {len(BODY):,} bytes")
    assert not target.exists()


def test_the_url_is_not_kept(run: Run, server: FileServer, target: Path, key: str, state: Path) -> None:
    """It may hold what is secret, and kept folders stay for a while."""
    url = f"{server.url}?signature=hidden-away"
    server.breaks = [PIECE]
    failure(run, url=url, path=str(target))
    notes = [path.read_bytes() for path in state.rglob("*.json")]
    assert len(notes) == 2  # the kept file's record, and the part's
    assert not any(b"hidden-away" in note for note in notes)
    assert run(download, url=url, path=str(target)).resumed == PIECE
    assert [path.name for path in state.rglob("*.json")] == ["record.json"]


def test_a_part_that_was_put_in_place_is_let_go(
    run: Run, server: FileServer, target: Path, key: str, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An earlier attempt ends between the opening of the part and its lock."""
    server.breaks = [PIECE]
    failure(run, url=server.url, path=str(target))
    lock = fcntl.flock

    def late(file: Any, how: int) -> None:
        part = part_of(state)
        part.write_bytes(b"whole")
        part.rename(target)
        lock(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    error = failure(run, url=server.url, path=str(target))
    assert (error.type, error.message) == ("StillWriting", "an earlier attempt has just finished")
    assert target.read_bytes() == b"whole"


def test_another_url_is_another_file(run: Run, server: FileServer, target: Path, key: str) -> None:
    server.breaks = [PIECE]
    failure(run, url=server.url, path=str(target))
    assert run(download, url=f"{server.url}-2", path=str(target)).resumed == 0
    assert server.seen == [None, None]


def test_a_part_that_is_whole_is_not_fetched_again(
    run: Run, server: FileServer, target: Path, key: str, state: Path
) -> None:
    """The attempt died between the last byte and the rename."""
    server.breaks = [PIECE]
    failure(run, url=server.url, path=str(target))
    part_of(state).write_bytes(BODY)
    result = run(download, url=server.url, path=str(target), checksum=SHA256)
    assert (result.resumed, target.read_bytes()) == (len(BODY) - 1, BODY)
    assert server.seen == [None, f"bytes={len(BODY) - 1}-"]


def test_a_file_that_shrank_is_fetched_whole(run: Run, server: FileServer, target: Path, key: str) -> None:
    """Its server says 416, or calls the same ETag another file."""
    server.breaks = [2 * PIECE]
    failure(run, url=server.url, path=str(target))
    server.body = BODY[:PIECE]
    assert run(download, url=server.url, path=str(target)).resumed == 0
    assert target.read_bytes() == BODY[:PIECE]


def test_a_wrong_checksum_leaves_nothing(run: Run, server: FileServer, target: Path, key: str) -> None:
    target.write_text("old")
    error = failure(run, url=server.url, path=str(target), checksum="sha256:" + "0" * 64)
    assert (error.type, error.non_retryable) == ("ChecksumMismatch", True)
    assert error.message == f"GET {server.url}: the file's checksum is {SHA256}, not sha256:{'0' * 64}"
    assert (names(target.parent), target.read_text()) == (["file.bin"], "old")


def test_a_part_that_went_bad_is_fetched_again(
    run: Run, server: FileServer, target: Path, key: str, state: Path
) -> None:
    server.breaks = [PIECE]
    failure(run, url=server.url, path=str(target))
    part_of(state).write_bytes(b"x" * PIECE)
    error = failure(run, url=server.url, path=str(target), checksum=SHA256)
    assert (error.type, error.non_retryable) == ("ChecksumMismatch", False)
    assert run(download, url=server.url, path=str(target), checksum=SHA256).resumed == 0
    assert target.read_bytes() == BODY


def test_another_checksum(run: Run, server: FileServer, target: Path) -> None:
    wanted = "sha512:" + hashlib.sha512(BODY).hexdigest()
    assert run(download, url=server.url, path=str(target), checksum=wanted).checksum == wanted


@pytest.mark.parametrize(("status", "final"), [(404, True), (503, False)])
def test_a_bad_status(run: Run, server: FileServer, target: Path, key: str, status: int, final: bool) -> None:
    server.status = status
    error = failure(run, url=server.url, path=str(target))
    assert (error.type, error.non_retryable) == ("HttpStatusError", final)
    assert error.message.startswith(f"GET {server.url}: status {status} ")
    assert error.message.endswith(": gone")
    if final:
        assert names(target.parent) == []


def test_a_file_over_the_limit_is_refused(run: Run, server: FileServer, target: Path, key: str) -> None:
    error = failure(run, url=server.url, path=str(target), max_bytes=PIECE)
    assert (error.type, error.non_retryable) == ("FileTooLarge", True)
    assert error.message == f"GET {server.url}: the file is larger than 65,536 bytes (max_bytes)"
    assert names(target.parent) == []
    assert run(download, url=server.url, path=str(target), max_bytes=len(BODY)).bytes == len(BODY)


def test_mistakes_are_refused_before_anything_is_asked(
    run: Run, server: FileServer, tmp_path: Path, key: str
) -> None:
    assert failure(run, url="ftp://x/y", path=str(tmp_path / "f")).type == "InvalidUrl"
    assert failure(run, url=server.url, path=str(tmp_path)).type == "IsADirectory"
    assert failure(run, url=server.url, path=str(tmp_path / "no/f")).type == "FileNotFound"
    for checksum in ("sha256:xyz", f"{SHA256}\n"):
        refused = failure(run, url=server.url, path=str(tmp_path / "f"), checksum=checksum)
        assert refused.type == "InvalidInput"
    assert (server.seen, names(tmp_path)) == ([], [])


def test_no_server(run: Run, tmp_path: Path, key: str) -> None:
    with FileServer(b"") as gone:
        url = gone.url
    error = failure(run, url=url, path=str(tmp_path / "f"))
    assert (error.type, error.non_retryable) == ("HttpConnectionError", False)
    assert error.message == f"GET {url}: connection refused"


def test_a_server_that_stalls_is_given_up(
    run: Run, server: FileServer, target: Path, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STALLED", 0.2)
    server.hold.set()
    error = failure(run, url=server.url, path=str(target))
    assert (error.type, error.message) == (
        "HttpConnectionError",
        f"GET {server.url}: the server sent no data for too long",
    )


def test_progress_is_told(
    environment: NewEnvironment, server: FileServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline_runner.activities.toolkit.heartbeat._OFTEN", 0.0)
    told: list[Any] = []
    env = environment()
    env.on_heartbeat = lambda *details: told.extend(details)
    asyncio.run(attempt(lambda: env, server, target))
    assert told[-1] == {"done": len(BODY), "total": len(BODY), "unit": "bytes"}
    assert [one["done"] for one in told] == sorted(one["done"] for one in told)


def test_the_last_attempt_cleans_up(
    environment: NewEnvironment, server: FileServer, target: Path, key: str, state: Path
) -> None:
    """A step that failed is not undone: what it fetched would stay."""
    from temporalio.common import RetryPolicy

    soon = RetryPolicy(initial_interval=timedelta(seconds=3))
    for policy, limit, left in ((soon, 60, True), (soon, 2, False)):
        server.breaks = [PIECE]
        env = environment()
        env.info = dataclasses.replace(
            env.info,
            retry_policy=policy,
            scheduled_time=datetime.now(UTC),
            schedule_to_close_timeout=timedelta(seconds=limit),
        )
        with pytest.raises(ApplicationError):
            asyncio.run(attempt(lambda env=env: env, server, target))
        assert bool(list(state.rglob("part"))) == left
    for number, left in ((1, True), (2, False)):
        server.breaks = [PIECE]
        env = environment()
        policy = RetryPolicy(maximum_attempts=2)
        env.info = dataclasses.replace(
            env.info, attempt=number, retry_policy=policy, schedule_to_close_timeout=None
        )
        with pytest.raises(ApplicationError):
            asyncio.run(attempt(lambda env=env: env, server, target))
        assert bool(list(state.rglob("part"))) == left


@pytest.mark.parametrize("asked", [True, False], ids=["the step", "the worker"])
def test_a_cancelled_download_stops_at_once(
    environment: NewEnvironment, server: FileServer, target: Path, key: str, state: Path, asked: bool
) -> None:
    """Cancelled, it leaves nothing; where the worker stops, the next attempt goes on with the part."""
    from temporalio.activity import ActivityCancellationDetails

    server.breaks, server.pause = [], 0.05
    env = environment()

    async def cancelled() -> float:
        task = asyncio.create_task(attempt(lambda: env, server, target))
        while not server.seen:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.08)
        began = time.monotonic()
        env.cancel(ActivityCancellationDetails(cancel_requested=asked, worker_shutdown=not asked))
        with pytest.raises(asyncio.CancelledError):
            await task
        return time.monotonic() - began

    assert asyncio.run(cancelled()) < 0.5
    assert bool(list(state.rglob("part"))) != asked
    server.pause = 0.0
    result = asyncio.run(attempt(environment, server, target, checksum=SHA256))
    assert (result.resumed > 0) != asked


def test_an_undo_stops_an_attempt_that_still_runs(
    environment: NewEnvironment, run: Run, server: FileServer, target: Path, key: str
) -> None:
    """The worker lost its server: the step counts as timed out, and is being undone."""
    server.hold.set()

    async def late() -> None:
        task = asyncio.create_task(attempt(environment, server, target))
        while not server.seen:
            await asyncio.sleep(0.01)
        await asyncio.to_thread(run, files.restore, path=str(target), key=key)
        server.hold.clear()
        with pytest.raises(ApplicationError, match="no such file or directory"):
            await task

    asyncio.run(late())
    assert names(target.parent) == []


def test_two_attempts_do_not_write_at_once(
    environment: NewEnvironment, run: Run, server: FileServer, target: Path, key: str
) -> None:
    server.hold.set()

    async def both() -> None:
        first = asyncio.create_task(attempt(environment, server, target))
        while not server.seen:
            await asyncio.sleep(0.01)
        with pytest.raises(ApplicationError) as caught:
            await attempt(environment, server, target)
        assert (caught.value.type, caught.value.non_retryable) == ("StillWriting", False)
        server.hold.clear()
        await first

    asyncio.run(both())
    assert target.read_bytes() == BODY
