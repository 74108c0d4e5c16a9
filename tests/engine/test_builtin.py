"""The built-in activities in real runs: data, cancellation, timeouts, undo."""

import asyncio
from pathlib import Path

import pytest
from temporalio.exceptions import ApplicationError, CancelledError

from pipeline_runner.activities import shell
from pipeline_runner.activities.files import file as files
from pipeline_runner.activities.http import request as web
from tests.conftest import Pipelines, result_of
from tests.engine.test_undo import eventually, failure
from tests.rawserver import RawServer, ok

FILES = """
version: 1
name: files
inputs: {fail: {type: boolean, default: true}}
steps:
  - id: write
    activity: file.write
    with: {path: ROOT/a.txt, content: "new"}
    compensate: {activity: file.restore, with: {path: "{{ step.input.path }}", key: "{{ step.key }}"}}
  - id: move
    activity: file.move
    with: {source: ROOT/b.txt, destination: ROOT/a.txt}
    compensate: {activity: file.restore, with: {path: "{{ step.input.destination }}", key: "{{ step.key }}"}}
  - id: read
    activity: file.read
    with: {path: ROOT/a.txt}
  - {id: stop, when: inputs.fail, fail: {message: enough}}
output: "{{ steps.read.output.content }}"
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    (folder / "a.txt").write_text("old a")
    (folder / "b.txt").write_text("old b")
    return folder


async def test_files_are_put_back_by_the_steps_key(pipelines: Pipelines, root: Path) -> None:
    bundle = pipelines.bundle(FILES.replace("ROOT", str(root)))
    async with pipelines.worker(files.write, files.move, files.read, files.restore):
        _, report = await failure(await pipelines.start(bundle))
        assert report is not None
        assert not report.dirty, report
        assert (root / "a.txt").read_text() == "old a"
        assert (root / "b.txt").read_text() == "old b"
        assert await result_of(await pipelines.start(bundle, fail=False)) == "old b"
    assert not (root / "b.txt").exists()


SLEEPER = """
version: 1
name: sleeper
steps:
  - id: nap
    activity: shell.run
    with: {command: [sh, -c, "echo $$ > ROOT/pid; sleep 2; echo late > ROOT/late"]}
    timeouts: {start_to_close: TIME}
    retry: {maximum_attempts: 1}
    compensate: {activity: shell.run, with: {command: [sh, -c, "echo undone > ROOT/undone"]}}
"""


def gone(root: Path) -> bool:
    return not Path(f"/proc/{(root / 'pid').read_text().strip()}").exists()


async def test_a_command_ends_with_its_start_to_close(pipelines: Pipelines, root: Path) -> None:
    """The server does not stop the attempt; what it would do later must not follow the undo."""
    bundle = pipelines.bundle(SLEEPER.replace("ROOT", str(root)).replace("TIME", "700ms"))
    async with pipelines.worker(shell.run):
        cause, report = await failure(await pipelines.start(bundle))
        assert isinstance(cause, ApplicationError)
        assert cause.type == "StartToCloseTimeout"
        assert report is not None
        assert [(r.outcome, r.state) for r in report.undo] == [("uncertain", "undone")]
        await eventually(lambda: gone(root))
        await asyncio.sleep(1.5)
    assert (root / "undone").exists()
    assert not (root / "late").exists()


async def test_a_cancelled_command_is_killed_before_it_is_undone(pipelines: Pipelines, root: Path) -> None:
    bundle = pipelines.bundle(SLEEPER.replace("ROOT", str(root)).replace("TIME", "1m"))
    async with pipelines.worker(shell.run):
        handle = await pipelines.start(bundle)
        await eventually(lambda: (root / "pid").exists() and bool((root / "pid").read_text()))
        await handle.cancel()
        cause, _ = await failure(handle)
        assert isinstance(cause, CancelledError)
        assert gone(root)
    assert (root / "undone").exists()
    assert not (root / "late").exists()


ASK_TWICE = """
version: 1
name: ask-twice
inputs: {url: {type: string}}
secrets: [ASK_TOKEN]
steps:
  - id: one
    activity: http.request
    with: {url: "{{ inputs.url }}", headers: {X-Token: "{{ secrets.ASK_TOKEN }}"}}
  - id: two
    activity: http.request
    with: {url: "{{ inputs.url }}"}
output: "{{ steps.two.output.body }}"
"""


async def test_a_worker_shares_connections_and_closes_them(
    pipelines: Pipelines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the secret of the first step goes to the host that it is meant for, and to no other."""
    monkeypatch.setenv("ASK_TOKEN", "t0psecret")
    bundle = pipelines.bundle(ASK_TWICE)
    with RawServer(lambda *_: ok(b"fine")) as other:
        location = f"Location: {other.url}/"
        with RawServer(lambda *_: ok(b"", location, status="302 Found")) as server:
            async with pipelines.worker(web.request):
                handle = await pipelines.start(bundle, url=server.url)
                assert await result_of(handle) == "fine"
            for one in (server, other):
                assert await asyncio.to_thread(one.closed.acquire, timeout=10)
                assert one.opened == 1
    assert [headers.get("x-token") for _, _, headers, _ in server.seen] == ["t0psecret", None]
    assert [headers.get("x-token") for _, _, headers, _ in other.seen] == [None, None]
