"""The ``http`` family: requests to web services.

Messages name the method and the URL without its user, password and query; they never contain headers or
request bodies. A server's ``Retry-After`` sets the time of the next attempt.
"""

import base64
import codecs
import json
import logging
import os
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Annotated, Any, Literal

import httpx
from msgspec import Meta
from temporalio.exceptions import ApplicationError

from pipeline_runner.activities.catalogue.undo import Undo
from pipeline_runner.activities.files.file import PATH, check_target, followed, named
from pipeline_runner.activities.http.answer import Saved, save
from pipeline_runner.activities.http.arriving import given_up_at_last
from pipeline_runner.activities.http.body import OCTETS, Body, Part, of_file, of_form
from pipeline_runner.activities.http.client import MAX_REDIRECTS, SAFE, http_client, send
from pipeline_runner.activities.http.coding import CODINGS, size_of, unpacked
from pipeline_runner.activities.toolkit.context import idempotency_key
from pipeline_runner.activities.toolkit.errors import explain_errors, refused
from pipeline_runner.activities.toolkit.heartbeat import Heart, heartbeating
from pipeline_runner.activities.toolkit.json_text import mend, parse
from pipeline_runner.activities.toolkit.parameters import Scalar, as_text, built_in, doc
from pipeline_runner.activities.toolkit.sizes import MIB, RESULT_LIMIT, encoded_size, one_line
from pipeline_runner.core.model import Timeouts

CONNECT_TIMEOUT = 10.0
LONGEST_RETRY_AFTER = timedelta(days=1)
"""The longest pause that a server may request."""

_NO_CHARSETS = {"idna", "punycode", "raw-unicode-escape", "undefined", "unicode-escape"}
"""Python's codecs that are not charsets of text. One always fails, and one may take hours."""
_RETRIED = {408, 409, 425, 429}

# At these levels the libraries log whole URLs, including queries, and headers.
for _name in ("httpx", "httpcore"):
    logging.getLogger(_name).setLevel(logging.WARNING)


@dataclass(frozen=True, kw_only=True)
class RequestInput:
    """The request to send, and the responses that count as success."""

    url: Annotated[str, doc("An http or https URL.", min_length=1)]
    method: Annotated[
        Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"],
        doc("Redirects are followed only for GET and HEAD."),
    ] = "GET"
    headers: Annotated[dict[str, Scalar], doc("Request headers.")] = field(default_factory=dict)
    query: Annotated[
        dict[str, Scalar | list[Scalar]],
        doc("Query parameters to add to those of the URL. A list repeats a parameter."),
    ] = field(default_factory=dict)
    json: Annotated[Any, doc("The body, sent as JSON. Null sends no JSON body.")] = None
    body: Annotated[str | None, doc("The body as a string, sent as UTF-8.")] = None
    file: Annotated[
        Annotated[str, Meta(pattern=PATH)] | None,
        doc("A file of any size to send as the body. Relative paths are relative to the run's directory."),
    ] = None
    multipart: Annotated[
        dict[str, Part | list[Part]],
        doc(
            "A form (multipart/form-data) to send as the body. Each field is a value, or a file"
            " as `{file: PATH}` with an optional `filename` and `content_type`. A list repeats a field."
        ),
    ] = field(default_factory=dict)
    save_as: Annotated[
        Annotated[str, Meta(pattern=PATH)] | None,
        doc(
            "The file to save the body of a successful response to. The body may have any size,"
            " and the file appears only when it is complete. Relative paths are relative to the run's"
            " directory."
        ),
    ] = None
    expect_status: Annotated[
        list[Annotated[int, Meta(ge=100, le=599)] | Literal["1xx", "2xx", "3xx", "4xx", "5xx"]],
        doc("The statuses that count as success. Any other status fails the step.", min_length=1),
    ] = field(default_factory=lambda: ["2xx"])


@dataclass(frozen=True, kw_only=True)
class RequestOutput:
    """The response."""

    status: Annotated[int, doc("The status code.")]
    headers: Annotated[
        dict[str, str],
        doc("Response headers, with lowercase names. Repeated headers are joined with commas."),
    ]
    body: Annotated[Any, doc("A JSON value, a string or null. See `encoding`.")]
    encoding: Annotated[
        Literal["json", "text", "base64", "none"],
        doc(
            "How to read `body`: `json` for the value of a JSON response, `text` for a string,"
            " `base64` for a response that is neither, `none` if the response is empty or saved to a file."
        ),
    ]
    saved: Annotated[
        Saved, doc("With `save_as`: the file's `path` and `bytes`, and whether it `replaced` another.")
    ] = field(default_factory=Saved)


