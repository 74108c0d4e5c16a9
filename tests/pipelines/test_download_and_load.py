"""download-and-load.yaml with a real web server, on SQLite and on PostgreSQL; failures and outages."""

import hashlib
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.command import Done, finish, interrupt, popen, run, wait_for
from tests.cli.test_serving import read_until
from tests.fileserver import FileServer
from tests.pipelines.test_examples import PIPELINES, failure, undone
from tests.pipelines.trees import files, tree
from tests.services import Database

if TYPE_CHECKING:
    import subprocess

FILE = str(PIPELINES / "download-and-load.yaml")
ROWS = 3000
DATA = "".join(
    f"INSERT INTO measurements VALUES ({n}, 'station {n % 7}; \"north\"', {n}.5);\n" for n in range(ROWS)
)


@dataclass
class Store:
    """A database, seen without the activities."""

    url: str
    postgres: Database | None = None
    file: Path | None = None

    def query(self, statement: str) -> str:
        if self.postgres is not None:
            return self.postgres.query(statement)
        assert self.file is not None
        with closing(sqlite3.connect(self.file)) as connection:
            return "\n".join("|".join(map(str, row)) for row in connection.execute(statement))

    def tables(self) -> str:
        if self.postgres is not None:
            return self.query("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        return self.query("SELECT name FROM sqlite_master WHERE type = 'table'")


@dataclass
class Place:
    folder: Path
    store: Store
    web: FileServer

    def arguments(self, **inputs: Any) -> list[str]:
        checksum = "sha256:" + hashlib.sha256(self.web.body).hexdigest()
        given = {"url": self.web.url, "checksum": checksum, **inputs}
        return [FILE, *(word for name, value in given.items() for word in ("-i", f"{name}={value}"))]

    def run(self, **inputs: Any) -> Done:
        return run(self.folder, *self.arguments(**inputs), DATABASE_URL=self.store.url)

    def start(self, **inputs: Any) -> "subprocess.Popen[str]":
        return popen(self.folder, *self.arguments(**inputs), DATABASE_URL=self.store.url)

    def everything(self) -> Any:
        kept = {name: what for name, what in tree(self.folder).items() if name != "store.db"}
        return kept, self.store.tables()


@pytest.fixture
def web() -> Iterator[FileServer]:
    with FileServer(DATA.encode()) as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, web: FileServer, tmp_path: Path) -> Iterator[Place]:
    if request.param == "sqlite":
        yield Place(tmp_path, Store(f"sqlite:///{tmp_path}/store.db", file=tmp_path / "store.db"), web)
        return
    postgres: Database = request.getfixturevalue("database")
    found = Place(tmp_path, Store(postgres.url, postgres=postgres), web)
    yield found
    postgres.query("DROP TABLE IF EXISTS measurements")


@pytest.fixture
def on_postgres(database: Database, web: FileServer, tmp_path: Path) -> Iterator[Place]:
    yield Place(tmp_path, Store(database.url, postgres=database), web)
    database.query("DROP TABLE IF EXISTS measurements")


def test_the_data_is_loaded(place: Place) -> None:
    done = place.run(at_least=ROWS)
    assert done.code == 0, done.err
    file = place.folder / "demo-data/measurements.sql"
    assert done.json == {"file": str(file), "bytes": len(DATA), "measurements": ROWS, "stations": 7}
    assert file.read_text() == DATA
    assert (
        place.store.query("SELECT count(*), max(station) FROM measurements") == f'{ROWS}|station 6; "north"'
    )


