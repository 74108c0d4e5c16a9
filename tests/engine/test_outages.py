"""Servers that go away and come back, with worker and follower on a configured address."""

import asyncio
import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import WorkflowHandle
from temporalio.service import KeepAliveConfig

from pipeline_runner.engine import client as starting
from pipeline_runner.engine import follow
from pipeline_runner.engine.client import UnreachableError
from pipeline_runner.engine.follow import Follower
from pipeline_runner.engine.history.happenings import Connection, Progress, Unserved
from pipeline_runner.server import devserver
from tests.conftest import Pipelines, connected, result_of
from tests.engine.test_undo import eventually, failure
from tests.engine.texts import CHILD, FAIL, effect, pipeline

SLOW = """
version: 1
name: slow
steps:
  - {id: a, activity: effect.do, with: {log: LOG, name: a}, compensate: {activity: effect.undo, with: {log: LOG, name: a}}}
  - {id: b, activity: effect.do, with: {log: LOG, name: b, seconds: 2}, compensate: {activity: effect.undo, with: {log: LOG, name: b}}}
  - {id: c, activity: effect.do, with: {log: LOG, name: c, then: fail}}
"""


async def test_a_server_that_is_killed_and_comes_back_in_mid_run(tmp_path: Path) -> None:
    """No step runs twice, the undo is complete, and the follower misses nothing."""
    server = devserver.start(database=tmp_path / "temporal.db")
    try:
        pipelines = Pipelines(await connected(server.address), tmp_path)
        bundle = pipelines.bundle(SLOW)
        seen: list[str] = []

        async def watch(follower: Follower) -> None:
            seen.extend(
                [
                    f"{'undo ' if event.undo else ''}{event.path} {event.state}"
                    async for event in follower.events()
                    if isinstance(event, Progress)
                ]
            )

        async with pipelines.worker():
            handle = await pipelines.start(bundle)
            watching = asyncio.create_task(watch(Follower(pipelines.client, handle.id, handle.run_id)))
            await eventually(lambda: "do b" in pipelines.effects)
            server.kill()
            await asyncio.sleep(1.0)
            server = devserver.start(database=tmp_path / "temporal.db", port=server.port)
            async with asyncio.timeout(60):
                await watching
                _, report = await failure(handle)
        assert report is not None
        assert not report.dirty
        assert pipelines.effects == ["do a", "do b", "undo b", "undo a"]
        assert [line for line in seen if line.startswith("undo")] == [
            "undo b running", "undo b completed", "undo a running", "undo a completed",
        ]  # fmt: skip
    finally:
        server.stop()


async def test_an_outage_is_told_and_one_without_end_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "PATIENCE", 4.0)
    server = devserver.start(database=tmp_path / "temporal.db")
    try:
        pipelines = Pipelines(await connected(server.address), tmp_path)
        handle = await pipelines.start(pipelines.bundle(SLOW))
        events = Follower(pipelines.client, handle.id, handle.run_id).events()
        following = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0.5)
        server.kill()
        async with asyncio.timeout(60):
            assert await following == Connection(lost=True)
            server = devserver.start(database=tmp_path / "temporal.db", port=server.port)
            following = asyncio.ensure_future(anext(events))
            # Nothing happens in the run, so the follower notices with the next event it asks for.
            async with pipelines.worker():
                happened = [await following, await anext(events), await anext(events)]
                # Until now it had no worker, which is told if the server takes its time.
                happened = [event for event in happened if not isinstance(event, Unserved)]
                assert happened[0] == Connection(lost=False)
                first = happened[1]
                assert isinstance(first, Progress)
                assert (first.path, first.state) == ("a", "running")
                server.kill()
                with pytest.raises(UnreachableError, match="has not answered for 4 s"):
                    _ = [event async for event in events]
    finally:
        server.stop()


async def test_a_run_is_followed_over_retries_children_and_continue_as_new(tmp_path: Path) -> None:
    server = devserver.start(settings=("limit.historyCount.suggestContinueAsNew=60",))
    try:
        pipelines = Pipelines(await connected(server.address), tmp_path)
        steps = "".join(
            f"  - {{id: s{k}, activity: effect.do, with: {{log: LOG, name: s{k}}}}}\n" for k in range(20)
        )
        bundle = pipelines.bundle(
            f"version: 1\nname: long\nsteps:\n{steps}  - {{id: child, pipeline: ./child.yaml}}\n",
            child="version: 1\nname: child\nsteps:\n"
            "  - {id: n, activity: effect.do, with: {log: LOG, name: n}}\n  - {id: w, name: a rest, wait: 10ms}\n",
        )
        async with pipelines.worker():
            handle = await pipelines.start(bundle)
            follower = Follower(pipelines.client, handle.id, handle.run_id)
            seen = [event async for event in follower.events() if isinstance(event, Progress)]
            await result_of(pipelines.client.get_workflow_handle(handle.id, result_type=handle._result_type))
        completed = [event.path for event in seen if event.state == "completed"]
        assert completed == [*(f"s{k}" for k in range(20)), "child/n", "child/w", "child"]
        assert follower.run_id != handle.run_id
    finally:
        server.stop()


