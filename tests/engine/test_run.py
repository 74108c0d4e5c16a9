"""Runs forward: steps, data passing, errors letter by letter, children, limits, messages."""

import asyncio
import json
from datetime import timedelta
from typing import Any

import pytest
from temporalio import activity
from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowExecutionStatus, WorkflowFailureError
from temporalio.common import RawValue
from temporalio.exceptions import ActivityError, ApplicationError, ChildWorkflowError

from pipeline_runner.core import model
from pipeline_runner.core.errors import ErrorInfo
from pipeline_runner.core.state import Report
from pipeline_runner.engine.workflow import payloads
from pipeline_runner.server.devserver import DevServer
from tests.conftest import Pipelines, connected, result_of
from tests.engine.test_undo import eventually, failure


async def events(handle: Any, kind: str) -> list[Any]:
    wanted = EventType.Value(f"EVENT_TYPE_{kind}")
    return [event async for event in handle.fetch_history_events() if event.event_type == wanted]


def summary(event: Any) -> Any:
    return json.loads(event.user_metadata.summary.data)


async def test_data_is_passed_with_its_type(pipelines: Pipelines) -> None:
    bundle = pipelines.bundle("""
version: 1
name: types
inputs: {items: {type: array}, count: {type: integer, default: 3}}
steps:
  - id: values
    set:
      list: "{{ inputs['items'] }}"
      count: "{{ inputs.count + 1 }}"
      text: "{{ inputs.count }} of {{ inputs['items'] }}, {{ true }}"
      number: "{{ inputs.count }}.{{ inputs.count }}"
      items: {deep: ["{{ inputs.count }}"]}
  - {id: skipped, when: inputs.count > 100, activity: effect.do, with: {log: LOG, name: no}}
output:
  values: "{{ steps.values.output }}"
  deep: "{{ steps.values.output.items.deep[0] }}"
  skipped: "{{ steps.skipped.status }}"
  none: "{{ steps.skipped.output }}"
  name: "{{ steps.skipped.output.name|default('nobody') }}"
""")
    async with pipelines.worker():
        handle = await pipelines.start(bundle, items=[1, "two", None])
        output = await result_of(handle)
    assert output == {
        "values": {
            "list": [1, "two", None],
            "count": 4,
            "text": '3 of [1,"two",null], true',
            "number": "3.3",
            "items": {"deep": [3]},
        },
        "deep": 3,
        "skipped": "skipped",
        "none": None,
        "name": "nobody",
    }
    assert not await events(handle, "ACTIVITY_TASK_SCHEDULED")


async def test_the_history_shows_rendered_inputs_paths_and_names(pipelines: Pipelines) -> None:
    bundle = pipelines.bundle("""
version: 1
name: shown
inputs: {who: {type: string}}
steps:
  - {id: greet, name: "greet {{ inputs.who }}", activity: effect.do, with: {log: LOG, name: "hello {{ inputs.who }}"}}
  - {id: pause, name: a short rest, wait: 10ms}
""")
    async with pipelines.worker():
        handle = await pipelines.start(bundle, who="Ada")
        await result_of(handle)
    [scheduled] = await events(handle, "ACTIVITY_TASK_SCHEDULED")
    attributes = scheduled.activity_task_scheduled_event_attributes
    assert attributes.activity_id == "greet"
    assert attributes.activity_type.name == "effect.do"
    assert json.loads(attributes.input.payloads[0].data) == {"log": pipelines.log, "name": "hello Ada"}
    assert summary(scheduled) == "greet Ada"
    [timer] = await events(handle, "TIMER_STARTED")
    assert summary(timer) == "pause: a short rest"
    described = await handle.describe()
    assert described.workflow_type == "shown"
    # One activity and one timer, each as cheap as by hand: nothing else is in the history.
    assert described.history_length == 5 + 6 + 5


CHILDREN = {
    "text": """
version: 1
name: outermost
steps:
  - {id: outer, name: deploy to west, pipeline: ./middle.yaml, with: {id: abc123}}
""",
    "middle": """
version: 1
name: middle
inputs: {id: {type: string}}
steps:
  - {id: snap, name: "stop-and-snapshot for container {{ inputs.id }}", pipeline: ./inner.yaml, with: {id: "{{ inputs.id }}"}}
""",
    "inner": """
version: 1
name: inner
inputs: {id: {type: string}}
steps:
  - {id: stop, name: "stop container {{ inputs.id }}", activity: test.refuse, task_queue: QUEUE}
""",
}


