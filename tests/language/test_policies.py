"""Retry, timeouts and task queues are merged field by field, in the order of the contract."""

from pathlib import Path
from typing import Any

import pytest

from pipeline_runner.core.model import ActivityCall, ChildCall, Compensation, Step
from pipeline_runner.language.workspace import load

CATALOGUE = """
activities:
  bare: {undo: none}
  known:
    task_queue: from-catalogue
    undo: none
    timeouts: {heartbeat: 7s}
    retry: {maximum_attempts: 7, backoff_coefficient: 3}
"""


def steps(folder: Path, body: str) -> dict[str, Step]:
    """Return the built steps of a pipeline by id."""
    (folder / "activities.yaml").write_text(CATALOGUE, encoding="utf-8")
    (folder / "leaf.yaml").write_text("name: leaf\nsteps: [{id: x, set: {}}]\n", encoding="utf-8")
    path = folder / "p.yaml"
    path.write_text("version: 1\nname: p\n" + body, encoding="utf-8")
    loaded = load(path)
    assert loaded.diagnostics == ()
    assert loaded.bundle is not None
    return {step.id: step for step in loaded.bundle.pipelines["p.yaml"].steps}


def action(step: Step) -> ActivityCall:
    """Return the activity of a step."""
    assert isinstance(step.action, ActivityCall)
    return step.action


def undo(step: Step) -> ActivityCall:
    """Return the activity that undoes a step."""
    assert isinstance(step.compensate, Compensation)
    assert isinstance(step.compensate.action, ActivityCall)
    return step.compensate.action


def retry(call: ActivityCall) -> tuple[Any, ...]:
    """Return a retry policy as a tuple."""
    r = call.retry
    return r.initial_interval, r.backoff_coefficient, r.maximum_interval, r.maximum_attempts


def test_the_language_has_defaults(tmp_path: Path) -> None:
    """Five minutes, five attempts; compensations try harder."""
    found = steps(tmp_path, "steps: [{id: a, activity: bare, compensate: {activity: bare}}]")["a"]
    assert retry(action(found)) == (1.0, 2.0, 60.0, 5)
    assert retry(undo(found)) == (1.0, 2.0, 60.0, 10)
    assert action(found).timeouts.start_to_close == undo(found).timeouts.start_to_close == 300.0
    assert action(found).task_queue is None


def test_each_layer_goes_over_the_one_below(tmp_path: Path) -> None:
    """Language, catalogue, defaults (policy, then own), step's policy, step."""
    body = """
policies:
  low: {retry: {maximum_interval: 10s, initial_interval: 2s}, timeouts: {start_to_close: 1m, heartbeat: 1s}}
  high: {retry: {initial_interval: 4s}, timeouts: {schedule_to_start: 9s}}
defaults: {policy: low, retry: {initial_interval: 3s}, timeouts: {heartbeat: 2s}}
steps:
  - {id: a, activity: known}
  - {id: b, activity: known, policy: high}
  - {id: c, activity: known, policy: high, retry: {initial_interval: 5s}, timeouts: {heartbeat: 3s}}
"""
    found = steps(tmp_path, body)
    assert retry(action(found["a"])) == (3.0, 3.0, 10.0, 7)
    assert retry(action(found["b"])) == (4.0, 3.0, 10.0, 7)
    assert retry(action(found["c"])) == (5.0, 3.0, 10.0, 7)
    timeouts = action(found["c"]).timeouts
    assert (timeouts.start_to_close, timeouts.schedule_to_start, timeouts.heartbeat) == (60.0, 9.0, 3.0)
    assert action(found["a"]).timeouts.heartbeat == 2.0


def test_compensations_have_defaults_of_their_own(tmp_path: Path) -> None:
    """``defaults`` do not reach them, ``defaults.compensate`` does."""
    body = """
policies: {p: {retry: {maximum_attempts: 2}}}
defaults: {retry: {maximum_attempts: 1}, compensate: {policy: p, timeouts: {start_to_close: 9s}}}
steps:
  - {id: a, activity: bare, compensate: {activity: bare}}
  - {id: b, activity: bare, compensate: {activity: bare, retry: {maximum_attempts: 3}}}
"""
    found = steps(tmp_path, body)
    assert retry(action(found["a"]))[3] == 1
    assert retry(undo(found["a"]))[3] == 2
    assert undo(found["a"]).timeouts.start_to_close == 9.0
    assert retry(undo(found["b"]))[3] == 3


def test_defaults_never_touch_children(tmp_path: Path) -> None:
    """A child is retried, and bounded, only if its step says so."""
    body = """
policies: {p: {timeouts: {run: 1m, start_to_close: 2m}}}
defaults: {retry: {maximum_attempts: 1}, timeouts: {start_to_close: 1s}, task_queue: q}
steps:
  - {id: a, pipeline: leaf.yaml, compensate: {pipeline: leaf.yaml}}
  - {id: b, pipeline: leaf.yaml, policy: p, retry: {maximum_attempts: 2}}
"""
    found = steps(tmp_path, body)
    assert found["a"].action == ChildCall(pipeline="leaf.yaml")
    assert isinstance(found["a"].compensate, Compensation)
    assert found["a"].compensate.action == ChildCall(pipeline="leaf.yaml")
    child = found["b"].action
    assert isinstance(child, ChildCall)
    assert child.timeouts.run == 60.0
    assert child.retry is not None
    assert (child.retry.initial_interval, child.retry.maximum_attempts) == (1.0, 2)


def test_task_queue_of_an_activity(tmp_path: Path) -> None:
    """The step's, the catalogue's, that of ``defaults``, the pipeline's."""
    body = """
task_queue: from-pipeline
defaults: {task_queue: from-defaults}
steps:
  - {id: a, activity: known, task_queue: own, compensate: {activity: bare}}
  - {id: b, activity: known}
  - {id: c, activity: bare}
"""
    found = steps(tmp_path, body)
    assert [action(found[i]).task_queue for i in "abc"] == ["own", "from-catalogue", "from-defaults"]
    assert undo(found["a"]).task_queue == "from-pipeline"


@pytest.mark.parametrize(
    ("timeouts", "start_to_close"),
    [
        ("{}", 300.0),
        ("{schedule_to_close: 10m}", 300.0),
        ("{schedule_to_close: 1m}", None),
        ("{schedule_to_close: 1m, start_to_close: 2m}", 120.0),
    ],
)
def test_default_attempt_limit_gives_way_to_a_shorter_total(
    tmp_path: Path, timeouts: str, start_to_close: float | None
) -> None:
    """The server then takes the total as the limit of each attempt."""
    ignore = "# pipeline: ignore[timeout-order]" if "2m" in timeouts else ""
    found = steps(tmp_path, f"steps: [{{id: a, activity: bare, timeouts: {timeouts}}}] {ignore}")
    assert action(found["a"]).timeouts.start_to_close == start_to_close


def test_first_interval_above_the_default_maximum_raises_it(tmp_path: Path) -> None:
    """Nobody asked for that maximum."""
    body = "steps: [{id: a, activity: bare, retry: {initial_interval: 5m}}]"
    assert retry(action(steps(tmp_path, body)["a"])) == (300.0, 2.0, 300.0, 5)
