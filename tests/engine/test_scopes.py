"""Blocks, branches, loops and handlers: what runs, what is undone, and where a run goes on."""

from typing import Any

import pytest
from temporalio.client import WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ApplicationError

from pipeline_runner.core.state import Report
from tests.conftest import Pipelines, result_of
from tests.engine.test_undo import eventually, failure


def do(id_: str, name: str | None = None, **more: Any) -> str:
    """A step that records what it does and what its undo does, in one line of YAML."""
    name = name or id_
    given = "".join(f", {key}: {value}" for key, value in more.items())
    return (
        f'{{id: {id_}, activity: effect.do, with: {{log: LOG, name: "{name}"{given}}},'
        f' compensate: {{activity: effect.undo, with: {{log: LOG, name: "{name}"}}}}}}'
    )


def pipeline(steps: str, rest: str = "") -> str:
    return f"version: 1\nname: p\nsteps:\n{steps}{rest}"


BOOM = "{id: boom, fail: {message: it is broken, type: Boom}}"


async def failed(handle: WorkflowHandle[Any, Any]) -> tuple[ApplicationError, Report | None]:
    error, report = await failure(handle)
    assert isinstance(error, ApplicationError)
    return error, report


async def test_a_block_is_a_scope_with_an_output(pipelines: Pipelines) -> None:
    text = pipeline(
        f"""
  - {{id: first, set: {{x: 1}}}}
  - id: block
    steps:
      - {do("a")}
      - {{id: b, set: {{y: "{{{{ steps.first.output.x + 1 }}}}"}}}}
  - id: chosen
    steps: [{{id: c, set: {{z: 3}}}}, {{id: d, when: "false", set: {{}}}}]
    output: {{z: "{{{{ steps.c.output.z }}}}", d: "{{{{ steps.d.status }}}}"}}
  - id: last
    steps: [{{id: e, when: "false", set: {{}}}}]
""",
        'output: ["{{ steps.block.output }}", "{{ steps.chosen.output }}", "{{ steps.last.output }}"]\n',
    )
    async with pipelines.worker():
        output = await result_of(await pipelines.start(pipelines.bundle(text)))
    assert output == [{"y": 2}, {"z": 3, "d": "skipped"}, None]
    assert pipelines.effects == ["do a"]


async def test_nested_scopes_are_undone_in_reverse_order_of_start(pipelines: Pipelines) -> None:
    text = pipeline(
        f"""
  - {do("a")}
  - id: outer
    steps:
      - {do("b")}
      - id: inner
        name: the inner one
        steps: [{do("c")}, {do("d")}]
      - {BOOM}
"""
    )
    async with pipelines.worker():
        error, report = await failed(await pipelines.start(pipelines.bundle(text)))
    assert error.message == "boom: it is broken"
    assert report is not None
    assert [record.path for record in report.undo] == ["outer.inner.d", "outer.inner.c", "outer.b", "a"]
    assert pipelines.effects == ["do a", "do b", "do c", "do d", "undo d", "undo c", "undo b", "undo a"]


async def test_branches_run_at_the_same_time_and_the_first_failure_ends_the_others(
    pipelines: Pipelines,
) -> None:
    text = pipeline(
        f"""
  - id: both
    parallel:
      slow: [{do("a", then="hang")}, {do("never")}]
      quick: [{do("b")}, {{id: pause, wait: 300ms}}, {BOOM}]
"""
    )
    async with pipelines.worker():
        error, report = await failed(await pipelines.start(pipelines.bundle(text)))
    assert error.message == "boom: it is broken"
    assert report is not None
    assert [(record.path, record.outcome) for record in report.undo] == [
        ("both.quick.b", "completed"),
        ("both.slow.a", "uncertain"),
    ]
    assert sorted(pipelines.effects[:2]) == ["do a", "do b"]
    assert pipelines.effects[2:] == ["undo b", "undo a"]


