"""Undo: whatever ends a run, at whatever moment, its effects are undone in reverse order.

The pipeline has ten steps and, in the middle, a child that has a child of its own: thirteen
effects. The recorder writes down the order in which they really happened.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from temporalio.client import WorkflowExecutionStatus, WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ApplicationError, CancelledError

from pipeline_runner.core.model import Bundle
from pipeline_runner.core.state import Report
from pipeline_runner.engine.workflow.outcomes import report_of
from tests.conftest import Pipelines, result_of

STEP = """
  - id: {0}
    activity: effect.do
    with: {{log: "{{{{ inputs.log }}}}", name: {0}, at: "{{{{ inputs.at }}}}", mode: "{{{{ inputs.mode }}}}"}}
    timeouts: {{start_to_close: "{1}"}}
    retry: {{maximum_attempts: 1}}
    compensate: {{activity: effect.undo, with: {{log: "{{{{ inputs.log }}}}", name: "{{{{ step.input.name }}}}"}}}}
"""
INPUTS = """
inputs: {log: {type: string}, at: {type: string, default: ""}, mode: {type: string, default: ""}}
"""
PASS_ON = "{log: '{{ inputs.log }}', at: '{{ inputs.at }}', mode: '{{ inputs.mode }}'}"
ORDER = ["s1", "s2", "s3", "s4", "c1", "g1", "g2", "c2", "s6", "s7", "s8", "s9", "s10"]


def ten_steps(pipelines: Pipelines, timeout: str = "30s") -> Bundle:
    def steps(*names: str) -> str:
        return "".join(STEP.format(name, timeout) for name in names)

    def child(step: str, file: str) -> str:
        return f"\n  - {{id: {step}, pipeline: ./{file}.yaml, with: {PASS_ON}}}\n"

    return pipelines.bundle(
        f"version: 1\nname: ten\n{INPUTS}steps:\n{steps('s1', 's2', 's3', 's4')}{child('s5', 'child')}"
        f"{steps('s6', 's7', 's8', 's9', 's10')}",
        child=f"version: 1\nname: child\n{INPUTS}steps:\n{steps('c1')}{child('inner', 'grandchild')}{steps('c2')}",
        grandchild=f"version: 1\nname: grandchild\n{INPUTS}steps:\n{steps('g1', 'g2')}",
    )


def forward_and_back(names: list[str]) -> list[str]:
    return [f"do {name}" for name in names] + [f"undo {name}" for name in reversed(names)]


def effects_of(pipelines: Pipelines, log: str) -> list[str]:
    path = pipelines.folder / log
    return path.read_text().splitlines() if path.exists() else []


async def failure(handle: WorkflowHandle[Any, Any]) -> tuple[BaseException, Report | None]:
    with pytest.raises(WorkflowFailureError) as caught:
        await handle.result()
    cause = caught.value.cause
    return cause, report_of(cause) if isinstance(cause, ApplicationError | CancelledError) else None


async def eventually(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


async def test_a_run_without_mistakes_undoes_nothing(pipelines: Pipelines) -> None:
    bundle = ten_steps(pipelines)
    async with pipelines.worker():
        await result_of(await pipelines.start(bundle, log=pipelines.log))
    assert pipelines.effects == [f"do {name}" for name in ORDER]


async def test_failure_at_every_step_undoes_the_steps_before_it(pipelines: Pipelines) -> None:
    bundle = ten_steps(pipelines)

    async def one(k: int) -> None:
        log = f"fail-{k}.log"
        handle = await pipelines.start(bundle, log=str(pipelines.folder / log), at=ORDER[k], mode="fail")
        cause, report = await failure(handle)
        assert isinstance(cause, ApplicationError)
        assert cause.type == "Broken"
        assert report is not None
        assert (report.status, report.dirty) == ("failed", False)
        assert [record.state for record in report.undo] == ["undone"] * k
        assert effects_of(pipelines, log) == forward_and_back(ORDER[:k]), f"failing at {ORDER[k]}"

    async with pipelines.worker():
        await asyncio.gather(*(one(k) for k in range(len(ORDER))))


async def test_timeout_at_every_step_undoes_that_step_too(pipelines: Pipelines) -> None:
    """A start-to-close timeout leaves open whether the step did its work: it is undone."""
    bundle = ten_steps(pipelines, timeout="3s")

    async def one(k: int) -> None:
        log = f"timeout-{k}.log"
        handle = await pipelines.start(bundle, log=str(pipelines.folder / log), at=ORDER[k], mode="hang")
        cause, report = await failure(handle)
        assert isinstance(cause, ApplicationError)
        assert cause.type == "StartToCloseTimeout"
        assert report is not None
        assert not report.dirty
        assert effects_of(pipelines, log) == forward_and_back(ORDER[: k + 1]), f"timing out at {ORDER[k]}"

    async with pipelines.worker():
        await asyncio.gather(*(one(k) for k in range(len(ORDER))))


async def test_cancellation_at_every_step_undoes_that_step_too(pipelines: Pipelines) -> None:
    bundle = ten_steps(pipelines)

    async def one(k: int) -> None:
        log = f"cancel-{k}.log"
        handle = await pipelines.start(bundle, log=str(pipelines.folder / log), at=ORDER[k], mode="hang")
        await eventually(lambda: f"do {ORDER[k]}" in effects_of(pipelines, log))
        await handle.cancel()
        cause, report = await failure(handle)
        assert isinstance(cause, CancelledError)
        assert report is not None
        assert (report.status, report.dirty) == ("cancelled", False)
        # The report names the steps of children with their paths.
        assert [r.path.rpartition("/")[2] for r in report.undo] == list(reversed(ORDER[: k + 1]))
        assert {r.state for r in report.undo} == {"undone"}
        assert effects_of(pipelines, log) == forward_and_back(ORDER[: k + 1]), f"cancelled at {ORDER[k]}"

    async with pipelines.worker():
        await asyncio.gather(*(one(k) for k in range(len(ORDER))))


@pytest.mark.parametrize("cached", [1000, 2])
async def test_cancellation_at_any_moment_leaves_nothing_half_done(pipelines: Pipelines, cached: int) -> None:
    """Also with a cache too small for the runs, so that instances are evicted and replayed."""
    bundle = ten_steps(pipelines)

    async def one(moment: int) -> str:
        log = f"any-{moment}.log"
        handle = await pipelines.start(bundle, log=str(pipelines.folder / log))
        await asyncio.sleep(moment * 0.05)
        await handle.cancel()
        try:
            await handle.result()
        except WorkflowFailureError as error:
            assert isinstance(error.cause, CancelledError), error.cause
            done = effects_of(pipelines, log)
            forward = [line.removeprefix("do ") for line in done if line.startswith("do ")]
            assert forward == ORDER[: len(forward)]
            undone = [line.removeprefix("undo ") for line in done if line.startswith("undo ")]
            # A step that was cancelled before its worker took it is uncertain, and undone as well.
            assert undone in (forward[::-1], ORDER[: len(forward) + 1][::-1]), done
            assert done == [f"do {n}" for n in forward] + [f"undo {n}" for n in undone]
            return "cancelled"
        assert effects_of(pipelines, log) == [f"do {name}" for name in ORDER]
        return "completed"

    ends = []
    async with pipelines.worker(max_cached_workflows=cached):
        for first in range(0, 32, 8):
            ends += await asyncio.gather(*(one(moment) for moment in range(first, first + 8)))
    assert ends.count("cancelled") >= 8


async def test_a_failing_compensation_does_not_stop_the_others_and_is_dirty(pipelines: Pipelines) -> None:
    def step(name: str, then: str = "", undo: str = "") -> str:
        return f"""
  - id: {name}
    activity: effect.do
    with: {{log: LOG, name: {name}, then: "{then}"}}
    compensate:
      activity: effect.undo
      with: {{log: LOG, name: {name}, then: "{undo}"}}
      retry: {{maximum_attempts: 2, initial_interval: 10ms}}
