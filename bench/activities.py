"""Measure the built-in activities against the bare calls of their libraries, side by side in one run.

Run from the root of the repository::

    python -m bench.activities [--quick] [--only FAMILY ...]

The bare call is what a careful program would do with what it has made once: a shared client,
an engine, a connection where the library keeps one. The activity is called as a worker calls
it, with an idempotency key of its own each time, and without Temporal. Both take turns; figures
are medians.

An activity may take 1.3 times the bare call, and what any step costs its worker on top: the CPU
of a step whose activity does nothing, measured first in the same run, on a server. A line of two
activities has it twice.

Services are started on the loopback, as for the tests; a family whose service is not
installed is left out. Docker needs root.
"""

import argparse
import asyncio
import hashlib
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
from temporalio.testing import ActivityEnvironment

from bench.interpreter import connected, ratio, rounds
from bench.subjects import add
from pipeline_runner.activities import shell
from pipeline_runner.activities.dns import records as names
from pipeline_runner.activities.docker.container import Containers
from pipeline_runner.activities.docker.image import Images
from pipeline_runner.activities.docker.volume import Volumes
from pipeline_runner.activities.files import directory as directories
from pipeline_runner.activities.files import file as files
from pipeline_runner.activities.http import request as web
from pipeline_runner.activities.http.client import shared_connections
from pipeline_runner.activities.http.download import download
from pipeline_runner.activities.sql import statements as sql
from pipeline_runner.activities.toolkit.context import set_idempotency_key
from pipeline_runner.core import model
from pipeline_runner.engine import client as starting
from pipeline_runner.engine.worker import pipeline_worker
from pipeline_runner.language.workspace import load
from pipeline_runner.server import devserver
from tests import services

BARE, ACTIVITY = "bare", "activity"
NOTHING, REQUEST = "an activity that adds one", "http.request, GET"
MIB = 1024 * 1024
ROUND = 0.03
"""Seconds of one subject's turn."""
ALLOWED = 1.3
"""Bare calls that an activity may take, beside the cost of a step."""
HEAD = (
    *("", "bare, ms", "activity, ms", "ratio", "bare, ms of CPU", "activity, ms of CPU", "ratio"),
    *(f"above {ALLOWED} x bare, ms", "within a step's own cost"),
)

Call = Callable[[], Awaitable[object]]


@dataclass(frozen=True)
class Subject:
    """An activity, and the bare call of its library."""

    what: str
    bare: Call
    activity: Call
    steps: int = 1
    """How many activities that calls, each of which would be a step."""


def called(function: Any, **parameters: Any) -> Call:
    """Return a call of an activity as the step of a pipeline."""
    environment = ActivityEnvironment()

    async def call() -> object:
        set_idempotency_key(uuid.uuid4().hex)
        result = environment.run(function, parameters)
        return await result if asyncio.iscoroutine(result) else result

    return call


def plain(function: Callable[[], object]) -> Call:
    """Return a call of a function that blocks."""

    async def call() -> object:
        return function()

    return call


def in_thread(function: Callable[[], object]) -> Call:
    """Return a call of a function that blocks for long, as an asynchronous program makes it."""
    return lambda: asyncio.to_thread(function)


def both(first: Call, second: Call) -> Call:
    """Return a call of one after the other."""

    async def call() -> None:
        await first()
        await second()

    return call


