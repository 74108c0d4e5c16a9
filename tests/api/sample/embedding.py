"""A program of a user's, which mypy checks strictly: see tests/api/test_typing.py."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_type

import pytest
from temporalio import activity
from temporalio.client import Client
from temporalio.testing import ActivityEnvironment
from temporalio.worker import Replayer, Worker

import pipeline_runner
from pipeline_runner import (
    Connection,
    Diagnostic,
    Ended,
    ErrorInfo,
    InvalidInputs,
    Pipeline,
    PipelinePlugin,
    Problem,
    Progress,
    Report,
    Run,
    RunCancelled,
    RunError,
    RunFailed,
    Runner,
    UndoRecord,
    Unserved,
    load,
    load_directory,
    load_text,
)
from pipeline_runner.activity import Retry, Timeouts, Undo, describe, idempotency_key, progress
from pipeline_runner.testing import Server, activity_environment, dev_server, replayer


@dataclass
class Order:
    customer: str
    amount: int


@dataclass
class Receipt:
    id: str


@describe(
    undo=Undo("shop.cancel", {"order": "{{ step.key }}"}),
    timeouts=Timeouts(heartbeat=5),
    retry=Retry(maximum_attempts=3),
)
@activity.defn(name="shop.order")
async def order(given: Order) -> Receipt:
    progress(1, given.amount, "items")
    return Receipt(id=idempotency_key())


class Shop:
    @describe(effect_free=True)
    @activity.defn(name="shop.look")
    def look(self, item: str) -> int:
        return len(item)


def vault(name: str) -> str | None:
    return {"TOKEN": "secret"}.get(name)


def loading() -> Pipeline:
    pipeline = load(Path("ship.yaml"), activities=["shop", order, Shop().look])
    assert_type(pipeline.ok, bool)
    assert_type(pipeline.name, str)
    assert_type(pipeline.diagnostics, tuple[Diagnostic, ...])
    assert_type(load_directory("pipelines"), list[Pipeline])
    try:
        assert_type(pipeline.check_inputs({"customer": "Ada"}), dict[str, Any])
    except InvalidInputs as error:
        assert_type(error.problems, list[Problem])
    return load_text("name: a", base=".")


async def running(client: Client, pipeline: Pipeline) -> Receipt:
    runner = Runner(client, task_queue="shop")
    run = await runner.start(pipeline, {"customer": "Ada"}, workflow_id="ship-1", directory=".")
    assert_type(run, Run)
    assert_type(await runner.get("ship-1"), Run)
    async for event in run.events():
        match event:
            case Progress():
                assert_type(event.path, str)
            case Connection() | Unserved() | Ended():
                pass
    await run.cancel("no longer needed")
    report = await run.report()
    assert_type(report, Report)
    assert_type(report.undo, tuple[UndoRecord, ...])
    assert_type(report.error, ErrorInfo | None)
    try:
        receipt = await run.result(Receipt)
    except RunCancelled:
        raise
    except RunFailed as error:
        raise RunError("ship-1", error.report) from error
    assert_type(receipt, Receipt)
    return receipt


async def serving(client: Client, pipelines: list[Pipeline]) -> None:
    plugin = PipelinePlugin(pipelines, activities=["shop"], secrets=vault, allow=["shop.*"])
    async with Worker(client, task_queue="shop", activities=[order], plugins=[plugin]):
        pass
    made = pipeline_runner.worker(client, pipelines, task_queue="shop", max_concurrent_activities=10)
    assert_type(made, Worker)


async def testing(pipeline_server: Server) -> None:
    environment = activity_environment(key="k", secrets={"TOKEN": "secret"})
    assert_type(environment, ActivityEnvironment)
    assert_type(await environment.run(order, Order("Ada", 1)), Receipt)
    with dev_server(time_skipping=True) as server:
        assert_type(await server.connect(), Client)
    assert_type(replayer(), Replayer)
    with pytest.raises(RunFailed):
        await pipeline_server.connect()