"""

    bundle = pipelines.bundle(
        "version: 1\nname: stuck\nsteps:"
        + step("a") + step("b", undo="fail") + step("c", undo="fail-once") + step("d", then="fail")
    )  # fmt: skip
    async with pipelines.worker():
        cause, report = await failure(await pipelines.start(bundle))
    assert isinstance(cause, ApplicationError)
    assert cause.message == "d: d is out of order"
    assert cause.non_retryable
    assert report is not None
    assert report.dirty
    assert [(r.path, r.state) for r in report.undo] == [("c", "undone"), ("b", "failed"), ("a", "undone")]
    stuck = report.undo[1].error
    assert stuck is not None
    assert (stuck.type, stuck.message) == ("Stuck", "b cannot be undone")
    assert pipelines.effects == ["do a", "do b", "do c", "undo c", "undo a"]


async def test_a_cancelled_run_whose_undo_fails_is_not_reported_as_cleanly_cancelled(
    pipelines: Pipelines,
) -> None:
    bundle = pipelines.bundle("""
version: 1
name: stuck
steps:
  - id: a
    activity: effect.do
    with: {log: LOG, name: a}
    compensate: {activity: effect.undo, with: {log: LOG, name: a, then: fail}, retry: {maximum_attempts: 1}}
  - {id: b, activity: effect.do, with: {log: LOG, name: b, then: hang}}
