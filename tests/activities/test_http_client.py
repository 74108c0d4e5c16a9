"""What requests share, and what not: connections, cookies, secrets on the way to another host."""

import asyncio
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from pipeline_runner.activities.http import client as web_client
from pipeline_runner.activities.http import environment as web_environment
from pipeline_runner.activities.http.client import shared_connections
from pipeline_runner.activities.http.download import download
from pipeline_runner.activities.http.request import request
from pipeline_runner.activities.toolkit.secret_values import in_use
from tests.rawserver import Connection, RawServer, ok

Run = Callable[..., Any]
NewEnvironment = Callable[..., ActivityEnvironment]


@pytest.fixture
def attempts(environment: NewEnvironment) -> Callable[..., list[Any]]:
    """Make attempts one after the other, as a worker does."""

    def run(*inputs: dict[str, Any], activity: Any = request) -> list[Any]:
        async def all_of_them() -> list[Any]:
            async with shared_connections():
                return [await environment().run(activity, given) for given in inputs]

        return asyncio.run(all_of_them())

    return run


@pytest.fixture
def secret() -> Iterator[str]:
    """Have the step use a secret."""
    token = in_use.set(("t0psecret",))
    yield "t0psecret"
    in_use.reset(token)


def test_a_worker_keeps_its_connections(attempts: Any, tmp_path: Path) -> None:
    with RawServer(lambda *_: ok(b"fine")) as server:
        got = attempts(*[{"url": server.url}] * 3, {"url": server.url, "method": "OPTIONS"})
        assert [one.body for one in got] == ["fine"] * 4
        assert server.opened == 1
        assert server.closed.acquire(timeout=10)  # with the worker
        attempts(*[{"url": server.url, "path": str(tmp_path / "f")}] * 2, activity=download)
        assert server.opened == 2


def test_without_a_worker_nothing_is_kept(run: Run) -> None:
    with RawServer(lambda *_: ok()) as server:
        for number in (1, 2):
            run(request, url=server.url)
            assert server.opened == number
            assert server.closed.acquire(timeout=10)


def test_connections_stay_until_the_last_worker_leaves(environment: NewEnvironment) -> None:
    async def scenario(url: str) -> None:
        async with shared_connections():
            async with shared_connections():
                await environment().run(cast("Any", request), {"url": url})
            await environment().run(cast("Any", request), {"url": url})

    with RawServer(lambda *_: ok()) as server:
        asyncio.run(scenario(server.url))
        assert server.opened == 1
    assert web_client._shared == {}


@pytest.mark.parametrize("activity", [request, download])
def test_certificates_are_read_once(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, activity: Any
) -> None:
    made: list[ssl.SSLContext] = []
    make = ssl.create_default_context

    def counted(**given: Any) -> ssl.SSLContext:
        made.append(make(**given))
        return made[-1]

    monkeypatch.setattr(ssl, "create_default_context", counted)
    web_environment._environment.cache_clear()
    web_environment._tls.cache_clear()
    path = {"path": str(tmp_path / "file")} if activity is download else {}
    with RawServer(lambda *_: ok()) as server:
        for _ in range(3):
            run(activity, url=server.url, **path)
    assert len(made) == 1


def test_cookies_are_not_handed_from_one_step_to_another(attempts: Any) -> None:
    with RawServer(lambda *_: ok(b"", "Set-Cookie: session=1; Path=/")) as server:
        attempts(*[{"url": server.url}] * 2)
    assert [headers.get("cookie") for _, _, headers, _ in server.seen] == [None, None]


def test_cookies_are_kept_on_the_way_of_one_request(run: Run) -> None:
    def answer(_: Connection, head: bytes) -> bytes:
        if b"GET /there" in head:
            return ok()
        return ok(b"on", "Set-Cookie: session=1; Path=/", "Location: /there", status="302 Found")

    with RawServer(answer) as server:
        run(request, url=server.url)
    assert [(number, headers.get("cookie")) for number, _, headers, _ in server.seen] == [
        (1, None), (1, "session=1"),
    ]  # fmt: skip


def test_credentials_of_one_url_are_not_sent_for_another(attempts: Any) -> None:
    with RawServer(lambda *_: ok()) as server:
        attempts({"url": server.url.replace("http://", "http://me:word@")}, {"url": server.url})
    assert ["authorization" in headers for _, _, headers, _ in server.seen] == [True, False]


# Connections that the server has closed


def _dies_on_the_second(connection: Connection, _: bytes) -> bytes | None:
    return ok(b"fine") if connection.requests == 1 else None


def test_a_dead_connection_does_not_fail_a_request(attempts: Any) -> None:
    with RawServer(_dies_on_the_second) as server:
        got = attempts(*[{"url": server.url}] * 2)
    assert [one.body for one in got] == ["fine", "fine"]
    assert [number for number, *_ in server.seen] == [1, 1, 2]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_what_changes_something_is_sent_once_on_a_new_connection(attempts: Any, method: str) -> None:
    with RawServer(_dies_on_the_second) as server:
        get, change = {"url": server.url}, {"url": server.url, "method": method, "body": "x"}
        got = attempts(get, change, change, get)
    assert [one.body for one in got] == ["fine"] * 4
    assert [(number, line.split()[0]) for number, line, *_ in server.seen] == [
        (1, "GET"), (2, method), (3, method), (1, "GET"), (4, "GET"),
    ]  # fmt: skip


def test_a_new_connection_that_dies_is_not_tried_twice(attempts: Any) -> None:
    with RawServer(lambda *_: None) as server, pytest.raises(ApplicationError) as caught:
        attempts({"url": server.url})
    assert (caught.value.type, len(server.seen)) == ("HttpConnectionError", 1)


