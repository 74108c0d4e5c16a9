"""Clients: connect to the server, and start and find runs."""

import asyncio
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client, WorkflowExecutionDescription, WorkflowExecutionStatus, WorkflowHandle
from temporalio.common import RawValue, WorkflowIDConflictPolicy
from temporalio.envconfig import ClientConfig
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import KeepAliveConfig, RPCError, RPCStatusCode

from pipeline_runner.core.inputs import InvalidInputs, Problem, validate_inputs
from pipeline_runner.core.model import bundle_hash, decode
from pipeline_runner.core.state import Options
from pipeline_runner.engine.converting import plain
from pipeline_runner.engine.workflow.calls import summary_of
from pipeline_runner.engine.workflow.payloads import LIMIT, encoded, too_large
from pipeline_runner.engine.workflow_ids import workflow_id_for, workflow_id_of

MEMO = "pipeline_runner"
"""Memo of a run that a command started: how another command can resume it."""

ANSWER = 10.0
"""Seconds within which a server must answer a command that has just started."""
_KEEP_ALIVE = KeepAliveConfig(interval_millis=15_000, timeout_millis=5_000)
_ADDRESS = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\s/:@\[\]]+):[0-9]{1,5}")
_CERTIFICATE = re.compile(r"(?:InvalidCertificate|CertificateError)\((\w+)")
_RUST_MESSAGE = re.compile(r'(?:message|error): "([^"]*)"')
_RUST_STRING = re.compile(r'"([^"]+)"')
_UNREACHABLE = (
    RPCStatusCode.UNAVAILABLE,
    RPCStatusCode.DEADLINE_EXCEEDED,
    RPCStatusCode.RESOURCE_EXHAUSTED,
    RPCStatusCode.ABORTED,
    # What proxies and broken connections are reported as.
    RPCStatusCode.INTERNAL,
    RPCStatusCode.UNKNOWN,
    RPCStatusCode.CANCELLED,
)


class UnreachableError(Exception):
    """The Temporal server cannot be reached."""


class ConfigurationError(Exception):
    """Temporal's configuration cannot be used as it is."""


class ConflictError(Exception):
    """Another run with the same workflow id is open."""


class TooLargeError(Exception):
    """The bundle and the inputs exceed Temporal's limit."""


def configured(
    address: str | None = None, namespace: str | None = None, profile: str | None = None
) -> dict[str, Any] | None:
    """Return arguments for ``Client.connect``, from options and Temporal's own configuration.

    Returns:
        None if nothing names a server, which means the embedded one.

    Raises:
        ConfigurationError: The configuration file is missing or invalid, or lacks the profile.
    """
    file = os.environ.get("TEMPORAL_CONFIG_FILE")
    if file and not Path(file).is_file():
        raise ConfigurationError(f"TEMPORAL_CONFIG_FILE names {file}, which does not exist")
    try:
        settings: dict[str, Any] = dict(
            ClientConfig.load_client_connect_config(profile=profile, config_file_strict=True)
        )
    except (RuntimeError, ValueError) as error:
        raise ConfigurationError(f"Temporal's configuration cannot be used: {error}") from None
    if address is not None:
        settings["target_host"] = address
    if namespace is not None:
        settings["namespace"] = namespace
    if not settings:
        return None
    target = settings.setdefault("target_host", "localhost:7233")
    if not _ADDRESS.fullmatch(target) or int(target.rpartition(":")[2]) > 65535:
        raise ConfigurationError(
            f'the address of a server must be HOST:PORT, such as temporal.example.org:7233, not "{target}"'
        )
    return settings


async def connect(settings: Mapping[str, Any]) -> Client:
    """Connect to a server.

    Raises:
        UnreachableError: The server does not answer, or does not know the namespace.
    """
    where = settings["target_host"]
    try:
        async with asyncio.timeout(ANSWER):
            client = await Client.connect(**{"keep_alive_config": _KEEP_ALIVE, **settings})
            await client.count_workflows("WorkflowType = 'pipeline-runner'")
    except TimeoutError:
        raise UnreachableError(f"the Temporal server at {where} has not answered for {ANSWER:g} s") from None
    except RPCError as error:
        raise UnreachableError(
            f"the Temporal server at {where} rejected the request: {error.message}"
        ) from None
    except (RuntimeError, ValueError) as error:
        raise UnreachableError(
            f"the Temporal server at {where} cannot be reached: {_reason(error)}"
        ) from None
    return client


