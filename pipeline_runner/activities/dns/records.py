"""The ``dns`` family: record sets, looked up and changed by dynamic updates (RFC 2136).

A change is one UPDATE message over TCP. Its prerequisites are the record set as it was read: a set that
somebody else has changed in between is read again, and never overwritten unseen. The result is read
back: servers silently skip what is impossible, such as records beside a CNAME. Before a change, the
previous state is saved on the pipeline's server, so that a later attempt does not take the work of an
earlier one for the original.

Messages name record sets, servers and zones, never values or keys.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta
from temporalio.exceptions import ApplicationError

from pipeline_runner.activities.catalogue import extras
from pipeline_runner.activities.catalogue.undo import Undo
from pipeline_runner.activities.dns.server import Server, ask_system, in_doubt, key_of, plain
from pipeline_runner.activities.toolkit.errors import refused
from pipeline_runner.activities.toolkit.heartbeat import Heart, heartbeating, remembered
from pipeline_runner.activities.toolkit.parameters import built_in, doc
from pipeline_runner.activities.toolkit.threads import in_thread
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
TRIES = 5
"""How often an update is retried if others keep changing the set."""
DEFAULT_TTL = 300

_SERVERS_OWN = {"SOA", "RRSIG", "NSEC", "NSEC3", "NSEC3PARAM"}
"""Types that servers write themselves."""

Name = Annotated[
    str, doc("The full name, such as www.example.org. A trailing dot is optional.", min_length=1)
]
Type = Annotated[str, doc("The record type, such as A, AAAA, CNAME, TXT, MX or SRV.", min_length=1)]
Port = Annotated[int, doc("The server's port.", ge=1, le=65535)]
ServerName = Annotated[str, doc("The address or name of the server.", min_length=1)]
Zone = Annotated[str | None, doc("The zone of the name. Default: the server is asked for it.")]
Tsig = Annotated[
    str | None,
    doc(
        "The name of a secret on the worker that holds the key to sign messages with, as"
        " algorithm:name:secret. Default: messages are not signed.",
        extra_json_schema={"x-secret": True},
    ),
]


@dataclass(frozen=True, kw_only=True)
class LookupInput:
    """The name to look up, and the server to ask."""

    name: Name
    type: Type
    server: Annotated[
        Annotated[str, Meta(min_length=1)] | None,
        doc("The address or name of the server to ask. Default: the system's servers."),
    ] = None
    port: Port = 53


@dataclass(frozen=True, kw_only=True)
class LookupOutput:
    """The values found."""

    name: Annotated[str, doc("The requested name, without a trailing dot.")]
    type: Annotated[str, doc("The requested type.")]
    canonical_name: Annotated[
        str, doc("The name that has the values. It differs from `name` if that is an alias.")
    ]
    values: Annotated[
        list[str], doc("The values, in the format of a zone file, sorted. Empty if there are none.")
    ]
    ttl: Annotated[int | None, doc("The TTL in seconds. Null if there are no values.")]


@dataclass(frozen=True, kw_only=True)
class UpsertInput:
    """The wanted record set, and the server of its zone."""

    name: Name
    type: Type
    values: Annotated[
        list[str],
        doc(
            "All values, in the format of a zone file, with full names. Put TXT strings that"
            ' contain spaces in double quotes: ["\\"v=spf1 -all\\""]. An empty list removes the set.'
        ),
    ]
    ttl: Annotated[
        Annotated[int, Meta(ge=0, le=2**31 - 1)] | None, doc(f"The TTL in seconds. Null: {DEFAULT_TTL}.")
    ] = DEFAULT_TTL
    server: ServerName
    port: Port = 53
    zone: Zone = None
    tsig: Tsig = None


@dataclass(frozen=True, kw_only=True)
class RecordSet:
    """The values of one name and type."""

    values: Annotated[
        list[str], doc("The values, in the format of a zone file, sorted. Empty if there are none.")
    ] = field(default_factory=list)
    ttl: Annotated[int | None, doc("The TTL in seconds. Null if there are no values.")] = None


@dataclass(frozen=True, kw_only=True)
class UpsertOutput:
    """The record set after and before the step."""

    name: Annotated[str, doc("The name, without a trailing dot.")]
    type: Annotated[str, doc("The record type.")]
    values: Annotated[list[str], doc("The values, in the format of a zone file, sorted.")]
    ttl: Annotated[int | None, doc("The TTL in seconds. Null if there are no values.")]
    changed: Annotated[bool, doc("Whether the set was different before the step.")]
    replaced: Annotated[RecordSet, doc("The set before the step, regardless of which attempt changed it.")]


@dataclass(frozen=True, kw_only=True)
class RemoveInput:
    """The record set to remove, and the server of its zone."""

    name: Name
    type: Type
    values: Annotated[
        Annotated[list[str], Meta(min_length=1)] | None,
        doc("The values to remove, in the format of a zone file. Default: all."),
    ] = None
    server: ServerName
    port: Port = 53
    zone: Zone = None
    tsig: Tsig = None


@dataclass(frozen=True, kw_only=True)
class RemoveOutput:
    """The removed values."""

    name: Annotated[str, doc("The name, without a trailing dot.")]
    type: Annotated[str, doc("The record type.")]
    removed: Annotated[
        RecordSet, doc("The values that the step removed, in any attempt. Empty if it removed none.")
    ]
    replaced: Annotated[RecordSet, doc("The set before the step, regardless of which attempt changed it.")]


@built_in("dns.lookup", extra=EXTRA, timeouts=Timeouts(heartbeat=10.0), effect_free=True)
async def lookup(parameters: LookupInput) -> LookupOutput:
    """Look up the values of a name. Aliases are followed. A name without values is not an error.

    Without ``server``, asks the system's DNS servers. The hosts file is not read.
    """
    _needs("dns.lookup")
    import dns.exception
    import dns.message

    name, kind = _name(parameters.name, "name"), _type(parameters.type)
    what = f"look up {kind.name} {plain(name)}"
    query = dns.message.make_query(name, kind)
    async with heartbeating():
        if parameters.server is not None:
            server = Server(host=parameters.server, port=parameters.port, what=what)
            answer = await server.ask(query)
        else:
            answer = await ask_system(query, parameters.port, what)
    try:
        found = answer.resolve_chaining()
    except dns.exception.DNSException:
        raise ApplicationError(
            f"{what}: the answer is not valid: it may contain a loop of aliases", type="DnsServerFailure"
        ) from None
    there = _Set.of(found.answer)
    return LookupOutput(
        name=plain(name),
        type=kind.name,
        canonical_name=plain(found.canonical_name),
        values=there.values,
        ttl=there.ttl,
    )


_RESTORE = Undo(
    "dns.upsert",
    {
        "name": "{{ step.input.name }}",
        "type": "{{ step.input.type }}",
        "values": "{{ step.output.replaced['values'] }}",
        "ttl": "{{ step.output.replaced.ttl }}",
        "server": "{{ step.input.server }}",
        "port": "{{ step.input.port | default(53) }}",
        "zone": "{{ step.input.zone | default(none) }}",
        "tsig": "{{ step.input.tsig | default(none) }}",
    },
    after="completed",
)
"""Only a completed step knows the previous values."""


@built_in("dns.upsert", extra=EXTRA, timeouts=Timeouts(heartbeat=10.0), undo=_RESTORE)
async def upsert(parameters: UpsertInput) -> UpsertOutput:
    """Set a record set to exactly these values, in one dynamic update.

    Undone by `dns.upsert` with the previous values and TTL. They are unknown if the outcome
    of the step is unknown: then look them up in an earlier step, and use them in `compensate`.
    """
    async with heartbeating() as heart:
        change = await in_thread(lambda: _Change(heart, "dns.upsert", "set", parameters))
        ttl = DEFAULT_TTL if parameters.ttl is None else parameters.ttl
        records = change.records(parameters.values)
        wanted = _Set(records=records, ttl=ttl if records else None)
        there = await change.make(lambda _: wanted, note=lambda before: before)
    return UpsertOutput(
        name=plain(change.name),
        type=change.kind.name,
        values=there.values,
        ttl=there.ttl,
        changed=change.noted != there,
        replaced=change.noted.shown,
    )


@built_in("dns.remove", extra=EXTRA, timeouts=Timeouts(heartbeat=10.0), undo=_RESTORE)
async def remove(parameters: RemoveInput) -> RemoveOutput:
    """Remove a record set, or some of its values. Missing values are not an error.

    Undone by `dns.upsert` with the previous values and TTL. They are unknown if the outcome
    of the step is unknown: then look them up in an earlier step, and use them in `compensate`.
    """
    async with heartbeating() as heart:
        change = await in_thread(lambda: _Change(heart, "dns.remove", "remove", parameters))
        unwanted = None if parameters.values is None else change.records(parameters.values)

        def taken(before: _Set) -> _Set:
            return before if unwanted is None else before.only(before.records & unwanted)

        def left(before: _Set) -> _Set:
            return before.only(before.records - taken(before).records)

        await change.make(left, note=lambda before: before)
    return RemoveOutput(
        name=plain(change.name),
        type=change.kind.name,
        removed=taken(change.noted).shown,
        replaced=change.noted.shown,
    )


@dataclass(frozen=True, kw_only=True)
class _Set:
    """A record set. An empty one has no TTL."""

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
        _needs(activity_name)
        self.name, self.kind = _name(given.name, "name"), _type(given.type)
        if self.kind.name in _SERVERS_OWN:
            raise refused(f"{self.kind.name} records are managed by the server itself", "InvalidInput")
        self.what = f"{verb} {self.kind.name} {plain(self.name)}"
        self._server = Server(host=given.server, port=given.port, what=self.what, key=key_of(given.tsig))
        self._given_zone = None if given.zone is None else _name(given.zone, "zone")
        if self._given_zone is not None and not self.name.is_subdomain(self._given_zone):
            raise refused(f"{plain(self.name)} is not in the zone {plain(self._given_zone)}", "InvalidInput")
        self._told = None if told is None else _Set(records=self.records(told["values"]), ttl=told["ttl"])
        self.noted = _Set()

    def records(self, values: list[str]) -> "frozenset[dns.rdata.Rdata]":
        """Return values as records, as in a zone file."""
        import dns.rdatatype

        found = frozenset(_record(self.kind, value, number) for number, value in enumerate(values))
        if len(found) > 1 and dns.rdatatype.is_singleton(self.kind):
            raise refused(
                f"a name can have only one {self.kind.name} record, not {len(found)}", "InvalidInput"
            )
        return found

    async def make(self, wanted: Callable[[_Set], _Set], note: Callable[[_Set], _Set]) -> _Set:
        """Change the set, whatever it is, to the wanted one, and return it.

        Args:
            wanted: Returns the wanted set, given the current one.
            note: Returns what of the original set is to be saved, as ``noted``.
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
                with in_doubt():
                    now, applied = await self._look(zone, before, after)
                if not applied:
                    raise self._not_applied(now == before)
                return after
            now = await self._read()
            # A wildcard answers for names that do not exist: its values are not in any set.
            before = _Set() if now == before else now
        raise ApplicationError(
            f"{self.what}: the record set changed {TRIES} times during the update", type="DnsConflict"
        )

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
        """Read the set back, and tell whether it contains the update.

        Changes of other values by others do not matter here.
        """
        now = await self._read()
        added, gone = after.records - before.records, before.records - after.records
        if added <= now.records and not gone & now.records:
            return now, bool(added or gone) or now.ttl == after.ttl
        return now, not after.records and await self._is_absent(zone)

    async def _is_absent(self, zone: "dns.name.Name") -> bool:
        """Ask for the set itself, not for the values of a wildcard in its place."""
        import dns.update

        message = dns.update.UpdateMessage(zone)
        message.absent(self.name, self.kind)
        return await self._server.update(message)

    def _not_applied(self, nothing: bool) -> ApplicationError:
        return refused(
            f"{self.what}: the server accepted the update but did not apply it;"
            " it ignores impossible changes, such as records beside a CNAME",
            "DnsNotApplied",
            *([] if nothing else [UNCERTAIN]),
        )