async def test_the_error_chain_letter_by_letter_over_two_levels_of_children(pipelines: Pipelines) -> None:
    @activity.defn(name="test.refuse")
    async def refuse() -> None:
        try:
            raise ConnectionRefusedError(111, "no route")
        except OSError as error:
            raise ApplicationError(
                "connection refused", type="docker.unreachable", non_retryable=True
            ) from error

    texts = {name: text.replace("QUEUE", pipelines.queue) for name, text in CHILDREN.items()}
    bundle = pipelines.bundle(**texts)
    async with pipelines.worker(refuse):
        handle = await pipelines.start(bundle)
        cause, _ = await failure(handle)
        inner = pipelines.client.get_workflow_handle(f"{handle.id}/outer/snap")
        lowest, _ = await failure(inner)
    message = (
        "deploy to west: stop-and-snapshot for container abc123: stop container abc123: connection refused"
    )
    types: list[str] = []
    chain: list[str] = []
    error: BaseException | None = cause
    while error is not None:
        chain.append(type(error).__name__)
        if isinstance(error, ApplicationError):
            types.append(f"{error.type}: {error.message}")
        error = error.__cause__
    assert isinstance(lowest, ApplicationError)
    assert lowest.message == "stop container abc123: connection refused"
    assert types == [
        f"docker.unreachable: {message}",
        "docker.unreachable: stop-and-snapshot for container abc123: stop container abc123: connection refused",
        "docker.unreachable: stop container abc123: connection refused",
        "docker.unreachable: connection refused",
        "ConnectionRefusedError: [Errno 111] no route",
    ]
    assert chain == [
        "ApplicationError", "ChildWorkflowError", "ApplicationError", "ChildWorkflowError",
        "ApplicationError", "ActivityError", "ApplicationError", "ApplicationError",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("timeouts", "kind", "message"),
    [
        ("start_to_close: 300ms", "StartToCloseTimeout", "no result within 300ms (start_to_close)"),
        ("heartbeat: 400ms", "HeartbeatTimeout", "no heartbeat within 400ms (heartbeat)"),
        (
            "schedule_to_close: 500ms",
            "ScheduleToCloseTimeout",
            "not completed within 500ms, including retries (schedule_to_close)",
        ),
    ],
)
async def test_timeouts_of_an_activity_have_types_and_messages(
    pipelines: Pipelines, timeouts: str, kind: str, message: str
) -> None:
    bundle = pipelines.bundle(f"""
version: 1
name: slow
steps:
  - id: a
    name: the slow one
    activity: effect.do
    with: {{log: LOG, name: a, then: hang}}
    timeouts: {{{timeouts}}}
    retry: {{maximum_attempts: 1}}
""")
    async with pipelines.worker(graceful_shutdown=timedelta(0)):
        cause, _ = await failure(await pipelines.start(bundle))
    assert isinstance(cause, ApplicationError)
    assert (cause.type, cause.message) == (kind, f"the slow one: {message}")


async def test_a_task_queue_without_a_worker_is_a_schedule_to_start_timeout(pipelines: Pipelines) -> None:
    bundle = pipelines.bundle("""
version: 1
name: nobody
steps:
  - id: a
    activity: payment.charge
    task_queue: nobody-listens
    timeouts: {schedule_to_start: 200ms}
    compensate: {activity: effect.undo, with: {log: LOG, name: a}}
""")
    async with pipelines.worker():
        cause, report = await failure(await pipelines.start(bundle))
    assert isinstance(cause, ApplicationError)
    assert cause.type == "ScheduleToStartTimeout"
    assert cause.message == "a: no worker started it within 200ms (schedule_to_start)"
    assert report is not None
    assert report.undo == ()
    assert pipelines.effects == []


