"""The dns family against a real Knot DNS, and against servers that lose or hold an answer."""

import asyncio
import contextlib
import dataclasses
import logging
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.query
import dns.rcode
import dns.resolver
import dns.rrset
import dns.tsig
import dns.update
import dns.xfr
import dns.zone
import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from pipeline_runner.activities.catalogue import extras
from pipeline_runner.activities.catalogue.providers import catalogue_of
from pipeline_runner.activities.catalogue.undo import Undo
from pipeline_runner.activities.dns import server as dns_server
from pipeline_runner.activities.dns.records import lookup, remove, upsert
from pipeline_runner.activities.toolkit import heartbeat
from pipeline_runner.core.errors import UNCERTAIN
from pipeline_runner.server.devserver import free_port
from tests.conftest import Pipelines, result_of
from tests.engine.test_undo import failure
from tests.services import TSIG_SECRET, ZONE, NameServer

Run = Callable[..., Any]
NewEnvironment = Callable[..., ActivityEnvironment]
Content = dict[tuple[str, str], tuple[int, list[str]]]

KEY = dns.tsig.Key("pipelines", TSIG_SECRET)
OLD = {"values": ["192.0.2.1", "192.0.2.2"], "ttl": 60}
EMPTY: dict[str, Any] = {"values": [], "ttl": None}


def content(knot: NameServer) -> Content:
    """Return all of the zone, by a transfer, but for the SOA, in which the server counts."""
    zone = dns.zone.Zone(ZONE, relativize=False)
    query, _ = dns.xfr.make_query(zone, keyring=KEY)
    dns.query.inbound_xfr("127.0.0.1", zone, query, port=knot.port, timeout=5)
    return {
        (str(name.relativize(dns.name.from_text(ZONE))), kind.rdtype.name): (
            kind.ttl,
            sorted(record.to_text() for record in kind),
        )
        for name, kind in zone.iterate_rdatasets()
        if kind.rdtype.name != "SOA"
    }


def change(knot: NameServer, name: str, kind: str, *values: str, ttl: int = 60) -> None:
    """Make a record set hold these values, by the library alone."""
    message = dns.update.UpdateMessage(ZONE, keyring=KEY)
    message.delete(name, kind)
    for value in values:
        message.add(name, ttl, kind, value)
    answer = dns.query.tcp(message, "127.0.0.1", port=knot.port, timeout=5)
    assert answer.rcode() == dns.rcode.NOERROR


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "_OFTEN", 0.0)  # every heartbeat that tells something is seen
    monkeypatch.setenv("WRONG_KEY", "hmac-sha256:pipelines:aHVudGVyMg==")
    monkeypatch.setenv("STRANGE_KEY", "hmac-sha256:nobody:aHVudGVyMg==")


