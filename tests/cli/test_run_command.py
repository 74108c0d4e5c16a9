"""``run`` and ``watch`` as users see them: streams, exit codes, Ctrl-C, interrupted runs."""

import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.cli.command import (
    assert_nothing_left,
    environment,
    finish,
    interrupt,
    popen,
    run,
    wait_for,
    wait_for_handlers,
)
from tests.effects import lines

EFFECTS = ("--activities", "tests.effects")
TIME = "start_to_close: 3s"
PIPELINE = """
version: 1
name: shop
inputs:
  log: {type: string}
  then: {type: string, default: ""}
  undo: {type: string, default: ""}
  count: {type: integer, default: 1}
steps:
  - id: a
    name: open the shop
    activity: effect.do
    with: {log: "{{ inputs.log }}", name: a}
    compensate:
      activity: effect.undo
      with: {log: "{{ inputs.log }}", name: a, then: "{{ inputs.undo }}"}
      retry: {maximum_attempts: 3, initial_interval: 10ms}
  - id: b
    name: sell {{ inputs.count }}
    activity: effect.do
    with: {log: "{{ inputs.log }}", name: b, then: "{{ inputs.then }}"}
    compensate: {activity: effect.undo, with: {log: "{{ inputs.log }}", name: b}}
output: {sold: "{{ inputs.count }}", by: "{{ steps.b.output.name }}"}
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (tmp_path / "shop.yaml").write_text(PIPELINE)
    return tmp_path


def arguments(folder: Path, **inputs: Any) -> list[str]:
    pairs = [f"{key}={value}" for key, value in {"log": folder / "log", **inputs}.items()]
    return [str(folder / "shop.yaml"), *EFFECTS, *(part for pair in pairs for part in ("-i", pair))]


def test_a_good_run_prints_its_output_and_nothing_else(shop: Path) -> None:
    done = run(shop, *arguments(shop, count=3), "--report", "report.json")
    assert done.code == 0, done.err
    assert done.json == {"sold": 3, "by": "b"}
    assert lines(shop / "log") == ["do a", "do b"]
    assert "a: running, open the shop" in done.err
    assert "b: completed" in done.err
    report = json.loads((shop / "report.json").read_text())
    assert report["status"] == "completed"
    assert report["steps"] == {"a": "completed", "b": "completed"}
    assert_nothing_left(shop)


def test_a_failed_run_prints_nothing_on_standard_output(shop: Path) -> None:
    done = run(shop, "run", *arguments(shop, then="fail"), "--report", "report.json")
    assert (done.code, done.out) == (1, "")
    assert "failed: sell 1: b is out of order [Broken]\n  undone: a\n" in done.err
    assert lines(shop / "log") == ["do a", "undo a"]
    report = json.loads((shop / "report.json").read_text())
    assert report["undo"] == [
        {"path": "a", "name": "open the shop", "outcome": "completed", "state": "undone", "attempts": 1}
    ]


def test_a_dirty_run_is_told_apart(shop: Path) -> None:
    done = run(shop, *arguments(shop, then="fail", undo="fail"), "--report", "report.json")
    assert (done.code, done.out) == (3, "")
    assert "UNDO FAILED after 3 attempts: a: a cannot be undone [Stuck]" in done.err
    assert "dirty: effects of the run remain, or may remain" in done.err
    assert json.loads((shop / "report.json").read_text())["dirty"] is True


def test_an_undo_that_needs_a_second_attempt_is_counted(shop: Path) -> None:
    done = run(shop, *arguments(shop, then="fail", undo="fail-once"))
    assert done.code == 1
    assert "undone after 2 attempts: a" in done.err


def test_ctrl_c_cancels_with_undo(shop: Path) -> None:
    process = popen(shop, *arguments(shop, then="hang"))
    wait_for(lambda: "do b" in lines(shop / "log"))
    interrupt(process)
    done = finish(process)
    assert (done.code, done.out) == (4, "")
    assert "cancelling and undoing the run; press Ctrl-C again to detach" in done.err
    assert "cancelled: Ctrl-C" in done.err
    assert lines(shop / "log") == ["do a", "do b", "undo b", "undo a"]
    assert_nothing_left(shop)


def test_ctrl_c_twice_detaches_and_watch_goes_on(shop: Path) -> None:
    text = PIPELINE.replace("name: b}", "name: b, then: slow}").replace(
        'compensate: {activity: effect.undo, with: {log: "{{ inputs.log }}", name: b, then: slow}}',
        'compensate: {activity: effect.do, with: {log: "{{ inputs.log }}", name: undo b, seconds: 5}}',
    )
    (shop / "shop.yaml").write_text(text)
    process = popen(shop, *arguments(shop, then="hang"), "--workflow-id", "shop-1")
    wait_for(lambda: "do b" in lines(shop / "log"))
    interrupt(process)
    wait_for(lambda: "do undo b" in lines(shop / "log"))
    interrupt(process)
    done = finish(process)
    assert (done.code, done.out) == (130, "")
    assert "detached; the run is still open. To follow it again: run-pipeline watch shop-1" in done.err
    assert_nothing_left(shop)
    again = run(shop, "watch", "shop-1")
    assert (again.code, again.out) == (4, "")
    assert lines(shop / "log")[-1] == "undo a"


@pytest.mark.parametrize("moment", ["do a", "do b", "undo b"])
def test_a_run_killed_with_9_goes_on_with_watch_and_leaves_no_process(shop: Path, moment: str) -> None:
    """In the middle of the forward run, and in the middle of undo."""
    text = (
        PIPELINE.replace("name: a}", "name: a, seconds: 0.7}")
        .replace('name: b, then: "{{ inputs.then }}"}', "name: b, seconds: 0.7}")
        .replace("name: b}}", "name: b, seconds: 0.7}}")
        .replace(
            "steps:\n", f"defaults: {{timeouts: {{{TIME}}}, compensate: {{timeouts: {{{TIME}}}}}}}\nsteps:\n"
        )
    )
    if moment == "undo b":
        text = text.replace("output:", "  - {id: c, fail: {message: enough}}\noutput:")
    (shop / "shop.yaml").write_text(text)
    process = popen(shop, *arguments(shop), "--workflow-id", "shop-9")
    wait_for(lambda: moment in lines(shop / "log"))
    process.kill()
    finish(process)
    assert_nothing_left(shop)
    before = lines(shop / "log")
    done = run(shop, "watch", "shop-9")
    after = lines(shop / "log")[len(before) :]
    if moment == "undo b":
        assert done.code == 1, done.err
    else:
        assert (done.code, done.json["by"]) == (0, "b"), done.err
    # Only the interrupted step may run a second time.
    expected = {
        "do a": ["do a", "do b"],
        "do b": ["do b"],
        "undo b": ["undo b", "undo a"],
    }
    assert after == expected[moment]
    assert_nothing_left(shop)


def test_two_at_a_time_do_not_disturb_each_other(shop: Path) -> None:
    """They share the server, and each has its own folder, activities and task queue."""
    other = shop / "other"
    other.mkdir()
    (other / "own.py").write_text(
        "from temporalio import activity\n\n\n@activity.defn(name='own.where')\ndef where() -> str:\n"
        "    import os, time\n    time.sleep(0.3)\n    return os.getcwd()\n"
    )
    (other / "activities.yaml").write_text("modules: [own]\n")
    (other / "own.yaml").write_text(
        "version: 1\nname: own\nsteps:\n"
        + "".join(f"  - {{id: s{k}, activity: own.where}}\n" for k in range(5))
        + 'output: "{{ steps.s4.output }}"\n'
    )
    long = popen(shop, *arguments(shop, then="hang"))
    wait_for(lambda: "do b" in lines(shop / "log"))
    short = subprocess.Popen(
        [*long.args[:3], str(other / "own.yaml")],  # type: ignore[index]
        cwd=other, env=environment(shop), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    done = finish(short)
    assert (done.code, done.json) == (0, str(other)), done.err
    interrupt(long)
    assert finish(long).code == 4
    assert lines(shop / "log") == ["do a", "do b", "undo b", "undo a"]
    assert_nothing_left(shop)


def test_the_same_workflow_id_follows_the_open_run_or_conflicts(shop: Path) -> None:
    first = popen(shop, *arguments(shop, then="hang"), "--workflow-id", "one")
    wait_for(lambda: "do b" in lines(shop / "log"))
    conflict = run(shop, *arguments(shop, then="hang", count=2), "--workflow-id", "one")
    assert conflict.code == 2
    assert 'another run with the id "one" is open: it has a different pipeline' in conflict.err
    second = popen(shop, *arguments(shop, then="hang"), "--workflow-id", "one")
    seen = ""
    assert second.stderr is not None
    while "following the open run: one" not in seen:
        seen += second.stderr.readline()
    interrupt(first)
    assert (finish(first).code, finish(second).code) == (4, 4)
    assert lines(shop / "log") == ["do a", "do b", "undo b", "undo a"]
    again = run(shop, *arguments(shop), "--workflow-id", "one")
    assert again.code == 0, "an id whose run has ended may be used again"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-i", "count=x"], 'count: must be an integer, not "x"'),
        (["-i", "cuont=1"], 'cuont: there is no such input (did you mean "count"?)'),
        (["-i", "count"], '-i expects name=value, not "count"'),
        (
            ["--input-file", "missing.yaml"],
            "the input file missing.yaml cannot be read: No such file or directory",
        ),
        (["--input-file", "shop.yaml"], "version: there is no such input"),
    ],
)
def test_bad_inputs_are_refused_before_anything_starts(shop: Path, words: list[str], message: str) -> None:
    done = run(shop, *arguments(shop), *words)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert "Traceback" not in done.err
    assert_nothing_left(shop)


BAD_FILES = {
    "not YAML": ("a: [1\n", "yaml-syntax"),
    "a duplicate key": ("version: 1\nversion: 1\nname: x\nsteps: []\n", "duplicate-key"),
    "an unknown key": ("version: 1\nname: x\nstep: []\nsteps: [{id: a, set: {}}]\n", "unknown-key"),
    "two kinds": ("version: 1\nname: x\nsteps: [{id: a, set: {}, wait: 1s}]\n", "step-kind"),
    "a duration": ("version: 1\nname: x\nsteps: [{id: a, wait: PT5M}]\n", "bad-duration"),
    "not yet": (
        "version: 1\nname: x\nsearch_attributes: {Env: x}\nsteps: [{id: a, wait: 1s}]\n",
        "not-supported-yet",
    ),
    "nesting": ("a: " + "[" * 1000 + "]" * 1000 + "\n", None),
    "an alias bomb": (
        "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]\n" for k in range(1, 9)),
        None,
    ),
    "half a pair": ('name: x\nsteps: [{id: a, set: {v: "\\ud800"}}]\n', "yaml-syntax"),
    "half a pair as id": ('name: x\nworkflow_id: "\\ud800"\nsteps: [{id: a, wait: 1s}]\n', "yaml-syntax"),
    "too large": ("# " + "x" * 1024 * 1024 + "\n", "file-too-large"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_refused_before_anything_starts(shop: Path, name: str) -> None:
    text, rule = BAD_FILES[name]
    (shop / "bad.yaml").write_text(text)
    done = run(shop, "bad.yaml")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("bad.yaml:")
    assert f"[{rule}]" in done.err or rule is None
    assert done.err.endswith("in bad.yaml: nothing was started\n")
    assert len(done.err) < 3000
    assert_nothing_left(shop)


def test_bytes_that_are_not_utf8_are_refused(shop: Path) -> None:
    (shop / "bad.yaml").write_bytes(b"version: 1\nname: \xff\n")
    done = run(shop, "bad.yaml")
    assert done.code == 2
    assert "bad.yaml:2:7: error: the file is not UTF-8" in done.err


def test_the_pipelines_own_workflow_id_is_a_template(shop: Path) -> None:
    (shop / "shop.yaml").write_text(
        PIPELINE.replace("steps:\n", "workflow_id: shop-{{ inputs.count }}\nsteps:\n")
    )
    done = run(shop, *arguments(shop, count=12))
    assert done.code == 0
    assert "run: shop-12\n" in done.err


def test_a_missing_input_is_refused(shop: Path) -> None:
    done = run(shop, str(shop / "shop.yaml"), *EFFECTS)
    assert done.code == 2
    assert "  log: this input is missing" in done.err


def test_inputs_from_a_file_and_the_command_line(shop: Path) -> None:
    (shop / "in.json").write_text(json.dumps({"log": str(shop / "log"), "count": 7, "then": "x"}))
    done = run(shop, "shop.yaml", *EFFECTS, "--input-file", "in.json", "-i", "count=8")
    assert (done.code, done.json["sold"]) == (0, 8), done.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["vaildate", "x"], '"vaildate" is neither a command nor a file: did you mean "validate"?'),
        (["missing.yaml"], "missing.yaml"),
        (["run", "shop.yaml", "--nonsense"], "--nonsense"),
        (["validate", "missing"], "missing"),
        (["shop.yaml", "--activities", "no.such.module"], "no.such.module"),
    ],
)
def test_wrong_words_are_usage_errors(shop: Path, words: list[str], message: str) -> None:
    done = run(shop, *words)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert "Traceback" not in done.err


def test_an_address_where_nobody_listens_is_exit_code_5(shop: Path) -> None:
    for words in (arguments(shop), ["watch", "x"]):
        done = run(shop, *words, "--address", "127.0.0.1:1")
        assert (done.code, done.out) == (5, "")
        assert "the Temporal server at 127.0.0.1:1 cannot be reached" in done.err
        assert "Traceback" not in done.err


def test_configuration_mistakes_are_told(shop: Path) -> None:
    done = run(shop, *arguments(shop), TEMPORAL_CONFIG_FILE="nowhere.toml")
    assert done.code == 2
    assert "TEMPORAL_CONFIG_FILE names nowhere.toml, which does not exist" in done.err
    done = run(shop, *arguments(shop), "--profile", "nope")
    assert done.code == 2
    assert "nope" in done.err


def test_watch_of_an_unknown_run(shop: Path) -> None:
    done = run(shop, "watch", "nothing")
    assert (done.code, done.out) == (1, "")
    assert 'there is no run "nothing" here' in done.err


def test_detach_needs_a_server_that_stays(shop: Path) -> None:
    done = run(shop, *arguments(shop), "--detach")
    assert done.code == 2
    assert "--detach needs a server that keeps running" in done.err


def test_the_embedded_server_crashes_and_comes_back_in_mid_run(shop: Path) -> None:
    text = PIPELINE.replace('then: "{{ inputs.then }}"}', 'then: "{{ inputs.then }}", seconds: 4}')
    (shop / "shop.yaml").write_text(text)
    process = popen(shop, *arguments(shop))
    wait_for(lambda: "do b" in lines(shop / "log"))
    for pid in _temporal(shop):
        os.kill(pid, signal.SIGKILL)
    done = finish(process)
    assert (done.code, done.json["by"]) == (0, "b"), done.err
    assert lines(shop / "log")[:2] == ["do a", "do b"]
    assert_nothing_left(shop)


def _temporal(folder: Path) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue  # it has ended in the meantime
            if words[0].endswith(b"temporal") and str(folder / "state" / "temporal.db").encode() in words:
                found.append(int(entry.name))
    assert found
    return found


def test_the_exit_code_is_right_forty_times(shop: Path) -> None:
    """Also with the server and the SDK's threads going down: four kinds of end, in turn."""
    log = shop / "log"
    kinds = [("", "", 0), ("fail", "", 1), ("fail", "fail", 3), ("bad", "", 2)]
    running: list[tuple[int, subprocess.Popen[str]]] = []
    for number in range(40):
        then, undo, code = kinds[number % 4]
        words = arguments(shop, then=then, undo=undo, log=log)
        if code == 2:
            words += ["-i", "count=x"]
        running.append((code, popen(shop, *words)))
        if len(running) == 4:
            expected, process = running.pop(0)
            done = finish(process)
            assert done.code == expected, done.err
            assert bool(done.out) is (expected == 0)
    for expected, process in running:
        assert finish(process).code == expected
    assert_nothing_left(shop)


