"""Checks a pipeline file, starts its run, and follows it."""

import argparse
import os
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from pipeline_runner.cli import console, diagnose, logs, options, session
from pipeline_runner.cli.exit_codes import ExitCode
from pipeline_runner.cli.main import CommandError
from pipeline_runner.core import model
from pipeline_runner.engine.workflow_ids import WorkflowIdError, workflow_id_of
from pipeline_runner.language.needs import Needs, needs_of, served_here
from pipeline_runner.language.workspace import Loaded

if TYPE_CHECKING:
    from temporalio.client import Client, WorkflowHandle

    from pipeline_runner.engine.client import Start
    from pipeline_runner.server.embedded import Joining


def check_and_run(args: argparse.Namespace, server: "Joining | None") -> ExitCode:
    """Check a file and its inputs, run it, and return the command's exit code.

    Args:
        args: The command's arguments.
        server: The embedded server, if it is already booting.

    Raises:
        CommandError: Nothing can be started.
    """
    loaded = diagnose.loaded(args.file, args.activities)
    assert loaded.bundle is not None
    pipeline = loaded.bundle.pipelines[loaded.bundle.root]
    inputs = diagnose.inputs_of(pipeline, args.input, args.input_file)
    workflow_id = _workflow_id(args.workflow_id, pipeline, inputs)
    if args.report is not None:
        options.check_report(args.report)
    console.show_for_now("connecting to Temporal")
    with session.place(args, server) as where:
        started = partial(_start_and_follow, args, loaded, pipeline, inputs, workflow_id, where)
        return session.run_loop(session.interruptible(started))


def _workflow_id(chosen: str | None, pipeline: model.Pipeline, inputs: dict[str, Any]) -> str:
    try:
        return workflow_id_of(pipeline, inputs, chosen)
    except WorkflowIdError as error:
        raise CommandError(str(error)) from None


async def _start_and_follow(
    args: argparse.Namespace,
    loaded: Loaded,
    pipeline: model.Pipeline,
    inputs: dict[str, Any],
    workflow_id: str,
    where: session.Target,
    caught: session.Interrupts,
) -> ExitCode:
    from pipeline_runner.engine.client import Start
    from pipeline_runner.engine.worker import DEFAULT_TASK_QUEUE
    from pipeline_runner.engine.workflow.calls import fitting_id

    logs.follow(verbose=args.verbose)
    assert loaded.bundle is not None
    own = where.embedded is not None and not args.detach
    needs = needs_of(loaded)
    if own and (missing := needs.missing()):
        raise CommandError(f"{'; '.join(missing)}. Nothing was started")
    client = await session.connect(where, identity=args.identity)
    shared = args.task_queue or pipeline.task_queue or DEFAULT_TASK_QUEUE
    queue = fitting_id(f"run/{workflow_id}") if own else shared
    what = Start(
        name=pipeline.name,
        bundle=model.encode(_on_one_queue(loaded) if own else loaded.bundle),
        inputs=inputs,
        workflow_id=workflow_id,
        task_queue=queue,
        description=pipeline.description,
        memo=_memo(loaded, queue, needs) if own else None,
        directory=None if where.embedded is None else os.getcwd(),
    )
    if not own:
        await _expect_workers(client, where, queue)
        caught.check()
        handle = await _started(client, what)
        if args.detach:
            console.result(f"{workflow_id}\n")
            return ExitCode.OK
        return await _follow(args, client, handle, caught, where, {})
    activities = session.activities_of(loaded.modules)
    workers = session.workers(client, [queue], activities=activities)
    caught.check()
    # Before anything is served: an open run with that id may be another one.
    handle = await _started(client, what)
    async with session.running(workers):
        return await _follow(args, client, handle, caught, where, dict(what.memo or {}))


async def _follow(
    args: argparse.Namespace,
    client: "Client",
    handle: "WorkflowHandle[Any, Any]",
    caught: session.Interrupts,
    where: session.Target,
    memo: dict[str, Any],
) -> ExitCode:
    """Follow a run to its end and, if it was a rehearsal, undo it."""
    from pipeline_runner.cli.following import follow

    code = await follow(client, handle, caught, where, cancels=True, report_file=args.report)
    if not args.then_undo or code not in (ExitCode.OK, ExitCode.DIRTY):
        return code
    from pipeline_runner.cli.undo import undo_and_follow

    undone = await undo_and_follow(client, handle.id, caught, where, memo)
    return undone if code is ExitCode.OK else code


def _memo(loaded: Loaded, queue: str, needs: Needs) -> dict[str, Any]:
    """Return what ``watch`` needs to resume the run in another process."""
    return {
        "cwd": os.getcwd(),
        "modules": session.noted(loaded.modules),
        "queues": [queue],
        "needs": msgspec.to_builtins(needs),
    }


def _on_one_queue(loaded: Loaded) -> model.Bundle:
    """Return the bundle for a run that one process serves alone, on its own task queue.

    Queues that files name may be shared with other commands, whose workers have other modules. The
    queues of activities of other workers stay.
    """
    assert loaded.bundle is not None

    def on_one_queue(call: model.Call) -> model.Call:
        return replace(call, task_queue=None) if served_here(call, loaded.catalogue) else call

    pipelines = {
        key: replace(model.with_calls(pipeline, on_one_queue), task_queue=None)
        for key, pipeline in loaded.bundle.pipelines.items()
    }
    return replace(loaded.bundle, pipelines=pipelines)


async def _expect_workers(client: "Client", where: session.Target, queue: str) -> None:
    from pipeline_runner.engine.client import has_workers
    from pipeline_runner.server.embedded import server_stays

    if where.embedded is not None and not server_stays(where.embedded.folder):
        raise CommandError(
            "--detach needs a server that keeps running: start one with run-pipeline server, or use --address"
        )
    if not await has_workers(client, queue):
        console.tell(
            f'no worker serves the task queue "{queue}": start one with'
            f" {where.command('worker', '--task-queue', queue)}"
        )


async def _started(client: "Client", what: "Start") -> "WorkflowHandle[Any, Any]":
    from temporalio.service import RPCError

    from pipeline_runner.engine.client import ConflictError, TooLargeError, start
    from pipeline_runner.engine.codecs import CodecError

    try:
        handle, new = await start(client, what)
    except CodecError as error:
        raise CommandError(f"{error}. Nothing was started") from None
    except (ConflictError, TooLargeError) as error:
        raise CommandError(str(error)) from None
    except RPCError as error:
        message = f"the run cannot be started: {error.message}"
        raise CommandError(message, ExitCode.UNREACHABLE) from None
    console.tell(f"{'run' if new else 'following the open run'}: {what.workflow_id}")
    return handle