@pytest.fixture
def knot(name_server: NameServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[NameServer]:
    """The session's server; it is running, and its zone as it was, after the test."""
    monkeypatch.setenv("DNS_KEY", name_server.tsig)
    before = content(name_server)
    yield name_server
    if name_server.process is None or name_server.process.poll() is not None:
        name_server.start()
    now = content(name_server)
    for name, kind in now.keys() - before.keys():
        change(name_server, name, kind)
    for (name, kind), (ttl, values) in before.items():
        if now.get((name, kind)) != (ttl, values):
            change(name_server, name, kind, *values, ttl=ttl)
    assert content(name_server) == before


def at(knot: NameServer, name: str, kind: str, /, **more: Any) -> dict[str, Any]:
    """Return the parameters for a name of the zone."""
    place = {"server": "127.0.0.1", "port": knot.port}
    return {"name": f"{name}.{ZONE}", "type": kind, **place, "tsig": "DNS_KEY", **more}


def without_key(given: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if name != "tsig"}


def failed(run: Run, activity: Any, /, **parameters: Any) -> ApplicationError:
    with pytest.raises(ApplicationError) as caught:
        run(activity, **parameters)
    error = caught.value
    assert error.__cause__ is None
    assert error.__suppress_context__ or error.__context__ is None
    return error


def told(error: ApplicationError) -> tuple[str | None, bool, bool]:
    """Return the type, whether it is final, and whether the outcome is not known."""
    return error.type, error.non_retryable, UNCERTAIN in error.details


def plain(value: Any) -> Any:
    return dataclasses.asdict(value)


# What it does.


def test_a_record_set_is_created_and_restored_to_nothing(run: Run, knot: NameServer) -> None:
    made = run(upsert, **at(knot, "www", "A", values=["192.0.2.9", "192.0.2.10"]))
    assert plain(made) == {
        "name": f"www.{ZONE}",
        "type": "A",
        "values": ["192.0.2.10", "192.0.2.9"],
        "ttl": 300,
        "changed": True,
        "replaced": EMPTY,
    }
    assert knot.ask("www", "A") == ["192.0.2.10", "192.0.2.9"]
    undone = run(upsert, **at(knot, "www", "A", **plain(made.replaced)))
    assert (undone.values, undone.ttl, undone.changed) == ([], None, True)
    assert plain(undone.replaced) == {"values": ["192.0.2.10", "192.0.2.9"], "ttl": 300}
    assert knot.ask("www", "A") == []


def test_a_record_set_is_replaced_and_restored(run: Run, knot: NameServer) -> None:
    before = content(knot)
    made = run(upsert, **at(knot, "old", "a", values=["192.0.2.2", "192.0.2.3"], ttl=5))
    assert (made.type, made.changed, plain(made.replaced)) == ("A", True, OLD)
    assert content(knot)["old", "A"] == (5, ["192.0.2.2", "192.0.2.3"])
    run(upsert, **at(knot, "old", "A", **plain(made.replaced)))
    assert content(knot) == before


def test_what_is_as_wanted_is_left_alone(run: Run, knot: NameServer) -> None:
    def serial() -> str:
        query = dns.message.make_query(ZONE, "SOA")
        return dns.query.tcp(query, "127.0.0.1", port=knot.port, timeout=5).answer[0].to_text()

    before = serial()
    made = run(upsert, **at(knot, "old", "A", values=["192.0.2.2", "192.0.2.1", "192.0.2.1"], ttl=60))
    assert (made.changed, plain(made.replaced)) == (False, OLD)
    gone = run(remove, **at(knot, "nothing", "A"))
    assert plain(gone) == {"name": f"nothing.{ZONE}", "type": "A", "removed": EMPTY, "replaced": EMPTY}
    assert run(upsert, **at(knot, "nothing", "A", values=[])).changed is False
    assert serial() == before


def test_another_ttl_is_a_change(run: Run, knot: NameServer) -> None:
    made = run(upsert, **at(knot, "old", "A", values=OLD["values"], ttl=61))
    assert (made.changed, plain(made.replaced)) == (True, OLD)
    assert content(knot)["old", "A"] == (61, OLD["values"])


def test_a_record_set_is_removed_and_restored(run: Run, knot: NameServer) -> None:
    before = content(knot)
    gone = run(remove, **at(knot, "old", "A"))
    assert plain(gone.removed) == OLD
    assert knot.ask("old", "A") == []
    assert run(upsert, **at(knot, "old", "A", **plain(gone.removed))).changed
    assert content(knot) == before


def test_some_values_are_removed(run: Run, knot: NameServer) -> None:
    gone = run(remove, **at(knot, "old", "A", values=["192.0.2.2", "192.0.2.77"]))
    assert plain(gone.removed) == {"values": ["192.0.2.2"], "ttl": 60}
    assert plain(gone.replaced) == OLD
    assert content(knot)["old", "A"] == (60, ["192.0.2.1"])
    assert plain(run(remove, **at(knot, "old", "A", values=["192.0.2.2"])).removed) == EMPTY
    run(remove, **at(knot, "old", "A", values=["192.0.2.1"]))
    assert knot.ask("old", "A") == []


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("TXT", ['"a \\"quoted\\" word; and one"', '"two" "strings"', '"v=spf1 -all"']),
        ("MX", ["10 mail.example.test.", "20 mail.example.test."]),
        ("SRV", ["1 2 443 old.example.test."]),
        ("CAA", ['0 issue "ca.example; account=7"']),
        ("AAAA", ["2001:db8::1"]),
        ("CNAME", ["old.example.test."]),
        ("TYPE65280", ["\\# 3 010203"]),
    ],
)
def test_values_come_back_as_they_were_written(
    run: Run, knot: NameServer, kind: str, values: list[str]
) -> None:
    made = run(upsert, **at(knot, "some", kind, values=values))
    assert made.values == values
    assert content(knot)["some", kind] == (300, values)
    found = run(lookup, **without_key(at(knot, "some", kind)))
    assert (found.values, found.ttl) == (values, 300)


def test_names_in_values_are_full_names(run: Run, knot: NameServer) -> None:
    made = run(upsert, **at(knot, "new", "CNAME", values=["Old.example.test"]))
    assert made.values == ["Old.example.test."]
    again = run(upsert, **at(knot, "new", "CNAME", values=["old.EXAMPLE.test."]))
    assert again.changed is False


def test_the_name_servers_of_the_zone_are_changed_one_by_one(run: Run, knot: NameServer) -> None:
    given = {**at(knot, "", "NS"), "name": ZONE}
    made = run(upsert, **given, values=["ns2.example.test", "ns3.example.test"], ttl=60)
    assert plain(made.replaced) == {"values": ["ns.example.test."], "ttl": 60}
    assert content(knot)["@", "NS"][1] == ["ns2.example.test.", "ns3.example.test."]
    run(upsert, **given, **plain(made.replaced))
    assert content(knot)["@", "NS"] == (60, ["ns.example.test."])
    error = failed(run, remove, **given)
    assert told(error) == ("DnsNotApplied", True, False)


def test_a_name_below_a_wildcard(run: Run, knot: NameServer) -> None:
    """A wildcard's answer is not the record set of the name, and is no obstacle."""
    change(knot, "*", "A", "192.0.2.200")
    assert knot.ask("wild", "A") == ["192.0.2.200"]
    made = run(upsert, **at(knot, "wild", "A", values=["192.0.2.3"]))
    assert (made.changed, plain(made.replaced)) == (True, EMPTY)
    assert knot.ask("wild", "A") == ["192.0.2.3"]
    gone = run(remove, **at(knot, "wild", "A"))
    assert plain(gone.removed) == {"values": ["192.0.2.3"], "ttl": 300}
    assert ("wild", "A") not in content(knot)
    assert plain(run(remove, **at(knot, "wild", "A")).removed) == EMPTY


