"""What the documentation shows is true: its pipelines are clean, and do what is said of them."""

import json
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client, WorkflowFailureError
from temporalio.exceptions import ApplicationError

from pipeline_runner.cli import session
from pipeline_runner.core import model
from pipeline_runner.core.inputs import validate_inputs
from pipeline_runner.engine import client as starting
from pipeline_runner.engine.worker import pipeline_worker
from pipeline_runner.engine.workflow.outcomes import report_of
from pipeline_runner.language.workspace import Loaded, load
from tests.conftest import result_of
from tests.docs.pages import EVERY, Block, blocks

PIPELINES = [block for block in EVERY if block.is_pipeline or block.noted("error")]
RUNS = [(block, said) for block in EVERY for said in block.noted("run")]
FAILURES = [(block, said) for block in EVERY for said in block.noted("fails")]


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test has a folder of its own, and leaves nothing importable behind."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.setenv("SHOP_TOKEN", "s3cr3t-for-the-docs")
    for name in ("shop", "shop_mail"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def loaded(block: Block, folder: Path) -> Loaded:
    """Write the files of the block's page, and load the block."""
    for other in blocks(block.page):
        if other.noted("file"):
            (folder / other.name).parent.mkdir(exist_ok=True)
            (folder / other.name).write_text(other.text)
    (folder / block.name).write_text(block.text)
    return load(block.name)


async def run(client: Client, bundle: model.Bundle, given: dict[str, Any], served: Loaded) -> Any:
    """Run a bundle with inputs, and return the handle."""
    queue = f"docs-{uuid.uuid4().hex[:8]}"
    pipeline = bundle.pipelines[bundle.root]
    activities = session.activities_of(served.modules)
    async with pipeline_worker(client, task_queue=queue, activities=activities):
        handle, _ = await starting.start(
            client,
            starting.Start(
                name=pipeline.name,
                bundle=model.encode(bundle),
                inputs=validate_inputs(pipeline.inputs, given),
                workflow_id=queue,
                task_queue=queue,
            ),
        )
        return await result_of(handle)


@pytest.mark.parametrize("block", PIPELINES, ids=str)
def test_pipeline_is_clean_or_has_the_noted_errors(block: Block, tmp_path: Path) -> None:
    found = loaded(block, tmp_path).diagnostics
    expected = [rule for said in block.noted("error") for rule in said.split(", ")]
    assert [d.rule for d in found if d.rule in expected or d.rule != "not-supported-yet"] == expected


@pytest.mark.parametrize(("block", "said"), RUNS, ids=str)
async def test_run_gives_what_is_said(block: Block, said: str, client: Client, tmp_path: Path) -> None:
    given, _, output = said.partition(" -> ")
    found = loaded(block, tmp_path)
    assert found.bundle is not None, found.diagnostics
    assert await run(client, found.bundle, json.loads(given), found) == json.loads(output)


@pytest.mark.parametrize(("block", "said"), FAILURES, ids=str)
async def test_run_fails_as_is_said(block: Block, said: str, client: Client, tmp_path: Path) -> None:
    given, _, rest = said.partition(" -> ")
    error, _, undone = rest.partition("; undone: ")
    found = loaded(block, tmp_path)
    assert found.bundle is not None, found.diagnostics
    with pytest.raises(WorkflowFailureError) as caught:
        await run(client, found.bundle, json.loads(given), found)
    cause = caught.value.cause
    assert isinstance(cause, ApplicationError)
    assert f"{cause.message} [{cause.type}]".replace(str(tmp_path), "/work") == error
    report = report_of(cause)
    assert report is not None
    assert [record.path for record in report.undo if record.state == "undone"] == (
        undone.split(", ") if undone else []
    )


def test_there_is_something_to_run() -> None:
    """A page whose comments are misspelt would pass in silence."""
    assert len(PIPELINES) > 20
    assert len(RUNS) > 10
    assert len(FAILURES) > 4
    known = {"file", "run", "fails", "error"}
    assert {key for block in EVERY for key, _ in block.notes} <= known
