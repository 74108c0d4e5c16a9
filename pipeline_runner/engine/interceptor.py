"""What goes between the interpreter and the activities of a worker of this package.

On the way out, in the workflow, a step's idempotency key, the places of its secrets and the
run's directory become headers: not part of the input, so nothing that a user writes can look like them.
On the way in, in the worker, the secrets' values are put in just before the activity runs,
and masked in whatever it returns, heartbeats or raises. An activity that fails on a later
attempt asks the server how the attempt before it ended, and says so with its failure.
"""

import asyncio
import inspect
import json
import logging
from collections.abc import Sequence
from typing import Any

from temporalio import activity
from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import TimeoutType
from temporalio.api.failure.v1 import Failure
from temporalio.client import Client
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError, CancelledError
from temporalio.service import RPCError
from temporalio.worker import (
    ActivityInboundInterceptor,
    ActivityOutboundInterceptor,
    ExecuteActivityInput,
    Interceptor,
    StartActivityInput,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
    WorkflowOutboundInterceptor,
)
from temporalio.workflow import ActivityHandle

from pipeline_runner.activities.context import (
    set_idempotency_key,
    set_undone_outcome,
    set_working_directory,
)
from pipeline_runner.activities.secret_values import SecretNotFoundError, forms, in_use, masked, secret_value
from pipeline_runner.core import errors
from pipeline_runner.core.errors import MARK, UNCERTAIN
from pipeline_runner.core.secrets import Places, filled
from pipeline_runner.engine.calls import StepInput
from pipeline_runner.engine.in_time import in_time, is_uncertain
from pipeline_runner.engine.payloads import LIMIT, encoded, too_large
from pipeline_runner.engine.placing import placed

KEY_HEADER = "pipeline-runner-key"
SECRETS_HEADER = "pipeline-runner-secrets"
DIRECTORY_HEADER = "pipeline-runner-directory"
OUTCOME_HEADER = "pipeline-runner-outcome"
"""On a compensation: how the step ended that it undoes."""

_log = logging.getLogger(__name__)


class WorkflowSide(Interceptor):
    """The workflow's side alone: what a replay of histories needs."""

    def workflow_interceptor_class(self, input: WorkflowInterceptorClassInput) -> Any:  # noqa: A002
        """Put the workflow side into the chain."""
        return _WorkflowInbound


class PipelineInterceptor(WorkflowSide):
    """Install on every worker that runs pipelines, or activities for them."""

    def __init__(self, client: Client) -> None:
        """Use the worker's client to ask how an attempt ended."""
        self._client = client

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002
        """Put the activity side into the chain."""
        return _ActivityInbound(next, self._client)


class _WorkflowInbound(WorkflowInboundInterceptor):
    def init(self, outbound: WorkflowOutboundInterceptor) -> None:
        super().init(_WorkflowOutbound(outbound))


class _WorkflowOutbound(WorkflowOutboundInterceptor):
    def start_activity(self, input: StartActivityInput) -> ActivityHandle[Any]:  # noqa: A002
        if len(input.args) == 1 and isinstance(input.args[0], StepInput):
            step = input.args[0]
            headers: dict[str, Payload] = {**input.headers, KEY_HEADER: encoded(step.key)}
            if step.places:
                headers[SECRETS_HEADER] = encoded(step.places)
            if step.directory is not None:
                headers[DIRECTORY_HEADER] = encoded(step.directory)
            if step.undone is not None:
                headers[OUTCOME_HEADER] = encoded(step.undone)
            input.args = step.payloads
            input.headers = headers
        return super().start_activity(input)


class _ActivityInbound(ActivityInboundInterceptor):
    def __init__(self, next: ActivityInboundInterceptor, client: Client) -> None:  # noqa: A002
        super().__init__(next)
        self._client = client

    def init(self, outbound: ActivityOutboundInterceptor) -> None:
        super().init(_ActivityOutbound(outbound))

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002
        key = input.headers.get(KEY_HEADER)
        set_idempotency_key(None if key is None else json.loads(key.data))
        directory = input.headers.get(DIRECTORY_HEADER)
        set_working_directory(None if directory is None else json.loads(directory.data))
        outcome = input.headers.get(OUTCOME_HEADER)
        set_undone_outcome(None if outcome is None else json.loads(outcome.data))
        try:
            places = input.headers.get(SECRETS_HEADER)
            if places is not None:
                input.args = _with_secrets(input, json.loads(places.data))
            run = super().execute_activity(input)
            return _measured(await in_time(run, threaded=not _is_async(input.fn)))
        except (asyncio.CancelledError, CancelledError) as error:
            details = activity.cancellation_details()
            if details is not None and details.worker_shutdown and not details.cancel_requested:
                raise ApplicationError("the worker was stopped", UNCERTAIN, type="WorkerShutdown") from None
            if details is not None:
                raise
            # Nobody cancelled it: this is an error of the activity's own.
            failed: BaseException = ApplicationError(str(error) or "cancelled", type=type(error).__name__)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told without secrets
            failed = error
        # Outside of the handler, so that the error as it was is not linked as a context.
        # Activities of other workflows on this worker have no key, and are not marked.
        raise await self._told(failed, ask=key is not None)

    async def _told(self, error: BaseException, *, ask: bool) -> BaseException:
        """Return what to raise for an activity's error: without secrets, with what is known."""
        secrets = in_use.get()
        later = ask and activity.info().attempt > 1
        uncertain = later and not is_uncertain(error) and await self._was_uncertain()
        if not secrets and not uncertain:
            return error
        return _rebuilt(error, secrets, UNCERTAIN if uncertain else None)

    async def _was_uncertain(self) -> bool:
        """Ask the server how the attempt before this one ended."""
        info = activity.info()
        if info.is_local or info.workflow_id is None:
            return False
        handle = self._client.get_workflow_handle(info.workflow_id, run_id=info.workflow_run_id)
        try:
            async with asyncio.timeout(10):
                described = await handle.describe()
        except (RPCError, TimeoutError) as problem:
            # Not to know is to be uncertain.
            _log.warning(
                "cannot ask how attempt %d of %s ended: %s", info.attempt - 1, info.activity_id, problem
            )
            return True
        for pending in described.raw_description.pending_activities:
            if pending.activity_id == info.activity_id:
                return _is_uncertain(pending.last_failure)
        return True


