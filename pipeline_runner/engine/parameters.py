"""Decodes the parameters of an activity where invalid ones can be reported.

The SDK decodes arguments before any interceptor runs, and reports invalid ones as "Failed decoding
arguments", which is retried. The worker therefore registers stand-ins that take raw arguments. The
interceptor decodes them by the real function's annotations, and calls that function.
"""

import dataclasses
import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from temporalio import activity
from temporalio.common import RawValue
from temporalio.converter import PayloadConverter

from pipeline_runner.activities.toolkit.errors import refused

_DEFINITION = "__temporal_activity_definition"


class Raw:
    """Replaces an activity where the SDK asks for its parameters."""

    def __init__(self, function: Callable[..., Any], types: list[type]) -> None:
        self.function = function
        self.types = types
        self.signature = inspect.signature(function)
        definition = getattr(function, _DEFINITION)
        raw = dataclasses.replace(definition, fn=self, arg_types=[RawValue] * len(types))
        setattr(self, _DEFINITION, raw)

    def __call__(self, *_: Any) -> Any:
        """Never called: the interceptor calls the function itself."""
        raise AssertionError


def taken_raw(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return what to register for an activity: a stand-in, or the activity itself without annotations."""
    definition: Any = getattr(function, _DEFINITION, None)
    if definition is None or definition.name is None or definition.arg_types is None:
        return function
    return Raw(function, definition.arg_types)


def decoded(stand_in: Raw, arguments: Sequence[Any]) -> list[Any]:
    """Return the arguments decoded by the activity's annotations.

    Raises:
        ApplicationError: One is invalid, or there are too few or too many. It is not retried.
    """
    converter = activity.payload_converter()
    signature = stand_in.signature
    try:
        signature.bind(*arguments)
    except TypeError:
        arity = _arity(signature, len(arguments))
        raise refused(f"the input is not valid: {arity}", "InvalidInput") from None
    names = list(signature.parameters)
    return [
        _typed(argument, hint, f"{name}: " if len(names) > 1 else "", converter)
        for argument, hint, name in zip(arguments, stand_in.types, names, strict=False)
    ]


def _arity(signature: inspect.Signature, given: int) -> str:
    parameters = signature.parameters.values()
    needed = sum(parameter.default is parameter.empty for parameter in parameters)
    takes = str(needed) if needed == len(parameters) else f"{needed} to {len(parameters)}"
    names = ", ".join(signature.parameters)
    return f"the activity takes {takes} argument{'' if takes == '1' else 's'} ({names}), not {given}"


def _typed(argument: Any, hint: Any, prefix: str, converter: PayloadConverter) -> Any:
    # If there are fewer arguments than parameters, the SDK has decoded them without types.
    payload = argument.payload if isinstance(argument, RawValue) else converter.to_payload(argument)
    try:
        if hasattr(hint, "model_validate_json") and payload.metadata.get("encoding") == b"json/plain":
            return hint.model_validate_json(payload.data)  # pydantic, whether the converter knows it or not
        return converter.from_payload(payload, hint)
    except Exception as error:  # noqa: BLE001 - each kind of model has its own exceptions
        problem: BaseException = error
    try:
        converted = msgspec.convert(msgspec.json.decode(payload.data), hint)
    except msgspec.ValidationError as error:
        reason = _of_model(problem) or str(error).replace(" - at `$.", " - at `")
    except (msgspec.MsgspecError, TypeError, ValueError):
        reason = _of_model(problem) or _chain(problem)
    else:
        if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
            return converted  # Temporal's own converter does not know it
        reason = _of_model(problem) or _chain(problem)
    # From None: the message names fields and types; the errors may also contain the values.
    raise refused(f"the input is not valid: {prefix}{reason}", "InvalidInput") from None


def _of_model(error: BaseException) -> str | None:
    """Return pydantic's message for every field, without the values."""
    found: BaseException | None = error
    while found is not None:
        if hasattr(found, "errors") and type(found).__module__.startswith("pydantic"):
            problems = found.errors(include_url=False, include_input=False, include_context=False)
            return "; ".join(
                f"{'.'.join(str(key) for key in problem['loc']) or 'input'}: {problem['msg']}"
                for problem in problems
            )
        found = found.__cause__ or found.__context__
    return None


def _chain(error: BaseException) -> str:
    texts: list[str] = []
    found: BaseException | None = error
    while found is not None and len(texts) < 5:
        texts.append(re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", str(found)))
        found = found.__cause__
    return ": ".join(dict.fromkeys(filter(None, texts))) or type(error).__name__
