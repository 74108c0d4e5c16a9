"""Commands in unusual surroundings: closed streams, full disks, no home, an error of our own."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from contextlib import closing
from itertools import groupby
from pathlib import Path

import pytest
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client

from pipeline_runner.cli import main, session
from pipeline_runner.cli.exit_codes import ExitCode
from pipeline_runner.cli.main import COMMANDS
from pipeline_runner.engine import retention
from pipeline_runner.server.devserver import DevServer
from pipeline_runner.server.embedded import Embedded
from tests.cli.command import assert_nothing_left, environment, run, wait_for
from tests.fileserver import FileServer

NOTHING = "name: nothing\nsteps: [{id: x, set: {a: 1}}]\noutput: done\n"


def shell(folder: Path, line: str, **more: str) -> "subprocess.CompletedProcess[str]":
    """Run a line in which COMMAND stands for the command."""
    command = f"{sys.executable} -m pipeline_runner"
    return subprocess.run(
        ["bash", "-c", line.replace("COMMAND", command)],
        cwd=folder,
        env=environment(folder, **more),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_run_with_closed_streams_goes_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "n.yaml").write_text(NOTHING)
    done = shell(tmp_path, "COMMAND n.yaml --workflow-id n 2>&- <&-")
    assert (done.returncode, done.stdout) == (0, '"done"\n')
    watched = shell(tmp_path, "COMMAND watch n 2>&-")
    assert (watched.returncode, watched.stdout) == (0, '"done"\n')
    assert shell(tmp_path, "COMMAND n.yaml --detach 2>&-").returncode == 2
    assert shell(tmp_path, "COMMAND validate n.yaml 2>&- >&- <&-").returncode == 0
    assert_nothing_left(tmp_path)


def test_runs_and_the_activities_of_their_worker_are_on_uvloop(tmp_path: Path) -> None:
    (tmp_path / "told.py").write_text(
        "import asyncio\nfrom temporalio import activity\n\n\n"
        "@activity.defn(name='told.loop')\nasync def loop() -> str:\n"
        "    return f'{type(asyncio.get_running_loop()).__module__}'\n"
    )
    (tmp_path / "activities.yaml").write_text("modules: [told]\n")
    (tmp_path / "l.yaml").write_text(
        "name: l\nsteps: [{id: x, activity: told.loop, compensate: none}]\noutput: '{{ steps.x.output }}'\n"
    )
    done = run(tmp_path, "l.yaml")
    assert (done.code, done.out) == (0, '"uvloop"\n'), done.err


FULL = [["--help"], ["--version"], *([name, "--help"] for name in COMMANDS), ["schema"], ["activities"]]
FULL += [["activities", "--format", "json"], ["explain"], ["explain", "unknown-key"]]
FULL += [["validate", "--format", name, "n.yaml"] for name in ("json", "sarif", "github")]


@pytest.mark.parametrize("words", FULL, ids=" ".join)
def test_an_output_that_cannot_be_written_is_told_in_one_line(tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "n.yaml").write_text(NOTHING.replace("name: nothing", "nmae: nothing"))
    done = shell(tmp_path, f"COMMAND {' '.join(words)} >/dev/full")
    assert done.returncode == 1
    assert done.stderr == "run-pipeline: the output cannot be written: No space left on device\n"


def test_an_error_of_our_own_is_70_with_one_line_and_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    state = tmp_path / "state"
    state.mkdir()
    monkeypatch.setenv("RUN_PIPELINE_STATE", str(state))
    monkeypatch.setattr("pipeline_runner.language.table.schema.text", lambda: "".index("x"))
    for place in (state, Path("/tmp")):
        assert main.run(["schema"]) == 70
        told = capsys.readouterr().err
        assert told.count("\n") == 1
        assert "internal error in run-pipeline (ValueError: substring not found)" in told
        file = Path(told.split()[-1])
        assert file.parent == place
        assert "Traceback" in file.read_text()
        assert file.stat().st_mode & 0o077 == 0
        file.unlink()
        if place == state:
            state.rmdir()


SLOW = '''
"""The SDK is slow to import, until the server is there; who imports it is written down."""
import importlib.abc, os, sys, threading, time


class Slow(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "temporalio":
            with open("importers", "a") as file:
                file.write(f"{threading.get_ident()}\\n")
        if name == "temporalio":
            while not os.path.exists("state/server.json"):
                time.sleep(0.01)
            time.sleep(0.3)
        return None


if sys.argv[0] != "-c" and "RUN_PIPELINE_TEST" in os.environ:
    sys.meta_path.insert(0, Slow())
'''


def test_the_sdk_is_imported_by_one_thread_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "n.yaml").write_text(NOTHING)
    (tmp_path / "sitecustomize.py").write_text(SLOW)
    path = f"{tmp_path}{os.pathsep}{environment(tmp_path)['PYTHONPATH']}"
    done = run(tmp_path, "n.yaml", PYTHONPATH=path, RUN_PIPELINE_TEST="1")
    assert (done.code, done.out) == (0, '"done"\n'), done.err
    importers = (tmp_path / "importers").read_text().split()
    assert len(importers) > 10
    # One after the other, never in turn.
    assert len(list(groupby(importers))) <= 2, importers


@pytest.mark.parametrize(
    ("address", "code", "told"),
    [
        ("127.0.0.1:1", 5, "the Temporal server at 127.0.0.1:1 cannot be reached: Connection refused"),
        ("no.host.invalid:7233", 5, "the Temporal server at no.host.invalid:7233 cannot be reached: "),
        ("", 2, 'the address of a server must be HOST:PORT, such as temporal.example.org:7233, not ""'),
        ("not an address", 2, "the address of a server must be HOST:PORT"),
        ("localhost", 2, "the address of a server must be HOST:PORT"),
        ("http://127.0.0.1:1", 2, "the address of a server must be HOST:PORT"),
        ("127.0.0.1:99999", 2, "the address of a server must be HOST:PORT"),
    ],
)
def test_a_wrong_address_is_told_in_one_line_for_people(
    tmp_path: Path, address: str, code: int, told: str
) -> None:
    done = run(tmp_path, "watch", "x", "--address", address)
    assert done.code == code
    assert done.err.startswith(f"run-pipeline: {told}")
    assert done.err.count("\n") == 1
    assert not any(word in done.err for word in ("tonic", "Os {", "Custom", "Error("))


def test_a_user_without_a_home_is_told_what_to_set(tmp_path: Path) -> None:
    (tmp_path / "n.yaml").write_text(NOTHING)
    code = (
        "import os, pwd, sys\n"
        "def getpwuid(uid):\n    raise KeyError(uid)\n"
        "pwd.getpwuid = getpwuid\n"  # a user whom the system has no entry for
        "from pipeline_runner.cli.main import run\n"
        "os._exit(run(sys.argv[1:]))\n"
    )
    surroundings = environment(tmp_path)
    for name in ("RUN_PIPELINE_STATE", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "HOME", "USER"):
        surroundings.pop(name, None)
    for more in ({}, {"HOME": ""}):
        done = subprocess.run(
            [sys.executable, "-c", code, "n.yaml"],
            cwd=tmp_path, env=surroundings | more, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 2
        assert done.stderr == (
            "run-pipeline: there is no home directory: set HOME, or RUN_PIPELINE_STATE to a directory\n"
        )
    state = {"RUN_PIPELINE_STATE": str(tmp_path / "state")}
    done = subprocess.run(
        [sys.executable, "-c", code, "n.yaml"],
        cwd=tmp_path, env=surroundings | state, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, '"done"\n'), done.stderr


def test_the_server_gets_a_user_and_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline_runner.server import devserver

    monkeypatch.delenv("USER", raising=False)
    monkeypatch.setenv("HOME", "")
    server = devserver.start()
    try:
        words = Path(f"/proc/{server.process.pid}/environ").read_bytes().split(b"\0")
    finally:
        server.stop()
    assert b"USER=run-pipeline" in words
    assert b"HOME=/nonexistent" in words


def test_a_read_only_home_leaves_runs_among_the_temporary_files(tmp_path: Path) -> None:
    (tmp_path / "n.yaml").write_text(NOTHING)
    (tmp_path / "file").touch()
    (tmp_path / "tmp").mkdir()
    home = {"HOME": str(tmp_path / "file"), "TMPDIR": str(tmp_path / "tmp"), "RUN_PIPELINE_STATE": ""}
    home["XDG_CONFIG_HOME"] = home["XDG_STATE_HOME"] = ""
    done = run(tmp_path, "n.yaml", **home)
    folder = tmp_path / "tmp" / f"run-pipeline-{os.getuid()}"
    assert (done.code, done.out) == (0, '"done"\n'), done.err
    assert f"your state directory is not writable, so runs are kept in {folder};" in done.err
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o755)
    other = run(tmp_path, "n.yaml", **home | {"HOME": str(tmp_path / "good")})
    assert other.code == 0, "who has a home of their own does not need it"
    assert "cannot be written" not in other.err
    refused = run(tmp_path, "n.yaml", **home)
    assert refused.code == 5
    assert refused.err.count("\n") == 1
    assert f"nor {folder} can be used: set RUN_PIPELINE_STATE" in refused.err


def test_the_end_of_the_servers_log_is_short_and_its_error_first(tmp_path: Path) -> None:
    from pipeline_runner.server.embedded import _tail

    log = tmp_path / "server.log"
    long = json.dumps({"error": "x" * 3000})
    log.write_text(f"Error: old\nError: no user\n{long}\nlast\n")
    lines = _tail(log).splitlines()
    assert lines[0] == "Error: no user"
    assert lines[-1] == "last"
    assert max(map(len, lines)) == 200


def test_a_database_that_was_never_finished_is_made_anew_and_one_with_runs_is_kept(tmp_path: Path) -> None:
    """A kill in the very first start leaves some tables, or none."""
    (tmp_path / "n.yaml").write_text(NOTHING)
    state = tmp_path / "state"
    state.mkdir()
    with closing(sqlite3.connect(state / "temporal.db")) as database:
        database.execute("CREATE TABLE namespaces(id BLOB PRIMARY KEY)")
    done = run(tmp_path, "n.yaml", "--workflow-id", "kept")
    assert (done.code, done.out) == (0, '"done"\n'), done.err
    assert_nothing_left(tmp_path)
    (state / "temporal.db.made").unlink()  # as a version left it that made no mark
    watched = run(tmp_path, "watch", "kept")
    assert (watched.code, watched.out) == (0, '"done"\n'), watched.err
    assert (state / "temporal.db.made").exists()


async def test_runs_are_kept_for_thirty_days_or_as_long_as_is_said(
    server: DevServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    for chosen, days in ((None, 30), ("2d", 2), ("", 30)):
        if chosen is not None:
            monkeypatch.setenv(retention.VARIABLE, chosen)
        embedded = Embedded(key=b"", address=server.address, ui="", folder=Path())
        await session.connect(session.Target(settings={"target_host": server.address}, embedded=embedded))
        described = await client.workflow_service.describe_namespace(
            DescribeNamespaceRequest(namespace="default")
        )
        assert described.config.workflow_execution_retention_ttl.seconds == days * 86400


@pytest.mark.parametrize(
    ("chosen", "told"),
    [("30", '"30" is not a duration'), ("1m", 'runs are kept for at least an hour, not "1m"')],
)
def test_a_wrong_retention_is_refused(tmp_path: Path, chosen: str, told: str) -> None:
    (tmp_path / "n.yaml").write_text(NOTHING)
    done = run(tmp_path, "n.yaml", RUN_PIPELINE_RETENTION=chosen)
    assert done.code == 2
    assert f"RUN_PIPELINE_RETENTION: {told}" in done.err
    assert "run:" not in done.err


def test_a_random_user_id_with_a_read_only_home_runs_the_first_example(tmp_path: Path) -> None:
    """As in a container of somebody who chose neither: no entry in the system, nowhere to write at home."""
    folder = Path(tempfile.mkdtemp(prefix="random-user-"))  # tmp_path is closed to other users
    (folder / "home").mkdir(mode=0o555)
    (folder / "site").mkdir()
    packages = Path(pytest.__file__).parents[1]
    surroundings = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "PYTHONPATH": f"{environment(tmp_path)['PYTHONPATH']}:{packages}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": str(folder / "home"),
        "TMPDIR": str(folder / "site"),
    }
    minor = f"python3.{sys.version_info.minor}"
    as_nobody = [
        "setpriv",
        "--reuid=54321",
        "--regid=54321",
        "--clear-groups",
        minor,
        "-m",
        "pipeline_runner",
    ]
    surroundings["PATH"] = f"/usr/bin:/bin:{surroundings['PATH']}"
    try:
        if os.getuid() != 0:
            pytest.skip("only root can become another user")
        for path in (folder, folder / "site"):
            os.chmod(path, 0o755)
        os.chown(folder / "site", 54321, 54321)
        example = Path(__file__).parents[2] / "pipelines/provision-resource.yaml"

        def started(*words: str) -> "subprocess.CompletedProcess[str]":
            return subprocess.run(
                [*as_nobody, *words], cwd=folder / "site", env=surroundings, stdin=subprocess.DEVNULL,
                capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip

        if started("--version").returncode != 0:
            pytest.skip(
                "no Python of this version that every user may run, or a checkout that not every user may read"
            )
        done = started(str(example), "-i", "name=demo")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["status"] == "provisioned"
        assert f"runs are kept in {folder}/site/run-pipeline-54321" in done.stderr
        wait_for(lambda: not (folder / "site/run-pipeline-54321/server.json").exists())
    finally:
        shutil.rmtree(folder)


def test_what_an_ordinary_user_may_not_read_is_told_in_one_line_each(tmp_path: Path) -> None:
    for path in ("closed/p.yaml", "open/closed/p.yaml", "open/shut.yaml", "open/p.yaml"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(NOTHING if "open/p" not in path else NOTHING.replace("set", "sot"))
    for path in ("closed", "open/closed", "open/shut.yaml"):
        (tmp_path / path).chmod(0)
    # Root reads everything, unless it lacks what lets it.
    powers = "-dac_override,-dac_read_search"
    lesser = ["setpriv", f"--bounding-set={powers}", f"--inh-caps={powers}"] if os.getuid() == 0 else []

    def started(*words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*lesser, sys.executable, "-m", "pipeline_runner", *words], cwd=tmp_path,
            env=environment(tmp_path), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip

    try:
        checked = started("validate", "closed", "open", "open/shut.yaml")
        ran = started("open/shut.yaml")
    finally:
        for path in ("closed", "open/closed"):
            (tmp_path / path).chmod(0o700)
    assert checked.returncode == 2
    assert [line for line in checked.stderr.splitlines() if line.startswith("run-pipeline")] == [
        f"run-pipeline: {path} cannot be read: Permission denied"
        for path in ("closed", "open/shut.yaml", "open/closed")
    ]
    assert "open/p.yaml:2:17: error: " in checked.stderr, "what can be read is checked still"
    told = "run-pipeline: open/shut.yaml cannot be read: Permission denied\n"
    assert (ran.returncode, ran.stdout, ran.stderr) == (2, "", told)
    assert_nothing_left(tmp_path)


@pytest.fixture
def nowhere_to_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """A read-only container: neither the home nor a temporary directory can be written."""

    def none() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    monkeypatch.setenv("HOME", "/proc/nobody")
    for name in ("RUN_PIPELINE_STATE", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)


def test_a_checksum_with_a_line_end_is_refused_before_anything_is_fetched(tmp_path: Path) -> None:
    """It comes from a program's output, so that the checker cannot know it."""
    (tmp_path / "c.yaml").write_text(
        "name: checksum\ninputs: {url: {type: string}}\nsteps:\n"
        '  - {id: sum, activity: shell.run, with: {command: [sh, -c, "printf %064d 0; echo"]}, compensate: none}\n'
        "  - id: fetch\n    activity: http.download\n    compensate: none\n"
        '    with: {url: "{{ inputs.url }}", path: got.bin, checksum: "sha256:{{ steps.sum.output.stdout }}"}\n'
    )
    with FileServer(b"body") as server:
        done = run(tmp_path, "c.yaml", "-i", f"url={server.url}")
    assert (done.code, done.out, server.seen) == (1, "", [])
    assert "InvalidInput" in done.err
    assert "retrying" not in done.err
    assert not (tmp_path / "got.bin").exists()


@pytest.mark.usefixtures("nowhere_to_write")
def test_nowhere_to_write_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "n.yaml").write_text(NOTHING)
    for name in list(os.environ):
        if name.startswith("TEMPORAL_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert main.run([str(tmp_path / "n.yaml")]) == 5
    assert capsys.readouterr().err == (
        "run-pipeline: neither the user's state directory nor a temporary directory can be written:"
        " set RUN_PIPELINE_STATE to a directory\n"
    )


@pytest.mark.usefixtures("nowhere_to_write")
def test_an_error_of_our_own_is_told_where_nothing_can_be_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: object) -> int:
        raise ZeroDivisionError("by accident")

    monkeypatch.setattr(main, "_dispatch", fail)
    assert main.run(["validate"]) == 70
    last = capsys.readouterr().err.splitlines()[-1]
    told = "run-pipeline: internal error in run-pipeline (ZeroDivisionError: by accident)"
    assert last == f"{told}; please report it"


def test_nothing_ends_a_process_that_only_calls_the_commands_functions() -> None:
    before = set(threading.enumerate())
    main.leave_within(60, ExitCode.FAILED)
    assert set(threading.enumerate()) == before
