"""What people see of a run: pictures of the tree at several widths, and lines on a pipe.

Run with ``UPDATE_GOLDEN=1`` to write the pictures anew, then read what has changed.
"""

import io
import json
import os
import re
from datetime import timedelta
from functools import cache
from pathlib import Path

import pytest
from rich.console import Console

from pipeline_runner.cli.live import drawn
from pipeline_runner.cli.progress import Lines, _next
from pipeline_runner.cli.rows import rows_of
from pipeline_runner.cli.words import duration
from pipeline_runner.core.model import Branch, Parallel, Retry, Until
from pipeline_runner.engine.history.happenings import Ended
from pipeline_runner.engine.history.reading import Reader
from pipeline_runner.engine.history.tree import Tree
from tests.cli.command import run
from tests.cli.test_run_command import PIPELINE, arguments
from tests.engine.test_reading import recorded
from tests.engine.test_tree import START, History, block, each, step

PICTURES = Path(__file__).parents[1] / "data" / "views"


def picture(
    tree: Tree, width: int, *, after: float = 60, ended: Ended | None = None, limit: int | None = None
) -> str:
    """The tree as a terminal of that width shows it."""
    out = io.StringIO()
    console = Console(width=width, file=out, color_system=None)
    console.print(drawn(tree, width, START + timedelta(seconds=after), limit=limit, ended=ended))
    return "".join(f"{line.rstrip()}\n" for line in out.getvalue().splitlines())


def of_recorded(name: str) -> tuple[Tree, Ended]:
    reader = Reader("w", None)
    told = [one for event in recorded(name) for one in reader.take(reader.root, event)]
    assert isinstance(told[-1], Ended)
    return reader.tree, told[-1]


@cache
def under_way() -> Tree:
    """Branches side by side, a loop of many items, an activity that is retried, and steps to come."""
    pages = step(
        "pages", for_each="inputs.items", max_concurrency=50, fail_fast=False, name="copy {{ item }}"
    )
    both = Parallel(
        branches=(
            Branch(name="left", steps=(step("first"), step("second"))),
            Branch(name="right", steps=(pages,)),
        )
    )
    history = History(
        step("prepare"),
        step("no", when="inputs.x"),
        block("work", step("both", both), step("check"), retry=Retry(maximum_attempts=3)),
        step("tell"),
        inputs={"items": list(range(10_000))},
    )
    history.names["work.both.left.first"] = "the first \x1b[2J of all"
    history.do("prepare").begin("work.both.left.first")
    for k in range(1_467):
        history.names[f"work.both.right.pages[{k}]"] = f"copy {k}.txt"
        history.begin(f"work.both.right.pages[{k}]")
        if k >= 50:
            failing = k - 50 in (7, 300, 1_000)
            _ = (history.fail if failing else history.complete)(f"work.both.right.pages[{k - 50}]")
    first = history.node("work", "both", "left", "first")
    retry_at = history.now + timedelta(seconds=200)
    history.reader.tree.change(
        first, "retrying", history.now, attempt=2, maximum_attempts=5, error="no route", next_attempt=retry_at
    )
    return history.reader.tree


@pytest.mark.parametrize("width", [40, 80, 120])
@pytest.mark.parametrize("name", ["scopes-failed", "completed-child-undone", "dirty", "under-way"])
def test_a_picture_of_a_run(name: str, width: int) -> None:
    if name == "under-way":
        drawn_now = picture(under_way(), width, after=2_950, limit=26)
    else:
        tree, ended = of_recorded(name)
        drawn_now = picture(tree, width, ended=ended)
    file = PICTURES / f"{name}-{width}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        file.write_text(drawn_now)
    assert drawn_now == file.read_text()
    assert all(len(line) <= width for line in drawn_now.splitlines())
    assert "\x1b" not in drawn_now


def test_no_more_rows_than_fit_and_what_matters_stays() -> None:
    history = History(*(step(f"s{k}") for k in range(100)))
    history.do(*(f"s{k}" for k in range(40))).begin("s40").fail("s40")
    assert len(rows_of(history.reader.tree.root)) == 41, "what does not follow is not to come"
    open_ = History(*(step(f"s{k}") for k in range(100))).do(*(f"s{k}" for k in range(40))).begin("s40")
    assert [row.title for row in rows_of(open_.reader.tree.root, 5)] == [
        *["… 38 more", "s38", "s39", "s40", "… 59 to come"]
    ]
    deep = History(block("b", *(step(f"i{k}") for k in range(9)), each(), step("z"))).begin("b.i0")
    assert [row.title for row in rows_of(deep.reader.tree.root, 3)] == ["b", "i0", "… 10 to come"]


