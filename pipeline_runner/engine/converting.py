"""Decodes payloads from a server with a client's data converter.

Everything that reads a history, a description or a memo uses this module, because a codec may have
encoded all of it. Workflow code decodes nothing: the SDK does that before the code sees anything.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from temporalio.api.common.v1 import Payload
from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import HistoryEvent
from temporalio.common import RawValue
from temporalio.converter import DataConverter

from pipeline_runner.engine.workflow.payloads import is_plain


async def plain(converter: DataConverter, payload: Payload) -> Payload | None:
    """Return a payload without the codec's encoding; None: it cannot be decoded here."""
    if is_plain(payload):
        return payload
    try:
        [value] = await converter.decode([payload], [RawValue])
    except Exception:  # noqa: BLE001 - a codec may raise anything
        return None
    assert isinstance(value, RawValue)
    return value.payload if is_plain(value.payload) else None


async def json_of(converter: DataConverter, payloads: Sequence[Payload], index: int = 0) -> Any:
    """Return one of some payloads as JSON data; None: there is none, or it cannot be read."""
    if len(payloads) <= index:
        return None
    payload = await plain(converter, payloads[index])
    if payload is None or not payload.data:
        return None
    try:
        return msgspec.json.decode(payload.data)
    except msgspec.DecodeError:
        return None


async def message_of(converter: DataConverter, failure: Failure) -> str:
    """Return the message of the first application failure in a chain, or else the last message."""
    while failure.HasField("cause") and not failure.HasField("application_failure_info"):
        failure = failure.cause
    if failure.HasField("encoded_attributes"):
        attributes = await json_of(converter, [failure.encoded_attributes])
        message = attributes.get("message") if isinstance(attributes, dict) else None
        if isinstance(message, str):
            return message
    return failure.message


_FAILURES: tuple[Any, ...] = (
    "activity_task_failed_event_attributes",
    "activity_task_timed_out_event_attributes",
    "child_workflow_execution_failed_event_attributes",
    "workflow_execution_failed_event_attributes",
)
_PROPERTIES: Any = "workflow_properties_modified_event_attributes"
_STARTED: Any = "workflow_execution_started_event_attributes"
_CHILD: Any = "start_child_workflow_execution_initiated_event_attributes"


async def readable(converter: DataConverter, event: HistoryEvent) -> HistoryEvent:
    """Decode, in place, what readers of an event use: its summary, error, inputs, options and memo."""
    payloads = [event.user_metadata.summary] if event.HasField("user_metadata") else []
    if event.HasField(_CHILD):
        payloads += event.start_child_workflow_execution_initiated_event_attributes.input.payloads
    if event.HasField(_STARTED):
        payloads += event.workflow_execution_started_event_attributes.input.payloads
    if event.HasField(_PROPERTIES):
        payloads += event.workflow_properties_modified_event_attributes.upserted_memo.fields.values()
    for payload in payloads:
        found = await plain(converter, payload)
        if found is not None:
            payload.CopyFrom(found)
    for name in _FAILURES:
        if event.HasField(name):
            failure = getattr(event, name).failure
            failure.message = await message_of(converter, failure)
            for payload in failure.application_failure_info.details.payloads:
                payload.CopyFrom(await plain(converter, payload) or payload)
    return event
