"""A compensation knows how the step ended that it undoes."""

from pathlib import Path

import pytest

from pipeline_runner.activities.files import file as files
from tests.conftest import Pipelines
from tests.engine.test_undo import failure

STEP = """
  - id: {0}
    activity: effect.do
    with: {{log: LOG, name: {0}, then: "{1}", seconds: {2}}}
    timeouts: {{start_to_close: {3}}}
    retry: {{maximum_attempts: 1}}
    compensate:
      activity: effect.undo
      after: started
      with: {{log: LOG, name: {0}, outcome: true}}
"""


async def test_of_a_step_that_completed_or_failed(pipelines: Pipelines) -> None:
    steps = STEP.format("first", "", 0, "30s") + STEP.format("second", "fail", 0, "30s")
    bundle = pipelines.bundle(f"name: main\nsteps:\n{steps}")
    async with pipelines.worker():
        await failure(await pipelines.start(bundle))
    assert pipelines.effects == ["do first", "undo second after failed", "undo first after completed"]


async def test_of_a_step_whose_outcome_is_not_known(pipelines: Pipelines) -> None:
    bundle = pipelines.bundle(f"name: main\nsteps:\n{STEP.format('slow', '', 60, '200ms')}")
    async with pipelines.worker():
        await failure(await pipelines.start(bundle))
    assert pipelines.effects == ["do slow", "undo slow after uncertain"]


async def test_and_a_step_that_undoes_nothing_has_none(pipelines: Pipelines) -> None:
    """Not even one of the same worker, after a compensation."""
    forward = "  - {id: forward, activity: effect.undo, with: {log: LOG, name: forward, outcome: true}}\n"
    failing = (
        f"name: main\nsteps:\n{STEP.format('first', '', 0, '30s')}  - {{id: stop, fail: {{message: no}}}}\n"
    )
    async with pipelines.worker():
        await failure(await pipelines.start(pipelines.bundle(failing)))
        await (await pipelines.start(pipelines.bundle(f"name: main\nsteps:\n{forward}"))).result()
    assert pipelines.effects == ["do first", "undo first after completed", "undo forward after None"]


NOTE = """
name: {0}
steps:
  - id: {0}
    activity: effect.undo
    with: {{log: LOG, name: {0}, outcome: true}}
"""
BY_PIPELINE = """
name: main
steps:
  - id: a
    activity: effect.do
    with: {log: LOG, name: a}
    compensate: {pipeline: ./undoing.yaml, retry: {maximum_attempts: 1}}
  - {id: stop, fail: {message: enough}}
"""


async def test_of_the_step_that_a_pipeline_undoes(pipelines: Pipelines) -> None:
    """Its children know as well."""
    outer = NOTE.format("outer") + "  - {id: c, pipeline: ./child.yaml}\n"
    bundle = pipelines.bundle(BY_PIPELINE, undoing=outer, child=NOTE.format("inner"))
    async with pipelines.worker():
        await failure(await pipelines.start(bundle))
    assert pipelines.effects == ["do a", "undo outer after completed", "undo inner after completed"]


async def test_what_such_a_pipeline_undoes_of_its_own(pipelines: Pipelines) -> None:
    """Its own first step, whose outcome is another."""
    timed_out = STEP.format("slow", "", 60, "200ms").replace("after: started", "after: uncertain")
    bundle = pipelines.bundle(BY_PIPELINE, undoing=f"name: undoing\nsteps:\n{timed_out}")
    async with pipelines.worker():
        _, report = await failure(await pipelines.start(bundle))
    assert pipelines.effects == ["do a", "do slow", "undo slow after uncertain"]
    assert report is not None
    assert report.dirty


async def test_a_pipeline_that_restores_misses_what_is_not_kept(
    pipelines: Pipelines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An undo that finds nothing of a completed step fails, wherever it runs."""
    monkeypatch.setenv("RUN_PIPELINE_STATE", str(tmp_path / "state"))
    restoring = """
name: undoing
inputs: {path: {type: string}, key: {type: string}}
steps:
  - id: restore
    activity: file.restore
    with: {path: "{{ inputs.path }}", key: "{{ inputs.key }}"}
    retry: {maximum_attempts: 1}
"""
    main = f"""
name: main
steps:
  - id: write
    activity: file.write
    with: {{path: {tmp_path}/f, content: new}}
    compensate:
      pipeline: ./undoing.yaml
      retry: {{maximum_attempts: 1}}
      with: {{path: "{{{{ step.input.path }}}}", key: "{{{{ step.key }}}}LOST"}}
  - {{id: stop, fail: {{message: enough}}}}
"""
    kept = pipelines.bundle(main.replace("LOST", ""), undoing=restoring)
    lost = pipelines.bundle(main.replace("LOST", "0"), undoing=restoring)
    async with pipelines.worker(files.write, files.restore):
        _, clean = await failure(await pipelines.start(kept))
        assert clean is not None
        assert (clean.dirty, (tmp_path / "f").exists()) == (False, False)
        _, report = await failure(await pipelines.start(lost))
    assert report is not None
    (record,) = report.undo
    assert (report.dirty, record.path, record.state) == (True, "write", "failed")
    assert record.error is not None
    assert record.error.type == "NothingKept"
    assert (tmp_path / "f").read_text() == "new"
