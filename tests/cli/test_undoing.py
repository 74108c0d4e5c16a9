"""``undo``, ``terminate`` and ``run --then-undo``."""

import json
from pathlib import Path

import pytest

from tests.cli.command import assert_nothing_left, finish, popen, run, wait_for
from tests.cli.test_run_command import PIPELINE, arguments
from tests.effects import lines


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (tmp_path / "shop.yaml").write_text(PIPELINE)
    return tmp_path


def test_a_completed_run_is_undone_later_by_a_command_that_serves_it(shop: Path) -> None:
    first = run(shop, *arguments(shop), "--workflow-id", "shop")
    assert first.code == 0, first.err
    shown = run(shop, "undo", "shop", "--dry-run")
    assert (shown.code, shown.err) == (0, "")
    log = json.dumps(str(shop / "log"))
    assert shown.out == (
        f'b: effect.undo {{"log": {log}, "name": "b"}}\na: effect.undo {{"log": {log}, "name": "a", "then": ""}}\n'
    )
    assert lines(shop / "log") == ["do a", "do b"]
    done = run(shop, "undo", "shop", "--report", "report.json")
    assert (done.code, done.out) == (0, ""), done.err
    assert "\nundone\n" in done.err
    assert lines(shop / "log") == ["do a", "do b", "undo b", "undo a"]
    report = json.loads((shop / "report.json").read_text())
    assert [(record["path"], record["state"]) for record in report["undo"]] == [
        ("b", "undone"),
        ("a", "undone"),
    ]
    again = run(shop, "undo", "shop")
    assert (again.code, again.out, again.err) == (0, "", "nothing to undo: shop\n")
    assert_nothing_left(shop)


def test_a_terminated_run_says_how_it_is_undone(shop: Path) -> None:
    process = popen(shop, *arguments(shop, then="hang"), "--workflow-id", "shop")
    wait_for(lambda: "do b" in lines(shop / "log"))
    refused = run(shop, "undo", "shop")
    assert refused.code == 1
    assert refused.err == (
        'run-pipeline: the run "shop" is still open: cancel it, and it undoes itself'
        " (run-pipeline cancel shop)\n"
    )
    done = run(shop, "terminate", "shop")
    assert (done.code, done.out) == (0, "")
    assert done.err == (
        "terminated: shop. Nothing was undone, and its finally steps do not run; to undo what it has done:"
        " run-pipeline undo shop\n"
    )
    ended = finish(process)
    assert ended.code == 3
    assert lines(shop / "log") == ["do a", "do b"]
    assert run(shop, "undo", "shop").code == 0
    assert lines(shop / "log") == ["do a", "do b", "undo b", "undo a"]
    gone = run(shop, "terminate", "shop")
    assert (gone.code, gone.err) == (
        1,
        'run-pipeline: the run "shop" is not open: its status is terminated\n',
    )


def test_a_rehearsal_is_undone_and_leaves_nothing(shop: Path) -> None:
    done = run(shop, *arguments(shop), "--then-undo")
    assert done.code == 0, done.err
    assert lines(shop / "log") == ["do a", "do b", "undo b", "undo a"]
    assert done.err.index("  completed\n") < done.err.index("\nundone\n")
    both = run(shop, *arguments(shop), "--then-undo", "--detach")
    assert (both.code, both.err) == (
        2,
        "run-pipeline: --then-undo waits for the run to end, and --detach does not: use one of them\n",
    )


def test_an_unknown_run_is_told(shop: Path) -> None:
    done = run(shop, "undo", "shop")
    assert (done.code, done.err) == (
        1,
        'run-pipeline: there is no run "shop" here; ended runs are kept for a limited time\n',
    )
