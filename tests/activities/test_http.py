"""http.request against real servers on the loopback."""

import asyncio
import gzip
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from pipeline_runner.activities.http.request import LONGEST_RETRY_AFTER, RequestInput, request
from pipeline_runner.activities.toolkit import heartbeat

Run = Callable[..., Any]
NewEnvironment = Callable[..., ActivityEnvironment]


class Server(ThreadingHTTPServer):
    """Answers with what the test sets, and notes what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status, self.body, self.delay = 200, b"", 0.0
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []
        self.headers: dict[str, str] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_: Any) -> None:
        """Say nothing: a client that has what it wants may hang up."""

    def answer(self, status: int = 200, body: bytes = b"", /, **headers: str) -> None:
        self.status, self.body = status, body
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def _answer(self) -> None:
        server = self.server
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        server.seen.append((self.command, self.path, headers, body))
        time.sleep(server.delay)
        self.send_response(server.status)
        for name, value in server.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(server.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(server.body)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _answer  # noqa: N815

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def _failure(run: Run, **parameters: Any) -> ApplicationError:
    with pytest.raises(ApplicationError) as caught:
        run(request, **parameters)
    assert caught.value.__cause__ is None
    return caught.value


def test_a_json_response_is_a_value(run: Run, server: Server) -> None:
    server.answer(200, b'{"id": [1, null]}', Content_Type="application/problem+json", X_A="b")
    result = run(request, url=f"{server.url}/a/b")
    assert (result.status, result.body, result.encoding) == (200, {"id": [1, None]}, "json")
    assert result.headers["x-a"] == "b"
    assert server.seen[0][:2] == ("GET", "/a/b")
    assert "idempotency-key" not in server.seen[0][2]


@pytest.mark.parametrize(
    ("content_type", "data", "expected"),
    [
        ("text/plain", "déjà".encode(), ("déjà", "text")),
        ("text/plain; charset=latin-1", "déjà".encode("latin-1"), ("déjà", "text")),
        ("text/plain; charset=nonsense", b"plain", ("plain", "text")),
        ("application/json", b"{not json", ("{not json", "text")),
        ("application/json", b"NaN", ("NaN", "text")),
        ("application/json", b"[-Infinity]", ("[-Infinity]", "text")),
        ("application/json", b'{"a": 1e400}', ('{"a": 1e400}', "text")),
        ("application/json", b"[-1e309, 1.5]", ("[-1e309, 1.5]", "text")),
        ("application/json", b"[1e300, 1.5, -0.5]", ([1e300, 1.5, -0.5], "json")),
        (
            "application/json",
            rb'{"a\ud83d": ["\uDE00b", "\ud83d\ude00"]}',
            ({"a\ufffd": ["\ufffdb", "😀"]}, "json"),
        ),
        ("application/json", b'"\xed\xa0\x80"', ("Iu2ggCI=", "base64")),
        ("application/json", b"[" * 100_000, ("[" * 100_000, "text")),
        ("text/plain; charset=undefined", b"plain", ("plain", "text")),
        ("text/plain; charset=undefined", b"\xff\x00", ("/wA=", "base64")),
        ("text/plain; charset=idna", b"xn--a.-b", ("xn--a.-b", "text")),
        ("text/plain; charset=punycode", b"abc-" + b"d" * 200_000, ("abc-" + "d" * 200_000, "text")),
        ("text/plain; charset=unicode_escape", rb"C:\new", (r"C:\new", "text")),
        ("text/plain; charset=base64", b"plain", ("plain", "text")),
        ("text/plain; charset=utf-7", b"+2D0-", ("\ufffd", "text")),
        ("application/octet-stream", b"\xff\x00", ("/wA=", "base64")),
        ("application/json", b"", (None, "none")),
        ("", b"plain", ("plain", "text")),
    ],
)
def test_a_response_is_decoded_by_what_it_is(
    run: Run, server: Server, content_type: str, data: bytes, expected: tuple[Any, str]
) -> None:
    server.answer(200, data, Content_Type=content_type)
    result = run(request, url=server.url)
    assert (result.body, result.encoding) == expected


def test_a_request_is_sent_as_written(run: Run, server: Server) -> None:
    run(
        request,
        method="PUT",
        url=f"{server.url}/x?a=1",
        query={"b": [2, "c d"], "d": True},
        headers={"X-Token": "t", "X-Count": 5},
        json={"k": ["v"]},
    )
    method, path, headers, body = server.seen[0]
    assert (method, path) == ("PUT", "/x?a=1&b=2&b=c+d&d=true")
    assert (headers["x-token"], headers["x-count"]) == ("t", "5")
    assert headers["content-type"] == "application/json"
    assert json.loads(body) == {"k": ["v"]}


def test_a_text_body_is_sent_as_utf8(run: Run, server: Server) -> None:
    run(request, method="POST", url=server.url, body="é")
    assert server.seen[0][3] == "é".encode()


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_the_idempotency_key_goes_with_what_changes_something(
    run: Run, server: Server, key: str, method: str
) -> None:
    run(request, method=method, url=server.url)
    run(request, method=method, url=server.url, headers={"idempotency-KEY": "mine"})
    assert [seen[2]["idempotency-key"] for seen in server.seen] == [key, "mine"]


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_no_idempotency_key_goes_with_what_changes_nothing(
    run: Run, server: Server, key: str, method: str
) -> None:
    assert key
    run(request, method=method, url=server.url)
    assert "idempotency-key" not in server.seen[0][2]


@pytest.mark.parametrize(
    ("status", "retried"),
    [(301, False), (400, False), (404, False), *((s, True) for s in (408, 409, 425, 429, 500, 503))],
)
def test_which_statuses_are_retried(run: Run, server: Server, status: int, *, retried: bool) -> None:
    server.answer(status, b'{"error":\n "no  such thing"}', Content_Type="application/json")
    error = _failure(run, method="POST", url=f"{server.url}/things?token=hunter2")
    reason = BaseHTTPRequestHandler.responses.get(status, ("Too Early", ""))[0]
    assert error.message == (
        f'POST {server.url}/things: status {status} {reason}: {{"error": "no such thing"}}'
    )
    assert (error.type, error.non_retryable) == ("HttpStatusError", not retried)
    assert error.details == ({"status": status, "body": '{"error":\n "no  such thing"}'},)
    assert error.next_retry_delay is None


@pytest.mark.parametrize(
    ("expected", "status", "fine"),
    [
        ([404], 404, True),
        (["2xx", 404], 204, True),
        (["4xx"], 418, True),
        ([201], 200, False),
        (["3xx"], 302, True),
    ],
)
def test_expected_statuses_are_a_success(
    run: Run, server: Server, expected: list[Any], status: int, *, fine: bool
) -> None:
    server.answer(status)
    if fine:
        assert run(request, url=server.url, expect_status=expected).status == status
    else:
        error = _failure(run, url=server.url, expect_status=expected)
        assert error.message == f"GET {server.url}: status 200 OK"
        assert error.non_retryable


@pytest.mark.parametrize(
    ("value", "delay"),
    [
        ("7", timedelta(seconds=7)),
        ("99999999999999", LONGEST_RETRY_AFTER),
        ("9" * 400, LONGEST_RETRY_AFTER),
        ("0", None),
        ("soon", None),
        ("-5", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", None),
    ],
)
def test_retry_after_sets_the_next_attempt(
    run: Run, server: Server, value: str, delay: timedelta | None
) -> None:
    server.answer(503, Retry_After=value)
    assert _failure(run, url=server.url).next_retry_delay == delay


def test_retry_after_may_be_a_date(run: Run, server: Server) -> None:
    server.answer(429, Retry_After=format_datetime(datetime.now(UTC) + timedelta(minutes=5), usegmt=True))
    delay = _failure(run, url=server.url).next_retry_delay
    assert delay is not None
    assert timedelta(seconds=290) < delay <= timedelta(seconds=300)


def test_retry_after_means_nothing_where_nothing_is_retried(run: Run, server: Server) -> None:
    server.answer(400, Retry_After="7")
    assert _failure(run, url=server.url).next_retry_delay is None


def test_redirects_are_followed_a_few_times(run: Run, server: Server) -> None:
    server.answer(302, Location="/on?and=on")
    error = _failure(run, url=f"{server.url}/on")
    assert error.message == f"GET {server.url}/on: more than 5 redirects"
    assert (error.type, error.non_retryable) == ("TooManyRedirects", True)
    assert len(server.seen) == 6


def test_redirects_are_not_followed_with_a_body(run: Run, server: Server) -> None:
    server.answer(302, Location="/on")
    assert _failure(run, method="POST", url=server.url).details[0]["status"] == 302
    assert len(server.seen) == 1


def test_a_redirect_to_something_else_is_refused(run: Run, server: Server) -> None:
    server.answer(302, Location="file:///etc/passwd")
    error = _failure(run, url=server.url)
    assert error.message == f"GET {server.url}: the request is not valid HTTP"
    assert error.non_retryable


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_a_response_over_the_limit_is_refused(run: Run, server: Server, encoding: str) -> None:
    data = b"x" * 1_100_000
    server.answer(200, gzip.compress(data) if encoding == "gzip" else data, Content_Encoding=encoding)
    error = _failure(run, url=server.url)
    assert (
        error.message
        == f"GET {server.url}: the response is larger than 1 MiB, which is too large for a step's output"
    )
    assert (error.type, error.non_retryable) == ("ResponseTooLarge", True)


def test_a_response_that_json_would_blow_up_is_refused(run: Run, server: Server) -> None:
    server.answer(200, ("é" * 400_000).encode(), Content_Type="text/plain")
    assert _failure(run, url=server.url).type == "ResponseTooLarge"


def test_a_refused_connection_is_retried(run: Run) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        error = _failure(run, method="POST", url=f"{url}/x?q=hunter2")
    assert error.message == f"POST {url}/x: connection refused"
    assert (error.type, error.non_retryable) == ("HttpConnectionError", False)


@pytest.mark.parametrize(("host", "reason"), [("localhost", "connection refused"), ("nope.invalid", "")])
def test_the_root_cause_of_a_failed_connection_is_named(run: Run, host: str, reason: str) -> None:
    """A host may have several addresses, or none."""
    error = _failure(run, url=f"http://{host}:1/")
    assert error.message.startswith(f"GET http://{host}:1/: {reason}")
    assert "attempts" not in error.message
    assert error.type == "HttpConnectionError"


def test_a_connection_that_ends_early_is_retried(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def hang_up() -> None:
            connection, _ = listening.accept()
            connection.recv(100_000)
            connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        error = _failure(run, url=url)
        thread.join()
    assert error.message == f"GET {url}: server disconnected without sending a response."
    assert (error.type, error.non_retryable) == ("HttpConnectionError", False)


@pytest.mark.parametrize("url", ["ftp://h/", "nope", "http://", "http://h:port/", "http://a\x00b/"])
def test_a_url_that_cannot_be_asked_is_refused(run: Run, url: str) -> None:
    error = _failure(run, url=url)
    assert error.message == "url is not an http or https URL such as https://example.org/path"
    assert (error.type, error.non_retryable) == ("InvalidUrl", True)


@pytest.mark.parametrize("given", [{"json": {"a": "\ud800"}}, {"body": "a\ud800"}])
def test_a_body_that_is_not_valid_unicode_is_refused(run: Run, server: Server, given: Any) -> None:
    error = _failure(run, url=server.url, method="POST", **given)
    assert (error.message, error.type, error.non_retryable) == (
        "the body is not valid Unicode",
        "InvalidInput",
        True,
    )


def test_json_and_body_exclude_each_other(run: Run, server: Server) -> None:
    error = _failure(run, url=server.url, method="POST", json=1, body="x")
    assert (error.message, error.type) == (
        "json, body, file and multipart are not allowed together: set one of them",
        "InvalidInput",
    )


@pytest.mark.parametrize("value", ["hunter2\r\nX: y", "hunter2é", "hunter2\0"])
def test_messages_hold_no_secrets(
    run: Run, server: Server, value: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A header, a password or a query that is wrong is not shown; nor is it logged."""
    caplog.set_level(logging.INFO)
    url = server.url.replace("http://", "http://user:hunter2@")
    error = _failure(run, url=f"{url}/p?token=hunter2#hunter2", headers={"X-Token": value})
    assert error.message.startswith(f"GET {server.url}/p: ")
    assert error.non_retryable
    server.answer(500)
    _failure(run, url=f"{url}/p?token=hunter2", headers={"X-Token": "hunter2"}, query={"q": "hunter2"})
    assert "hunter2" not in error.message + caplog.text


def test_cancellation_stops_waiting(environment: NewEnvironment, server: Server) -> None:
    server.delay = 0.5

    async def scenario() -> float:
        env = environment()
        task = asyncio.ensure_future(env.run(request, RequestInput(url=server.url)))
        while not server.seen:
            await asyncio.sleep(0.01)
        begin = time.monotonic()
        env.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return time.monotonic() - begin

    assert asyncio.run(scenario()) < 0.3


def test_heartbeats_while_waiting(
    environment: NewEnvironment, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "HEARTBEAT_EVERY", 0.05)
    server.delay = 0.3
    beats: list[int] = []
    env = environment()
    env.on_heartbeat = lambda *_: beats.append(1)
    asyncio.run(env.run(request, RequestInput(url=server.url)))
    assert len(beats) >= 4
