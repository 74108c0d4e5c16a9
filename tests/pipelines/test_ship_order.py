"""ship-order.yaml with real workers in TypeScript, Go and Java: results, errors, cancellation, undo."""

import asyncio
import json
import os
import signal
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
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

FILE = str(PIPELINES / "ship-order.yaml")


@dataclass(frozen=True)
class Place:
    """A server that stays, and the workers beside it."""

    folder: Path
    address: str
    before: set[str] = field(default_factory=set)
    """The files that there were when the test began."""

    def arguments(self, run_id: str, **inputs: int) -> list[str]:
        given = {"order": "o-1", "amount": 5, **inputs}
        words = (word for name, value in given.items() for word in ("-i", f"{name}={value}"))
        return [FILE, "--workflow-id", run_id, *words]

    def run(self, run_id: str, **inputs: int) -> Done:
        return run(self.folder, *self.arguments(run_id, **inputs))

    def files(self) -> set[str]:
        return {str(path.relative_to(self.folder)) for path in self.folder.glob("demo-*/*")}

    def made(self) -> list[str]:
        """What there is since the test began, and anybody's drafts."""
        return sorted(name for name in self.files() if name not in self.before or "draft" in name)

    def client(self, built: Built, *arguments: str) -> str:
        """Run a worker's program as a client, and return what it prints."""
        done = subprocess.run(
            [*built.command, *arguments],
            cwd=self.folder,
            env={**os.environ, "TEMPORAL_ADDRESS": self.address},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    async def pending(self, client: Client, run_id: str, activity: str) -> list[Any]:
        """The last heartbeats of an activity while it runs."""
        described = await client.get_workflow_handle(run_id).describe()
        return [
            json.loads(payload.data)
            for pending in described.raw_description.pending_activities
            if pending.activity_type.name == activity
            for payload in pending.heartbeat_details.payloads
        ]


@pytest.fixture(scope="module")
def place(
    typescript_worker: Built, go_worker: Built, java_worker: Built, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("shop")
    port = free_port()
    server = popen(folder, "server", "--port", str(port), "--ui-port", str(free_port()))
    read_until(server, "serving the task queue")
    found = Place(folder, f"127.0.0.1:{port}")
    workers = [Worker(built, folder, found.address) for built in (typescript_worker, go_worker, java_worker)]
    try:
        for worker in workers:
            worker.wait()
        yield found
    finally:
        for worker in workers:
            worker.end()
        server.send_signal(signal.SIGTERM)
        finish(server)
    assert_nothing_left(folder)


@pytest.fixture
def run_id(place: Place) -> str:
    place.before.clear()
    place.before.update(place.files())
    return f"ship-{uuid.uuid4().hex[:8]}"


def test_three_languages_take_part(place: Place, run_id: str) -> None:
    done = place.run(run_id)
    assert done.code == 0, done.err
    booking, parcel, invoice = (Path(done.json[name]) for name in ("booking", "parcel", "invoice"))
    assert done.json == {
        "booking": f"demo-ledger/{booking.stem}.json",
        "parcel": f"demo-parcels/{parcel.stem}.json",
        "labels": [],
        "invoice": f"demo-invoices/{invoice.stem}.txt",
        "pages": 2,
    }
    assert len({booking.stem, parcel.stem, invoice.stem}) == 3, "each step has a key of its own"
    assert place.made() == sorted(done.json[name] for name in ("booking", "parcel", "invoice"))
    assert json.loads((place.folder / parcel).read_text()) == {"key": parcel.stem, "order": "o-1", "items": 3}
    assert (place.folder / invoice).read_text() == "o-1 owes 5\n"


def test_each_language_undoes_its_own(
    place: Place, go_worker: Built, java_worker: Built, run_id: str
) -> None:
    """The report is the first detail of the run's failure: clients in other SDKs read it there."""
    done = place.run(run_id, items=21)
    assert done.code == 1, done.err
    assert failure(done) == "failed: check: the parcel weighs 10500 g, and may weigh 10000 g [ParcelTooHeavy]"
    assert undone(done) == ["invoice", "pack", "book"]
    assert place.made() == []
    undo = [{"path": path, "state": "undone"} for path in ("invoice", "pack", "book")]
    read = place.client(go_worker, "report", run_id)
    assert json.loads(read) == {"status": "failed", "dirty": False, "undo": undo}
    told = ", ".join(f"Undo[path={each['path']}, state=undone]" for each in undo)
    assert (
        place.client(java_worker, "report", run_id) == f"Report[status=failed, dirty=false, undo=[{told}]]\n"
    )


@pytest.mark.parametrize(
    ("inputs", "error", "order"),
    [
        pytest.param(
            {"items": 10_001},
            "pack 10001 items: order o-1 has 10001 items, and a parcel holds 10000 [ParcelTooLarge]",
            ["book"],
            id="go",
        ),
        pytest.param(
            {"amount": 1001},
            "write the invoice for o-1: 1001 is over the credit limit of 1000 [CreditLimit]",
            ["pack", "book"],
            id="java",
        ),
    ],
)
def test_an_error_that_its_language_calls_final_is_final(
    place: Place, run_id: str, inputs: dict[str, int], error: str, order: list[str]
) -> None:
    done = place.run(run_id, **inputs)
    assert (done.code, done.out) == (1, ""), done.err
    assert failure(done) == f"failed: {error}"
    assert undone(done) == order
    assert "attempt 2" not in done.err
    assert place.made() == []


@pytest.mark.parametrize(
    ("activity", "inputs", "unit", "order"),
    [
        pytest.param("parcel.pack", {"items": 5000}, "items", ["pack", "book"], id="go"),
        pytest.param("invoice.write", {"copies": 5000}, "pages", ["invoice", "pack", "book"], id="java"),
    ],
)
async def test_a_cancelled_run_is_undone_in_all_languages(
    place: Place, run_id: str, activity: str, inputs: dict[str, int], unit: str, order: list[str]
) -> None:
    """The activity hears of it with its next heartbeat, a hundred seconds before its end."""
    client = await connected(place.address)
    process = popen(place.folder, *place.arguments(run_id, **inputs))
    read_until(process, "book: completed")
    async with asyncio.timeout(30):
        while not (seen := await place.pending(client, run_id, activity)):
            await asyncio.sleep(0.05)
    assert seen == [{"done": seen[0]["done"], "total": 5000, "unit": unit}]
    interrupt(process)
    done = finish(process, timeout=20)
    assert (done.code, done.out) == (4, ""), done.err
    assert undone(done) == order
    assert place.made() == []
