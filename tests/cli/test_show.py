"""``show``: all that the server remembers of a run, for a person and for a program."""

import json
import re
from pathlib import Path

from tests.cli.command import run
from tests.cli.test_run_command import PIPELINE, arguments


def told(text: str) -> list[str]:
    """Return the lines without what differs from run to run."""
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "ID", text)
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "WHEN", text)
    return re.sub(r"\b\d+\.\d+s", "TIME", re.sub(r'"key": "\w+"', '"key": "K"', text)).splitlines()


def test_a_run_is_shown_with_its_steps_its_undo_and_what_repairs_it(tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_text(PIPELINE)
    log = str(tmp_path / "log")
    dirty = arguments(tmp_path, then="fail", undo="fail")
    assert run(tmp_path, *dirty, "--workflow-id", "shop").code == 3
    shown = run(tmp_path, "show", "shop", "--full")
    assert (shown.code, shown.err) == (0, "")
    given = json.dumps({"count": 1, "log": log, "then": "fail", "undo": "fail"})
    assert told(shown.out) == [
        "run       shop",
        "run id    ID",
        "pipeline  shop",
        "status    failed, dirty",
        "started   WHEN, TIME",
        f"inputs    {given}",
        "error     sell 1: b is out of order [Broken]",
        "",
        "open the shop       completed, TIME",
        f'    input   {{"log": "{log}", "name": "a"}}',
        '    output  {"key": "K", "name": "a"}',
        "sell 1              failed, TIME",
        "    error   b is out of order [Broken]",
        f'    input   {{"log": "{log}", "name": "b", "then": "fail"}}',
        "undo open the shop  failed, attempt 3 of 3, TIME",
        "    error   a cannot be undone [Stuck]",
        f'    input   {{"log": "{log}", "name": "a", "then": "fail"}}',
        "",
        "failed: a: a cannot be undone [Stuck]",
        "to undo what is left: run-pipeline undo shop",
    ]
    data = json.loads(run(tmp_path, "show", "shop", "--json").out)
    assert (data["status"], data["report"]["dirty"], data["undone_by"]) == ("failed", True, None)
    steps = [(one["path"], one["undo"], one["state"], one["attempts"]) for one in data["steps"]]
    assert steps == [("a", False, "completed", 1), ("b", False, "failed", 1), ("a", True, "failed", 3)]
    assert data["steps"][1]["error_type"] == "Broken"
    short = run(tmp_path, "show", "shop").out
    assert max(map(len, short.splitlines())) <= 135
    assert run(tmp_path, "show", "shep").err == 'run-pipeline: there is no run "shep" here\n'
