"""Check a pipeline file, start it, follow it, and print its output as JSON.

The output goes to standard output, everything for people to standard error. Ctrl-C
cancels the run, with undo; Ctrl-C again detaches.
"""

import argparse
import asyncio
import os
import secrets
import shlex
from typing import TYPE_CHECKING, Any

from pipeline_runner.activities import extras
from pipeline_runner.activities.catalogue import Catalogue
from pipeline_runner.cli import console, diagnose, logs, options, session
from pipeline_runner.cli.exit_codes import ExitCode
from pipeline_runner.cli.main import CommandError
from pipeline_runner.core import model
from pipeline_runner.core.expressions import render_text
from pipeline_runner.core.parsing import ExpressionError
from pipeline_runner.language.resolve import Loaded

if TYPE_CHECKING:
    from temporalio.client import Client, WorkflowHandle

    from pipeline_runner.engine.client import Start


MAX_ID = 1000
"""Bytes that Temporal takes as a workflow id (``limit.maxIDLength``)."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("file", help="a pipeline file")
    parser.add_argument(
        "-i",
        "--input",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an input; wins over --input-file",
    )
    parser.add_argument("--input-file", metavar="FILE", help="inputs, as YAML or JSON")
    parser.add_argument(
        "--workflow-id", metavar="ID", help="default: the pipeline's, else its name and a random part"
    )
    parser.add_argument(
        "--detach", action="store_true", help="start the run, print its id, and leave it to other workers"
    )
    options.add_following(parser)
    options.add_activities(parser)
    parser.add_argument(
        "--task-queue",
        metavar="QUEUE",
        help="where the run goes on a configured server; default: the pipeline's, else pipelines",
    )
    options.add_server(parser)


def execute(args: argparse.Namespace) -> ExitCode:
    """Run the command."""
    loaded = diagnose.loaded(args.file, args.activities)
    assert loaded.bundle is not None
    pipeline = loaded.bundle.pipelines[loaded.bundle.root]
    inputs = diagnose.inputs_of(pipeline, args.input, args.input_file)
    workflow_id = _workflow_id(args.workflow_id, pipeline, inputs)
    if args.report is not None:
        options.check_report(args.report)
    with session.place(args) as where:
        return asyncio.run(_run(args, loaded, pipeline, inputs, workflow_id, where))


def _workflow_id(chosen: str | None, pipeline: model.Pipeline, inputs: dict[str, Any]) -> str:
    if chosen is None and pipeline.workflow_id is None:
        return f"{pipeline.name}-{secrets.token_hex(4)}"
    try:
        made = render_text(pipeline.workflow_id or "", {"inputs": inputs}) if chosen is None else chosen
    except ExpressionError as error:
        raise CommandError(f"the workflow id cannot be made: {error.message}") from None
    if not 0 < len(made.encode()) <= MAX_ID:
        raise CommandError(
            f"a workflow id has 1 to {MAX_ID} bytes, not {len(made.encode())}: nothing was started"
        )
    return made


async def _run(
    args: argparse.Namespace,
    loaded: Loaded,
    pipeline: model.Pipeline,
    inputs: dict[str, Any],
    workflow_id: str,
    where: session.Place,
) -> ExitCode:
    logs.follow(verbose=args.verbose)
    assert loaded.bundle is not None
    with session.interrupts() as caught:
        return await _start_and_follow(args, loaded, pipeline, inputs, workflow_id, where, caught)


async def _start_and_follow(
    args: argparse.Namespace,
    loaded: Loaded,
    pipeline: model.Pipeline,
    inputs: dict[str, Any],
    workflow_id: str,
    where: session.Place,
    caught: session.Interrupts,
) -> ExitCode:
    from pipeline_runner.cli.following import follow
    from pipeline_runner.engine.client import Start
    from pipeline_runner.engine.worker import DEFAULT_TASK_QUEUE

    assert loaded.bundle is not None
    client = await session.connected(where)
    shared = args.task_queue or pipeline.task_queue or DEFAULT_TASK_QUEUE
    own = where.embedded is not None and not args.detach
    queue = (pipeline.task_queue or f"run/{workflow_id}") if own else shared
    what = Start(
        name=pipeline.name,
        bundle=model.encode(loaded.bundle),
        inputs=inputs,
        workflow_id=workflow_id,
        task_queue=queue,
        description=pipeline.description,
        memo=_memo(loaded, queue) if own else None,
        directory=None if where.embedded is None else os.getcwd(),
    )
    if not own:
        await _expect_workers(client, where, queue)
        caught.check()
        handle = await _started(client, what)
        if args.detach:
            console.result(f"{workflow_id}\n")
            return ExitCode.OK
        return await follow(client, handle, caught, where, cancels=True, report_file=args.report)
    activities = session.activities_of(loaded.modules)
    _expect_extras(loaded)
    async with session.serving(client, _queues(loaded, queue), activities):
        caught.check()
        handle = await _started(client, what)
        return await follow(client, handle, caught, where, cancels=True, report_file=args.report)


def _memo(loaded: Loaded, queue: str) -> dict[str, Any]:
    """Return what ``watch`` needs to take up the run in another process."""
    return {
        "cwd": os.getcwd(),
        "modules": session.noted(loaded.modules),
        "queues": _queues(loaded, queue),
    }


def _queues(loaded: Loaded, queue: str) -> list[str]:
    """Return the task queues that a process serves which runs the pipeline all by itself.

    Queues whose activities somebody else's worker serves are left to that worker.
    """
    assert loaded.bundle is not None
    found = {queue: None}
    for pipeline in loaded.bundle.pipelines.values():
        if pipeline.task_queue:
            found[pipeline.task_queue] = None
        for call in calls_of(pipeline):
            if call.task_queue and _served_here(call, loaded.catalogue):
                found[call.task_queue] = None
    return list(found)


def calls_of(pipeline: model.Pipeline) -> list[model.ActivityCall | model.ChildCall]:
    """Return every activity and child that a pipeline's steps and compensations name."""
    steps = (*pipeline.steps, *pipeline.finally_)
    actions: list[model.Action] = [step.action for step in steps]
    actions += [s.compensate.action for s in steps if isinstance(s.compensate, model.Compensation)]
    return [action for action in actions if isinstance(action, model.ActivityCall | model.ChildCall)]


