"""Who may have an embedded worker do something: the commands of its user, and nobody else.

The attacker reaches the server with a client of their own, and may run workers there. The worker
under attack is that of a run: it has built-in activities, and no pipelines by name.
"""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from temporalio import activity, workflow
from temporalio.api.common.v1 import Payload
from temporalio.api.history.v1 import ActivityTaskScheduledEventAttributes
from temporalio.client import (
    ActivityFailureError,
    Client,
    WorkflowFailureError,
    WorkflowHandle,
)
from temporalio.common import RawValue, RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.worker import (
    Interceptor,
    StartActivityInput,
    Worker,
    WorkflowInboundInterceptor,
    WorkflowOutboundInterceptor,
)

from pipeline_runner.activities import shell
from pipeline_runner.core import model
from pipeline_runner.engine import client as starting
from pipeline_runner.engine.signing import signed
from pipeline_runner.engine.workflow.interpreter import LOAD
from pipeline_runner.engine.workflow.outcomes import report_of
from pipeline_runner.engine.workflow.payloads import encoded
from pipeline_runner.engine.workflow.signatures import HEADER
from tests.conftest import Pipelines, connected, result_of
from tests.engine.test_undo import failure

KEY = bytes(range(32))
EVIL = """
name: evil
steps:
  - {id: a, activity: shell.run, with: {command: [touch, PROOF]}, compensate: none}
"""


async def signing_client(address: str) -> Client:
    await connected(address)
    return await starting.connect(signed({"target_host": address}, KEY))


@pytest.fixture
async def own(server: Any, tmp_path: Path) -> Pipelines:
    """Pipelines of the user, on the server that the attacker's ``client`` reaches, too."""
    return Pipelines(await signing_client(server.address), tmp_path)


@pytest.fixture
def proof(tmp_path: Path) -> Path:
    return tmp_path / "owned"


def _evil(own: Pipelines, proof: Path) -> list[RawValue]:
    bundle = own.bundle(EVIL.replace("PROOF", str(proof)))
    return [RawValue(encoded({})), RawValue(_json(model.encode(bundle)))]


def _json(data: bytes) -> Payload:
    return Payload(metadata={"encoding": b"json/plain"}, data=data)


async def _scheduled(handle: WorkflowHandle[Any, Any]) -> ActivityTaskScheduledEventAttributes:
    """Return the first activity in a run's history, as anybody can read it."""
    async for event in handle.fetch_history_events():
        if event.HasField("activity_task_scheduled_event_attributes"):
            return event.activity_task_scheduled_event_attributes
    raise AssertionError("no activity was scheduled")


async def _refused(handle: WorkflowHandle[Any, Any]) -> ApplicationError:
    with pytest.raises(WorkflowFailureError) as caught:
        await handle.result()
    cause: BaseException | None = caught.value.cause
    if isinstance(cause, ActivityError):
        cause = cause.cause
    assert isinstance(cause, ApplicationError)
    assert cause.type == "NotSigned"
    report = report_of(cause)
    if isinstance(caught.value.cause, ApplicationError):
        # The run itself was refused, and not an activity of somebody else's.
        assert report is not None
        assert (report.status, report.dirty, report.undo) == ("failed", False, ())
    return cause


# What the user's own runs do


ALL = """
name: all
inputs: {fail: {type: boolean}}
steps:
  - id: a
    activity: effect.do
    with: {log: LOG, name: a}
    compensate: {activity: effect.undo, with: {log: LOG, name: a, then: fail-once}, retry: {initial_interval: 10ms}}
  - {id: child, pipeline: ./child.yaml}
  - {id: bare, activity: test.none}
  - {id: two, activity: test.two, args: [1, [2]]}
  - {id: empty, activity: test.one, args: [[]]}
  - {id: any, activity: test.dynamic, args: []}
  - {id: stop, when: inputs.fail, fail: {message: enough}}
output: ["{{ steps.child.output }}", "{{ steps.bare.output }}", "{{ steps.two.output }}", "{{ steps.any.output }}"]
"""
CHILD = """
name: child
steps:
  - id: c
    activity: effect.do
    with: {log: LOG, name: c}
    compensate: {activity: effect.undo, with: {log: LOG, name: c}}
output: done
"""


async def _second_attempt() -> str:
    """Fail once, after a heartbeat with details: they are decoded as arguments are."""
    if activity.info().attempt == 1:
        activity.heartbeat({"not": "an argument"})
        await asyncio.sleep(0)
        raise ApplicationError("again", next_retry_delay=timedelta(milliseconds=10))
    assert list(activity.info().heartbeat_details) == [{"not": "an argument"}]
    return "second"


@activity.defn(name="test.none")
async def none() -> str:
    return await _second_attempt()


