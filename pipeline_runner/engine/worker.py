"""Workers: they serve runs, pipelines by name, and activities."""

import inspect
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from importlib.metadata import version
from typing import Any, cast

import msgspec
from temporalio import activity
from temporalio.client import Client, WorkflowHistory
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError
from temporalio.worker import (
    Plugin,
    Replayer,
    ReplayerConfig,
    UnsandboxedWorkflowRunner,
    Worker,
    WorkerConfig,
    WorkflowReplayResult,
)

from pipeline_runner.activities.catalogue.providers import is_activity, name_of
from pipeline_runner.activities.http.client import shared_connections
from pipeline_runner.activities.toolkit.secret_values import SecretNotFoundError, Source, secret_value
from pipeline_runner.activities.toolkit.threads import in_thread
from pipeline_runner.core import errors
from pipeline_runner.engine.allowing import Allowing
from pipeline_runner.engine.cancelling import DetailedRunner
from pipeline_runner.engine.interceptor import PipelineInterceptor, WorkflowSide
from pipeline_runner.engine.parameters import taken_raw
from pipeline_runner.engine.returning import Served
from pipeline_runner.engine.sweeping import Namespace, OriginInterceptor, sweeping
from pipeline_runner.engine.workflow import signatures
from pipeline_runner.engine.workflow.interpreter import LOAD, Interpreter
from pipeline_runner.engine.workflow.outcomes import unknown_activity

DEFAULT_TASK_QUEUE = "pipelines"
"""The task queue of runs that do not set one."""

SLOTS = 100
"""Default number of activities that run at the same time: the SDK's own."""
_MANY = 1000
"""Maximum number of threads if a tuner decides how many activities run; they are created on demand."""


_TUNED: dict[str, Any] = {
    # After a worker was killed, its runs wait this long for it before another worker takes over.
    "sticky_queue_schedule_to_start_timeout": timedelta(seconds=1),
    # The throttling of heartbeats: short, because there are heartbeat timeouts of less than a second.
    "max_heartbeat_throttle_interval": timedelta(seconds=0.2),
    "default_heartbeat_throttle_interval": timedelta(seconds=1),
}
"""Settings that replace the SDK's defaults because they suit pipelines better."""

_SDK = {name: parameter.default for name, parameter in inspect.signature(Worker.__init__).parameters.items()}


def pipeline_worker(
    client: Client,
    *,
    task_queue: str,
    activities: Sequence[Callable[..., Any]],
    bundles: Mapping[str, bytes] | None = None,
    directory: str | None = None,
    needs: Mapping[str, Sequence[str]] | None = None,
    allow: Sequence[str] = (),
    graceful_shutdown: timedelta = timedelta(seconds=5),
    **settings: Any,
) -> Worker:
    """Return a worker that serves runs of any pipeline.

    Args:
        client: A connected client.
        task_queue: The task queue that the worker polls.
        activities: Functions and methods with ``@activity.defn``.
        bundles: See :class:`ServingPlugin`.
        directory: See :class:`ServingPlugin`.
        needs: See :class:`ServingPlugin`.
        allow: See :class:`ServingPlugin`.
        graceful_shutdown: How long running activities may continue when the worker stops.
        settings: Further arguments of :class:`temporalio.worker.Worker`.
    """
    plugin = ServingPlugin(bundles=bundles, directory=directory, needs=needs, allow=allow)
    plugins = [*settings.pop("plugins", ()), plugin]
    own: dict[str, Any] = {"graceful_shutdown_timeout": graceful_shutdown}
    if not settings.get("deployment_config"):
        # By default the SDK hashes all code of the process: a quarter of a second.
        own["build_id"] = f"pipeline-runner-{version('pipeline-runner')}"
    own |= {"activities": activities, "plugins": plugins}
    return Worker(client, task_queue=task_queue, **{**own, **settings})