""")
    async with pipelines.worker():
        handle = await pipelines.start(bundle)
        await eventually(lambda: "do b" in pipelines.effects)
        await handle.cancel()
        cause, report = await failure(handle)
    assert isinstance(cause, ApplicationError)
    assert cause.type == "Cancelled"
    assert report is not None
    assert (report.status, report.dirty) == ("cancelled", True)


async def test_undo_is_not_interrupted_by_a_cancellation(pipelines: Pipelines) -> None:
    bundle = pipelines.bundle("""
version: 1
name: shielded
steps:
  - id: a
    activity: effect.do
    with: {log: LOG, name: a}
    compensate: {activity: effect.undo, with: {log: LOG, name: a}}
  - id: b
    activity: effect.do
    with: {log: LOG, name: b}
    compensate: {activity: effect.do, with: {log: LOG, name: slow undo, seconds: 1}}
  - {id: c, activity: effect.do, with: {log: LOG, name: c, then: fail}}
""")
    async with pipelines.worker():
        handle = await pipelines.start(bundle)
        await eventually(lambda: "do slow undo" in pipelines.effects)
        await handle.cancel()
        cause, report = await failure(handle)
    assert isinstance(cause, ApplicationError)
    assert cause.type == "Broken"
    assert report is not None
    assert (report.status, report.dirty) == ("failed", False)
    assert pipelines.effects == ["do a", "do b", "do slow undo", "undo a"]


@pytest.mark.parametrize(
    ("after", "then", "undone", "dirty"),
    [
        ("completed", "fail-after", [], False),
        ("uncertain", "fail-after", [], False),
        ("started", "fail-after", ["undo a"], False),
        ("completed", "hang", [], True),
        ("uncertain", "hang", ["undo a"], False),
        ("started", "hang", ["undo a"], False),
    ],
)
async def test_after_says_which_outcomes_are_undone(
    pipelines: Pipelines, after: str, then: str, undone: list[str], *, dirty: bool
) -> None:
    """An uncertain step that the author does not want undone is left, so the run is dirty."""
    bundle = pipelines.bundle(f"""
version: 1
name: after
steps:
  - id: a
    activity: effect.do
    with: {{log: LOG, name: a, then: {then}}}
    timeouts: {{start_to_close: 1s}}
    retry: {{maximum_attempts: 1}}
    compensate: {{activity: effect.undo, with: {{log: LOG, name: a}}, after: {after}}}