@activity.defn(name="test.two")
async def two(number: int, more: list[int]) -> list[Any]:
    return [number, more, await _second_attempt()]


@activity.defn(name="test.one")
async def one(values: list[int]) -> str:
    assert values == []
    return await _second_attempt()


@activity.defn(dynamic=True)
async def everything(arguments: Sequence[RawValue]) -> list[Any]:
    return [activity.info().activity_type, len(arguments), await _second_attempt()]


async def test_runs_of_the_user_are_served(own: Pipelines) -> None:
    """Children, undos, retries with details of heartbeats, and activities with any arguments."""
    text = ALL
    for name in ("bare", "two", "empty", "any"):
        text = text.replace(f"id: {name}, activity", f"id: {name}, task_queue: {own.queue}, activity")
    bundle = own.bundle(text, child=CHILD)
    async with own.worker(none, two, one, everything):
        assert await result_of(await own.start(bundle, fail=False)) == [
            "done",
            "second",
            [1, [2], "second"],
            ["test.dynamic", 0, "second"],
        ]
        _, report = await failure(await own.start(bundle, fail=True))
    assert report is not None
    assert [(r.path, r.state) for r in report.undo] == [("child/c", "undone"), ("a", "undone")]


async def test_a_long_run_goes_on_as_new(short_histories: Any, tmp_path: Path) -> None:
    own = Pipelines(await signing_client(short_histories.address), tmp_path)
    many = "".join(
        f"  - {{id: s{k}, activity: effect.do, with: {{log: LOG, name: s{k}}}}}\n" for k in range(15)
    )
    bundle = own.bundle(f"name: long\nsteps:\n{many}output: done\n")
    async with own.worker():
        handle = await own.start(bundle)
        again = own.client.get_workflow_handle(handle.id, result_type=RawValue)
        assert await result_of(again) == "done"
        assert (await again.describe()).raw_description.workflow_execution_info.first_run_id == handle.run_id
        assert (await again.describe()).run_id != handle.run_id


async def test_a_pipeline_that_the_worker_serves_is_open_to_all(own: Pipelines, client: Client) -> None:
    bundle = own.bundle(CHILD.replace("name: child", "name: open"))
    async with own.worker(bundles={"open": model.encode(bundle)}):
        output = await client.execute_workflow("open", {}, id=f"{own.queue}-n", task_queue=own.queue)
    assert output == "done"
    assert own.effects == ["do c"]


# What others try


async def test_a_run_of_somebody_else_is_ended(own: Pipelines, client: Client, proof: Path) -> None:
    async with own.worker(shell.run):
        handle = await client.start_workflow(
            "evil", args=_evil(own, proof), id=f"{own.queue}-e", task_queue=own.queue
        )
        error = await _refused(handle)
    assert error.message.startswith("this worker refuses the run, because no command of the worker's user")
    assert not proof.exists()


@pytest.mark.parametrize("changed", ["bundle", "workflow id", "inputs", "options"])
async def test_a_signature_is_good_for_its_own_run_alone(
    own: Pipelines, client: Client, proof: Path, changed: str
) -> None:
    bundle = own.bundle(CHILD)
    async with own.worker(shell.run):
        handle = await own.start(bundle)
        await handle.result()
        events = [event async for event in handle.fetch_history_events()]
        started = events[0].workflow_execution_started_event_attributes
        stolen = dict(started.header.fields)
        assert HEADER in stolen
        arguments = [RawValue(payload) for payload in started.input.payloads]
        workflow_id = handle.id
        if changed == "bundle":
            arguments = [arguments[0], _evil(own, proof)[1]]
        elif changed == "inputs":
            arguments = [RawValue(encoded({"more": 1})), arguments[1]]
        elif changed == "options":
            arguments = [*arguments, RawValue(encoded({"directory": "/"}))]
        else:
            workflow_id = f"{own.queue}-other"
        forger = _with_headers(client, stolen)
        await _refused(
            await forger.start_workflow("child", args=arguments, id=workflow_id, task_queue=own.queue)
        )
    assert own.effects == ["do c"]
    assert not proof.exists()


async def test_arguments_beside_a_name_need_a_signature(own: Pipelines, client: Client, proof: Path) -> None:
    served = {"child": model.encode(own.bundle(CHILD))}
    continued = {"continued": {"phase": "steps", "position": 0}}
    async with own.worker(shell.run, bundles=served):
        for more in ([_evil(own, proof)[1]], [RawValue(encoded(None)), RawValue(encoded(continued))]):
            handle = await client.start_workflow(
                "child", args=[RawValue(encoded({})), *more], id=f"{own.queue}-m", task_queue=own.queue
            )
            await _refused(handle)
    assert own.effects == []


