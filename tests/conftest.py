"""One real Temporal server a session; a unique task queue and workflow id a test."""

import asyncio
import signal
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from temporalio.client import Client, WorkflowHandle
from temporalio.common import RawValue
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

from pipeline_runner.core import model
from pipeline_runner.engine import client as starting
from pipeline_runner.engine.worker import pipeline_worker
from pipeline_runner.language.workspace import load
from pipeline_runner.server import devserver
from tests import effects, example_workers, services

# A shell has the jobs that it puts into the background ignore Ctrl-C, and so would all that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

_SHARED = frozenset(["engine", "typescript_worker", "go_worker", "java_worker"])
_ONE_PROCESS = frozenset(
    f"tests/{name}.py"
    for name in (
        "activities/test_container_things",
        "activities/test_containers",
        "activities/test_containers_engine",
        "docs/test_container_pages",
        "docs/test_example_sessions",
        "docs/test_image",
        "pipelines/test_containers",
        "pipelines/test_deploy_app",
        "pipelines/test_polyglot",
        "pipelines/test_ship_order",
    )
)
"""Files whose tests have to be in one process: two Docker Engines side by side choose the same network addresses,
and the workers in other languages are built in the source tree."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests that have to be in one process: they take the longest."""

    def first(item: pytest.Item) -> bool:
        return item.nodeid.partition("::")[0] in _ONE_PROCESS

    for item in items:
        if not first(item) and not _SHARED.isdisjoint(getattr(item, "fixturenames", ())):
            raise pytest.UsageError(
                f"{item.nodeid} shares an Engine or a build: its file belongs into _ONE_PROCESS"
            )
    items.sort(key=lambda item: not first(item))


class _Scheduling(LoadScopeScheduling):  # type: ignore[misc]
    """Hands out single tests, but for those that have to be in one process."""

    def _split_scope(self, nodeid: str) -> str:
        return "one process" if nodeid.partition("::")[0] in _ONE_PROCESS else nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _Scheduling:
    """Give pytest-xdist the scheduling; its own groups are marks, which the controller does not see."""
    return _Scheduling(config, log)


@pytest.fixture(scope="session", autouse=True)
def _state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what activities keep out of the state directory of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUN_PIPELINE_STATE", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="session")
def server() -> Iterator[devserver.DevServer]:
    running = devserver.start(settings=(devserver.TIME_SKIPPING,))
    yield running
    running.stop()


@pytest_asyncio.fixture(scope="session")
async def client(server: devserver.DevServer) -> Client:
    return await connected(server.address)


async def connected(address: str) -> Client:
    """Connect to a server that was started a moment ago."""
    for _ in range(100):
        try:
            return await starting.connect({"target_host": address})
        except starting.UnreachableError:
            await asyncio.sleep(0.05)
    return await starting.connect({"target_host": address})


class Pipelines:
    """Writes pipeline files, and runs them on a worker in this process."""

    def __init__(self, client: Client, folder: Path) -> None:
        self.client = client
        self.folder = folder
        self.queue = f"test-{uuid.uuid4().hex[:12]}"
        self.log = str(folder / "effects.log")

    def bundle(self, text: str, **children: str) -> model.Bundle:
        """Write ``main.yaml`` and ``NAME.yaml`` for each child, and load the bundle."""
        for name, content in {"main": text, **children}.items():
            (self.folder / f"{name}.yaml").write_text(content.replace("LOG", self.log))
        loaded = load(self.folder / "main.yaml", modules=["tests.effects"])
        errors = [d for d in loaded.diagnostics if d.severity == "error"]
        assert not errors, errors
        assert loaded.bundle is not None
        return loaded.bundle

    @asynccontextmanager
    async def worker(self, *activities: Callable[..., Any], **settings: Any) -> AsyncIterator[None]:
        """Serve runs, the recorder and these activities."""
        served = [effects.do, effects.undo, effects.flaky, effects.attempt, *activities]
        async with pipeline_worker(self.client, task_queue=self.queue, activities=served, **settings):
            yield

    async def start(self, bundle: model.Bundle, **inputs: Any) -> WorkflowHandle[Any, Any]:
        """Start a run of a bundle."""
        handle, _ = await starting.start(
            self.client,
            starting.Start(
                name=bundle.pipelines[bundle.root].name,
                bundle=model.encode(bundle),
                inputs=inputs,
                workflow_id=f"w-{uuid.uuid4().hex[:12]}",
                task_queue=self.queue,
            ),
        )
        return handle

    @property
    def effects(self) -> list[str]:
        """What the recorder wrote down."""
        return effects.lines(self.log)


@pytest.fixture
def pipelines(client: Client, tmp_path: Path) -> Pipelines:
    return Pipelines(client, tmp_path)


async def result_of(handle: WorkflowHandle[Any, Any]) -> Any:
    """Return a run's output as JSON data."""
    import msgspec

    value = await handle.result()
    assert isinstance(value, RawValue)
    return msgspec.json.decode(value.payload.data or b"null")


@pytest.fixture(scope="session")
def engine() -> Iterator[services.Engine]:
    """A Docker Engine of the tests' own, with the image ``services.IMAGE``."""
    running = services.Engine.make()
    running.start()
    running.load_image()
    yield running
    running.close()


@pytest.fixture(scope="session")
def name_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[services.NameServer]:
    """A DNS server of the tests' own, with the zone ``services.ZONE``."""
    running = services.NameServer.make(tmp_path_factory.mktemp("knot"))
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="session")
def database() -> Iterator[services.Database]:
    """A PostgreSQL server of the tests' own."""
    running = services.Database.make()
    running.start()
    yield running
    running.close()


@pytest.fixture(scope="session")
def typescript_worker() -> example_workers.Built:
    """The example worker in TypeScript, compiled."""
    return example_workers.typescript()


@pytest.fixture(scope="session")
def go_worker(tmp_path_factory: pytest.TempPathFactory) -> example_workers.Built:
    """The example worker in Go, compiled."""
    return example_workers.go(tmp_path_factory.mktemp("go") / "worker")


@pytest.fixture(scope="session")
def java_worker() -> example_workers.Built:
    """The example worker in Java, compiled."""
    return example_workers.java()