""")
    async with pipelines.worker():
        _, report = await failure(await pipelines.start(bundle))
    assert report is not None
    assert pipelines.effects == ["do a", *undone]
    assert report.dirty is dirty


async def test_an_own_error_after_an_unknown_attempt_is_uncertain(pipelines: Pipelines) -> None:
    """The first attempt does its work and times out; the second says that it is there already."""
    bundle = pipelines.bundle(
        """
version: 1
name: twice
steps:
  - id: a
    activity: test.twice
    task_queue: QUEUE
    with: {log: LOG}
    timeouts: {start_to_close: 1s}
    retry: {maximum_attempts: 3, initial_interval: 10ms}
    compensate: {activity: effect.undo, with: {log: LOG, name: a}}
""".replace("QUEUE", pipelines.queue)
    )
    from temporalio import activity

    from tests.effects import note

    @activity.defn(name="test.twice")
    async def twice(given: dict[str, str]) -> None:
        attempt = activity.info().attempt
        note(given["log"], f"attempt {attempt}")
        if attempt == 1:
            await asyncio.sleep(3600)
        raise ApplicationError("already there", type="Conflict", non_retryable=attempt == 3)

    async with pipelines.worker(twice):
        cause, report = await failure(await pipelines.start(bundle))
    assert isinstance(cause, ApplicationError)
    assert (cause.message, cause.type) == ("a: already there", "Conflict")
    assert report is not None
    assert [(r.path, r.outcome, r.state) for r in report.undo] == [("a", "uncertain", "undone")]
    assert pipelines.effects == ["attempt 1", "attempt 2", "attempt 3", "undo a"]


async def test_an_undo_that_needs_an_output_that_is_not_there_is_dirty(pipelines: Pipelines) -> None:
    bundle = pipelines.bundle("""
version: 1
name: no-output
steps:
  - id: a
    activity: effect.do
    with: {log: LOG, name: a, then: hang}
    timeouts: {start_to_close: 1s}
    retry: {maximum_attempts: 1}
    compensate: {activity: effect.undo, with: {log: LOG, name: "{{ step.output.name }}"}}
""")
    async with pipelines.worker():
        _, report = await failure(await pipelines.start(bundle))
    assert report is not None
    assert report.dirty
    [record] = report.undo
    assert record.state == "failed"
    assert record.error is not None
    assert record.error.type == "ExpressionError"
    assert 'there is no key "name"' in record.error.message


async def test_a_terminated_child_is_uncertain_and_makes_the_run_dirty(pipelines: Pipelines) -> None:
    bundle = pipelines.bundle(
        """
version: 1
name: parent
steps:
  - {id: a, activity: effect.do, with: {log: LOG, name: a}, compensate: {activity: effect.undo, with: {log: LOG, name: a}}}
  - {id: child, name: the child, pipeline: ./child.yaml}
""",
        child="""
version: 1
name: child
steps:
  - {id: c, activity: effect.do, with: {log: LOG, name: c, then: hang}, compensate: {activity: effect.undo, with: {log: LOG, name: c}}}
""",
    )
    async with pipelines.worker():
        handle = await pipelines.start(bundle)
        await eventually(lambda: "do c" in pipelines.effects)
        await pipelines.client.get_workflow_handle(f"{handle.id}/child").terminate("test")
        cause, report = await failure(handle)
    assert isinstance(cause, ApplicationError)
    assert cause.type == "ChildTerminated"
    assert cause.message == "the child: the child was terminated, without undo"
    assert report is not None
    assert report.dirty
    assert [(r.path, r.state) for r in report.undo] == [("child", "not undone"), ("a", "undone")]
    assert pipelines.effects == ["do a", "do c", "undo a"]


async def test_a_childs_own_compensation_replaces_its_log(pipelines: Pipelines) -> None:
    bundle = pipelines.bundle(
        """
