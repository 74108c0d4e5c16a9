"""A run belongs to a directory: its relative paths refer to it, wherever the run goes on."""

import asyncio
import os
import uuid
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import WorkflowHandle

from pipeline_runner.activities import shell
from pipeline_runner.activities.files import directory as directories
from pipeline_runner.activities.files import file as files
from pipeline_runner.activities.toolkit.context import absolute, working_directory
from pipeline_runner.core import model
from pipeline_runner.engine import client as starting
from tests.conftest import Pipelines, result_of
from tests.engine.test_undo import failure

SERVED = (directories.create, directories.remove, files.write, files.restore, files.read, shell.run)
RESTORE = 'compensate: {activity: file.restore, with: {path: "{{ step.input.path }}", key: "{{ step.key }}"}}'
CHILD = f"""
name: child
steps:
  - id: write
    activity: file.write
    with: {{path: child.txt, content: x}}
    {RESTORE}
  - id: pwd
    activity: shell.run
    with: {{command: [pwd, "-P"], parse: lines}}
output: "{{{{ steps.pwd.output.parsed[0] }}}}"
"""
MAIN = f"""
name: main
inputs: {{fail: {{type: boolean}}}}
steps:
  - id: make
    activity: directory.create
    with: {{path: made/deep}}
    compensate: {{activity: directory.remove, with: {{path: made/deep, key: "{{{{ step.key }}}}"}}}}
  - id: write
    activity: file.write
    with: {{path: made/deep/main.txt, content: x}}
    {RESTORE}
  - {{id: child, pipeline: ./child.yaml}}
  - {{id: below, activity: shell.run, with: {{command: [pwd, "-P"], cwd: made, parse: lines}}}}
  - {{id: stop, when: inputs.fail, fail: {{message: enough}}}}
output: ["{{{{ steps.write.output.path }}}}", "{{{{ steps.child.output }}}}", "{{{{ steps.below.output.parsed[0] }}}}"]
"""


async def _start(pipelines: Pipelines, directory: Path, **inputs: Any) -> WorkflowHandle[Any, Any]:
    bundle = pipelines.bundle(MAIN, child=CHILD)
    handle, _ = await starting.start(
        pipelines.client,
        starting.Start(
            name="main",
            bundle=model.encode(bundle),
            inputs=inputs,
            workflow_id=f"w-{uuid.uuid4().hex[:12]}",
            task_queue=pipelines.queue,
            directory=str(directory),
        ),
    )
    return handle


@pytest.fixture
def one(tmp_path: Path) -> Path:
    directory = tmp_path / "one"
    directory.mkdir()
    return directory


async def test_paths_refer_to_the_runs_directory_not_to_the_workers(pipelines: Pipelines, one: Path) -> None:
    async with pipelines.worker(*SERVED):
        output = await result_of(await _start(pipelines, one, fail=False))
    assert output == [str(one / "made/deep/main.txt"), str(one), str(one / "made")]
    assert (one / "child.txt").read_text() == "x"


async def test_an_undo_finds_what_the_steps_and_a_child_made(pipelines: Pipelines, one: Path) -> None:
    async with pipelines.worker(*SERVED):
        _, report = await failure(await _start(pipelines, one, fail=True))
    assert report is not None
    assert [(r.path, r.state) for r in report.undo] == [
        ("child/write", "undone"),
        ("write", "undone"),
        ("make", "undone"),
    ]
    assert os.listdir(one) == []


async def test_the_directory_survives_continue_as_new(small: Pipelines, one: Path) -> None:
    many = "".join(
        f"  - {{id: s{k}, activity: file.write, with: {{path: s{k}.txt, content: x}}, {RESTORE}}}\n"
        for k in range(15)
    )
    bundle = small.bundle("name: main\nsteps:\n" + many + "  - {id: stop, fail: {message: enough}}\n")
    async with small.worker(*SERVED):
        what = starting.Start(
            name="main",
            bundle=model.encode(bundle),
            inputs={},
            workflow_id=f"w-{uuid.uuid4().hex[:12]}",
            task_queue=small.queue,
            directory=str(one),
        )
        handle, _ = await starting.start(small.client, what)
        _, report = await failure(small.client.get_workflow_handle(handle.id))
    assert report is not None
    assert [r.state for r in report.undo] == ["undone"] * 15
    assert os.listdir(one) == []


async def test_a_run_by_name_stays_in_the_directory_of_the_server_that_took_it(
    pipelines: Pipelines, tmp_path: Path, one: Path
) -> None:
    text = (
        f"name: split\nsteps:\n  - {{id: w, activity: file.write, with: {{path: a.txt, content: x}}, {RESTORE}}}\n"
        f"  - {{id: nap, activity: shell.run, with: {{command: [cat, {tmp_path}/go]}},"
        " retry: {maximum_attempts: 0, initial_interval: 50ms, backoff_coefficient: 1.0}}\n"
        "  - {id: stop, fail: {message: enough}}\n"
    )
    bundles = {"split": model.encode(pipelines.bundle(text))}
    two = tmp_path / "two"
    two.mkdir()
    async with pipelines.worker(*SERVED, bundles=bundles, directory=str(one)):
        handle = await pipelines.client.start_workflow(
            "split", id=pipelines.queue, task_queue=pipelines.queue
        )
        # Until the run waits for nothing but the retry: no task is on its way when the worker stops.
        while not any(a.attempt > 2 for a in (await handle.describe()).raw_description.pending_activities):
            await asyncio.sleep(0.01)
    (tmp_path / "go").write_text("")
    async with pipelines.worker(*SERVED, bundles=bundles, directory=str(two)):
        _, report = await failure(handle)
    assert report is not None
    assert [(r.path, r.state) for r in report.undo] == [("w", "undone")]
    assert os.listdir(one) == []
    assert os.listdir(two) == []


def test_without_a_run_it_is_the_directory_of_the_process() -> None:
    assert working_directory() == os.getcwd()
    assert absolute("a/b") == os.path.join(os.getcwd(), "a/b")
    assert absolute("/a/b") == "/a/b"
