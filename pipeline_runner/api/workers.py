"""Workers as programs have them: a plugin for a worker of one's own, and a worker for those who have none."""

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
    """A plugin that makes a ``temporalio.worker.Worker`` serve pipelines beside whatever else it serves.

    The worker runs pipelines that clients start with :class:`Runner`, those of ``pipelines`` by their
    names too, and has the built-in activities. Put it last among ``plugins``: it comes before the worker's
    interceptors. Where the worker has the SDK's default for them, it shortens
    ``sticky_queue_schedule_to_start_timeout`` to a second and what holds back heartbeats to 0.2 s, and makes
    the ``activity_executor``.
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
        """Serve pipelines.

        Args:
            pipelines: What clients can start by name, with the activities that were given at their loading.
            activities: Further ones: names of Python modules, or activities themselves. Those of the
                worker, and then these, win over others of the same name.
            secrets: Returns the value of a secret by its name, or None if it has none of that name:
                then the environment and the mounted files are asked. It is called in a thread, for each
                attempt of a step that has secrets. What it raises fails the attempt, which is then retried.
            allow: Patterns of the names of activities that may run, such as ``file.*``; empty: all.
            directory: What relative paths of runs by name refer to; None: the directory of whichever
                worker takes a step.

        Raises:
            InvalidPipeline: A pipeline has errors.
            UsageError: Two pipelines have the same name, or a module has no activities that can be served.
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
    """Return a worker that serves pipelines while it is run, or in an ``async with``.

    Args:
        client: A connected client.
        pipelines: See :class:`PipelinePlugin`, as of the next four.
        task_queue: Where it listens.
        activities: See there.
        secrets: See there.
        allow: See there.
        directory: See there.
        graceful_shutdown_timeout: How long running activities may go on when the worker stops.
        settings: Further settings of :class:`temporalio.worker.Worker`: ``workflows``, ``interceptors``,
            ``activity_executor`` and the like.

    Raises:
        InvalidPipeline: A pipeline has errors.
        UsageError: Two pipelines have the same name, or a module has no activities that can be served.
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
