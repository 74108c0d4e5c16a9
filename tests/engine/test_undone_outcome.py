"""A compensation knows how the step ended that it undoes."""

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
