"""Signatures of runs and activities, and the errors of unsigned ones: see ``signing.py``.

Replayed: part of the workflow. Signing depends only on the message and the key.
"""

import hmac
import json
from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

import msgspec
from temporalio.api.common.v1 import Payload
from temporalio.exceptions import ApplicationError

from pipeline_runner.core import errors

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
        """Sign the result of a worker that serves a pipeline by its name."""
        return self._signature("bundle", workflow_id, name, bundle, msgspec.json.encode(directory))

    def memo(self, workflow_id: str, memo: Mapping[str, Any]) -> str:
        """Sign what the command that starts a run records for ``watch``."""
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
    """Compare a received signature with an expected one, in constant time."""
    return isinstance(one, str) and hmac.compare_digest(one.encode(), other.encode())


def not_signed(message: str) -> ApplicationError:
    """Return the error of an unsigned run or activity."""
    return ApplicationError(message, type=errors.NOT_SIGNED, non_retryable=True)


_current: ContextVar[Signer | None] = ContextVar("pipeline_runner_signer", default=None)


def current() -> Signer | None:
    """Return the signer of this run's or activity's worker; None: the worker accepts everything."""
    return _current.get()


def use(signer: Signer) -> None:
    """Use this key in the current run or activity."""
    _current.set(signer)


def payload_of(signature: str) -> Payload:
    """Return a signature as the value of its header."""
    return Payload(metadata={"encoding": b"json/plain"}, data=msgspec.json.encode(signature))


def signature_in(headers: Mapping[str, Payload]) -> object:
    """Return the signature in some headers; None: there is none."""
    payload = headers.get(HEADER)
    if payload is None:
        return None
    try:
        return msgspec.json.decode(payload.data)
    except msgspec.DecodeError:
        return None


def _bytes(payload: Payload) -> bytes:
    return payload.SerializeToString(deterministic=True)
