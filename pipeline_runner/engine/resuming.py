"""Resume: a run that has failed, or was ended, goes on in a new run of the same workflow id.

Where nothing was undone, it goes on exactly where it stopped: finished items and branches are not run
again, and what was under way runs again under its old key. Where something was undone, it goes on from the
first step of its own list that was undone or had failed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from temporalio.client import Client, WorkflowExecutionDescription, WorkflowHandle
from temporalio.common import RawValue, WorkflowIDConflictPolicy
from temporalio.exceptions import WorkflowAlreadyStartedError

from pipeline_runner.core.model import Pipeline, Step
from pipeline_runner.core.paths import Path
from pipeline_runner.core.state import Continuation, Frame, Options, ScopeLog, StepResult, UndoEntry
from pipeline_runner.engine.client import MEMO, ConflictError, TooLargeError, find, is_open
from pipeline_runner.engine.closed import RunState, read_state
from pipeline_runner.engine.undoing import newest_undo, state_of_child
from pipeline_runner.engine.workflow.payloads import LIMIT, encoded, too_large
from pipeline_runner.engine.workflow.program import Program, program_of
from pipeline_runner.engine.workflow.undo import path_of


class NotResumableError(Exception):
    """A run cannot be resumed. The message says why, and what to do."""


@dataclass(frozen=True, kw_only=True)
class Resuming:
    """How a run goes on."""

    workflow_id: str
    run_id: str
    """Of the run that is resumed."""
    program: Program
    state: Continuation
    step: str
    """Id of the step of the pipeline's own list with which it goes on."""
    undoes_first: tuple[str, ...] = ()
    """Paths of the steps that are undone before, in order."""


async def resuming(
    client: Client, description: WorkflowExecutionDescription, step: str | None = None
) -> Resuming:
    """Work out how a run that has ended goes on.

    Args:
        client: The client.
        description: The newest run of its workflow id.
        step: Id of the step of the pipeline's own list to go back to; None: where it stopped.

    Raises:
        NotResumableError: It cannot go on, or not from there.
        UnreadableRunError: What it has done cannot be worked out.
        RPCError: The server refuses.
    """
    read = await read_state(client, description.id, description.run_id)
    undo, _ = await newest_undo(client, description)
    if undo is not None:
        if is_open(undo):
            raise NotResumableError(f"it is being undone now, by the run {undo.id}")
        left = (await read_state(client, undo.id, undo.run_id)).state.log.entries
    else:
        left = read.state.log.entries
    program = program_of(read.bundle)
    state = await _going_on(client, program, read, left)
    index = state.frame.position if state.frame is not None else 0
    steps = program.root.steps
    undoes: tuple[str, ...] = ()
    if step is not None:
        index = _index(program.root, step, index)
        again = {one.id for one in steps[index:]}
        undoes = tuple(str(path_of(one)) for one in reversed(state.log.entries) if _head(one) in again)
        state.undo_first = index
        state.frame = Frame(position=index)
        state.log.steps = _before(state.log, steps[:index])
        state.children = {}
        # What is undone and done again is done under new keys.
        state.log.run = {}
    name = steps[index].id if index < len(steps) else "output"
    return Resuming(
        workflow_id=description.id,
        run_id=description.run_id,
        program=program,
        state=state,
        step=name,
        undoes_first=undoes,
    )


async def _going_on(client: Client, program: Program, read: RunState, left: list[UndoEntry]) -> Continuation:
    """Return the state with which a run goes on: what is left of its log, and where it stopped."""
    old, log = read.state, read.state.log
    if old.by_hand:
        raise NotResumableError("this run has undone another one: resume that one")
    frame = old.frame if old.phase == "steps" else (old.stopped.frame if old.stopped else None)
    if frame is None:
        done = old.phase != "steps" and old.error is None
        raise NotResumableError(
            "its steps have completed: there is nothing to resume"
            if done
            else "a version of pipeline-runner without resume has run it"
        )
    before = old.stopped.records if old.stopped else len(old.records)
    undone = {Path.of_id(record.path).head for record in old.records[before:] if record.state == "undone"}
    if old.phase == "steps" and old.question is not None:
        # It was terminated while it asked about this step, or undid it.
        undone.add(old.question.step)
    kept = {entry.key for entry in left}
    undone |= {_head(entry) for entry in log.entries if entry.key not in kept}
    log.entries = left
    state = Continuation(
        phase="steps",
        started_at=datetime.now(UTC).isoformat(),
        log=log,
        # What errors have left that were caught is still there.
        dirty=any(entry.left for entry in left),
        records=[record for record in old.records[:before] if record.state in ("failed", "not undone")],
        # Sent, and not awaited yet.
        events=old.events,
    )
    if undone:
        _go_back(program.root, state, frame, undone)
    else:
        state.frame = _reopened(frame)
        state.children = await _children(client, read)
    return state


