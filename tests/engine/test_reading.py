"""What histories say about the steps of a run."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import WorkflowHistory

from pipeline_runner.cli.following import follow
from pipeline_runner.cli.progress import line_of
from pipeline_runner.cli.session import Interrupts, Target
from pipeline_runner.core.state import WAITING_MEMO
from pipeline_runner.engine.history.happenings import Progress
from pipeline_runner.engine.history.reading import Reader
from pipeline_runner.engine.reports import read_report
from tests.conftest import Pipelines
from tests.engine.scenarios import FOLDER
from tests.engine.test_scopes import do, pipeline


def recorded(name: str) -> Iterator[HistoryEvent]:
    data = json.loads((FOLDER / f"{name}.json").read_text())
    return iter(WorkflowHistory.from_json(data["id"], data["history"]).events)


def lines_of(events: Iterator[HistoryEvent]) -> list[str]:
    """What a pipe shows of a history, without the times."""
    reader = Reader("w", None)
    told = [each for event in events for each in reader.take(reader.root, event)]
    lines = [line_of(each) for each in told if isinstance(each, Progress)]
    return [re.sub(r", \d+\.\d\ds", "", line) for line in lines]


def test_a_recorded_run_of_every_scope_gives_lines_with_paths() -> None:
    assert lines_of(recorded("scopes-completed")) == [
        *["tried.a: running", "tried.a: completed", "tried.b: running", "tried.b: completed"],
        *["undo tried.b: running", "undo tried.b: completed", "undo tried.a: running"],
        *["undo tried.a: completed", "tried.catch[0].c: running", "tried.catch[0].c: completed"],
        # Its timer is of a version that wrote names without paths.
        *["both.left.d: running", "both.right.rest: waiting", "both.left.d: completed"],
        "both.right.rest: completed",
        *["both.right.child: running", "both.right.child: completed"],
        *["each[0].e: running", "each[1].e: running", "each[0].e: completed"],
        *["each[2].e: running", "each[1].e: completed", "each[2].e: completed"],
    ]


def test_pauses_of_a_run_are_no_steps() -> None:
    assert lines_of(recorded("much"))[:2] == ["e0: running", "e0: completed"]


def memo(second: int, waiting: Any) -> HistoryEvent:
    event = HistoryEvent(event_type=EventType.EVENT_TYPE_WORKFLOW_PROPERTIES_MODIFIED)
    event.event_time.FromDatetime(datetime(2030, 1, 1, 0, 0, second, tzinfo=UTC))
    fields = event.workflow_properties_modified_event_attributes.upserted_memo.fields
    fields[WAITING_MEMO].CopyFrom(Payload(data=json.dumps(waiting).encode()))
    return event


def test_what_waits_for_something_from_outside_is_shown_with_how_it_ended() -> None:
    paid = {"pay": {"name": "wait for the money", "for": "event paid"}}
    asked = {"ship.ask": {"for": "approval: ship \x1b[2J it?"}}
    events = [
        memo(1, paid),
        memo(2, paid | asked),
        memo(3, asked),
        memo(4, {"ship.ask": {"state": "failed", "error": "rejected by eve"}}),
        memo(5, {}),
    ]
    assert lines_of(iter(events)) == [
        "pay: waiting for event paid, wait for the money",
        "ship.ask: waiting for approval: ship �[2J it?",
        "pay: completed",
        "ship.ask: failed: rejected by eve",
    ]
    assert lines_of(iter([memo(1, {"x": "?"}), memo(2, ["x"]), memo(3, None)])) == []


KEEPS = pipeline(
    f"""
  - id: tried
    steps:
      - {do("a").replace('name: "a"}}}', 'name: "a", then: fail}, retry: {maximum_attempts: 1}}}')}
      - {{id: stop, fail: {{message: enough}}}}
    catch: [{{}}]
  - id: both
    parallel:
      left: [{{id: nap, wait: 10ms}}]
      right:
        - {{id: never, name: "not now", when: inputs.now, activity: effect.do, with: {{log: LOG, name: n}},
           compensate: none}}
        - {{id: rest, name: "have a rest", wait: 60ms}}
  - id: child
    pipeline: ./c.yaml
  - id: many
    for_each: inputs.items
    activity: effect.do
    with: {{log: LOG, name: "{{{{ item }}}}"}}
    compensate: none
""",
    "inputs: {now: {type: boolean, default: false}, items: {type: array, items: {type: string}}}\n",
)


async def test_a_run_of_nested_scopes_on_a_pipe_which_completes_and_leaves_something(
    pipelines: Pipelines, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "then: fail" in KEEPS
    bundle = pipelines.bundle(KEEPS, c=pipeline(f"  - {do('x')}\n"))
    async with pipelines.worker():
        handle = await pipelines.start(bundle, items=list("abcdefghijk"))
        here = Target(settings={"target_host": "unused"}, embedded=None)
        assert await follow(pipelines.client, handle, Interrupts(), here, cancels=True) == 3
    screen = capsys.readouterr()
    told = [re.sub(r"^ *[\d.]+s  |, \d+\.\d\ds", "", line) for line in screen.err.splitlines()]
    assert told == [
        "tried.a: running",
        "tried.a: completed",
        "undo tried.a: running",
        "undo tried.a: failed: a cannot be undone",
        "both.left.nap: waiting",
        "both.right.never: skipped",
        "both.right.rest: waiting, have a rest",
        "both.left.nap: completed",
        "both.right.rest: completed",
        *["child: running", "child/x: running", "child/x: completed", "child: completed"],
        *(f"many[{k}]: {state}" for k in range(8) for state in ("running", "completed")),
        *["many: 8 of 11 done, 1 running", "many: 9 of 11 done", "many: 10 of 11 done"],
        "many: completed, 11 of 11 done",
        "completed",
        "  UNDO FAILED: tried.a: a cannot be undone [Stuck]",
        "dirty: effects of the run remain, or may remain",
        f"to undo what is left: run-pipeline undo {handle.id}",
    ]
    assert screen.out == "null\n"
    report = await read_report(pipelines.client, handle.id, handle.run_id, "p")
    assert (report.status, report.dirty) == ("completed", True)
    assert report.steps == {"tried": "caught", "both": "completed", "child": "completed", "many": "completed"}
    assert [(record.path, record.state, record.attempts) for record in report.undo] == [
        ("tried.a", "failed", 1)
    ]
