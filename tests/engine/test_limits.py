"""What the server, or JSON, would refuse never keeps a run from being undone.

A refused command or failure is not an error of the run's: its workflow task is tried again for
ever, and nothing is undone. So each of these has a deadline of its own.
"""

import asyncio
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from temporalio import activity
from temporalio.client import WorkflowHandle
from temporalio.exceptions import ApplicationError

from pipeline_runner.core import model, paths
from pipeline_runner.core.state import Report
from pipeline_runner.engine import client as starting
from pipeline_runner.engine.workflow import calls
from pipeline_runner.server import devserver
from tests.conftest import Pipelines, connected, result_of
from tests.engine.test_replay import replayer
from tests.engine.test_undo import failure
from tests.engine.texts import CHILD, FAIL, effect, pipeline, step, undone

DEADLINE = 60.0
N = "inputs: {n: {type: string}}\n"


async def failed(
    handle: WorkflowHandle[Any, Any], seconds: float = DEADLINE
) -> tuple[ApplicationError, Report]:
    """Wait for a run that fails, with a report; one that hangs is ended."""
    try:
        async with asyncio.timeout(seconds):
            cause, report = await failure(handle)
    except TimeoutError:
        await handle.terminate()
        raise
    assert isinstance(cause, ApplicationError)
    assert report is not None
    return cause, report


def returns(value: Any, name: str = "test.value") -> Callable[..., Any]:
    @activity.defn(name=name)
    async def one(given: dict[str, Any]) -> Any:
        return value

    return one


async def event_ids(handle: WorkflowHandle[Any, Any], attribute: str, field: str) -> list[str]:
    return [
        getattr(getattr(event, attribute), field)
        async for event in handle.fetch_history_events()
        if event.HasField(attribute)  # type: ignore[arg-type]
    ]


async def activity_ids(handle: WorkflowHandle[Any, Any]) -> list[str]:
    return await event_ids(handle, "activity_task_scheduled_event_attributes", "activity_id")


@pytest.mark.parametrize("length", [997, 1001])
async def test_ids_of_steps_and_undos_are_cut_to_what_the_server_takes(
    pipelines: Pipelines, length: int
) -> None:
    """With 997 the step's id fits, and the one of its undo, which is longer, does not."""
    name = "i" * length
    bundle = pipelines.bundle(pipeline(effect(name), FAIL))
    async with pipelines.worker():
        handle = await pipelines.start(bundle)
        _, report = await failed(handle)
    assert [(record.path, record.state) for record in report.undo] == [(name, "undone")]
    assert pipelines.effects == [f"do {name}", f"undo {name}"]
    do, undo = await activity_ids(handle)
    assert do != undo
    assert max(len(do), len(undo)) == paths.MAX_ID
    assert (do == name) is (length <= paths.MAX_ID)


async def test_a_default_id_of_a_child_is_cut_to_what_the_server_takes(pipelines: Pipelines) -> None:
    """It is the parent's and the path: the parent's may have all the room there is."""
    bundle = pipelines.bundle(
        pipeline(CHILD, "output: '{{ steps.c.output }}'\n"),
        c=pipeline("  - {id: s, set: {x: 1}}\n", "output: '{{ steps.s.output }}'\n"),
    )
    async with pipelines.worker():
        handle, _ = await starting.start(
            pipelines.client,
            starting.Start(
                name="p",
                bundle=model.encode(bundle),
                inputs={},
                workflow_id=pipelines.queue.ljust(paths.MAX_ID - 1, "w"),
                task_queue=pipelines.queue,
            ),
        )
        async with asyncio.timeout(DEADLINE):
            assert await result_of(handle) == {"x": 1}
    [child] = await event_ids(
        handle, "start_child_workflow_execution_initiated_event_attributes", "workflow_id"
    )
    assert len(child) == paths.MAX_ID
    assert child.startswith(pipelines.queue)


@pytest.mark.parametrize("chosen", ["", "x" * 1001], ids=["empty", "long"])
async def test_a_chosen_id_that_the_server_refuses_is_an_error(pipelines: Pipelines, chosen: str) -> None:
    bundle = pipelines.bundle(
        pipeline(
            effect("a"), "  - {id: c, pipeline: ./c.yaml, workflow_id: '{{ inputs.n }}'}\n", head=N
        ),
        c=pipeline("  - {id: s, set: {x: 1}}\n"),
    )  # fmt: skip
    async with pipelines.worker():
        cause, _ = await failed(await pipelines.start(bundle, n=chosen))
    assert cause.type == "ExpressionError"
    assert cause.message == f"c: workflow_id: it must have 1 to 1000 bytes, not {len(chosen)}"
    assert pipelines.effects == ["do a", "undo a"]


