"""``decide``, and what the command says of runs that ask, keep, or have passed a point of no return."""

from pathlib import Path

from tests.cli.command import Done, finish, popen, run

CHILD = """
name: child
on_failure: ask
steps:
  - {id: made, activity: directory.create, with: {path: made}}
  - {id: test, activity: shell.run, with: {command: [test, -e, ready]}}
output: tested
"""
PARENT = """
name: parent
steps:
  - {id: child, pipeline: ./child.yaml}
output: "{{ steps.child.output }}"
"""


def lines(done: Done) -> list[str]:
    return [line for line in done.err.splitlines() if not line.lstrip()[:1].isdigit()]


def test_a_failed_step_is_decided_from_another_terminal(tmp_path: Path) -> None:
    (tmp_path / "parent.yaml").write_text(PARENT)
    (tmp_path / "child.yaml").write_text(CHILD)
    process = popen(tmp_path, "parent.yaml", "--workflow-id", "shop")
    assert process.stderr is not None
    seen: list[str] = []

    def until(part: str) -> str:
        while part not in (line := process.stderr.readline()):  # type: ignore[union-attr]
            assert line, seen
            seen.append(line)
        return line

    assert until("waiting for").endswith("child/test: waiting for decision\n")
    assert until("") == "to decide: run-pipeline decide shop/child WHAT, where WHAT is retry, skip or undo\n"
    wrong = run(tmp_path, "decide", "shop", "retry")
    assert (wrong.code, wrong.out, wrong.err) == (
        1, "", 'run-pipeline: the run does not ask for decisions: its pipeline has no "on_failure: ask"\n',
    )  # fmt: skip
    unknown = run(tmp_path, "decide", "shop/child", "again")
    assert unknown.code == 2
    assert "invalid choice: 'again'" in unknown.err
    (tmp_path / "ready").touch()
    decided = run(tmp_path, "decide", "shop/child", "retry")
    assert (decided.code, decided.out, decided.err) == (0, "", "decided: retry test: the step runs again\n")
    assert until("child/test: failed").endswith("decided: retry\n")
    assert until("child/test#2: running")
    ended = finish(process)
    assert (ended.code, ended.json) == (0, "tested")
    assert (tmp_path / "made").is_dir()


def test_a_run_that_keeps_what_it_did_says_so(tmp_path: Path) -> None:
    text = CHILD.replace("ask", "keep")
    (tmp_path / "kept.yaml").write_text(text)
    done = run(tmp_path, "kept.yaml")
    assert done.code == 1
    told = lines(done)
    assert told[told.index("  kept: made") + 1] == (
        "on_failure: keep: nothing was undone, and the effects of the run remain"
    )
    assert (tmp_path / "made").is_dir()


def test_a_run_that_has_passed_its_pivot_says_so(tmp_path: Path) -> None:
    text = CHILD.replace("on_failure: ask\n", "").replace("path: made}", "path: made}, pivot: true")
    (tmp_path / "released.yaml").write_text(text)
    done = run(tmp_path, "released.yaml")
    assert done.code == 1
    assert "  point of no return: made: this step and those before it are not undone" in lines(done)
    assert (tmp_path / "made").is_dir()
