"""``resume``, and what a command says of a run that keeps what it has done."""

from pathlib import Path

from tests.cli.command import run
from tests.cli.test_run_command import PIPELINE
from tests.effects import lines

KEEPS = PIPELINE.replace("inputs:\n", "on_failure: keep\ninputs:\n  blocker: {type: string}\n", 1).replace(
    'then: "{{ inputs.then }}"}', 'blocker: "{{ inputs.blocker }}"}'
)


def test_a_kept_run_is_resumed_where_it_stopped(tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_text(KEEPS)
    log, blocker = tmp_path / "log", tmp_path / "blocker"
    blocker.touch()
    given = ("-i", f"log={log}", "-i", f"blocker={blocker}", "--activities", "tests.effects")
    kept = run(tmp_path, "shop.yaml", *given, "--workflow-id", "shop")
    assert kept.code == 1
    assert kept.err.endswith(
        "on_failure: keep: nothing was undone, and the effects of the run remain\n"
        "to go on where it stopped: run-pipeline resume shop\n"
        "to undo what it has done: run-pipeline undo shop\n"
        "to look at the run later: run-pipeline server\n"
    )
    blocker.unlink()
    shown = run(tmp_path, "resume", "shop", "--from", "a", "--dry-run")
    assert (shown.code, shown.out, shown.err) == (0, "undo b\nundo a\ngo on with a\n", "")
    done = run(tmp_path, "resume", "shop")
    assert done.code == 0, done.err
    assert done.json == {"sold": 1, "by": "b"}
    assert done.err.startswith("resuming shop with b\n")
    assert lines(log) == ["do a", "do b"]
    again = run(tmp_path, "resume", "shop")
    assert (again.code, again.err) == (
        1,
        'run-pipeline: the run "shop" cannot be resumed: its steps have completed: there is nothing to resume\n',
    )
    assert run(tmp_path, "undo", "shop").code == 0
    assert lines(log) == ["do a", "do b", "undo b", "undo a"]