async def test_branches_give_their_last_outputs(pipelines: Pipelines) -> None:
    text = pipeline(
        """
  - id: both
    max_concurrency: 1
    parallel:
      one: [{id: a, set: {x: 1}}]
      two: [{id: b, set: {x: 2}}, {id: c, set: {x: "{{ steps.b.output.x + 1 }}"}}]
""",
        'output: "{{ steps.both.output }}"\n',
    )
    async with pipelines.worker():
        output = await result_of(await pipelines.start(pipelines.bundle(text)))
    assert output == {"one": {"x": 1}, "two": {"x": 3}}


async def test_a_loop_runs_its_step_once_for_each_item(pipelines: Pipelines) -> None:
    item = '"{{ item }}{{ index }}"'
    text = pipeline(
        f"""
  - id: each
    for_each: ["a", "b", "c"]
    when: item != "b"
    name: do {{{{ item }}}}
    activity: effect.do
    with: {{log: LOG, name: {item}}}
    compensate: {{activity: effect.undo, with: {{log: LOG, name: {item}}}}}
  - {{id: empty, for_each: [], set: {{x: 1}}}}
  - {{id: squares, for_each: "[1, 2, 3]", set: {{x: "{{{{ item * item }}}}"}}}}
""",
        'output: ["{{ steps.each.output[2].name }}", "{{ steps.empty.output }}", "{{ steps.squares.output }}"]\n',
    )
    async with pipelines.worker():
        output = await result_of(await pipelines.start(pipelines.bundle(text)))
    assert output == ["c2", [], [{"x": 1}, {"x": 4}, {"x": 9}]]
    assert pipelines.effects == ["do a0", "do c2"]


async def test_an_item_that_fails_is_named_and_all_items_are_undone(pipelines: Pipelines) -> None:
    text = pipeline(
        f"""
  - id: copy
    for_each: [x, y, z]
    steps:
      - {do("inside", "{{ item }}")}
      - {{id: check, when: item == "z", fail: {{message: no z, type: NoZ}}}}
"""
    )
    async with pipelines.worker():
        error, report = await failed(await pipelines.start(pipelines.bundle(text)))
    assert error.message == "copy[2]: check: no z"
    assert report is not None
    assert [record.path for record in report.undo] == [f"copy[{k}].inside" for k in (2, 1, 0)]
    assert pipelines.effects == ["do x", "do y", "do z", "undo z", "undo y", "undo x"]


@pytest.mark.parametrize("limit", [1, 3, 10])
async def test_no_more_items_run_at_a_time_than_allowed(pipelines: Pipelines, limit: int) -> None:
    text = pipeline(
        f"""
  - id: each
    for_each: [0, 1, 2, 3, 4, 5, 6]
    max_concurrency: {limit}
    activity: effect.do
    with: {{log: LOG, name: "{{{{ item }}}}", seconds: 0.05}}
""",
        'output: "{{ steps.each.output | length }}"\n',
    )
    async with pipelines.worker():
        handle = await pipelines.start(pipelines.bundle(text))
        assert await result_of(handle) == 7
        open_, most = 0, 0
        async for event in handle.fetch_history_events():
            if event.HasField("activity_task_scheduled_event_attributes"):
                open_ += 1
                most = max(most, open_)
            elif event.HasField("activity_task_completed_event_attributes"):
                open_ -= 1
    assert most == min(limit, 7)


async def test_an_error_is_handled_when_what_it_left_is_undone(pipelines: Pipelines) -> None:
    text = pipeline(
        f"""
  - {do("before")}
  - id: tried
    steps: [{do("a")}, {do("b")}, {BOOM}]
    catch:
      - {{types: [Other], output: wrong}}
      - types: [Boom]
        steps: [{do("told", "{{ error.type }} {{ error.message }}")}]
        output: "{{{{ steps.told.output.name }}}}"
  - {do("after")}
""",
        'output: ["{{ steps.tried.output }}", "{{ steps.tried.status }}", "{{ steps.tried.error.type }}"]\n',
    )
    async with pipelines.worker():
        output = await result_of(await pipelines.start(pipelines.bundle(text)))
    assert output == ["Boom boom: it is broken", "caught", "Boom"]
    assert pipelines.effects == [
        "do before",
        "do a",
        "do b",
        "undo b",
        "undo a",
        "do Boom boom: it is broken",
        "do after",
    ]


