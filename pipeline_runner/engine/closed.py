"""Determines the state of a run from its history: without a worker, and even if the run has ended.

The interpreter runs in this process on the events that the server has stored. The commands that it
would send next are dropped.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, cast

import msgspec
from temporalio import workflow
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import WorkflowExecutionStartedEventAttributes
from temporalio.bridge.proto.workflow_activation import WorkflowActivation
from temporalio.bridge.proto.workflow_completion import WorkflowActivationCompletion
from temporalio.client import Client, WorkflowHistory
from temporalio.worker import (
    ExecuteWorkflowInput,
    Interceptor,
    Replayer,
    WorkflowInboundInterceptor,
    WorkflowInstance,
    WorkflowInstanceDetails,
    WorkflowInterceptorClassInput,
)

from pipeline_runner.core.state import Continuation
from pipeline_runner.engine.cancelling import DetailedRunner
from pipeline_runner.engine.converting import json_of, plain
from pipeline_runner.engine.interceptor import WorkflowSide
from pipeline_runner.engine.signing import Signing
from pipeline_runner.engine.workflow.interpreter import Interpreter


class UnreadableRunError(Exception):
    """It cannot be determined from its history what a run has done."""


@dataclass(frozen=True, kw_only=True)
class Child:
    """A child pipeline that a run has started."""

    workflow_id: str
    run_id: str | None
    """The run id of the first run of its chain; None: the server had not started it yet."""


@dataclass(frozen=True, kw_only=True)
class RunState:
    """The state of a run at the end of its history."""

    bundle: bytes
    state: Continuation
    children: dict[str, Child]
    """By the path of their step: the children that were started last, in the newest run of a chain."""


async def read_state(client: Client, workflow_id: str, run_id: str) -> RunState:
    """Return the final or current state of a run.

    Args:
        client: The client.
        workflow_id: The run's workflow id.
        run_id: The run id of the newest run of its chain.

    Raises:
        UnreadableRunError: It is not a run of a pipeline, was refused, or needs another version or a codec.
        RPCError: The server refuses, or does not know the run.
    """
    history = await client.get_workflow_handle(workflow_id, run_id=run_id).fetch_history()
    started = history.events[0].workflow_execution_started_event_attributes
    await _check_origin(client, started)
    reading = _Reading()
    replayer = Replayer(
        workflows=[Interpreter],
        namespace=client.namespace,
        data_converter=client.data_converter,
        interceptors=[WorkflowSide(), reading],
        unsandboxed_workflow_runner=_Runner(reading),
    )
    result = await replayer.replay_workflow(history, raise_on_replay_failure=False)
    if reading.bundle is None or reading.state is None:
        raise UnreadableRunError(
            f'what the run "{workflow_id}" has done is not in its history: it did nothing, is not a run of a'
            " pipeline, or another version of pipeline-runner ran it"
        ) from result.replay_failure
    # The SDK gives a replay its own task queue.
    reading.state.log.task_queue = started.task_queue.name
    children = {path: child async for path, child in _children(client, history)}
    return RunState(bundle=reading.bundle, state=reading.state, children=children)


async def _check_origin(client: Client, started: WorkflowExecutionStartedEventAttributes) -> None:
    """Refuse a run that this user's workers would refuse.

    Raises:
        UnreadableRunError: They would refuse it, or its arguments are encoded.
    """
    arguments = [await plain(client.data_converter, payload) for payload in started.input.payloads]
    decoded = [payload for payload in arguments if payload is not None]
    if len(decoded) < len(arguments):
        raise UnreadableRunError(
            f'the payloads of the run "{started.workflow_id}" are encoded: pass its codec'
        )
    for one in client.config()["interceptors"]:
        if isinstance(one, Signing) and not one.accepts(started, decoded):
            raise UnreadableRunError(
                f'the run "{started.workflow_id}" was not started by a command of this user'
            )


async def _children(client: Client, history: WorkflowHistory) -> AsyncIterator[tuple[str, Child]]:
    run_ids = {
        event.child_workflow_execution_started_event_attributes.initiated_event_id: (
            event.child_workflow_execution_started_event_attributes.workflow_execution.run_id
        )
        for event in history.events
        if event.event_type == EventType.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_STARTED
    }
    for event in history.events:
        if event.event_type != EventType.EVENT_TYPE_START_CHILD_WORKFLOW_EXECUTION_INITIATED:
            continue
        started = event.start_child_workflow_execution_initiated_event_attributes
        options = await json_of(client.data_converter, started.input.payloads, 2)
        path = options.get("step") if isinstance(options, dict) else None
        if isinstance(path, str):
            yield path, Child(workflow_id=started.workflow_id, run_id=run_ids.get(event.event_id))


class _Reading(Interceptor):
    """Finds the interpreter, and keeps its state."""

    def __init__(self) -> None:
        self.interpreter: Interpreter | None = None
        self.bundle: bytes | None = None
        self.state: Continuation | None = None
        self._recorded: frozenset[str] | None = None
        """Keys of the undo log's entries before the replay went beyond the history."""

    def workflow_interceptor_class(self, input: WorkflowInterceptorClassInput) -> Any:  # noqa: A002
        """Put this into the chain."""
        return type("_Found", (_Finding,), {"reading": self})

    def before(self, act: WorkflowActivation) -> None:
        """Read the state before the interpreter continues."""
        run = None if self.interpreter is None else self.interpreter.running
        if run is None:
            return
        if any(job.HasField("remove_from_cache") for job in act.jobs):
            self.bundle, self.state = run.bundle, self._without_what_is_not_told(run.state)
        elif not act.is_replaying and self._recorded is None:
            self._recorded = frozenset(entry.key for entry in run.state.log.entries)

    def _without_what_is_not_told(self, state: Continuation) -> Continuation:
        copied = msgspec.json.decode(msgspec.json.encode(state), type=Continuation)
        if self._recorded is not None:
            # The last results came after the run's last task: it has not started what it would start then.
            entries = copied.log.entries
            entries[:] = [entry for entry in entries if entry.key in self._recorded]
        return copied


class _Finding(WorkflowInboundInterceptor):
    reading: _Reading

    async def execute_workflow(self, input: ExecuteWorkflowInput) -> Any:  # noqa: A002
        self.reading.interpreter = workflow.instance()
        return await super().execute_workflow(input)


class _Runner(DetailedRunner):
    def __init__(self, reading: _Reading) -> None:
        super().__init__()
        self._reading = reading

    def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
        return cast("WorkflowInstance", _Instance(super().create_instance(det), self._reading))


class _Instance:
    """An instance of the SDK that is observed."""

    def __init__(self, instance: WorkflowInstance, reading: _Reading) -> None:
        self._instance = instance
        self._reading = reading

    def __getattr__(self, name: str) -> Any:
        return getattr(self._instance, name)

    def activate(self, act: WorkflowActivation) -> WorkflowActivationCompletion:
        self._reading.before(act)
        return self._instance.activate(act)
