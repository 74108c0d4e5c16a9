"""What a process lacks is noticed before it starts a run, or takes one up."""

import os
import signal
from pathlib import Path

import pytest

from pipeline_runner.language.needs import needs_of
from pipeline_runner.language.workspace import load
from tests.cli.command import finish, interrupt, popen, run
from tests.cli.test_serving import read_until

SECRET = """
name: needs-secret
secrets: [B3_TOKEN]
steps:
  - id: make
    activity: shell.run
    with: {command: [touch, made.txt]}
    compensate:
      activity: shell.run
      with: {command: [sh, -c, "test -n \\"$T\\" && rm made.txt"], env: {T: "{{ secrets.B3_TOKEN }}"}}
  - {id: pause, wait: "PAUSE"}
  - {id: stop, fail: {message: enough}}
"""


def _needs(folder: Path, text: str, **children: str) -> tuple[str, ...]:
    for name, content in {"main": text, **children}.items():
        (folder / f"{name}.yaml").write_text(content)
    loaded = load(folder / "main.yaml")
    assert loaded.bundle is not None, loaded.diagnostics
    return needs_of(loaded).secrets


STEP = '{id: s, activity: shell.run, with: {command: [x, "a {{ secrets.S }}"]}, compensate: none}'
UNDONE = (
    "{id: s, activity: shell.run, with: {command: [x]},"
    ' compensate: {activity: shell.run, with: {command: [x], env: {A: "{{ secrets.S }}"}}}}'
)
PLAIN = "{id: s, activity: shell.run, with: {command: [x]}, compensate: none}"


@pytest.mark.parametrize(
    "text",
    [
        f"name: m\nsecrets: [S]\nsteps:\n  - {STEP}\n",
        f"name: m\nsecrets: [S]\nsteps:\n  - {PLAIN}\nfinally:\n  - {STEP.replace('id: s', 'id: f').replace(', compensate: none', '')}\n",
        f"name: m\nsecrets: [S]\nsteps:\n  - {UNDONE}\n",
        "name: m\nsteps:\n  - {id: c, pipeline: ./child.yaml}\n",
        "name: m\nsteps:\n  - {id: s, activity: sql.execute, with: {connection: S, statement: select 1}, compensate: none}\n",
    ],
    ids=["step", "finally", "undo", "child", "connection"],
)
def test_secrets_are_found_wherever_they_are_used(tmp_path: Path, text: str) -> None:
    child = f"name: child\nsecrets: [S]\nsteps:\n  - {STEP}\n"
    assert _needs(tmp_path, text, child=child) == ("S",)


def test_secrets_for_workers_of_somebody_else_are_theirs(tmp_path: Path) -> None:
    (tmp_path / "activities.yaml").write_text(
        "activities:\n  pay.charge: {task_queue: payments, secrets: true}\n"
    )
    text = 'name: m\nsecrets: [S]\nsteps:\n  - {id: s, activity: pay.charge, with: {a: "{{ secrets.S }}"}}\n'
    assert _needs(tmp_path, text) == ()


def test_a_missing_secret_starts_nothing(tmp_path: Path) -> None:
    (tmp_path / "main.yaml").write_text(SECRET.replace("PAUSE", "1ms"))
    done = run(tmp_path, "main.yaml")
    assert done.code == 2
    assert 'the worker has no secret "B3_TOKEN": there is no environment variable' in done.err
    assert done.err.rstrip().endswith("Nothing was started")
    assert not (tmp_path / "made.txt").exists()


def test_a_run_is_not_taken_up_without_its_secrets(tmp_path: Path) -> None:
    (tmp_path / "main.yaml").write_text(SECRET.replace("PAUSE", "3s"))
    process = popen(tmp_path, "main.yaml", "--workflow-id", "mine", B3_TOKEN="token")
    read_until(process, "pause: ")
    os.kill(process.pid, signal.SIGKILL)
    finish(process)
    bare = run(tmp_path, "watch", "mine")
    assert bare.code == 2
    assert 'no secret "B3_TOKEN"' in bare.err
    assert bare.err.rstrip().endswith("The run is unchanged")
    taken_up = run(tmp_path, "watch", "mine", B3_TOKEN="token")
    assert taken_up.code == 1, taken_up.err
    assert "undone: make" in taken_up.err
    assert not (tmp_path / "made.txt").exists()


def test_the_same_run_from_another_directory_is_another_run(tmp_path: Path) -> None:
    """Also, what its files say of task queues does not have others take its steps."""
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    (tmp_path / "site.yaml").write_text(
        "name: site\nworkflow_id: deploy-site\ntask_queue: shared\nsteps:\n"
        "  - {id: a, activity: shell.run, task_queue: other, with: {command: [pwd], parse: lines},"
        " compensate: none}\n"
        "  - {id: w, wait: 60s}\n"
    )
    state = {"RUN_PIPELINE_STATE": str(tmp_path / "state")}
    process = popen(one, "../site.yaml", **state)
    read_until(process, "w: ")
    second = run(two, "../site.yaml", **state)
    assert second.code == 2
    assert f'the run "deploy-site" is open in {one}' in second.err
    followed = popen(one, "../site.yaml", **state)
    read_until(followed, "following the open run: deploy-site")
    interrupt(process)
    assert finish(process).code == 4
    assert finish(followed).code == 4


def test_the_longest_workflow_id_starts(tmp_path: Path) -> None:
    (tmp_path / "main.yaml").write_text("name: main\nsteps:\n  - {id: s, set: {x: 1}}\noutput: done\n")
    done = run(tmp_path, "main.yaml", "--workflow-id", "i" * 1000)
    assert (done.code, done.out) == (0, '"done"\n'), done.err
    longer = run(tmp_path, "main.yaml", "--workflow-id", "i" * 1001)
    assert longer.code == 2
    assert "a workflow id must have 1 to 1000 bytes, not 1001" in longer.err