def test_the_zone_can_be_given(run: Run, knot: NameServer) -> None:
    assert run(upsert, **at(knot, "a.b.c", "A", values=["192.0.2.3"], zone=f"{ZONE}.")).changed
    assert knot.ask("a.b.c", "A") == ["192.0.2.3"]


# Looking up.


def test_a_lookup(run: Run, knot: NameServer) -> None:
    given = without_key(at(knot, "old", "A"))
    assert plain(run(lookup, **given)) == {
        "name": f"old.{ZONE}",
        "type": "A",
        "canonical_name": f"old.{ZONE}",
        **OLD,
    }
    assert plain(run(lookup, **{**given, "type": "MX"})) == {
        "name": f"old.{ZONE}",
        "type": "MX",
        "canonical_name": f"old.{ZONE}",
        **EMPTY,
    }
    nothing = run(lookup, **without_key(at(knot, "nothing", "A")))
    assert (nothing.values, nothing.ttl) == ([], None)


def test_a_lookup_follows_aliases(run: Run, knot: NameServer) -> None:
    found = run(lookup, **without_key(at(knot, "alias", "A")))
    assert (found.values, found.canonical_name) == (OLD["values"], f"old.{ZONE}")
    found = run(lookup, **without_key(at(knot, "alias", "CNAME")))
    assert (found.values, found.canonical_name) == ([f"old.{ZONE}."], f"alias.{ZONE}")


def test_a_lookup_by_the_name_of_the_server(run: Run, knot: NameServer) -> None:
    given = without_key(at(knot, "ns", "A", server="localhost"))
    assert run(lookup, **given).values == ["127.0.0.1"]


class _Servers:
    """A machine with these DNS servers."""

    nameservers = ("127.0.0.1", "127.0.0.1")


def test_a_lookup_by_the_servers_of_the_system(
    run: Run, knot: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dns.resolver, "Resolver", _Servers)
    given = {"name": f"old.{ZONE}", "type": "A", "port": knot.port}
    assert run(lookup, **given).values == OLD["values"]
    error = failed(run, lookup, **{**given, "name": "elsewhere.invalid"})
    assert error.message == (f"look up A elsewhere.invalid: 127.0.0.1 port {knot.port} refuses (REFUSED)")
    many = [f"192.0.2.{number}" for number in range(200)]
    run(upsert, **at(knot, "many", "A", values=many))
    assert len(run(lookup, **{**given, "name": f"many.{ZONE}"}).values) == 200  # too long for UDP
    knot.kill()
    monkeypatch.setattr(dns_server, "UDP_TIMEOUT", 0.1)
    assert told(failed(run, lookup, **given)) == ("DnsUnreachable", False, False)


def test_a_system_without_servers(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> None:
        raise dns.resolver.NoResolverConfiguration

    monkeypatch.setattr(dns.resolver, "Resolver", none)
    error = failed(run, lookup, name="a.example", type="A")
    assert error.message == "look up A a.example: the system has no DNS servers"
    assert told(error) == ("DnsUnreachable", False, False)


# What is refused.


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": "a..b", "values": []}, "name is not a DNS name"),
        ({"name": "x" * 64, "values": []}, "name is not a DNS name"),
        ({"name": "www\n", "values": []}, "name is not a DNS name"),
        ({"type": "NOPE", "values": []}, "type is not the type of a record set, such as A or TXT"),
        ({"type": "ANY", "values": []}, "type is not the type of a record set, such as A or TXT"),
        ({"type": "SOA", "values": []}, "SOA records are managed by the server itself"),
        ({"values": ["192.0.2.1", "hunter2"]}, "values[1] is not a value of the type A"),
        ({"values": ["192.0.2.1\n192.0.2.2"]}, "values[0] is not a value of the type A"),
        ({"values": ["192.0.2.1 ; hunter2"]}, "values[0] is not a value of the type A"),
        ({"type": "MX", "values": ["70000 hunter2"]}, "values[0] is not a value of the type MX"),
        (
            {"type": "TXT", "values": ["v=spf1 hunter2"]},
            "values[0]: put strings that contain spaces or semicolons in double quotes",
        ),
        (
            {"type": "TXT", "values": ["v=DKIM1;k=hunter2"]},
            "values[0]: put strings that contain spaces or semicolons in double quotes",
        ),
        (
            {"type": "TXT", "values": ['"' + "hunter2" * 100 + '"']},
            "values[0] is not a value of the type TXT",
        ),
        ({"type": "CNAME", "values": ["a.test", "b.test"]}, "a name can have only one CNAME record, not 2"),
        ({"values": [], "zone": "other.test"}, f"new.{ZONE} is not in the zone other.test"),
        ({"values": [], "server": "x" * 64}, "server is not an address or a name"),
        ({"values": [], "ttl": -1}, "the input is not valid: Expected `int` >= 0 - at `ttl`"),
        ({"values": "192.0.2.1"}, "the input is not valid: Expected `array`, got `str` - at `values`"),
        (
            {"type": "TXT", "values": [f'"{"hunter2" * 36}" "{n}"' for n in range(300)]},
            f"set TXT new.{ZONE}: the record set is too large for a message",
        ),
    ],
)
def test_input_that_cannot_be(run: Run, knot: NameServer, given: dict[str, Any], message: str) -> None:
    error = failed(run, upsert, **{**at(knot, "new", "A"), **given})
    assert error.message == message
    assert told(error) == ("InvalidInput", True, False)
    assert knot.ask("new", "TXT") == []