def replace(target: Path, fill: Callable[[Any], object]) -> None:
    """Write a file as a careful program does: whole or not at all, also after a power failure."""
    new = target.with_suffix(".new")
    with new.open("wb") as file:
        fill(file)
        file.flush()
        os.fsync(file.fileno())
    new.replace(target)
    folder = os.open(target.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


@asynccontextmanager
async def file_family(folder: Path) -> AsyncIterator[list[Subject]]:
    """Files and directories."""
    text, large = "x" * 1024, folder / "large"
    large.write_bytes(os.urandom(MIB))
    small = folder / "small"
    small.write_text(text)

    def copy() -> None:
        with large.open("rb") as source:
            replace(folder / "copied", lambda file: shutil.copyfileobj(source, file))

    made = str(folder / "made")
    yield [
        Subject("file.read, 1 KiB", plain(small.read_text), called(files.read, path=str(small))),
        Subject(
            "file.write, 1 KiB",
            plain(lambda: replace(folder / "bare", lambda file: file.write(text.encode()))),
            called(files.write, path=str(folder / "ours"), content=text),
        ),
        Subject(
            "file.copy, 1 MiB",
            plain(copy),
            called(files.copy, source=str(large), destination=str(folder / "ours-copied")),
        ),
        Subject(
            "directory.create and .remove",
            both(plain(lambda: os.mkdir(made)), plain(lambda: os.rmdir(made))),
            both(called(directories.create, path=made), called(directories.remove, path=made)),
            steps=2,
        ),
    ]


@asynccontextmanager
async def shell_family(_: Path) -> AsyncIterator[list[Subject]]:
    """Programs."""

    async def bare() -> None:
        pipe = asyncio.subprocess.PIPE
        program = await asyncio.create_subprocess_exec("true", stdout=pipe, stderr=pipe)
        await program.communicate()

    yield [Subject("shell.run, `true`", bare, called(shell.run, command=["true"]))]


SERVER = """
import asyncio, os, sys
body = os.urandom(1024 * 1024)
small = b'HTTP/1.1 200 OK\\r\\nContent-Type: application/json\\r\\nContent-Length: 2\\r\\n\\r\\n{}'
large = b'HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n' % len(body) + body
async def serve(reader, writer):
    try:
        while True:
            head = await reader.readuntil(b'\\r\\n\\r\\n')
            for line in head.lower().split(b'\\r\\n'):
                if line.startswith(b'content-length:'):
                    await reader.readexactly(int(line[15:]))
            writer.write(large if b' /large' in head else small)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()
async def main():
    server = await asyncio.start_server(serve, '127.0.0.1', 0, limit=2 ** 21)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""


@contextmanager
def web_server() -> Iterator[str]:
    """Serve two bytes of JSON, and a mebibyte under ``/large``, in a process of its own."""
    with subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


@asynccontextmanager
async def http_family(folder: Path) -> AsyncIterator[list[Subject]]:
    """Requests and downloads, with one client and with the connections of a worker."""
    large, target = folder / "large", folder / "fetched"
    large.write_bytes(os.urandom(MIB))
    with web_server() as url:
        async with httpx.AsyncClient() as client, shared_connections():

            async def fetch() -> None:
                digest = hashlib.sha256()
                with target.with_suffix(".new").open("wb") as file:
                    async with client.stream("GET", f"{url}/large") as response:
                        async for piece in response.aiter_bytes():
                            digest.update(piece)
                            file.write(piece)
                    file.flush()
                    os.fsync(file.fileno())
                target.with_suffix(".new").replace(target)

            yield [
                Subject("http.request, GET", lambda: client.get(url), called(web.request, url=url)),
                Subject(
                    "http.request, POST of JSON",
                    lambda: client.post(url, json={"a": 1}),
                    called(web.request, url=url, method="POST", json={"a": 1}),
                ),
                Subject(
                    "http.request, PUT of a file of 1 MiB",
                    lambda: client.put(url, content=large.read_bytes()),
                    called(web.request, url=url, method="PUT", file=str(large)),
                ),
                Subject(
                    "http.request, GET of 1 MiB into a file",
                    fetch,
                    called(web.request, url=f"{url}/large", save_as=str(folder / "saved")),
                ),
                Subject(
                    "http.download, 1 MiB",
                    fetch,
                    called(download, url=f"{url}/large", path=str(folder / "ours")),
                ),
            ]


@asynccontextmanager
async def dns_family(folder: Path) -> AsyncIterator[list[Subject]]:
    """Look-ups and updates on a server of their own."""
    import dns.asyncquery
    import dns.message
    import dns.tsigkeyring
    import dns.update

    with ExitStack() as stack:
        server = services.NameServer.make(folder)
        server.start()
        stack.callback(server.stop)
        os.environ["BENCH_TSIG"] = server.tsig
        name = f"bench.{services.ZONE}"
        keys = dns.tsigkeyring.from_text({"pipelines": services.TSIG_SECRET})
        where = {"server": "127.0.0.1", "port": server.port}
        serial = iter(range(10**9))

        async def look_up() -> None:
            await dns.asyncquery.tcp(dns.message.make_query(name, "A"), "127.0.0.1", port=server.port)

        async def update() -> None:
            message = dns.update.UpdateMessage(services.ZONE, keyring=keys, keyalgorithm="hmac-sha256")
            message.replace(f"bare.{services.ZONE}.", 60, "TXT", str(next(serial)))
            await dns.asyncquery.tcp(message, "127.0.0.1", port=server.port)

        async def upsert() -> None:
            await called(
                names.upsert, name=name, type="TXT", values=[str(next(serial))], tsig="BENCH_TSIG", **where
            )()

        yield [
            Subject("dns.lookup", look_up, called(names.lookup, name=name, type="A", **where)),
            Subject("dns.upsert (reads before and after)", update, upsert),
        ]


@asynccontextmanager
async def sql_family(folder: Path) -> AsyncIterator[list[Subject]]:
    """One statement, with an engine that is made once and a connection for each call."""
    import sqlalchemy

    with ExitStack() as stack:
        urls = {"SQLite": f"sqlite:///{folder}/bench.db"}
        with unless_missing("PostgreSQL"):
            database = services.Database.make()
            stack.callback(database.close)
            database.start()
            urls["PostgreSQL"] = database.url
        subjects = []
        for kind, url in urls.items():
            secret = f"BENCH_{kind.upper()}"
            os.environ[secret] = url
            made = sqlalchemy.make_url(url)
            if kind == "PostgreSQL":
                made = made.set(drivername="postgresql+psycopg")
            engine = sqlalchemy.create_engine(made, poolclass=sqlalchemy.NullPool)
            stack.callback(engine.dispose)

            def bare(engine: sqlalchemy.Engine = engine) -> None:
                with engine.begin() as connection:
                    connection.execute(sqlalchemy.text("SELECT :n AS n"), {"n": 1}).all()

            given = {"connection": secret, "statement": "SELECT :n AS n", "parameters": {"n": 1}}
            subjects.append(Subject(f"sql.execute, {kind}", in_thread(bare), called(sql.execute, **given)))
        yield subjects


@asynccontextmanager
async def docker_family(_: Path) -> AsyncIterator[list[Subject]]:
    """What an Engine of its own is asked, with one client."""
    import docker as library

    with ExitStack() as stack:
        engine = services.Engine.make()
        stack.callback(engine.close)
        engine.start()
        engine.load_image()
        os.environ["DOCKER_HOST"] = engine.host
        client: Any = library.from_env(version="auto").api
        stack.callback(client.close)
        image, sleep = services.IMAGE, ["sleep", "1000"]
        engine.docker("run", "-d", "--name", "bench", image, *sleep)

        def execute() -> None:
            made = client.exec_create("bench", ["true"])
            client.exec_start(made["Id"])
            client.exec_inspect(made["Id"])

        def volume() -> None:
            client.create_volume("bare")
            client.remove_volume("bare")

        volumes = Volumes()
        yield [
            Subject(
                "image.inspect",
                in_thread(lambda: client.inspect_image(image)),
                called(Images().inspect, image=image),
            ),
            Subject(
                "container.exec, `true`",
                in_thread(execute),
                called(Containers().exec, container="bench", command=["true"]),
            ),
            Subject(
                "volume.create and .remove",
                in_thread(volume),
                both(called(volumes.create, name="ours"), called(volumes.remove, volume="ours")),
                steps=2,
            ),
        ]


FAMILIES = {
    "file": file_family,
    "shell": shell_family,
    "http": http_family,
    "dns": dns_family,
    "sql": sql_family,
    "docker": docker_family,
}


@contextmanager
def unless_missing(what: str) -> Iterator[None]:
    """Leave out what needs a service that is not installed, and say so."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "Skipped":
            raise
        print(f"| {what}: skipped: {error} {'| ' * len(HEAD)}", flush=True)


async def measured(subject: Subject, number: int, step: float) -> None:
    """Print a line of the table.

    Args:
        subject: What to measure.
        number: The rounds.
        step: A step's own cost, in seconds.
    """
    calls = {BARE: subject.bare, ACTIVITY: subject.activity}
    times: dict[str, int] = {}
    for which, call in calls.items():
        await call()
        begin = time.perf_counter()
        for _ in range(3):
            await call()
        times[which] = max(1, int(ROUND / ((time.perf_counter() - begin) / 3)))

    async def turn(which: str) -> tuple[float, float]:
        call, count = calls[which], times[which]
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(count):
            await call()
        return (time.perf_counter() - wall) / count, (time.process_time() - cpu) / count

    walls, cpus = await rounds(number, (BARE, ACTIVITY), turn)
    cells, over = [subject.what], []
    for samples in (walls, cpus):
        bare, activity = (statistics.median(samples[which]) for which in (BARE, ACTIVITY))
        cells += [f"{bare * 1000:.2f}", f"{activity * 1000:.2f}", ratio(samples, ACTIVITY, BARE)]
        over.append(activity - ALLOWED * bare)
    worse = max(0.0, *over)
    within = "yes" if worse else f"yes, at most {ALLOWED}"
    cells += [f"{worse * 1000:.2f}", "no" if worse > step * subject.steps else within]
    print(f"| {' | '.join(cells)} |", flush=True)


STEP = """\
  - id: s{number}
    activity: {activity}
    with: {{{given}}}
    compensate: none
"""


async def steps(number: int, rounds_: int) -> float:
    """Print what a step costs the worker on a server, with a request and with an activity that does nothing.

    Return the CPU of the latter, in seconds: a step's own cost.
    """
    server = devserver.start()
    try:
        client = await connected(server.address)
        queue = f"bench-{uuid.uuid4().hex[:8]}"
        worker = pipeline_worker(client, task_queue=queue, activities=[web.request, add])
        with web_server() as url, tempfile.TemporaryDirectory() as name:
            calls = {NOTHING: ("bench.add", "name: a, total: 1"), REQUEST: ("http.request", f'url: "{url}"')}
            bundles = {what: _bundle(Path(name), number, *call) for what, call in calls.items()}

            async def turn(what: str) -> tuple[float, float]:
                wall, cpu = time.perf_counter(), time.process_time()
                start = starting.Start(
                    name="bench",
                    bundle=bundles[what],
                    inputs={},
                    workflow_id=uuid.uuid4().hex,
                    task_queue=queue,
                )
                await (await starting.start(client, start))[0].result()
                return (time.perf_counter() - wall) / number, (time.process_time() - cpu) / number

            async with worker:
                for what in calls:
                    await turn(what)
                walls, cpus = await rounds(rounds_, calls, turn)
    finally:
        server.stop()
    print(f"| a step in a run of {number} | ms | ms of the worker's CPU |\n|---|--:|--:|")
    for what in calls:
        wall, cpu = (statistics.median(samples[what]) * 1000 for samples in (walls, cpus))
        print(f"| {what} | {wall:.2f} | {cpu:.2f} |")
    return statistics.median(cpus[NOTHING])


def _bundle(folder: Path, number: int, activity: str, given: str) -> bytes:
    path = folder / "bench.yaml"
    written = [STEP.format(number=one, activity=activity, given=given) for one in range(number)]
    path.write_text("name: bench\nsteps:\n" + "".join(written))
    loaded = load(path, modules=["bench.subjects"])
    assert loaded.bundle is not None, loaded.diagnostics
    return model.encode(loaded.bundle)


async def everything(families: list[str], number: int) -> None:
    """Print the cost of a step, and the table."""
    step = await steps(20, max(1, number // 2))
    print(f"\n| {' | '.join(HEAD)} |\n|---{'|--:' * (len(HEAD) - 1)}|")
    for family in families:
        with tempfile.TemporaryDirectory() as name, unless_missing(family):
            folder = Path(name)
            folder.chmod(0o755)
            async with FAMILIES[family](folder) as subjects:
                for subject in subjects:
                    await measured(subject, number, step)


def main() -> None:
    """Measure what is asked for, and print a table in Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds, wide intervals")
    parser.add_argument("--only", nargs="+", choices=[*FAMILIES], help="only these families")
    options = parser.parse_args()
    versions = ", ".join(f"{name} {version(name)}" for name in ("httpx", "dnspython", "sqlalchemy", "docker"))
    print(f"Python {platform.python_version()}, {versions}, {platform.system()} {platform.machine()}\n")
    asyncio.run(everything(options.only or [*FAMILIES], 8 if options.quick else 40))


if __name__ == "__main__":
    main()