def _reason(error: Exception) -> str:
    """Return the message of the SDK's core for people: it is written for debugging."""
    text = str(error)
    if "KeepAliveTimedOut" in text:
        return "it does not answer"
    if found := _CERTIFICATE.search(text):
        return f"its certificate is not accepted: {found[1]}"
    if found_all := _RUST_MESSAGE.findall(text):
        return str(found_all[-1])
    quoted = _RUST_STRING.findall(text)
    return str(quoted[-1]) if quoted else text.strip().splitlines()[0]


def unreachable(error: RPCError) -> bool:
    """Tell whether an error means that the server is away or overloaded, not that it refuses."""
    return error.status in _UNREACHABLE


@dataclass(frozen=True, kw_only=True)
class Start:
    """A run to start."""

    name: str
    bundle: bytes | None = None
    """None: a worker serves the pipeline by its name, and checks the inputs."""
    inputs: dict[str, Any]
    """Validated and completed with defaults when the run is started."""
    task_queue: str
    workflow_id: str | None = None
    """None: the pipeline's ``workflow_id``, or else its name and a random suffix."""
    description: str | None = None
    memo: Mapping[str, Any] | None = None
    directory: str | None = None
    """The directory that its relative paths refer to; None: that of whichever worker runs a step. Without a
    bundle, the worker that serves the pipeline decides."""


async def start(client: Client, what: Start) -> tuple[WorkflowHandle[Any, Any], bool]:
    """Start a run, or find the open run with the same id, bundle and inputs.

    Returns:
        The run, pinned to its run id, and whether this call started it.

    Raises:
        msgspec.DecodeError: The bundle is of another version.
        InvalidInputs: Inputs do not match the pipeline's declarations, or cannot be sent; ``problems`` lists
            all of them.
        WorkflowIdError: The workflow id is empty, too long or not UTF-8, or its template cannot be rendered.
        ConflictError: The open run with this id has a different bundle or different inputs.
        TooLargeError: The bundle and the inputs exceed Temporal's limit.
        RPCError: The server rejects the request.
    """
    return await _start(client, _complete(what))


def _complete(what: Start) -> Start:
    """Return the run to start with all its inputs and a workflow id."""
    if what.bundle is None:
        return replace(what, workflow_id=workflow_id_for(what.name, what.workflow_id))
    bundle = decode(what.bundle)
    pipeline = bundle.pipelines[bundle.root]
    inputs = validate_inputs(pipeline.inputs, what.inputs)
    workflow_id = workflow_id_of(pipeline, inputs, what.workflow_id)
    return replace(what, inputs=inputs, workflow_id=workflow_id)


def _inputs(inputs: Mapping[str, Any]) -> Payload:
    reasons = {name: _why_not(value) for name, value in inputs.items()}
    problems = [Problem(path=name, message=reason) for name, reason in reasons.items() if reason]
    if problems:
        raise InvalidInputs(problems)
    return encoded(inputs)


def _why_not(value: Any) -> str | None:
    """Return why a value cannot be sent as JSON; None: it can."""
    try:
        json.dumps(value, allow_nan=False, default=str)
        encoded(value)
    except UnicodeEncodeError:
        return "contains half of a surrogate pair, which UTF-8 cannot encode"
    except TypeError as error:
        return f"cannot be represented as JSON: {error}"
    except ValueError:
        return "contains a number that is not finite"
    return None