version: 1
name: parent
steps:
  - id: child
    pipeline: ./child.yaml
    compensate: {pipeline: ./undo.yaml, with: {what: "{{ step.output.name }}"}}
  - {id: left, pipeline: ./child.yaml, compensate: none}
  - {id: b, activity: effect.do, with: {log: LOG, name: b, then: fail}}
""",
        child="""
version: 1
name: child
steps:
  - {id: c, activity: effect.do, with: {log: LOG, name: c}, compensate: {activity: effect.undo, with: {log: LOG, name: c}}}
output: "{{ steps.c.output }}"
""",
        undo="""
version: 1
name: undo
inputs: {what: {type: string}}
steps:
  - {id: u, activity: effect.undo, with: {log: LOG, name: "{{ inputs.what }} as a whole"}}
""",
    )
    async with pipelines.worker():
        _, report = await failure(await pipelines.start(bundle))
    assert report is not None
    assert [(r.path, r.state) for r in report.undo] == [("child", "undone")]
    assert pipelines.effects == ["do c", "do c", "undo c as a whole"]


async def test_an_abandoned_child_goes_on_when_its_parent_is_cancelled(pipelines: Pipelines) -> None:
    """Its outcome is not known then: a compensation of the step's own runs."""
    bundle = pipelines.bundle(
        """
version: 1
name: parent
steps:
  - {id: a, activity: effect.do, with: {log: LOG, name: a}, compensate: {activity: effect.undo, with: {log: LOG, name: a}}}
  - id: child
    pipeline: ./child.yaml
    parent_close_policy: abandon
    compensate: {activity: effect.undo, with: {log: LOG, name: child}}
""",
        child="""
version: 1
name: child
steps:
  - {id: c, activity: effect.do, with: {log: LOG, name: c, seconds: 1}, compensate: {activity: effect.undo, with: {log: LOG, name: c}}}
""",
    )
    async with pipelines.worker():
        handle = await pipelines.start(bundle)
        await eventually(lambda: "do c" in pipelines.effects)
        await handle.cancel()
        cause, _ = await failure(handle)
        assert isinstance(cause, CancelledError)
        child = pipelines.client.get_workflow_handle(f"{handle.id}/child")
        assert (await child.describe()).status is WorkflowExecutionStatus.RUNNING
        await child.result()
    assert pipelines.effects == ["do a", "do c", "undo child", "undo a"]


async def test_a_cancellation_of_the_child_alone_fails_its_step(pipelines: Pipelines) -> None:
    bundle = pipelines.bundle(
        """
version: 1
name: parent
steps:
  - {id: a, activity: effect.do, with: {log: LOG, name: a}, compensate: {activity: effect.undo, with: {log: LOG, name: a}}}
  - {id: child, pipeline: ./child.yaml}
""",
        child="""
version: 1
name: child
steps:
  - {id: c, activity: effect.do, with: {log: LOG, name: c, then: hang}, compensate: {activity: effect.undo, with: {log: LOG, name: c}}}
""",
    )
    async with pipelines.worker():
        handle = await pipelines.start(bundle)
        await eventually(lambda: "do c" in pipelines.effects)
        await pipelines.client.get_workflow_handle(f"{handle.id}/child").cancel()
        cause, report = await failure(handle)
    assert isinstance(cause, ApplicationError)
    assert (cause.type, cause.message) == ("ChildCancelled", "child: the child was cancelled")
    assert report is not None
    assert (report.status, report.dirty) == ("failed", False)
    assert pipelines.effects == ["do a", "do c", "undo c", "undo a"]