@built_in(
    "http.request",
    timeouts=Timeouts(heartbeat=10.0),
    undo=Undo("file.restore", {"path": "{{ step.input.save_as }}", "key": "{{ step.key }}"}, given="save_as"),
)
async def request(parameters: RequestInput) -> RequestOutput:
    """Send an HTTP request.

    Except for GET, HEAD and OPTIONS, sends the step's idempotency key in the Idempotency-Key
    header, unless `headers` sets it. Statuses 408, 409, 425, 429 and 5xx are retried, and so
    are connection errors. `file.restore` undoes `save_as`.
    """
    given = sum(one is not None for one in (parameters.json, parameters.body, parameters.file))
    if given + bool(parameters.multipart) > 1:
        raise refused(
            "json, body, file and multipart are not allowed together: set one of them", "InvalidInput"
        )
    if parameters.save_as is None:
        return await _request(parameters, None)
    target = followed(named(parameters.save_as))
    async with given_up_at_last(target):
        with explain_errors(f"write {target}"):
            check_target(target)
        return await _request(parameters, target)


async def _request(parameters: RequestInput, target: str | None) -> RequestOutput:
    timeouts = httpx.Timeout(None, connect=CONNECT_TIMEOUT)
    with ExitStack() as files:
        async with heartbeating() as heart, http_client(timeouts) as client:
            prepared, what = _prepare(client, parameters, files, heart)
            with explain_request_errors(what):
                response = await send(client, prepared, follow=parameters.method in {"GET", "HEAD"})
                try:
                    return await _answer(response, what, parameters, target, heart)
                finally:
                    await response.aclose()


async def _answer(
    response: httpx.Response, what: str, parameters: RequestInput, target: str | None, heart: Heart
) -> RequestOutput:
    good = _expected(response.status_code, parameters.expect_status)
    answer = partial(RequestOutput, status=response.status_code, headers=dict(response.headers))
    if good and target is not None:
        saved = await save(unpacked(response), target, size_of(response), heart)
        return answer(body=None, encoding="none", saved=saved)
    data = await _read(response, what)
    body, encoding = _decode(response, data)
    if not good:
        raise status_error(response, what, data if encoding in {"json", "text"} else b"")
    if encoded_size(body) > RESULT_LIMIT:
        raise _too_large(what)
    return answer(body=body, encoding=encoding)


def _prepare(
    client: httpx.AsyncClient, parameters: RequestInput, files: ExitStack, heart: Heart
) -> tuple[httpx.Request, str]:
    """Return the request, and its name for messages."""
    url, what = addressed(parameters.method, parameters.url)
    if parameters.query:
        url = url.copy_merge_params(parameters.query)
    (content, kind), headers = _content(parameters, files, heart), _headers(parameters)
    try:
        prepared = client.build_request(parameters.method, url, headers=headers)
    except (ValueError, TypeError):
        # From None: the cause shows the value.
        raise refused(f"{what}: a header is not plain ASCII text", "InvalidInput") from None
    if content is None:
        return prepared, what
    for name in [name for name in ("content-length", "transfer-encoding") if name in prepared.headers]:
        del prepared.headers[name]
    length = len(content) if isinstance(content, bytes) else content.length
    prepared.headers["Content-Length"] = str(length)
    if kind is not None:
        prepared.headers.setdefault("Content-Type", kind)
    prepared.stream = httpx.ByteStream(content) if isinstance(content, bytes) else content
    return prepared, what


def _content(
    parameters: RequestInput, files: ExitStack, heart: Heart
) -> tuple[bytes | Body | None, str | None]:
    """Return the body of the request, and its media type."""
    if parameters.file is not None:
        return of_file(parameters.file, files, heart), OCTETS
    if parameters.multipart:
        return of_form(parameters.multipart, files, heart)
    body, kind = parameters.body, None
    if parameters.json is not None:
        body = json.dumps(parameters.json, ensure_ascii=False, separators=(",", ":"))
        kind = "application/json"
    try:
        return (None if body is None else body.encode()), kind
    except UnicodeEncodeError:
        # Half of a surrogate pair. From None: the error contains the whole string.
        raise refused("the body is not valid Unicode", "InvalidInput") from None


def addressed(method: str, text: str) -> tuple[httpx.URL, str]:
    """Return a URL, and the name of a request to it for messages: without user, password and query."""
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        url = httpx.URL()
    if url.scheme not in {"http", "https"} or not url.host:
        # The message omits the URL: if it cannot be parsed, its secrets cannot be removed.
        raise refused("url is not an http or https URL such as https://example.org/path", "InvalidUrl")
    if url.userinfo or url.query or url.fragment:
        return url, f"{method} {url.copy_with(userinfo=b'', query=None, fragment=None)}"
    return url, f"{method} {url}"


