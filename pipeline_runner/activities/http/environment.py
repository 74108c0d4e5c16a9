"""The HTTP settings in the worker's environment: proxies, exceptions from them, certificates.

The variables are those of curl and other programs: ``HTTP_PROXY``, ``HTTPS_PROXY``, ``ALL_PROXY`` and
``NO_PROXY``, also in lower case, which takes precedence, ``SSL_CERT_FILE`` and ``SSL_CERT_DIR``. An
error names the variable and never its value, which may contain a password.
"""

import functools
import ipaddress
import os
import re
import ssl
import urllib.request
from dataclasses import dataclass
from typing import TypeAlias

import httpx
from temporalio.exceptions import ApplicationError

from pipeline_runner.activities.toolkit.errors import refused

_PORTS = {"http": 80, "https": 443}
_PROXIES = tuple(
    name for kind in ("http", "https", "all", "no") for name in (f"{kind}_proxy", f"{kind.upper()}_PROXY")
)
_NAMES = (*_PROXIES, "REQUEST_METHOD", "SSL_CERT_FILE", "SSL_CERT_DIR")
_SCHEMES = {"http", "https", "socks5", "socks5h"}

_Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, kw_only=True)
class Proxy:
    """A proxy, and the variable that sets it."""

    variable: str
    url: str

    def opened(self, tls: ssl.SSLContext) -> httpx.Proxy:
        """Return the proxy as an object of the library.

        Raises:
            ApplicationError: It is not the URL of a proxy.
        """
        try:
            proxy = httpx.Proxy(self.url if "://" in self.url else f"http://{self.url}")
            if proxy.url.scheme in _SCHEMES:
                return httpx.Proxy(
                    proxy.url, auth=proxy.auth, ssl_context=tls if proxy.url.scheme == "https" else None
                )
        except (ValueError, httpx.InvalidURL):
            pass  # reported below, without the library's message, which shows the value
        raise _unusable(
            f"{self.variable} is not a proxy URL such as http://user:password@proxy:3128"
            " (http, https, socks5 or socks5h; in a password, write / as %2F, @ as %40 and : as %3A)"
        )


@dataclass(frozen=True, kw_only=True)
class _Exclusion:
    """An entry of ``NO_PROXY``."""

    scheme: str = ""
    name: str = ""
    """A host with everything below it; with a leading dot, only what is below it."""
    network: _Network | None = None
    port: int | None = None

    def covers(self, scheme: str, host: str, port: int | None) -> bool:
        if self.scheme not in {"", "all", scheme} or self.port not in {None, port}:
            return False
        if self.network is not None:
            address = _network(host)
            return address is not None and address.network_address in self.network
        return self.name in {"*", host} or host.endswith("." + self.name.removeprefix("."))


class Environment:
    """The settings from the environment's variables."""

    def __init__(self) -> None:
        given = urllib.request.getproxies()  # on macOS also the system's own settings
        self._proxies = {
            kind: Proxy(variable=_name(kind), url=given[kind])
            for kind in ("http", "https", "all")
            if given.get(kind)
        }
        entries = (entry.strip().lower() for entry in given.get("no", "").split(","))
        self._excluded = [found for entry in entries if (found := _exclusion(entry)) is not None]
        self.tls = _tls(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
        """The certificates to trust. They take long to load."""

    def proxy_for(self, url: httpx.URL) -> Proxy | None:
        """Return the proxy for a URL. None: connect directly."""
        proxy = self._proxies.get(url.scheme) or self._proxies.get("all")
        if proxy is None:
            return None
        host, port = url.host.lower().rstrip("."), port_of(url)
        return None if any(entry.covers(url.scheme, host, port) for entry in self._excluded) else proxy


def port_of(url: httpx.URL) -> int | None:
    """Return the port of a URL, even if it is the default port."""
    return url.port or _PORTS.get(url.scheme)


def environment() -> Environment:
    """Return the current settings of the environment.

    Raises:
        ApplicationError: The certificates cannot be read.
    """
    return _environment(tuple(os.environ.get(name) for name in _NAMES))


@functools.lru_cache(maxsize=8)
def _environment(_: tuple[str | None, ...]) -> Environment:
    return Environment()


@functools.lru_cache(maxsize=8)
def _tls(file: str | None, folder: str | None) -> ssl.SSLContext:
    if not file:
        return (
            ssl.create_default_context(capath=folder) if folder else httpx.create_ssl_context(trust_env=False)
        )
    try:
        return ssl.create_default_context(cafile=file)
    except ssl.SSLError:  # which is also an OSError
        reason = "it contains no certificate in PEM format"
    except OSError as error:
        reason = os.strerror(error.errno).lower() if error.errno else "it cannot be read"
    raise _unusable(f"SSL_CERT_FILE names a file that cannot be used: {reason}")


def _unusable(reason: str) -> ApplicationError:
    return refused(f"the worker's environment: {reason}", "InvalidEnvironment")


def _name(kind: str) -> str:
    """Return the name of the variable."""
    names = (f"{kind}_proxy", f"{kind.upper()}_PROXY")
    return next((name for name in names if os.environ.get(name)), "the system's proxy setting")


def _exclusion(entry: str) -> _Exclusion | None:
    """Return an entry of ``NO_PROXY``; None: it cannot be parsed, and is ignored."""
    scheme, _, place = entry.rpartition("://")
    match = re.fullmatch(r"(\[[0-9a-f:.]+\]|[^:\[\]/\s]+)(?::(\d{1,5}))?", place)
    if match is None:
        network = _network(place)
        return None if network is None else _Exclusion(scheme=scheme, network=network)
    host, port = match[1], int(match[2]) if match[2] else None
    return _Exclusion(scheme=scheme, name=host.removeprefix("*") or "*", network=_network(host), port=port)


def _network(text: str) -> _Network | None:
    try:
        return ipaddress.ip_network(text.replace("[", "").replace("]", ""), strict=False)
    except ValueError:
        return None