class ServingPlugin(Plugin):
    """A plugin with which a worker also serves runs of pipelines.

    Its interceptors come before the worker's own, which therefore see activities with decoded arguments
    and inserted secrets. An ``activity_executor`` limits how many threaded activities run at the same time;
    without one, each activity that may run has a thread.
    """

    def __init__(
        self,
        *,
        activities: Sequence[Callable[..., Any]] = (),
        bundles: Mapping[str, bytes] | None = None,
        directory: str | None = None,
        needs: Mapping[str, Sequence[str]] | None = None,
        allow: Sequence[str] = (),
        vault: Source | None = None,
    ) -> None:
        """Create the plugin.

        Args:
            activities: Activities in addition to the worker's own, which take precedence over these.
            bundles: Encoded bundles by pipeline name: the pipelines that can be started by name.
            directory: The directory that relative paths of runs by name refer to, wherever they continue;
                None: the directory of whichever worker runs a step.
            needs: Names of the secrets that the pipelines of ``bundles`` need here, by pipeline. If one is
                missing, a run by name fails before it does anything.
            allow: Patterns of activity names, such as ``file.*``; empty: all.
            vault: Where secrets are looked up before the environment.
        """
        self._activities = tuple(activities)
        self._bundles = dict(bundles or {})
        self._directory = directory
        self._needs = dict(needs or {})
        self._allow = tuple(allow)
        self._vault = vault

    def configure_worker(self, config: WorkerConfig) -> WorkerConfig:
        """Add the interpreter, activities and interceptors to those of the worker."""
        settings: dict[str, Any] = dict(config)
        namespace = Namespace(config["client"])
        limits = [Allowing(self._allow, LOAD)] if self._allow else []
        served = Served()
        if settings["identity"] is None:
            # Processes in two containers may have the same number, and the same host name.
            settings["identity"] = f"{config['client'].identity}-{uuid.uuid4().hex[:8]}"
            served = Served(settings["identity"])
        own = [PipelineInterceptor(config["client"], self._vault), OriginInterceptor(namespace), served]
        settings["interceptors"] = [*limits, *own, *settings["interceptors"]]
        settings["workflows"] = [Interpreter, *settings["workflows"]]
        settings["activities"] = self._served(settings["activities"])
        settings |= {name: value for name, value in _TUNED.items() if settings[name] == _SDK[name]}
        if settings["unsandboxed_workflow_runner"] is _SDK["unsandboxed_workflow_runner"]:
            settings["unsandboxed_workflow_runner"] = DetailedRunner(served)
        if settings["activity_executor"] is None:
            threads = ThreadPoolExecutor(_threads(settings), thread_name_prefix="activity")
            settings["activity_executor"] = threads
        return cast("WorkerConfig", settings)

    async def run_worker(self, worker: Worker, next: Callable[[Worker], Awaitable[None]]) -> None:  # noqa: A002
        """While the worker runs, share connections among activities and remove old records."""
        async with shared_connections(), sweeping(Namespace(worker.client))():
            await next(worker)
        for one in worker.config(active_config=True)["interceptors"]:
            if isinstance(one, Served):
                await one.give_back(worker.client)

    def configure_replayer(self, config: ReplayerConfig) -> ReplayerConfig:
        """Add what a replay of pipeline runs needs."""
        settings: dict[str, Any] = dict(config)
        settings["workflows"] = [Interpreter, *settings["workflows"]]
        settings["interceptors"] = [WorkflowSide(), *settings["interceptors"]]
        if type(settings["unsandboxed_workflow_runner"]) is UnsandboxedWorkflowRunner:
            settings["unsandboxed_workflow_runner"] = DetailedRunner()
        return cast("ReplayerConfig", settings)

    def run_replayer(
        self,
        replayer: Replayer,
        histories: AsyncIterator[WorkflowHistory],
        next: Callable[  # noqa: A002
            [Replayer, AsyncIterator[WorkflowHistory]],
            AbstractAsyncContextManager[AsyncIterator[WorkflowReplayResult]],
        ],
    ) -> AbstractAsyncContextManager[AsyncIterator[WorkflowReplayResult]]:
        """Add nothing."""
        return next(replayer, histories)

    def _served(self, given: Sequence[Callable[..., Any]]) -> list[Callable[..., Any]]:
        """Return the worker's own activities and those of pipelines, ready to be registered."""
        names = {name_of(one) for one in given if is_activity(one)}
        more = [one for one in self._activities if name_of(one) not in names]
        served = [*given, *more]
        unknown = [] if None in {*names, *map(name_of, more)} else [_unknown]
        return [*map(taken_raw, served), self._loader(), *unknown]

    def _loader(self) -> Callable[..., Any]:
        @activity.defn(name=LOAD)
        async def load(name: str) -> Any:
            if name not in self._bundles:
                known = ", ".join(sorted(self._bundles)) or "none"
                raise ApplicationError(
                    f'this worker does not serve the pipeline "{name}"; it serves: {known}',
                    type=errors.UNKNOWN_PIPELINE,
                    # Over the task queue, the request might reach another worker that knows it.
                    non_retryable=activity.info().is_local,
                )
            await in_thread(lambda: _check_secrets(self._needs.get(name, ())))
            bundle = self._bundles[name]
            answer = {"bundle": msgspec.json.decode(bundle), "directory": self._directory}
            if (signer := signatures.current()) is not None:
                workflow_id = activity.info().workflow_id or ""
                answer["signature"] = signer.bundle(workflow_id, name, bundle, self._directory)
            return answer

        return load


@activity.defn(dynamic=True)
async def _unknown(arguments: Sequence[RawValue]) -> None:  # noqa: ARG001 - as the SDK wants it
    """Fail activities that the worker does not know, which the SDK would retry."""
    info = activity.info()
    raise ApplicationError(
        unknown_activity(info.activity_type, info.task_queue),
        type=errors.UNKNOWN_ACTIVITY,
        # Asked over the task queue again, the same worker would give the same answer.
        non_retryable=True,
    )


def _threads(settings: Mapping[str, Any]) -> int:
    """Return a thread for each activity that may run: time spent waiting for a thread would count."""
    slots: int = settings.get("max_concurrent_activities") or (_MANY if settings.get("tuner") else SLOTS)
    return slots


def _check_secrets(names: Sequence[str]) -> None:
    try:
        for name in names:
            secret_value(name)
    except SecretNotFoundError as error:
        raise ApplicationError(str(error), type=errors.SECRET_NOT_FOUND, non_retryable=True) from None
