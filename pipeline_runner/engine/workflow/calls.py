"""Schedules activities and child pipelines, forward and in undo."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.common import RawValue, RetryPolicy
from temporalio.exceptions import FailureError

from pipeline_runner.core.expressions.evaluate import render, render_text
from pipeline_runner.core.expressions.parsing import ExpressionError
from pipeline_runner.core.model import ActivityCall, ChildCall, Retry
from pipeline_runner.core.paths import MAX_ID, Path
from pipeline_runner.core.secrets import SecretSpans, seal
from pipeline_runner.core.state import Continuation, Options, Outcome, ScopeLog
from pipeline_runner.engine.workflow.outcomes import UNREGISTERED, Ending, of_failure
from pipeline_runner.engine.workflow.payloads import encoded, measured
from pipeline_runner.engine.workflow.program import Program

T = TypeVar("T")

SUMMARY = 200
"""The maximum number of characters in a step's name."""

_SUMMARY_BYTES = 380
"""The maximum size of a summary in bytes. Servers may refuse 400."""

INSTALLED = "pipeline_runner.installed"
"""The external function by which a workflow detects the interceptor."""

HARD_EVENTS = 40_000
HARD_BYTES = 25 * 1024 * 1024
"""The limits of a history for a run that cannot continue as new. The server terminates a run at 51,200 events
or 50 MiB."""

_POLICIES = {
    "terminate": workflow.ParentClosePolicy.TERMINATE,
    "request_cancel": workflow.ParentClosePolicy.REQUEST_CANCEL,
    "abandon": workflow.ParentClosePolicy.ABANDON,
}


@dataclass(frozen=True, kw_only=True)
class StepInput:
    """An activity's arguments on their way to the interceptor, which puts the rest into headers."""

    payloads: list[RawValue]
    key: str
    places: SecretSpans
    directory: str | None = None
    undone: str | None = None
    """The outcome of the step that this activity undoes; None: it undoes nothing."""
    undoing: str | None = None
    """The outcome of the step that the activity's whole pipeline undoes; None: it undoes nothing."""


@dataclass(frozen=True, kw_only=True)
class PreparedActivity:
    """An activity whose input is rendered and measured, so that nothing can fail before its start."""

    call: ActivityCall
    activity_id: str
    summary: str
    value: Any
    places: SecretSpans
    arguments: StepInput
    task_queue: str

    def start(self) -> workflow.ActivityHandle[Any]:
        """Schedule the activity."""
        timeouts = self.call.timeouts
        return workflow.start_activity(
            self.call.name,
            args=[self.arguments],
            activity_id=self.activity_id,
            task_queue=self.task_queue,
            result_type=RawValue,
            start_to_close_timeout=_delta(timeouts.start_to_close),
            schedule_to_close_timeout=_delta(timeouts.schedule_to_close),
            schedule_to_start_timeout=_delta(timeouts.schedule_to_start),
            heartbeat_timeout=_delta(timeouts.heartbeat),
            retry_policy=retry_policy(self.call.retry),
            # The outcome must be known before anything is undone.
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            summary=self.summary,
        )


def prepare_activity(
    call: ActivityCall,
    names: Mapping[str, Any],
    *,
    path: Path,
    summary: str,
    key: str,
    log: ScopeLog,
    undone: str | None = None,
) -> PreparedActivity:
    """Render and measure an activity's input. ``undone`` is the outcome of the step that it undoes.

    Raises:
        ExpressionError: A template cannot be evaluated, or a worker that gets a secret cannot resolve it.
        PayloadTooLargeError: The input is over Temporal's limit.
    """
    value, places = seal(render(call.input if call.args is None else call.args, names))
    if places and not call.secrets:
        raise ExpressionError(
            f'a secret cannot be passed to "{call.name}", which another worker serves: '
            "if that worker uses Pipeline Runner, set secrets: true in activities.yaml"
        )
    arguments, sent = value, places
    if call.args is None:
        arguments = [] if value is None else [value]
        sent = [([0, *path], spans) for path, spans in places]
    payloads = measured(f'the input of "{call.name}"', *map(encoded, arguments))
    return PreparedActivity(
        call=call,
        activity_id=fitting_id(str(path)),
        summary=summary_of(summary),
        value=value,
        places=places,
        arguments=StepInput(
            payloads=payloads,
            key=key,
            places=sent,
            directory=log.directory,
            undone=undone,
            undoing=log.undone,
        ),
        task_queue=call.task_queue or log.task_queue,
    )


@dataclass(frozen=True, kw_only=True)
class PreparedChild:
    """A child pipeline whose inputs are rendered and measured."""

    call: ChildCall
    name: str
    workflow_id: str
    summary: str
    value: dict[str, Any]
    arguments: list[RawValue]
    task_queue: str

    async def start(self) -> workflow.ChildWorkflowHandle[Any, Any]:
        """Start the child, and return when the server has started it."""
        abandon = self.call.parent_close_policy == "abandon"
        kinds = workflow.ChildWorkflowCancellationType
        return await workflow.start_child_workflow(
            self.name,
            args=self.arguments,
            id=self.workflow_id,
            task_queue=self.task_queue,
            result_type=RawValue,
            cancellation_type=kinds.ABANDON if abandon else kinds.WAIT_CANCELLATION_COMPLETED,
            parent_close_policy=_POLICIES[self.call.parent_close_policy],
            run_timeout=_delta(self.call.timeouts.run),
            execution_timeout=_delta(self.call.timeouts.execution),
            static_summary=self.summary,
        )


