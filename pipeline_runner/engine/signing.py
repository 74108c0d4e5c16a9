"""Signatures: an embedded worker runs only what commands of the same user have started.

Whoever can reach an embedded server can send work to its workers: other users of the machine, and web
pages through the server's HTTP interface. The commands of a user therefore share a key
(``server/key.py``), and every piece of work carries an HMAC-SHA256 in a header:

* the start of a run, of a child and of the next run of a chain (continue-as-new), over its
  type, its workflow id, its task queue and its arguments;
* an activity, over its workflow id, its id, its type, its task queue, its arguments and the
  headers that control what the worker does with them.

Workers check it before they look at anything else. One start needs no signature: that of a pipeline by
name, with its inputs alone. It brings no code, and the worker runs it only if it serves that pipeline.
The bundle that the worker returns is signed too, because it comes back through the server. So is what
``watch`` reads in a run's memo.

Results, signals and queries carry no code and are not signed.

Signing depends only on the message and the key, so a replay gives the same result. A replay without
these interceptors gives the same commands, because headers are not compared.
"""

import asyncio
import dataclasses
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import Any

from temporalio import activity, client, workflow
from temporalio.api.common.v1 import Payload
from temporalio.api.history.v1 import WorkflowExecutionStartedEventAttributes
from temporalio.common import RawValue
from temporalio.converter import DataConverter, PayloadConverter
from temporalio.worker import ExecuteActivityInput, WorkflowInterceptorClassInput

from pipeline_runner.engine.before import BeforeActivities
from pipeline_runner.engine.workflow.interceptors import SignedRuns, payloads_of
from pipeline_runner.engine.workflow.signatures import (
    HEADER,
    MEMO_FIELD,
    Signer,
    not_signed,
    payload_of,
    same,
    signature_in,
    use,
)


def signed(settings: Mapping[str, Any], key: bytes, *, served_only: bool = False) -> dict[str, Any]:
    """Return settings for ``Client.connect`` with which the client and its workers sign and check.

    Args:
        settings: Settings for ``Client.connect``.
        key: The key for the signatures.
        served_only: The workers accept no bundle from a client, not even a signed one: only runs by name,
            their children, and the runs in which they continue.
    """
    converter: DataConverter = settings.get("data_converter", DataConverter.default)
    base: Any = converter.payload_converter_class
    remembering: Any = type("Remembering", (_Remembering, base), {})
    return {
        **settings,
        "data_converter": dataclasses.replace(converter, payload_converter_class=remembering),
        "interceptors": [Signing(Signer(key), served_only=served_only), *settings.get("interceptors", ())],
    }


class Signing(client.Interceptor, BeforeActivities):
    """Signs what a client starts. Its workers sign what they schedule, and check what they receive.

    As an interceptor of the client, it comes before those of a worker.
    """

    def __init__(self, signer: Signer, *, served_only: bool) -> None:
        self._signer = signer
        self._served_only = served_only

    def accepts(self, started: WorkflowExecutionStartedEventAttributes, arguments: Sequence[Payload]) -> bool:
        """Tell whether a run that a history tells of was started by this user, or brings no code.

        Args:
            started: Its first event.
            arguments: Its arguments, decoded.
        """
        kind, queue = started.workflow_type.name, started.task_queue.name
        expected = self._signer.start(kind, started.workflow_id, queue, arguments)
        return len(arguments) < 2 or same(signature_in(started.header.fields), expected)

    def intercept_client(self, next: client.OutboundInterceptor) -> client.OutboundInterceptor:  # noqa: A002
        """Put the client's side into the chain."""
        return _Client(next, self._signer)

    def workflow_interceptor_class(self, input: WorkflowInterceptorClassInput) -> Any:  # noqa: A002
        """Put the check of runs, and the signing of what they start, into the chain."""
        return type("_Runs", (SignedRuns,), {"signer": self._signer, "served_only": self._served_only})

    async def before(self, input: ExecuteActivityInput) -> None:  # noqa: A002
        """Refuse an activity that is not signed."""
        # A local activity comes from a run of this very worker, and not through the server.
        if not activity.info().is_local and not self._is_signed(input):
            raise not_signed(
                f'the activity "{activity.info().activity_type}" was not scheduled by a run that this'
                " worker accepts, so this worker refuses it"
            )
        use(self._signer)

    def _is_signed(self, input: ExecuteActivityInput) -> bool:  # noqa: A002
        info, signature = activity.info(), signature_in(input.headers)
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


class _Client(client.OutboundInterceptor):
    def __init__(self, next: client.OutboundInterceptor, signer: Signer) -> None:  # noqa: A002
        super().__init__(next)
        self._signer = signer

    async def start_workflow(self, input: client.StartWorkflowInput) -> client.WorkflowHandle[Any, Any]:  # noqa: A002
        if _are_raw(input.args):
            signature = self._signer.start(
                input.workflow, input.id, input.task_queue, payloads_of(input.args)
            )
            input.headers = {**input.headers, HEADER: payload_of(signature)}
        memo = {
            name: {**value, MEMO_FIELD: self._signer.memo(input.id, value)}
            for name, value in (input.memo or {}).items()
            if isinstance(value, dict)
        }
        input.memo = {**(input.memo or {}), **memo}
        return await super().start_workflow(input)


_arrived: "ContextVar[tuple[asyncio.Task[Any], Sequence[Payload]] | None]" = ContextVar(
    "pipeline_runner_arrived", default=None
)
"""The first payloads that this task has decoded: those of an activity's arguments."""


class _Remembering(PayloadConverter):
    """Remembers the payloads of arguments: an interceptor sees only the decoded values."""

    def from_payloads(self, payloads: Sequence[Payload], type_hints: list[type] | None = None) -> list[Any]:
        if not workflow.in_workflow():
            task, before = _task(), _arrived.get()
            if task is not None and (before is None or before[0] is not task):
                _arrived.set((task, payloads))
        return super().from_payloads(payloads, type_hints)  # type: ignore[safe-super]


def _take_arrived(arguments: Sequence[Any]) -> list[Sequence[Payload]]:
    """Return the payloads that an activity's arguments may come from, and forget them."""
    arrived = _arrived.get()
    _arrived.set(None)
    found = []
    if arguments and arrived is not None and arrived[0] is _task():
        found.append(arrived[1])
    # Without arguments nothing was decoded; remembered payloads are then the details of a heartbeat. A
    # dynamic activity has one argument, the list of all of them.
    if not arguments or (len(arguments) == 1 and isinstance(arguments[0], list) and not arguments[0]):
        found.append(())
    return found


def _task() -> "asyncio.Task[Any] | None":
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


def _are_raw(values: Sequence[Any]) -> bool:
    return all(isinstance(value, RawValue) for value in values)
