"""What is sent to an open run: events, and the answers of people. A worker has to serve the run."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from temporalio.api.common.v1 import Payload
from temporalio.api.history.v1 import HistoryEvent, StartChildWorkflowExecutionInitiatedEventAttributes
from temporalio.client import Client, WorkflowExecutionDescription, WorkflowHandle, WorkflowUpdateFailedError
from temporalio.client import WorkflowUpdateRPCTimeoutOrCancelledError as NoAnswerError
from temporalio.common import RawValue
from temporalio.exceptions import FailureError
from temporalio.service import RPCError, RPCStatusCode

from pipeline_runner.core.paths import Path
from pipeline_runner.core.state import WAITING_MEMO, ShownWait
from pipeline_runner.core.suggest import listed
from pipeline_runner.engine.client import ANSWER
from pipeline_runner.engine.converting import json_of, readable
from pipeline_runner.engine.workflow.approvals import APPROVE, REJECT
from pipeline_runner.engine.workflow.asking import DECIDE
from pipeline_runner.engine.workflow.payloads import encoded

_CHILDREN = 100
"""Open children that are looked at."""


class RefusedError(Exception):
    """The run has not taken what was sent to it. The message says why."""


class UnansweredError(Exception):
    """No worker has answered in time: the run may still take what was sent."""


async def send(handle: WorkflowHandle[Any, Any], event: str, payload: Any) -> None:
    """Send an event to a run, and wait until the run has taken it.

    Args:
        handle: The run.
        event: The event's name.
        payload: JSON data.

    Raises:
        RefusedError: The run does not take it.
        UnansweredError: No worker has answered.
        LookupError: The run has ended.
        RPCError: The server rejects the request.
    """
    await _update(handle, event, encoded(payload))


async def answer(
    client: Client,
    handle: WorkflowHandle[Any, Any],
    step: str,
    *,
    approves: bool,
    payload: Any = None,
    comment: str = "",
) -> tuple[str, int]:
    """Approve or reject what a step of a run, or of one of its children, waits for.

    Args:
        client: The client, whose identity counts.
        handle: The run.
        step: The step's path, a child's after that of its step and ``/``; or its id, if no other open
            approval has it.
        approves: Whether to approve.
        payload: What an approval brings: JSON data.
        comment: Why.

    Returns:
        The step's path, and how many approvals it needs still.

    Raises:
        RefusedError: The run does not take it.
        UnansweredError: No worker has answered.
        LookupError: The run, or the child, has ended or does not exist.
        RPCError: The server rejects the request.
    """
    path, owner = await _owner(client, handle, step)
    given = {"step": str(path.local), "comment": comment}
    if approves:
        given["payload"] = payload
    taken = await _update(owner, APPROVE if approves else REJECT, encoded(given))
    return str(path.above.child(Path.of_id(taken["step"]))), taken.get("missing", 0)


async def decide(handle: WorkflowHandle[Any, Any], what: str) -> str:
    """Decide about the step of a run that has failed.

    Args:
        handle: The run.
        what: ``retry``, ``skip`` or ``undo``.

    Returns:
        The step's path.

    Raises:
        RefusedError: The run does not take it.
        UnansweredError: No worker has answered.
        LookupError: The run has ended.
        RPCError: The server rejects the request.
    """
    return str(await _update(handle, DECIDE, encoded(what)))


async def _update(handle: WorkflowHandle[Any, Any], name: str, payload: Payload) -> Any:
    try:
        async with asyncio.timeout(ANSWER):
            return await handle.execute_update(name, RawValue(payload))
    except WorkflowUpdateFailedError as error:
        cause = error.cause
        raise RefusedError(cause.message if isinstance(cause, FailureError) else str(cause)) from None
    except (TimeoutError, NoAnswerError):
        raise UnansweredError(
            f"no worker has answered for {ANSWER:g} s; a worker that comes may still take what was sent"
        ) from None
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            raise LookupError(f'the run "{handle.id}" has just ended') from None
        raise


async def _owner(
    client: Client, handle: WorkflowHandle[Any, Any], step: str
) -> tuple[Path, WorkflowHandle[Any, Any]]:
    """Return the path of a step in a run, and the run of the tree whose step it is."""
    path = Path.of_id(step)
    if not path.depth:
        # An id may be that of a child's step. The run itself knows its own steps better than its memo.
        found = [one async for one in _approvals(client, handle) if one.name == step]
        if len(found) == 1 and found[0].depth:
            path = found[0]
    for level in range(path.depth):
        handle = await _child(client, handle, str(Path(path.levels[level : level + 1])))
    return path, handle


async def _approvals(client: Client, handle: WorkflowHandle[Any, Any]) -> AsyncIterator[Path]:
    """Yield the steps that wait for approval in a run and in its children, as far as memos name them."""
    description = await handle.describe()
    payload = description.raw_description.workflow_execution_info.memo.fields.get(WAITING_MEMO)
    found = None if payload is None else await json_of(client.data_converter, [payload])
    for path, wait in msgspec.convert(found or {}, dict[str, ShownWait]).items():
        if wait.is_approval and wait.state == "waiting":
            yield Path.of_id(path)
    if children := _open_children(description):
        for step, child in (await _started(client, handle, children)).items():
            async for inside in _approvals(client, client.get_workflow_handle(child)):
                yield Path.of_id(step).child(inside)


async def _child(client: Client, handle: WorkflowHandle[Any, Any], step: str) -> WorkflowHandle[Any, Any]:
    children = _open_children(await handle.describe())
    started = await _started(client, handle, children) if children else {}
    if step not in started:
        raise LookupError(
            f'the step "{step}" of the run "{handle.id}" has no open child: those that have one are'
            f" {listed(started, 'none')}"
        )
    return client.get_workflow_handle(started[step])


def _open_children(description: WorkflowExecutionDescription) -> set[str]:
    pending = description.raw_description.pending_children
    return {child.workflow_id for child in pending[:_CHILDREN]}


async def _started(client: Client, handle: WorkflowHandle[Any, Any], open_: set[str]) -> dict[str, str]:
    """Return the workflow ids of open children by their steps, as the run's history has them."""
    return {
        await _step(client, handle.id, event): child
        async for event in handle.fetch_history_events()
        if (child := _initiated(event).workflow_id) in open_
    }


async def _step(client: Client, parent: str, event: HistoryEvent) -> str:
    """Return the path of the step that a child was started by."""
    event = await readable(client.data_converter, event)
    attributes = _initiated(event)
    options = await json_of(client.data_converter, attributes.input.payloads, 2)
    step = options.get("step") if isinstance(options, dict) else None
    return str(Path.of_workflow_id(attributes.workflow_id, parent) if step is None else step)


def _initiated(event: HistoryEvent) -> StartChildWorkflowExecutionInitiatedEventAttributes:
    return event.start_child_workflow_execution_initiated_event_attributes