async def test_the_pipelines_own_timeout_undoes_and_can_be_told_from_a_failure(pipelines: Pipelines) -> None:
    bundle = pipelines.bundle("""
version: 1
name: deadline
timeout: 700ms
steps:
  - {id: a, activity: effect.do, with: {log: LOG, name: a}, compensate: {activity: effect.undo, with: {log: LOG, name: a}}}
  - {id: b, activity: effect.do, with: {log: LOG, name: b, then: hang}, compensate: {activity: effect.undo, with: {log: LOG, name: b}}}
finally:
  - {id: last, activity: effect.do, with: {log: LOG, name: "{{ run.status }} {{ error.type }}"}}
""")
    async with pipelines.worker():
        cause, report = await failure(await pipelines.start(bundle))
    assert isinstance(cause, ApplicationError)
    assert cause.type == "PipelineTimeout"
    assert cause.message == 'deadline did not complete within 700ms during "b"'
    assert report is not None
    assert (report.status, report.dirty) == ("timed_out", False)
    assert pipelines.effects == ["do a", "do b", "undo b", "undo a", "do timed_out PipelineTimeout"]


async def test_finally_runs_whatever_happened_and_never_hides_the_error(pipelines: Pipelines) -> None:
    bundle = pipelines.bundle("""
version: 1
name: last
inputs: {then: {type: string, default: ""}}
steps:
  - {id: a, activity: effect.do, with: {log: LOG, name: a, then: "{{ inputs.then }}"}, compensate: {activity: effect.undo, with: {log: LOG, name: a}}}
finally:
  - {id: one, activity: effect.do, with: {log: LOG, name: one, then: fail}}
  - {id: two, activity: effect.do, with: {log: LOG, name: "two {{ run.status }} {{ steps.a.status }} {{ error is none }}"}}
""")
    async with pipelines.worker():
        good, good_report = await failure(await pipelines.start(bundle))
        bad, bad_report = await failure(await pipelines.start(bundle, then="fail-after"))
        handle = await pipelines.start(bundle, then="hang")
        await eventually(lambda: pipelines.effects.count("do a") == 3)
        await handle.cancel()
        with pytest.raises(WorkflowFailureError):
            await handle.result()
    assert isinstance(good, ApplicationError)
    assert good.message == "one: one is out of order"
    assert good_report is not None
    assert good_report.undo == ()
    assert isinstance(bad, ApplicationError)
    assert bad.message == "a: a broke down"
    assert bad_report is not None
    assert [error.message for error in bad_report.finally_errors] == ["one: one is out of order"]
    assert (await handle.describe()).status is WorkflowExecutionStatus.CANCELED
    assert pipelines.effects == [
        "do a", "do two completed completed true",
        "do a", "do two failed failed false",
        "do a", "undo a", "do two cancelled cancelled false",
    ]  # fmt: skip


async def test_fail_wait_and_expression_errors(pipelines: Pipelines) -> None:
    bundle = pipelines.bundle("""
version: 1
name: various
inputs: {what: {}, until: {type: string, default: "2001-01-01T00:00:00Z"}}
steps:
  - {id: long_ago, wait: {until: "{{ inputs.until }}"}}
  - {id: nap, when: inputs.what == "nap", wait: "{{ inputs.until }}"}
  - {id: condition, when: "inputs.what", set: {x: 1}}
  - {id: stop, fail: {message: "no {{ inputs.what }}", type: Refused}}
""")
    async with pipelines.worker():
        nap, _ = await failure(await pipelines.start(bundle, what="nap"))
        condition, _ = await failure(await pipelines.start(bundle, what="x"))
        naive, _ = await failure(await pipelines.start(bundle, what="x", until="2001-01-01"))
    assert isinstance(nap, ApplicationError)
    assert isinstance(condition, ApplicationError)
    assert isinstance(naive, ApplicationError)
    assert (
        nap.message
        == 'nap: wait: "2001-01-01T00:00:00Z" is not a duration, write for example "500ms", "30s", "5m" or "1h30m"'
    )
    assert condition.message == 'condition: when must be true or false, not "x": inputs.what'
    assert naive.message.startswith('long_ago: wait.until: "2001-01-01" has no time zone')
    assert {nap.type, condition.type, naive.type} == {"ExpressionError"}


async def test_fail_is_not_retried_and_has_its_type(pipelines: Pipelines) -> None:
    bundle = pipelines.bundle(
        "version: 1\nname: p\nsteps:\n  - {id: c, pipeline: ./c.yaml, retry: {maximum_attempts: 5, initial_interval: 10ms}}\n",
        c='version: 1\nname: c\nsteps:\n  - {id: stop, fail: {message: "no more", type: Refused}}\n',
    )
    async with pipelines.worker():
        handle = await pipelines.start(bundle)
        cause, _ = await failure(handle)
    assert isinstance(cause, ApplicationError)
    assert (cause.type, cause.message, cause.non_retryable) == ("Refused", "c: stop: no more", True)
    assert len(await events(handle, "START_CHILD_WORKFLOW_EXECUTION_INITIATED")) == 1


