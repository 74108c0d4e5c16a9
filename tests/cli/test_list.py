"""``list``: what a person, and what a program, sees of the runs on a server."""

import json
from pathlib import Path

from tests.cli.command import run
from tests.cli.test_run_command import PIPELINE, arguments


def test_runs_are_listed_newest_first_with_what_needs_attention(tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_text(PIPELINE)
    nothing = run(tmp_path, "list")
    assert (nothing.code, nothing.out, nothing.err) == (0, "", "no runs\n")
    assert run(tmp_path, *arguments(tmp_path), "--workflow-id", "good").code == 0
    assert run(tmp_path, *arguments(tmp_path, then="fail"), "--workflow-id", "bad").code == 1
    dirty = arguments(tmp_path, then="fail-after", undo="fail")
    assert run(tmp_path, *dirty, "--workflow-id", "worse").code == 3
    assert run(tmp_path, "undo", "good").code == 0

    listed = json.loads(run(tmp_path, "list", "--json").out)
    assert [(one["run"].partition(":")[0], one["status"], one["dirty"], one["undone"]) for one in listed] == [
        ("undo", "completed", False, False),
        ("worse", "failed", True, False),
        ("bad", "failed", False, False),
        ("good", "completed", False, True),
    ]
    assert (listed[0]["undoes"], listed[0]["pipeline"]) == ("good", "shop")
    assert listed[2]["problem"] == "sell 1: b is out of order [Broken]"

    table = [line.split("  ") for line in run(tmp_path, "list").out.splitlines()]
    assert [cell.strip() for cell in table[0] if cell] == ["RUN", "PIPELINE", "STATUS", "STARTED", "TIME"]
    assert [row[0] for row in table[2:]] == ["worse", "bad", "good"]
    assert [next(cell for cell in row[2:] if "ed" in cell).strip() for row in table[2:]] == [
        "failed, dirty",
        "failed",
        "completed, undone by hand",
    ]
    problems = run(tmp_path, "list", "--problems", "--limit", "1", "--pipeline", "shop").out.splitlines()
    assert [line.split()[0] for line in problems] == ["RUN", "worse"]
    assert run(tmp_path, "list", "--pipeline", "o'shop").err == "no runs\n"
