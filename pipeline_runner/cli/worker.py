"""Serve runs, pipelines by name, and activities, until stopped.

Any Temporal client can start the pipelines that are found in the given files and folders
by their name, with plain inputs.
"""

import argparse
import asyncio
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

from pipeline_runner.activities.door import Provider
from pipeline_runner.cli import console, diagnose, logs, options, session
from pipeline_runner.cli.exit_codes import ExitCode
from pipeline_runner.cli.main import CommandError
from pipeline_runner.core import model
from pipeline_runner.language.resolve import Loaded, UsageError, check_paths

GRACE = timedelta(seconds=30)
"""How long running activities may go on when the worker is stopped."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    options.add_serving(parser)
    options.add_server(parser)


def execute(args: argparse.Namespace) -> ExitCode:
    """Run the command."""
    found = served(args.path, args.activities)
    with session.place(args) as where:
        return asyncio.run(serve(args, found, where))


def served(paths: Iterable[str], modules: list[str]) -> list[Loaded]:
    """Load every pipeline to be served.

    Raises:
        CommandError: One has errors, or two have the same name.
    """
    found: dict[str, tuple[str, Loaded]] = {}
    for file in _files(paths, modules):
        loaded = diagnose.loaded(file, modules)
        assert loaded.bundle is not None
        name = loaded.bundle.pipelines[loaded.bundle.root].name
        if name in found:
            raise CommandError(f'{found[name][0]} and {file} are both named "{name}": names must differ here')
        found[name] = (file, loaded)
    return [loaded for _, loaded in found.values()]


def _files(paths: Iterable[str], modules: list[str]) -> list[str]:
    try:
        checked = check_paths(paths, modules=modules)
    except UsageError as error:
        raise CommandError(str(error)) from None
    for problem in checked.unreadable:
        raise CommandError(problem)
    return list(checked.files)


async def serve(args: argparse.Namespace, found: list[Loaded], where: session.Place) -> ExitCode:
    """Serve until a signal comes."""
    from pipeline_runner.engine.worker import DEFAULT_TASK_QUEUE

    logs.serve(verbose=args.verbose)
    client = await session.connected(where)
    # Those of the command line are among those of every pipeline.
    modules = [m for loaded in found for m in loaded.modules] or list(map(Provider, args.activities))
    bundles = {
        loaded.bundle.pipelines[loaded.bundle.root].name: model.encode(loaded.bundle)
        for loaded in found
        if loaded.bundle is not None
    }
    queues = [args.task_queue or DEFAULT_TASK_QUEUE]
    if args.task_queue is None:
        queues += [q for loaded in found for q in _own_queues(loaded)]
    activities = session.activities_of(modules)
    stop = asyncio.Event()
    directory = None if where.embedded is None else str(Path.cwd())
    async with session.serving(client, queues, activities, bundles, directory, graceful_shutdown=GRACE):
        with session.interrupts() as caught:
            caught.handler = lambda _: stop.set()
            console.tell(f"serving the task queue {', '.join(dict.fromkeys(queues))}")
            if bundles:
                console.tell(f"pipelines by name: {', '.join(sorted(bundles))}")
            await stop.wait()
            console.tell("stopping")
    return ExitCode.OK


def _own_queues(loaded: Loaded) -> list[str]:
    assert loaded.bundle is not None
    return [p.task_queue for p in loaded.bundle.pipelines.values() if p.task_queue]