async def test_a_name_that_the_worker_does_not_serve_is_not_taken_from_others(
    own: Pipelines, client: Client, proof: Path
) -> None:
    """The attacker answers on the task queue, in the place of a worker that would know the pipeline."""
    evil = msgspec.json.decode(_evil(own, proof)[1].payload.data)

    @activity.defn(name=LOAD)
    async def load(name: str) -> Any:
        return {"bundle": evil, "directory": "/", "signature": "0" * 64}

    async with own.worker(shell.run), Worker(client, task_queue=own.queue, activities=[load]):
        handle = await client.start_workflow("evil", {}, id=f"{own.queue}-l", task_queue=own.queue)
        error = await _refused(handle)
    assert 'the pipeline "evil"' in error.message
    assert not proof.exists()


async def test_an_activity_alone_is_refused(own: Pipelines, client: Client, proof: Path) -> None:
    async with own.worker(shell.run):
        with pytest.raises(ActivityFailureError) as caught:
            await client.execute_activity(
                "shell.run",
                {"command": ["touch", str(proof)]},
                id=f"{own.queue}-a",
                task_queue=own.queue,
                start_to_close_timeout=timedelta(seconds=10),
            )
    cause = caught.value.cause
    assert isinstance(cause, ApplicationError)
    assert (cause.type, cause.non_retryable) == ("NotSigned", True)
    assert cause.message.startswith('the activity "shell.run" was not scheduled by a run')
    assert not proof.exists()


@workflow.defn(sandboxed=False, name="foreign")
class Foreign:
    """A workflow of the attacker's."""

    @workflow.run
    async def run(self, queue: str, name: str, activity_id: str, given: Any) -> Any:
        """Schedule an activity on somebody else's task queue."""
        return await workflow.execute_activity(
            name,
            given,
            activity_id=activity_id,
            task_queue=queue,
            start_to_close_timeout=timedelta(seconds=10),
            retry_policy=RetryPolicy(maximum_attempts=3),
        )


@pytest.mark.parametrize("stolen", ["nothing", "the headers", "the headers and the input"])
async def test_an_activity_of_a_foreign_workflow_is_refused(
    own: Pipelines, client: Client, proof: Path, stolen: str
) -> None:
    """Also with the headers of one that was signed: with another input, or in another workflow."""
    text = (
        "name: good\nsteps:\n  - {id: a, activity: shell.run, with: {command: ['true']}, compensate: none}\n"
    )
    async with own.worker(shell.run):
        handle = await own.start(own.bundle(text))
        await handle.result()
        scheduled = await _scheduled(handle)
        headers = {} if stolen == "nothing" else dict(scheduled.header.fields)
        given: Any = {"command": ["touch", str(proof)]}
        workflow_id = handle.id  # it has ended, so its id is free
        if stolen == "the headers and the input":
            given = msgspec.json.decode(scheduled.input.payloads[0].data)
            workflow_id = f"{own.queue}-f"
        async with Worker(
            client,
            task_queue=f"{own.queue}-foreign",
            workflows=[Foreign],
            interceptors=[_Adding(headers)],
        ):
            foreign = await client.start_workflow(
                "foreign",
                args=[own.queue, "shell.run", "a", given],
                id=workflow_id,
                task_queue=f"{own.queue}-foreign",
            )
            error = await _refused(foreign)
    assert error.message.startswith('the activity "shell.run" was not scheduled by a run')
    assert not proof.exists()


