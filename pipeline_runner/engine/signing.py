"""Signatures: an embedded worker runs only what commands of the same user have started.

Whoever reaches an embedded server can hand work to its workers: other users of the machine,
and web pages through the server's HTTP interface. So the commands of a user share a key
(``engine/key.py``), and every piece of work carries an HMAC-SHA256 in a header:

* the start of a run, of a child and of the next run of a chain (continue-as-new), over its
  type, its workflow id, its task queue and its arguments;
* an activity, over its workflow id, its id, its type, its task queue, its arguments and the
  headers that say what the worker does with them.

Workers check it before anything of the work is looked at. One start needs no signature: that
of a pipeline by name, with its inputs alone. It brings no code, and the worker serves it only
if it was given that pipeline. The bundle that the worker answers with is signed in turn, since
the answer comes back by way of the server. So is what ``watch`` reads in a run's memo.

Results, signals and queries carry no code and are not signed.

Signing reads nothing but the message and the key: a replay gives the same. A replay without
these interceptors gives the same commands, as headers are not compared.
"""

import asyncio
import dataclasses
import hmac
import json
from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

import msgspec
from temporalio import activity, client, workflow
from temporalio.api.common.v1 import Payload
from temporalio.common import RawValue
from temporalio.converter import DataConverter, PayloadConverter
from temporalio.exceptions import ApplicationError
from temporalio.worker import (
    ActivityInboundInterceptor,
    ContinueAsNewInput,
    ExecuteActivityInput,
    ExecuteWorkflowInput,
    Interceptor,
    StartActivityInput,
    StartChildWorkflowInput,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
    WorkflowOutboundInterceptor,
)

from pipeline_runner.core import errors
from pipeline_runner.engine.ending import refused

HEADER = "pipeline-runner-signature"
MEMO_FIELD = "signature"
_OWN_HEADERS = "pipeline-runner-"
_VERSION = b"pipeline-runner 1"


class Signer:
    """Makes and checks signatures with one key."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def start(self, kind: str, workflow_id: str, task_queue: str, arguments: Iterable[Payload]) -> str:
        """Sign the start of a run."""
        return self._signature("start", kind, workflow_id, task_queue, *map(_bytes, arguments))

    def activity(
        self,
        kind: str,
        activity_id: str,
        workflow_id: str,
        task_queue: str,
        arguments: Sequence[Payload],
        headers: Mapping[str, Payload],
    ) -> str:
        """Sign an activity, with those of its headers that the worker acts on."""
        own = sorted(name for name in headers if name.startswith(_OWN_HEADERS) and name != HEADER)
        parts = [part for name in own for part in (name, _bytes(headers[name]))]
        return self._signature(
            "activity",
            kind,
            activity_id,
            workflow_id,
            task_queue,
            str(len(arguments)),
            *map(_bytes, arguments),
            *parts,
        )

    def bundle(self, workflow_id: str, name: str, bundle: bytes, directory: str | None) -> str:
        """Sign what a worker answers with that serves a pipeline by its name."""
        return self._signature("bundle", workflow_id, name, bundle, msgspec.json.encode(directory))

    def memo(self, workflow_id: str, memo: Mapping[str, Any]) -> str:
        """Sign what the command that starts a run notes down for ``watch``."""
        plain = {name: value for name, value in memo.items() if name != MEMO_FIELD}
        return self._signature("memo", workflow_id, json.dumps(plain, sort_keys=True))

    def _signature(self, *parts: str | bytes) -> str:
        mac = hmac.new(self._key, _VERSION, "sha256")
        for part in parts:
            data = part.encode() if isinstance(part, str) else part
            # With their lengths, so that two messages cannot run into one.
            mac.update(len(data).to_bytes(8, "big"))
            mac.update(data)
        return mac.hexdigest()


def same(one: object, other: str) -> bool:
    """Compare a signature that came with one that was made here, in constant time."""
    return isinstance(one, str) and hmac.compare_digest(one.encode(), other.encode())


_BY_COMMAND = (
    "this run was not started by a command of the user whose worker took it. On an embedded server, start"
    " a pipeline with run-pipeline and without --address, or by its name where run-pipeline server serves it"
)
_BY_NAME = (
    "this worker runs the pipelines that it serves, and no others: start one by its name, with its inputs"
)

_current: ContextVar[Signer | None] = ContextVar("pipeline_runner_signer", default=None)


def current() -> Signer | None:
    """Return what the worker of this run or activity signs with; None: it takes whatever comes."""
    return _current.get()


def signed(settings: Mapping[str, Any], key: bytes, *, served_only: bool = False) -> dict[str, Any]:
    """Return settings for ``Client.connect`` with which the client, and its workers, sign and check.

    Args:
        settings: Settings for ``Client.connect``.
        key: What signatures are made with.
        served_only: The workers take no bundle from a client, not even a signed one: runs by name, their
            children, and what they go on as.
    """
    converter: DataConverter = settings.get("data_converter", DataConverter.default)
    base: Any = converter.payload_converter_class
    remembering: Any = type("Remembering", (_Remembering, base), {})
    return {
        **settings,
        "data_converter": dataclasses.replace(converter, payload_converter_class=remembering),
        "interceptors": [Signing(Signer(key), served_only=served_only), *settings.get("interceptors", ())],
    }


class Signing(client.Interceptor, Interceptor):
    """Signs what a client starts; its workers sign what they schedule, and check what they get.

    As an interceptor of the client it comes before those of a worker.
    """

    def __init__(self, signer: Signer, *, served_only: bool) -> None:
        self._signer = signer
        self._served_only = served_only

    def intercept_client(self, next: client.OutboundInterceptor) -> client.OutboundInterceptor:  # noqa: A002
        """Put the client's side into the chain."""
        return _Client(next, self._signer)

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002
        """Put the check of activities into the chain."""
        return _Activities(next, self._signer)

    def workflow_interceptor_class(self, input: WorkflowInterceptorClassInput) -> Any:  # noqa: A002
        """Put the check of runs, and the signing of what they start, into the chain."""
        return type("_Runs", (_Runs,), {"signer": self._signer, "served_only": self._served_only})