async def test_what_a_handler_does_is_undone_when_the_run_fails_later(pipelines: Pipelines) -> None:
    text = pipeline(
        f"""
  - id: tried
    steps: [{do("a")}, {BOOM}]
    catch: [{{steps: [{do("instead")}]}}]
  - {{id: last, fail: {{message: enough, type: Last}}}}
"""
    )
    async with pipelines.worker():
        error, report = await failed(await pipelines.start(pipelines.bundle(text)))
    assert (error.type, error.message) == ("Last", "last: enough")
    assert report is not None
    assert [record.path for record in report.undo] == ["tried.a", "tried.catch[0].instead"]
    assert pipelines.effects == ["do a", "undo a", "do instead", "undo instead"]


async def test_an_error_that_no_handler_knows_goes_on(pipelines: Pipelines) -> None:
    text = pipeline(
        f"""
  - id: tried
    catch: [{{types: [Other]}}]
    steps: [{do("a")}, {BOOM}]
"""
    )
    async with pipelines.worker():
        error, _ = await failed(await pipelines.start(pipelines.bundle(text)))
    assert error.message == "boom: it is broken"
    assert pipelines.effects == ["do a", "undo a"]


async def test_a_handler_in_a_branch_leaves_the_other_branches_alone(pipelines: Pipelines) -> None:
    text = pipeline(
        f"""
  - id: both
    parallel:
      one:
        - id: tried
          steps: [{do("a")}, {BOOM}]
          catch: [{{output: handled}}]
      two: [{do("b")}]
""",
        'output: "{{ steps.both.output.one }}"\n',
    )
    async with pipelines.worker():
        assert await result_of(await pipelines.start(pipelines.bundle(text))) == "handled"
    assert sorted(pipelines.effects) == ["do a", "do b", "undo a"]


async def test_a_loop_is_handled_as_a_whole(pipelines: Pipelines) -> None:
    text = pipeline(
        f"""
  - id: each
    for_each: [1, 2, 3]
    max_concurrency: 1
    steps: [{do("a", "{{ item }}")}, {{id: bad, when: item == 2, fail: {{message: no, type: No}}}}]
    catch: [{{output: "{{{{ error.message }}}}"}}]
""",
        'output: "{{ steps.each.output }}"\n',
    )
    async with pipelines.worker():
        assert await result_of(await pipelines.start(pipelines.bundle(text))) == "each[1]: bad: no"
    assert pipelines.effects == ["do 1", "do 2", "undo 2", "undo 1"]


async def test_a_cancellation_is_never_handled(pipelines: Pipelines) -> None:
    text = pipeline(
        f"""
  - id: tried
    parallel: {{one: [{do("a", then="hang")}], two: [{do("b")}]}}
    catch: [{{steps: [{do("never")}]}}]
"""
    )
    async with pipelines.worker():
        handle = await pipelines.start(pipelines.bundle(text))
        await eventually(lambda: sorted(pipelines.effects) == ["do a", "do b"])
        await handle.cancel()
        with pytest.raises(WorkflowFailureError):
            await handle.result()
    assert pipelines.effects[2:] == ["undo b", "undo a"]


