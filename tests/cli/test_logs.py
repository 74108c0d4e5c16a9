"""What is logged: by activities in a command's output, and of runs in a worker's log."""

import asyncio
import re
import signal
from pathlib import Path

import pytest
from temporalio.client import Client, WorkflowFailureError

from pipeline_runner.server.devserver import DevServer
from tests.cli.command import finish, popen, run
from tests.cli.test_run_command import EFFECTS, PIPELINE, arguments
from tests.cli.test_serving import read_until

LOUD = """
import logging

from temporalio import activity
from temporalio.exceptions import ApplicationError


@activity.defn(name="loud")
async def loud(given: dict[str, str]) -> None:
    activity.logger.info("began with %s", given["token"])
    activity.logger.warning("two\\n::error::lines \\x1b[2J")
    logging.getLogger("loud").info("not for people")


@activity.defn(name="broken")
def broken() -> None:
    if activity.info().attempt == 1:
        raise KeyError("shelf")
"""
PIPE = """
name: loud
secrets: [TOKEN]
steps:
  - {id: a, activity: loud, with: {token: "{{ secrets.TOKEN }}"}}
  - {id: b, activity: broken, retry: {initial_interval: 10ms}}
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines" / "shop.yaml").write_text(PIPELINE)
    (tmp_path / "shop.yaml").write_text(PIPELINE)
    (tmp_path / "loud.py").write_text(LOUD)
    (tmp_path / "loud.yaml").write_text(PIPE)
    return tmp_path


def test_what_activities_log_is_seen_without_secrets_and_harmless(shop: Path) -> None:
    words = ("loud.yaml", "--activities", "loud")
    quiet = run(shop, *words, TOKEN="s3cret")
    assert quiet.code == 0, quiet.err
    assert "began" not in quiet.err
    assert "a: two\n>     ::error::lines �[2J\n" in quiet.err
    verbose = run(shop, *words, "-v", TOKEN="s3cret")
    assert verbose.code == 0, verbose.err
    assert "a: began with ***\n" in verbose.err
    assert "s3cret" not in verbose.err
    for done in (quiet, verbose):
        assert "Traceback" not in done.err, "the view tells of attempts"
        assert "\x1b" not in done.err
        assert "not for people" not in done.err


async def test_a_workers_log_has_a_line_for_what_happens_and_no_traceback(
    shop: Path, server: DevServer, client: Client
) -> None:
    address = {"TEMPORAL_ADDRESS": server.address, "TOKEN": "s3cret"}
    queue = f"queue-{shop.name}"
    worker = popen(
        shop, "worker", "pipelines", *EFFECTS, "--activities", "loud", "--task-queue", queue, **address
    )
    await asyncio.to_thread(read_until, worker, "pipelines by name: shop")

    async def start(name: str, inputs: object, key: str) -> None:
        with pytest.raises(WorkflowFailureError):
            await client.execute_workflow(name, inputs, id=f"{shop.name}-{key}", task_queue=queue)

    await start("shep", {}, "unknown")
    await start("shop", {"cuont": 1}, "wrong")
    await start("shop", {"log": str(shop / "log"), "then": "fail"}, "fails")
    good = await asyncio.to_thread(
        run,
        shop,
        "loud.yaml",
        "--activities",
        "loud",
        "--task-queue",
        queue,
        "--workflow-id",
        f"{shop.name}-good",
        **address,
    )
    assert good.code == 0, good.err
    worker.send_signal(signal.SIGTERM)
    done = await asyncio.to_thread(finish, worker)
    assert done.code == 0
    assert "Traceback" not in done.err
    assert "s3cret" not in done.err
    told = [line.partition(f"{shop.name}-")[2] for line in done.err.splitlines() if shop.name in line]
    of = {
        key: [line for line in told if line.startswith(f"{key}: ")]
        for key in ("unknown", "wrong", "fails", "good")
    }
    assert len(of["unknown"]) == 1
    assert re.match(
        r'unknown: refused: this worker does not serve the pipeline "shep"; .*\[UnknownPipeline\]',
        of["unknown"][0],
    )
    assert len(of["wrong"]) == 1
    assert of["wrong"][0].startswith("wrong: refused: ")
    assert of["wrong"][0].endswith("[InvalidInputs]")
    assert of["fails"] == [
        "fails: started: shop",
        "fails: b: attempt 1 failed: b is out of order [Broken]",
        "fails: b failed: b is out of order [Broken]",
        "fails: undone: a",
        "fails: failed: sell 1: b is out of order [Broken]",
    ]
    assert of["good"] == [
        "good: started: loud",
        "good: a: began with ***",
        "good: a: two",
        "good: b: attempt 1 failed: 'shelf' [KeyError]",
        "good: completed",
    ]
    stamped = [line for line in done.err.splitlines() if f"{shop.name}-" in line]
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ (info|warning) +\S", line) for line in stamped)


async def test_a_workers_log_does_not_repeat_a_run_that_is_replayed(
    shop: Path, server: DevServer, client: Client
) -> None:
    address = {"TEMPORAL_ADDRESS": server.address}
    queue = f"queue-{shop.name}"
    (shop / "shop.yaml").write_text(PIPELINE.replace("  - id: b\n", "  - {id: long, wait: 1h}\n  - id: b\n"))
    words = ("worker", *EFFECTS, "--task-queue", queue)
    worker = popen(shop, *words, **address)
    started = await asyncio.to_thread(
        run, shop, *arguments(shop), "--task-queue", queue, "--detach", "--workflow-id", shop.name, **address
    )
    assert started.code == 0, started.err
    await asyncio.to_thread(read_until, worker, f"{shop.name}: started: shop")
    worker.send_signal(signal.SIGTERM)
    await asyncio.to_thread(finish, worker)
    again = popen(shop, *words, **address)
    await asyncio.to_thread(read_until, again, "serving")
    await client.get_workflow_handle(shop.name).cancel()
    seen = await asyncio.to_thread(read_until, again, "cancelled: cancelled [Cancelled]")
    again.send_signal(signal.SIGTERM)
    await asyncio.to_thread(finish, again)
    assert "started" not in seen
    assert f"{shop.name}: undone: a" in seen
