"""Runs for programs: start, find, wait for, inspect and cancel them.

::

    RunError                       a run ended without a result
      ├─ RunFailed                 it failed, timed out, or was ended by the server
      └─ RunCancelled              it was cancelled and has undone what it had done
"""

import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, overload

import msgspec
from temporalio.client import Client, WorkflowExecutionDescription, WorkflowFailureError, WorkflowHandle
from temporalio.common import RawValue

from pipeline_runner.api.pipelines import Pipeline
from pipeline_runner.core import model
from pipeline_runner.core.errors import in_brackets
from pipeline_runner.core.state import Report
from pipeline_runner.engine import messages
from pipeline_runner.engine.client import Start, find, start
from pipeline_runner.engine.follow import Follower
from pipeline_runner.engine.history.happenings import Connection, Ended, Progress, Unserved
from pipeline_runner.engine.reports import UNDECODED, read_report, report_in
from pipeline_runner.engine.worker import DEFAULT_TASK_QUEUE
from pipeline_runner.engine.workflow.payloads import is_plain

T = TypeVar("T")

Event = Progress | Connection | Unserved | Ended
"""What :meth:`Run.events` yields."""


class RunError(Exception):
    """A run ended without a result. The message is that of the error, with its type."""

    def __init__(self, workflow_id: str, report: Report) -> None:
        self.workflow_id = workflow_id
        self.report = report
        """The outcome of every step and of its undo."""
        self.type = report.error.type if report.error else ""
        """The error type, such as ``CommandFailed``; empty if there is none."""
        self.message = report.error.message if report.error else report.status
        super().__init__(f"{self.message}{in_brackets(self.type)}")


class RunFailed(RunError):
    """A run failed, timed out, or was ended by the server."""


class RunCancelled(RunError):
    """A run was cancelled and undone. If it could not undo everything, :class:`RunFailed` is raised."""


class Run:
    """A run of a pipeline, created by :meth:`Runner.start` and :meth:`Runner.get`."""

    def __init__(self, client: Client, handle: WorkflowHandle[Any, Any], pipeline: str, *, new: bool) -> None:
        self._client = client
        self._handle = handle
        self.pipeline = pipeline
        """The pipeline's name."""
        self.new = new
        """Whether this call of :meth:`Runner.start` started the run; False: it existed before."""

    def __repr__(self) -> str:
        return f"<Run {self.workflow_id}>"

    @property
    def workflow_id(self) -> str:
        """The workflow id."""
        return self._handle.id

    @property
    def run_id(self) -> str | None:
        """Temporal's run id; if the run continues as new, that of its first run or of a later one."""
        return self._handle.run_id

    @overload
    async def result(self) -> Any: ...
    @overload
    async def result(self, type: type[T]) -> T: ...
    async def result(self, type: Any = Any) -> Any:  # noqa: A002
        """Wait for the run to end and return its output.

        Args:
            type: The type to convert the output to: a dataclass, a typed dictionary, a pydantic model, a
                ``msgspec.Struct``, or lists and mappings of them. By default the output stays JSON data.

        Raises:
            RunFailed: The run failed.
            RunCancelled: The run was cancelled.
            ValueError: The output does not match the type, or is encoded by a codec that the client lacks.
            RPCError: The server rejects the request, or does not answer.
        """
        try:
            value = await self._handle.result()
        except WorkflowFailureError as failure:
            report = report_in(failure.cause) or await self.report()
            kind = RunCancelled if report.status == "cancelled" and not report.dirty else RunFailed
            raise kind(self.workflow_id, report) from failure
        except UNDECODED:
            raise ValueError(_encoded(self)) from None
        if not is_plain(value.payload):
            raise ValueError(_encoded(self))
        return msgspec.convert(msgspec.json.decode(value.payload.data or b"null"), type, dec_hook=_model)

    async def report(self) -> Report:
        """Return the report of the run, finished or not. This needs no worker.

        Raises:
            UnreachableError: The server does not answer.
            RPCError: The server rejects the request, or no longer knows the run.
        """
        return await read_report(self._client, self.workflow_id, self.run_id, self.pipeline)

    async def events(self) -> AsyncIterator[Event]:
        """Yield the events of the run from its start to its end. This needs no worker.

        Raises:
            UnreachableError: The server has not answered for a minute.
            RPCError: The server rejects the request, or no longer knows the run.
        """
        async for event in Follower(self._client, self.workflow_id, self.run_id).events():
            yield event

    async def cancel(self, reason: str = "") -> None:
        """Request that the run stop and undo what it has done; :meth:`result` waits for the end.

        Args:
            reason: The reason, which is recorded in the report and in the history.

        Raises:
            RPCError: The run has already ended, or the server rejects the request.
        """
        await self._chain.cancel(reason=reason)

    async def send(self, event: str, payload: Any = None) -> None:
        """Send an event to the run, and wait until the run has taken it.

        Args:
            event: The event's name.
            payload: The payload: JSON data.

        Raises:
            RefusedError: The run does not take it.
            UnansweredError: No worker has answered for 10 seconds. The run may still take it.
            LookupError: The run has ended.
            RPCError: The server rejects the request.
        """
        await messages.send(self._chain, event, payload)

    async def decide(self, what: Literal["retry", "skip", "undo"]) -> str:
        """Decide about the step that has failed, if the pipeline has ``on_failure: ask``.

        Args:
            what: ``retry`` runs the step again, ``skip`` goes on without it, and ``undo`` undoes the run.

        Returns:
            The path of the step.

        Raises:
            RefusedError: The run does not take it.
            UnansweredError: No worker has answered for 10 seconds. The run may still take it.
            LookupError: The run has ended.
            RPCError: The server rejects the request.
        """
        return await messages.decide(self._chain, what)

    async def approve(self, step: str, payload: Any = None, *, comment: str = "") -> int:
        """Approve what a step of the run, or of a child, waits for. The identity is that of the client.

        Args:
            step: The step's path, or its id if no other open approval has it.
            payload: The payload of the approval: JSON data.
            comment: A comment, which is recorded in the history.

        Returns:
            The number of approvals that the step still needs.

        Raises:
            RefusedError: The run does not take it.
            UnansweredError: No worker has answered for 10 seconds. The run may still take it.
            LookupError: The run, or the child, has ended.
            RPCError: The server rejects the request.
        """
        _, missing = await messages.answer(
            self._client, self._chain, step, approves=True, payload=payload, comment=comment
        )
        return missing

    async def reject(self, step: str, *, comment: str = "") -> None:
        """Reject what a step of the run, or of a child, waits for. The identity is that of the client.

        Args:
            step: The step's path, or its id if no other open approval has it.
            comment: The reason, which becomes a part of the step's error.

        Raises:
            RefusedError: The run does not take it.
            UnansweredError: No worker has answered for 10 seconds. The run may still take it.
            LookupError: The run, or the child, has ended.
            RPCError: The server rejects the request.
        """
        await messages.answer(self._client, self._chain, step, approves=False, comment=comment)

    @property
    def _chain(self) -> WorkflowHandle[Any, Any]:
        """Whichever run of the chain is open."""
        first = self._handle.first_execution_run_id
        return self._client.get_workflow_handle(self.workflow_id, first_execution_run_id=first)