class _Client(client.OutboundInterceptor):
    def __init__(self, next: client.OutboundInterceptor, signer: Signer) -> None:  # noqa: A002
        super().__init__(next)
        self._signer = signer

    async def start_workflow(self, input: client.StartWorkflowInput) -> client.WorkflowHandle[Any, Any]:  # noqa: A002
        if _are_raw(input.args):
            signature = self._signer.start(input.workflow, input.id, input.task_queue, _payloads(input.args))
            input.headers = {**input.headers, HEADER: _payload(signature)}
        memo = {
            name: {**value, MEMO_FIELD: self._signer.memo(input.id, value)}
            for name, value in (input.memo or {}).items()
            if isinstance(value, dict)
        }
        input.memo = {**(input.memo or {}), **memo}
        return await super().start_workflow(input)


class _Runs(WorkflowInboundInterceptor):
    signer: Signer
    served_only: bool

    def init(self, outbound: WorkflowOutboundInterceptor) -> None:
        super().init(_Scheduling(outbound, self.signer))

    async def execute_workflow(self, input: ExecuteWorkflowInput) -> Any:  # noqa: A002
        info = workflow.info()
        arguments = _payloads(input.args[0])  # the workflow is dynamic: one list, raw
        expected = self.signer.start(info.workflow_type, info.workflow_id, info.task_queue, arguments)
        by_client = info.parent is None and info.continued_run_id is None
        if len(arguments) > 1 and self.served_only and by_client:
            raise refused(not_signed(_BY_NAME)) from None
        if len(arguments) > 1 and not same(_signature_in(input.headers), expected):
            raise refused(not_signed(_BY_NAME if self.served_only else _BY_COMMAND)) from None
        _current.set(self.signer)
        return await super().execute_workflow(input)


