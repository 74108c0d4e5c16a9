"""Adds what the Python SDK leaves out between a workflow and the server.

The report in the end of a cancelled run, for clients in any SDK, without a worker: Temporal's event
*workflow execution canceled* has details, which the SDK leaves empty. And the identities of the clients
that started the run and sent its updates, which the SDK does not pass on. It also notes which
runs the worker serves.
"""

from dataclasses import replace
from typing import Any, cast

from temporalio.api.common.v1 import Payload
from temporalio.bridge.proto.workflow_activation import WorkflowActivation
from temporalio.bridge.proto.workflow_completion import WorkflowActivationCompletion
from temporalio.worker import UnsandboxedWorkflowRunner, WorkflowInstance, WorkflowInstanceDetails

from pipeline_runner.engine.returning import Served
from pipeline_runner.engine.workflow.ending import CANCELLED_WITH
from pipeline_runner.engine.workflow.senders import SENDERS

_ENDS = (
    "complete_workflow_execution",
    "fail_workflow_execution",
    "cancel_workflow_execution",
    "continue_as_new_workflow_execution",
)
"""The commands with which a run ends."""


class DetailedRunner(UnsandboxedWorkflowRunner):
    """Runs workflows as the SDK does, with the details of a cancelled one and with identities."""

    def __init__(self, served: Served | None = None) -> None:
        """Note there which runs are served."""
        super().__init__()
        self._served = served or Served()

    def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
        """Return the SDK's instance, wrapped so that it can set its details and ask for identities."""
        details: list[Payload] = []
        senders = _Senders()
        own: dict[str, Any] = {CANCELLED_WITH: details.append, SENDERS: senders.identity}
        made = super().create_instance(replace(det, extern_functions={**det.extern_functions, **own}))
        return cast("WorkflowInstance", _Detailed(made, details, senders, det, self._served))


class _Detailed:
    """An instance of the SDK. Only its commands are changed."""

    def __init__(
        self,
        instance: WorkflowInstance,
        details: list[Payload],
        senders: "_Senders",
        det: WorkflowInstanceDetails,
        served: Served,
    ) -> None:
        self._instance = instance
        self._details = details
        self._run = (det.info.workflow_id, det.info.run_id)
        self._served = served
        self._senders = senders

    def __getattr__(self, name: str) -> Any:
        return getattr(self._instance, name)

    def activate(self, act: WorkflowActivation) -> WorkflowActivationCompletion:
        self._senders.note(act)
        completion = self._instance.activate(act)
        kinds = set()
        for command in completion.successful.commands:
            kinds.add(command.WhichOneof("variant"))
            if command.HasField("cancel_workflow_execution"):
                command.cancel_workflow_execution.details.payloads.extend(self._details)
        if not any(job.HasField("remove_from_cache") for job in act.jobs):
            self._served.note(*self._run, ended=not kinds.isdisjoint(_ENDS))
        return completion


class _Senders:
    """Notes down who sent what a workflow is activated for."""

    def __init__(self) -> None:
        self._identities: dict[str | None, str] = {}

    def note(self, activation: WorkflowActivation) -> None:
        for job in activation.jobs:
            if job.HasField("do_update"):
                self._identities[job.do_update.id] = job.do_update.meta.identity
            elif job.HasField("initialize_workflow"):
                self._identities[None] = job.initialize_workflow.identity

    def identity(self, update: str | None) -> str:
        return self._identities.get(update, "")