async def test_dirt_of_a_child_makes_its_parent_dirty(pipelines: Pipelines) -> None:
    """The report names the child's undos too, in the order in which they were done."""
    bundle = pipelines.bundle(
        """
version: 1
name: parent
steps:
  - {id: a, activity: effect.do, with: {log: LOG, name: a}, compensate: {activity: effect.undo, with: {log: LOG, name: a}}}
  - {id: child, pipeline: ./child.yaml, retry: {maximum_attempts: 5, initial_interval: 10ms}}
""",
        child="""
version: 1
name: child
steps:
  - {id: c, activity: effect.do, with: {log: LOG, name: c}, compensate: {activity: effect.undo, with: {log: LOG, name: c}}}
  - id: d
    activity: effect.do
    with: {log: LOG, name: d}
    compensate: {activity: effect.undo, with: {log: LOG, name: d, then: fail}, retry: {maximum_attempts: 1}}
  - {id: e, activity: effect.do, with: {log: LOG, name: e, then: fail}}
""",
    )
    async with pipelines.worker():
        _, report = await failure(await pipelines.start(bundle))
    assert report is not None
    assert report.dirty
    assert [(r.path, r.state) for r in report.undo] == [
        ("child/d", "failed"), ("child/c", "undone"), ("a", "undone"),
    ]  # fmt: skip
    assert pipelines.effects == ["do a", "do c", "do d", "undo c", "undo a"], "a dirty child is not retried"


async def test_undo_lets_no_mistake_of_its_own_stop_it(pipelines: Pipelines) -> None:
    """An undo whose activity nobody serves fails; those before it are done all the same."""
    bundle = pipelines.bundle(
        """
version: 1
name: unserved
steps:
  - {id: a, activity: effect.do, with: {log: LOG, name: a}, compensate: {activity: effect.undo, with: {log: LOG, name: a}}}
  - id: b
    activity: effect.do
    with: {log: LOG, name: b}
    compensate: {activity: no.such, task_queue: QUEUE, with: {}, retry: {maximum_attempts: 1}}
  - {id: c, fail: {message: enough}}
""".replace("QUEUE", pipelines.queue)
    )
    async with pipelines.worker():
        _, report = await failure(await pipelines.start(bundle))
    assert report is not None
    assert [(r.path, r.state) for r in report.undo] == [("b", "failed"), ("a", "undone")]
    assert report.undo[0].error is not None
    assert report.undo[0].error.type == "UnknownActivity"


@pytest.mark.parametrize("how", ["cancel", "timeout"])
async def test_the_report_names_the_undos_of_a_cancelled_child_too(pipelines: Pipelines, how: str) -> None:
    bundle = pipelines.bundle(
        f"""
version: 1
name: parent
timeout: {"1s" if how == "timeout" else "1h"}
steps:
  - {{id: a, activity: effect.do, with: {{log: LOG, name: a}}, compensate: {{activity: effect.undo, with: {{log: LOG, name: a}}}}}}
  - {{id: child, pipeline: ./child.yaml}}
""",
        child="""
version: 1
name: child
steps:
  - {id: inner, pipeline: ./inner.yaml}
""",
        inner="""
version: 1
name: inner
steps:
  - {id: b, activity: effect.do, with: {log: LOG, name: b}, compensate: {activity: effect.undo, with: {log: LOG, name: b}}}
  - {id: c, activity: effect.do, with: {log: LOG, name: c, then: hang}, compensate: {activity: effect.undo, with: {log: LOG, name: c}}}
""",
    )
    async with pipelines.worker():
        handle = await pipelines.start(bundle)
        await eventually(lambda: "do c" in pipelines.effects)
        if how == "cancel":
            await handle.cancel()
        await failure(handle)
        report = msgspec.convert(await handle.query("report"), Report)
        child = pipelines.client.get_workflow_handle(f"{handle.id}/child/inner")
        assert (await child.describe()).status is WorkflowExecutionStatus.CANCELED
    assert [r.path for r in report.undo] == ["child/inner/c", "child/inner/b", "a"]
    assert pipelines.effects == ["do a", "do b", "do c", "undo c", "undo b", "undo a"]