async def test_an_expression_that_takes_too_long_fails_its_step(pipelines: Pipelines) -> None:
    """The workflow task would be tried again for ever, with neither an undo nor a cancellation."""
    search = "{% for i in range(9000) %}{% if (i ~ 'b') in inputs.n %}{{ i }}{% endif %}{% endfor %}"
    bundle = pipelines.bundle(
        pipeline(effect("a"), f'  - {{id: c, set: {{found: "{search}"}}}}\n', head=N),
    )
    async with pipelines.worker():
        cause, _ = await failed(await pipelines.start(bundle, n="a" * 700_000))
    assert cause.type == "ExpressionError"
    assert cause.message.startswith("c: this expression takes too long, in")
    assert pipelines.effects == ["do a", "undo a"]


async def test_large_results_end_a_run_before_its_history_is_full(pipelines: Pipelines) -> None:
    """At 50 MiB the server would terminate it, without its undo; and the state is too large to go on."""
    large = "".join(step(pipelines, "test.value").replace("{id: o", f"{{id: o{k}", 1) for k in range(40))
    # Results that nothing reads later are not kept.
    sizes = ", ".join(f'v{k}: "{{{{ steps.o{k}.output | length }}}}"' for k in range(40))
    bundle = pipelines.bundle(pipeline(effect("a"), large, f"  - {{id: sizes, set: {{{sizes}}}}}\n"))
    async with pipelines.worker(returns("x" * 1_500_000)):
        handle = await pipelines.start(bundle)
        cause, report = await failed(handle, 60)
    assert cause.type == "PayloadTooLarge"
    assert "the run's results are too large to continue: pass references instead" in cause.message
    assert not report.dirty
    assert pipelines.effects == ["do a", "undo a"]
    size = (await handle.describe()).raw_description.workflow_execution_info.history_size_bytes
    assert calls.HARD_BYTES < size < 2 * calls.HARD_BYTES


async def test_a_child_retried_for_ever_ends_before_the_history_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "HARD_EVENTS", 200)
    server = devserver.start(
        settings=("limit.historyCount.suggestContinueAsNew=60", "limit.historyCount.error=300")
    )
    try:
        pipelines = Pipelines(await connected(server.address), tmp_path)
        bundle = pipelines.bundle(
            pipeline(
                effect("a"),
                CHILD.replace(
                    "}", ", retry: {maximum_attempts: 0, initial_interval: 1ms, maximum_interval: 1ms}}"
                ),
            ),
            c=pipeline(step(pipelines, "test.no")),
        )

        @activity.defn(name="test.no")
        async def no(given: dict[str, str]) -> None:
            raise ApplicationError("never", type="No")

        async with pipelines.worker(no):
            handle = await pipelines.start(bundle)
            cause, _ = await failed(handle, 40)
        assert (cause.type, cause.message) == ("No", "c: o: never")
        assert pipelines.effects == ["do a", "undo a"]
        length = (await handle.describe()).history_length
        assert 200 < length < 300
    finally:
        server.stop()


async def test_a_huge_name_leaves_room_for_the_cause_and_for_the_report(pipelines: Pipelines) -> None:
    bundle = pipelines.bundle(f"""
version: 1
name: names
{N}steps:
  - id: a
    name: n {{{{ inputs.n }}}}
    activity: effect.do
    with: {{log: LOG, name: a}}
    compensate: {{activity: effect.undo, with: {{log: LOG, name: a, then: fail}}, retry: {{maximum_attempts: 1}}}}
  - {{id: f, name: "n {{{{ inputs.n }}}}", fail: {{message: root cause}}}}
""")
    async with pipelines.worker():
        cause, report = await failed(await pipelines.start(bundle, n="x" * 300_000))
    assert cause.message.startswith("n xxx")
    assert cause.message.endswith(": root cause")
    assert len(cause.message) < 300
    [record] = report.undo
    assert (record.path, record.state) == ("a", "failed")
    assert record.error is not None
    assert record.error.message.endswith("a cannot be undone")
    assert report.dirty


async def test_a_name_of_many_bytes_fits_into_the_summary(pipelines: Pipelines) -> None:
    bundle = pipelines.bundle(pipeline(effect("a").replace("{id: a", f"{{id: a, name: {'漢' * 300}", 1)))
    async with pipelines.worker():
        handle = await pipelines.start(bundle)
        async with asyncio.timeout(DEADLINE):
            await handle.result()
    assert pipelines.effects == ["do a"]
    texts = [event.user_metadata.summary.data async for event in handle.fetch_history_events()]
    [shown] = [json.loads(data) for data in texts if data]
    assert set(shown) <= {"漢", "…"}
    assert len(shown) >= 100
    assert len(shown.encode()) <= 400


