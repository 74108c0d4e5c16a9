"""Prepares an activity's error for the server: masked, limited in size, without our own frames.

The server accepts no failure over 2 MiB and no message over 4 MiB, and the worker gets no error that it
could act on: the attempt would end as a timeout, and its reason would be lost. Every part of an error
therefore has a limit here. Used by the worker only: nothing in here is replayed.
"""

import math
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import msgspec
from temporalio.api.failure.v1 import Failure
from temporalio.converter import DataConverter
from temporalio.exceptions import ApplicationError, FailureError

from pipeline_runner.activities.toolkit.secret_values import masked
from pipeline_runner.core.errors import MARK, shortened

MESSAGE = 20_000
"""Characters of an error's message."""

CAUSE_MESSAGE = 2_000
"""Characters of a cause's message."""

CAUSES = 10
"""The maximum number of causes. Further ones are only counted."""

FRAMES = 20
"""Frames of a stack trace: the last ones, where the error was raised."""

DETAILS = 128 * 1024
"""The maximum size of all details of an error, or of a cause, in bytes."""

_FRAMELESS = ("temporalio", "pipeline_runner.engine", "asyncio", "concurrent.futures")


def rebuilt(
    error: BaseException, secrets: tuple[str, ...], mark: dict[str, Any] | None, converter: DataConverter
) -> BaseException:
    """Return an activity's error for the server.

    Args:
        error: The activity's exception.
        secrets: The strings to mask in every text.
        mark: A detail to add, whatever else is cut.
        converter: The worker's own, which encodes errors and details.
    """
    chain = list(_chain(error))
    told, rest = chain[: CAUSES + 1], len(chain) - CAUSES - 1
    errors = [
        _one(e, secrets, mark if e is error else None, converter, CAUSE_MESSAGE if k else MESSAGE)
        for k, e in enumerate(told)
    ]
    if rest > 0:
        errors.append(ApplicationError(f"and {rest} more causes", type="MoreCauses"))
    for outer, inner in zip(errors, [*errors[1:], None], strict=True):
        outer.__cause__ = inner
        outer.__suppress_context__ = True
    return _frozen(errors[0], converter, None if secrets else error.__traceback__)


def _chain(error: BaseException) -> Any:
    """Yield an error and its causes. A cycle of causes ends at the first repetition."""
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found
        found = found.__cause__ or (None if found.__suppress_context__ else found.__context__)


def _one(
    error: BaseException,
    secrets: tuple[str, ...],
    mark: dict[str, Any] | None,
    converter: DataConverter,
    limit: int,
) -> ApplicationError:
    more: dict[str, Any] = {}
    details: Sequence[Any] = ()
    if isinstance(error, ApplicationError):
        message, kind, details = error.message, error.type, error.details
        more = {
            "non_retryable": error.non_retryable,
            "next_retry_delay": error.next_retry_delay,
            "category": error.category,
        }
    else:
        message = error.message if isinstance(error, FailureError) else str(error)
        kind = type(error).__name__
    told = _details(details, secrets, converter)
    new = ApplicationError(
        shortened(masked(message, secrets), limit),
        *told,
        *([] if mark is None else [mark]),
        type=None if kind is None else shortened(masked(kind, secrets), 200),
        **more,
    )
    # The message of an ApplicationError is enough. For any other error its author needs to know where it was
    # raised.
    if not secrets and not isinstance(error, ApplicationError):
        return new.with_traceback(_own_frames(error.__traceback__))
    return new


def _own_frames(trace: TracebackType | None) -> TracebackType | None:
    """Return the last frames of a trace, without those of the SDK and of this package's engine."""
    while trace is not None and trace.tb_frame.f_globals.get("__name__", "").startswith(_FRAMELESS):
        trace = trace.tb_next
    length, at = 0, trace
    while at is not None:
        length, at = length + 1, at.tb_next
    for _ in range(length - FRAMES):
        assert trace is not None
        trace = trace.tb_next
    return trace


def _frozen(error: ApplicationError, converter: DataConverter, trace: TracebackType | None) -> BaseException:
    """Return the error bound to its failure: raising it does not add frames to the failure.

    The worker's log still has the trace of the original error.
    """
    failure = Failure()
    converter.failure_converter.to_failure(error, converter.payload_converter, failure)
    frozen = converter.failure_converter.from_failure(failure, converter.payload_converter)
    return frozen.with_traceback(trace)


def _details(details: Sequence[Any], secrets: tuple[str, ...], converter: DataConverter) -> list[Any]:
    """Return the details, masked, and cut if they are too large together."""
    plain = [masked(json_data(detail, converter), secrets) for detail in details]
    limit: float = DETAILS
    if sum(_size(detail) for detail in plain) <= limit:
        return plain
    while limit > 16:
        limit //= 2
        cut = [_cut(detail, int(limit)) for detail in plain]
        if sum(_size(detail) for detail in cut) <= DETAILS:
            return cut
    # Details within details, or infinite nesting.
    marks = [detail for detail in plain if isinstance(detail, dict) and MARK in detail]
    return ["the details were too large to send", *marks]


def _size(detail: Any) -> float:
    if isinstance(detail, bytes):
        return len(detail)
    try:
        return len(msgspec.json.encode(detail))
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError):
        return math.inf


def _cut(value: Any, limit: int) -> Any:
    """Return JSON data in which strings, lists and mappings are limited in length."""
    if isinstance(value, str):
        return shortened(value, limit)
    if isinstance(value, bytes):
        return value[:limit]
    if isinstance(value, dict):
        return {shortened(key, limit): _cut(item, limit) for key, item in list(value.items())[:limit]}
    if isinstance(value, list):
        return [_cut(item, limit) for item in value[:limit]]
    return value


def json_data(value: Any, converter: DataConverter) -> Any:
    """Return a value as the JSON data that it is sent as. Null and bytes stay as they are.

    A value that cannot be sent becomes the string that Python shows for it.
    """
    if value is None or isinstance(value, bytes):
        return value
    try:
        return msgspec.json.decode(converter.payload_converter.to_payload(value).data)
    except Exception:  # noqa: BLE001 - whatever a converter raises, the error is reported
        return shortened(repr(value), CAUSE_MESSAGE)
