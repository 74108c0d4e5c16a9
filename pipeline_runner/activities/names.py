"""The ``dns`` family: record sets, looked up and changed by dynamic updates (RFC 2136).

A change is one UPDATE message over TCP. Its prerequisites say what the record set was when
it was read, so a set that somebody else has changed in between is read again and never
overwritten unseen. What a server took is read back: servers skip in silence what cannot
be, such as records beside a CNAME. What was there before is remembered on the server of
the pipeline before it is changed, so that a later attempt does not take the work of the
one before it for the original.

Messages name record sets, servers and zones, never values or keys.
"""

import asyncio
import base64
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta
from temporalio import activity
from temporalio.exceptions import ApplicationError

from pipeline_runner.activities import extras
from pipeline_runner.activities.door import describe
from pipeline_runner.activities.errors import refused
from pipeline_runner.activities.pulse import Heart, heartbeating, remembered
from pipeline_runner.activities.secret_values import SecretNotFoundError, secret_value
from pipeline_runner.activities.strict import checked
from pipeline_runner.core import errors
from pipeline_runner.core.errors import UNCERTAIN
from pipeline_runner.core.model import Timeouts

if TYPE_CHECKING:
    import dns.message
    import dns.name
    import dns.rcode
    import dns.rdata
    import dns.rdatatype
    import dns.rrset
    import dns.tsig
    import dns.update

EXTRA = "dns"
CONNECT_TIMEOUT = 5.0
ANSWER_TIMEOUT = 10.0
"""Seconds for one question, or one update, once there is a connection."""
UDP_TIMEOUT = 2.0
"""Seconds for an answer of the system's resolver, before it is asked over TCP."""
TRIES = 5
"""How often a set that others keep changing is read and changed anew."""
DEFAULT_TTL = 300

_SERVERS_OWN = {"SOA", "RRSIG", "NSEC", "NSEC3", "NSEC3PARAM"}
"""What servers write themselves."""

Name = Annotated[
    str, Meta(min_length=1, description="The full name, such as www.example.org; a final dot is optional.")
]
Type = Annotated[str, Meta(min_length=1, description="The type, such as A, AAAA, CNAME, TXT, MX or SRV.")]
Port = Annotated[int, Meta(ge=1, le=65535, description="The server's port.")]
Server = Annotated[str, Meta(min_length=1, description="The server, by address or name.")]
Zone = Annotated[
    str | None, Meta(description="The zone that the name is in; default: the server is asked for it.")
]
Tsig = Annotated[
    str | None,
    Meta(
        description="The name of a secret on the worker: the key that signs the messages, as"
        " algorithm:name:secret. Default: they are not signed."
    ),
]


@dataclass(frozen=True, kw_only=True)
class LookupInput:
    """What to ask for, and whom."""

    name: Name
    type: Type
    server: Annotated[
        Annotated[str, Meta(min_length=1)] | None,
        Meta(description="The server to ask, by address or name; default: the system's."),
    ] = None
    port: Port = 53


@dataclass(frozen=True, kw_only=True)
class LookupOutput:
    """What the answer holds."""

    name: Annotated[str, Meta(description="The name that was asked for, without a final dot.")]
    type: Annotated[str, Meta(description="The type that was asked for.")]
    canonical_name: Annotated[
        str, Meta(description="The name that has the values: another one if `name` is an alias.")
    ]
    values: Annotated[list[str], Meta(description="The values as in a zone file, sorted; none: [].")]
    ttl: Annotated[int | None, Meta(description="Seconds; null if there are no values.")]


@dataclass(frozen=True, kw_only=True)
class UpsertInput:
    """The record set that is wanted, and the server of its zone."""

    name: Name
    type: Type
    values: Annotated[
        list[str],
        Meta(
            description="All values, as in a zone file; names in them are full names. Text of a TXT"
            ' record with spaces stands in double quotes: ["\\"v=spf1 -all\\""]. []: remove the set.'
        ),
    ]
    ttl: Annotated[
        Annotated[int, Meta(ge=0, le=2**31 - 1)] | None,
        Meta(description=f"Seconds; null: {DEFAULT_TTL}."),
    ] = DEFAULT_TTL
    server: Server
    port: Port = 53
    zone: Zone = None
    tsig: Tsig = None