class _ActivityOutbound(ActivityOutboundInterceptor):
    def heartbeat(self, *details: Any) -> None:
        secrets = in_use.get()
        if secrets:
            details = tuple(masked(_json(detail), secrets) for detail in details)
        super().heartbeat(*details)


def _is_uncertain(failure: Failure) -> bool:
    if failure.HasField("timeout_failure_info"):
        kind = failure.timeout_failure_info.timeout_type
        return kind != TimeoutType.TIMEOUT_TYPE_SCHEDULE_TO_START
    if failure.HasField("server_failure_info"):
        # The server's stand-in for a failure over 4 KiB, without its details: not to know is to be uncertain.
        return True
    if failure.HasField("application_failure_info"):
        details = failure.application_failure_info.details.payloads
        return any(MARK in _mapping(payload) for payload in details)
    return failure.HasField("canceled_failure_info")


def _mapping(payload: Payload) -> Any:
    try:
        value = json.loads(payload.data)
    except ValueError:
        # Somebody else's detail, in an encoding of their own.
        return {}
    return value if isinstance(value, dict) else {}


def _with_secrets(input: ExecuteActivityInput, places: Places) -> Sequence[Any]:  # noqa: A002
    """Return the arguments with the secrets' values in them."""
    names = {name for _, spans in places for _, _, name in spans}
    try:
        values = {name: secret_value(name) for name in sorted(names)}
    except SecretNotFoundError as error:
        raise ApplicationError(str(error), type=errors.SECRET_NOT_FOUND, non_retryable=True) from None
    # The longest first, so that one that contains another is masked whole.
    in_use.set(tuple(sorted({form for v in values.values() for form in forms(v)}, key=len, reverse=True)))
    # A dynamic activity has one argument: the list of all of them, raw.
    dynamic = len(input.args) == 1 and isinstance(input.args[0], list) and _are_raw(input.args[0])
    arguments = input.args[0] if dynamic else list(input.args)
    for path, spans in places:
        try:
            arguments = placed(arguments, path, lambda text, s=spans: filled(text, s, values.__getitem__))  # type: ignore[misc]
        except (TypeError, ValueError) as error:
            where = "".join(f"[{key!r}]" for key in path[1:])
            raise ApplicationError(
                f"a secret cannot be put into the input{where}: {error}",
                type=errors.INVALID_INPUTS,
                non_retryable=True,
            ) from None
    return [arguments] if dynamic else arguments


def _are_raw(values: list[Any]) -> bool:
    return bool(values) and all(isinstance(value, RawValue) for value in values)


def _is_async(function: Any) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(type(function), "__call__", None)  # noqa: B004
    )


def _json(value: Any) -> Any:
    """Return a value as the JSON data that it travels as; null and bytes travel as themselves."""
    if value is None or isinstance(value, bytes):
        return value
    return json.loads(activity.payload_converter().to_payload(value).data)


def _measured(result: Any) -> Any:
    """Encode a result once, without secrets, and refuse one over Temporal's limit."""
    secrets = in_use.get()
    try:
        if secrets:
            result = masked(_json(result), secrets)
        payload = activity.payload_converter().to_payload(result)
    except Exception as error:
        # The work was done, and nobody will know what came of it.
        name = activity.info().activity_type
        raise ApplicationError(
            f'the result of "{name}" is no JSON data: {error}',
            UNCERTAIN,
            type=type(error).__name__,
            non_retryable=True,
        ) from error
    size = payload.ByteSize()
    if size > LIMIT:
        raise ApplicationError(
            too_large(f'the result of "{activity.info().activity_type}"', size),
            UNCERTAIN,
            type=errors.PAYLOAD_TOO_LARGE,
            non_retryable=True,
        )
    return RawValue(payload)


def _rebuilt(error: BaseException, secrets: tuple[str, ...], mark: dict[str, Any] | None) -> ApplicationError:
    """Return the error, and its causes, as new errors with masked texts."""
    if isinstance(error, ApplicationError):
        message, kind, details = error.message, error.type, list(error.details)
        final, delay, category = error.non_retryable, error.next_retry_delay, error.category
    else:
        message, kind, details, final, delay = str(error), type(error).__name__, [], False, None
        category = None
    if secrets:
        details = [masked(_json(detail), secrets) for detail in details]
    if mark is not None:
        details.append(mark)
    rebuilt = ApplicationError(
        masked(message, secrets),
        *details,
        type=kind,
        non_retryable=final,
        next_retry_delay=delay,
        **({} if category is None else {"category": category}),
    )
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    rebuilt.__cause__ = None if cause is None else _rebuilt(cause, secrets, None)
    rebuilt.__suppress_context__ = True
    return rebuilt