def test_one_ctrl_c_at_any_moment_leaves_no_open_run(shop: Path) -> None:
    """Before the start it ends the command, after it the run: never neither, never silently."""
    running = []
    for number in range(12):
        process = popen(shop, *arguments(shop, then="hang"), "--workflow-id", f"moment-{number}")
        wait_for_handlers(process)
        time.sleep(number * 0.09)
        interrupt(process)
        running.append(process)
        if len(running) == 3:
            for ended in running:
                done = finish(ended)
                told = done.err.strip().splitlines()[-1]
                if done.code == 130:
                    assert told in (
                        "interrupted: nothing was started",
                        "run-pipeline: interrupted: nothing was started",
                    )
                    assert "run: moment" not in done.err
                else:
                    assert done.code == 4, done.err
            running.clear()
    log = lines(shop / "log")
    # A step that was cancelled before its worker took it is uncertain, and undone as well.
    assert log.count("do a") <= log.count("undo a")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("how", ["module", "script"])
def test_a_signal_while_the_command_is_imported_ends_it_in_words(
    tmp_path: Path, how: str, number: signal.Signals
) -> None:
    (tmp_path / "argparse.py").write_text(
        f"import os, time\nos.kill(os.getpid(), {number:d})\ntime.sleep(60)\n"
    )
    settings = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    module, function = settings["project"]["scripts"]["run-pipeline"].split(":")
    program = {
        "module": ["-m", "pipeline_runner"],
        "script": ["-c", f"from {module} import {function}; {function}()"],
    }
    path = f"{tmp_path}:{environment(tmp_path)['PYTHONPATH']}"
    done = subprocess.run(
        [sys.executable, *program[how], "--help"],
        env=environment(tmp_path, PYTHONPATH=path), capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted: nothing was started\n")


def test_a_ctrl_c_that_is_ignored_stays_ignored(tmp_path: Path) -> None:
    """As in a job that a shell has put into the background."""
    (tmp_path / "argparse.py").write_text("import os\nos.kill(os.getpid(), 2)\nraise SystemExit(7)\n")
    path = f"{tmp_path}:{environment(tmp_path)['PYTHONPATH']}"
    done = subprocess.run(
        ["/bin/sh", "-c", "trap '' INT; exec \"$0\" -m pipeline_runner", sys.executable],
        env=environment(tmp_path, PYTHONPATH=path), capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (7, "", "")


def test_a_reader_of_standard_error_that_goes_away_does_not_end_the_run(shop: Path) -> None:
    process = popen(shop, *arguments(shop))
    assert process.stderr is not None
    process.stderr.close()
    out = process.stdout.read() if process.stdout else ""
    assert process.wait(60) == 0
    assert json.loads(out) == {"sold": 1, "by": "b"}


@pytest.mark.parametrize(("where", "code"), [("/dev/full", 1), ("|true", 0), (">&-", 0)])
def test_an_output_that_cannot_be_written_is_not_taken_for_a_dirty_run(
    shop: Path, where: str, code: int
) -> None:
    words = " ".join([sys.executable, "-m", "pipeline_runner", *arguments(shop)])
    tail = where if where.startswith(("|", ">")) else f"> {where}"
    shell = f"{words} {tail}; echo code ${{PIPESTATUS[0]}} >&2"
    done = subprocess.run(
        ["bash", "-c", shell],
        cwd=shop,
        env=environment(shop),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert f"code {code}\n" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    assert lines(shop / "log") == ["do a", "do b"]


def test_what_activities_print_does_not_get_into_the_output(shop: Path) -> None:
    (shop / "loud.py").write_text(
        "import os\nfrom temporalio import activity\nprint('imported')\n\n\n"
        "@activity.defn(name='loud')\ndef loud() -> int:\n    print('working')\n    os.write(1, b'still\\n')\n    return 7\n"
    )
    (shop / "loud.yaml").write_text(
        "version: 1\nname: loud\nsteps: [{id: a, activity: loud}]\noutput: '{{ steps.a.output }}'\n"
    )
    done = run(shop, "loud.yaml", "--activities", "loud")
    assert (done.code, done.out) == (0, "7\n"), done.err
    assert "imported" in done.err
    assert "still" in done.err


@pytest.mark.parametrize(
    "words", [["--workflow-id", ""], ["--workflow-id", "x" * 1001], ["--report", "nowhere/r.json"]]
)
def test_what_cannot_work_is_refused_before_the_start(shop: Path, words: list[str]) -> None:
    done = run(shop, *arguments(shop), *words)
    assert (done.code, done.out) == (2, "")
    assert done.err.endswith("nothing was started\n")
    assert_nothing_left(shop)


def test_output_is_utf8_whatever_the_locale(shop: Path) -> None:
    (shop / "u.yaml").write_text(
        "version: 1\nname: u\nsteps: [{id: a, set: {}}]\noutput: 'ü😀'\n", encoding="utf-8"
    )
    done = run(shop, "u.yaml", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert (done.code, done.json) == (0, "ü😀")


def test_an_activity_that_nobody_takes_is_told(shop: Path) -> None:
    (shop / "n.yaml").write_text(
        "version: 1\nname: n\nsteps:\n  - {id: a, name: charge, activity: payment.charge, task_queue: go-queue}\n"
    )
    process = popen(shop, "n.yaml")
    assert process.stderr is not None
    seen = ""
    while "waiting" not in seen:
        seen += process.stderr.readline()
    assert 'a: waiting: no worker serves the task queue "go-queue"' in seen
    interrupt(process)
    assert finish(process).code == 4


def test_a_child_with_an_id_of_its_own_is_shown_by_its_step(shop: Path) -> None:
    (shop / "c.yaml").write_text("version: 1\nname: c\nsteps: [{id: x, wait: 1ms}]\n")
    (shop / "p.yaml").write_text(
        "version: 1\nname: p\nsteps: [{id: deploy, pipeline: ./c.yaml, workflow_id: 'own {{ run.run_id }}'}]\n"
    )
    done = run(shop, "p.yaml")
    assert done.code == 0, done.err
    assert "deploy: running\n" in done.err
    assert "deploy/x: waiting" in done.err


def test_terminal_escapes_are_not_passed_on(shop: Path) -> None:
    (shop / "e.yaml").write_text(
        'version: 1\nname: e\nsteps: [{id: a, fail: {message: "{{ inputs.m }}"}}]\ninputs: {m: {type: string}}\n'
    )
    done = run(shop, "e.yaml", "-i", "m=\x1b[2Jgone")
    assert done.code == 1
    assert "\x1b" not in done.err
    assert "failed: a: �[2Jgone" in done.err


def test_detaching_does_not_wait_for_an_activity_in_a_thread(shop: Path) -> None:
    (shop / "deaf.py").write_text(
        "import time\nfrom temporalio import activity\n\n\n@activity.defn(name='deaf', no_thread_cancel_exception=True)\n"
        "def deaf() -> None:\n    open('deaf.log', 'w').close()\n    time.sleep(30)\n"
    )
    (shop / "deaf.yaml").write_text("version: 1\nname: deaf\nsteps: [{id: a, activity: deaf}]\n")
    process = popen(shop, "deaf.yaml", "--activities", "deaf")
    wait_for((shop / "deaf.log").exists)
    interrupt(process)
    time.sleep(0.5)
    interrupt(process)
    begin = time.monotonic()
    assert finish(process).code == 130
    assert time.monotonic() - begin < 8
    assert_nothing_left(shop)


FAILING = """
name: tests
steps:
  - id: made
    activity: file.write
    with: {path: made.txt, content: x}
    compensate: {activity: shell.run, retry: {maximum_attempts: 1}, with: {command: [sh, -c, "echo no undo; exit 4"]}}
  - id: inner
    pipeline: ./inner.yaml
"""
INNER = """
name: inner
steps:
  - id: test
    activity: shell.run
    with:
      command: [sh, -c, "seq 20; echo '::error::FAILED test_total'; echo 'make: *** [test] Error 1' >&2; exit 2"]
    compensate: none
"""


def test_the_end_of_what_a_failed_program_printed_is_told(tmp_path: Path) -> None:
    """On the screen the last lines, in the report all that is kept; and so for an undo that fails."""
    (tmp_path / "tests.yaml").write_text(FAILING)
    (tmp_path / "inner.yaml").write_text(INNER)
    done = run(tmp_path, "tests.yaml", "--report", "r.json")
    assert done.code == 3
    lines = done.err.splitlines()
    at = lines.index("failed: inner: test: exit code 2: make: *** [test] Error 1 [CommandFailed]")
    stdout = [f"    stdout: {n}" for n in range(12, 21)] + ["    stdout: ::error::FAILED test_total"]
    assert lines[at + 1 : at + 11] == stdout
    assert lines[at + 11] == "  UNDO FAILED: made: exit code 4: no undo [CommandFailed]"
    report = json.loads((tmp_path / "r.json").read_text())
    printed = "".join(f"{n}\n" for n in range(1, 21)) + "::error::FAILED test_total\n"
    assert report["error"]["details"] == {
        "exit_code": 2,
        "stdout": printed,
        "stderr": "make: *** [test] Error 1\n",
    }
    assert report["undo"][0]["error"]["details"] == {"exit_code": 4, "stdout": "no undo\n", "stderr": ""}
