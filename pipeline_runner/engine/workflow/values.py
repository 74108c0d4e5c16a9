"""Values that stay in the workflow: rendered, and without secrets."""

from datetime import timedelta
from typing import Any

import msgspec
from temporalio import workflow

from pipeline_runner.core import durations
from pipeline_runner.core.expressions.evaluate import evaluate, render, render_text
from pipeline_runner.core.expressions.parsing import ExpressionError
from pipeline_runner.core.secrets import seal


def plain(template: Any, names: dict[str, Any]) -> Any:
    """Render data that stays in the workflow.

    Raises:
        ExpressionError: It cannot be rendered, or contains a secret.
    """
    return without_secrets(render(template, names))


def without_secrets(value: Any) -> Any:
    """Return rendered data that stays in the workflow.

    Raises:
        ExpressionError: It contains a secret.
    """
    found, places = seal(value)
    if places:
        raise ExpressionError("a secret can only be passed to an activity, in its with or args")
    return found


def holds(key: str, condition: str, names: dict[str, Any]) -> bool:
    """Tell whether a condition holds. ``key`` is where it is written, such as ``when``.

    Raises:
        ExpressionError: It cannot be evaluated, or is neither true nor false.
    """
    value = evaluate(condition, names)
    if not isinstance(value, bool):
        raise ExpressionError(f"{key} must be true or false, not {shown(value)}: {condition}")
    return value


def items_of(for_each: str | list[Any], names: dict[str, Any]) -> list[Any]:
    """Return the items of a loop.

    Raises:
        ExpressionError: They cannot be evaluated, or are not a list.
    """
    value = evaluate(for_each, names) if isinstance(for_each, str) else render(for_each, names)
    if not isinstance(value, list):
        raise ExpressionError(f"for_each must be a list, not {shown(value)}")
    items: list[Any] = without_secrets(value)
    return items


def later(key: str, duration: str, names: dict[str, Any]) -> str:
    """Return the time (RFC 3339) at the end of a duration from now. ``key`` is where it is written.

    Raises:
        ExpressionError: It cannot be rendered, or is not a duration.
    """
    try:
        return after(durations.parse(render_text(duration, names)))
    except durations.DurationError as error:
        raise ExpressionError(f"{key}: {error}") from None


def after(seconds: float) -> str:
    """Return the time (RFC 3339) so many seconds from now."""
    return (workflow.now() + timedelta(seconds=seconds)).isoformat()


def shown(value: Any) -> str:
    """Return a value as error messages show it."""
    text = msgspec.json.encode(seal(value)[0]).decode()
    return text if len(text) <= 60 else text[:59] + "…"
