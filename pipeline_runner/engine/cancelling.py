"""The report in the end of a cancelled run: for clients of any SDK, without a worker.

Temporal's event *workflow execution canceled* has details, and its Python SDK leaves them empty. What
runs the workflows of a worker puts them into the command on its way out.
"""

from dataclasses import replace
from typing import Any, cast

from temporalio.api.common.v1 import Payload
from temporalio.bridge.proto.workflow_activation import WorkflowActivation
from temporalio.bridge.proto.workflow_completion import WorkflowActivationCompletion
from temporalio.worker import UnsandboxedWorkflowRunner, WorkflowInstance, WorkflowInstanceDetails

from pipeline_runner.engine.workflow.ending import CANCELLED_WITH


class DetailedRunner(UnsandboxedWorkflowRunner):
    """Runs workflows as the SDK does, and fills in the details of a cancelled one's end."""

    def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
        """Return the SDK's instance, and a way for it to say its details."""
        details: list[Payload] = []
        functions = {**det.extern_functions, CANCELLED_WITH: details.append}
        made = super().create_instance(replace(det, extern_functions=functions))
        return cast("WorkflowInstance", _Detailed(made, details))


class _Detailed:
    """An instance of the SDK; all but its commands are its own."""

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
