"""Payloads: encoded once, and measured before they are sent."""

from typing import Any

import msgspec
from temporalio import workflow
from temporalio.api.common.v1 import Payload
from temporalio.common import RawValue

from pipeline_runner.core.expressions.values import whole

LIMIT = 2 * 1024 * 1024 - 64 * 1024
"""The maximum size of the payloads of one command in bytes. Temporal's servers refuse 2 MiB
(``limit.blobSize.error``); the rest is for headers and a codec's overhead."""

_PLAIN = (b"json/plain", b"binary/null", b"binary/plain", b"json/protobuf", b"binary/protobuf")
_METADATA = {"encoding": b"json/plain"}


class EncodedArgumentsError(Exception):
    """This worker lacks the codec of the client that started the run."""

    def __init__(self) -> None:
        super().__init__(
            "the run's arguments are encoded: configure this worker with the codec of the client that started"
            " it (--codec). The run waits for a worker with that codec"
        )


class PayloadTooLargeError(Exception):
    """Data is over Temporal's limit. The message says which data, and how large it is."""


def encoded(value: Any) -> Payload:
    """Encode JSON data, or msgspec structs, as a JSON payload."""
    return Payload(metadata=_METADATA, data=msgspec.json.encode(value))


def measured(what: str, *payloads: Payload) -> list[RawValue]:
    """Return the payloads as arguments to send.

    Args:
        what: Their name in the message.
        payloads: All payloads of one command.

    Raises:
        PayloadTooLargeError: They are too large together.
    """
    size = sum(payload.ByteSize() for payload in payloads)
    if size > LIMIT:
        raise PayloadTooLargeError(too_large(what, size))
    return [RawValue(payload) for payload in payloads]


def too_large(what: str, size: int) -> str:
    """Return the message about data over the limit, with both sizes."""
    return f"{what} has {size:,} bytes, but Temporal accepts at most {LIMIT:,}: pass a reference instead"


def decoded(value: RawValue | None) -> Any:
    """Decode a result of any SDK to JSON data. Bytes become a base64 string.

    Args:
        value: The result; None if an SDK sends none (``void`` in Java, only ``error`` in Go).
    """
    if value is None:
        return None
    payload = value.payload
    if payload.metadata.get("encoding") == b"json/plain":
        try:
            return msgspec.json.decode(payload.data)
        except msgspec.DecodeError:
            # The JSON of other SDKs may contain NaN; the default converter accepts it.
            pass
    return _whole(msgspec.to_builtins(workflow.payload_converter().from_payload(payload)))


def _whole(value: Any) -> Any:
    """Replace lone surrogates: JSON escapes may express them, and nothing can encode them again."""
    if isinstance(value, str):
        return whole(value)
    if isinstance(value, dict):
        return {_whole(key): _whole(item) for key, item in value.items()}
    return [_whole(item) for item in value] if isinstance(value, list) else value


def is_plain(payload: Payload) -> bool:
    """Tell whether a payload was not encoded by a codec."""
    return not payload.metadata or payload.metadata.get("encoding") in _PLAIN
