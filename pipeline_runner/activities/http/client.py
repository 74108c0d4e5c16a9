"""Connections for the ``http`` family, which all attempts of a worker share. They share nothing else.

While a worker of this package runs, its activities on one event loop share connections and the TLS
settings, which take long to create. Cookies belong to one attempt. Outside of such a worker, each
attempt has its own connections.

A server may close a kept connection at the very moment when a request is sent on it; it is then not
known whether it has read the request. Requests that change something therefore always get a new
connection. GET, HEAD and OPTIONS use a kept one, and are sent once more if it is dead.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from pipeline_runner.activities.http.environment import Environment, Proxy, environment, port_of
from pipeline_runner.activities.toolkit.secret_values import in_use

MAX_REDIRECTS = 5
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing, and may be sent again."""

_KEPT = httpx.Limits(max_connections=None, max_keepalive_connections=20, keepalive_expiry=5.0)
_SINGLE = httpx.Limits(max_connections=None, max_keepalive_connections=0)
_DRAINED = 64 * 1024
"""Bytes of a redirect's body that are read, so that its connection can be used again."""
_CREDENTIALS = ("authorization", "proxy-authorization", "cookie")


class _Routes(httpx.AsyncBaseTransport):
    """Sends each request on a suitable connection, through the proxy that the environment sets."""

    def __init__(self, settings: Environment) -> None:
        self._settings = settings
        self._pools: dict[tuple[Proxy | None, bool], httpx.AsyncHTTPTransport] = {}
        self._keeps = False
        """Whether connections are kept."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        proxy = self._settings.proxy_for(request.url)
        request.extensions["proxy"] = proxy.variable if proxy is not None else None
        if request.method not in SAFE or not isinstance(request.stream, httpx.ByteStream):
            return await self._pool(proxy, keep=False).handle_async_request(request)
        try:
            response = await self._pool(proxy, keep=True).handle_async_request(request)
        except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
            if not self._keeps:
                raise
            return await self._pool(proxy, keep=False).handle_async_request(request)
        self._keeps = True
        return response

    def _pool(self, proxy: Proxy | None, *, keep: bool) -> httpx.AsyncHTTPTransport:
        pool = self._pools.get((proxy, keep))
        if pool is None:
            tls = self._settings.tls
            pool = self._pools[proxy, keep] = httpx.AsyncHTTPTransport(
                verify=tls,
                limits=_KEPT if keep else _SINGLE,
                proxy=proxy.opened(tls) if proxy is not None else None,
            )
        return pool

    async def aclose(self) -> None:
        for pool in self._pools.values():
            await pool.aclose()


class _Shared:
    """What the workers on one event loop share."""

    def __init__(self) -> None:
        self.workers = 0
        self._routes: dict[Environment, _Routes] = {}

    def routes(self, settings: Environment) -> _Routes:
        found = self._routes.get(settings)
        if found is None:
            found = self._routes[settings] = _Routes(settings)
        return found

    async def close(self) -> None:
        for routes in self._routes.values():
            await routes.aclose()


_shared: dict[asyncio.AbstractEventLoop, _Shared] = {}


@asynccontextmanager
async def shared_connections() -> AsyncIterator[None]:
    """Share connections among the activities of this event loop until the last worker leaves."""
    loop = asyncio.get_running_loop()
    shared = _shared.setdefault(loop, _Shared())
    shared.workers += 1
    try:
        yield
    finally:
        shared.workers -= 1
        if not shared.workers:
            del _shared[loop]
            await shared.close()


@asynccontextmanager
async def http_client(timeouts: httpx.Timeout) -> AsyncIterator[httpx.AsyncClient]:
    """Provide the client of one attempt.

    Raises:
        ApplicationError: The environment's settings cannot be used.
    """
    settings = environment()
    shared = _shared.get(asyncio.get_running_loop())
    routes = shared.routes(settings) if shared is not None else _Routes(settings)
    try:
        # It is never closed: it holds only cookies, and does not own the connections.
        yield httpx.AsyncClient(transport=routes, trust_env=False, timeout=timeouts)
    finally:
        if shared is None:
            await routes.aclose()


async def send(client: httpx.AsyncClient, request: httpx.Request, *, follow: bool) -> httpx.Response:
    """Send a request and return the response, whose body has not been read yet.

    Redirects to another origin get no header that contains a secret. A request with a body is not
    redirected there.

    Raises:
        httpx.TooManyRedirects: The redirects do not end.
    """
    for _ in range(MAX_REDIRECTS + 1):
        response = await client.send(request, stream=True, follow_redirects=False)
        following = response.next_request if follow else None
        if following is None or not _may_follow(following, request):
            return response
        try:
            await _drain(response)
        finally:
            await response.aclose()
        request = following
    raise httpx.TooManyRedirects("", request=request)


def _may_follow(following: httpx.Request, request: httpx.Request) -> bool:
    """Tell whether a redirect may be followed, and remove what the other origin must not see."""
    if _same_origin(following.url, request.url) or _is_upgrade(following.url, request.url):
        return True
    for name, value in list(following.headers.items()):
        if name != "host" and (name in _CREDENTIALS or any(secret in value for secret in in_use.get())):
            del following.headers[name]
    return "content-length" not in request.headers and "transfer-encoding" not in request.headers


def _same_origin(to: httpx.URL, before: httpx.URL) -> bool:
    return (to.scheme, to.host, port_of(to)) == (before.scheme, before.host, port_of(before))


def _is_upgrade(to: httpx.URL, before: httpx.URL) -> bool:
    """Tell whether this is the same host, now over TLS. Nothing is removed then, as in other clients."""
    default = (before.scheme, port_of(before), to.scheme, port_of(to)) == ("http", 80, "https", 443)
    return default and to.host == before.host


async def _drain(response: httpx.Response) -> None:
    size = 0
    async for piece in response.aiter_raw():
        size += len(piece)
        if size > _DRAINED:
            break