async def test_a_child_is_retried_as_a_whole_after_it_has_undone_itself(pipelines: Pipelines) -> None:
    """Every attempt has keys of its own: what the first did is gone."""
    failures = 2

    @activity.defn(name="test.flaky")
    async def flaky() -> str:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise ApplicationError("not yet", type="NotYet")
        return "now"

    bundle = pipelines.bundle(
        """
version: 1
name: p
steps:
  - {id: c, pipeline: ./c.yaml, retry: {maximum_attempts: 3, initial_interval: 10ms}}
output: "{{ steps.c.output }}"
""",
        c="""
version: 1
name: c
steps:
  - {id: a, activity: effect.do, with: {log: LOG, name: a}, compensate: {activity: effect.undo, with: {log: LOG, name: a}}}
  - {id: b, activity: test.flaky, task_queue: QUEUE, retry: {maximum_attempts: 1}}
output: {said: "{{ steps.b.output }}", key: "{{ steps.a.output.key }}"}
""".replace("QUEUE", pipelines.queue),
    )
    async with pipelines.worker(flaky):
        output = await result_of(await pipelines.start(bundle))
    assert output["said"] == "now"
    assert pipelines.effects == ["do a", "undo a", "do a", "undo a", "do a"]


@pytest.mark.parametrize("policy", ["terminate", "request_cancel", "abandon"])
async def test_parent_close_policies(pipelines: Pipelines, policy: str) -> None:
    """What becomes of a child when its parent is terminated."""
    bundle = pipelines.bundle(
        f"version: 1\nname: p\nsteps:\n  - {{id: c, pipeline: ./c.yaml, parent_close_policy: {policy}}}\n",
        c="""
version: 1
name: c
steps:
  - {id: a, activity: effect.do, with: {log: LOG, name: a}, compensate: {activity: effect.undo, with: {log: LOG, name: a}}}
  - {id: w, wait: 2s}
""",
    )
    async with pipelines.worker():
        handle = await pipelines.start(bundle)
        child = pipelines.client.get_workflow_handle(f"{handle.id}/c")
        await eventually(lambda: "do a" in pipelines.effects)
        await handle.terminate("test")
        if policy == "abandon":
            await child.result()
        else:
            with pytest.raises(WorkflowFailureError):
                await child.result()
        status = (await child.describe()).status
    expected = {
        "terminate": (WorkflowExecutionStatus.TERMINATED, ["do a"]),
        "request_cancel": (WorkflowExecutionStatus.CANCELED, ["do a", "undo a"]),
        "abandon": (WorkflowExecutionStatus.COMPLETED, ["do a"]),
    }
    assert (status, pipelines.effects) == expected[policy]


async def test_a_child_that_nobody_waits_for_outlives_its_parent(pipelines: Pipelines) -> None:
    bundle = pipelines.bundle(
        """
version: 1
name: p
steps:
  - {id: a, activity: effect.do, with: {log: LOG, name: a}, compensate: {activity: effect.undo, with: {log: LOG, name: a}}}
  - {id: c, pipeline: ./c.yaml, parent_close_policy: abandon, wait_for_completion: false, workflow_id: "notify-{{ run.run_id }}"}
  - {id: b, fail: {message: enough}}
""",
        c="""
version: 1
name: c
steps:
  - {id: w, wait: 1s}
  - {id: n, activity: effect.do, with: {log: LOG, name: notify}, compensate: {activity: effect.undo, with: {log: LOG, name: notify}}}
output: told
""",
    )
    async with pipelines.worker():
        handle = await pipelines.start(bundle)
        await failure(handle)
        assert pipelines.effects == ["do a", "undo a"]
        child = pipelines.client.get_workflow_handle(
            f"notify-{handle.result_run_id or (await handle.describe()).run_id}", result_type=RawValue
        )
        assert await result_of(child) == "told"
    assert pipelines.effects == ["do a", "undo a", "do notify"]


