"""Connects the interpreter with the activities of a worker of this package.

On the way out, in the workflow, a step's idempotency key, the positions of its secrets and the run's
directory become headers. They are not part of the input, so nothing that a user writes can imitate
them. On the way in, in the worker, the secrets' values are inserted just before the activity runs, and
masked in everything that it returns, sends in heartbeats or raises. An activity that fails on a later
attempt asks the server how the previous attempt ended, and reports that with its failure.
"""

import asyncio
import builtins
import inspect
import json
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor
from typing import Any

import msgspec
from temporalio import activity
from temporalio.api.failure.v1 import Failure
from temporalio.client import Client
from temporalio.common import RawValue
from temporalio.converter import ActivitySerializationContext, DataConverter
from temporalio.exceptions import ApplicationError, CancelledError, ServerError, TimeoutError, TimeoutType
from temporalio.service import RPCError
from temporalio.worker import (
    ActivityInboundInterceptor,
    ActivityOutboundInterceptor,
    ExecuteActivityInput,
    Interceptor,
    WorkflowInterceptorClassInput,
)

from pipeline_runner.activities.toolkit import heartbeat
from pipeline_runner.activities.toolkit.context import (
    set_idempotency_key,
    set_undone_outcome,
    set_working_directory,
)
from pipeline_runner.activities.toolkit.secret_values import (
    SecretNotFoundError,
    Source,
    in_use,
    mask,
    mask_logs,
    masked,
    secret_value,
    source,
)
from pipeline_runner.activities.toolkit.threads import in_thread
from pipeline_runner.core import errors
from pipeline_runner.core.errors import MARK, UNCERTAIN
from pipeline_runner.core.secrets import SecretSpans, filled
from pipeline_runner.engine.converting import plain
from pipeline_runner.engine.failures import rebuilt
from pipeline_runner.engine.in_time import in_time, is_uncertain
from pipeline_runner.engine.parameters import Raw, decoded
from pipeline_runner.engine.placing import placed
from pipeline_runner.engine.workflow.calls import INSTALLED
from pipeline_runner.engine.workflow.interceptors import (
    DIRECTORY_HEADER,
    KEY_HEADER,
    OUTCOME_HEADER,
    SECRETS_HEADER,
    UNDOING_HEADER,
    Steps,
)
from pipeline_runner.engine.workflow.payloads import LIMIT, too_large

_log = logging.getLogger(__name__)


class WorkflowSide(Interceptor):
    """The workflow's side alone, which a replay of histories needs."""

    def workflow_interceptor_class(self, input: WorkflowInterceptorClassInput) -> Any:  # noqa: A002
        """Put the workflow side into the chain."""
        input.unsafe_extern_functions[INSTALLED] = _is_installed
        return Steps


class PipelineInterceptor(WorkflowSide):
    """Install this on every worker that runs pipelines, or activities for them."""

    def __init__(self, client: Client, vault: Source | None = None) -> None:
        """Create the interceptor.

        Args:
            client: The worker's client, to ask how an attempt ended.
            vault: Where secrets are looked up before the environment.
        """
        self._client = client
        self._vault = vault
        mask_logs()

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002
        """Put the activity side into the chain."""
        return _ActivityInbound(next, self._client, self._vault)


def _is_installed() -> bool:
    return True


class _ActivityInbound(ActivityInboundInterceptor):
    def __init__(self, next: ActivityInboundInterceptor, client: Client, vault: Source | None) -> None:  # noqa: A002
        super().__init__(next)
        self._client = client
        self._vault = vault

    @property
    def _converter(self) -> DataConverter:
        """The client's converter, for payloads of the activity that is running."""
        info = activity.info()
        return self._client.data_converter.with_context(
            ActivitySerializationContext(
                namespace=info.workflow_namespace or self._client.namespace,
                workflow_id=info.workflow_id,
                workflow_type=info.workflow_type,
                activity_type=info.activity_type,
                activity_id=info.activity_id,
                activity_task_queue=info.task_queue,
                is_local=info.is_local,
            )
        )

    def init(self, outbound: ActivityOutboundInterceptor) -> None:
        super().init(_ActivityOutbound(outbound))

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002
        mark: dict[str, Any] | None = None
        until = heartbeat.deadline()
        source.set(self._vault)
        try:
            headers = await self._headers(input)
            set_idempotency_key(headers.get(KEY_HEADER))
            set_working_directory(headers.get(DIRECTORY_HEADER))
            set_undone_outcome(headers.get(OUTCOME_HEADER), by_pipeline=headers.get(UNDOING_HEADER))
            if SECRETS_HEADER in headers:
                values = await _secrets(headers[SECRETS_HEADER], until)
                input.args = _with_secrets(input, headers[SECRETS_HEADER], values)
            if isinstance(input.fn, Raw):
                input.args, input.fn = decoded(input.fn, input.args), input.fn.function
            run = super().execute_activity(input)
            return _measured(await in_time(run, until, threaded=not _is_async(input.fn)))
        except (asyncio.CancelledError, CancelledError) as error:
            details = activity.cancellation_details()
            if details is not None and details.worker_shutdown and not details.cancel_requested:
                mark = UNCERTAIN
                failed: BaseException = ApplicationError(
                    "the worker was stopped", type=errors.WORKER_SHUTDOWN
                )
            elif details is not None:
                raise
            else:
                # Nobody cancelled it: this is an error of the activity itself.
                failed = ApplicationError(str(error) or "cancelled", type=type(error).__name__)
        except BrokenExecutor:
            # The SDK ends the worker for this error.
            raise
        except Exception as error:  # noqa: BLE001 - every error is reported without secrets
            failed = error
        # Outside of the handler, so that the original error does not become a context. Activities of other
        # workflows on this worker have no key, and are not marked.
        ask = mark is None and KEY_HEADER in input.headers and not is_uncertain(failed)
        if ask and await self._was_uncertain():
            mark = UNCERTAIN
        raise rebuilt(failed, in_use.get(), mark, self._converter)

    async def _headers(self, input: ExecuteActivityInput) -> dict[str, Any]:  # noqa: A002
        """Return this package's headers, which a worker with a codec may have encoded."""
        found: dict[str, Any] = {}
        for name in (KEY_HEADER, DIRECTORY_HEADER, OUTCOME_HEADER, UNDOING_HEADER, SECRETS_HEADER):
            if name in input.headers:
                payload = await plain(self._converter, input.headers[name])
                if payload is None:
                    raise ApplicationError(
                        f'the header "{name}" cannot be read: configure this worker with the codec of the'
                        " worker that runs the pipeline",
                        type=errors.UNREADABLE,
                    )
                found[name] = msgspec.json.decode(payload.data)
        return found

    async def _was_uncertain(self) -> bool:
        """Ask the server how the previous attempt ended."""
        info = activity.info()
        if info.attempt == 1 or info.is_local or info.workflow_id is None:
            return False
        handle = self._client.get_workflow_handle(info.workflow_id, run_id=info.workflow_run_id)
        try:
            async with asyncio.timeout(10):
                described = await handle.describe()
        except (RPCError, builtins.TimeoutError) as problem:
            # If that is not known, the outcome is uncertain.
            _log.warning(
                "cannot ask how attempt %d of %s ended: %s", info.attempt - 1, info.activity_id, problem
            )
            return True
        for pending in described.raw_description.pending_activities:
            if pending.activity_id == info.activity_id:
                return await self._is_uncertain(pending.last_failure)
        return True

    async def _is_uncertain(self, failure: Failure) -> bool:
        try:
            error = await self._converter.decode_failure(failure)
        except Exception as problem:  # noqa: BLE001 - a codec may raise anything
            # An error that cannot be read may be uncertain.
            _log.warning("cannot read how the previous attempt ended: %s", problem)
            return True
        if isinstance(error, TimeoutError):
            return error.type is not TimeoutType.SCHEDULE_TO_START
        if isinstance(error, ApplicationError):
            return any(isinstance(detail, dict) and MARK in detail for detail in error.details)
        # For a failure over 4 KiB, the server substitutes a ServerError without its details.
        return isinstance(error, ServerError | CancelledError)


