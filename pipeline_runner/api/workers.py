"""Workers for programs: a plugin for an existing worker, and a function that creates one."""

import os
from collections.abc import Iterable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from temporalio.client import Client
from temporalio.worker import Worker

from pipeline_runner.activities.catalogue import providers
from pipeline_runner.activities.catalogue.providers import Activity
from pipeline_runner.activities.toolkit.secret_values import Source
from pipeline_runner.api.pipelines import Pipeline
from pipeline_runner.core import model
from pipeline_runner.engine.worker import DEFAULT_TASK_QUEUE, ServingPlugin
from pipeline_runner.language.workspace import UsageError


class PipelinePlugin(ServingPlugin):
    """A plugin with which a ``temporalio.worker.Worker`` also serves pipelines.

    The worker runs pipelines that clients start with :class:`Runner`, serves those of ``pipelines`` by name
    too, and has the built-in activities. Put the plugin last in ``plugins``: its interceptors come before the
    worker's. Where the worker uses the SDK's defaults, the plugin shortens
    ``sticky_queue_schedule_to_start_timeout`` to 1 second and the heartbeat throttle intervals to 0.2 s, and
    creates the ``activity_executor``.
    """

    def __init__(
        self,
        pipelines: Iterable[Pipeline] = (),
        *,
        activities: Iterable[str | Activity] = (),
        secrets: Source | None = None,
        allow: Sequence[str] = (),
        directory: str | Path | None = None,
    ) -> None:
        """Create the plugin.

        Args:
            pipelines: Pipelines that clients can start by name, with the activities they were loaded with.
            activities: More activities: names of Python modules, or the activities themselves. The worker's
                own activities, and then these, take precedence over others with the same name.
            secrets: Returns the value of a secret by name, or None to look it up in the environment and in
                mounted files. It is called in a thread, for each attempt of a step that has secrets. If it
                raises an exception, the attempt fails and is retried.
            allow: Patterns of the activities that may run, such as ``file.*``; empty: all.
            directory: The directory that relative paths of runs by name refer to; None: the directory of
                whichever worker runs a step.

        Raises:
            InvalidPipeline: A pipeline has errors.
            UsageError: Two pipelines have the same name, or a module has no activities to serve.
        """
        served = _by_name(pipelines)
        super().__init__(
            activities=_activities([*served.values()], tuple(activities)),
            bundles={name: model.encode(one.bundle) for name, one in served.items()},
            needs={name: one.secrets for name, one in served.items()},
            allow=allow,
            directory=None if directory is None else os.path.abspath(directory),
            vault=secrets,
        )


def _by_name(pipelines: Iterable[Pipeline]) -> dict[str, Pipeline]:
    found: dict[str, Pipeline] = {}
    for one in pipelines:
        other = found.setdefault(one.name, one)
        if other is not one:
            raise UsageError(f'{other.path} and {one.path} are both named "{one.name}": names must be unique')
    return found


def _activities(pipelines: Iterable[Pipeline], given: Sequence[str | Activity]) -> list[Activity]:
    """Return what the worker serves; what is nearer to it wins over others of the same name."""
    modules = [module for one in pipelines for module in one.loaded.modules]
    modules += [providers.Provider(one) for one in given if isinstance(one, str)]
    try:
        found = {providers.name_of(one): one for one in providers.served(modules)}
    except providers.ProviderError as error:
        raise UsageError(str(error)) from None
    found |= _distinct(function for one in pipelines for function in one.activities)
    found |= _distinct(one for one in given if not isinstance(one, str))
    return list(found.values())


def _distinct(functions: Iterable[Activity]) -> dict[str | None, Activity]:
    found: dict[str | None, Activity] = {}
    for function in functions:
        if not providers.is_activity(function):
            raise UsageError(f"{function!r} is not an activity: decorate it with @activity.defn")
        name = providers.name_of(function)
        if found.setdefault(name, function) != function:
            raise UsageError(f'two activities are named "{name}": {found[name]!r} and {function!r}')
    return found


def worker(
    client: Client,
    pipelines: Iterable[Pipeline] = (),
    *,
    task_queue: str = DEFAULT_TASK_QUEUE,
    activities: Iterable[str | Activity] = (),
    secrets: Source | None = None,
    allow: Sequence[str] = (),
    directory: str | Path | None = None,
    graceful_shutdown_timeout: timedelta = timedelta(seconds=5),
    **settings: Any,
) -> Worker:
    """Return a worker that serves pipelines while it runs, or within an ``async with`` block.

    Args:
        client: A connected client.
        pipelines: See :class:`PipelinePlugin`.
        task_queue: The task queue that the worker polls.
        activities: See :class:`PipelinePlugin`.
        secrets: See :class:`PipelinePlugin`.
        allow: See :class:`PipelinePlugin`.
        directory: See :class:`PipelinePlugin`.
        graceful_shutdown_timeout: How long running activities may continue when the worker stops.
        settings: Further arguments of :class:`temporalio.worker.Worker`, such as ``workflows``,
            ``interceptors`` and ``activity_executor``.

    Raises:
        InvalidPipeline: A pipeline has errors.
        UsageError: Two pipelines have the same name, or a module has no activities to serve.
    """
    plugin = PipelinePlugin(
        pipelines, activities=activities, secrets=secrets, allow=allow, directory=directory
    )
    return Worker(
        client,
        task_queue=task_queue,
        graceful_shutdown_timeout=graceful_shutdown_timeout,
        plugins=[*settings.pop("plugins", ()), plugin],
        **settings,
    )