def _served_here(call: model.ActivityCall | model.ChildCall, catalogue: Catalogue) -> bool:
    if isinstance(call, model.ChildCall):
        return True
    entry = catalogue.get(call.name)
    return entry is not None and entry.implementation is not None


def _expect_extras(loaded: Loaded) -> None:
    """Refuse a run that this process would have to serve and cannot.

    Raises:
        CommandError: An activity's extra is not installed.
    """
    assert loaded.bundle is not None
    for pipeline in loaded.bundle.pipelines.values():
        for call in calls_of(pipeline):
            entry = loaded.catalogue.get(call.name) if isinstance(call, model.ActivityCall) else None
            if entry and entry.extra and not extras.installed(entry.extra):
                problem = extras.missing(entry.name, entry.extra)
                raise CommandError(f"{problem}: {extras.remedy(entry.extra)}. Nothing was started")


async def _expect_workers(client: "Client", where: session.Place, queue: str) -> None:
    from pipeline_runner.engine.client import has_workers
    from pipeline_runner.engine.embedded import server_stays

    if where.embedded is not None and not server_stays(where.embedded.folder):
        raise CommandError(
            "--detach needs a server that stays: start one with run-pipeline server,"
            " or name one with --address"
        )
    if not await has_workers(client, queue):
        console.tell(
            f'no worker takes runs from the task queue "{queue}": start one with'
            f" run-pipeline worker --task-queue {shlex.quote(queue)}"
        )


async def _started(client: "Client", what: "Start") -> "WorkflowHandle[Any, Any]":
    from temporalio.service import RPCError

    from pipeline_runner.engine.client import ConflictError, TooLargeError, start

    try:
        handle, new = await start(client, what)
    except (ConflictError, TooLargeError) as error:
        raise CommandError(str(error)) from None
    except RPCError as error:
        message = f"the run cannot be started: {error.message}"
        raise CommandError(message, ExitCode.UNREACHABLE) from None
    console.tell(f"{'run' if new else 'following the open run'}: {what.workflow_id}")
    return handle
