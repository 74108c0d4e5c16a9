"""``until``: repetitions, their condition and pause, what is undone, and where a run goes on."""

import pytest
from temporalio.client import WorkflowFailureError

from tests.conftest import Pipelines, result_of
from tests.engine.test_scopes import BOOM, do, failed, pipeline, runs_of
from tests.engine.test_undo import eventually


def poll(condition: str, rest: str = "", *, every: str = "1ms", then: str = '""') -> str:
    """A step that does 0, 1, 2, … until a condition holds."""
    return f"""
  - id: poll
    until: {{condition: '{condition}', every: {every}{rest}}}
    activity: effect.do
    with: {{log: LOG, name: "{{{{ index }}}}", then: {then}}}
    compensate: {{activity: effect.undo, with: {{log: LOG, name: "{{{{ index }}}}"}}}}
"""


async def test_a_step_is_repeated_until_its_condition_holds(pipelines: Pipelines) -> None:
    text = pipeline(
        """
  - id: count
    until: {condition: last.sum >= 6, every: "{{ index }}ms"}
    set: {sum: "{{ index + last.sum | default(0) }}", before: "{{ last }}"}
""",
        'output: "{{ steps.count.output }}"\n',
    )
    async with pipelines.worker():
        output = await result_of(await pipelines.start(pipelines.bundle(text)))
    assert output["sum"] == 6
    assert output["before"]["sum"] == 3
    assert output["before"]["before"]["before"] == {"sum": 0, "before": None}


async def test_a_condition_that_holds_at_once_needs_no_pause(pipelines: Pipelines) -> None:
    text = pipeline(poll("index == 0", every="1h"), 'output: "{{ steps.poll.output.name }}"\n')
    async with pipelines.worker():
        assert await result_of(await pipelines.start(pipelines.bundle(text))) == 0


async def test_every_repetition_is_undone(pipelines: Pipelines) -> None:
    loop = poll("last.name == 2")
    text = pipeline(f"  - {do('a')}\n{loop}\n  - {BOOM}\n")
    async with pipelines.worker():
        _, report = await failed(await pipelines.start(pipelines.bundle(text)))
    assert report is not None
    assert [record.path for record in report.undo] == ["poll[2]", "poll[1]", "poll[0]", "a"]
    assert pipelines.effects == ["do a", "do 0", "do 1", "do 2", "undo 2", "undo 1", "undo 0", "undo a"]


async def test_what_an_undo_reads_of_the_repetition_before_is_kept(pipelines: Pipelines) -> None:
    text = pipeline(
        f"""
  - id: poll
    until: {{condition: index == 1, every: 1ms}}
    activity: effect.do
    with: {{log: LOG, name: "{{{{ index }}}}"}}
    compensate:
      activity: effect.undo
      with: {{log: LOG, name: "{{{{ last.name | default('none') }}}}"}}
  - {BOOM}
"""
    )
    async with pipelines.worker():
        await failed(await pipelines.start(pipelines.bundle(text)))
    assert pipelines.effects == ["do 0", "do 1", "undo 0", "undo none"]


async def test_a_condition_that_is_never_met_is_an_error(pipelines: Pipelines) -> None:
    text = pipeline(f"  - {do('a')}\n" + poll("false", ", at_most: 2"))
    async with pipelines.worker():
        error, report = await failed(await pipelines.start(pipelines.bundle(text)))
    assert error.type == "UntilTimeout"
    assert error.message == 'the condition of "poll" was not met in 2 repetitions'
    assert report is not None
    assert report.error is not None
    assert report.error.step == "poll"
    assert pipelines.effects == ["do a", "do 0", "do 1", "undo 1", "undo 0", "undo a"]


@pytest.mark.parametrize("pause", [True, False], ids=["in a pause", "in a repetition"])
async def test_its_time_limit_ends_a_pause_or_a_repetition(pipelines: Pipelines, pause: bool) -> None:
    rest = ", timeout: 300ms"
    loop = poll("false", rest, every="1h") if pause else poll("false", rest, then="hang")
    text = pipeline(loop + "    catch: [{types: [UntilTimeout], output: '{{ error.message }}'}]\n")
    text += 'output: "{{ steps.poll.output }}"\n'
    async with pipelines.worker():
        output = await result_of(await pipelines.start(pipelines.bundle(text)))
    assert output == 'the condition of "poll" was not met within 300ms'
    assert pipelines.effects == ["do 0", "undo 0"]


async def test_a_repetition_that_fails_is_named_by_its_number(pipelines: Pipelines) -> None:
    text = pipeline(
        f"""
  - id: poll
    until: {{condition: "false", every: 1ms}}
    steps: [{do("a", "{{ index }}")}, {{id: bad, when: index == 1, fail: {{message: no, type: No}}}}]
"""
    )
    async with pipelines.worker():
        error, report = await failed(await pipelines.start(pipelines.bundle(text)))
        assert error.message == "poll[1]: bad: no"
        assert report is not None
        assert [record.path for record in report.undo] == ["poll[1].a", "poll[0].a"]
        titled = text.replace("    steps:", '    name: "try {{ index }}"\n    steps:')
        error, _ = await failed(await pipelines.start(pipelines.bundle(titled)))
        assert error.message == "try 1[1]: bad: no"