def _headers(parameters: RequestInput) -> dict[str, str]:
    headers = {name: as_text(value) for name, value in parameters.headers.items()}
    given = {name.lower() for name in headers}
    if "accept-encoding" not in given:
        headers["Accept-Encoding"] = CODINGS
    if parameters.method not in SAFE and "idempotency-key" not in given:
        with suppress(LookupError):  # not a step of a pipeline
            headers["Idempotency-Key"] = idempotency_key()
    return headers


@contextmanager
def explain_request_errors(what: str) -> Iterator[None]:
    """Turn the library's errors inside into errors for people."""
    try:
        yield
    except httpx.TooManyRedirects:
        raise refused(f"{what}: more than {MAX_REDIRECTS} redirects", "TooManyRedirects") from None
    except (httpx.LocalProtocolError, httpx.UnsupportedProtocol):
        # The cause may show a header, or the target of a redirect.
        raise refused(f"{what}: the request is not valid HTTP", "InvalidInput") from None
    except httpx.ConnectTimeout as error:
        raise _connection_error(what, f"no connection within {CONNECT_TIMEOUT:g} s", error) from None
    except httpx.ReadTimeout as error:
        raise _connection_error(what, "the server sent no data for too long", error) from None
    except httpx.RequestError as error:
        raise _connection_error(what, _reason(error), error) from None


def _connection_error(what: str, reason: str, error: httpx.RequestError) -> ApplicationError:
    try:
        proxy = error.request.extensions.get("proxy")
    except RuntimeError:  # not about the request
        proxy = None
    by_way = f" (through the proxy in {proxy})" if proxy else ""
    return ApplicationError(f"{what}: {reason}{by_way}", type="HttpConnectionError")


def _reason(error: BaseException) -> str:
    """Return the message of the root cause: the system is clearer than the library."""
    cause: BaseException | None = error
    text = str(error)
    while cause is not None:
        if isinstance(cause, BaseExceptionGroup):  # one for each address of the host
            cause = cause.exceptions[0]
        if isinstance(cause, ssl.SSLError | socket.gaierror):
            text = str(cause.strerror)
        elif isinstance(cause, OSError) and cause.errno:
            text = os.strerror(cause.errno)
        cause = cause.__cause__ or cause.__context__
    return one_line(text or type(error).__name__, 300).lower()


async def _read(response: httpx.Response, what: str) -> bytes:
    data = bytearray()
    async for piece in unpacked(response):
        data += piece
        if len(data) > MIB:
            raise _too_large(what)
    return bytes(data)


def _too_large(what: str) -> ApplicationError:
    return refused(
        f"{what}: the response is larger than 1 MiB, which is too large for a step's output",
        "ResponseTooLarge",
    )


def _decode(response: httpx.Response, data: bytes) -> tuple[Any, Literal["json", "text", "base64", "none"]]:
    if not data:
        return None, "none"
    kind = response.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind == "application/json" or kind.endswith("+json"):
        try:
            return parse(data), "json"
        except (ValueError, RecursionError):
            pass  # it claims to be JSON and is not: then it is treated as text
    for charset in (response.charset_encoding or "utf-8", "utf-8"):
        with suppress(UnicodeError, LookupError):
            if codecs.lookup(charset).name not in _NO_CHARSETS:
                return mend(data.decode(charset)), "text"
    return base64.b64encode(data).decode(), "base64"


def _expected(status: int, expected: list[Any]) -> bool:
    return status in expected or f"{status // 100}xx" in expected


def status_error(response: httpx.Response, what: str, data: bytes) -> ApplicationError:
    """Return the error of a response whose status does not count as success. ``data`` is its body."""
    status = response.status_code
    text = data.decode(errors="replace")
    said = f": {one_line(text, 300)}" if text.strip() else ""
    retried = status in _RETRIED or response.is_server_error
    return ApplicationError(
        f"{what}: status {status} {response.reason_phrase}".rstrip() + said,
        {"status": status, "body": text[:4096]},
        type="HttpStatusError",
        non_retryable=not retried,
        next_retry_delay=_retry_after(response) if retried else None,
    )


def _retry_after(response: httpx.Response) -> timedelta | None:
    value = response.headers.get("retry-after", "").strip()
    try:
        if value.isascii() and value.isdigit():
            delay = timedelta(seconds=min(int(value), LONGEST_RETRY_AFTER.total_seconds()))
        else:
            when = parsedate_to_datetime(value)
            delay = when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)
    except (ValueError, OverflowError):
        return None
    return min(delay, LONGEST_RETRY_AFTER) if delay > timedelta(0) else None
