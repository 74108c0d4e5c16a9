"""A run with all its steps, as the server remembers it: without a worker, and after its end."""

from datetime import datetime
from typing import Any

import msgspec
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client, WorkflowExecutionDescription

from pipeline_runner.core.paths import Path
from pipeline_runner.core.state import Report
from pipeline_runner.engine.client import MEMO
from pipeline_runner.engine.converting import json_of
from pipeline_runner.engine.follow import Follower
from pipeline_runner.engine.history.node import Node
from pipeline_runner.engine.history.reading import Reader, Watched, decoded, item_of
from pipeline_runner.engine.listing import Status, status_of
from pipeline_runner.engine.reports import read_report
from pipeline_runner.engine.undoing import newest_undo


class Data(msgspec.Struct, kw_only=True):
    """What a step was given, and what it returned."""

    input: Any = None
    output: Any = None


class ShownStep(msgspec.Struct, kw_only=True):
    """A step, or the undo of one."""

    path: str
    name: str
    state: str
    undo: bool = False
    attempts: int = 1
    started_at: datetime | None = None
    ended_at: datetime | None = None
    input: Any = None
    output: Any = None
    error: str | None = None
    error_type: str | None = None


class Shown(msgspec.Struct, kw_only=True):
    """A run."""

    run: str
    """Its workflow id."""
    run_id: str
    pipeline: str
    status: Status
    started_at: datetime
    ended_at: datetime | None
    inputs: Any = None
    output: Any = None
    resumes: str | None = None
    """The run id of the run that it resumes."""
    undoes: str | None = None
    """The workflow id of the run that it undoes by hand."""
    undone_by: str | None = None
    """The workflow id of the newest run that undoes it by hand."""
    report: Report
    steps: list[ShownStep]


class _Keeping(Reader):
    """Keeps what steps were given and returned."""

    def __init__(self, workflow_id: str, run_id: str | None) -> None:
        super().__init__(workflow_id, run_id)
        self.data: dict[Node, Data] = {}
        self.inputs: Any = None
        self.output: Any = None

    def take(self, watched: Watched, event: HistoryEvent) -> Any:
        item = item_of(watched, event)
        told = super().take(watched, event)
        if event.HasField("workflow_execution_started_event_attributes") and watched is self.root:
            started = event.workflow_execution_started_event_attributes
            if not started.continued_execution_run_id:
                self.inputs = decoded(started.input.payloads)
        elif event.HasField("workflow_execution_completed_event_attributes") and watched is self.root:
            self.output = decoded(event.workflow_execution_completed_event_attributes.result.payloads)
        elif event.HasField("activity_task_scheduled_event_attributes"):
            scheduled = watched.items.get(event.event_id)
            if scheduled is not None:
                given = event.activity_task_scheduled_event_attributes.input.payloads
                self.data[scheduled.node] = Data(
                    input=[decoded([one]) for one in given] if len(given) > 1 else decoded(given)
                )
        elif event.HasField("activity_task_completed_event_attributes") and item is not None:
            result = event.activity_task_completed_event_attributes.result.payloads
            self.data.setdefault(item.node, Data()).output = decoded(result)
        elif event.HasField("start_child_workflow_execution_initiated_event_attributes"):
            child = watched.items.get(event.event_id)
            if child is not None:
                given = event.start_child_workflow_execution_initiated_event_attributes.input.payloads
                self.data[child.node] = Data(input=decoded(given))
        elif event.HasField("child_workflow_execution_completed_event_attributes") and item is not None:
            result = event.child_workflow_execution_completed_event_attributes.result.payloads
            envelope = decoded(result)
            output = envelope.get("output") if isinstance(envelope, dict) else None
            self.data.setdefault(item.node, Data()).output = output
        return told


async def show(
    client: Client, description: WorkflowExecutionDescription
) -> tuple[Shown, Node, dict[Node, Data]]:
    """Return a run with its steps, its tree, and the data of the steps in it.

    Raises:
        UnreachableError: The server does not answer.
        RPCError: The server refuses.
    """
    info = description.raw_description.workflow_execution_info
    first = info.first_run_id or description.run_id
    keeping = _Keeping(description.id, first)
    follower = Follower(client, description.id, first, wait=False, reader=keeping)
    async for _ in follower.events():
        pass
    assert description.status is not None
    memo = (
        await json_of(client.data_converter, [info.memo.fields[MEMO]]) if MEMO in info.memo.fields else None
    )
    links = memo if isinstance(memo, dict) else {}
    undo, _ = await newest_undo(client, description)
    shown = Shown(
        run=description.id,
        run_id=description.run_id,
        pipeline=description.workflow_type,
        status=status_of(description.status),
        started_at=description.start_time,
        ended_at=description.close_time,
        inputs=keeping.inputs,
        output=keeping.output,
        resumes=_second(links.get("resumes")),
        undoes=_first(links.get("undoes")),
        undone_by=None if undo is None else undo.id,
        report=await read_report(client, description.id, first, description.workflow_type),
        steps=[*_steps(keeping.tree.root, keeping.data)],
    )
    return shown, keeping.tree.root, keeping.data


def _first(link: Any) -> str | None:
    return str(link[0]) if isinstance(link, list) and link else None


def _second(link: Any) -> str | None:
    return str(link[1]) if isinstance(link, list) and len(link) > 1 else None


def _steps(node: Node, data: dict[Node, Data], *, undo: bool = False) -> list[ShownStep]:
    found = []
    for child in [*node.children.values(), *([node.undo] if node.undo is not None else [])]:
        undoing = undo or child is node.undo
        if child.step is not None or (undoing and child is not node.undo):
            kept = data.get(child, Data())
            found.append(
                ShownStep(
                    path=str(Path.of_id(child.label).undone) if undoing else str(child.path),
                    name=child.name,
                    state=child.state,
                    undo=undoing,
                    attempts=child.attempt,
                    started_at=child.begun,
                    ended_at=child.ended,
                    input=kept.input,
                    output=kept.output,
                    error=child.error,
                    error_type=child.error_type,
                )
            )
        found += _steps(child, data, undo=undoing)
    return found
