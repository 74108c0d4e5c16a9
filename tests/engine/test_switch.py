"""``switch``: which arm runs, what it is undone with, and where a run goes on."""

import pytest
from temporalio.client import WorkflowFailureError

from tests.conftest import Pipelines, result_of
from tests.engine.test_scopes import BOOM, do, failed, pipeline
from tests.engine.test_undo import eventually


@pytest.mark.parametrize(
    ("size", "expected"),
    [(1, [{"x": "small"}, "completed"]), (5, [{"x": "middle"}, "completed"]), (50, [None, "completed"])],
)
async def test_the_first_arm_whose_condition_holds_runs(
    pipelines: Pipelines, size: int, expected: list[object]
) -> None:
    text = pipeline(
        """
  - id: size
    switch:
      - {when: inputs.size < 3, steps: [{id: a, set: {x: 1}}, {id: b, set: {x: small}}]}
      - {when: inputs.size < 10, steps: [{id: c, set: {x: middle}}]}
      # Not evaluated unless it is reached: it would be an error.
      - {when: 1 / (inputs.size - 5) < 0, steps: [{id: d, set: {x: never}}]}
""",
        'inputs: {size: {type: integer}}\noutput: ["{{ steps.size.output }}", "{{ steps.size.status }}"]\n',
    )
    async with pipelines.worker():
        assert await result_of(await pipelines.start(pipelines.bundle(text), size=size)) == expected


async def test_an_arm_without_a_condition_always_runs(pipelines: Pipelines) -> None:
    text = pipeline(
        """
  - id: size
    switch: [{when: "false", steps: [{id: a, set: {x: 1}}]}, {steps: [{id: b, set: {x: 2}}]}]
""",
        'output: "{{ steps.size.output }}"\n',
    )
    async with pipelines.worker():
        assert await result_of(await pipelines.start(pipelines.bundle(text))) == {"x": 2}


async def test_an_arm_is_a_scope_and_adds_no_name(pipelines: Pipelines) -> None:
    text = pipeline(
        f"""
  - {do("a")}
  - id: size
    switch:
      - {{when: "false", steps: [{do("never")}]}}
      - steps: [{do("b")}, {do("c")}, {BOOM}]
"""
    )
    async with pipelines.worker():
        error, report = await failed(await pipelines.start(pipelines.bundle(text)))
        assert error.message == "boom: it is broken"
        assert report is not None
        assert [record.path for record in report.undo] == ["size.switch[1].c", "size.switch[1].b", "a"]
        titled = text.replace("switch:", "name: by size\n    switch:")
        error, _ = await failed(await pipelines.start(pipelines.bundle(titled)))
        assert error.message == "by size: boom: it is broken"


async def test_a_condition_that_is_no_boolean_is_an_error(pipelines: Pipelines) -> None:
    text = pipeline(
        f"""
  - {do("a")}
  - id: size
    name: by size
    switch: [{{when: inputs.size, steps: [{do("never")}]}}]
""",
        "inputs: {size: {}}\n",
    )
    async with pipelines.worker():
        error, _ = await failed(await pipelines.start(pipelines.bundle(text), size=3))
    assert error.type == "ExpressionError"
    assert error.message == "by size: when must be true or false, not 3: inputs.size"
    assert pipelines.effects == ["do a", "undo a"]


async def test_the_compensation_of_a_switch_replaces_those_inside(pipelines: Pipelines) -> None:
    text = pipeline(
        f"""
  - id: size
    compensate: {{activity: effect.undo, with: {{log: LOG, name: whole}}}}
    switch: [{{steps: [{do("a")}]}}]
  - {BOOM}
"""
    )
    async with pipelines.worker():
        await failed(await pipelines.start(pipelines.bundle(text)))
    assert pipelines.effects == ["do a", "undo whole"]


async def test_an_error_in_an_arm_is_caught_and_items_choose_for_themselves(pipelines: Pipelines) -> None:
    text = pipeline(
        f"""
  - id: each
    for_each: [1, 2, 3]
    max_concurrency: 3
    switch:
      - {{when: item == 1, steps: [{do("one")}]}}
      - {{when: item == 2, steps: [{do("two")}, {{id: rest, wait: 10ms}}]}}
  - id: tried
    switch: [{{steps: [{do("b")}, {BOOM}]}}]
    catch: [{{types: [Boom], output: "{{{{ error.message }}}}"}}]
""",
        'output: ["{{ steps.each.output[0].name }}", "{{ steps.each.output[2] }}", "{{ steps.tried.output }}"]\n',
    )
    async with pipelines.worker():
        output = await result_of(await pipelines.start(pipelines.bundle(text)))
    assert output == ["one", None, "boom: it is broken"]
    assert pipelines.effects[2:] == ["do b", "undo b"]


async def test_a_cancellation_in_an_arm_undoes_it(pipelines: Pipelines) -> None:
    text = pipeline(
        f"""
  - id: size
    switch: [{{steps: [{do("a")}, {do("b", then="hang")}]}}]
    catch: [{{steps: [{do("never")}]}}]
"""
    )
    async with pipelines.worker():
        handle = await pipelines.start(pipelines.bundle(text))
        await eventually(lambda: "do b" in pipelines.effects)
        await handle.cancel()
        with pytest.raises(WorkflowFailureError):
            await handle.result()
    assert pipelines.effects == ["do a", "do b", "undo b", "undo a"]
