"""Workers: they serve runs, pipelines by name, and activities."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import msgspec
from temporalio import activity
from temporalio.client import Client
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError
from temporalio.plugin import SimplePlugin
from temporalio.worker import Worker

from pipeline_runner.activities.secret_values import SecretNotFoundError, secret_value
from pipeline_runner.activities.web_client import shared_connections
from pipeline_runner.core import errors
from pipeline_runner.engine import signatures
from pipeline_runner.engine.allowing import Allowing
from pipeline_runner.engine.cancelling import DetailedRunner
from pipeline_runner.engine.interceptor import PipelineInterceptor
from pipeline_runner.engine.interpreter import LOAD, Interpreter
from pipeline_runner.engine.outcomes import unknown_activity
from pipeline_runner.engine.parameters import taken_raw
from pipeline_runner.engine.sweeping import Namespace, OriginInterceptor, sweeping

DEFAULT_TASK_QUEUE = "pipelines"
"""Where runs go that name no task queue."""

SLOTS = 100
"""Activities that run at the same time, if nobody says otherwise: the SDK's own default."""
_MANY = 1000
"""Threads where a tuner decides how many activities run; they are made when they are needed."""


def pipeline_worker(
    client: Client,
    *,
    task_queue: str,
    activities: Sequence[Callable[..., Any]],
    bundles: Mapping[str, bytes] | None = None,
    directory: str | None = None,
    secrets: Mapping[str, Sequence[str]] | None = None,
    allow: Sequence[str] = (),
    graceful_shutdown: timedelta = timedelta(seconds=5),
    **settings: Any,
) -> Worker:
    """Return a worker that serves runs of any pipeline.

    Args:
        client: A connected client.
        task_queue: Where it listens.
        activities: Functions and methods with ``@activity.defn``.
        bundles: Encoded bundles by pipeline name: what can be started by name alone.
        directory: What relative paths of runs by name refer to, wherever they go on; None: the
            directory of whichever worker takes a step.
        secrets: What the pipelines of ``bundles`` need here, by name: where one is missing, a
            run by name fails before anything is done.
        allow: Patterns of names of activities, such as ``file.*``; empty: all.
        graceful_shutdown: How long running activities may go on when the worker stops.
        settings: Further settings of :class:`temporalio.worker.Worker`. ``workflows``, ``interceptors``
            and ``plugins`` are served beside this package's own; interceptors come after them, and
            so see activities with their arguments decoded and secrets put in. With an
            ``activity_executor``, it decides how many activities of threads run at the same time.
    """
    served = dict(bundles or {})

    @activity.defn(name=LOAD)
    async def load(name: str) -> Any:
        if name not in served:
            known = ", ".join(sorted(served)) or "none"
            raise ApplicationError(
                f'this worker serves no pipeline "{name}"; it serves {known}',
                type=errors.UNKNOWN_PIPELINE,
                # Asked over the task queue, another worker may know it.
                non_retryable=activity.info().is_local,
            )
        _check_secrets((secrets or {}).get(name, ()))
        answer = {"bundle": msgspec.json.decode(served[name]), "directory": directory}
        if (signer := signatures.current()) is not None:
            workflow_id = activity.info().workflow_id or ""
            answer["signature"] = signer.bundle(workflow_id, name, served[name], directory)
        return answer

    namespace = Namespace(client)
    plugins = [
        SimplePlugin("pipeline-runner.connections", run_context=shared_connections),
        SimplePlugin("pipeline-runner.sweeping", run_context=sweeping(namespace)),
    ]
    limits = [Allowing(allow, LOAD)] if allow else []
    own = [PipelineInterceptor(client), OriginInterceptor(namespace)]
    options: dict[str, Any] = {
        # After a worker was killed, its runs wait this long for it before another takes over.
        "sticky_queue_schedule_to_start_timeout": timedelta(seconds=1),
        # What a heartbeat may wait for: short, since there are heartbeat timeouts of less than a second.
        "max_heartbeat_throttle_interval": timedelta(seconds=0.2),
        "default_heartbeat_throttle_interval": timedelta(seconds=1),
        "graceful_shutdown_timeout": graceful_shutdown,
        "unsandboxed_workflow_runner": DetailedRunner(),
        **settings,
        "workflows": [Interpreter, *settings.get("workflows", ())],
        "interceptors": [*limits, *own, *settings.get("interceptors", ())],
        "plugins": [*settings.get("plugins", ()), *plugins],
    }
    if options.get("activity_executor") is None:
        threads = ThreadPoolExecutor(_threads(settings), thread_name_prefix="activity")
        options["activity_executor"] = threads
    unknown: list[Callable[..., Any]] = [] if _any_name(activities) else [_unknown]
    served_activities = [*map(taken_raw, activities), load, *unknown]
    return Worker(client, task_queue=task_queue, activities=served_activities, **options)


@activity.defn(dynamic=True)
async def _unknown(arguments: Sequence[RawValue]) -> None:  # noqa: ARG001 - as the SDK wants it
    """Stand in for every activity that the worker does not know, which the SDK would have retried."""
    info = activity.info()
    raise ApplicationError(
        unknown_activity(info.activity_type, info.task_queue),
        type=errors.UNKNOWN_ACTIVITY,
        # Asked over the task queue again, the same worker would give the same answer.
        non_retryable=True,
    )


def _any_name(activities: Sequence[Callable[..., Any]]) -> bool:
    """Tell whether one of the activities serves every name that no other has."""
    definitions = (getattr(one, "__temporal_activity_definition", None) for one in activities)
    return any(one is not None and one.name is None for one in definitions)


def _threads(settings: Mapping[str, Any]) -> int:
    """Return a thread for each activity that may run: while one waited for a thread its clock would run."""
    slots: int = settings.get("max_concurrent_activities") or (_MANY if settings.get("tuner") else SLOTS)
    return slots


def _check_secrets(names: Sequence[str]) -> None:
    try:
        for name in names:
            secret_value(name)
    except SecretNotFoundError as error:
        raise ApplicationError(str(error), type=errors.SECRET_NOT_FOUND, non_retryable=True) from None
