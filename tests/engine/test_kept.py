"""What the undos of a run need: it is out of the pipeline's way, and missed when it is gone."""

import os
import subprocess
from pathlib import Path

import pytest

from pipeline_runner.activities import shell
from pipeline_runner.activities.files import directory as directories
from pipeline_runner.activities.files import file as files
from tests.conftest import Pipelines, result_of
from tests.engine.test_undo import failure

SERVED = (directories.create, directories.remove, files.write, files.remove, files.restore, shell.run)
BUILD = """
name: build
steps:
  - id: folder
    activity: directory.create
    with: {path: OUT}
    compensate: {activity: directory.remove, with: {path: OUT, key: "{{ step.key }}"}}
  - id: build
    activity: shell.run
    with: {command: [touch, OUT/artefact]}
    compensate: {activity: file.remove, with: {path: OUT/artefact}}
  - {id: stop, fail: {message: enough}}
"""
SITE = """
name: site
inputs: {text: {type: string}}
steps:
  - id: source
    activity: file.write
    with: {path: OUT/index.html, content: "{{ inputs.text }}"}
    compensate: {activity: file.restore, with: {path: OUT/index.html, key: "{{ step.key }}"}}
  - id: pack
    activity: shell.run
    with: {command: [tar, cf, OUT.tar, -C, OUT, .]}
    compensate: none
"""
LOST = """
name: lost
steps:
  - id: one
    activity: file.write
    with: {path: OUT, content: hello}
    compensate:
      activity: file.restore
      with: {path: OUT, key: "{{ step.key }}"}
      retry: {maximum_attempts: 2}
  - {id: lose, activity: shell.run, with: {command: [rm, -rf, STATE/kept]}, compensate: none}
  - {id: stop, fail: {message: enough}}
"""


@pytest.fixture
def state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state directory of the test's own."""
    made = tmp_path_factory.mktemp("state")
    monkeypatch.setenv("RUN_PIPELINE_STATE", str(made))
    return made


async def test_what_an_undo_removes_is_gone(pipelines: Pipelines, tmp_path: Path, state: Path) -> None:
    bundle = pipelines.bundle(BUILD.replace("OUT", str(tmp_path / "out")))
    async with pipelines.worker(*SERVED):
        _, report = await failure(await pipelines.start(bundle))
    assert report is not None
    assert [(record.path, record.state) for record in report.undo] == [
        ("build", "undone"),
        ("folder", "undone"),
    ]
    assert not report.dirty
    assert not (tmp_path / "out").exists()


async def test_an_artefact_holds_nothing_of_the_run_before(
    pipelines: Pipelines, tmp_path: Path, state: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    bundle = pipelines.bundle(SITE.replace("OUT", str(out)))
    async with pipelines.worker(*SERVED):
        for text in ("internal draft: do not publish", "hello"):
            await result_of(await pipelines.start(bundle, text=text))
    assert os.listdir(out) == ["index.html"]
    packed = subprocess.run(["tar", "tf", f"{out}.tar"], check=True, capture_output=True, text=True).stdout
    assert packed.split() == ["./", "./index.html"]


async def test_an_undo_that_finds_nothing_leaves_the_run_dirty(
    pipelines: Pipelines, tmp_path: Path, state: Path
) -> None:
    path = tmp_path / "out"
    bundle = pipelines.bundle(LOST.replace("OUT", str(path)).replace("STATE", str(state)))
    async with pipelines.worker(*SERVED):
        _, report = await failure(await pipelines.start(bundle))
    assert report is not None
    assert report.dirty
    (record,) = report.undo
    assert (record.path, record.state, record.error and record.error.type) == ("one", "failed", "NothingKept")
    assert path.read_text() == "hello"
