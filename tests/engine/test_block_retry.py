"""``retry`` of blocks, arms and branches, and ``fail_fast``: what is undone before what runs again."""

from typing import Any

import pytest
from temporalio.client import WorkflowFailureError

from tests.conftest import Pipelines, result_of
from tests.engine.test_scopes import BOOM, do, failed, pipeline, runs_of
from tests.engine.test_undo import eventually


def bad(good: int | str, name: str = "flaky", **more: Any) -> str:
    """A step that fails until its call of that number; it is undone whatever becomes of it."""
    given = "".join(f", {key}: {value}" for key, value in more.items())
    return (
        f"{{id: {name}, activity: effect.flaky, retry: {{maximum_attempts: 1}},"
        f' with: {{log: LOG, name: "{name}", good: {good}{given}}},'
        f' compensate: {{after: started, activity: effect.undo, with: {{log: LOG, name: "{name}"}}}}}}'
    )


def retried(attempts: int, rest: str = "") -> str:
    return f"retry: {{maximum_attempts: {attempts}, initial_interval: 1ms{rest}}}"


async def started(pipelines: Pipelines, text: str, **children: str) -> Any:
    return await pipelines.start(pipelines.bundle(text, **children))


KINDS = {
    "block": ("steps: [{0}, {1}]", ""),
    "switch": ("switch: [{{steps: [{0}, {1}]}}]", ".switch[0]"),
    "parallel": ("parallel: {{only: [{0}, {1}]}}", ".only"),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_failed_attempt_is_undone_before_the_next(pipelines: Pipelines, kind: str) -> None:
    holder, inside = KINDS[kind]
    text = pipeline(
        f"  - {do('before')}\n  - id: checks\n    {retried(3)}\n    {holder.format(do('a'), bad(3))}\n  - {BOOM}\n"
    )
    async with pipelines.worker():
        _, report = await failed(await started(pipelines, text))
    assert report is not None
    assert [record.path for record in report.undo] == [
        f"checks{inside}.flaky",
        f"checks{inside}.a",
        f"checks#2{inside}.flaky",
        f"checks#2{inside}.a",
        f"checks#3{inside}.flaky",
        f"checks#3{inside}.a",
        "before",
    ]
    attempt = ["do a", "do flaky", "undo flaky", "undo a"]
    assert pipelines.effects == ["do before", *attempt * 3, "undo before"]


async def test_every_attempt_has_keys_of_its_own(pipelines: Pipelines) -> None:
    text = pipeline(
        f"""
  - id: checks
    {retried(2)}
    steps:
      - {{id: key, activity: effect.do, with: {{log: LOG, name: "{{{{ step.key }}}}"}}}}
      - {bad(2)}
    output: "{{{{ steps.flaky.output }}}}"
""",
        'output: "{{ steps.checks.output }}"\n',
    )
    async with pipelines.worker():
        output = await result_of(await started(pipelines, text))
    assert output == {"path": "checks#2.flaky", "number": 2}
    first, second = [line for line in pipelines.effects if "flaky" not in line]
    assert first != second


async def test_the_last_failure_counts(pipelines: Pipelines) -> None:
    text = pipeline(f"  - id: checks\n    {retried(2)}\n    steps: [{do('a')}, {bad(9)}]\n")
    async with pipelines.worker():
        error, _ = await failed(await started(pipelines, text))
    assert (error.type, error.message) == ("Flaky", "flaky: call 2")
    assert isinstance(error.cause, BaseException)
    assert pipelines.effects == ["do a", "do flaky", "undo flaky", "undo a"] * 2


@pytest.mark.parametrize(
    "step",
    [BOOM, bad(9, type="Final"), '{id: wrong, set: {x: "{{ inputs.n.x }}"}}'],
    ids=["fail", "non-retryable", "expression"],
)
async def test_some_errors_are_not_retried(pipelines: Pipelines, step: str) -> None:
    policy = retried(3, ", non_retryable_error_types: [Final]")
    text = pipeline(
        f"  - id: checks\n    {policy}\n    steps: [{do('a')}, {step}]\n    catch: [{{output: caught}}]\n",
        'inputs: {n: {default: 1}}\noutput: "{{ steps.checks.output }}"\n',
    )
    async with pipelines.worker():
        assert await result_of(await started(pipelines, text)) == "caught"
    assert pipelines.effects.count("do a") == 1
    assert pipelines.effects[-1] == "undo a"


async def test_retries_come_before_a_handler(pipelines: Pipelines) -> None:
    text = pipeline(
        f"""
  - id: checks
    {retried(2)}
    steps: [{bad(9)}]
    catch: [{{steps: [{do("instead")}], output: "{{{{ error.message }}}}"}}]
""",
        'output: "{{ steps.checks.output }}"\n',
    )
    async with pipelines.worker():
        assert await result_of(await started(pipelines, text)) == "flaky: call 2"
    assert pipelines.effects == ["do flaky", "undo flaky"] * 2 + ["do instead"]


async def test_an_attempt_that_cannot_be_undone_is_the_last_one(pipelines: Pipelines) -> None:
    stuck = do("a").replace('name: "a"}}}', 'name: "a", then: fail}, retry: {maximum_attempts: 1}}}')
    assert "then: fail" in stuck
    text = pipeline(f"  - {do('before')}\n  - {{id: checks, {retried(5)}, steps: [{stuck}, {bad(9)}]}}\n")
    async with pipelines.worker():
        error, report = await failed(await started(pipelines, text))
    assert error.message == "flaky: call 1"
    assert report is not None
    assert report.dirty
    states = [(record.path, record.state) for record in report.undo]
    assert states == [("checks.flaky", "undone"), ("checks.a", "failed"), ("before", "undone")]
    assert pipelines.effects == ["do before", "do a", "do flaky", "undo flaky", "undo before"]


async def test_in_a_loop_each_item_is_retried_for_itself(pipelines: Pipelines) -> None:
    # The second item's first call is the second one.
    good = '"{{ 2 * index + 1 }}"'
    text = pipeline(
        f"""
  - id: each
    for_each: [x, y]
    {retried(2)}
    compensate: {{activity: effect.undo, with: {{log: LOG, name: "whole {{{{ item }}}}"}}}}
    steps:
      - {do("a", "{{ item }}")}
      - {bad(good)}
  - {BOOM}
"""
    )
    async with pipelines.worker():
        _, report = await failed(await started(pipelines, text))
    assert report is not None
    assert [record.path for record in report.undo] == ["each[1].flaky", "each[1].a", "each[1]#2", "each[0]"]
    assert pipelines.effects == [
        *("do x", "do flaky"),
        *("do y", "do flaky", "undo flaky", "undo y"),
        *("do y", "do flaky"),
        *("undo whole y", "undo whole x"),
    ]


async def test_a_time_limit_is_one_of_each_attempt_and_is_retried(pipelines: Pipelines) -> None:
    text = pipeline(
        f"""
  - id: checks
    {retried(2)}
    timeout: 400ms
    steps: [{do("a")}, {bad(1, hang=1)}]
""",
        'output: "{{ steps.checks.output.number }}"\n',
    )
    async with pipelines.worker():
        assert await result_of(await started(pipelines, text)) == 2
    assert pipelines.effects == [
        *("do a", "do flaky", "undo flaky", "undo a"),
        *("do a", "do flaky"),
    ]


async def test_a_block_can_be_retried_for_ever_and_cancelled_in_its_pause(pipelines: Pipelines) -> None:
    policy = "retry: {maximum_attempts: 0, initial_interval: 1h, maximum_interval: 1h}"
    text = pipeline(f"  - {do('before')}\n  - {{id: checks, {policy}, steps: [{do('a')}, {bad(9)}]}}\n")
    async with pipelines.worker():
        handle = await started(pipelines, text)
        await eventually(lambda: "undo a" in pipelines.effects)
        await handle.cancel()
        with pytest.raises(WorkflowFailureError):
            await handle.result()
    assert pipelines.effects == ["do before", "do a", "do flaky", "undo flaky", "undo a", "undo before"]


async def test_a_cancellation_in_the_undo_of_an_attempt_undoes_the_rest_once(pipelines: Pipelines) -> None:
    slow = do("b").replace('name: "b"}}}', 'name: "b", seconds: 1}}}')
    assert "seconds" in slow
    text = pipeline(
        f"""
  - {do("before")}
  - id: checks
    {retried(5)}
    compensate: {{activity: effect.undo, with: {{log: LOG, name: never}}}}
    steps: [{do("a")}, {slow}, {bad(9)}]
"""
    )
    async with pipelines.worker():
        handle = await started(pipelines, text)
        await eventually(lambda: "undo b" in pipelines.effects)
        await handle.cancel()
        with pytest.raises(WorkflowFailureError):
            await handle.result()
    assert pipelines.effects == [
        *("do before", "do a", "do b", "do flaky"),
        *("undo flaky", "undo b", "undo a", "undo before"),
    ]


async def test_blocks_in_finally_are_retried_and_undo_nothing(pipelines: Pipelines) -> None:
    step = bad(2).partition(", compensate")[0] + "}"
    text = pipeline(f"  - {do('a')}\n", f"finally:\n  - {{id: clean, {retried(2)}, steps: [{step}]}}\n")
    async with pipelines.worker():
        await result_of(await started(pipelines, text))
    assert pipelines.effects == ["do a", "do flaky", "do flaky"]


async def test_attempts_inside_attempts(pipelines: Pipelines) -> None:
    text = pipeline(
        f"""
  - id: outer
    {retried(2)}
    steps:
      - {{id: inner, {retried(2)}, steps: [{do("a")}, {bad(4)}]}}
    output: "{{{{ steps.inner.output.path }}}}"
""",
        'output: "{{ steps.outer.output }}"\n',
    )
    async with pipelines.worker():
        assert await result_of(await started(pipelines, text)) == "outer#2.inner#2.flaky"
    assert pipelines.effects.count("undo a") == 3


async def test_a_child_that_failed_is_started_again_with_the_block(pipelines: Pipelines) -> None:
    text = pipeline(
        f"  - id: checks\n    {retried(2)}\n    steps: [{do('a')}, {{id: c, pipeline: ./child.yaml}}]\n"
    )
    child = pipeline(f"  - {do('b')}\n  - {bad(2)}\n").replace("name: p", "name: child")
    async with pipelines.worker():
        await result_of(await started(pipelines, text, child=child))
    assert pipelines.effects == [
        *("do a", "do b", "do flaky", "undo flaky", "undo b", "undo a"),
        *("do a", "do b", "do flaky"),
    ]


async def test_attempts_go_on_from_every_boundary(pipelines: Pipelines, eager: list[int]) -> None:
    """In the undo of an attempt, in its pause, and in the second attempt, beside another branch."""
    text = pipeline(
        f"""
  - id: both
    parallel:
      one:
        - {{id: checks, {retried(3).replace("1ms", "1s")}, steps: [{do("a")}, {do("b")}, {bad(2)}]}}
      two: [{do("c")}, {do("d")}]
""",
        'output: "{{ steps.both.output.one.path }}"\n',
    )
    async with pipelines.worker():
        handle = await started(pipelines, text)
        newest = pipelines.client.get_workflow_handle(handle.id, result_type=handle._result_type)
        assert await result_of(newest) == "both.one.checks#2.flaky"
        assert await runs_of(pipelines, handle.id) > 3
    done = [line for line in pipelines.effects if line[-1] not in "cd"]
    assert done == [
        *("do a", "do b", "do flaky", "undo flaky", "undo b", "undo a"),
        *("do a", "do b", "do flaky"),
    ]


# fail_fast


@pytest.mark.parametrize("limit", [1, 3])
async def test_other_items_run_to_their_end(pipelines: Pipelines, limit: int) -> None:
    text = pipeline(
        f"""
  - id: copy
    for_each: [0, 1, 2, 3]
    max_concurrency: {limit}
    fail_fast: false
    steps:
      - {do("a", "{{ item }}")}
      - {{id: bad, when: item % 2 == 1, fail: {{message: "no {{{{ item }}}}", type: No}}}}
"""
    )
    async with pipelines.worker():
        error, report = await failed(await started(pipelines, text))
    assert error.type == "No"
    first, second = (1, 3) if "no 1" in error.message else (3, 1)
    assert error.message == f"copy[{first}]: bad: no {first}; 1 more failed: copy[{second}]"
    assert limit > 1 or first == 1
    assert report is not None
    assert len(report.undo) == 4
    assert sorted(pipelines.effects[:4]) == ["do 0", "do 1", "do 2", "do 3"]
    undone = [line.replace("undo", "do") for line in pipelines.effects[4:]]
    assert undone[::-1] == pipelines.effects[:4] or limit > 1


async def test_other_branches_run_to_their_end_and_the_first_error_is_caught(pipelines: Pipelines) -> None:
    text = pipeline(
        f"""
  - id: both
    fail_fast: false
    parallel:
      quick: [{BOOM}]
      slow: [{do("a", seconds=0.3)}, {do("b")}]
      other: [{{id: rest, wait: 100ms}}, {{id: bad, fail: {{message: no, type: No}}}}]
    catch: [{{types: [Boom], output: "{{{{ error.message }}}}"}}]
""",
        'output: "{{ steps.both.output }}"\n',
    )
    async with pipelines.worker():
        output = await result_of(await started(pipelines, text))
    assert output == "boom: it is broken; 1 more failed: other"
    assert pipelines.effects == ["do a", "do b", "undo b", "undo a"]


async def test_many_failures_are_counted_and_some_named(pipelines: Pipelines) -> None:
    text = pipeline(
        '  - {id: copy, for_each: "range(50) | list", fail_fast: false, max_concurrency: 7,'
        ' fail: {message: "no"}}\n'
    )
    async with pipelines.worker():
        error, _ = await failed(await started(pipelines, text))
    named = ", ".join(f"copy[{k}]" for k in range(1, 11))
    assert error.message == f"copy[0]: no; 49 more failed: {named}, …"


async def test_a_cancellation_ends_all_of_them(pipelines: Pipelines) -> None:
    text = pipeline(
        f"""
  - id: both
    fail_fast: false
    parallel: {{one: [{BOOM}], two: [{do("a", then="hang")}, {do("never")}]}}
"""
    )
    async with pipelines.worker():
        handle = await started(pipelines, text)
        await eventually(lambda: "do a" in pipelines.effects)
        await handle.cancel()
        with pytest.raises(WorkflowFailureError):
            await handle.result()
    assert pipelines.effects == ["do a", "undo a"]


async def test_failures_are_remembered_in_a_new_run(pipelines: Pipelines, eager: list[int]) -> None:
    text = pipeline(
        f"""
  - id: copy
    for_each: [0, 1, 2, 3]
    max_concurrency: 2
    fail_fast: false
    steps: [{do("a", "{{ item }}")}, {{id: bad, when: item < 2, fail: {{message: "no", type: No}}}}]
    catch: [{{output: "{{{{ error.message }}}}"}}]
""",
        'output: "{{ steps.copy.output }}"\n',
    )
    async with pipelines.worker():
        handle = await started(pipelines, text)
        newest = pipelines.client.get_workflow_handle(handle.id, result_type=handle._result_type)
        output = await result_of(newest)
        assert await runs_of(pipelines, handle.id) > 2
    assert output in [f"copy[{k}]: bad: no; 1 more failed: copy[{1 - k}]" for k in (0, 1)]
    assert sorted(pipelines.effects) == sorted(f"{what} {k}" for what in ("do", "undo") for k in range(4))