@dataclass(frozen=True, kw_only=True)
class RecordSet:
    """The values of one name and type."""

    values: Annotated[list[str], Meta(description="As in a zone file, sorted; none: [].")] = field(
        default_factory=list
    )
    ttl: Annotated[int | None, Meta(description="Seconds; null if there are no values.")] = None


@dataclass(frozen=True, kw_only=True)
class UpsertOutput:
    """The record set as it is now, and as it was."""

    name: Annotated[str, Meta(description="The name, without a final dot.")]
    type: Annotated[str, Meta(description="The type.")]
    values: Annotated[list[str], Meta(description="The values as in a zone file, sorted.")]
    ttl: Annotated[int | None, Meta(description="Seconds; null if there are no values.")]
    changed: Annotated[bool, Meta(description="Whether the set was another one before the step.")]
    replaced: Annotated[RecordSet, Meta(description="The set before the step, whichever attempt changed it.")]


@dataclass(frozen=True, kw_only=True)
class RemoveInput:
    """What to remove, and the server of its zone."""

    name: Name
    type: Type
    values: Annotated[
        Annotated[list[str], Meta(min_length=1)] | None,
        Meta(description="Only these values, as in a zone file; default: all."),
    ] = None
    server: Server
    port: Port = 53
    zone: Zone = None
    tsig: Tsig = None


@dataclass(frozen=True, kw_only=True)
class RemoveOutput:
    """What is gone."""

    name: Annotated[str, Meta(description="The name, without a final dot.")]
    type: Annotated[str, Meta(description="The type.")]
    removed: Annotated[
        RecordSet, Meta(description="What the step took away, whichever attempt did; nothing: no values.")
    ]


@describe(extra=EXTRA, timeouts=Timeouts(heartbeat=10.0), effect_free=True)
@activity.defn(name="dns.lookup")
@checked
async def lookup(parameters: LookupInput) -> LookupOutput:
    """Look up the values of a name; aliases are followed, and a name without values is no error.

    Without a server the system's DNS servers are asked; its file of hosts is not read.
    """
    _needs("dns.lookup")
    import dns.exception
    import dns.message

    name, kind = _name(parameters.name, "name"), _type(parameters.type)
    what = f"look up {kind.name} {_plain(name)}"
    query = dns.message.make_query(name, kind)
    async with heartbeating():
        if parameters.server is not None:
            server = _Server(host=parameters.server, port=parameters.port, what=what)
            answer = await server.ask(query)
        else:
            answer = await _ask_system(query, parameters.port, what)
    try:
        found = answer.resolve_chaining()
    except dns.exception.DNSException:
        raise ApplicationError(
            f"{what}: the answer makes no sense, such as aliases in a circle", type="DnsServerFailure"
        ) from None
    there = _Set.of(found.answer)
    return LookupOutput(
        name=_plain(name),
        type=kind.name,
        canonical_name=_plain(found.canonical_name),
        values=there.values,
        ttl=there.ttl,
    )


@describe(extra=EXTRA, timeouts=Timeouts(heartbeat=10.0), inverse="dns.upsert")
@activity.defn(name="dns.upsert")
@checked
async def upsert(parameters: UpsertInput) -> UpsertOutput:
    """Make a record set hold exactly these values, by one dynamic update.

    Undone by the same activity with the values and the TTL of before: those of a
    `dns.lookup` step, or `step.output.replaced`.
    """
    async with heartbeating() as heart:
        change = _Change(heart, "dns.upsert", "set", parameters)
        ttl = DEFAULT_TTL if parameters.ttl is None else parameters.ttl
        records = change.records(parameters.values)
        wanted = _Set(records=records, ttl=ttl if records else None)
        there = await change.make(lambda _: wanted, note=lambda before: before)
    return UpsertOutput(
        name=_plain(change.name),
        type=change.kind.name,
        values=there.values,
        ttl=there.ttl,
        changed=change.noted != there,
        replaced=change.noted.shown,
    )


