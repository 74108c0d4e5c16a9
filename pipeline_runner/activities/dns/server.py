"""A DNS server, and how the ``dns`` family talks to it: over TCP, signed if there is a key.

Messages name record sets, servers and zones, never values or keys.
"""

import asyncio
import base64
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from temporalio.exceptions import ApplicationError

from pipeline_runner.activities.toolkit.errors import refused, uncertain
from pipeline_runner.activities.toolkit.secret_values import SecretNotFoundError, secret_value
from pipeline_runner.core import errors

if TYPE_CHECKING:
    import dns.message
    import dns.name
    import dns.rcode
    import dns.rdatatype
    import dns.tsig
    import dns.update

CONNECT_TIMEOUT = 5.0
ANSWER_TIMEOUT = 10.0
"""Seconds for a question or an update, once there is a connection."""
UDP_TIMEOUT = 2.0
"""Seconds for an answer of the system's resolver over UDP. After that it is asked over TCP."""


@dataclass(frozen=True, kw_only=True)
class Server:
    """A name server. Each message has its own TCP connection."""

    host: str
    port: int
    what: str
    """The name of the operation in messages."""
    key: "dns.tsig.Key | None" = None

    async def ask(self, query: "dns.message.Message") -> "dns.message.QueryMessage":
        """Return the answer to a question. An answer may be that the name does not exist.

        Raises:
            ApplicationError: There is no answer, or the server refuses.
        """
        return self._good(await self._exchange(query))

    def _good(self, answer: "dns.message.Message") -> "dns.message.QueryMessage":
        import dns.message
        import dns.rcode

        if answer.rcode() not in {dns.rcode.NOERROR, dns.rcode.NXDOMAIN}:
            raise self._refusal(answer)
        assert isinstance(answer, dns.message.QueryMessage)
        return answer

    async def update(self, message: "dns.update.UpdateMessage") -> bool:
        """Send an update, and tell whether its prerequisites held.

        Raises:
            ApplicationError: There is no answer, or the server refuses.
        """
        import dns.rcode

        answer = await self._exchange(message, doubt=in_doubt)
        if answer.rcode() == dns.rcode.NOERROR:
            return True
        if answer.rcode() in {
            dns.rcode.YXDOMAIN, dns.rcode.YXRRSET, dns.rcode.NXRRSET, dns.rcode.NXDOMAIN,
        }:  # fmt: skip
            return False
        if answer.rcode() == dns.rcode.SERVFAIL:
            # It may have forwarded the update to a server that applied it.
            raise uncertain(self._refusal(answer))
        raise self._refusal(answer)

    async def zone_of(self, name: "dns.name.Name", given: "dns.name.Name | None") -> "dns.name.Name":
        """Return the zone that holds a name: the given one, or the nearest that the server has.

        Raises:
            ApplicationError: It has none, or there is no answer.
        """
        import dns.flags
        import dns.message
        import dns.name
        import dns.rcode
        import dns.rdataclass
        import dns.rdatatype

        at = given or name
        while True:
            answer = await self._exchange(dns.message.make_query(at, dns.rdatatype.SOA))
            if answer.rcode() not in {dns.rcode.NOERROR, dns.rcode.NXDOMAIN, dns.rcode.REFUSED}:
                raise self._refusal(answer)
            found = answer.get_rrset(answer.answer, at, dns.rdataclass.IN, dns.rdatatype.SOA)
            if found is not None and answer.flags & dns.flags.AA:
                return at
            if given is not None or at == dns.name.root:
                zone = f"no zone {plain(given)}" if given is not None else f"no zone for {plain(name)}"
                raise refused(f"{self.what}: {self} has {zone}", "DnsZoneNotFound")
            at = at.parent()

    async def ask_first_over_udp(self, query: "dns.message.Message") -> "dns.message.QueryMessage":
        """Return the answer to a question, as ``ask`` does; for the system's resolvers."""
        import dns.asyncquery
        import dns.exception

        with suppress(dns.exception.DNSException, OSError):
            answer = await dns.asyncquery.udp(
                query, self.host, timeout=UDP_TIMEOUT, port=self.port,
                ignore_unexpected=True, ignore_errors=True, raise_on_truncation=True,
            )  # fmt: skip
            return self._good(answer)
        return await self.ask(query)  # needed for a long answer, and reports what is wrong

    def __str__(self) -> str:
        return f"{self.host} port {self.port}"

    async def _exchange(
        self,
        message: "dns.message.Message",
        doubt: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> "dns.message.Message":
        """Send a message and return the answer. ``doubt`` marks errors after the message was sent."""
        wire = self._wire(message)
        reader, writer = await self._connect()
        try:
            with doubt():
                try:
                    async with asyncio.timeout(ANSWER_TIMEOUT):
                        writer.write(wire)
                        length = int.from_bytes(await reader.readexactly(2), "big")
                        data = await reader.readexactly(length)
                except TimeoutError:
                    raise self._unreachable(f"no answer within {ANSWER_TIMEOUT:g} s") from None
                except (OSError, EOFError) as error:
                    raise self._unreachable(_reason(error, "the connection was closed")) from None
        finally:
            writer.close()
        return self._parsed(message, data, doubt)

    def _wire(self, message: "dns.message.Message") -> bytes:
        import dns.exception

        if self.key is not None:
            message.use_tsig(self.key)
        try:
            return message.to_wire(prepend_length=True)
        except dns.exception.TooBig:
            raise refused(f"{self.what}: the record set is too large for a message", "InvalidInput") from None

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                return await asyncio.open_connection(self.host, self.port)
        except TimeoutError:
            raise self._unreachable(f"no connection within {CONNECT_TIMEOUT:g} s") from None
        except OSError as error:
            raise self._unreachable(_reason(error, "no connection")) from None
        except ValueError:  # also a UnicodeError: a label that is too long, or an invalid character
            raise refused("server is not an address or a name", "InvalidInput") from None

    def _parsed(
        self,
        message: "dns.message.Message",
        data: bytes,
        doubt: Callable[[], AbstractContextManager[object]],
    ) -> "dns.message.Message":
        import dns.exception
        import dns.message
        import dns.tsig

        try:
            answer = dns.message.from_wire(data, keyring=False)
            # Servers do not sign a refusal: they may not know the key.
            if self.key is not None and (answer.had_tsig or answer.rcode() not in _unsigned()):
                answer = dns.message.from_wire(data, keyring=self.key, request_mac=message.mac)
                if not answer.had_tsig:  # some versions of the library accept that
                    raise dns.exception.FormError
        except dns.tsig.PeerError as error:
            reason = _PEERS.get(type(error).__name__, "it does not accept the signature")
            raise refused(f"{self.what}: {self} refuses: {reason}", "DnsRefused") from None
        except dns.exception.DNSException:
            with doubt():
                raise self._unreachable("the answer cannot be read, or is not signed correctly") from None
        if not message.is_response(answer):
            with doubt():
                raise self._unreachable("the answer belongs to another question")
        return answer

    def _unreachable(self, reason: str) -> ApplicationError:
        return ApplicationError(f"{self.what}: {self}: {reason}", type="DnsUnreachable")

    def _refusal(self, answer: "dns.message.Message") -> ApplicationError:
        import dns.rcode

        code = answer.rcode()
        if code == dns.rcode.SERVFAIL:
            return ApplicationError(f"{self.what}: {self} failed (SERVFAIL)", type="DnsServerFailure")
        return refused(f"{self.what}: {self} refuses ({dns.rcode.to_text(code)})", "DnsRefused")


_PEERS = {
    "PeerBadKey": "it does not know the key",
    "PeerBadSignature": "it has a different key with that name",
    "PeerBadTime": "the clocks differ too much",
}


def _unsigned() -> "set[dns.rcode.Rcode]":
    from dns.rcode import Rcode

    return {Rcode.FORMERR, Rcode.SERVFAIL, Rcode.NOTIMP, Rcode.REFUSED, Rcode.NOTAUTH}


async def ask_system(query: "dns.message.Message", port: int, what: str) -> "dns.message.QueryMessage":
    """Ask the system's DNS servers, one after the other."""
    import dns.resolver

    nobody = ApplicationError(f"{what}: the system has no DNS servers", type="DnsUnreachable")
    try:
        addresses = [str(address) for address in dns.resolver.Resolver().nameservers]
    except dns.resolver.NoResolverConfiguration:
        raise nobody from None
    failure = nobody
    for address in addresses:
        try:
            return await Server(host=address, port=port, what=what).ask_first_over_udp(query)
        except ApplicationError as error:
            failure = error
    raise failure


@contextmanager
def in_doubt() -> Iterator[None]:
    """Mark errors inside: the update may have been applied."""
    try:
        yield
    except ApplicationError as error:
        raise uncertain(error) from None


def _reason(error: OSError | EOFError, otherwise: str) -> str:
    """Return the system's message, without the addresses, which our message contains already."""
    if isinstance(error, socket.gaierror):
        return str(error.strerror).lower()
    number = error.errno if isinstance(error, OSError) else None
    return os.strerror(number).lower() if number else otherwise


def plain(name: "dns.name.Name") -> str:
    """Return a name as people write it, without the final dot."""
    return name.to_text(omit_final_dot=True)


def key_of(secret: str | None) -> "dns.tsig.Key | None":
    """Return the key in a secret of the worker, which has the format of ``nsupdate -y``."""
    import dns.exception
    import dns.name
    import dns.tsig

    if secret is None:
        return None
    try:
        algorithm, name, key = secret_value(secret).strip().split(":")
        known = {kind for kind in dns.tsig.mac_sizes if kind != dns.tsig.GSS_TSIG}
        kind = dns.name.from_text(algorithm)
        if kind in known and key:
            return dns.tsig.Key(dns.name.from_text(name), base64.b64decode(key, validate=True), kind)
    except SecretNotFoundError as error:
        raise refused(str(error), errors.SECRET_NOT_FOUND) from None
    except (dns.exception.DNSException, ValueError):
        pass  # reported below, without the value
    raise refused(f'the secret "{secret}" is not a key such as hmac-sha256:name:base64', "InvalidInput")