async def test_many_errors_of_finally_leave_the_report_short(pipelines: Pipelines) -> None:
    final = "".join(f"  - {{id: f{k}, fail: {{message: '{{{{ inputs.n }}}}'}}}}\n" for k in range(700))
    bundle = pipelines.bundle(pipeline(effect("a"), f"finally:\n{final}", head=N))
    async with pipelines.worker():
        cause, report = await failed(await pipelines.start(bundle, n="漢" * 3000))
    assert cause.message.startswith("f0: 漢")
    assert [error.message.partition(":")[0] for error in report.finally_errors] == [
        f"f{k}" for k in range(50)
    ]
    assert pipelines.effects == ["do a"]


@pytest.mark.parametrize(
    "size",
    [
        100_000,
        # The server puts its own failure in the place of one over 2 MiB, and takes no message over 4.
        3_000_000,
        4_200_000,
    ],
)
async def test_a_huge_error_passes_through_a_child_and_is_shortened(pipelines: Pipelines, size: int) -> None:
    @activity.defn(name="test.huge")
    async def huge(given: dict[str, str]) -> None:
        raise ApplicationError("x" * size, type="Huge", non_retryable=True)

    bundle = pipelines.bundle(pipeline(effect("a"), CHILD), c=pipeline(step(pipelines, "test.huge")))
    async with pipelines.worker(huge):
        cause, report = await failed(await pipelines.start(bundle))
    assert cause.type == "Huge"
    assert cause.message.startswith("c: o: xxx")
    assert len(cause.message) <= 2000
    assert report.error is not None
    assert report.error.message == cause.message
    assert pipelines.effects == ["do a", "undo a"]


async def test_an_unknown_attempt_is_not_forgotten_when_the_error_after_it_is_too_large(
    pipelines: Pipelines,
) -> None:
    """The first attempt times out, and the server cuts the mark of the second one's failure off."""

    @activity.defn(name="test.big")
    async def big(given: dict[str, str]) -> None:
        attempt = activity.info().attempt
        if attempt == 1:
            await asyncio.sleep(3600)
        text = "x" * 6000 if attempt == 2 else ""
        raise ApplicationError(f"already there{text}", type="Conflict", non_retryable=attempt == 3)

    more = (
        "timeouts: {start_to_close: 500ms}, retry: {maximum_attempts: 3, initial_interval: 10ms}, "
        + undone("o")
    )
    bundle = pipelines.bundle(pipeline(step(pipelines, "test.big", more=more)))
    async with pipelines.worker(big):
        cause, report = await failed(await pipelines.start(bundle))
    assert (cause.type, cause.message) == ("Conflict", "o: already there")
    assert [(record.outcome, record.state) for record in report.undo] == [("uncertain", "undone")]
    assert pipelines.effects == ["undo o"]


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        ("a\udcff", "PipelineFailure", "n a\ufffd: a\ufffd"),
        (2**70, "ExpressionError", "f: the result is an integer of more than 64 bits"),
        (math.nan, "ExpressionError", "f: the result is not a finite number"),
    ],
    ids=["surrogate", "integer", "nan"],
)
async def test_a_result_that_nothing_can_encode_again_is_told_and_undone(
    pipelines: Pipelines, value: object, kind: str, message: str
) -> None:
    """Lone surrogates, large integers and NaN come out of Python's JSON, and go into no other."""
    bundle = pipelines.bundle(
        pipeline(
            effect("a"),
            step(pipelines, "test.value"),
            "  - {id: f, name: 'n {{ steps.o.output }}', fail: {message: '{{ steps.o.output }}'}}\n",
        )
    )
    async with pipelines.worker(returns(value)):
        cause, _ = await failed(await pipelines.start(bundle))
    assert cause.type == kind
    assert cause.message.startswith(message)
    assert pipelines.effects == ["do a", "undo a"]


async def test_a_big_integer_in_a_childs_undo_log_stops_no_other_undo(pipelines: Pipelines) -> None:
    bundle = pipelines.bundle(
        pipeline(effect("a"), CHILD, FAIL),
        c=pipeline(
            effect("x"),
            step(
                pipelines,
                "test.value",
                more="compensate: {activity: effect.undo, with: {log: LOG, name: o, v: '{{ step.output }}'}}",
            ),
        ),
    )
    async with pipelines.worker(returns(2**70)):
        cause, report = await failed(await pipelines.start(bundle))
    assert cause.message == "f: enough"
    assert [(r.path, r.state) for r in report.undo] == [("c/o", "failed"), ("c/x", "undone"), ("a", "undone")]
    stuck = report.undo[0].error
    assert stuck is not None
    assert stuck.message == 'the result is an integer of more than 64 bits, in "{{ step.output }}"'
    assert report.dirty
    assert pipelines.effects == ["do a", "do x", "undo x", "undo a"]