@pytest.mark.parametrize("before", ["nothing", "an older file"])
@pytest.mark.parametrize(
    ("stage", "error", "order"),
    [
        ("directory", "directory: cannot create .*: there is a file with that name", []),
        (
            "download",
            r"download the measurements: GET .*: the file's checksum is .* \[ChecksumMismatch\]",
            ["directory"],
        ),
        (
            "migrate",
            r"migrate the database: .*measurements.* already exists \[StatementFailed\]",
            ["download", "directory"],
        ),
        ("load", r"load the measurements: .* \[StatementFailed\]", ["migrate", "download", "directory"]),
        (
            "check",
            r"check the measurements: there are 3000, not at least 3001 \[TooFewMeasurements\]",
            ["migrate", "download", "directory"],
        ),
    ],
)
def test_a_stage_that_fails(place: Place, stage: str, error: str, order: list[str], before: str) -> None:
    """The directory and the database are unchanged."""
    inputs: dict[str, Any] = {}
    if before == "an older file" and stage != "directory":
        (place.folder / "demo-data").mkdir()
        (place.folder / "demo-data/measurements.sql").write_text("-- older")
    match stage:
        case "directory":
            (place.folder / "demo-data").write_text("in the way")
        case "download":
            inputs["checksum"] = "sha256:" + "0" * 64
        case "migrate":
            place.store.query("CREATE TABLE measurements (mine INTEGER)")
        case "load":
            place.web.body = (DATA + "INSERT INTO nowhere VALUES (1);\n").encode()
        case _:
            inputs["at_least"] = ROWS + 1
    was = place.everything()
    done = place.run(**inputs)
    assert (done.code, done.out) == (1, ""), done.err
    assert re.match(f"failed: {error}", failure(done)), failure(done)
    assert undone(done) == order
    assert place.everything() == was
    assert "pw-of-the-tests" not in done.err
    if place.store.file is None and stage == "migrate":
        place.store.query("DROP TABLE measurements")


def test_a_broken_connection_is_taken_up_where_it_broke(place: Place) -> None:
    place.web.breaks = [65536]
    done = place.run()
    assert done.code == 0, done.err
    assert place.web.seen == [None, "bytes=65536-"]
    assert re.search(r"download: (retrying|completed), attempt 2", done.err)


def test_a_cancelled_download_leaves_nothing(place: Place) -> None:
    place.web.hold.set()
    was = place.everything()
    process = place.start()
    seen = read_until(process, "download: running")
    wait_for(lambda: place.web.seen)
    began = time.monotonic()
    interrupt(process)
    done = finish(process)
    assert done.code == 4, seen + done.err
    assert undone(done) == ["download", "directory"]
    assert place.everything() == was
    assert time.monotonic() - began < 20


def test_the_web_server_dies_in_the_middle(place: Place) -> None:
    place.web.pause = 0.3
    process = place.start()
    seen = read_until(process, "download: running")
    wait_for(lambda: place.web.seen)
    time.sleep(0.5)
    port = place.web.server_port
    place.web.breaks = [0] * 10
    place.web.hold.clear()
    place.web.__exit__()
    with FileServer(place.web.body, port=port):
        done = finish(process, timeout=60)
    assert done.code == 0, seen + done.err


def test_the_database_dies_while_the_file_is_loaded(on_postgres: Place) -> None:
    """The transaction is gone with the server; the next attempt does all of it."""
    postgres = on_postgres.store.postgres
    assert postgres is not None
    on_postgres.web.body = ("SELECT pg_sleep(2);\n" + DATA).encode()
    process = on_postgres.start(at_least=ROWS)
    seen = read_until(process, "load: running")
    asleep = "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'"
    wait_for(lambda: postgres.query(asleep))
    postgres.kill()
    postgres.start()
    done = finish(process, timeout=60)
    assert done.code == 0, seen + done.err
    assert "load: retrying, attempt 2" in done.err
    assert done.json["measurements"] == ROWS


def test_the_database_stays_away(on_postgres: Place) -> None:
    """Nothing can be undone there, and nothing was done there."""
    postgres = on_postgres.store.postgres
    assert postgres is not None
    was = on_postgres.everything()
    postgres.kill()
    try:
        done = on_postgres.run()
    finally:
        postgres.start()
    assert done.code == 1, done.err
    assert failure(done).startswith("failed: migrate the database: ")
    assert failure(done).endswith("[DatabaseUnreachable]")
    assert undone(done) == ["download", "directory"]
    assert on_postgres.everything() == was
    assert files(on_postgres.folder) == []