def test_of_repetitions_the_latest_is_shown() -> None:
    poll = step("poll", until=Until(condition="last.ok", every="5s", at_most=30))
    history = History(poll, step("z")).do("poll[0]", "poll[1]")
    history.node("poll").next_attempt = history.now + timedelta(seconds=4)
    after = (history.now - START).total_seconds()
    assert picture(history.reader.tree, 80, after=after) == (
        " ▶  poll  running  3.0s  repetition 2 of at most 30, again in 4.0s\n ·  z\n"
    )
    history.begin("poll[2]")
    assert picture(history.reader.tree, 80, after=after + 2) == (
        " ▶  poll       running  5.0s  repetition 3 of at most 30\n ▶    poll[2]  running  1.0s\n ·  z\n"
    )
    history.complete("poll[2]").begin("z")
    assert picture(history.reader.tree, 80, after=after + 3) == (
        " ✓  poll  completed  6.0s  repetition 3 of at most 30\n ▶  z     running    0.0s\n"
    )


def told(history: History, capsys: pytest.CaptureFixture[str]) -> list[str]:
    lines = Lines()
    for one in history.told:
        lines.show(one)
    lines.end(Ended(state="completed", elapsed=1))
    return [re.sub(r"^ *[\d.]+s  |, \d+\.\d\ds", "", line) for line in capsys.readouterr().err.splitlines()]


def test_a_long_loop_has_lines_for_the_first_items_for_failures_and_for_every_tenth(
    capsys: pytest.CaptureFixture[str],
) -> None:
    history = History(each(fail_fast=False), step("z"), inputs={"items": list(range(200))})
    history.do(*(f"each[{k}]" for k in range(150))).begin("each[150]").fail("each[150]")
    history.do(*(f"each[{k}]" for k in range(151, 200))).do("z").end()
    first = [f"each[{k}]: {state}" for k in range(8) for state in ("running", "completed")]
    assert told(history, capsys) == [
        *first,
        *(f"each: {k} of 200 done" for k in range(20, 141, 20)),
        "each[150]: failed: each[150] broke",
        *["each: 160 of 200 done, 1 failed", "each: 180 of 200 done, 1 failed"],
        "each: failed, 199 of 200 done, 1 failed",
        *["z: running", "z: completed", "completed"],
    ]


def test_a_loop_of_unknown_length_has_lines_that_grow_rarer(capsys: pytest.CaptureFixture[str]) -> None:
    history = History(each(), step("z"), inputs={}).do(*(f"each[{k}]" for k in range(1234))).do("z").end()
    assert [line for line in told(history, capsys) if line.startswith("each:")] == [
        *(f"each: {k} done" for k in ("10", "20", "50", "100", "200", "500", "1,000")),
        "each: completed, 1,234 done",
    ]
    assert [_next(done, None) for done in (0, 9, 10, 49, 50, 99, 100, 5_000)] == [
        *[10, 10, 20, 50, 100, 100, 200, 10_000]
    ]


def test_many_undos_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    history = History(each(), inputs={"items": list(range(120))}).do(*(f"each[{k}]" for k in range(120)))
    history.do(*(f"undo:each[{k}]" for k in range(119, -1, -1))).end("FAILED")
    lines = [line for line in told(history, capsys) if "undo" in line]
    assert lines[0] == "undo each[119]: running"
    assert lines.count("undo each[70]: completed") == 1
    assert lines[100:] == ["undo: 50 done, 1 running", "undo: 100 done", "undo: 120 done"]
    assert "↩" not in picture(history.reader.tree, 80)


def test_times_are_short() -> None:
    assert [duration(s) for s in (0.04, 59.94, 60, 187.9, 3600, 7_500)] == [
        *["0.0s", "59.9s", "1m00s", "3m07s", "1h00m", "2h05m"]
    ]


def test_for_programs_every_line_of_standard_error_is_an_object(tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_text(PIPELINE)
    done = run(tmp_path, *arguments(tmp_path, then="fail"), "--events", "json")
    assert (done.code, done.out) == (1, "")
    events = [json.loads(line) for line in done.err.splitlines()]
    steps = [event for event in events if event["event"] == "step"]
    assert [{key: step.get(key) for key in ("path", "undo", "state", "error")} for step in steps] == [
        {"path": "a", "undo": None, "state": "running", "error": None},
        {"path": "a", "undo": None, "state": "completed", "error": None},
        {"path": "b", "undo": None, "state": "running", "error": None},
        {"path": "b", "undo": None, "state": "failed", "error": "b is out of order"},
        {"path": "a", "undo": True, "state": "running", "error": None},
        {"path": "a", "undo": True, "state": "completed", "error": None},
    ]
    assert (steps[0]["name"], steps[0]["attempt"], steps[0]["maximum_attempts"]) == ("open the shop", 1, 5)
    assert steps[1]["elapsed"] >= 0
    ends = [event for event in events if event["event"] == "end"]
    assert [end["state"] for end in ends] == ["failed"]
    notes = [event["text"] for event in events if event["event"] == "note"]
    assert "failed: sell 1: b is out of order [Broken]" in notes
    refused = run(tmp_path, "shop.yaml", "-i", "nothing=1", "--events", "json")
    assert refused.code == 2
    assert {json.loads(line)["event"] for line in refused.err.splitlines()} == {"note"}