async def _start(client: Client, what: Start) -> tuple[WorkflowHandle[Any, Any], bool]:
    assert what.workflow_id is not None
    arguments = [_inputs(what.inputs)]
    if what.bundle is not None:
        arguments.append(Payload(metadata={"encoding": b"json/plain"}, data=what.bundle))
    if what.bundle is not None and what.directory is not None:
        arguments.append(encoded(Options(directory=what.directory)))
    size = sum(payload.ByteSize() for payload in arguments)
    if size > LIMIT:
        raise TooLargeError(too_large(f'the bundle of "{what.name}" with its inputs', size))
    try:
        handle = await client.start_workflow(
            what.name,
            args=[RawValue(payload) for payload in arguments],
            id=what.workflow_id,
            task_queue=what.task_queue,
            id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
            memo=_memo(what),
            static_summary=summary_of((what.description or "").partition("\n")[0]) or None,
            result_type=RawValue,
        )
    except WorkflowAlreadyStartedError as error:
        return await _same(client, what, error.run_id), False
    first = handle.first_execution_run_id
    pinned = client.get_workflow_handle(
        what.workflow_id, run_id=first, first_execution_run_id=first, result_type=RawValue
    )
    return pinned, True


def _memo(what: Start) -> dict[str, Any] | None:
    return None if what.bundle is None else {MEMO: {"bundle": bundle_hash(what.bundle), **(what.memo or {})}}


async def _same(client: Client, what: Start, run_id: str | None) -> WorkflowHandle[Any, Any]:
    """Return the open run if it is the same as the one to start."""
    assert what.workflow_id is not None
    described = await client.get_workflow_handle(what.workflow_id, run_id=run_id).describe()
    first_id = described.raw_description.workflow_execution_info.first_run_id or run_id
    first = client.get_workflow_handle(what.workflow_id, run_id=first_id)
    handle = client.get_workflow_handle(
        what.workflow_id, run_id=run_id, first_execution_run_id=first_id, result_type=RawValue
    )
    async for event in first.fetch_history_events():
        given = event.workflow_execution_started_event_attributes.input.payloads
        # Decoded, because encryption produces other bytes each time.
        payloads = [payload for raw in given if (payload := await plain(client.data_converter, raw))]
        if len(payloads) < len(given):
            raise ConflictError(
                f'a run with the id "{what.workflow_id}" is open, and its payloads are encoded: without'
                " its codec, nobody can tell whether it is the same run"
            )
        bundle = payloads[1].data if len(payloads) > 1 else None
        if payloads and bundle == what.bundle and msgspec.json.decode(payloads[0].data) == what.inputs:
            _check_directory(what, payloads)
            return handle
        break
    raise ConflictError(
        f'another run with the id "{what.workflow_id}" is open: it has a different'
        " pipeline or different inputs. Choose another --workflow-id, or wait until it ends"
    )


def _check_directory(what: Start, arguments: Sequence[Payload]) -> None:
    options = msgspec.json.decode(arguments[2].data, type=Options) if len(arguments) > 2 else Options()
    if what.bundle is not None and options.directory != what.directory:
        where = options.directory or "no directory"
        raise ConflictError(
            f'the run "{what.workflow_id}" is open in {where}, and its relative paths refer to that'
            f" directory; from {what.directory} it would be a different run. Choose another --workflow-id, or"
            " wait until it ends"
        )


async def find(
    client: Client, workflow_id: str
) -> tuple[WorkflowHandle[Any, Any], WorkflowExecutionDescription]:
    """Return the newest run with a workflow id.

    Raises:
        LookupError: No such run exists.
    """
    handle = client.get_workflow_handle(workflow_id)
    try:
        description = await handle.describe()
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            raise LookupError(f'there is no run "{workflow_id}" here') from None
        raise
    pinned = client.get_workflow_handle(workflow_id, run_id=description.run_id, result_type=RawValue)
    return pinned, description


def is_open(description: WorkflowExecutionDescription) -> bool:
    """Tell whether a run has not ended."""
    return description.status is WorkflowExecutionStatus.RUNNING


async def has_workers(client: Client, task_queue: str) -> bool:
    """Tell whether a worker polls workflow tasks from a task queue."""
    described = await client.workflow_service.describe_task_queue(
        DescribeTaskQueueRequest(
            namespace=client.namespace,
            task_queue=TaskQueue(name=task_queue),
            task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
        )
    )
    return bool(described.pollers)