class _ActivityOutbound(ActivityOutboundInterceptor):
    def heartbeat(self, *details: Any) -> None:
        secrets = in_use.get()
        if secrets:
            details = tuple(masked(_json(detail), secrets) for detail in details)
        super().heartbeat(*details)


def _measured(result: Any) -> Any:
    """Encode a result once, without secrets, and refuse one over Temporal's limit."""
    name = activity.info().activity_type
    try:
        if hasattr(result, "model_dump"):  # pydantic, whether the converter knows it or not
            result = result.model_dump(mode="json")
        if in_use.get():
            result = masked(_json(result), in_use.get())
        payload = activity.payload_converter().to_payload(result)
    except Exception as error:
        # The work was done, and nobody will learn the result.
        raise ApplicationError(
            f'the result of "{name}" is not JSON data: {error}',
            UNCERTAIN,
            type=type(error).__name__,
            non_retryable=True,
        ) from error
    size = payload.ByteSize()
    if size > LIMIT:
        raise ApplicationError(
            too_large(f'the result of "{name}"', size),
            UNCERTAIN,
            type=errors.PAYLOAD_TOO_LARGE,
            non_retryable=True,
        )
    return RawValue(payload)


async def _secrets(places: SecretSpans, until: heartbeat.Deadline | None) -> dict[str, str]:
    """Look up the secrets of an input, and mask them from now on."""
    names = sorted({name for _, spans in places for _, _, name in spans})

    def looked_up() -> dict[str, str]:
        return {name: secret_value(name) for name in names}

    try:
        values = looked_up() if source.get() is None else await _in_time(looked_up, until)
    except SecretNotFoundError as error:
        raise ApplicationError(str(error), type=errors.SECRET_NOT_FOUND, non_retryable=True) from None
    mask(values.values())
    return values


async def _in_time(look_up: Callable[[], dict[str, str]], until: heartbeat.Deadline | None) -> dict[str, str]:
    """Ask a vault, which may block. The activity does not start after its time is up."""
    try:
        async with asyncio.timeout(
            None if until is None else max(0.0, until.ask - time.monotonic())
        ) as limit:
            return await in_thread(look_up)
    except builtins.TimeoutError:
        if until is None or not limit.expired():
            raise
        raise until.error() from None


def _with_secrets(
    input: ExecuteActivityInput,  # noqa: A002
    places: SecretSpans,
    values: dict[str, str],
) -> Sequence[Any]:
    """Return the arguments with the secrets' values."""
    # A dynamic activity has one argument: the list of all of them, raw.
    dynamic = len(input.args) == 1 and isinstance(input.args[0], list) and _are_raw(input.args[0])
    arguments = input.args[0] if dynamic else list(input.args)
    for path, spans in places:
        try:
            arguments = placed(arguments, path, lambda text, s=spans: filled(text, s, values.__getitem__))  # type: ignore[misc]
        except (TypeError, ValueError) as error:
            where = "".join(f"[{key!r}]" for key in path[1:])
            raise ApplicationError(
                f"a secret cannot be inserted into the input{where}: {error}",
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
    """Return a value as the JSON data that it is sent as. Null and bytes stay as they are."""
    if value is None or isinstance(value, bytes):
        return value
    return json.loads(activity.payload_converter().to_payload(value).data)