def test_a_cancelled_request_leaves_its_connection_to_nobody(environment: NewEnvironment) -> None:
    asked = threading.Event()
    ended = threading.Event()

    def answer(connection: Connection, _: bytes) -> bytes | None:
        if connection.number > 1:
            return ok(b"fine")
        asked.set()
        assert connection.stream.recv(1) == b""  # the client hangs up
        ended.set()
        return None

    async def scenario() -> Any:
        async with shared_connections():
            env = environment()
            task = asyncio.ensure_future(env.run(cast("Any", request), {"url": server.url}))
            assert await asyncio.to_thread(asked.wait, 10)
            env.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(ended.wait, 10)
            return await environment().run(cast("Any", request), {"url": server.url})

    with RawServer(answer) as server:
        assert asyncio.run(scenario()).body == "fine"


def test_more_requests_than_kept_connections_run_at_the_same_time(environment: NewEnvironment) -> None:
    """A worker's slots limit them, and nothing else."""
    number = 120
    together = threading.Barrier(number)

    def answer(*_: Any) -> bytes:
        together.wait(timeout=20)
        return ok(b"fine")

    async def scenario() -> None:
        async with shared_connections():
            calls = [environment().run(cast("Any", request), {"url": server.url}) for _ in range(number)]
            assert {one.body for one in await asyncio.gather(*calls)} == {"fine"}

    with RawServer(answer) as server:
        asyncio.run(scenario())


# Secrets and redirects

HEADERS = {
    "Authorization": "Bearer t0psecret",
    "Private-Token": "t0psecret",
    "X-Key": "k=t0psecret",
    "X-Plain": "p",
}


def _leads(to: Callable[[], str]) -> Callable[[Connection, bytes], bytes]:
    def answer(_: Connection, head: bytes) -> bytes:
        if b" /seen" in head:
            return ok(b"seen")
        return ok(b"", f"Location: {to()}", status="302 Found")

    return answer


@pytest.mark.parametrize("activity", [request, download])
def test_another_origin_gets_no_header_that_holds_a_secret(
    run: Run, tmp_path: Path, secret: str, activity: Any
) -> None:
    path = {"path": str(tmp_path / "file")} if activity is download else {}
    with RawServer(lambda *_: ok(b"seen")) as other, RawServer(_leads(lambda: f"{other.url}/seen")) as server:
        run(activity, url=server.url, headers=HEADERS, **path)
        sent, led = server.seen[0][2], other.seen[0][2]
    assert {sent[name.lower()] for name in HEADERS} == set(HEADERS.values())
    assert led["x-plain"] == "p"
    assert secret not in str(led)
    assert led["host"] == f"127.0.0.1:{other.port}"


def test_the_same_host_by_another_name_is_another_origin(run: Run, secret: str) -> None:
    with RawServer(_leads(lambda: f"http://localhost:{server.port}/seen")) as server:
        run(request, url=server.url, headers=HEADERS)
    assert secret not in str(server.seen[1][2])


def test_the_same_origin_gets_all_headers(run: Run, secret: str) -> None:
    with RawServer(_leads(lambda: "/seen")) as server:
        run(request, url=server.url, headers=HEADERS)
    assert [server.seen[1][2][name.lower()] for name in HEADERS] == list(HEADERS.values())


def test_a_secret_that_was_taken_out_does_not_come_back(run: Run, secret: str) -> None:
    with (
        RawServer(_leads(lambda: f"{server.url}/seen")) as other,
        RawServer(_leads(lambda: other.url)) as server,
    ):
        run(request, url=server.url, headers=HEADERS)
    assert server.seen[1][1].startswith("GET /seen")
    assert secret not in str(other.seen) + str(server.seen[1])


def test_secrets_in_a_url_do_not_go_on(run: Run, secret: str) -> None:
    with RawServer(lambda *_: ok(b"seen")) as other, RawServer(_leads(lambda: f"{other.url}/seen")) as server:
        run(request, url=server.url.replace("http://", f"http://me:{secret}@") + f"?token={secret}")
    assert secret in server.seen[0][1]
    assert secret not in str(other.seen)
    assert "authorization" not in other.seen[0][2]


def test_a_body_is_not_led_to_another_origin(run: Run, secret: str) -> None:
    with RawServer(_leads(lambda: f"http://localhost:{server.port}/seen")) as server:
        with pytest.raises(ApplicationError) as caught:
            run(request, url=server.url, json={"token": secret})
        assert caught.value.details[0]["status"] == 302
        assert len(server.seen) == 1
        server.answer = _leads(lambda: "/seen")
        run(request, url=server.url, json={"token": secret})
        assert server.seen[-1][3] == b'{"token":"t0psecret"}'


@pytest.mark.parametrize(
    ("before", "to", "kept"),
    [
        ("https://a.example/", "http://a.example/", False),
        ("https://a.example/", "https://a.example:444/", False),
        ("https://a.example/", "https://a.example:443/x", True),
        ("http://a.example/", "https://a.example/", True),  # as curl and httpx: it loses nothing
        ("http://a.example:81/", "https://a.example/", False),
        ("http://a.example/", "https://b.example/", False),
    ],
)
def test_which_urls_are_of_one_origin(secret: str, before: str, to: str, *, kept: bool) -> None:
    following = httpx.Request("GET", to, headers={"X-Key": secret})
    assert web_client._may_follow(following, httpx.Request("GET", before))
    assert ("x-key" in following.headers) == kept


def test_a_redirect_with_a_large_body_is_not_read_to_its_end(run: Run) -> None:
    def answer(_: Connection, head: bytes) -> bytes:
        if b" /seen" in head:
            return ok(b"seen")
        return ok(b"x" * 2_000_000, "Location: /seen", status="302 Found")

    with RawServer(answer) as server:
        assert run(request, url=server.url).body == "seen"
        assert server.opened == 2
