"""Undo by hand: another run undoes what an ended run has left.

Its workflow id consists of the id of the run that it undoes, and a number. A second command therefore
finds that it exists, and what one undo has left is the start of the next one.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from temporalio.client import Client, WorkflowExecutionDescription, WorkflowHandle
from temporalio.common import RawValue, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError

from pipeline_runner.core.expressions.evaluate import render
from pipeline_runner.core.expressions.parsing import ExpressionError
from pipeline_runner.core.model import ActivityCall, ChildCall, Compensation
from pipeline_runner.core.paths import ROOT, Path
from pipeline_runner.core.secrets import seal
from pipeline_runner.core.state import Continuation, Options, ScopeLog, UndoEntry
from pipeline_runner.engine.client import MEMO, TooLargeError, find, is_open
from pipeline_runner.engine.closed import Child, RunState, read_state
from pipeline_runner.engine.workflow.calls import fitting_id
from pipeline_runner.engine.workflow.payloads import LIMIT, encoded, too_large
from pipeline_runner.engine.workflow.program import Program, program_of
from pipeline_runner.engine.workflow.undo import NOT_UNDONE, due, names_of, path_of

_PREFIX = "undo:"


@dataclass(frozen=True, kw_only=True)
class Undoing:
    """What to undo of a run that has ended."""

    workflow_id: str
    """The workflow id of the run that undoes it."""
    program: Program
    log: ScopeLog
    state: Continuation
    """The state of the run to undo, or of the run that has undone a part of it."""
    undoes: tuple[str, str]
    """Workflow id and run id of the run to undo."""
    open: WorkflowHandle[Any, Any] | None = None
    """The run that is currently undoing it."""


@dataclass(frozen=True, kw_only=True)
class Planned:
    """What an undo would do about one step."""

    path: str
    action: str | None
    """The activity or the pipeline that undoes it; None: nothing does."""
    input: Any = None
    """The input of the undo. Secrets are shown by their names."""
    task_queue: str | None = None
    skipped: bool = False
    """Whether nothing is left of it that should be undone."""
    reason: str | None = None
    """Why nothing undoes it, or why that is not known yet."""


async def undoing(client: Client, description: WorkflowExecutionDescription) -> Undoing:
    """Determine what is left to undo of a run that has ended.

    Raises:
        UnreadableRunError: It cannot be determined what the run has done.
        RPCError: The server refuses.
    """
    undo, workflow_id = await newest_undo(client, description)
    last = undo or description
    read = await read_state(client, last.id, last.run_id)
    program = program_of(read.bundle)
    await _complete(client, program, read.state.log, read.children)
    return Undoing(
        workflow_id=workflow_id,
        program=program,
        log=read.state.log,
        state=read.state,
        undoes=(description.id, description.run_id),
        open=client.get_workflow_handle(last.id, run_id=last.run_id, result_type=RawValue)
        if is_open(last)
        else None,
    )


async def newest_undo(
    client: Client, description: WorkflowExecutionDescription
) -> tuple[WorkflowExecutionDescription | None, str]:
    """Find the run that was the last to undo another one by hand.

    Returns:
        That run, None if there is none; and the workflow id of the next one.

    Raises:
        RPCError: The server refuses.
    """
    info = description.raw_description.workflow_execution_info
    prefix = fitting_id(f"{_PREFIX}{description.id}:{info.first_run_id or description.run_id}")
    newest, number = None, 1
    while True:
        workflow_id = prefix if number == 1 else f"{prefix}#{number}"
        try:
            _, newest = await find(client, workflow_id)
        except LookupError:
            return newest, workflow_id
        number += 1


async def _complete(client: Client, program: Program, log: ScopeLog, children: Mapping[str, Child]) -> None:
    """Add the logs of children that have not completed to a log that lacks them."""
    for entry in log.entries:
        entry.left = False
        if entry.child is not None:
            await _complete(client, program, entry.child, {})
            continue
        step = program.step(log.pipeline, entry.step)
        own = isinstance(step.compensate, Compensation)
        if not isinstance(step.action, ChildCall):
            continue
        if entry.left_in is not None:
            child = Child(workflow_id=entry.left_in[0], run_id=entry.left_in[1])
        elif entry.outcome == "uncertain" and not own and str(path_of(entry)) in children:
            child = children[str(path_of(entry))]
        else:
            continue
        if (read := await state_of_child(client, child)) is not None:
            entry.child = read.state.log
            await _complete(client, program, entry.child, read.children)


async def state_of_child(client: Client, child: Child) -> RunState | None:
    """Return the state of a child that has ended; None: it has not begun, or is still open."""
    if child.run_id is None:
        return None
    described = await client.get_workflow_handle(child.workflow_id, run_id=child.run_id).describe()
    first = described.raw_description.workflow_execution_info.first_run_id or child.run_id
    _, newest = await find(client, child.workflow_id)
    same = newest.raw_description.workflow_execution_info.first_run_id == first
    last = newest if same else described
    return None if is_open(last) else await read_state(client, last.id, last.run_id)


def plan(what: Undoing) -> Iterator[Planned]:
    """Yield what the undo would do, in order."""
    yield from _plan(what, what.log, ROOT)


def _plan(what: Undoing, log: ScopeLog, above: Path) -> Iterator[Planned]:
    for entry in reversed(log.entries):
        path = above.child(path_of(entry))
        match due(what.program, log, entry):
            case "child":
                assert entry.child is not None
                yield from _plan(what, entry.child, path)
            case "compensate":
                yield _compensation(what, log, entry, path)
            case "nothing":
                how = what.program.step(log.pipeline, entry.step).compensate
                if isinstance(how, Compensation):
                    told = f"it failed, and its compensation runs only after: {how.after}"
                    yield Planned(path=str(path), action=None, skipped=True, reason=told)
            case unknown:
                yield Planned(path=str(path), action=None, reason=NOT_UNDONE[unknown])
    if log.pivot is not None:
        told = "the point of no return: it and the steps before it are not undone"
        yield Planned(path=str(above.child(Path.of(log.pivot))), action=None, skipped=True, reason=told)


def _compensation(what: Undoing, log: ScopeLog, entry: UndoEntry, path: Path) -> Planned:
    how = what.program.step(log.pipeline, entry.step).compensate
    assert isinstance(how, Compensation)
    call = how.action
    name = call.name if isinstance(call, ActivityCall) else what.program.bundle.pipelines[call.pipeline].name
    given = call.input if isinstance(call, ChildCall) or call.args is None else call.args
    queue = call.task_queue or log.task_queue
    try:
        value, _ = seal(render(given, names_of(what.program, log, entry, what.state.error)))
    except ExpressionError as error:
        return Planned(path=str(path), action=name, reason=error.message, task_queue=queue)
    return Planned(path=str(path), action=name, input=value, task_queue=queue)


async def start_undo(client: Client, what: Undoing, memo: Mapping[str, Any]) -> WorkflowHandle[Any, Any]:
    """Start the run that undoes another one, or find the one that somebody else has just started.

    Args:
        client: The client.
        what: What to undo.
        memo: What the command that started the run has recorded for others that serve it.

    Raises:
        TooLargeError: The log with the bundle exceeds Temporal's limit.
        RPCError: The server refuses.
    """
    pipeline = what.program.root
    state = Continuation(
        phase="undo",
        started_at=what.state.started_at,
        log=what.log,
        error=what.state.error,
        by_hand=True,
    )
    options = Options(directory=what.log.directory, continued=state)
    arguments = [encoded({}), what.program.payload, encoded(options)]
    size = sum(payload.ByteSize() for payload in arguments)
    if size > LIMIT:
        raise TooLargeError(too_large(f'the undo log of "{what.undoes[0]}" with its bundle', size))
    with suppress(WorkflowAlreadyStartedError):
        await client.start_workflow(
            pipeline.name,
            args=[RawValue(payload) for payload in arguments],
            id=what.workflow_id,
            task_queue=what.log.task_queue,
            id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
            memo={MEMO: {**memo, "undoes": list(what.undoes)}},
            static_summary=f"undo of {what.undoes[0]}",
            result_type=RawValue,
        )
    handle, _ = await find(client, what.workflow_id)
    return handle
