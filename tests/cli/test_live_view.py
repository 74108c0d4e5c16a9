"""The live view, in a terminal of the test's own."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

from tests.cli.command import assert_nothing_left, environment
from tests.cli.test_run_command import EFFECTS, PIPELINE, arguments
from tests.fileserver import PIECE, FileServer


def in_terminal(folder: Path, *args: str, resize: str = "", **more: str) -> tuple[int, str, str]:
    """Run the command with standard error on a terminal; return code, output and what it shows.

    Args:
        folder: Where it runs.
        args: Its arguments.
        resize: When this is shown, the terminal shrinks to 40 columns, and a file ``go`` is made.
        more: Environment variables.
    """
    ours, theirs = pty.openpty()
    _set_columns(ours, 100)
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline_runner", *args],
        cwd=folder,
        env=environment(folder, TERM="xterm-256color", **more),
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
    )
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 4096):
            shown += chunk
            if resize and resize.encode() in shown:
                _set_columns(ours, 40)
                (folder / "go").touch()
                shown, resize = b"", ""
    except OSError:
        pass  # Linux says so when the other end is closed
    os.close(ours)
    out, _ = process.communicate(timeout=60)
    return process.returncode, out, shown.decode()


def _set_columns(terminal: int, columns: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))


def last_frame(shown: str) -> list[str]:
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)
    # A frame of one line is drawn over by a carriage return, which ends a line here too.
    return [line.rstrip() for line in plain.splitlines()]


def test_a_terminal_shows_steps_states_attempts_and_undo(tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_text(PIPELINE)
    code, out, shown = in_terminal(tmp_path, *arguments(tmp_path, then="fail", undo="fail-once"))
    assert (code, out) == (1, "")
    assert "\x1b[" in shown
    lines = last_frame(shown)
    assert any(re.search(r"↩ +open the shop +undone +\d+\.\ds", line) for line in lines)
    assert any(re.search(r"✗ +sell 1 +failed +\d+\.\ds +b is out of order", line) for line in lines)
    assert any(re.search(r"✓ +undo open the shop +completed +\d+\.\ds +attempt 2", line) for line in lines)
    assert any(re.search(r"✗ +total +failed +\d+\.\ds$", line) for line in lines)
    assert lines[-3:] == [
        "failed: sell 1: b is out of order [Broken]",
        "  undone after 2 attempts: a",
        "to look at the run later: run-pipeline server",
    ]
    assert_nothing_left(tmp_path)


CHILD = """
name: child
steps:
  - {id: a, name: "make\\e]0;x\\a it", activity: effect.do, with: {log: LOG, name: a},
     compensate: {activity: effect.undo, with: {log: LOG, name: a}}}
"""
PARENT = """
name: parent
inputs: {deep: {type: boolean, default: false}}
steps:
  - {id: inner, name: "the child", pipeline: ./child.yaml}
  - {id: never, when: inputs.deep, activity: effect.do, with: {log: LOG, name: b}, compensate: none}
  - {id: stop, activity: effect.do, with: {log: LOG, name: c, then: fail}, compensate: none}
"""


def test_skipped_steps_are_shown_and_an_undone_step_has_its_childs_name_in_front(tmp_path: Path) -> None:
    for name, text in (("child", CHILD), ("parent", PARENT)):
        (tmp_path / f"{name}.yaml").write_text(text.replace("LOG", str(tmp_path / "log")))
    code, _, shown = in_terminal(tmp_path, "parent.yaml", *EFFECTS)
    assert code == 1
    assert "\x1b]0" not in shown, "no name sets the title of the terminal"
    assert "\x07" not in shown
    last = "\n".join(last_frame(shown))
    rows = re.findall(
        r"^ (.)  (the child|  make.* it|never|stop|undo inner/make.* it|total) +(\w+)", last, re.MULTILINE
    )
    assert [(mark, state) for mark, _, state in rows[-6:]] == [
        ("✓", "completed"), ("↩", "undone"), ("○", "skipped"), ("✗", "failed"), ("✓", "completed"), ("✗", "failed"),
    ]  # fmt: skip
    assert rows[-2][1].startswith("undo inner/make")


DOWNLOAD = """
name: fetch
inputs: {url: {type: string}}
steps:
  - id: data
    activity: http.download
    with: {url: "{{ inputs.url }}", path: data.bin}
    compensate: {activity: file.restore, with: {path: "{{ step.input.path }}", key: "{{ step.key }}"}}
"""


def test_a_download_has_a_progress_bar(tmp_path: Path) -> None:
    (tmp_path / "fetch.yaml").write_text(DOWNLOAD)
    with FileServer(bytes(80 * PIECE)) as server:
        server.pause = 0.06
        code, _, shown = in_terminal(tmp_path, "fetch.yaml", "-i", f"url={server.url}")
    assert code == 0
    bars = re.findall(r"running +\S+ +━+\S* (\d+) % of 5\.2 MB", "\n".join(last_frame(shown)))
    assert 0 < int(bars[0]) < int(bars[-1]) < 100
    assert (tmp_path / "data.bin").stat().st_size == 80 * PIECE


def test_no_colour_where_it_is_not_wanted(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("version: 1\nname: x\nsteps: [{id: a, wait: PT5M}]\n")
    _, _, coloured = in_terminal(tmp_path, "validate", "bad.yaml")
    assert "\x1b[" in coloured
    os.environ["NO_COLOR"] = "1"
    try:
        _, _, plain = in_terminal(tmp_path, "validate", "bad.yaml")
    finally:
        del os.environ["NO_COLOR"]
    assert "\x1b[" not in plain


NESTED = """
name: nested
steps:
  - {id: gate, activity: shell.run, with: {command: [sh, -c, "until [ -e go ]; do sleep 0.02; done"]}, compensate: none}
  - id: work
    parallel:
      left:
        - id: many
          for_each: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
          max_concurrency: 4
          activity: effect.do
          with: {log: LOG, name: "{{ item }}"}
          compensate: none
      right: [{id: one, activity: effect.do, with: {log: LOG, name: one}, compensate: none}]
  - {id: stop, fail: {message: enough}}
"""


def test_a_terminal_that_shrinks_without_colours_shows_a_narrow_tree(tmp_path: Path) -> None:
    (tmp_path / "nested.yaml").write_text(NESTED.replace("LOG", str(tmp_path / "log")))
    code, _, shown = in_terminal(tmp_path, "nested.yaml", *EFFECTS, resize="gate", NO_COLOR="1")
    assert code == 1
    assert not re.search(r"\x1b\[(\d+;)*[349]\d(;\d+)*m", shown), "no colours"
    lines = last_frame(shown)
    tree = [re.sub(r" +\d+\.\ds", "", line) for line in lines]
    assert tree[-10:-2] == [
        "✓ gate",
        "✓ work",
        "✓  left",
        "✓   many 12/12",
        "✓  right",
        "✓   one",
        "✗ stop",
        "✗ total failed",
    ]
