"""An environment for unit tests of activities, as if a step of a pipeline had started them.

It needs neither a server nor a worker::

    environment = activity_environment(key="a-key", attempt=2)
    assert await environment.run(order, Order(customer="Ada", amount=3)) == {...}
"""

import asyncio
import contextvars
import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal, ParamSpec, TypeVar, cast

from temporalio.testing import ActivityEnvironment

from pipeline_runner.activities.toolkit import secret_values
from pipeline_runner.activities.toolkit.context import (
    set_idempotency_key,
    set_undone_outcome,
    set_working_directory,
)

P = ParamSpec("P")
R = TypeVar("R")

KEY = "0123456789abcdef0123456789abcdef"
"""The default idempotency key."""


def activity_environment(
    *,
    key: str = KEY,
    secrets: Mapping[str, str] | None = None,
    attempt: int = 1,
    directory: str | None = None,
    undone: Literal["completed", "uncertain", "failed"] | None = None,
) -> ActivityEnvironment:
    """Return an environment whose ``run`` calls an activity and returns its result.

    Args:
        key: The value of ``idempotency_key()``.
        secrets: Values by name, for activities that look up secrets by name, such as ``sql.execute``. They
            are masked in logs, as in a worker. A secret in a step's ``with`` is a plain argument.
        attempt: The number of the attempt in ``temporalio.activity.info()``.
        directory: The value of ``working_directory()``. None: the current directory.
        undone: The value of ``undone_outcome()``: the outcome of the step that the activity undoes. None: it
            undoes nothing.
    """

    def enter() -> None:
        set_idempotency_key(key)
        set_working_directory(directory)
        set_undone_outcome(undone)
        secret_values.given.set(dict(secrets or {}))
        secret_values.mask((secrets or {}).values())
        secret_values.mask_logs()

    environment = _StepEnvironment(enter)
    environment.info = replace(environment.info, attempt=attempt)
    return environment


class _StepEnvironment(ActivityEnvironment):
    """Runs each activity in a context of its own, so that nothing of it stays in the test."""

    def __init__(self, enter: Callable[[], None]) -> None:
        super().__init__()
        self._enter = enter

    def run(self, fn: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the callable in the context of an activity. See the base class."""
        context = contextvars.copy_context()
        context.run(self._enter)
        started = context.run(lambda: ActivityEnvironment.run(self, fn, *args, **kwargs))
        if not inspect.iscoroutine(started):
            return started

        async def finished() -> Any:
            return await asyncio.create_task(started, context=context)

        return cast("R", finished())
