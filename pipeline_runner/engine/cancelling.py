"""Puts the report into the end of a cancelled run, for clients in any SDK, without a worker.

Temporal's event *workflow execution canceled* has details, which its Python SDK leaves empty. The
workflow runner of a worker inserts them into the outgoing command. It also
notes which runs the worker serves.
"""

from dataclasses import replace
from typing import Any, cast

from temporalio.api.common.v1 import Payload
from temporalio.bridge.proto.workflow_activation import WorkflowActivation
from temporalio.bridge.proto.workflow_completion import WorkflowActivationCompletion
from temporalio.worker import UnsandboxedWorkflowRunner, WorkflowInstance, WorkflowInstanceDetails

from pipeline_runner.engine.returning import Served
from pipeline_runner.engine.workflow.ending import CANCELLED_WITH

_ENDS = (
    "complete_workflow_execution",
    "fail_workflow_execution",
    "cancel_workflow_execution",
    "continue_as_new_workflow_execution",
)
"""The commands with which a run ends."""


class DetailedRunner(UnsandboxedWorkflowRunner):
    """Runs workflows as the SDK does, and inserts the details into the end of a cancelled one."""

    def __init__(self, served: Served | None = None) -> None:
        """Note there which runs are served."""
        super().__init__()
        self._served = served or Served()

    def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
        """Return the SDK's instance, wrapped so that it can set its details."""
        details: list[Payload] = []
        functions = {**det.extern_functions, CANCELLED_WITH: details.append}
        made = super().create_instance(replace(det, extern_functions=functions))
        return cast("WorkflowInstance", _Detailed(made, details, det, self._served))


class _Detailed:
    """An instance of the SDK. Only its commands are changed."""

    def __init__(
        self, instance: WorkflowInstance, details: list[Payload], det: WorkflowInstanceDetails, served: Served
    ) -> None:
        self._instance = instance
        self._details = details
        self._run = (det.info.workflow_id, det.info.run_id)
        self._served = served

    def __getattr__(self, name: str) -> Any:
        return getattr(self._instance, name)

    def activate(self, act: WorkflowActivation) -> WorkflowActivationCompletion:
        completion = self._instance.activate(act)
        kinds = set()
        for command in completion.successful.commands:
            kinds.add(command.WhichOneof("variant"))
            if command.HasField("cancel_workflow_execution"):
                command.cancel_workflow_execution.details.payloads.extend(self._details)
        if not any(job.HasField("remove_from_cache") for job in act.jobs):
            self._served.note(*self._run, ended=not kinds.isdisjoint(_ENDS))
        return completion
