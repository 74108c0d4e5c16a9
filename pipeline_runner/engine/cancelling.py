"""Puts the report into the end of a cancelled run, for clients in any SDK, without a worker.

Temporal's event *workflow execution canceled* has details, which its Python SDK leaves empty. The
workflow runner of a worker inserts them into the outgoing command.
"""

from dataclasses import replace
from typing import Any, cast

from temporalio.api.common.v1 import Payload
from temporalio.bridge.proto.workflow_activation import WorkflowActivation
from temporalio.bridge.proto.workflow_completion import WorkflowActivationCompletion
from temporalio.worker import UnsandboxedWorkflowRunner, WorkflowInstance, WorkflowInstanceDetails

from pipeline_runner.engine.workflow.ending import CANCELLED_WITH


class DetailedRunner(UnsandboxedWorkflowRunner):
    """Runs workflows as the SDK does, and inserts the details into the end of a cancelled one."""

    def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
        """Return the SDK's instance, wrapped so that it can set its details."""
        details: list[Payload] = []
        functions = {**det.extern_functions, CANCELLED_WITH: details.append}
        made = super().create_instance(replace(det, extern_functions=functions))
        return cast("WorkflowInstance", _Detailed(made, details))


class _Detailed:
    """An instance of the SDK. Only its commands are changed."""

    def __init__(self, instance: WorkflowInstance, details: list[Payload]) -> None:
        self._instance = instance
        self._details = details

    def __getattr__(self, name: str) -> Any:
        return getattr(self._instance, name)

    def activate(self, act: WorkflowActivation) -> WorkflowActivationCompletion:
        completion = self._instance.activate(act)
        for command in completion.successful.commands:
            if command.HasField("cancel_workflow_execution"):
                command.cancel_workflow_execution.details.payloads.extend(self._details)
        return completion