@pytest.mark.parametrize("activity", [upsert, remove])
def test_records_beside_a_cname_are_not_taken_for_applied(run: Run, knot: NameServer, activity: Any) -> None:
    if activity is remove:
        assert plain(run(remove, **at(knot, "alias", "A")).removed) == EMPTY
        return
    error = failed(run, upsert, **at(knot, "alias", "A", values=["192.0.2.3"]))
    assert error.message == (
        f"set A alias.{ZONE}: the server accepted the update but did not apply it;"
        " it ignores impossible changes, such as records beside a CNAME"
    )
    assert told(error) == ("DnsNotApplied", True, False)
    error = failed(run, upsert, **at(knot, "old", "CNAME", values=["text.example.test"]))
    assert error.type == "DnsNotApplied"
    assert knot.ask("old", "A") == OLD["values"]


@pytest.mark.parametrize(
    ("secret", "reason"),
    [
        ("WRONG_KEY", " refuses: it has a different key with that name"),
        ("STRANGE_KEY", " refuses: it does not know the key"),
    ],
)
def test_a_wrong_key_is_refused(run: Run, knot: NameServer, secret: str, reason: str) -> None:
    error = failed(run, upsert, **at(knot, "new", "A", values=["192.0.2.3"], tsig=secret))
    assert error.message == f"set A new.{ZONE}: 127.0.0.1 port {knot.port}{reason}"
    assert told(error) == ("DnsRefused", True, False)
    assert knot.ask("new", "A") == []


def test_no_key_is_refused(run: Run, knot: NameServer) -> None:
    error = failed(run, remove, **at(knot, "old", "A", tsig=None))
    assert error.message == f"remove A old.{ZONE}: 127.0.0.1 port {knot.port} refuses (NOTAUTH)"
    assert told(error) == ("DnsRefused", True, False)
    assert knot.ask("old", "A") == OLD["values"]


def test_a_missing_secret(run: Run, knot: NameServer) -> None:
    error = failed(run, remove, **at(knot, "old", "A", tsig="NO_SUCH_KEY"))
    assert error.message.startswith(
        'the worker has no secret "NO_SUCH_KEY": there is no environment variable'
    )
    assert told(error) == ("SecretNotFound", True, False)


