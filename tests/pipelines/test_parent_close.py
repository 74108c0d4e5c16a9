"""What a parent's end does to its children, seen on a Temporal server by its histories."""

import asyncio
import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from temporalio.client import Client, WorkflowExecutionStatus

from pipeline_runner.server.devserver import DevServer
from tests.cli.command import finish, interrupt, popen
from tests.pipelines.test_examples import CLOSE, PIPELINES


@dataclass
class Place:
    """A worker that stays, serving a queue of its own."""

    folder: Path
    client: Client
    address: str
    queue: str

    async def start(self, **inputs: str) -> str:
        """Start the example for whoever serves the queue, and return its workflow id."""
        pairs = [word for name, value in inputs.items() for word in ("-i", f"{name}={value}")]
        process = popen(
            self.folder, CLOSE, *pairs, "--detach", "--address", self.address, "--task-queue", self.queue
        )
        done = await asyncio.to_thread(finish, process)
        assert done.code == 0, done.err
        return done.out.strip()

    async def status(self, workflow_id: str) -> WorkflowExecutionStatus | None:
        return (await self.client.get_workflow_handle(workflow_id).describe()).status

    async def ended(self, workflow_id: str) -> str:
        """Wait for a workflow's end, and return how it ended."""
        for _ in range(600):
            status = await self.status(workflow_id)
            if status is not None and status is not WorkflowExecutionStatus.RUNNING:
                return status.name
            await asyncio.sleep(0.02)
        raise AssertionError(f"{workflow_id} does not end")

    async def appears(self, path: str) -> None:
        """Wait for a file."""
        for _ in range(600):
            if (self.folder / path).exists():
                return
            await asyncio.sleep(0.02)
        raise AssertionError(f"{path} does not appear")


@pytest.fixture
def place(server: DevServer, client: Client, tmp_path: Path) -> Iterator[Place]:
    queue = f"close-{uuid.uuid4().hex[:8]}"
    where = ("--address", server.address, "--task-queue", queue)
    worker = popen(tmp_path, "worker", str(PIPELINES), *where)
    yield Place(tmp_path, client, server.address, queue)
    interrupt(worker)
    done = finish(worker)
    assert done.code == 0, done.err


async def test_a_notification_outlives_the_parent_that_completed(place: Place) -> None:
    """``abandon`` without waiting: the parent is done first, the child goes on and writes."""
    run = await place.start(pause="10ms", notify_after="1500ms")
    assert await place.ended(run) == "COMPLETED"
    assert await place.status(f"{run}/notify") is WorkflowExecutionStatus.RUNNING
    assert not (place.folder / "demo-parent-close-notified.txt").exists()
    assert await place.ended(f"{run}/notify") == "COMPLETED"
    assert (place.folder / "demo-parent-close-notified.txt").read_text().startswith("started at 20")


async def test_request_cancel_lets_the_child_undo_itself(place: Place) -> None:
    """The parent is terminated, which undoes nothing; the child that it was waiting for undoes itself."""
    run = await place.start(pause="1h", notify_after="1s")
    await place.appears("demo-parent-close/reserved")
    await place.client.get_workflow_handle(run).terminate()
    assert await place.ended(f"{run}/reserve") == "CANCELED"
    assert list((place.folder / "demo-parent-close").iterdir()) == []
    assert await place.ended(f"{run}/notify") == "COMPLETED"


async def test_terminate_cuts_the_child_off(place: Place) -> None:
    """The child ends with its parent, and what it wrote stays."""
    run = await place.start(pause="400ms", notify_after="1s")
    await place.appears("demo-parent-close/report")
    await place.client.get_workflow_handle(run).terminate()
    assert await place.ended(f"{run}/report") == "TERMINATED"
    assert (place.folder / "demo-parent-close/report").read_text() == f"held by {run}/report\n"
    assert await place.status(f"{run}/reserve") is WorkflowExecutionStatus.COMPLETED
    assert await place.ended(f"{run}/notify") == "COMPLETED"


async def test_the_policies_are_the_ones_of_the_file(place: Place) -> None:
    """Temporal's own record of each child's start says which policy it has."""
    run = await place.start(pause="10ms", notify_after="10ms")
    assert await place.ended(run) == "COMPLETED"
    history = await place.client.get_workflow_handle(run).fetch_history()
    found = {}
    for event in json.loads(history.to_json())["events"]:
        if started := event.get("startChildWorkflowExecutionInitiatedEventAttributes"):
            found[started["workflowId"].rpartition("/")[2]] = started["parentClosePolicy"]
    assert found == {
        "notify": "PARENT_CLOSE_POLICY_ABANDON",
        "reserve": "PARENT_CLOSE_POLICY_REQUEST_CANCEL",
        "report": "PARENT_CLOSE_POLICY_TERMINATE",
    }
