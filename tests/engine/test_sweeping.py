"""Records for undos go when they are old and the server has forgotten their run, and not before."""

import asyncio
import os
import shutil
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from temporalio.client import WorkflowHandle

from pipeline_runner.activities.files import file as files
from pipeline_runner.activities.files import old_records, stores
from pipeline_runner.activities.toolkit.context import Origin
from pipeline_runner.engine import sweeping
from pipeline_runner.engine.sweeping import Namespace, sweep
from tests.conftest import Pipelines, result_of

DAY = 86400.0
PIPELINE = """
name: main
inputs: {waits: {type: boolean}}
steps:
  - {id: write, activity: file.write, with: {path: OUT, content: x}, compensate: none}
  - {id: nap, when: inputs.waits, wait: 10m}
"""


@pytest.fixture
def store(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of the test's own."""
    made = tmp_path_factory.mktemp("state")
    monkeypatch.setenv("RUN_PIPELINE_STATE", str(made))
    (made / "kept").mkdir(mode=0o700)
    return made / "kept"


@pytest_asyncio.fixture
async def namespace(pipelines: Pipelines) -> AsyncIterator[Namespace]:
    yield Namespace(pipelines.client)


def _age(record: Path, days: float) -> None:
    made = record.stat().st_mtime - days * DAY
    os.utime(record, (made, made))


def _record(store: Path, origin: Origin | bytes | None, days: float = 31) -> Path:
    record = store / uuid.uuid4().hex
    (record / "hash.kept").mkdir(parents=True)
    (record / "hash.kept" / "record.json").write_text('{"existed": false}')
    if origin is not None:
        data = origin if isinstance(origin, bytes) else msgspec.json.encode(origin)
        (record / "run.json").write_bytes(data)
    _age(record, days)
    return record


async def _forgotten(namespace: Namespace) -> Origin:
    """Return a run that the server does not know."""
    return Origin(server=await namespace.id(), workflow_id=uuid.uuid4().hex, run_id=str(uuid.uuid4()))


async def _record_of_a_step(
    pipelines: Pipelines, store: Path, *, waits: bool
) -> tuple[Path, WorkflowHandle[Any, Any]]:
    bundle = pipelines.bundle(PIPELINE.replace("OUT", str(pipelines.folder / "out")))
    handle = await pipelines.start(bundle, waits=waits)
    async with asyncio.timeout(30):
        while not list(store.glob("*/*.kept")):
            await asyncio.sleep(0.02)
        if not waits:
            await result_of(handle)
    (found,) = store.glob("*/*.kept")
    return found.parent, handle


async def test_a_record_names_its_run(pipelines: Pipelines, store: Path, namespace: Namespace) -> None:
    async with pipelines.worker(files.write):
        record, handle = await _record_of_a_step(pipelines, store, waits=False)
    origin = msgspec.json.decode((record / "run.json").read_bytes(), type=Origin)
    described = await handle.describe()
    assert origin == Origin(server=await namespace.id(), workflow_id=handle.id, run_id=described.run_id)


async def test_what_the_server_has_forgotten_goes_when_it_is_old(store: Path, namespace: Namespace) -> None:
    origin = await _forgotten(namespace)
    old, young = _record(store, origin), _record(store, origin, days=29)
    await sweep(namespace, str(store))
    assert (old.exists(), young.exists()) == (False, True)


async def test_the_time_can_be_chosen(
    store: Path, namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = await _forgotten(namespace)
    record = _record(store, origin, days=3)
    for retention, left in (("90d", True), ("4d", True), ("2d", False)):
        monkeypatch.setenv("RUN_PIPELINE_RETENTION", retention)
        await sweep(namespace, str(store))
        assert record.exists() == left


@pytest.mark.parametrize("waits", [True, False])
async def test_a_run_that_can_be_undone_keeps_its_records(
    pipelines: Pipelines, store: Path, namespace: Namespace, *, waits: bool
) -> None:
    """It is open, however long; or it has ended, and the server still knows it."""
    async with pipelines.worker(files.write):
        record, handle = await _record_of_a_step(pipelines, store, waits=waits)
        _age(record, 400)
        await sweep(namespace, str(store))
        assert record.exists()
        if waits:
            await handle.terminate()


async def test_the_first_part_of_an_open_run_keeps_its_records(
    pipelines: Pipelines, store: Path, namespace: Namespace
) -> None:
    """It went on as new, and the server has forgotten the part in which the step ran."""
    async with pipelines.worker(files.write):
        record, handle = await _record_of_a_step(pipelines, store, waits=True)
        first = Origin(server=await namespace.id(), workflow_id=handle.id, run_id=str(uuid.uuid4()))
        (record / "run.json").write_bytes(msgspec.json.encode(first))
        _age(record, 400)
        await sweep(namespace, str(store))
        assert record.exists()
        await handle.terminate()
        await sweep(namespace, str(store))
        assert not record.exists()


async def test_what_belongs_to_another_server_or_to_nobody_stays(store: Path, namespace: Namespace) -> None:
    other = Origin(server="other", workflow_id="w", run_id="r")
    unknown = Origin(server=None, workflow_id="w", run_id="r")
    records = [_record(store, origin) for origin in (other, unknown, None, b'{"server": ')]
    (store / ".others").mkdir()
    _age(store / ".others", 400)
    await sweep(namespace, str(store))
    assert all(record.exists() for record in [*records, store / ".others"])


async def test_a_worker_sweeps_when_it_starts(
    pipelines: Pipelines, store: Path, namespace: Namespace
) -> None:
    record = _record(store, await _forgotten(namespace))
    async with pipelines.worker(files.write), asyncio.timeout(30):
        while record.exists():
            await asyncio.sleep(0.02)


def test_a_store_is_due_once(store: Path) -> None:
    assert old_records.due_stores(sweeping.EVERY) == [str(store)]
    assert old_records.due_stores(sweeping.EVERY) == []


def test_stores_on_other_file_systems_are_remembered(store: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir(mode=0o700)
    for _ in range(2):
        stores._remember(str(other), str(store))
    assert stores.all_stores() == [str(store), str(other)]
    shutil.rmtree(other)
    assert stores.all_stores() == [str(store)]