@pytest.mark.parametrize(
    "value",
    [
        "hunter2",
        "pipelines:aHVudGVyMg==",
        "hmac-sha256:pipelines:",
        "hmac-sha256:pipelines:hunter2!",
        "hmac-hunter2:pipelines:aHVudGVyMg==",
        "gss-tsig:pipelines:aHVudGVyMg==",
        "hmac-sha256:a..hunter2:aHVudGVyMg==",
        "hmac-sha256:a:b:aHVudGVyMg==",
    ],
)
def test_a_secret_that_is_no_key(
    run: Run, knot: NameServer, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BAD_KEY", value)
    error = failed(run, remove, **at(knot, "old", "A", tsig="BAD_KEY"))
    assert error.message == 'the secret "BAD_KEY" is not a key such as hmac-sha256:name:base64'
    assert told(error) == ("InvalidInput", True, False)


def test_a_zone_that_the_server_does_not_have(run: Run, knot: NameServer) -> None:
    given = {**at(knot, "", "A", values=[]), "name": "www.elsewhere.invalid"}
    error = failed(run, upsert, **given)
    where = f"127.0.0.1 port {knot.port}"
    assert error.message == (f"set A www.elsewhere.invalid: {where} has no zone for www.elsewhere.invalid")
    assert told(error) == ("DnsZoneNotFound", True, False)
    error = failed(run, upsert, **{**given, "zone": "elsewhere.invalid"})
    assert error.message == f"set A www.elsewhere.invalid: {where} has no zone elsewhere.invalid"
    assert told(error) == ("DnsZoneNotFound", True, False)


def test_without_the_library(run: Run, knot: NameServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dns.message", None)
    for activity, given in ((lookup, {}), (remove, {}), (upsert, {"values": []})):
        place = {} if activity is lookup else {"server": "127.0.0.1"}
        error = failed(run, activity, name="a.test", type="A", **place, **given)
        name = {lookup: "dns.lookup", remove: "dns.remove", upsert: "dns.upsert"}[activity]
        assert error.message == f'"{name}" needs the Python package "dns": {extras.remedy("dns")}'
        assert told(error) == ("MissingExtra", True, False)


def test_messages_and_logs_hold_no_secrets(
    run: Run, knot: NameServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    said = [
        failed(run, upsert, **at(knot, "new", "TXT", values=["hunter2"], tsig=tsig))
        for tsig in ("WRONG_KEY", "STRANGE_KEY", None)
    ]
    run(upsert, **at(knot, "new", "TXT", values=["hunter2"]))
    text = caplog.text + "".join(f"{error.message} {error.details}" for error in said)
    for secret in ("hunter2", "aHVudGVyMg", TSIG_SECRET, knot.tsig):
        assert secret not in text


def test_what_the_catalogue_is_told() -> None:
    entries = {entry.name: entry for entry in catalogue_of("pipeline_runner.activities.dns.records")}
    assert {
        name: (
            e.effect_free,
            e.undo.activity if isinstance(e.undo, Undo) else None,
            e.extra,
            e.timeouts.heartbeat,
        )
        for name, e in entries.items()
    } == {
        "dns.lookup": (True, None, "dns", 10.0),
        "dns.remove": (False, "dns.upsert", "dns", 10.0),
        "dns.upsert": (False, "dns.upsert", "dns", 10.0),
    }


# Servers that are not there, or hold their tongue.


def test_a_server_that_is_down_and_comes_back(run: Run, knot: NameServer) -> None:
    knot.kill()
    given = at(knot, "new", "A", values=["192.0.2.3"])
    error = failed(run, upsert, **given)
    assert error.message == f"set A new.{ZONE}: 127.0.0.1 port {knot.port}: connection refused"
    assert told(error) == ("DnsUnreachable", False, False)
    error = failed(run, lookup, **without_key(at(knot, "new", "A")))
    assert told(error) == ("DnsUnreachable", False, False)
    knot.start()
    assert run(upsert, **given).changed


@pytest.mark.parametrize("host", ["no-such-host.invalid", "localhost"])
def test_a_server_that_is_not_there(run: Run, host: str) -> None:
    error = failed(run, lookup, name="a.test", type="A", server=host, port=free_port())
    assert error.message.startswith(f"look up A a.test: {host} port ")
    assert told(error) == ("DnsUnreachable", False, False)


class Proxy:
    """Stands before the server, and does something to the updates that pass."""

    def __init__(self, knot: NameServer, handle: Callable[[int], str]) -> None:
        self._server, self.updates = knot, 0
        self._handle = handle

    @classmethod
    @contextlib.asynccontextmanager
    async def serve(
        cls, knot: NameServer, handle: Callable[[int], str]
    ) -> AsyncIterator[tuple["Proxy", int]]:
        """Serve; ``handle`` gets an update's number, and says what becomes of it.

        ``pass``: nothing; ``eat``: the server never sees it; ``drop``: nobody sees the answer;
        ``die``: the server is killed before anybody sees it.
        """
        proxy = cls(knot, handle)
        listening = await asyncio.start_server(proxy._pass, "127.0.0.1", 0)
        try:
            yield proxy, listening.sockets[0].getsockname()[1]
        finally:
            listening.close()
            await listening.wait_closed()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            asked = await _message(reader)
            what = "pass"
            if dns.opcode.from_flags(int.from_bytes(asked[4:6], "big")) == dns.opcode.UPDATE:
                self.updates += 1
                what = await asyncio.to_thread(self._handle, self.updates)
            if what != "eat":
                there_reader, there = await asyncio.open_connection("127.0.0.1", self._server.port)
                there.write(asked)
                answer = await _message(there_reader)
                there.close()
                if what == "die":
                    await asyncio.to_thread(self._server.kill)
                if what != "drop":
                    writer.write(answer)
                    await writer.drain()
        except (OSError, EOFError):
            pass  # the server was killed: then this one hangs up too
        finally:
            writer.close()


async def _message(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readexactly(2)
    return head + await reader.readexactly(int.from_bytes(head, "big"))


def through(
    knot: NameServer,
    env: ActivityEnvironment,
    handle: Callable[[int], str],
    activity: Any,
    given: dict[str, Any],
) -> tuple[Any, int]:
    """Run an activity through a proxy; return its result, or its error, and the number of updates."""

    async def scenario() -> tuple[Any, int]:
        async with Proxy.serve(knot, handle) as (proxy, port):
            try:
                return await env.run(activity, {**given, "port": port}), proxy.updates
            except ApplicationError as error:
                return error, proxy.updates

    return asyncio.run(scenario())


@pytest.mark.parametrize(("what", "there"), [("eat", OLD["values"]), ("drop", ["192.0.2.3"])])
def test_an_update_without_an_answer_is_uncertain(
    environment: NewEnvironment, knot: NameServer, what: str, there: list[str]
) -> None:
    beats: list[Any] = []
    env = environment()
    env.on_heartbeat = lambda *details: beats.append(details)
    given = at(knot, "old", "A", values=["192.0.2.3"])
    error, _ = through(knot, env, lambda _: what, upsert, given)
    assert error.message.startswith(f"set A old.{ZONE}: 127.0.0.1 port ")
    assert error.message.endswith(": the connection was closed")
    assert told(error) == ("DnsUnreachable", False, True)
    assert knot.ask("old", "A") == there
    assert beats[-1] == (OLD,)
    # The next attempt is told what this one remembered.
    again = environment()
    again.info = dataclasses.replace(again.info, attempt=2, heartbeat_details=beats[-1])
    later: list[Any] = []
    again.on_heartbeat = lambda *details: later.append(details)
    made, _ = through(knot, again, lambda _: "pass", upsert, given)
    assert (made.changed, plain(made.replaced)) == (True, OLD)
    assert knot.ask("old", "A") == ["192.0.2.3"]
    assert set(map(str, later)) == {str((OLD,))}  # none that would have the server forget it


def test_a_retry_of_a_removal_tells_what_the_first_attempt_took(
    environment: NewEnvironment, knot: NameServer
) -> None:
    beats: list[Any] = []
    env = environment()
    env.on_heartbeat = lambda *details: beats.append(details)
    error, _ = through(knot, env, lambda _: "drop", remove, at(knot, "old", "A", values=["192.0.2.2"]))
    assert told(error) == ("DnsUnreachable", False, True)
    again = environment()
    again.info = dataclasses.replace(again.info, attempt=2, heartbeat_details=beats[-1])
    gone, updates = through(knot, again, lambda _: "pass", remove, at(knot, "old", "A", values=["192.0.2.2"]))
    assert (plain(gone.removed), updates) == ({"values": ["192.0.2.2"], "ttl": 60}, 0)


def test_a_set_that_changes_in_between_is_read_again(environment: NewEnvironment, knot: NameServer) -> None:
    def handle(number: int) -> str:
        if number == 1:
            change(knot, "old", "A", "192.0.2.50", ttl=7)
        if number == 2:
            change(knot, "old", "A")
        return "pass"

    made, updates = through(knot, environment(), handle, upsert, at(knot, "old", "A", values=["192.0.2.3"]))
    assert (plain(made.replaced), updates) == (EMPTY, 3)
    assert knot.ask("old", "A") == ["192.0.2.3"]


def test_a_set_that_keeps_changing_is_a_conflict(environment: NewEnvironment, knot: NameServer) -> None:
    def handle(number: int) -> str:
        change(knot, "old", "A", f"192.0.2.{100 + number}")
        return "pass"

    error, updates = through(knot, environment(), handle, upsert, at(knot, "old", "A", values=["192.0.2.3"]))
    assert error.message == f"set A old.{ZONE}: the record set changed 5 times during the update"
    assert (told(error), updates) == (("DnsConflict", False, False), 5)
    assert knot.ask("old", "A") == ["192.0.2.105"]


def test_a_removal_takes_no_more_than_it_tells(environment: NewEnvironment, knot: NameServer) -> None:
    def handle(number: int) -> str:
        if number == 1:
            change(knot, "old", "A", "192.0.2.1", "192.0.2.2", "192.0.2.3")
        return "pass"

    gone, _ = through(knot, environment(), handle, remove, at(knot, "old", "A", values=["192.0.2.2"]))
    assert plain(gone.removed) == {"values": ["192.0.2.2"], "ttl": 60}
    assert knot.ask("old", "A") == ["192.0.2.1", "192.0.2.3"]


def test_a_server_that_is_killed_in_the_middle(environment: NewEnvironment, knot: NameServer) -> None:
    """Before it got the update: that it did not is not known here."""

    def handle(_: int) -> str:
        knot.kill()
        return "pass"

    given = at(knot, "new", "A", values=["192.0.2.3"])
    error, _ = through(knot, environment(), handle, upsert, given)
    assert told(error) == ("DnsUnreachable", False, True)
    knot.start()
    made, _ = through(knot, environment(), lambda _: "pass", upsert, given)
    assert made.changed
    assert knot.ask("new", "A") == ["192.0.2.3"]


def test_a_server_that_is_killed_before_the_look_back(environment: NewEnvironment, knot: NameServer) -> None:
    error, _ = through(
        knot, environment(), lambda _: "die", upsert, at(knot, "new", "A", values=["192.0.2.3"])
    )
    assert told(error) == ("DnsUnreachable", False, True)


class Odd:
    """A server with answers of its own; None: it never answers."""

    def __init__(self, answer: Callable[[dns.message.Message], bytes | None]) -> None:
        self.answer, self.asked = answer, asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await _message(reader)
        self.asked.set()
        data = self.answer(dns.message.from_wire(asked[2:], keyring=KEY))
        if data is None:
            await reader.read()
        else:
            writer.write(len(data).to_bytes(2, "big") + data)
        writer.close()


def asked(
    answer: Callable[[dns.message.Message], bytes | None], activity: Any, env: Any, **given: Any
) -> Any:
    async def scenario() -> Any:
        odd = Odd(answer)
        listening = await asyncio.start_server(odd, "127.0.0.1", 0)
        port = listening.sockets[0].getsockname()[1]
        try:
            with pytest.raises(ApplicationError) as caught:
                await env.run(activity, {"server": "127.0.0.1", "port": port, **given})
            return caught.value
        finally:
            listening.close()

    return asyncio.run(scenario())


def _rcode(code: dns.rcode.Rcode, update: dns.rcode.Rcode | None = None) -> Callable[..., bytes]:
    """Answer questions with one code, an SOA to those for it, and updates with another one."""

    def answer(query: dns.message.Message) -> bytes:
        response = dns.message.make_response(query)
        response.set_rcode(code if update is None or query.opcode() != dns.opcode.UPDATE else update)
        if query.question[0].rdtype.name == "SOA" and query.opcode() == dns.opcode.QUERY:
            response.flags |= dns.flags.AA
            response.answer.append(
                dns.rrset.from_text(query.question[0].name, 5, "IN", "SOA", "ns. admin. 1 2 3 4 5")
            )
        return response.to_wire()

    return answer


@pytest.mark.parametrize(
    ("answer", "reason", "expected"),
    [
        (_rcode(dns.rcode.SERVFAIL), " failed (SERVFAIL)", ("DnsServerFailure", False, False)),
        (_rcode(dns.rcode.REFUSED), " refuses (REFUSED)", ("DnsRefused", True, False)),
        (_rcode(dns.rcode.NOTIMP), " refuses (NOTIMP)", ("DnsRefused", True, False)),
        (
            lambda _: b"nonsense",
            ": the answer cannot be read, or is not signed correctly",
            ("DnsUnreachable", False, False),
        ),
        (
            lambda _: dns.message.make_response(dns.message.make_query("b.test", "A")).to_wire(),
            ": the answer belongs to another question",
            ("DnsUnreachable", False, False),
        ),
    ],
)
def test_bad_answers(
    environment: NewEnvironment, answer: Any, reason: str, expected: tuple[str, bool, bool]
) -> None:
    error = asked(answer, lookup, environment(), name="a.test", type="A")
    assert error.message.startswith("look up A a.test: 127.0.0.1 port ")
    assert error.message.endswith(reason)
    assert told(error) == expected


def test_aliases_in_a_circle(environment: NewEnvironment) -> None:
    def circle(query: dns.message.Message) -> bytes:
        response = dns.message.make_response(query)
        response.answer.append(dns.rrset.from_text("a.test.", 5, "IN", "CNAME", "a.test."))
        return response.to_wire()

    error = asked(circle, lookup, environment(), name="a.test", type="A")
    assert error.message == "look up A a.test: the answer is not valid: it may contain a loop of aliases"
    assert told(error) == ("DnsServerFailure", False, False)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (dns.rcode.SERVFAIL, ("DnsServerFailure", False, True)),
        (dns.rcode.REFUSED, ("DnsRefused", True, False)),
        (dns.rcode.NOERROR, ("DnsNotApplied", True, False)),
    ],
)
def test_bad_answers_to_updates(
    environment: NewEnvironment, code: dns.rcode.Rcode, expected: tuple[str, bool, bool]
) -> None:
    answer = _rcode(dns.rcode.NOERROR, code)
    error = asked(answer, upsert, environment(), name="a.test", type="A", values=["192.0.2.1"])
    assert told(error) == expected


def test_an_answer_without_the_signature(environment: NewEnvironment, knot: NameServer) -> None:
    def unsigned(query: dns.message.Message) -> bytes:
        plain_query = dns.message.from_wire(query.to_wire(), keyring=False)
        plain_query.tsig = None
        return dns.message.make_response(plain_query).to_wire()

    error = asked(unsigned, remove, environment(), name="a.test", type="A", tsig="DNS_KEY")
    assert error.message.endswith(": the answer cannot be read, or is not signed correctly")
    assert told(error) == ("DnsUnreachable", False, False)


def test_a_server_that_never_answers(environment: NewEnvironment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_server, "ANSWER_TIMEOUT", 0.1)
    error = asked(lambda _: None, lookup, environment(), name="a.test", type="A")
    assert error.message.endswith(": no answer within 0.1 s")
    assert told(error) == ("DnsUnreachable", False, False)
    soa = _rcode(dns.rcode.NOERROR)

    def silent(query: dns.message.Message) -> bytes | None:
        return None if query.opcode() == dns.opcode.UPDATE else soa(query)

    error = asked(silent, upsert, environment(), name="a.test", type="A", values=["192.0.2.1"])
    assert told(error) == ("DnsUnreachable", False, True)


def test_a_connection_that_takes_too_long(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_server, "CONNECT_TIMEOUT", 0.2)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        port = listening.getsockname()[1]
        waiting = []
        for _ in range(3):  # the queue of the listening socket is full then
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
            waiting.append(one)
        error = failed(run, lookup, name="a.test", type="A", server="127.0.0.1", port=port)
        for one in waiting:
            one.close()
    assert error.message == f"look up A a.test: 127.0.0.1 port {port}: no connection within 0.2 s"
    assert told(error) == ("DnsUnreachable", False, False)


@pytest.mark.parametrize("activity", [lookup, upsert, remove])
def test_cancellation_ends_the_wait(environment: NewEnvironment, activity: Any) -> None:
    async def scenario() -> float:
        odd = Odd(lambda _: None)
        listening = await asyncio.start_server(odd, "127.0.0.1", 0)
        env = environment()
        given = {"name": "a.test", "type": "A", "server": "127.0.0.1"}
        values: dict[str, Any] = {"values": []} if activity is upsert else {}
        port = listening.sockets[0].getsockname()[1]
        task = asyncio.ensure_future(env.run(activity, {**given, **values, "port": port}))
        await asyncio.wait_for(odd.asked.wait(), 5)
        begin = time.monotonic()
        env.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        listening.close()
        return time.monotonic() - begin

    assert asyncio.run(scenario()) < 0.3


# In real runs.

STEPS = """
name: move
inputs: {fail: {type: boolean, default: false}}
steps:
  - id: before
    activity: dns.lookup
    task_queue: QUEUE
    with: {name: old.example.test, type: A, server: 127.0.0.1, port: DIRECT}
  - id: point
    activity: dns.upsert
    task_queue: QUEUE
    with: {name: old.example.test, type: A, values: [192.0.2.3], server: 127.0.0.1, port: PORT, tsig: DNS_KEY}
    retry: {initial_interval: 10ms, maximum_attempts: ATTEMPTS}
    compensate:
      activity: dns.upsert
      task_queue: QUEUE
      with:
        name: "{{ step.input.name }}"
        type: A
        values: "{{ VALUES }}"
        ttl: "{{ TTL }}"
        server: 127.0.0.1
        port: DIRECT
        tsig: DNS_KEY
  - {id: stop, when: inputs.fail, fail: {message: enough}}
output: "{{ steps.point.output }}"
"""
OWN = {"VALUES": "step.output.replaced['values']", "TTL": "step.output.replaced.ttl"}
LOOKED_UP = {"VALUES": "steps.before.output.values", "TTL": "steps.before.output.ttl"}


def pipeline(pipelines: Pipelines, knot: NameServer, port: int, attempts: int, **undo: str) -> Any:
    text = STEPS.replace("QUEUE", pipelines.queue).replace("DIRECT", str(knot.port))
    text = text.replace("PORT", str(port)).replace("ATTEMPTS", str(attempts))
    for name, value in undo.items():
        text = text.replace(name, value)
    return pipelines.bundle(text)


async def test_a_retry_after_a_lost_answer_knows_what_was_there(
    pipelines: Pipelines, knot: NameServer
) -> None:
    async with Proxy.serve(knot, lambda number: "drop" if number == 1 else "pass") as (proxy, port):
        bundle = pipeline(pipelines, knot, port, 5, **OWN)
        async with pipelines.worker(lookup, upsert):
            output = await result_of(await pipelines.start(bundle))
    assert proxy.updates == 1
    assert (output["changed"], output["replaced"]) == (True, OLD)
    assert knot.ask("old", "A") == ["192.0.2.3"]


@pytest.mark.parametrize("undo", [OWN, LOOKED_UP], ids=["own", "looked-up"])
async def test_a_failed_run_puts_the_record_set_back(
    pipelines: Pipelines, knot: NameServer, undo: dict[str, str]
) -> None:
    before = content(knot)
    async with Proxy.serve(knot, lambda number: "drop" if number == 1 else "pass") as (_, port):
        bundle = pipeline(pipelines, knot, port, 5, **undo)
        async with pipelines.worker(lookup, upsert):
            _, report = await failure(await pipelines.start(bundle, fail=True))
    assert report is not None
    assert [(undone.path, undone.outcome, undone.state) for undone in report.undo] == [
        ("point", "completed", "undone"),
    ]
    assert content(knot) == before


async def test_an_update_that_was_never_answered_is_undone(pipelines: Pipelines, knot: NameServer) -> None:
    before = content(knot)
    async with Proxy.serve(knot, lambda _: "drop") as (_, port):
        bundle = pipeline(pipelines, knot, port, 1, **LOOKED_UP)
        async with pipelines.worker(lookup, upsert):
            cause, report = await failure(await pipelines.start(bundle))
    assert isinstance(cause, ApplicationError)
    assert cause.type == "DnsUnreachable"
    assert report is not None
    assert [(undone.outcome, undone.state) for undone in report.undo] == [("uncertain", "undone")]
    assert content(knot) == before


UNSAID = """
version: 1
name: dns
steps:
  - id: point
    activity: dns.upsert
    with: {name: old.example.test, type: A, values: [192.0.2.3, 192.0.2.4], server: 127.0.0.1, port: PORT, tsig: DNS_KEY}
  - {id: new, activity: dns.upsert, with: {name: new.example.test, type: A, values: [192.0.2.9], server: 127.0.0.1, port: PORT, tsig: DNS_KEY}}
  - {id: some, activity: dns.remove, with: {name: old.example.test, type: A, values: [192.0.2.3], server: 127.0.0.1, port: PORT, tsig: DNS_KEY}}
  - {id: all, activity: dns.remove, with: {name: old.example.test, type: A, server: 127.0.0.1, port: PORT, tsig: DNS_KEY}}
  - {id: stop, fail: {message: enough}}
"""


async def test_what_no_step_says_is_undone_by_what_each_replaced(
    pipelines: Pipelines, knot: NameServer
) -> None:
    before = content(knot)
    async with pipelines.worker(upsert, remove):
        bundle = pipelines.bundle(UNSAID.replace("PORT", str(knot.port)))
        _, report = await failure(await pipelines.start(bundle))
    assert report is not None
    assert [(undone.path, undone.state) for undone in report.undo] == [
        (name, "undone") for name in ("all", "some", "new", "point")
    ]
    assert content(knot) == before


async def test_without_an_answer_nobody_knows_what_to_put_back(
    pipelines: Pipelines, knot: NameServer
) -> None:
    """Then the run is dirty and tells it; who has looked before says it in a compensation."""
    async with Proxy.serve(knot, lambda _: "drop") as (_, port):
        text = STEPS.replace("QUEUE", pipelines.queue).replace("DIRECT", str(knot.port))
        text = text.replace("PORT", str(port)).replace("ATTEMPTS", "1")
        start, end = text.index("    compensate:"), text.index("  - {id: stop")
        bundle = pipelines.bundle(text[:start] + text[end:])
        async with pipelines.worker(lookup, upsert):
            _, report = await failure(await pipelines.start(bundle))
    assert report is not None
    assert report.dirty
    assert [(undone.path, undone.outcome, undone.state) for undone in report.undo] == [
        ("point", "uncertain", "not undone")
    ]