@describe(extra=EXTRA, timeouts=Timeouts(heartbeat=10.0), inverse="dns.upsert")
@activity.defn(name="dns.remove")
@checked
async def remove(parameters: RemoveInput) -> RemoveOutput:
    """Remove a record set, or some of its values; it is fine if they are gone.

    Undone by `dns.upsert` with the values and the TTL of before: those of a `dns.lookup`
    step, or `step.output.removed` if the whole set was removed.
    """
    async with heartbeating() as heart:
        change = _Change(heart, "dns.remove", "remove", parameters)
        unwanted = None if parameters.values is None else change.records(parameters.values)

        def taken(before: _Set) -> _Set:
            return before if unwanted is None else before.only(before.records & unwanted)

        def left(before: _Set) -> _Set:
            return before.only(before.records - taken(before).records)

        await change.make(left, note=taken)
    return RemoveOutput(name=_plain(change.name), type=change.kind.name, removed=change.noted.shown)


@dataclass(frozen=True, kw_only=True)
class _Set:
    """A record set; of the empty one there is only one, which has no TTL."""

    records: "frozenset[dns.rdata.Rdata]" = frozenset()
    ttl: int | None = None

    @classmethod
    def of(cls, found: "dns.rrset.RRset | None") -> "_Set":
        return cls() if found is None else cls(records=frozenset(found), ttl=found.ttl)

    def only(self, records: "frozenset[dns.rdata.Rdata]") -> "_Set":
        return _Set(records=records, ttl=self.ttl) if records else _Set()

    @property
    def values(self) -> list[str]:
        return sorted(record.to_text() for record in self.records)

    @property
    def shown(self) -> RecordSet:
        return RecordSet(values=self.values, ttl=self.ttl)


class _Change:
    """A change of one record set: read, compare, update, read back."""

    def __init__(self, heart: Heart, activity_name: str, verb: str, given: UpsertInput | RemoveInput) -> None:
        self._heart = heart
        told = remembered()
        if told is not None:
            # Before the first wait: a heartbeat without it would have the server forget it.
            heart.tell(told)
        _needs(activity_name)
        self.name, self.kind = _name(given.name, "name"), _type(given.type)
        if self.kind.name in _SERVERS_OWN:
            raise refused(f"{self.kind.name} records are written by the server itself", "InvalidInput")
        self.what = f"{verb} {self.kind.name} {_plain(self.name)}"
        self._server = _Server(host=given.server, port=given.port, what=self.what, key=_key(given.tsig))
        self._given_zone = None if given.zone is None else _name(given.zone, "zone")
        if self._given_zone is not None and not self.name.is_subdomain(self._given_zone):
            raise refused(
                f"{_plain(self.name)} is not in the zone {_plain(self._given_zone)}", "InvalidInput"
            )
        self._told = None if told is None else _Set(records=self.records(told["values"]), ttl=told["ttl"])
        self.noted = _Set()

    def records(self, values: list[str]) -> "frozenset[dns.rdata.Rdata]":
        """Read values as a zone file would have them."""
        import dns.rdatatype

        found = frozenset(_record(self.kind, value, number) for number, value in enumerate(values))
        if len(found) > 1 and dns.rdatatype.is_singleton(self.kind):
            raise refused(f"a name has one {self.kind.name} record, not {len(found)}", "InvalidInput")
        return found

    async def make(self, wanted: Callable[[_Set], _Set], note: Callable[[_Set], _Set]) -> _Set:
        """Bring the set from whatever it is to what is wanted, and return it.

        Args:
            wanted: Says what the set is to become, by what it is.
            note: Says what of the set as it was is to be remembered, as ``noted``.
        """
        zone = await self._server.zone_of(self.name, self._given_zone)
        before = await self._read()
        for _ in range(TRIES):
            after = wanted(before)
            self.noted = self._told or note(before)
            if after == before:
                return before
            if self._told is None:
                await self._heart.remember({"values": self.noted.values, "ttl": self.noted.ttl})
            if await self._server.update(self._message(zone, before, after)):
                with _uncertain():
                    now, applied = await self._look(zone, before, after)
                if not applied:
                    raise self._not_applied(now == before)
                return after
            now = await self._read()
            # A wildcard answers for names that do not exist: what it says is in no set.
            before = _Set() if now == before else now
        raise ApplicationError(f"{self.what}: it changed {TRIES} times in between", type="DnsConflict")

    async def _read(self) -> _Set:
        import dns.message
        import dns.rdataclass

        answer = await self._server.ask(dns.message.make_query(self.name, self.kind))
        return _Set.of(answer.get_rrset(answer.answer, self.name, dns.rdataclass.IN, self.kind))

    def _message(self, zone: "dns.name.Name", before: _Set, after: _Set) -> "dns.update.UpdateMessage":
        import dns.update

        message = dns.update.UpdateMessage(zone)
        if before.records:
            message.present(self.name, *before.records)
        else:
            message.absent(self.name, self.kind)
        if self.kind.name == "NS":
            # One by one, the new ones first: a zone never gives up the last of its own.
            for record in after.records:
                message.add(self.name, after.ttl, record)
            for record in before.records - after.records:
                message.delete(self.name, record)
            return message
        message.delete(self.name, self.kind)
        if after.records:
            message.add(self.name, after.ttl, *after.records)
        return message

    async def _look(self, zone: "dns.name.Name", before: _Set, after: _Set) -> tuple[_Set, bool]:
        """Read the set back, and tell whether the update is in it.

        What others do to other values meanwhile is no concern of this change.
        """
        now = await self._read()
        added, gone = after.records - before.records, before.records - after.records
        if added <= now.records and not gone & now.records:
            return now, bool(added or gone) or now.ttl == after.ttl
        return now, not after.records and await self._is_absent(zone)

    async def _is_absent(self, zone: "dns.name.Name") -> bool:
        """Ask for the set itself, not for what a wildcard says in its place."""
        import dns.update

        message = dns.update.UpdateMessage(zone)
        message.absent(self.name, self.kind)
        return await self._server.update(message)

    def _not_applied(self, nothing: bool) -> ApplicationError:
        return refused(
            f"{self.what}: the server took the update and did not apply it;"
            " it skips what cannot be, such as records beside a CNAME",
            "DnsNotApplied",
            *([] if nothing else [UNCERTAIN]),
        )