@pytest.mark.parametrize(
    ("loop", "message"),
    [
        (poll("last.name"), "poll[0]: the condition of until must be true or false, not 0: last.name"),
        (
            poll("false", every="'{{ last.name }}'"),
            "poll[0]: every: ",
        ),
    ],
)
async def test_a_condition_or_a_pause_that_makes_no_sense_is_an_error(
    pipelines: Pipelines, loop: str, message: str
) -> None:
    async with pipelines.worker():
        error, _ = await failed(await pipelines.start(pipelines.bundle(pipeline(loop))))
    assert error.type == "ExpressionError"
    assert error.message.startswith(message)
    assert pipelines.effects == ["do 0", "undo 0"]


async def test_a_repetition_can_be_skipped(pipelines: Pipelines) -> None:
    text = pipeline(
        poll("index == 2 and last is none") + "    when: index == 1\n", 'output: "{{ steps.poll.output }}"\n'
    )
    async with pipelines.worker():
        assert await result_of(await pipelines.start(pipelines.bundle(text))) is None
    assert pipelines.effects == ["do 1"]


@pytest.mark.parametrize("every", ["1h", "1ms"], ids=["in a pause", "in a repetition"])
async def test_a_cancellation_undoes_all_repetitions(pipelines: Pipelines, every: str) -> None:
    then = "\"{{ 'hang' if index == 1 else '' }}\""
    text = pipeline(poll("false", every=every, then=then) + "    catch: [{output: never}]\n")
    async with pipelines.worker():
        handle = await pipelines.start(pipelines.bundle(text))
        begun = ["do 0"] if every == "1h" else ["do 0", "do 1"]
        await eventually(lambda: pipelines.effects == begun)
        await handle.cancel()
        with pytest.raises(WorkflowFailureError):
            await handle.result()
    assert pipelines.effects == [*begun, *(f"undo {line[3:]}" for line in reversed(begun))]


async def test_items_branches_and_children_repeat_for_themselves(pipelines: Pipelines) -> None:
    text = pipeline(
        f"""
  - id: each
    for_each: [a, b]
    max_concurrency: 2
    steps:
      - id: poll
        until: {{condition: 'index == 1 and item != ""', every: 1ms}}
        steps: [{do("inside", "{{ item }}{{ index }}")}]
  - id: child
    until: {{condition: last.n == 1, every: 1ms}}
    pipeline: ./child.yaml
    with: {{n: "{{{{ index }}}}"}}
  - {BOOM}
"""
    )
    child = pipeline(
        f"  - {do('c', 'c{{ inputs.n }}')}\n",
        'inputs: {n: {type: integer}}\noutput: {n: "{{ inputs.n }}"}\n',
    ).replace("name: p", "name: child")
    async with pipelines.worker():
        _, report = await failed(await pipelines.start(pipelines.bundle(text, child=child)))
    assert report is not None
    paths = [record.path for record in report.undo]
    assert paths[:2] == ["child[1]/c", "child[0]/c"]
    assert sorted(paths[2:]) == [f"each[{k}].poll[{n}].inside" for k in (0, 1) for n in (0, 1)]
    assert sorted(pipelines.effects[4:]) == sorted(["do c0", "do c1", "undo c1", "undo c0"] + [
        f"undo {name}" for name in ("a0", "a1", "b0", "b1")
    ])  # fmt: skip


async def test_a_repeated_step_goes_on_from_every_boundary(pipelines: Pipelines, eager: list[int]) -> None:
    """In a pause, before a repetition and in the middle of one, beside a branch that does the same."""
    text = pipeline(
        f"""
  - id: both
    parallel:
      one:
        - id: poll
          until: {{condition: last.name == 2, every: 50ms}}
          steps: [{do("x", "x{{ index }}")}, {do("y", "{{ index }}")}]
      two:
        - id: wait
          until: {{condition: index == 1, every: 1s}}
          activity: effect.do
          with: {{log: LOG, name: "{{{{ index }}}}{{{{ last.name | default('-') }}}}"}}
""",
        'output: ["{{ steps.both.output.one.name }}", "{{ steps.both.output.two.name }}"]\n',
    )
    async with pipelines.worker():
        handle = await pipelines.start(pipelines.bundle(text))
        newest = pipelines.client.get_workflow_handle(handle.id, result_type=handle._result_type)
        output = await result_of(newest)
        assert await runs_of(pipelines, handle.id) > 3
    assert output == [2, "10-"]
    done = [f"do {name}" for name in ("x0", "0", "x1", "1", "x2", "2")]
    assert [line for line in pipelines.effects if line in done] == done
    assert sorted(pipelines.effects) == sorted([*done, "do 0-", "do 10-"])