def prepare_child(
    program: Program,
    call: ChildCall,
    names: Mapping[str, Any],
    *,
    path: Path,
    summary: str,
    log: ScopeLog,
    undone: Outcome | None = None,
    resumed: Continuation | None = None,
) -> PreparedChild:
    """Render and measure a child's inputs.

    Args:
        program: The run's bundle.
        call: The child.
        names: What its templates see.
        path: The path of its step.
        summary: What it is for.
        log: The run's.
        undone: The outcome of the step that it undoes.
        resumed: Where it goes on; None: it begins.

    Raises:
        ExpressionError: A template cannot be evaluated, or its result contains a secret.
        PayloadTooLargeError: Bundle and inputs are over Temporal's limit.
    """
    value, places = seal(render(call.input, names))
    if places:
        raise ExpressionError("a secret cannot be passed to a child: declare it in the child's own secrets")
    child = program.bundle.pipelines[call.pipeline]
    return PreparedChild(
        call=call,
        name=child.name,
        workflow_id=(
            fitting_id(path.workflow_id(workflow.info().workflow_id))
            if call.workflow_id is None
            else _chosen_id(render_text(call.workflow_id, names))
        ),
        summary=summary_of(summary),
        value=value,
        arguments=measured(
            f'the input of the child "{child.name}"',
            encoded(value),
            program.child_payload(call.pipeline),
            encoded(
                Options(
                    child=call.wait_for_completion,
                    step=str(path),
                    directory=log.directory,
                    undone=undone,
                    continued=resumed,
                    starter=log.starter,
                )
            ),
        ),
        task_queue=call.task_queue or child.task_queue or log.task_queue,
    )


def history_is_full() -> bool:
    """Tell whether a run that cannot continue as new must fail, so that there is room for its undo."""
    info = workflow.info()
    return info.get_current_history_length() > HARD_EVENTS or info.get_current_history_size() > HARD_BYTES


async def retried(
    call: ChildCall,
    title: str,
    run: Callable[[], Awaitable[T]],
    *,
    failed: Callable[[FailureError, Ending], Exception],
    pause: Callable[["asyncio.Task[None]"], Awaitable[None]],
) -> T:
    """Run a child until it completes or is not retried, as the server does for an activity.

    Args:
        call: The child, with its retry policy.
        title: Its path and its name, for the summary of a timer.
        run: Runs it once.
        failed: Records the failure of an attempt, and returns the error to raise if it was the last one.
        pause: Waits for the timer between two attempts.
    """
    attempt = 1
    while True:
        try:
            return await run()
        except FailureError as error:
            ending = of_failure(error, call)
            final = failed(error, ending)
            uncertain = ending.outcome != "failed"
            if (
                call.retry is None
                or uncertain
                or not may_retry(call.retry, ending.type, attempt, final=ending.non_retryable)
            ):
                raise final from None
        await pause(timer(backoff(call.retry, attempt), f"retry of {title}"))
        attempt += 1


def may_retry(retry: Retry, kind: str, attempt: int, *, final: bool) -> bool:
    """Tell whether something other than an activity is retried.

    Args:
        retry: Its retry policy.
        kind: The type of the error of its last attempt.
        attempt: The number of that attempt, counted from 1.
        final: Whether the error forbids a retry.
    """
    return (
        (not retry.maximum_attempts or attempt < retry.maximum_attempts)
        and not final
        and kind not in (retry.non_retryable_error_types or ())
        and not history_is_full()
    )


def idempotency_key(path: Path, log: ScopeLog) -> str:
    """Return the key of a step: the same over retries, resets, continue-as-new, and undo and resume by hand.

    Args:
        path: The step's, in its own run.
        log: The log of that run.
    """
    identity = f"{workflow.info().namespace}\0{log.run['workflow_id']}\0{log.run['run_id']}\0{path}"
    return hashlib.sha256(identity.encode()).hexdigest()[:32]


def summary_of(text: str) -> str:
    """Return a name cut to the server's limit for a summary."""
    return text.encode()[:_SUMMARY_BYTES].decode(errors="ignore")


def fitting_id(text: str) -> str:
    """Return an id made of names. One that is too long ends with its hash."""
    data = text.encode()
    if len(data) <= MAX_ID:
        return text
    return data[: MAX_ID - 33].decode(errors="ignore") + "#" + hashlib.sha256(data).hexdigest()[:32]


def _chosen_id(text: str) -> str:
    if not 0 < len(text.encode()) <= MAX_ID:
        raise ExpressionError(f"workflow_id: it must have 1 to {MAX_ID} bytes, not {len(text.encode())}")
    return text


@lru_cache(maxsize=1000)
def retry_policy(retry: Retry) -> RetryPolicy:
    """Return Temporal's retry policy for a resolved one."""
    return RetryPolicy(
        initial_interval=timedelta(seconds=_or(retry.initial_interval, 1.0)),
        backoff_coefficient=_or(retry.backoff_coefficient, 2.0),
        maximum_interval=_delta(retry.maximum_interval),
        maximum_attempts=int(_or(retry.maximum_attempts, 0)),
        non_retryable_error_types=[*(retry.non_retryable_error_types or ()), UNREGISTERED],
    )


def backoff(retry: Retry, attempt: int) -> float:
    """Return the seconds to wait after a failed attempt. Attempts are counted from 1."""
    seconds = _or(retry.initial_interval, 1.0)
    limit = _or(retry.maximum_interval, 100 * seconds)
    coefficient = _or(retry.backoff_coefficient, 2.0)
    for _ in range(attempt - 1):
        seconds *= coefficient
        if seconds >= limit:
            break
    return min(seconds, limit)


def timer(seconds: float, summary: str) -> "asyncio.Task[None]":
    """Start a durable timer."""
    return asyncio.create_task(workflow.sleep(seconds, summary=summary_of(summary)))


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _delta(seconds: float | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)