async def test_a_childs_run_timeout_is_the_servers_and_undoes_nothing(pipelines: Pipelines) -> None:
    bundle = pipelines.bundle(
        "version: 1\nname: p\nsteps:\n  - {id: c, pipeline: ./c.yaml, timeouts: {run: 500ms}, with: {}}\n",
        c="""
version: 1
name: c
steps:
  - {id: a, activity: effect.do, with: {log: LOG, name: a}, compensate: {activity: effect.undo, with: {log: LOG, name: a}}}
  - {id: w, wait: 1h}
""",
    )
    async with pipelines.worker():
        cause, report = await failure(await pipelines.start(bundle))
    assert isinstance(cause, ApplicationError)
    assert cause.type == "ChildTerminated"
    assert cause.message == "c: the server stopped the child after 500ms, without undo"
    assert report is not None
    assert report.dirty


async def test_a_workflow_id_that_is_taken_is_an_error_of_the_step(pipelines: Pipelines) -> None:
    child = "version: 1\nname: c\nsteps: [{id: w, wait: 1h}]\n"
    taken = pipelines.bundle("version: 1\nname: c\nsteps: [{id: w, wait: 1h}]\n")
    async with pipelines.worker():
        open_run = await pipelines.start(taken)
        text = f"version: 1\nname: p\nsteps: [{{id: c, pipeline: ./c.yaml, workflow_id: {open_run.id}}}]\n"
        cause, _ = await failure(await pipelines.start(pipelines.bundle(text, c=child)))
        await open_run.terminate()
    assert isinstance(cause, ApplicationError)
    assert cause.type == "WorkflowAlreadyStarted"
    assert cause.message == f'c: a workflow with the id "{open_run.id}" is already running'


async def test_what_is_over_the_payload_limit_is_an_error_naming_the_step(pipelines: Pipelines) -> None:
    @activity.defn(name="test.large")
    async def large(size: int) -> str:
        return "x" * size

    text = """
version: 1
name: large
inputs: {size: {type: integer}}
steps:
  - {id: a, activity: effect.do, with: {log: LOG, name: a}, compensate: {activity: effect.undo, with: {log: LOG, name: a}}}
  - {id: make, activity: test.large, task_queue: QUEUE, args: ["{{ inputs.size }}"], compensate: {activity: effect.undo, with: {log: LOG, name: make}}}
  - {id: use, name: use it, activity: effect.do, with: {log: LOG, name: "{{ steps.make.output }}{{ steps.make.output }}"}}
""".replace("QUEUE", pipelines.queue)
    bundle = pipelines.bundle(text)
    async with pipelines.worker(large):
        result, report = await failure(await pipelines.start(bundle, size=3_000_000))
        entered, _ = await failure(await pipelines.start(bundle, size=1_500_000))
    assert isinstance(result, ApplicationError)
    assert isinstance(entered, ApplicationError)
    assert result.type == entered.type == "PayloadTooLarge"
    assert result.message.startswith('make: the result of "test.large" has 3,000,')
    assert entered.message.startswith('use it: the input of "effect.do" has 3,000,')
    assert report is not None
    # The work was done, only its result could not be sent: it is undone.
    assert [(r.path, r.outcome) for r in report.undo] == [("make", "uncertain"), ("a", "completed")]


async def test_any_client_starts_a_pipeline_by_name_with_plain_inputs(pipelines: Pipelines) -> None:
    bundle = pipelines.bundle("""
version: 1
name: by-name
inputs: {n: {type: integer}, m: {type: integer, default: 2}}
steps:
  - {id: s, set: {v: "{{ inputs.n * inputs.m }}"}}
  - {id: a, activity: effect.do, with: {log: LOG, name: a}}
output: "{{ steps.s.output.v }}"
""")
    start = pipelines.client.start_workflow
    async with pipelines.worker(bundles={"by-name": model.encode(bundle)}):
        good = await start("by-name", {"n": 21}, id=f"{pipelines.queue}-a", task_queue=pipelines.queue)
        assert await good.result() == 42
        bad = await start(
            "by-name", {"m": "x", "k": 1}, id=f"{pipelines.queue}-b", task_queue=pipelines.queue
        )
        cause, report = await failure(bad)
        unknown = await start("by-nam", id=f"{pipelines.queue}-c", task_queue=pipelines.queue)
        other, unknown_report = await failure(unknown)
    assert isinstance(cause, ApplicationError)
    assert cause.type == "InvalidInputs"
    assert cause.message == (
        "k: there is no such input (the inputs are m, n);"
        ' m: must be an integer, not "x"; n: this input is missing'
    )
    assert isinstance(other, ApplicationError)
    assert other.message == 'this worker does not serve the pipeline "by-nam"; it serves: by-name'
    assert report == Report(
        pipeline="by-name", status="failed", error=ErrorInfo(type="InvalidInputs", message=cause.message)
    )
    assert unknown_report == Report(
        pipeline="by-nam", status="failed", error=ErrorInfo(type="UnknownPipeline", message=other.message)
    )


