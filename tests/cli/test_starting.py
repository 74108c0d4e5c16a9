"""The embedded server boots while the file is checked, and is gone where it was not needed."""

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline_runner.server.embedded import Joining
from pipeline_runner.server.keeper import lock
from tests.cli.command import assert_nothing_left, environment, finish, popen, processes_of, run, wait_for

GOOD = """
name: good
steps:
  - {id: one, activity: shell.run, with: {command: ["true"]}, compensate: none}
output: done
"""
BAD = GOOD.replace("shell.run", "shell.rnu")
OUTPUT = ("console", "exit_codes", "main", "options", "run")
"""The modules of the command that may be imported before it shows something."""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "good.yaml").write_text(GOOD)
    (tmp_path / "bad.yaml").write_text(BAD)
    yield tmp_path
    assert_nothing_left(tmp_path)


@pytest.fixture
def joining(folder: Path) -> Iterator[Joining]:
    joining = Joining(folder / "state")
    yield joining
    joining.close()


def keepers(folder: Path) -> list[str]:
    return [found for found in processes_of(folder) if "engine.keeper" in found or "server.keeper" in found]


def test_little_is_imported_before_something_is_shown(folder: Path) -> None:
    code = (
        "import os, sys\n"
        "from pipeline_runner.cli import console, main\n"
        "def show_for_now(text):\n"
        "    print(text, *sorted(sys.modules), flush=True)\n"
        "    os._exit(0)\n"
        "console.show_for_now = show_for_now\n"
        "main.run(['good.yaml'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=environment(folder),
        check=True,
        capture_output=True,
        text=True,
    )
    shown, *modules = done.stdout.removeprefix("checking ").split()
    assert shown == "good.yaml"
    own = {name for name in modules if name.startswith("pipeline_runner.")}
    assert own == {"pipeline_runner.cli", *(f"pipeline_runner.cli.{name}" for name in OUTPUT)}
    assert not {"asyncio", "jinja2", "jsonschema", "msgspec", "subprocess", "temporalio", "yaml"} & set(
        modules
    )


def test_the_server_boots_before_the_checker_is_imported(folder: Path) -> None:
    code = (
        "import sys\n"
        "from pipeline_runner.cli import main\n"
        "from pipeline_runner.server.embedded import Joining\n"
        "Joining.begin = lambda self: print(*sorted(sys.modules))\n"
        "main.run(['bad.yaml'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=environment(folder),
        check=True,
        capture_output=True,
        text=True,
    )
    modules = set(done.stdout.split())
    assert "pipeline_runner.cli.session" in modules
    assert not {"jinja2", "pipeline_runner.language", "temporalio", "yaml"} & modules


def test_a_refused_file_leaves_no_server_behind(folder: Path) -> None:
    done = run(folder, "bad.yaml")
    assert (done.code, done.out) == (2, "")
    assert done.err.splitlines()[-1] == "run-pipeline: 1 error in bad.yaml: nothing was started"
    assert keepers(folder) == []
    # What it has left of its database is no obstacle.
    again = run(folder, "good.yaml")
    assert (again.code, again.out) == (0, '"done"\n'), again.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_check_that_is_interrupted_leaves_no_server_behind(folder: Path, number: signal.Signals) -> None:
    os.mkfifo(folder / "inputs.yaml")
    process = popen(folder, "good.yaml", "--input-file", "inputs.yaml")
    wait_for((folder / "state/server.json").exists)
    process.send_signal(number)
    done = finish(process)
    assert (done.code, done.out, done.err) == (130, "", "interrupted: nothing was started\n")
    assert keepers(folder) == []


def test_a_command_killed_while_it_checks_leaves_no_server_behind(folder: Path) -> None:
    os.mkfifo(folder / "inputs.yaml")
    process = popen(folder, "good.yaml", "--input-file", "inputs.yaml")
    wait_for(lambda: keepers(folder))
    process.kill()
    finish(process)
    assert_nothing_left(folder)


def test_a_server_that_another_command_waits_for_is_not_ended(folder: Path, joining: Joining) -> None:
    joining.begin()
    other = popen(folder, "good.yaml")
    with (folder / "state/users.lock").open("ab") as probe:
        wait_for(lambda: _locks(probe.fileno(), "FLOCK") >= 2)
    [keeper] = keepers(folder)
    joining.close()
    assert keepers(folder) == [keeper]
    done = finish(other)
    assert (done.code, done.out) == (0, '"done"\n'), done.err


def _locks(descriptor: int, kind: str) -> int:
    inode = os.fstat(descriptor).st_ino
    lines = Path("/proc/locks").read_text().splitlines()
    return sum(kind in line and line.split()[5].endswith(f":{inode}") for line in lines)


def test_nothing_waits_for_a_server_that_ends(folder: Path, joining: Joining) -> None:
    (folder / "state").mkdir()
    with (folder / "state/users.lock").open("ab") as users:
        fcntl.flock(users, fcntl.LOCK_EX)  # as a keeper does that ends
        joining.begin()
        assert keepers(folder) == []
    assert joining.ready().address.startswith("127.0.0.1:")


def test_a_server_that_is_not_begun_for_nothing_is_left_to_its_keeper(folder: Path, joining: Joining) -> None:
    joining.begin()
    joining.ready()
    joining.close()
    joining.close()
    with (folder / "state/users.lock").open("ab") as users:
        assert lock(users, shared=True)
        assert len(keepers(folder)) == 1


@pytest.mark.parametrize(
    "words", [["--detach", "bad.yaml"], ["no.yaml"], ["--address", "127.0.0.1:1", "bad.yaml"]]
)
def test_nothing_boots_where_it_is_not_needed(folder: Path, words: list[str]) -> None:
    assert run(folder, "run", *words).code == 2
    assert not (folder / "state").exists()