LIMIT_OF_WORK = "pipeline_runner.engine.workflow.work.PAUSE_AFTER"
UNITS_OF_STEP = "pipeline_runner.engine.workflow.work.UNITS_OF_STEP"
EIGHT = "[1, 2, 3, 4, 5, 6, 7, 8] | map('string') | list | length"


async def pauses_of(handle: WorkflowHandle[Any, Any]) -> int:
    """Return how often a run has paused; its history replays."""
    history = await handle.fetch_history()
    replayed = await replayer().replay_workflow(history)
    assert replayed.replay_failure is None
    return sum(e.HasField("timer_started_event_attributes") for e in history.events)


@pytest.mark.parametrize(
    ("step", "number"),
    [
        (f'set: {{x: "{{{{ {EIGHT} }}}}"}}', 9),
        (f'when: "({EIGHT}) == 9", set: {{x: 1}}', 9),
        (f'name: "{{{{ {EIGHT} }}}}", set: {{x: 1}}', 9),
        (f'when: "({EIGHT}) == 8", name: "{{{{ {EIGHT} }}}}", set: {{x: "{{{{ {EIGHT} }}}}"}}', 3),
    ],
)
@pytest.mark.parametrize("phase", ["steps", "finally"])
async def test_steps_with_much_to_compute_are_done_in_several_workflow_tasks(
    pipelines: Pipelines, monkeypatch: pytest.MonkeyPatch, step: str, number: int, phase: str
) -> None:
    """In one, they would be over the two seconds that the SDK gives it. What was counted is so on replay."""
    monkeypatch.setattr(LIMIT_OF_WORK, 50)
    monkeypatch.setattr(UNITS_OF_STEP, 0)
    steps = "".join(f"  - {{id: s{k}, {step}}}\n" for k in range(number))
    first = "" if phase == "steps" else "steps:\n  - {id: first, set: {x: 1}}\n"
    bundle = pipelines.bundle(f"name: much\n{first}{phase}:\n{steps}")
    async with pipelines.worker():
        handle = await pipelines.start(bundle)
        await handle.result()
    assert await pauses_of(handle) in range(4, 10)


async def test_an_output_is_computed_in_another_workflow_task_than_costly_steps(
    pipelines: Pipelines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LIMIT_OF_WORK, 50)
    monkeypatch.setattr(UNITS_OF_STEP, 0)
    step = f'  - {{id: s, set: {{x: "{{{{ {EIGHT} }}}}", y: "{{{{ {EIGHT} }}}}"}}}}\n'
    bundle = pipelines.bundle(f"name: much\nsteps:\n{step}output: '{{{{ steps.s.output.x }}}}'\n")
    async with pipelines.worker():
        handle = await pipelines.start(bundle)
        assert await result_of(handle) == 8
    assert await pauses_of(handle) == 1


async def test_undos_with_much_to_compute_are_done_in_several_workflow_tasks(
    pipelines: Pipelines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None of them comes so far as to schedule anything, which would end the workflow task."""
    monkeypatch.setattr(LIMIT_OF_WORK, 50)
    monkeypatch.setattr(UNITS_OF_STEP, 0)
    name = f"{{{{ {EIGHT} }}}}{{{{ 1 / inputs.zero }}}}"
    steps = effect("good") + "".join(
        effect(f"s{k}").replace(
            "undo, with: {log: LOG, name: s", f'undo, with: {{log: LOG, name: "{name}", then: s'
        )
        for k in range(9)
    )
    bundle = pipelines.bundle(pipeline(steps, FAIL, head="inputs: {zero: {type: integer, default: 0}}\n"))
    async with pipelines.worker():
        handle = await pipelines.start(bundle)
        cause, report = await failed(handle)
    assert cause.message == "f: enough"
    assert [(r.path, r.state) for r in report.undo] == [
        *((f"s{k}", "failed") for k in reversed(range(9))),
        ("good", "undone"),
    ]
    assert all(r.error is not None and "division by zero" in r.error.message for r in report.undo[:-1])
    assert pipelines.effects == ["do good", *(f"do s{k}" for k in range(9)), "undo good"]
    assert await pauses_of(handle) in range(4, 10)


async def test_a_run_that_was_open_before_there_were_pauses_replays_without_them(
    pipelines: Pipelines, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = "".join(f'  - {{id: s{k}, set: {{x: "{{{{ {EIGHT} }}}}"}}}}\n' for k in range(9))
    bundle = pipelines.bundle(f"name: much\nsteps:\n{steps}")
    async with pipelines.worker():
        handle = await pipelines.start(bundle)
        await handle.result()
    monkeypatch.setattr(LIMIT_OF_WORK, 50)
    monkeypatch.setattr(UNITS_OF_STEP, 0)
    assert await pauses_of(handle) == 0
