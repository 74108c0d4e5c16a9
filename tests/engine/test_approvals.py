"""Approvals: steps that wait for people."""

from datetime import datetime
from typing import Any

import pytest
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.testing import TimeSkipper

from pipeline_runner.engine.workflow.approvals import APPROVE, REFUSED, REJECT
from tests.conftest import Pipelines, result_of
from tests.engine.test_continue import runs
from tests.engine.test_events import newest, refused, started, waiting, waits
from tests.engine.test_scopes import do, failed, pipeline

SHIP = 'approval: {message: "Ship {{ inputs.what }}?"'
INPUTS = "version: 1\nname: p\ninputs: {what: {type: string, default: it}}\nsteps:\n"


class People:
    """Clients of several identities."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._clients: dict[str, Client] = {}

    async def _client(self, who: str) -> Client:
        if who not in self._clients:
            self._clients[who] = await Client.connect(self._address, identity=who)
        return self._clients[who]

    async def start(
        self, who: str, pipelines: Pipelines, text: str, **children: str
    ) -> WorkflowHandle[Any, Any]:
        theirs = Pipelines(await self._client(who), pipelines.folder)
        theirs.queue = pipelines.queue
        return await theirs.start(theirs.bundle(text, **children))

    async def answer(
        self, who: str, handle: WorkflowHandle[Any, Any], step: str, update: str = APPROVE, **more: Any
    ) -> Any:
        theirs = (await self._client(who)).get_workflow_handle(handle.id)
        return await theirs.execute_update(update, {"step": step, **more})


@pytest.fixture
def people(pipelines: Pipelines) -> People:
    return People(pipelines.client.service_client.config.target_host)


async def test_an_approval_gives_who_when_and_the_payload(pipelines: Pipelines, people: People) -> None:
    schema = "schema: {type: object, properties: {build: {type: integer}}, required: [build]}"
    text = (
        INPUTS
        + f"  - {do('a')}\n  - {{id: ok, name: the release, {SHIP}, {schema}}}}}\n"
        + 'output: "{{ steps.ok.output }}"\n'
    )
    async with pipelines.worker():
        handle = await pipelines.start(pipelines.bundle(text))
        await waiting(handle, "ok")
        assert await waits(handle) == {"ok": {"name": "the release", "for": "approval: Ship it?"}}
        assert (await handle.query("report"))["steps"]["ok"] == "waiting"
        error = await refused(people.answer("ann@desk", handle, "ok"))
        assert (error.type, error.message) == (
            REFUSED, 'the payload for "ok" does not fit its schema: payload: must be a mapping, not null',
        )  # fmt: skip
        error = await refused(people.answer("ann@desk", handle, "ok", payload={"build": "x"}))
        assert error.message.endswith('payload.build: must be an integer, not "x"')
        error = await refused(people.answer("ann@desk", handle, "ok", paylod=1))
        assert error.message.startswith('an answer is a mapping such as {"step": "deploy.ok"')
        error = await refused(people.answer("ann@desk", handle, "a"))
        assert error.message == 'the run does not wait for the approval of "a". It waits for ok'
        program = await _temporal(handle, people, '{"step": "ok", "payload": {"build": 7}}')
        assert program == 0
        output = await result_of(handle)
    assert output == {"by": "ann@desk", "at": output["at"], "payload": {"build": 7}}
    assert datetime.fromisoformat(output["at"]).tzinfo is not None
    kinds = [event.WhichOneof("attributes") async for event in handle.fetch_history_events()]
    assert kinds.count("workflow_execution_update_accepted_event_attributes") == 1, "refusals leave no event"


async def _temporal(handle: WorkflowHandle[Any, Any], people: People, given: str) -> int:
    """Answer with Temporal's own command."""
    import asyncio

    program = await asyncio.create_subprocess_exec(
        "temporal", "workflow", "update", "execute", "--address", people._address, "--workflow-id", handle.id,
        "--name", APPROVE, "--input", given, "--identity", "ann@desk", stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    return await program.wait()


async def test_a_rejection_says_who_and_why_and_undoes(pipelines: Pipelines, people: People) -> None:
    text = INPUTS + f"  - {do('a')}\n  - {{id: ok, {SHIP}}}}}\n"
    async with pipelines.worker():
        handle = await pipelines.start(pipelines.bundle(text))
        await waiting(handle, "ok")
        assert await people.answer("bob@desk", handle, "ok", REJECT, comment="not on a Friday") == {
            "step": "ok"
        }
        error, report = await failed(handle)
    assert (error.type, error.message) == ("ApprovalRejected", "ok: rejected by bob@desk: not on a Friday")
    assert error.non_retryable
    assert report is not None
    assert report.steps == {"a": "completed", "ok": "failed"}
    assert pipelines.effects == ["do a", "undo a"]


async def test_two_identities_neither_of_which_started_the_run(pipelines: Pipelines, people: People) -> None:
    child = (
        INPUTS
        + f"  - {{id: ok, {SHIP}, approvals: 2, not_by_starter: true}}}}\n"
        + 'output: "{{ steps.ok.output }}"\n'
    )
    text = pipeline(
        "  - {id: c, pipeline: ./c.yaml, with: {what: this}}\n", 'output: "{{ steps.c.output }}"\n'
    )
    async with pipelines.worker():
        handle = await people.start("ann@desk", pipelines, text, c=child)
        ship = pipelines.client.get_workflow_handle(f"{handle.id}/c")
        await started(ship)
        await waiting(ship, "ok")
        for ann in ("ann@desk", "temporal-cli:ann@desk"):
            error = await refused(people.answer(ann, ship, "ok"))
            assert error.message == '"ok" must not be approved by ann@desk, who started the run'
        assert await people.answer("bob@desk", ship, "ok", payload=1) == {"step": "ok", "missing": 1}
        error = await refused(people.answer("bob@desk", ship, "ok"))
        assert (
            error.message
            == 'bob@desk has approved "ok" already: it needs 2 approvals by different identities'
        )
        assert await people.answer("eve@desk", ship, "ok", payload=2) == {"step": "ok", "missing": 0}
        output = await result_of(handle)
    assert (output["by"], output["payload"]) == (["bob@desk", "eve@desk"], 2)


async def test_nobody_in_time(pipelines: Pipelines) -> None:
    skipping = Pipelines(TimeSkipper(pipelines.client).client, pipelines.folder)
    text = INPUTS + (
        f"  - {do('a')}\n"
        '  - {id: yes, approval: {timeout: 2d, on_timeout: approve, payload: {build: "{{ inputs.what }}"}}}\n'
        f"  - {do('b')}\n"
        "  - {id: no, approval: {timeout: 1h, approvals: 2}}\n"
        'finally:\n  - {id: f, activity: effect.do, with: {log: LOG, name: "{{ steps.yes.output.by is none }} {{ steps.yes.output.payload.build }}"}}\n'
    )
    async with skipping.worker():
        error, _ = await failed(await skipping.start(skipping.bundle(text)))
    assert (error.type, error.message) == ("ApprovalTimeout", "no: not approved within 1h")
    assert not error.non_retryable
    assert pipelines.effects == ["do a", "do b", "undo b", "undo a", "do true it"]


async def test_a_default_payload_must_fit(pipelines: Pipelines) -> None:
    text = INPUTS + (
        '  - {id: ok, approval: {timeout: 2d, on_timeout: approve, schema: {minLength: 3}, payload: "{{ inputs.what }}"}}\n'
    )
    async with pipelines.worker():
        error, _ = await failed(await pipelines.start(pipelines.bundle(text)))
    assert error.type == "ExpressionError"
    assert (
        error.message
        == 'ok: the payload for a timeout does not fit: payload: must have 3 or more characters, not "it"'
    )


async def test_in_branches_and_items_by_path_or_by_an_id_that_only_one_has(
    pipelines: Pipelines, people: People
) -> None:
    text = INPUTS + """
  - id: both
    parallel:
      left: [{id: ok, approval: {message: left}}]
      right:
        - id: each
          for_each: [1, 2]
          max_concurrency: 2
          steps: [{id: go, approval: {}}]
        - {id: paid, wait: {event: paid}}
"""  # fmt: skip
    async with pipelines.worker():
        handle = await pipelines.start(pipelines.bundle(text))
        await waiting(handle, "both.left.ok", "both.right.each[0].go", "both.right.each[1].go")
        error = await refused(people.answer("ann@desk", handle, "go"))
        assert error.message == (
            'several approvals have the id "go": choose one of both.right.each[0].go, both.right.each[1].go'
        )
        error = await refused(people.answer("ann@desk", handle, "each[2].go"))
        assert error.message == (
            'the run does not wait for the approval of "each[2].go". It waits for both.left.ok,'
            " both.right.each[0].go, both.right.each[1].go"
        )
        assert (await people.answer("ann@desk", handle, "ok"))["step"] == "both.left.ok"
        await people.answer("ann@desk", handle, "both.right.each[1].go")
        assert (await people.answer("ann@desk", handle, "go"))["step"] == "both.right.each[0].go"
        await waiting(handle, "both.right.paid")
        error = await refused(people.answer("ann@desk", handle, "ok"))
        assert error.message == (
            'the run does not wait for the approval of "ok", or of any other step: it waits for the event "paid"'
        )
        await handle.signal("paid")
        await result_of(handle)


async def test_a_failure_and_a_cancellation_end_the_wait(pipelines: Pipelines) -> None:
    text = INPUTS + """
  - id: both
    parallel:
      left: [{id: ok, approval: {}}]
      right: [{id: paid, wait: {event: paid}}, {id: boom, fail: {message: no}}]
    catch: [{}]
  - {id: last, approval: {}}
"""  # fmt: skip
    async with pipelines.worker():
        handle = await pipelines.start(pipelines.bundle(text))
        await waiting(handle, "both.left.ok", "both.right.paid")
        await handle.signal("paid")
        await waiting(handle, "last")
        await handle.cancel()
        with pytest.raises(WorkflowFailureError):
            await handle.result()
        report = await handle.query("report")
    assert report["status"] == "cancelled"
    assert report["steps"] == {"both": "caught", "last": "cancelled"}


async def test_approvals_so_far_go_on_in_a_new_run(small: Pipelines) -> None:
    people = People(small.client.service_client.config.target_host)
    text = INPUTS + """
  - {id: go, wait: {event: go}}
  - {id: ok, approval: {approvals: 2, not_by_starter: true, timeout: 1h}}
  - {id: last, wait: {event: last}}
""" + 'output: "{{ steps.ok.output.by }}"\n'  # fmt: skip
    async with small.worker():
        handle = await newest(await people.start("ann@desk", small, text), small)
        await waiting(handle, "go")
        await handle.signal("go")
        await waiting(handle, "ok")
        await people.answer("bob@desk", handle, "ok")
        first = (await handle.describe()).run_id
        for number in range(60):
            await handle.signal("last", number)
        while (await handle.describe()).run_id == first:
            await handle.signal("none")
        error = await refused(people.answer("ann@desk", handle, "ok"))
        assert error.message == '"ok" must not be approved by ann@desk, who started the run'
        error = await refused(people.answer("bob@desk", handle, "ok"))
        assert error.message.startswith('bob@desk has approved "ok" already')
        await waiting(handle, "ok")
        assert await people.answer("eve@desk", handle, "ok") == {"step": "ok", "missing": 0}
        assert await result_of(handle) == ["bob@desk", "eve@desk"]
    assert await runs(small.client, handle.id) > 1