class _Scheduling(WorkflowOutboundInterceptor):
    def __init__(self, next: WorkflowOutboundInterceptor, signer: Signer) -> None:  # noqa: A002
        super().__init__(next)
        self._signer = signer

    def start_activity(self, input: StartActivityInput) -> workflow.ActivityHandle[Any]:  # noqa: A002
        info = workflow.info()
        # Without an id the SDK numbers it, and does not say so before it is scheduled.
        input.activity_id = input.activity_id or input.activity
        signature = self._signer.activity(
            input.activity,
            input.activity_id,
            info.workflow_id,
            input.task_queue or info.task_queue,
            _encoded(input.args),
            input.headers,
        )
        input.headers = {**input.headers, HEADER: _payload(signature)}
        return super().start_activity(input)

    async def start_child_workflow(
        self,
        input: StartChildWorkflowInput,  # noqa: A002
    ) -> workflow.ChildWorkflowHandle[Any, Any]:
        queue = input.task_queue or workflow.info().task_queue
        signature = self._signer.start(input.workflow, input.id, queue, _encoded(input.args))
        input.headers = {**input.headers, HEADER: _payload(signature)}
        return await super().start_child_workflow(input)

    def continue_as_new(self, input: ContinueAsNewInput) -> Any:  # noqa: A002
        info = workflow.info()
        signature = self._signer.start(
            input.workflow or info.workflow_type,
            info.workflow_id,
            input.task_queue or info.task_queue,
            _encoded(input.args),
        )
        input.headers = {**input.headers, HEADER: _payload(signature)}
        super().continue_as_new(input)


class _Activities(ActivityInboundInterceptor):
    def __init__(self, next: ActivityInboundInterceptor, signer: Signer) -> None:  # noqa: A002
        super().__init__(next)
        self._signer = signer

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002
        # A local activity comes from a run of this very worker, and not by way of the server.
        if not activity.info().is_local and not self._is_signed(input):
            raise not_signed(
                f'the activity "{activity.info().activity_type}" was not scheduled by a run that this'
                " worker takes, and it runs nothing else"
            )
        _current.set(self._signer)
        return await super().execute_activity(input)

    def _is_signed(self, input: ExecuteActivityInput) -> bool:  # noqa: A002
        info, signature = activity.info(), _signature_in(input.headers)
        return any(
            same(
                signature,
                self._signer.activity(
                    info.activity_type,
                    info.activity_id,
                    info.workflow_id or "",
                    info.task_queue,
                    arguments,
                    input.headers,
                ),
            )
            for arguments in _take_arrived(input.args)
        )


_arrived: "ContextVar[tuple[asyncio.Task[Any], Sequence[Payload]] | None]" = ContextVar(
    "pipeline_runner_arrived", default=None
)
"""The first payloads that this task has decoded: those of an activity's arguments."""


class _Remembering(PayloadConverter):
    """Remembers what arguments were decoded from: an interceptor sees only what became of it."""

    def from_payloads(self, payloads: Sequence[Payload], type_hints: list[type] | None = None) -> list[Any]:
        if not workflow.in_workflow():
            task, before = _task(), _arrived.get()
            if task is not None and (before is None or before[0] is not task):
                _arrived.set((task, payloads))
        return super().from_payloads(payloads, type_hints)  # type: ignore[safe-super]


def _take_arrived(arguments: Sequence[Any]) -> list[Sequence[Payload]]:
    """Return what an activity's arguments can have been decoded from, and forget it."""
    arrived = _arrived.get()
    _arrived.set(None)
    found = []
    if arguments and arrived is not None and arrived[0] is _task():
        found.append(arrived[1])
    # Without arguments nothing was decoded: what is remembered then, if anything, are a heartbeat's
    # details. A dynamic activity has one argument, the list of all of them.
    if not arguments or (len(arguments) == 1 and isinstance(arguments[0], list) and not arguments[0]):
        found.append(())
    return found


def _task() -> "asyncio.Task[Any] | None":
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


def not_signed(message: str) -> ApplicationError:
    """Return the error of what an embedded worker refuses to run."""
    return ApplicationError(message, type=errors.NOT_SIGNED, non_retryable=True)


def _are_raw(values: Sequence[Any]) -> bool:
    return all(isinstance(value, RawValue) for value in values)


def _payloads(values: Sequence[RawValue]) -> list[Payload]:
    return [value.payload for value in values]


def _encoded(values: Sequence[Any]) -> list[Payload]:
    return list(workflow.payload_converter().to_payloads(values))


def _bytes(payload: Payload) -> bytes:
    return payload.SerializeToString(deterministic=True)


def _payload(signature: str) -> Payload:
    return Payload(metadata={"encoding": b"json/plain"}, data=msgspec.json.encode(signature))


def _signature_in(headers: Mapping[str, Payload]) -> object:
    payload = headers.get(HEADER)
    if payload is None:
        return None
    try:
        return msgspec.json.decode(payload.data)
    except msgspec.DecodeError:
        return None
