"""Follow a run to its end, and print its output as JSON.

If the run was interrupted on the embedded server, this command starts a worker and resumes it.
Ctrl-C leaves the run as it is. To cancel it, use run-pipeline cancel RUN.
"""

import argparse
import os
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from pipeline_runner.cli import console, logs, options, session
from pipeline_runner.cli.exit_codes import ExitCode
from pipeline_runner.cli.main import CommandError
from pipeline_runner.language.needs import Needs

if TYPE_CHECKING:
    from collections.abc import Callable

    from temporalio.client import Client, WorkflowExecutionDescription, WorkflowHandle

    from pipeline_runner.server.embedded import Embedded


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("run", metavar="RUN", help="the workflow id")
    options.add_following(parser)
    options.add_server(parser)


def execute(args: argparse.Namespace) -> ExitCode:
    """Run the command."""
    if args.report is not None:
        options.check_report(args.report)
    with session.place(args) as where:
        return session.run_loop(session.interruptible(partial(_find_and_follow, args, where)))


async def _find_and_follow(
    args: argparse.Namespace, where: session.Target, caught: session.Interrupts
) -> ExitCode:
    from pipeline_runner.cli.following import follow

    logs.follow(verbose=args.verbose)
    client = await session.connect(where)
    handle, description = await session.find_run(client, args.run)
    await check_readable(client, handle)
    memo = await memo_of(client, description, where.embedded)
    if memo is None:
        return await follow(client, handle, caught, where, cancels=False, report_file=args.report)
    activities = activities_of_memo(memo)
    async with session.running(session.workers(client, memo["queues"], activities=activities)):
        console.tell(f"run: {args.run}")
        return await follow(client, handle, caught, where, cancels=False, report_file=args.report)


def activities_of_memo(memo: dict[str, Any]) -> "list[Callable[..., Any]]":
    """Go where the run belongs, and return what serves it.

    Raises:
        CommandError: Something that the run needs is missing.
    """
    untouched = "The run is unchanged"
    try:
        os.chdir(memo["cwd"])
    except OSError as error:
        reason = f"the run's directory {memo['cwd']} cannot be used: {error.strerror}"
        raise CommandError(f"{reason}. {untouched}") from None
    if missing := msgspec.convert(memo.get("needs", {}), Needs).missing():
        raise CommandError(f"{'; '.join(missing)}. {untouched}")
    try:
        return session.activities_of(session.from_memo(memo))
    except CommandError as error:
        raise CommandError(f"{error}. {untouched}", error.code) from None


async def check_readable(client: "Client", handle: "WorkflowHandle[Any, Any]") -> None:
    """Look whether this command can decode what the run was started with.

    Raises:
        CommandError: It cannot.
    """
    from pipeline_runner.engine.converting import plain

    async for event in handle.fetch_history_events(page_size=1):
        for payload in event.workflow_execution_started_event_attributes.input.payloads:
            if await plain(client.data_converter, payload) is None:
                raise CommandError(
                    f"the payloads of the run {handle.id} are encoded:"
                    " pass the codec that it was started with (--codec). The run is unchanged"
                )
        break


async def memo_of(
    client: "Client",
    description: "WorkflowExecutionDescription",
    embedded: "Embedded | None",
    *,
    ended: bool = False,
) -> dict[str, Any] | None:
    """Return what the command that started a run noted down for this one; None: it is not ours to serve.

    With ``ended``, the run may have ended. What was noted says where to go and which modules to import, so it
    must come from this user.
    """
    from pipeline_runner.engine.client import MEMO, is_open
    from pipeline_runner.engine.converting import json_of
    from pipeline_runner.engine.workflow.signatures import MEMO_FIELD, Signer, same

    payload = description.raw_description.workflow_execution_info.memo.fields.get(MEMO)
    if embedded is None or payload is None or not (ended or is_open(description)):
        return None
    memo = await json_of(client.data_converter, [payload])
    if not isinstance(memo, dict):
        return None
    if not same(memo.get(MEMO_FIELD), Signer(embedded.key).memo(description.id, memo)):
        console.tell(
            f"the run {description.id} was not started by a command of this user and this version:"
            " this command follows it but does not serve it"
        )
        return None
    return memo if "cwd" in memo else None