async def test_what_finally_does_is_never_undone(pipelines: Pipelines) -> None:
    """Not even by a parent that fails after the child has completed."""
    child = """
version: 1
name: child
steps:
  - {id: c, activity: effect.do, with: {log: LOG, name: c}, compensate: {activity: effect.undo, with: {log: LOG, name: c}}}
finally:
  - {id: last, pipeline: ./inner.yaml}
"""
    inner = """
version: 1
name: inner
steps:
  - {id: i, activity: effect.do, with: {log: LOG, name: i}, compensate: {activity: effect.undo, with: {log: LOG, name: i}}}
"""
    bundle = pipelines.bundle(
        "version: 1\nname: p\nsteps: [{id: child, pipeline: ./child.yaml}, {id: stop, fail: {message: enough}}]\n",
        child=child,
        inner=inner,
    )
    async with pipelines.worker():
        _, report = await failure(await pipelines.start(bundle))
    assert report is not None
    assert [r.path for r in report.undo] == ["child/c"]
    assert pipelines.effects == ["do c", "do i", "undo c"]


async def test_undo_templates_see_what_was_frozen(pipelines: Pipelines) -> None:
    """Input, output, outcome, key and error of the step; inputs, steps and run as it saw them."""
    child = """
version: 1
name: child
inputs: {n: {type: integer}}
steps:
  - {id: first, set: {v: one}}
  - id: c
    activity: effect.do
    with: {log: LOG, name: "c{{ inputs.n }}"}
    compensate:
      activity: effect.undo
      with:
        log: "{{ step.input.log }}"
        name: "{{ step.output.name }} {{ step.outcome }} {{ step.key == step.output.key }} {{ steps.first.output.v }} {{ inputs.n }} {{ run.pipeline }} {{ error.type }} {{ error.step }} {{ error.message }}"
"""
    bundle = pipelines.bundle(
        """
version: 1
name: p
steps:
  - {id: child, pipeline: ./child.yaml, with: {n: 7}}
  - {id: stop, name: that is it, fail: {message: enough, type: Enough}}
""",
        child=child,
    )
    async with pipelines.worker():
        _, report = await failure(await pipelines.start(bundle))
    assert report is not None
    assert not report.dirty, report
    assert pipelines.effects == ["do c7", "undo c7 completed true one 7 child Enough stop that is it: enough"]


async def test_steps_of_the_workflows_own_are_undone_too(pipelines: Pipelines) -> None:
    """``set``, ``wait`` and ``fail`` with a compensation: by their outcome, as any other step."""
    undo = (
        'compensate: {activity: effect.undo, with: {log: LOG, name: "WHAT {{ step.outcome }}"}, after: AFTER}'
    )

    def step(name: str, kind: str, after: str = "uncertain") -> str:
        return f"  - {{id: {name}, {kind}, {undo.replace('WHAT', name).replace('AFTER', after)}}}\n"

    text = "version: 1\nname: inside\ninputs: {last: {type: string}}\nsteps:\n" + step("a", "set: {v: 1}")
    text += step("b", "wait: 1ms") + step("long", "when: inputs.last == 'long', wait: 1h")
    text += step("c", "fail: {message: enough}") + step("d", "set: {}")
    started = text.replace(
        'c {{ step.outcome }}"}, after: uncertain',
        'c {{ step.outcome }} {{ step.error.message }}"}, after: started',
    )
    async with pipelines.worker():
        await failure(await pipelines.start(pipelines.bundle(text), last=""))
        assert pipelines.effects == ["undo b completed", "undo a completed"]
        await failure(await pipelines.start(pipelines.bundle(started), last=""))
        assert pipelines.effects[2:] == ["undo c failed enough", "undo b completed", "undo a completed"]
        handle = await pipelines.start(pipelines.bundle(text), last="long")
        await asyncio.sleep(0.5)
        await handle.cancel()
        cause, _ = await failure(handle)
    assert isinstance(cause, CancelledError)
    assert pipelines.effects[5:] == ["undo long uncertain", "undo b completed", "undo a completed"]