def _needs(activity_name: str) -> None:
    try:
        import dns.message  # noqa: F401 - only to see whether it is installed
    except ImportError:
        raise refused(
            f"{extras.missing(activity_name, EXTRA)}: {extras.remedy(EXTRA)}", "MissingExtra"
        ) from None


def _name(text: str, parameter: str) -> "dns.name.Name":
    import dns.exception
    import dns.name

    try:
        if not any(character.isspace() for character in text):
            return dns.name.from_text(text)
    except (dns.exception.DNSException, ValueError):
        pass  # reported below, without the library's message
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
    """Return one value as a record. Refuse what a zone file would silently skip or split."""
    import dns.exception
    import dns.name
    import dns.rdata
    import dns.rdataclass

    refusal = refused(f"values[{number}] is not a value of the type {kind.name}", "InvalidInput")
    if "\n" in text or "\r" in text:
        raise refusal
    if kind.name in {"TXT", "SPF"} and not text.startswith('"') and set(text) & set(' \t;()"'):
        raise refused(
            f"values[{number}]: put strings that contain spaces or semicolons in double quotes",
            "InvalidInput",
        )
    try:
        record = dns.rdata.from_text(dns.rdataclass.IN, kind, text, dns.name.root, relativize=False)
    except (dns.exception.DNSException, ValueError):
        raise refusal from None
    if record.rdcomment is not None:
        raise refusal
    return record
