"""The strict input of activities: what does not fit the parameters is refused by name.

Temporal's own decoding accepts the string ``ls`` as the list ``["l", "s"]``, and retries what it cannot
decode. For activities under :func:`checked`, msgspec checks the parameters, including their limits, and
invalid input is an error that is not retried. The message names the parameter and the type, never the
value. Imported by implementations only.
"""

import functools
import inspect
from collections.abc import Callable, Coroutine
from typing import Any, Literal, TypedDict, TypeVar, Unpack, get_type_hints

import msgspec
from temporalio import activity

from pipeline_runner.activities.catalogue.providers import describe
from pipeline_runner.activities.catalogue.undo import Undo
from pipeline_runner.activities.toolkit.errors import refused
from pipeline_runner.core.model import Retry, Timeouts

F = TypeVar("F", bound=Callable[..., Any])

Scalar = str | int | float | bool
"""What is accepted where only strings make sense: ``[sleep, 5]``, ``{DEBUG: true}``."""


def doc(description: str, **limits: Any) -> msgspec.Meta:
    """Describe a field of an activity's input or output, and limit its values."""
    return msgspec.Meta(description=description, **limits)


def as_text(value: Scalar) -> str:
    """Write a scalar as templates do: booleans are ``true`` and ``false``."""
    return str(value).lower() if isinstance(value, bool) else str(value)


class Facts(TypedDict, total=False):
    """The parameters of :func:`describe`."""

    timeouts: Timeouts
    retry: Retry
    effect_free: bool
    undo: Undo | Literal["none"]
    extra: str


def built_in(name: str, **facts: Unpack[Facts]) -> Callable[[F], F]:
    """Make a function or a method a built-in activity: described, registered and :func:`checked`.

    A synchronous activity gets no exception when it is cancelled: it calls ``pulse`` instead.
    """

    def attach(function: F) -> F:
        is_sync = not inspect.iscoroutinefunction(function)
        registered = activity.defn(name=name, no_thread_cancel_exception=is_sync)
        return describe(**facts)(registered(checked(function)))

    return attach


def checked(function: F) -> F:
    """Convert the one argument of an activity strictly.

    Works for functions and for methods. Callers may pass an object of the parameters' class, or a mapping
    with its fields.
    """
    *owner, parameter = inspect.signature(function).parameters
    assert owner in ([], ["self"])
    expected = get_type_hints(function, include_extras=True)[parameter]
    wrapper = _asynchronous if inspect.iscoroutinefunction(function) else _synchronous
    result = functools.wraps(function)(wrapper(function, expected))
    # Temporal decodes by these annotations: with Any it passes the plain JSON value.
    result.__annotations__ = {parameter: Any, "return": function.__annotations__["return"]}
    return result  # type: ignore[return-value]  # same parameter, same result


def _asynchronous(
    function: Callable[..., Coroutine[Any, Any, Any]], expected: Any
) -> Callable[..., Coroutine[Any, Any, Any]]:
    async def call(*arguments: Any) -> Any:
        return await function(*arguments[:-1], _converted(arguments[-1], expected))

    return call


def _synchronous(function: Callable[..., Any], expected: Any) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        return function(*arguments[:-1], _converted(arguments[-1], expected))

    return call


def _converted(value: Any, expected: Any) -> Any:
    if isinstance(value, expected):
        return value
    try:
        return msgspec.convert(value, expected)
    except msgspec.ValidationError as error:
        text = str(error).replace(" - at `$.", " - at `")
        # From None: only this message is known to contain no value.
        raise refused(f"the input is not valid: {text}", "InvalidInput") from None
