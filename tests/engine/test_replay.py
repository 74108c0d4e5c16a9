"""Every recorded history replays on the interpreter as it is now."""

import base64
import json
from pathlib import Path

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer

from pipeline_runner.core.state import REPORT_MEMO
from pipeline_runner.engine.cancelling import DetailedRunner
from pipeline_runner.engine.interceptor import WorkflowSide
from pipeline_runner.engine.workflow.interpreter import Interpreter
from tests.engine.scenarios import FOLDER, SCENARIOS

FILES = sorted(FOLDER.glob("*.json"))


def test_every_scenario_is_recorded() -> None:
    """Run ``python -m tests.engine.scenarios`` after adding one."""
    recorded = {file.stem.rstrip("0123456789").rstrip("-") for file in FILES}
    assert recorded == set(SCENARIOS)


ENDS = {
    "completed": "COMPLETED",
    "undone-by-hand": "COMPLETED",
    "by-name": "COMPLETED",
    "by-name-elsewhere": "COMPLETED",
    "not-waited-for": "COMPLETED",
    "secret": "COMPLETED",
    "cancelled-step": "CANCELED",
    "cancelled-child": "CANCELED",
    "completed-dirty": "COMPLETED",
    "scopes-completed": "COMPLETED",
    "whole-continued-0": "COMPLETED",
    "whole-continued-1": "CONTINUED_AS_NEW",
    "whole-continued-2": "CONTINUED_AS_NEW",
    "scopes-continued-0": "COMPLETED",
    "scopes-continued-1": "CONTINUED_AS_NEW",
    "waits-continued-1": "CONTINUED_AS_NEW",
    "continued-2": "CONTINUED_AS_NEW",
    "continued-1": "CONTINUED_AS_NEW",
}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_recorded_history_ends_as_it_is_meant_to(file: Path) -> None:
    """The newest run of ``continued`` is recorded first, as number 0."""
    last = json.loads(file.read_text())["history"]["events"][-1]["eventType"]
    expected = ENDS.get(file.stem, "FAILED")
    assert last == f"EVENT_TYPE_WORKFLOW_EXECUTION_{expected}"


def test_the_retry_of_a_compensating_pipeline_is_in_its_history() -> None:
    text = (FOLDER / "compensated-by-pipeline-retried.json").read_text()
    assert text.count('"EVENT_TYPE_START_CHILD_WORKFLOW_EXECUTION_INITIATED"') == 2


def test_the_report_of_a_dirty_run_is_in_the_memo_of_its_history() -> None:
    events = json.loads((FOLDER / "completed-dirty.json").read_text())["history"]["events"]
    [modified] = [e for e in events if e["eventType"] == "EVENT_TYPE_WORKFLOW_PROPERTIES_MODIFIED"]
    memo = modified["workflowPropertiesModifiedEventAttributes"]["upsertedMemo"]["fields"]
    report = json.loads(base64.b64decode(memo[REPORT_MEMO]["data"]))
    assert [record["path"] for record in report["undo"]] == ["tried.a", "child/tried.a"]


def test_pauses_for_much_work_are_in_their_history() -> None:
    """Two between steps, and one between undos that schedule nothing."""
    events = json.loads((FOLDER / "much.json").read_text())["history"]["events"]
    kinds = [event["eventType"].removeprefix("EVENT_TYPE_") for event in events]
    told = {"TIMER_STARTED": "pause", "MARKER_RECORDED": "patch", "ACTIVITY_TASK_SCHEDULED": "activity"}
    assert [told[kind] for kind in kinds if kind in told] == [
        "patch",
        "pause",
        "pause",
        *["activity"] * 3,
        "pause",
    ]


def history_of(file: Path) -> WorkflowHistory:
    recorded = json.loads(file.read_text())
    return WorkflowHistory.from_json(recorded["id"], recorded["history"])


def replayer() -> Replayer:
    """With the runner of workers, which tells who sent what."""
    return Replayer(
        workflows=[Interpreter], interceptors=[WorkflowSide()], unsandboxed_workflow_runner=DetailedRunner()
    )


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
async def test_a_recorded_history_replays(file: Path) -> None:
    await replayer().replay_workflow(history_of(file))


async def test_a_replay_without_the_interceptor_says_so() -> None:
    bare = Replayer(workflows=[Interpreter])
    result = await bare.replay_workflow(history_of(FOLDER / "completed.json"), raise_on_replay_failure=False)
    assert result.replay_failure is not None
    assert "add pipeline_runner.PipelinePlugin() to its plugins" in str(result.replay_failure)
    assert "ondeterminism" not in str(result.replay_failure)


async def test_replay_would_notice_a_change() -> None:
    """The check can fail: a history whose activity has another name does not replay."""
    recorded = json.loads((FOLDER / "failed.json").read_text())
    text = json.dumps(recorded["history"]).replace('"name": "effect.do"', '"name": "effect.other"')
    changed = WorkflowHistory.from_json(recorded["id"], json.loads(text))
    result = await replayer().replay_workflow(changed, raise_on_replay_failure=False)
    assert result.replay_failure is not None
    assert "effect.other" in str(result.replay_failure)


async def test_an_activity_without_a_result_gives_null() -> None:
    """Java's ``void`` and Go's ``error`` alone complete an activity without any payload."""
    recorded = json.loads((FOLDER / "completed.json").read_text())
    completed = [
        e["activityTaskCompletedEventAttributes"]
        for e in recorded["history"]["events"]
        if "activityTaskCompletedEventAttributes" in e
    ]
    assert completed
    for attributes in completed:
        del attributes["result"]
    await replayer().replay_workflow(WorkflowHistory.from_json(recorded["id"], recorded["history"]))
