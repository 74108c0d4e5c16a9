"""http.request and http.download under what the worker's environment says of proxies and certificates."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from temporalio.exceptions import ApplicationError

from pipeline_runner.activities.http import environment as web_environment
from pipeline_runner.activities.http.download import download
from pipeline_runner.activities.http.request import request
from tests.rawserver import Connection, RawServer, ok

Run = Callable[..., Any]

NAMES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "ssl_cert_file", "ssl_cert_dir")


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def server() -> Iterator[RawServer]:
    with RawServer(lambda *_: ok(b"itself")) as running:
        yield running


@pytest.fixture
def proxy() -> Iterator[RawServer]:
    with RawServer(lambda *_: ok(b"by the proxy")) as running:
        yield running


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
def test_a_proxy_is_used(
    run: Run, monkeypatch: pytest.MonkeyPatch, server: RawServer, proxy: RawServer, name: str
) -> None:
    monkeypatch.setenv(name, f"http://me:w%2Frd@127.0.0.1:{proxy.port}")
    assert run(request, url=server.url).body == "by the proxy"
    _, line, headers, _ = proxy.seen[0]
    assert line == f"GET {server.url}/ HTTP/1.1"
    assert headers["proxy-authorization"] == "Basic bWU6dy9yZA=="


@pytest.mark.parametrize(
    ("no_proxy", "url", "excluded"),
    [
        ("localhost,[::1]", "http://127.0.0.1/", False),
        ("localhost,[::1]", "http://[::1]/", True),
        ("localhost,[::1]", "http://localhost/", True),
        ("::1", "http://[::1]:81/", True),
        ("[::1]:80", "http://[::1]:81/", False),
        ("[::1]:81", "http://[::1]:81/", True),
        ("fe11::/16", "http://[fe11:1::2]/", True),
        ("fe11::/16", "http://[fe12::2]/", False),
        ("[fe11::]/16", "http://[fe11:1::2]/", True),
        (
            "fe80::1%eth0,::1:zz,a b,//,:,10.0.0.1",
            "http://10.0.0.1/",
            True,
        ),  # what cannot be read is passed over
        ("10.0.0.0/8", "http://10.1.2.3/", True),
        ("10.0.0.0/8", "http://11.1.2.3/", False),
        ("10.0.0.0/8", "http://example.org/", False),
        ("example.org", "http://example.org/", True),
        ("EXAMPLE.org", "http://www.Example.org/", True),
        ("example.org", "http://wwwexample.org/", False),
        (".example.org", "http://www.example.org/", True),
        (".example.org", "http://example.org/", False),
        ("*.example.org", "http://www.example.org/", True),
        ("example.org:80", "http://example.org/", True),
        ("example.org:80", "https://example.org/", False),
        ("https://example.org", "http://example.org/", False),
        ("*", "http://example.org/", True),
        ("a, *", "http://example.org/", True),
        ("", "http://example.org/", False),
    ],
)
def test_what_needs_no_proxy(
    monkeypatch: pytest.MonkeyPatch, no_proxy: str, url: str, *, excluded: bool
) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    found = web_environment.environment().proxy_for(httpx.URL(url))
    assert (found is None) == excluded


@pytest.mark.parametrize("no_proxy", ["localhost,[::1]", "fe11::/16", "localhost,[::1],127.0.0.0/8"])
def test_a_request_under_no_proxy(
    run: Run, monkeypatch: pytest.MonkeyPatch, server: RawServer, no_proxy: str
) -> None:
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert run(request, url=server.url).body == "itself"


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("HTTP_PROXY", "socks://127.0.0.1:9", "HTTP_PROXY is not a proxy URL such as "),
        ("http_proxy", "ftp://127.0.0.1:9", "http_proxy is not a proxy URL such as "),
        ("HTTP_PROXY", "http://me:secret/word@p:80", "HTTP_PROXY is not a proxy URL such as "),
        ("ALL_PROXY", "http://p:port-secret", "ALL_PROXY is not a proxy URL such as "),
        ("SSL_CERT_FILE", "/nowhere-secret", "SSL_CERT_FILE names a file that cannot be used: no such file or directory"),
        ("SSL_CERT_FILE", __file__, "SSL_CERT_FILE names a file that cannot be used: it contains no certificate"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("activity", [request, download])
def test_what_is_wrong_is_said_once_without_its_value(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    server: RawServer,
    tmp_path: Path,
    activity: Any,
    name: str,
    value: str,
    reason: str,
) -> None:
    monkeypatch.setenv(name, value)
    path = {"path": str(tmp_path / "file")} if activity is download else {}
    with pytest.raises(ApplicationError) as caught:
        run(activity, url=server.url, **path)
    error = caught.value
    assert (error.type, error.non_retryable, error.__cause__) == ("InvalidEnvironment", True, None)
    assert error.message.startswith(f"the worker's environment: {reason}")
    assert value not in error.message
    assert "secret" not in error.message
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_needed_is_no_error(run: Run, monkeypatch: pytest.MonkeyPatch, server: RawServer) -> None:
    """Desktops set ALL_PROXY=socks://… beside an HTTP_PROXY that works."""
    monkeypatch.setenv("ALL_PROXY", "socks://127.0.0.1:9")
    monkeypatch.setenv("HTTPS_PROXY", "socks://127.0.0.1:9")
    monkeypatch.setenv("HTTP_PROXY", server.url)
    assert run(request, url="http://example.org/").body == "itself"


@pytest.mark.parametrize("name", ["HTTP_PROXY", "all_proxy"])
@pytest.mark.parametrize("value", ["127.0.0.1:{}", "http://127.0.0.1:{}", "socks5://127.0.0.1:{}"])
def test_a_proxy_that_is_not_there(run: Run, monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value.format(9))
    with pytest.raises(ApplicationError) as caught:
        run(request, url="http://example.org/")
    error = caught.value
    assert (error.type, error.non_retryable) == ("HttpConnectionError", False)
    assert error.message == f"GET http://example.org/: connection refused (through the proxy in {name})"


def test_a_socks_proxy_is_used(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def greet(connection: Connection) -> None:
        connection.stream.recv(1024)
        connection.stream.sendall(b"\x05\x00")
        asked.append(connection.stream.recv(1024))
        connection.stream.sendall(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")

    asked: list[bytes] = []
    with RawServer(lambda *_: ok(b"by the proxy"), greet) as proxy:
        monkeypatch.setenv("ALL_PROXY", f"socks5h://127.0.0.1:{proxy.port}")
        assert run(request, url="http://example.org/").body == "by the proxy"
    assert b"example.org" in asked[0]


def test_a_change_of_the_environment_counts_at_once(
    run: Run, monkeypatch: pytest.MonkeyPatch, server: RawServer, proxy: RawServer
) -> None:
    assert run(request, url=server.url).body == "itself"
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    assert run(request, url=server.url).body == "by the proxy"