async def test_a_bundle_of_another_version_is_refused(pipelines: Pipelines) -> None:
    bundle = pipelines.bundle("version: 1\nname: p\nsteps: [{id: s, set: {v: 1}}]\n")
    newer = json.loads(model.encode(bundle)) | {"format": model.FORMAT + 1, "more": True}
    arguments = [
        payloads.encoded({}),
        Payload(metadata={"encoding": b"json/plain"}, data=json.dumps(newer).encode()),
    ]
    async with pipelines.worker():
        handle = await pipelines.client.start_workflow(
            "p", args=[RawValue(p) for p in arguments], id=pipelines.queue, task_queue=pipelines.queue
        )
        cause, report = await failure(handle)
    assert isinstance(cause, ApplicationError)
    assert cause.type == "UnsupportedBundle"
    assert report is not None
    assert (report.pipeline, report.status, report.dirty, report.undo) == ("p", "failed", False, ())
    assert cause.message == (
        "this run was started in format 2, but this worker supports format 1:"
        " use the same version of pipeline-runner on both sides"
    )


async def test_the_idempotency_key_is_the_steps_and_the_runs(pipelines: Pipelines) -> None:
    bundle = pipelines.bundle("""
version: 1
name: keys
steps:
  - {id: a, activity: effect.do, with: {log: LOG, name: a}}
  - {id: b, activity: effect.do, with: {log: LOG, name: b}}
output: ["{{ steps.a.output.key }}", "{{ steps.b.output.key }}"]
""")
    async with pipelines.worker():
        one, two = await asyncio.gather(
            *[result_of(h) for h in [await pipelines.start(bundle), await pipelines.start(bundle)]]
        )
    assert len({*one, *two}) == 4
    assert all(len(key) == 32 for key in one + two)


async def test_positional_arguments_and_no_arguments(pipelines: Pipelines) -> None:
    @activity.defn(name="test.args")
    async def args(first: int, second: str) -> str:
        return f"{first}{second}"

    @activity.defn(name="test.none")
    def none() -> str:
        return "sync"

    bundle = pipelines.bundle(
        """
version: 1
name: args
steps:
  - {id: a, activity: test.args, task_queue: QUEUE, args: [1, "{{ 'x' }}"]}
  - {id: b, activity: test.none, task_queue: QUEUE}
output: "{{ steps.a.output }}{{ steps.b.output }}"
""".replace("QUEUE", pipelines.queue)
    )
    async with pipelines.worker(args, none):
        assert await result_of(await pipelines.start(bundle)) == "1xsync"


async def test_errors_of_levels_are_linked(pipelines: Pipelines) -> None:
    bundle = pipelines.bundle(
        "version: 1\nname: p\nsteps: [{id: a, activity: effect.do, with: {log: LOG, name: a, then: fail}}]\n"
    )
    async with pipelines.worker():
        cause, _ = await failure(await pipelines.start(bundle))
    assert isinstance(cause.__cause__, ActivityError)
    assert not isinstance(cause.__cause__, ChildWorkflowError)
    assert cause.__cause__.activity_id == "a"


async def test_workers_that_share_a_task_queue_may_serve_different_pipelines(
    pipelines: Pipelines, server: DevServer
) -> None:
    """Whichever of them takes a run by name, the one that knows the pipeline is asked."""
    bundle = pipelines.bundle("""
version: 1
name: elsewhere
steps: [{id: s, set: {v: 1}}]
output: "{{ steps.s.output.v }}"
""")
    other = Pipelines(await connected(server.address), pipelines.folder)
    other.queue = pipelines.queue
    start = pipelines.client.start_workflow
    async with pipelines.worker(), other.worker(bundles={"elsewhere": model.encode(bundle)}):
        handles = [
            await start("elsewhere", id=f"{pipelines.queue}-{k}", task_queue=pipelines.queue)
            for k in range(6)
        ]
        assert [await handle.result() for handle in handles] == [1] * 6
