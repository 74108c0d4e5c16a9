"""Undo that the catalogue declares: what nobody says in a pipeline is undone all the same."""

from pathlib import Path

import pytest

from pipeline_runner.activities.files import directory
from pipeline_runner.activities.files import file as files
from pipeline_runner.core.model import ActivityCall, Compensation, Timeouts
from tests.conftest import Pipelines
from tests.engine.test_undo import failure

BUILT_IN = """
version: 1
name: declared
steps:
  - {id: folder, activity: directory.create, with: {path: ROOT/new/inner}}
  - {id: first, activity: file.write, with: {path: ROOT/new/inner/a, content: a}}
  - {id: copied, activity: file.copy, with: {source: ROOT/new/inner/a, destination: ROOT/b}}
  - {id: moved, activity: file.move, with: {source: ROOT/b, destination: ROOT/c}}
  - {id: removed, activity: file.remove, with: {path: ROOT/old}}
  - {id: kept, activity: file.write, with: {path: ROOT/kept, content: x}, compensate: none}
  - {id: stop, fail: {message: enough}}
finally:
  - {id: last, activity: file.write, with: {path: ROOT/last, content: x}}
"""
FILES = (directory.create, directory.remove, files.write, files.copy, files.move, files.remove, files.restore)


async def test_built_in_activities_are_undone_in_reverse_without_a_word(
    pipelines: Pipelines, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "old").write_text("old")
    async with pipelines.worker(*FILES):
        _, report = await failure(
            await pipelines.start(pipelines.bundle(BUILT_IN.replace("ROOT", str(root))))
        )
    assert report is not None
    assert not report.dirty, report
    assert [(one.path, one.state) for one in report.undo] == [
        (name, "undone") for name in ("removed", "moved", "copied", "first", "folder")
    ]
    assert sorted(path.name for path in root.iterdir()) == ["kept", "last", "old"]
    assert (root / "old").read_text() == "old"


DECLARED = """
activities:
  effect.do:
    task_queue: {queue}
    undo:
      activity: effect.undo
      with: {{log: "{{{{ step.input.log }}}}", name: "{{{{ step.input.name }}}}", outcome: true}}
      timeouts: {{start_to_close: 20s}}
      retry: {{maximum_attempts: 2}}
  effect.undo: {{undo: none}}
  file.write:
    undo: {{activity: file.remove, with: {{path: "{{{{ step.input.path }}}}"}}}}
"""
STEPS = """
version: 1
name: declared
inputs: {log: {type: string}, path: {type: string}}
defaults: {retry: {maximum_attempts: 1}}
steps:
  - {id: a, activity: effect.do, with: {log: "{{ inputs.log }}", name: a}}
  - {id: file, activity: file.write, with: {path: "{{ inputs.path }}", content: x}}
  - {id: bare, activity: effect.do, with: {log: "{{ inputs.log }}", name: bare}, compensate: none}
  - id: own
    activity: effect.do
    with: {log: "{{ inputs.log }}", name: own}
    compensate: {activity: effect.undo, with: {log: "{{ inputs.log }}", name: other}}
  - id: LAST
    activity: effect.do
    with: {log: "{{ inputs.log }}", name: LAST, then: THEN}
    timeouts: {start_to_close: 1s}
finally:
  - {id: last, activity: effect.do, with: {log: "{{ inputs.log }}", name: last}}
"""


@pytest.mark.parametrize(
    ("then", "undone"), [("hang", ["undo uncertain after uncertain"]), ("fail-after", [])]
)
async def test_the_undo_of_activities_yaml_runs_where_the_step_ran(
    pipelines: Pipelines, then: str, undone: list[str]
) -> None:
    """On the queue of another worker; a step that is uncertain too, one that failed not."""
    (pipelines.folder / "activities.yaml").write_text(DECLARED.format(queue=f"{pipelines.queue}-other"))
    text = STEPS.replace("LAST", "uncertain").replace("THEN", then)
    bundle = pipelines.bundle(text)
    path = pipelines.folder / "written"
    other = Pipelines(pipelines.client, pipelines.folder)
    other.queue = f"{pipelines.queue}-other"
    async with pipelines.worker(*FILES), other.worker():
        handle = await pipelines.start(bundle, log=pipelines.log, path=str(path))
        _, report = await failure(handle)
    assert report is not None
    assert not report.dirty, report
    assert pipelines.effects == [
        "do a", "do bare", "do own", "do uncertain", *undone, "undo other", "undo a after completed", "do last",
    ]  # fmt: skip
    assert not path.exists()


def test_what_the_bundle_holds_is_resolved(pipelines: Pipelines) -> None:
    (pipelines.folder / "activities.yaml").write_text(DECLARED.format(queue="other"))
    steps = pipelines.bundle(STEPS.replace("THEN", "")).pipelines["main.yaml"].steps
    first = steps[0].compensate
    assert isinstance(first, Compensation)
    assert isinstance(first.action, ActivityCall)
    assert (first.action.name, first.action.task_queue) == ("effect.undo", "other")
    assert first.action.timeouts == Timeouts(start_to_close=20.0)
    assert first.action.retry.maximum_attempts == 2
    assert first.after == "uncertain"
    assert steps[2].compensate == "none"
    assert isinstance(steps[1].compensate, Compensation)
    assert steps[1].compensate.action.task_queue is None


QUEUES = """
version: 1
name: queues
DEFAULTS
steps:
  - {id: a, activity: file.write, with: {path: a, content: a} OWN}
"""


@pytest.mark.parametrize(
    ("defaults", "own", "queue"),
    [
        ("", "", None),
        ("", ", task_queue: host", "host"),
        ("defaults: {task_queue: files}", "", "files"),
        ("defaults: {task_queue: files, compensate: {task_queue: undos}}", "", "undos"),
        ("defaults: {task_queue: files}", ", task_queue: host", "host"),
        ("task_queue: all", "", "all"),
    ],
)
def test_the_undo_goes_where_the_step_went(
    pipelines: Pipelines, defaults: str, own: str, queue: str | None
) -> None:
    bundle = pipelines.bundle(QUEUES.replace("DEFAULTS", defaults).replace(" OWN", own))
    (step,) = bundle.pipelines["main.yaml"].steps
    assert isinstance(step.compensate, Compensation)
    assert step.compensate.action.task_queue == queue


REQUEST = """
version: 1
name: saves
inputs: {to: {type: [string, "null"], default: null}}
steps:
  - {id: plain, activity: http.request, with: {url: "http://x"}}
  - {id: nowhere, activity: http.request, with: {url: "http://x", save_as: null}}
  - {id: saved, activity: http.request, with: {url: "http://x", save_as: "{{ inputs.to }}"}}
  - {id: program, activity: shell.run, with: {command: [ls]}}
"""


def test_a_request_is_undone_only_if_it_saves_a_file(pipelines: Pipelines) -> None:
    steps = pipelines.bundle(REQUEST).pipelines["main.yaml"].steps
    assert [step.id for step in steps if step.compensate is not None] == ["saved"]