async def test_a_cancellation_while_an_error_is_being_undone_undoes_the_rest_once(
    pipelines: Pipelines,
) -> None:
    slow = do("a").replace('name: "a"}}}', 'name: "a", seconds: 1}}}')
    assert "seconds" in slow
    text = pipeline(
        f"""
  - {do("before")}
  - id: tried
    steps: [{do("first")}, {slow}, {BOOM}]
    catch: [{{steps: [{do("never")}]}}]
"""
    )
    async with pipelines.worker():
        handle = await pipelines.start(pipelines.bundle(text))
        await eventually(lambda: "undo a" in pipelines.effects)
        await handle.cancel()
        with pytest.raises(WorkflowFailureError):
            await handle.result()
    assert pipelines.effects == [
        "do before",
        "do first",
        "do a",
        "undo a",
        "undo first",
        "undo before",
    ]


async def test_the_compensation_of_a_block_replaces_those_inside_once_it_has_completed(
    pipelines: Pipelines,
) -> None:
    whole = "compensate: {activity: effect.undo, with: {log: LOG, name: whole}}"
    for inside, expected in (
        ("", ["do a", "do b", "undo whole"]),
        (f", {BOOM}", ["do a", "do b", "undo b", "undo a"]),
    ):
        text = pipeline(
            f"""
  - id: block
    {whole}
    steps: [{do("a")}, {do("b")}{inside}]
  - {{id: last, fail: {{message: enough}}}}
"""
        )
        async with pipelines.worker():
            await failure(await pipelines.start(pipelines.bundle(text)))
        assert pipelines.effects[-len(expected) :] == expected


async def test_a_run_that_handled_an_error_and_could_not_undo_it_is_dirty(pipelines: Pipelines) -> None:
    stuck = do("a").replace('name: "a"}}}', 'name: "a", then: fail}, retry: {maximum_attempts: 1}}}')
    assert "then: fail" in stuck
    text = pipeline(
        f"\n  - {{id: tried, steps: [{stuck}, {BOOM}], catch: [{{output: fine}}]}}\n", "output: done\n"
    )
    async with pipelines.worker():
        handle = await pipelines.start(pipelines.bundle(text))
        assert await result_of(handle) == "done"
        memo = (await handle.describe()).raw_description.workflow_execution_info.memo.fields
    assert b'"dirty":true' in memo["pipeline-runner-report"].data.replace(b" ", b"")


EVERYTHING = pipeline(
    f"""
  - {do("a")}
  - id: block
    steps:
      - {do("b")}
      - id: both
        parallel:
          one: [{do("c")}, {{id: rest, wait: 50ms}}, {do("d")}]
          two:
            - id: tried
              steps: [{do("e")}, {do("f")}, {BOOM}]
              catch: [{{types: [Boom], steps: [{do("g")}, {do("h")}], output: "{{{{ steps.h.output.name }}}}"}}]
            - {do("i")}
  - id: each
    for_each: "[1, 2, 3, 4, 5]"
    max_concurrency: 2
    steps: [{do("j", "j{{ item }}")}, {do("k", "k{{ index }}")}]
    output: "{{{{ item }}}} {{{{ steps.k.output.name }}}}"
  - {do("l")}
""",
    'output: ["{{ steps.block.output.two.name }}", "{{ steps.each.output }}", "{{ steps.l.output.name }}"]\n',
)


async def runs_of(pipelines: Pipelines, workflow_id: str) -> int:
    count, run_id = 0, None
    while True:
        events = [
            event
            async for event in pipelines.client.get_workflow_handle(
                workflow_id, run_id=run_id
            ).fetch_history_events()
        ]
        count += 1
        run_id = events[0].workflow_execution_started_event_attributes.continued_execution_run_id or None
        if run_id is None:
            return count


async def test_a_run_goes_on_from_every_boundary(pipelines: Pipelines, eager: list[int]) -> None:
    async with pipelines.worker():
        handle = await pipelines.start(pipelines.bundle(EVERYTHING))
        newest = pipelines.client.get_workflow_handle(handle.id, result_type=handle._result_type)
        output = await result_of(newest)
    assert output == ["i", ["1 k0", "2 k1", "3 k2", "4 k3", "5 k4"], "l"]
    assert sorted(pipelines.effects) == sorted(
        [f"do {name}" for name in "abcdefghil"]
        + [f"do {name}" for k in range(5) for name in (f"j{k + 1}", f"k{k}")]
        + ["undo e", "undo f"]
    )
    order = pipelines.effects
    assert order.index("undo f") < order.index("undo e") < order.index("do g")
    assert await runs_of(pipelines, handle.id) > 10