def _go_back(pipeline: Pipeline, state: Continuation, frame: Frame, undone: set[str]) -> None:
    """Go on from the first step that was undone, or had failed; its keys are new."""
    steps = pipeline.steps
    first = min(next(k for k, step in enumerate(steps) if step.id in undone), frame.position)
    again = {step.id for step in steps[first:]}
    if stuck := [str(path_of(entry)) for entry in state.log.entries if _head(entry) in again]:
        raise NotResumableError(
            f'"{stuck[-1]}" was not undone, and would run again: first undo what is left (run-pipeline undo)'
        )
    state.frame = Frame(position=first)
    state.log.steps = _before(state.log, steps[:first])
    state.log.run = {}


def _before(log: ScopeLog, steps: Sequence[Step]) -> dict[str, StepResult]:
    ids = {step.id for step in steps}
    return {key: result for key, result in log.steps.items() if key in ids}


def _reopened(frame: Frame) -> Frame:
    """Let a frame go on: its time limits begin anew, and what has failed runs again."""
    frame.since = frame.first_failure = None
    frame.failures = []
    frame.open = {key: _reopened(inside) for key, inside in frame.open.items()}
    return frame


async def _children(client: Client, read: RunState) -> dict[str, Continuation]:
    """Return where children go on that were ended with their parent, or keep what they have done."""
    found = {}
    for entry in read.state.log.entries:
        child = read.children.get(str(path_of(entry)))
        if entry.outcome != "uncertain" or child is None:
            continue
        state = await state_of_child(client, child)
        if state is not None and (state.state.phase == "steps" or state.state.kept):
            inside = program_of(state.bundle)
            found[str(path_of(entry))] = await _going_on(client, inside, state, state.state.log.entries)
    return found


def _index(pipeline: Pipeline, step: str, stopped: int) -> int:
    for index, one in enumerate(pipeline.steps):
        if one.id == step:
            if index > stopped:
                raise NotResumableError(f'"{step}" comes after the step where it stopped')
            return index
    raise NotResumableError(f'"{step}" is not a step of the pipeline\'s own list')


def _head(entry: UndoEntry) -> str:
    return path_of(entry).head


async def start_resumed(client: Client, what: Resuming, memo: Mapping[str, Any]) -> WorkflowHandle[Any, Any]:
    """Start the run that goes on.

    Args:
        client: The client.
        what: How it goes on.
        memo: What the command that started the run noted down for others that serve it.

    Raises:
        ConflictError: A run of the same workflow id has been started meanwhile.
        TooLargeError: The state with the bundle exceeds Temporal's limit.
        RPCError: The server refuses.
    """
    pipeline = what.program.root
    options = Options(directory=what.state.log.directory, continued=what.state)
    arguments = [encoded({}), what.program.payload, encoded(options)]
    size = sum(payload.ByteSize() for payload in arguments)
    if size > LIMIT:
        raise TooLargeError(too_large(f'the state of "{what.workflow_id}" with its bundle', size))
    told = f'the run "{what.workflow_id}" has been resumed by somebody else'
    _, newest = await find(client, what.workflow_id)
    if newest.run_id != what.run_id:
        raise ConflictError(told)
    try:
        await client.start_workflow(
            pipeline.name,
            args=[RawValue(payload) for payload in arguments],
            id=what.workflow_id,
            task_queue=what.state.log.task_queue,
            id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
            memo={MEMO: {**memo, "resumes": [what.workflow_id, what.run_id]}},
            result_type=RawValue,
        )
    except WorkflowAlreadyStartedError:
        raise ConflictError(told) from None
    handle, _ = await find(client, what.workflow_id)
    return handle