@dataclass(frozen=True, kw_only=True)
class _Server:
    """A name server, and how it is asked: over TCP, a connection for each message."""

    host: str
    port: int
    what: str
    """How messages call what is being done."""
    key: "dns.tsig.Key | None" = None

    async def ask(self, query: "dns.message.Message") -> "dns.message.QueryMessage":
        """Return the answer to a question; that there is no such name is one too.

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

        answer = await self._exchange(message, doubt=_uncertain)
        if answer.rcode() == dns.rcode.NOERROR:
            return True
        if answer.rcode() in {
            dns.rcode.YXDOMAIN, dns.rcode.YXRRSET, dns.rcode.NXRRSET, dns.rcode.NXDOMAIN,
        }:  # fmt: skip
            return False
        if answer.rcode() == dns.rcode.SERVFAIL:
            with _uncertain():  # it may have handed the update on, to a server that did it
                raise self._refusal(answer)
        raise self._refusal(answer)

    async def zone_of(self, name: "dns.name.Name", given: "dns.name.Name | None") -> "dns.name.Name":
        """Return the zone that holds a name: the one given, or the nearest that the server has.

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
                zone = f"no zone {_plain(given)}" if given is not None else f"no zone for {_plain(name)}"
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
        return await self.ask(query)  # which is right for a long answer, and says what is wrong

    def __str__(self) -> str:
        return f"{self.host} port {self.port}"

    async def _exchange(
        self,
        message: "dns.message.Message",
        doubt: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> "dns.message.Message":
        """Send a message and return the answer; ``doubt`` marks errors after it was sent."""
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
        except ValueError:  # UnicodeError too: a label that is too long, a character that no name has
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
            # Servers do not sign that they refuse: they may not know the key.
            if self.key is not None and (answer.had_tsig or answer.rcode() not in _unsigned()):
                answer = dns.message.from_wire(data, keyring=self.key, request_mac=message.mac)
                if not answer.had_tsig:  # some versions of the library let it pass
                    raise dns.exception.FormError
        except dns.tsig.PeerError as error:
            reason = _PEERS.get(type(error).__name__, "it does not take the signature")
            raise refused(f"{self.what}: {self} refuses: {reason}", "DnsRefused") from None
        except dns.exception.DNSException:
            with doubt():
                raise self._unreachable("the answer cannot be read, or is not signed as it should") from None
        if not message.is_response(answer):
            with doubt():
                raise self._unreachable("the answer is to another question")
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
    "PeerBadSignature": "its key of that name is another one",
    "PeerBadTime": "the clocks differ too much",
}