async def test_a_run_that_fails_is_undone_from_every_boundary(pipelines: Pipelines, eager: list[int]) -> None:
    failing = EVERYTHING.replace("output: [", "  - {id: end, fail: {message: enough}}\noutput: [", 1)
    async with pipelines.worker():
        handle = await pipelines.start(pipelines.bundle(failing))
        _, report = await failure(pipelines.client.get_workflow_handle(handle.id))
    assert report is not None
    assert not report.dirty
    done = [line.removeprefix("do ") for line in pipelines.effects if line.startswith("do ")]
    undone = [line.removeprefix("undo ") for line in pipelines.effects if line.startswith("undo ")]
    assert sorted(done) == sorted(undone)
    assert undone[2:3] == ["l"]
    assert undone[-2:] == ["b", "a"]


STUCK = do("a").replace('name: "a"}}}', 'name: "a", then: fail}, retry: {maximum_attempts: 1}}}')
DIRTY = pipeline(f"\n  - {{id: tried, steps: [{STUCK}, {BOOM}], catch: [{{output: fine}}]}}\n")


async def test_what_a_completed_child_has_left_is_in_the_report_of_its_parent(pipelines: Pipelines) -> None:
    text = pipeline("\n  - {id: outer, pipeline: ./middle.yaml}\n  - {id: last, fail: {message: enough}}\n")
    middle = pipeline("\n  - {id: inner, pipeline: ./child.yaml}\n")
    async with pipelines.worker():
        bundle = pipelines.bundle(text, middle=middle, child=DIRTY)
        _, report = await failed(await pipelines.start(bundle))
    assert report is not None
    assert report.dirty
    assert [(record.path, record.state) for record in report.undo] == [("outer/inner/tried.a", "failed")]
    assert report.undo[0].error is not None
    assert report.undo[0].error.type == "Stuck"


async def test_and_so_is_what_a_compensation_has_left(pipelines: Pipelines) -> None:
    text = pipeline(
        """
  - {id: made, set: {x: 1}, compensate: {pipeline: ./child.yaml}}
  - {id: last, fail: {message: enough}}
"""
    )
    async with pipelines.worker():
        _, report = await failed(await pipelines.start(pipelines.bundle(text, child=DIRTY)))
    assert report is not None
    assert report.dirty
    assert [(record.path, record.state) for record in report.undo] == [
        ("undo:made/tried.a", "failed"),
        ("made", "undone"),
    ]


TELL = "catch: [{steps: [{id: tell, fail: {message: nobody listens}}]}]"


@pytest.mark.parametrize(
    ("step", "names"),
    [
        ("fail: {message: no}", "a: tell"),
        ("name: 'the {{ inputs.x }}', fail: {message: no}", "the first: tell"),
        ("name: '{{ item }}', for_each: [1], fail: {message: no}", "a: tell"),
        (f"steps: [{BOOM}]", "tell"),
        (f"name: block, parallel: {{left: [{BOOM}]}}", "block: tell"),
        (f"name: '{{{{ 1 / 0 }}}}', steps: [{BOOM}]", "a: tell"),
    ],
)
async def test_the_error_of_a_handler_has_the_name_of_its_step(
    pipelines: Pipelines, step: str, names: str
) -> None:
    text = pipeline(
        f"\n  - {{id: outer, name: outer, steps: [{{id: a, {step}, {TELL}}}]}}\n",
        "inputs: {x: {default: first}}\n",
    )
    async with pipelines.worker():
        error, _ = await failed(await pipelines.start(pipelines.bundle(text)))
    assert error.message == f"outer: {names}: nobody listens"
