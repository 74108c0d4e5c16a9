"""A Ctrl-C is not lost: neither on a run that goes on as a new one, nor while the server is away."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import WorkflowHandle

from pipeline_runner.cli.exit_codes import ExitCode
from pipeline_runner.cli.following import follow
from pipeline_runner.cli.session import Interrupts, Target
from pipeline_runner.server import devserver
from tests.conftest import Pipelines, connected
from tests.engine.test_undo import eventually
from tests.engine.texts import effect, pipeline

STEPS = 12


def _bundle(pipelines: Pipelines, count: int) -> Any:
    hangs = "  - {id: h, wait: 1h}\n"
    return pipelines.bundle(pipeline(*(effect(f"s{k}") for k in range(count)), hangs))


def _more(told: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    told.append(capsys.readouterr().err)
    return "".join(told)


def _followed(
    pipelines: Pipelines, handle: WorkflowHandle[Any, Any], caught: Interrupts
) -> "asyncio.Task[ExitCode]":
    where = Target(settings={}, embedded=None)
    return asyncio.create_task(follow(pipelines.client, handle, caught, where, cancels=True))


async def test_on_a_run_that_has_gone_on_as_a_new_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = devserver.start(settings=("limit.historyCount.suggestContinueAsNew=60",))
    told: list[str] = []
    try:
        pipelines = Pipelines(await connected(server.address), tmp_path)
        async with pipelines.worker(), asyncio.timeout(40):
            handle = await pipelines.start(_bundle(pipelines, STEPS))
            caught = Interrupts()
            following = _followed(pipelines, handle, caught)
            await eventually(lambda: "h: waiting" in _more(told, capsys))
            newest = await pipelines.client.get_workflow_handle(handle.id).describe()
            assert newest.run_id != handle.run_id
            caught.hit("Ctrl-C")
            assert await following == ExitCode.CANCELLED
    finally:
        server.stop()
    assert "cancelled: Ctrl-C" in _more(told, capsys)
    assert pipelines.effects[-STEPS:] == [f"undo s{k}" for k in reversed(range(STEPS))]


async def test_while_the_server_is_away(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The SDK itself asks for five seconds, longer than which the server has to be away."""
    database = tmp_path / "temporal.db"
    server = devserver.start(database=database)
    told: list[str] = []
    try:
        pipelines = Pipelines(await connected(server.address), tmp_path)
        async with pipelines.worker(), asyncio.timeout(40):
            handle = await pipelines.start(_bundle(pipelines, 1))
            caught = Interrupts()
            following = _followed(pipelines, handle, caught)
            await eventually(lambda: "h: waiting" in _more(told, capsys))
            server.kill()
            caught.hit("Ctrl-C")
            await eventually(lambda: "lost the connection to the Temporal server" in _more(told, capsys))
            server = devserver.start(database=database, port=server.port)
            assert await following == ExitCode.CANCELLED
    finally:
        server.stop()
    assert "cancelled: Ctrl-C" in _more(told, capsys)
    assert pipelines.effects[-1:] == ["undo s0"]
