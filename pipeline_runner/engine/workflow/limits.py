"""Time limits of blocks and loops: work that exceeds them is cancelled, and the step fails."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TypeVar

from temporalio import workflow

from pipeline_runner.core import durations, errors
from pipeline_runner.core.errors import ErrorInfo
from pipeline_runner.core.model import Step
from pipeline_runner.engine.workflow import calls
from pipeline_runner.engine.workflow.cancel import CancelScope, Interrupted
from pipeline_runner.engine.workflow.scopes import Scope
from pipeline_runner.engine.workflow.step_errors import StepError

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Limit:
    """The time limit of a step as a whole."""

    seconds: float
    error: ErrorInfo
    """The error if it takes longer."""


def limit_of(step: Step) -> Limit | None:
    """Return the time limit of a step that holds others or is a loop; None: it has none."""
    limits = []
    if step.timeout is not None:
        message = f'"{step.id}" did not complete within {durations.spell(step.timeout)}'
        limits.append(_limit(step, step.timeout, errors.BLOCK_TIMEOUT, message))
    if step.until is not None and step.until.timeout is not None:
        seconds = step.until.timeout
        message = f'the condition of "{step.id}" was not met within {durations.spell(seconds)}'
        limits.append(_limit(step, seconds, errors.UNTIL_TIMEOUT, message))
    return min(limits, key=lambda limit: limit.seconds, default=None)


def _limit(step: Step, seconds: float, kind: str, message: str) -> Limit:
    return Limit(seconds=seconds, error=ErrorInfo(type=kind, message=message, step=step.id))


async def within(limit: Limit | None, scope: Scope, work: Callable[[Scope], Awaitable[T]]) -> T:
    """Do the work of a step within a time limit. The frame records when it began.

    Args:
        limit: The limit; None: there is none.
        scope: The scope of the step.
        work: Does the work, in a scope that is cancelled when the time is up.

    Raises:
        StepError: The time is up, and everything that was open has ended.
    """
    if limit is None:
        return await work(scope)
    reason = Interrupted("timed_out", limit.error.message)
    end = _end(limit, scope)
    cancel = CancelScope(scope.cancel, limit=(end, reason))
    watch = asyncio.create_task(_watch(cancel, reason, end, limit))
    try:
        return await _unless_cancelled(replace(scope, cancel=cancel), work)
    except Interrupted as interrupted:
        if interrupted is not reason:
            raise
        raise StepError(limit.error, non_retryable=False, cause=None) from None
    finally:
        cancel.close()
        watch.cancel()


async def _unless_cancelled(scope: Scope, work: Callable[[Scope], Awaitable[T]]) -> T:
    """Do some work. What it comes to does not count if it was to end."""
    try:
        result = await work(scope)
    except StepError:
        scope.cancel.check()
        raise
    scope.cancel.check()
    return result


async def _watch(cancel: CancelScope, reason: Interrupted, end: datetime, limit: Limit) -> None:
    seconds = (end - workflow.now()).total_seconds()
    # Nothing is running in a run that continues too late.
    if seconds > 0:
        await calls.timer(seconds, f"timeout of {limit.error.step}")
        await cancel.request(reason)


def _end(limit: Limit, scope: Scope) -> datetime:
    frame = scope.frame
    if frame.since is None:
        frame.since = workflow.now().isoformat()
    return datetime.fromisoformat(frame.since) + timedelta(seconds=limit.seconds)