def test_a_port_that_another_program_listens_on_is_refused() -> None:
    """Whoever answers there is not the server."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(devserver.ServerError, match=f"^another program uses port {port}"):
            devserver.start(port=port)


def test_a_port_that_another_server_listens_on_is_refused() -> None:
    first = devserver.start()
    try:
        with pytest.raises(devserver.ServerError, match=f"^another program uses port {first.port}"):
            devserver.start(port=first.port)
        assert first.process.poll() is None
    finally:
        first.stop()


async def followed(pipelines: Pipelines, handle: WorkflowHandle[Any, Any]) -> list[Progress]:
    follower = Follower(pipelines.client, handle.id, handle.run_id)
    return [event async for event in follower.events() if isinstance(event, Progress)]


async def test_the_undo_of_a_child_is_followed_under_the_path_that_the_report_gives_it(
    pipelines: Pipelines,
) -> None:
    """A child undoes its step with a pipeline, which fails and undoes what it had done."""
    bundle = pipelines.bundle(
        pipeline(CHILD),
        c=pipeline(
            "  - {id: a, activity: effect.do, with: {log: LOG, name: a}, compensate: {pipeline: ./back.yaml}}\n"
            "  - {id: stop, fail: {message: no}}\n"
        ),
        back=pipeline(effect("x") + "  - {id: stop, fail: {message: not back}}\n"),
    )
    async with pipelines.worker():
        handle = await pipelines.start(bundle)
        follower = Follower(pipelines.client, handle.id, handle.run_id)
        seen = [event async for event in follower.events() if isinstance(event, Progress)]
        _, report = await failure(handle)
    assert report is not None
    assert [(record.path, record.state) for record in report.undo] == [
        ("c/undo:a/x", "undone"),
        ("c/a", "failed"),
    ]
    assert [(event.path, event.undo) for event in seen if event.state in ("completed", "failed")] == [
        ("c/a", False), ("c/undo:a/x", False), ("c/undo:a/x", True), ("c/a", True), ("c", False),
    ]  # fmt: skip
    assert follower.reader.attempts == {"c/undo:a/x": 1}


async def test_a_terminated_run_is_followed_to_its_end(pipelines: Pipelines) -> None:
    """Its child has no end of its own to tell: the follower does not wait for one."""
    bundle = pipelines.bundle(pipeline(effect("a"), CHILD), c=pipeline("  - {id: w, wait: 1h}\n"))
    async with pipelines.worker():
        handle = await pipelines.start(bundle)
        watching = asyncio.create_task(followed(pipelines, handle))
        await asyncio.sleep(1)
        await handle.terminate()
        async with asyncio.timeout(10):
            seen = await watching
    assert [(event.path, event.state) for event in seen][:4] == [
        ("a", "running"),
        ("a", "completed"),
        ("c", "running"),
        ("c/w", "waiting"),
    ]
    assert pipelines.effects == ["do a"]


async def test_forty_children_and_their_undo_are_followed(pipelines: Pipelines) -> None:
    children = "".join(CHILD.replace("{id: c", f"{{id: c{k}") for k in range(40))
    bundle = pipelines.bundle(
        pipeline(children, FAIL),
        c=pipeline("  - {id: g, pipeline: ./g.yaml}\n"),
        g=pipeline(effect("a")),
    )
    async with pipelines.worker():
        handle = await pipelines.start(bundle)
        async with asyncio.timeout(60):
            seen = await followed(pipelines, handle)
    done = [event for event in seen if event.state == "completed"]
    assert [event.path for event in done if event.undo] == [f"c{k}/g/a" for k in reversed(range(40))]
    assert [event.path for event in done if not event.undo] == [
        f"c{k}{rest}" for k in range(40) for rest in ("/g/a", "/g", "")
    ]


async def test_a_server_that_stops_answering_keeps_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its port is open and its connections stay; the times are shortened here."""
    monkeypatch.setattr(follow, "PATIENCE", 1.0)
    monkeypatch.setattr(starting, "ANSWER", 2.0)
    monkeypatch.setattr(starting, "_KEEP_ALIVE", KeepAliveConfig(interval_millis=300, timeout_millis=300))
    server = devserver.start()
    try:
        pipelines = Pipelines(await connected(server.address), tmp_path)
        handle = await pipelines.start(pipelines.bundle(SLOW))
        events = Follower(pipelines.client, handle.id, handle.run_id).events()
        os.kill(server.process.pid, signal.SIGSTOP)
        async with asyncio.timeout(45):
            with pytest.raises(UnreachableError, match="has not answered for 1 s"):
                _ = [event async for event in events]
            with pytest.raises(UnreachableError, match=r"has not answered for 2 s|it does not answer"):
                await starting.connect({"target_host": server.address})
    finally:
        os.kill(server.process.pid, signal.SIGCONT)
        server.stop()
