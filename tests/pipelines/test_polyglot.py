"""polyglot.yaml with a real worker in TypeScript: heartbeats, error types, undo across languages."""

import asyncio
import json
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client

from pipeline_runner.server.devserver import free_port
from tests.cli.command import Done, assert_nothing_left, finish, interrupt, popen, run
from tests.cli.test_serving import read_until
from tests.conftest import connected
from tests.example_workers import Built, Worker
from tests.pipelines.test_examples import PIPELINES, failure, undone

FILE = str(PIPELINES / "polyglot.yaml")


@dataclass
class Place:
    """A server that stays, and the worker beside it."""

    folder: Path
    address: str
    built: Built
    worker: Worker

    def restart(self) -> None:
        """Kill the worker and start another."""
        self.worker.end(signal.SIGKILL)
        self.worker = Worker(self.built, self.folder, self.address)
        self.worker.wait()

    def run(self, **inputs: Any) -> Done:
        return run(self.folder, *self.arguments(**inputs))

    def arguments(self, **inputs: Any) -> list[str]:
        given = {"order": "o-1", "account": "main", "amount": 5, **inputs}
        return [FILE, *(word for name, value in given.items() for word in ("-i", f"{name}={value}"))]

    @property
    def orders(self) -> list[str]:
        return sorted(path.name.partition(".")[0] for path in (self.folder / "demo-orders").glob("*"))

    @property
    def bookings(self) -> list[Any]:
        return [json.loads(path.read_text()) for path in (self.folder / "demo-ledger").glob("*")]

    async def pending(self, client: Client) -> list[Any]:
        """The last heartbeats of what runs for the newest run."""
        async for found in client.list_workflows("WorkflowType = 'polyglot'"):
            described = await client.get_workflow_handle(found.id).describe()
            activities = described.raw_description.pending_activities
            return [json.loads(p.data) for a in activities for p in a.heartbeat_details.payloads]
        return []


@pytest.fixture
def place(typescript_worker: Built, tmp_path: Path) -> Iterator[Place]:
    port = free_port()
    server = popen(tmp_path, "server", "--port", str(port), "--ui-port", str(free_port()))
    read_until(server, "serving the task queue")
    address = f"127.0.0.1:{port}"
    found = Place(tmp_path, address, typescript_worker, Worker(typescript_worker, tmp_path, address))
    found.worker.wait()
    yield found
    found.worker.end()
    server.send_signal(signal.SIGTERM)
    finish(server)
    assert_nothing_left(tmp_path)


def test_both_languages_take_part(place: Place) -> None:
    done = place.run()
    assert done.code == 0, done.err
    booking = done.json["booking"]
    assert done.json == {"order": "o-1", "counted": 5, "booking": booking}
    assert re.fullmatch(r"demo-ledger/[0-9a-f]{32}\.json", booking)
    assert (place.orders, place.bookings) == (["o-1"], [{"account": "main", "amount": 5}])


def test_an_error_type_of_the_other_language_is_final(place: Place) -> None:
    done = place.run(account="closed-1")
    assert (done.code, done.out) == (1, ""), done.err
    assert failure(done) == "failed: book 5 to closed-1: the account closed-1 is closed [AccountClosed]"
    assert undone(done) == ["reserve"]
    assert "attempt 2" not in done.err
    assert (place.orders, place.bookings) == ([], [])


def test_what_typescript_did_is_undone(place: Place) -> None:
    done = place.run(amount=1001)
    assert done.code == 1, done.err
    assert (
        failure(done)
        == "failed: check the amount: exit code 1: 1001 is over the limit of 1000 [CommandFailed]"
    )
    assert undone(done) == ["book", "reserve"]
    assert (place.orders, place.bookings) == ([], [])


def test_an_order_of_before_stays(place: Place) -> None:
    """The undo removes what this run made, under whatever order."""
    assert place.run().code == 0
    assert place.run(amount=1001).code == 1
    assert place.orders == ["o-1"]


def test_the_first_step_fails(place: Place) -> None:
    """Nothing of it is left, and what was in the way stays."""
    (place.folder / "demo-orders").write_text("in the way")
    done = place.run()
    assert done.code == 1, done.err
    assert failure(done).startswith("failed: reserve order o-1: exit code 1: mkdir: cannot create directory")
    assert undone(done) == ["reserve"]
    assert (place.folder / "demo-orders").read_text() == "in the way"


async def test_a_killed_worker_goes_on_from_its_last_heartbeat(place: Place) -> None:
    """The heartbeats' details reach the server, and the next attempt."""
    client = await connected(place.address)
    process = popen(place.folder, *place.arguments(items=100))
    seen: list[int] = []
    async with asyncio.timeout(30):
        while not seen or seen[-1] < 20:
            seen += [details["done"] for details in await place.pending(client)]
            await asyncio.sleep(0.05)
    place.restart()
    done = finish(process)
    assert (done.code, done.json["counted"]) == (0, 100), done.err
    # The command looks from time to time: on a busy machine, the second attempt may be running already.
    assert re.search(r"count: (retrying|running), .*attempt 2", done.err), done.err
    assert seen == sorted(seen)
    assert len(set(seen)) > 1


async def test_a_cancelled_run_is_undone_in_both_languages(place: Place) -> None:
    client = await connected(place.address)
    process = popen(place.folder, *place.arguments(items=1000))
    async with asyncio.timeout(30):
        while not await place.pending(client):
            await asyncio.sleep(0.05)
    interrupt(process)
    done = finish(process, timeout=10)
    assert (done.code, done.out) == (4, ""), done.err
    assert undone(done) == ["reserve"]
    assert place.orders == []