def _unsigned() -> "set[dns.rcode.Rcode]":
    from dns.rcode import Rcode

    return {Rcode.FORMERR, Rcode.SERVFAIL, Rcode.NOTIMP, Rcode.REFUSED, Rcode.NOTAUTH}


async def _ask_system(query: "dns.message.Message", port: int, what: str) -> "dns.message.QueryMessage":
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
            return await _Server(host=address, port=port, what=what).ask_first_over_udp(query)
        except ApplicationError as error:
            failure = error
    raise failure


@contextmanager
def _uncertain() -> Iterator[None]:
    """Mark an error inside: the update may have been applied."""
    try:
        yield
    except ApplicationError as error:
        raise ApplicationError(
            error.message,
            *error.details,
            UNCERTAIN,
            type=error.type,
            non_retryable=error.non_retryable,
        ) from None


def _reason(error: OSError | EOFError, otherwise: str) -> str:
    """Return what the system says; without the addresses, which the message has already."""
    if isinstance(error, socket.gaierror):
        return str(error.strerror).lower()
    number = error.errno if isinstance(error, OSError) else None
    return os.strerror(number).lower() if number else otherwise


def _needs(activity_name: str) -> None:
    try:
        import dns.message  # noqa: F401 - only whether it is there
    except ImportError:
        raise refused(
            f"{extras.missing(activity_name, EXTRA)}: {extras.remedy(EXTRA)}", "MissingExtra"
        ) from None


def _plain(name: "dns.name.Name") -> str:
    return name.to_text(omit_final_dot=True)


def _name(text: str, parameter: str) -> "dns.name.Name":
    import dns.exception
    import dns.name

    try:
        if not any(character.isspace() for character in text):
            return dns.name.from_text(text)
    except (dns.exception.DNSException, ValueError):
        pass  # said below, without the library's words
    raise refused(f"{parameter} is not a DNS name", "InvalidInput")


def _type(text: str) -> "dns.rdatatype.RdataType":
    import dns.rdatatype

    try:
        kind = dns.rdatatype.from_text(text)
    except (dns.rdatatype.UnknownRdatatype, ValueError):
        kind = dns.rdatatype.NONE
    if kind == dns.rdatatype.NONE or dns.rdatatype.is_metatype(kind) or kind == dns.rdatatype.RRSIG:
        raise refused("type is not the type of a record set, such as A or TXT", "InvalidInput")
    return kind


def _record(kind: "dns.rdatatype.RdataType", text: str, number: int) -> "dns.rdata.Rdata":
    """Read one value; what a zone file would skip or split in silence is refused."""
    import dns.exception
    import dns.name
    import dns.rdata
    import dns.rdataclass

    refusal = refused(f"values[{number}] is not a value of the type {kind.name}", "InvalidInput")
    if "\n" in text or "\r" in text:
        raise refusal
    if kind.name in {"TXT", "SPF"} and not text.startswith('"') and set(text) & set(' \t;()"'):
        raise refused(
            f"values[{number}]: text with spaces or semicolons stands in double quotes", "InvalidInput"
        )
    try:
        record = dns.rdata.from_text(dns.rdataclass.IN, kind, text, dns.name.root, relativize=False)
    except (dns.exception.DNSException, ValueError):
        raise refusal from None
    if record.rdcomment is not None:
        raise refusal
    return record


def _key(secret: str | None) -> "dns.tsig.Key | None":
    """Read the key that a secret of the worker holds, in the form that nsupdate -y takes."""
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
        pass  # said below, without a word of the value
    raise refused(f'the secret "{secret}" is not a key such as hmac-sha256:name:base64', "InvalidInput")
