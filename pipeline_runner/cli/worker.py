"""Serve runs, pipelines by name, and activities until stopped.

Any Temporal client can start the pipelines in the given files and directories by name, with
plain inputs.
"""

import argparse
import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from pipeline_runner.activities.catalogue.providers import Provider
from pipeline_runner.cli import console, diagnose, logs, options, session
from pipeline_runner.cli.exit_codes import ExitCode
from pipeline_runner.cli.main import CommandError
from pipeline_runner.core import model
from pipeline_runner.language.needs import needs_of, served_here
from pipeline_runner.language.workspace import Loaded, UsageError, check_paths

GRACE = timedelta(seconds=30)
"""How long running activities may continue when the worker is stopped."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    options.add_serving(parser)
    parser.add_argument(
        "--served-only",
        action="store_true",
        help="run only the pipelines of PATH, started by name; refuse everything else that clients start",
    )
    parser.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="PATTERN",
        help="run only activities whose names match PATTERN, such as file.*",
    )
    options.add_server(parser)


def execute(args: argparse.Namespace) -> ExitCode:
    """Run the command."""
    found = load_served(args.path, args.activities)
    with session.place(args) as where:
        return session.run_loop(serve(args, found, where))


def load_served(paths: Iterable[str], modules: list[str]) -> list[Loaded]:
    """Load every pipeline to serve.

    Raises:
        CommandError: One has errors, or two have the same name.
    """
    found: dict[str, tuple[str, Loaded]] = {}
    for file in _files(paths, modules):
        loaded = diagnose.loaded(file, modules)
        assert loaded.bundle is not None
        name = loaded.bundle.pipelines[loaded.bundle.root].name
        if name in found:
            raise CommandError(f'{found[name][0]} and {file} are both named "{name}": names must be unique')
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


async def serve(args: argparse.Namespace, found: list[Loaded], where: session.Target) -> ExitCode:
    """Serve until there is a signal.

    Raises:
        CommandError: The pipelines cannot be served.
    """
    limits = Limits.of(args)
    limits.check(found)
    logs.serve(verbose=args.verbose)
    client = await session.connect(where, served_only=limits.served_only)
    # The modules of the command line are among those of every pipeline.
    modules = [m for loaded in found for m in loaded.modules] or list(map(Provider, args.activities))
    needs = {_name(loaded): needs_of(loaded) for loaded in found}
    bundles = {_name(loaded): model.encode(loaded.bundle) for loaded in found if loaded.bundle is not None}
    queues = _queues(args, found)
    workers = session.workers(
        client,
        queues,
        activities=session.activities_of(modules),
        bundles=bundles,
        directory=None if where.embedded is None else str(Path.cwd()),
        graceful_shutdown=GRACE,
        needs={name: need.secrets for name, need in needs.items()},
        allow=limits.allow,
    )
    for name, need in needs.items():
        for missing in need.missing():
            console.tell(f"warning: {name}: {missing}")
    async with session.running(workers):
        await wait_until_stopped(_ready_lines(queues, bundles, where))
    return ExitCode.OK


async def wait_until_stopped(lines: Iterable[str]) -> None:
    """Report that the worker is ready, and wait for a signal."""
    stop = asyncio.Event()
    with session.interrupts() as caught:
        caught.handler = lambda _: stop.set()
        for line in lines:
            console.tell(line)
        await stop.wait()
        console.tell("stopping")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a worker runs, and what it refuses."""

    served_only: bool = False
    allow: tuple[str, ...] = ()

    @classmethod
    def of(cls, args: argparse.Namespace) -> "Limits":
        """Return the limits in the arguments of ``worker``. Other commands have none."""
        return cls(served_only=getattr(args, "served_only", False), allow=tuple(getattr(args, "allow", ())))

    def check(self, found: list[Loaded]) -> None:
        """Check whether the pipelines can be served within the limits.

        Raises:
            CommandError: They cannot.
        """
        if self.served_only and not found:
            raise CommandError("--served-only needs pipelines to serve: pass files or directories")
        for loaded in found if self.allow else ():
            assert loaded.bundle is not None
            for pipeline in loaded.bundle.pipelines.values():
                for call in model.calls_of(pipeline):
                    self._check_call(_name(loaded), call, loaded)

    def _check_call(self, name: str, call: model.Call, loaded: Loaded) -> None:
        from pipeline_runner.engine.allowing import is_allowed

        if (
            isinstance(call, model.ActivityCall)
            and served_here(call, loaded.catalogue)
            and not is_allowed(call.name, self.allow)
        ):
            patterns = ", ".join(self.allow)
            raise CommandError(
                f'the pipeline "{name}" needs "{call.name}", but --allow allows only {patterns}'
            )


def _name(loaded: Loaded) -> str:
    assert loaded.bundle is not None
    return loaded.bundle.pipelines[loaded.bundle.root].name


def _queues(args: argparse.Namespace, found: list[Loaded]) -> list[str]:
    from pipeline_runner.engine.worker import DEFAULT_TASK_QUEUE

    if args.task_queue is not None:
        return [args.task_queue]
    named = [
        pipeline.task_queue
        for loaded in found
        if loaded.bundle is not None
        for pipeline in loaded.bundle.pipelines.values()
        if pipeline.task_queue
    ]
    return list(dict.fromkeys([DEFAULT_TASK_QUEUE, *named]))


def _ready_lines(queues: Iterable[str], bundles: Iterable[str], where: session.Target) -> Iterator[str]:
    yield f"serving the task queue {', '.join(queues)}"
    names = ", ".join(sorted(bundles))
    if names and where.embedded is not None:
        yield f"pipelines by name: {names}"
        yield "anyone who can reach the server can start them, including other users of this machine"
    elif names:
        yield f"pipelines by name: {names}"
    elif where.embedded is not None:
        yield "no pipelines by name: this worker runs only what you start with run-pipeline run --detach"