async def test_secrets_cannot_be_moved_to_another_place(
    own: Pipelines, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The header that says where secrets go is signed with the input."""
    monkeypatch.setenv("TOKEN", "quite-a-secret")
    text = (
        "name: good\nsecrets: [TOKEN]\nsteps:\n"
        '  - {id: a, activity: effect.do, with: {log: LOG, name: "{{ secrets.TOKEN }}"}, compensate: none}\n'
    )
    async with own.worker():
        handle = await own.start(own.bundle(text))
        await handle.result()
        scheduled = await _scheduled(handle)
        headers = dict(scheduled.header.fields)
        places = msgspec.json.decode(headers["pipeline-runner-secrets"].data)
        places[0][0][-1] = "log"
        headers["pipeline-runner-secrets"] = encoded(places)
        given = msgspec.json.decode(scheduled.input.payloads[0].data)
        async with Worker(
            client, task_queue=f"{own.queue}-foreign", workflows=[Foreign], interceptors=[_Adding(headers)]
        ):
            foreign = await client.start_workflow(
                "foreign",
                args=[own.queue, "effect.do", "a", given],
                id=handle.id,
                task_queue=f"{own.queue}-foreign",
            )
            await _refused(foreign)
    assert own.effects == ["do quite-a-secret"]


# Workers with limits of their own


async def test_a_worker_that_only_serves_takes_pipelines_by_name(
    server: Any, tmp_path: Path, client: Client, proof: Path
) -> None:
    """On a configured server: with a key of the workers' own, children and long runs go on."""
    serving = await starting.connect(signed({"target_host": server.address}, KEY, served_only=True))
    own = Pipelines(serving, tmp_path)
    text = "name: open\nsteps:\n  - {id: c, pipeline: ./child.yaml}\noutput: '{{ steps.c.output }}'\n"
    bundles = {"open": model.encode(own.bundle(text, child=CHILD))}
    async with own.worker(shell.run, bundles=bundles):
        assert await client.execute_workflow("open", {}, id=f"{own.queue}-1", task_queue=own.queue) == "done"
        for who in (client, serving):
            handle = await who.start_workflow(
                "evil", args=_evil(own, proof), id=f"{own.queue}-2", task_queue=own.queue
            )
            error = await _refused(handle)
            assert error.message.startswith("this worker runs only the pipelines that it serves")
    assert own.effects == ["do c"]
    assert not proof.exists()


async def test_a_worker_runs_only_the_activities_that_it_allows(
    pipelines: Pipelines, proof: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "quite-a-secret")
    text = (
        "name: mixed\nsecrets: [TOKEN]\nsteps:\n  - {id: a, activity: effect.do, with: {log: LOG, name: a},"
        " compensate: {activity: effect.undo, with: {log: LOG, name: a}}}\n"
        f"  - {{id: b, activity: shell.run, with: {{command: [touch, {proof}],"
        ' env: {T: "{{ secrets.TOKEN }}"}}, retry: {maximum_attempts: 5}, compensate: none}\n'
    )
    bundles = {"mixed": model.encode(pipelines.bundle(text))}
    async with pipelines.worker(shell.run, bundles=bundles, allow=["effect.*", "file.re?d"]):
        handle = await pipelines.client.start_workflow(
            "mixed", {}, id=pipelines.queue, task_queue=pipelines.queue
        )
        cause, report = await failure(handle)
    assert isinstance(cause, ApplicationError)
    assert cause.type == "NotAllowed"
    assert cause.message == 'b: this worker does not allow "shell.run": it allows only effect.*, file.re?d'
    assert report is not None
    assert [(r.path, r.state) for r in report.undo] == [("a", "undone")]
    assert pipelines.effects == ["do a", "undo a"]
    assert not proof.exists()


async def test_a_run_by_name_whose_worker_lacks_a_secret_does_nothing(pipelines: Pipelines) -> None:
    text = (
        "name: poor\nsecrets: [MISSING_TOKEN]\nsteps:\n  - {id: a, activity: effect.do, with: {log: LOG, name: a},"
        ' compensate: {activity: effect.undo, with: {log: LOG, name: "{{ secrets.MISSING_TOKEN }}"}}}\n'
    )
    bundles = {"poor": model.encode(pipelines.bundle(text))}
    async with pipelines.worker(bundles=bundles, needs={"poor": ["MISSING_TOKEN"]}):
        handle = await pipelines.client.start_workflow(
            "poor", {}, id=pipelines.queue, task_queue=pipelines.queue
        )
        cause, _ = await failure(handle)
    assert isinstance(cause, ApplicationError)
    assert cause.type == "SecretNotFound"
    assert cause.message.startswith('the worker has no secret "MISSING_TOKEN"')
    assert pipelines.effects == []


class _Adding(Interceptor):
    """Puts headers on whatever the attacker's workflows schedule."""

    def __init__(self, headers: dict[str, Payload]) -> None:
        self.headers = headers

    def workflow_interceptor_class(self, input: Any) -> Any:  # noqa: A002
        headers = self.headers

        class Outbound(WorkflowOutboundInterceptor):
            def start_activity(self, input: StartActivityInput) -> Any:  # noqa: A002
                input.headers = headers
                return super().start_activity(input)

        class Inbound(WorkflowInboundInterceptor):
            def init(self, outbound: WorkflowOutboundInterceptor) -> None:
                super().init(Outbound(outbound))

        return Inbound


def _with_headers(client: Client, headers: dict[str, Payload]) -> Client:
    """Return the attacker's client with headers on whatever it starts."""
    from temporalio import client as api

    class Outbound(api.OutboundInterceptor):
        async def start_workflow(self, input: api.StartWorkflowInput) -> Any:  # noqa: A002
            input.headers = headers
            return await super().start_workflow(input)

    class Adding(api.Interceptor):
        def intercept_client(self, next: api.OutboundInterceptor) -> api.OutboundInterceptor:  # noqa: A002
            return Outbound(next)

    return Client(**(client.config() | {"interceptors": [Adding()]}))
