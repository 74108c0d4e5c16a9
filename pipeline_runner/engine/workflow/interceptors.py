"""The interceptors of the workflow's side: they set headers, and refuse runs.

Replayed: part of the workflow. A replay without them gives the same commands, because headers are not
compared. Of ``temporalio.worker`` only the base classes of interceptors are used.
"""

from collections.abc import Sequence
from typing import Any

from temporalio import workflow
from temporalio.api.common.v1 import Payload
from temporalio.common import RawValue
from temporalio.worker import (
    ContinueAsNewInput,
    ExecuteWorkflowInput,
    StartActivityInput,
    StartChildWorkflowInput,
    WorkflowInboundInterceptor,
    WorkflowOutboundInterceptor,
)

from pipeline_runner.engine.workflow import signatures
from pipeline_runner.engine.workflow.calls import StepInput
from pipeline_runner.engine.workflow.ending import refused
from pipeline_runner.engine.workflow.payloads import EncodedArgumentsError, encoded, is_plain

KEY_HEADER = "pipeline-runner-key"
SECRETS_HEADER = "pipeline-runner-secrets"
DIRECTORY_HEADER = "pipeline-runner-directory"
OUTCOME_HEADER = "pipeline-runner-outcome"
"""On a compensation: the outcome of the step that it undoes."""
UNDOING_HEADER = "pipeline-runner-undoing"
"""On a step of a pipeline that is a compensation: the outcome of the step that the pipeline undoes."""

_BY_COMMAND = (
    "this worker refuses the run, because no command of the worker's user started it. On an embedded server,"
    " start a pipeline with run-pipeline without --address, or by name if run-pipeline server serves it"
)
_BY_NAME = "this worker runs only the pipelines that it serves: start one by name, with its inputs"


class Steps(WorkflowInboundInterceptor):
    """Puts everything that a step's activity needs in addition to its input into headers."""

    def init(self, outbound: WorkflowOutboundInterceptor) -> None:
        super().init(_StepHeaders(outbound))


class _StepHeaders(WorkflowOutboundInterceptor):
    def start_activity(self, input: StartActivityInput) -> workflow.ActivityHandle[Any]:  # noqa: A002
        if len(input.args) == 1 and isinstance(input.args[0], StepInput):
            step = input.args[0]
            headers: dict[str, Payload] = {**input.headers, KEY_HEADER: encoded(step.key)}
            if step.places:
                headers[SECRETS_HEADER] = encoded(step.places)
            if step.directory is not None:
                headers[DIRECTORY_HEADER] = encoded(step.directory)
            if step.undone is not None:
                headers[OUTCOME_HEADER] = encoded(step.undone)
            if step.undoing is not None:
                headers[UNDOING_HEADER] = encoded(step.undoing)
            input.args = step.payloads
            input.headers = headers
        return super().start_activity(input)


class SignedRuns(WorkflowInboundInterceptor):
    """Refuses a run that is not signed, and signs what the others start."""

    signer: signatures.Signer
    served_only: bool

    def init(self, outbound: WorkflowOutboundInterceptor) -> None:
        super().init(_Scheduling(outbound, self.signer))

    async def execute_workflow(self, input: ExecuteWorkflowInput) -> Any:  # noqa: A002
        info = workflow.info()
        arguments = payloads_of(input.args[0])  # the workflow is dynamic: one list, raw
        expected = self.signer.start(info.workflow_type, info.workflow_id, info.task_queue, arguments)
        by_client = info.parent is None and info.continued_run_id is None
        if len(arguments) > 1 and self.served_only and by_client:
            raise refused(signatures.not_signed(_BY_NAME)) from None
        if len(arguments) > 1 and not all(map(is_plain, arguments)):
            # Without the codec, the signed content is not known. The run may be a continued one.
            raise EncodedArgumentsError
        if len(arguments) > 1 and not signatures.same(signatures.signature_in(input.headers), expected):
            raise refused(signatures.not_signed(_BY_NAME if self.served_only else _BY_COMMAND)) from None
        signatures.use(self.signer)
        return await super().execute_workflow(input)


class _Scheduling(WorkflowOutboundInterceptor):
    def __init__(self, next: WorkflowOutboundInterceptor, signer: signatures.Signer) -> None:  # noqa: A002
        super().__init__(next)
        self._signer = signer

    def start_activity(self, input: StartActivityInput) -> workflow.ActivityHandle[Any]:  # noqa: A002
        info = workflow.info()
        # Without an id the SDK numbers the activity, and does not reveal the number before it is scheduled.
        input.activity_id = input.activity_id or input.activity
        signature = self._signer.activity(
            input.activity,
            input.activity_id,
            info.workflow_id,
            input.task_queue or info.task_queue,
            _encoded(input.args),
            input.headers,
        )
        input.headers = {**input.headers, signatures.HEADER: signatures.payload_of(signature)}
        return super().start_activity(input)

    async def start_child_workflow(
        self,
        input: StartChildWorkflowInput,  # noqa: A002
    ) -> workflow.ChildWorkflowHandle[Any, Any]:
        queue = input.task_queue or workflow.info().task_queue
        signature = self._signer.start(input.workflow, input.id, queue, _encoded(input.args))
        input.headers = {**input.headers, signatures.HEADER: signatures.payload_of(signature)}
        return await super().start_child_workflow(input)

    def continue_as_new(self, input: ContinueAsNewInput) -> Any:  # noqa: A002
        info = workflow.info()
        signature = self._signer.start(
            input.workflow or info.workflow_type,
            info.workflow_id,
            input.task_queue or info.task_queue,
            _encoded(input.args),
        )
        input.headers = {**input.headers, signatures.HEADER: signatures.payload_of(signature)}
        super().continue_as_new(input)


def _encoded(values: Sequence[Any]) -> list[Payload]:
    return list(workflow.payload_converter().to_payloads(values))


def payloads_of(values: Sequence[RawValue]) -> list[Payload]:
    """Return the payloads of raw values."""
    return [value.payload for value in values]