def _encoded(run: Run) -> str:
    return (
        f"the outcome of the run {run.workflow_id} is encoded: connect with the data converter of its worker"
    )


def _model(kind: type, value: Any) -> Any:
    """Return a value as a pydantic model; msgspec asks for types that it does not know."""
    if not hasattr(kind, "model_validate"):
        raise NotImplementedError(f"an output cannot be converted to {kind.__qualname__}")
    return kind.model_validate(value)


class Runner:
    """Starts and finds runs."""

    def __init__(self, client: Client, *, task_queue: str | None = None) -> None:
        """Create a runner.

        Args:
            client: A connected client, with the same data converter and interceptors as the workers.
            task_queue: The task queue of the runs; None: the pipeline's ``task_queue``, else ``pipelines``.
        """
        self.client = client
        self.task_queue = task_queue

    async def start(
        self,
        pipeline: Pipeline | str,
        inputs: Mapping[str, Any] | None = None,
        *,
        workflow_id: str | None = None,
        directory: str | Path | None = None,
    ) -> Run:
        """Start a run, or find the open run with the same workflow id, pipeline and inputs.

        Args:
            pipeline: A loaded pipeline, which is sent with the run; or the name of a pipeline that a worker
                serves. In that case the worker checks the inputs, and a run with invalid inputs fails.
            inputs: The inputs by name: JSON data.
            workflow_id: The workflow id; None: the pipeline's ``workflow_id``, or else its name and a random
                suffix. If the pipeline is started by name, its ``workflow_id`` is unknown and not used.
            directory: The directory that relative paths in a loaded pipeline refer to; None: the directory
                of whichever worker runs a step.

        Raises:
            InvalidPipeline: The pipeline has errors.
            InvalidInputs: The inputs are invalid; ``problems`` lists all of them.
            WorkflowIdError: The workflow id is empty or too long, or the pipeline's cannot be rendered.
            ConflictError: The open run with this workflow id has a different pipeline or different inputs.
            TooLargeError: The pipeline and the inputs together are too large.
            RPCError: The server rejects the request, or does not answer.
        """
        given = dict(inputs or {})
        where = None if directory is None else os.path.abspath(directory)  # noqa: ASYNC240 - of memory
        if isinstance(pipeline, str):
            queue = self.task_queue or DEFAULT_TASK_QUEUE
            what = Start(name=pipeline, inputs=given, task_queue=queue, workflow_id=workflow_id)
        else:
            root = pipeline.bundle.pipelines[pipeline.bundle.root]
            what = Start(
                name=root.name,
                bundle=model.encode(pipeline.bundle),
                inputs=given,
                task_queue=self.task_queue or root.task_queue or DEFAULT_TASK_QUEUE,
                workflow_id=workflow_id,
                description=root.description,
                directory=where,
            )
        handle, new = await start(self.client, what)
        return Run(self.client, handle, what.name, new=new)

    async def get(self, workflow_id: str) -> Run:
        """Return the newest run with a workflow id, open or not.

        Raises:
            LookupError: No such run exists.
            RPCError: The server rejects the request, or does not answer.
        """
        handle, description = await find(self.client, workflow_id)
        chained = self.client.get_workflow_handle(
            workflow_id,
            run_id=handle.run_id,
            first_execution_run_id=_first(description),
            result_type=RawValue,
        )
        return Run(self.client, chained, description.workflow_type, new=False)


def _first(description: WorkflowExecutionDescription) -> str:
    return description.raw_description.workflow_execution_info.first_run_id or description.run_id
