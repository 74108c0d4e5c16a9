"""shell.run on real processes."""

import asyncio
import dataclasses
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from pipeline_runner.activities.shell import GRACE, RunInput
from pipeline_runner.activities.shell import run as shell_run
from pipeline_runner.activities.toolkit import heartbeat
from pipeline_runner.activities.toolkit.output import (
    SHORT_TAIL,
    STDERR_LIMIT,
    STDOUT_LIMIT,
    TAIL,
    spell_signal,
)
from pipeline_runner.activities.toolkit.parameters import Scalar
from pipeline_runner.activities.toolkit.secret_values import in_use

Run = Callable[..., Any]
NewEnvironment = Callable[..., ActivityEnvironment]


def _strings(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def _python(code: str) -> list[Scalar]:
    return [*_strings(code)]


def _failure(run: Run, **parameters: Any) -> ApplicationError:
    with pytest.raises(ApplicationError) as caught:
        run(shell_run, **parameters)
    assert caught.value.__cause__ is None
    return caught.value


def _gone(pid: int) -> bool:
    """Say whether a process has ended within three seconds; a zombie has."""
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        stat = subprocess.run(
            ["/bin/ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
        ).stdout.strip()
        if not stat or stat.startswith("Z"):
            return True
        time.sleep(0.02)
    return False


def _read_pid(file: Path) -> int:
    deadline = time.monotonic() + 5
    while not (file.exists() and file.read_text().strip()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return int(file.read_text())


def test_output_and_exit_code(run: Run) -> None:
    result = run(shell_run, command=["sh", "-c", "echo out; echo err >&2"])
    assert (result.exit_code, result.stdout, result.stderr) == (0, "out\n", "err\n")
    assert (result.parsed, result.truncated) == (None, False)


def test_arguments_reach_the_program_as_they_are(run: Run) -> None:
    """No shell sees them."""
    arguments = ["a b", "$HOME", "*", ";ls", "", 5, True]
    code = "import json, sys; print(json.dumps(sys.argv[1:]))"
    result = run(shell_run, command=[*_python(code), *arguments], parse="json")
    assert result.parsed == ["a b", "$HOME", "*", ";ls", "", "5", "true"]
    assert result.stdout == ""


def test_environment_is_added_and_folder_and_input_are_used(run: Run, tmp_path: Path) -> None:
    result = run(
        shell_run,
        command=["sh", "-c", 'echo "$A"; test -n "$PATH"; pwd; cat'],
        env={"A": 1},
        cwd=str(tmp_path),
        stdin="déjà\nvu",
        parse="lines",
    )
    assert result.parsed == ["1", str(tmp_path.resolve()), "déjà", "vu"]


def test_lines_end_with_lf_or_crlf_alone(run: Run) -> None:
    """Other breaks may be in the name of a file."""
    shown = "one\\ftwo\\none\\302\\205two\\r\\none\\rtwo\\n\\nend"
    result = run(shell_run, command=["printf", shown], parse="lines")
    assert result.parsed == ["one\ftwo", "one\x85two", "one\rtwo", "", "end"]
    assert run(shell_run, command=["true"], parse="lines").parsed == []


@pytest.mark.parametrize("env", [{"": "x"}, {"a=b": "x"}, {"a": "\0"}, {"a": "\ud800"}])
def test_an_environment_that_no_program_can_be_given(run: Run, env: Any) -> None:
    error = _failure(run, command=["true"], env=env)
    assert (
        error.message
        == "the command or its environment contains a character that cannot be passed to a program"
    )
    assert (error.type, error.non_retryable) == ("InvalidInput", True)


def test_without_stdin_there_is_nothing_to_read(run: Run) -> None:
    assert run(shell_run, command=["cat"]).stdout == ""


def test_a_program_need_not_read_its_input(run: Run) -> None:
    assert run(shell_run, command=["true"], stdin="x" * 1_000_000).exit_code == 0


def test_bytes_that_are_no_text_are_replaced(run: Run) -> None:
    assert run(shell_run, command=["printf", r"a\377b"]).stdout == "a�b"


def test_another_exit_code_is_a_failure_that_may_be_retried(run: Run) -> None:
    code = "echo warming up >&2; echo 'disk  on fire' >&2; echo >&2; exit 3"
    error = _failure(run, command=["sh", "-c", code])
    assert error.message == "exit code 3: disk on fire"
    assert (error.type, error.non_retryable) == ("CommandFailed", False)
    assert error.details == ({"exit_code": 3, "stdout": "", "stderr": "warming up\ndisk  on fire\n\n"},)


def test_a_silent_failure_has_a_message_too(run: Run) -> None:
    assert _failure(run, command=["false"]).message == "exit code 1"


def test_a_failure_says_what_was_last_printed_on_standard_output_if_there_is_nothing_else(run: Run) -> None:
    """Test runners and npm report failures there."""
    error = _failure(run, command=["sh", "-c", "echo 'FAILED test_total'; exit 2"])
    assert error.message == "exit code 2: FAILED test_total"
    assert error.details == ({"exit_code": 2, "stdout": "FAILED test_total\n", "stderr": ""},)


def _last_attempt(*, last: bool) -> ActivityEnvironment:
    env = ActivityEnvironment()
    policy = RetryPolicy(maximum_attempts=2)
    env.info = dataclasses.replace(env.info, retry_policy=policy, attempt=2 if last else 1)
    return env


@pytest.mark.parametrize("last", [False, True])
def test_a_failure_carries_a_bounded_end_of_both_streams(last: bool) -> None:
    """Whole lines. Of an attempt that another follows the server keeps no more than 4 KiB."""
    code = "import sys; print('\\0 out\\n' * 50_000); sys.exit('x' * 100_000 + '\\nlast line')"
    with pytest.raises(ApplicationError) as caught:
        asyncio.run(_last_attempt(last=last).run(shell_run, RunInput(command=_python(code))))
    details = caught.value.details[0]
    limit = TAIL if last else SHORT_TAIL
    assert caught.value.message == "exit code 1: last line"
    assert details["stderr"] == "last line\n"
    assert details["stdout"].startswith("\0 out\n")
    assert limit - 50 < len(json.dumps(details["stdout"])) <= limit


def test_a_long_last_line_is_cut(run: Run) -> None:
    error = _failure(run, command=_python("import sys; sys.exit('x' * 100_000 + 'end')"))
    assert error.message == "exit code 1: " + "x" * 299 + "…"
    assert error.details[0]["stderr"].endswith("xend\n")
    assert SHORT_TAIL - 8 < len(error.details[0]["stderr"]) <= SHORT_TAIL


@pytest.mark.parametrize("fails", [True, False])
def test_a_secret_is_masked_before_output_is_cut(run: Run, fails: bool) -> None:
    """Half of one would not be found any more."""
    secret = "s3cret-" * 8
    code = (
        "import sys\n"
        f"sys.stdout.write('a' * {STDOUT_LIMIT - 10} + {secret!r} + 'b' * {SHORT_TAIL - 20})\n"
        f"sys.stderr.write({secret!r} + 'c' * {(SHORT_TAIL if fails else STDERR_LIMIT) - 20})\n"
        f"sys.exit({int(fails)})"
    )
    token = in_use.set((secret,))
    try:
        if fails:
            told = _failure(run, command=_python(code)).details[0]
        else:
            told = run(shell_run, command=_python(code)).__dict__
    finally:
        in_use.reset(token)
    assert "s3c" not in json.dumps(told)
    assert "ret-" not in json.dumps(told)
    assert "***" in told["stderr"]


def test_death_by_a_signal_names_it(run: Run) -> None:
    error = _failure(run, command=["sh", "-c", "kill -9 $$"])
    assert error.message == "killed by signal 9 (SIGKILL)"
    assert error.details[0]["exit_code"] == -9


def test_death_by_a_signal_that_python_has_no_name_for(run: Run) -> None:
    error = _failure(run, command=_python("import os, signal; os.kill(os.getpid(), signal.SIGRTMIN + 1)"))
    assert error.message == f"killed by signal {signal.SIGRTMIN + 1} (SIGRTMIN+1)"
    assert error.type == "CommandFailed"


def test_every_signal_of_the_system_has_words() -> None:
    """65 is none, and is told all the same."""
    spelt = [spell_signal(number) for number in range(1, 66)]
    assert [one.split(" ")[0] for one in spelt] == [str(number) for number in range(1, 66)]
    assert {number: spelt[number - 1] for number in (15, 32, 34, 36, 64, 65)} == {
        15: "15 (SIGTERM)",
        32: "32",
        34: "34 (SIGRTMIN)",
        36: "36 (SIGRTMIN+2)",
        64: "64 (SIGRTMAX)",
        65: "65",
    }


@pytest.mark.parametrize("by_path", [False, True])
def test_a_script_whose_interpreter_is_missing_is_not_missing_itself(
    run: Run, tmp_path: Path, by_path: bool
) -> None:
    for name, first in {"crlf": "#!/bin/sh\r", "spaced": "#! /no/such/thing -x"}.items():
        (tmp_path / name).write_text(f"{first}\necho hi\n")
        (tmp_path / name).chmod(0o755)
    names = "its first line names an interpreter that does not exist"
    cases = {
        "crlf": f'{names}, "/bin/sh\\r" (the file has Windows line endings)',
        "spaced": f'{names}, "/no/such/thing"',
    }
    for name, reason in cases.items():
        command = f"./{name}" if by_path else name
        where: Any = {"cwd": str(tmp_path)} if by_path else {"env": {"PATH": f"/nope:{tmp_path}"}}
        error = _failure(run, command=[command], **where)
        assert error.message == f"cannot run {command}: {reason}"
        assert (error.type, error.non_retryable) == ("CommandNotExecutable", True)


def test_what_cannot_be_started_is_not_retried(run: Run, tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("x")
    (tmp_path / "broken").write_bytes(b"\x7fELF")
    (tmp_path / "broken").chmod(0o755)
    cases = {
        ("nope-nope",): ("there is no program nope-nope", "CommandNotFound"),
        (f"{tmp_path}/plain",): (
            f"cannot run {tmp_path}/plain: permission denied",
            "CommandNotExecutable",
        ),
        (f"{tmp_path}/broken",): (
            f"cannot run {tmp_path}/broken: exec format error",
            "CommandNotExecutable",
        ),
        ("echo", "x" * 3_000_000): ("cannot run echo: argument list too long", "CommandTooLong"),
        ("echo", "a\0b"): (
            "the command or its environment contains a character that cannot be passed to a program",
            "InvalidInput",
        ),
    }
    for command, (message, error_type) in cases.items():
        error = _failure(run, command=list(command))
        assert (error.message, error.type) == (message, error_type)
        assert error.non_retryable


def test_a_bad_folder_is_named(run: Run, tmp_path: Path) -> None:
    error = _failure(run, command=["true"], cwd=f"{tmp_path}/nope")
    assert error.message == f"cannot run in the directory {tmp_path}/nope: no such file or directory"
    assert (error.type, error.non_retryable) == ("BadWorkingDirectory", True)


def test_too_much_output_is_dropped_and_said(run: Run) -> None:
    code = "import sys; sys.stdout.write('a' * 3_000_000); sys.stderr.write('b' * 3_000_000 + 'end')"
    result = run(shell_run, command=_python(code))
    assert result.stdout == "a" * STDOUT_LIMIT
    assert result.stderr.endswith("bend")
    assert STDERR_LIMIT - 8 < len(result.stderr) <= STDERR_LIMIT
    assert result.truncated


def test_a_result_always_fits_into_the_history(run: Run) -> None:
    """Temporal's limit is 2 MiB of JSON, which writes some bytes as six."""
    result = run(shell_run, command=_python(f"print('\\0' * {STDOUT_LIMIT}, end='')"))
    assert result.truncated
    assert 1_000_000 < len(json.dumps(result.__dict__)) < 1_800_000


@pytest.mark.parametrize("parse", ["json", "lines"])
def test_output_too_large_to_parse_is_an_error(run: Run, parse: str) -> None:
    error = _failure(run, command=_python("print('[' + '1,' * 1_000_000 + '1]')"), parse=parse)
    assert error.message == "standard output is too large to parse"
    assert (error.type, error.non_retryable) == ("OutputTooLarge", True)


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("", "it is empty"),
        ("hunter2", "Expecting value: line 1 column 1 (char 0)"),
        ("[NaN]", "NaN is not in JSON"),
        ('{"a": -1e400}', "a number is too large"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_output_that_is_no_json_is_an_error_without_the_output(run: Run, output: str, reason: str) -> None:
    error = _failure(run, command=["cat"], stdin=output, parse="json")
    assert error.message == f"standard output is not JSON: {reason}"
    assert (error.type, error.non_retryable) == ("OutputNotJson", True)


def test_heartbeats_while_the_program_runs(
    environment: NewEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "HEARTBEAT_EVERY", 0.05)
    beats: list[float] = []
    env = environment()
    env.on_heartbeat = lambda *_: beats.append(time.monotonic())
    asyncio.run(env.run(shell_run, RunInput(command=["sleep", "0.4"])))
    assert len(beats) >= 4


def _cancelled(env: ActivityEnvironment, code: str, started: Path) -> float:
    """Cancel the activity once its program has written ``started``; return how long it took."""

    async def scenario() -> float:
        task = asyncio.ensure_future(env.run(shell_run, RunInput(command=["sh", "-c", code])))
        await asyncio.to_thread(_read_pid, started)
        begin = time.monotonic()
        env.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return time.monotonic() - begin

    return asyncio.run(scenario())


def test_cancellation_ends_the_whole_process_group(environment: NewEnvironment, tmp_path: Path) -> None:
    code = f"sleep 600 & echo $! > {tmp_path}/child; echo $$ > {tmp_path}/parent; wait"
    assert _cancelled(environment(), code, tmp_path / "parent") < GRACE
    assert _gone(_read_pid(tmp_path / "child"))
    assert _gone(_read_pid(tmp_path / "parent"))


def test_cancellation_lets_a_program_clean_up(environment: NewEnvironment, tmp_path: Path) -> None:
    code = (
        f"trap 'echo bye > {tmp_path}/bye; exit 0' TERM;"
        f" echo $$ > {tmp_path}/pid; while :; do sleep 0.02; done"
    )
    assert _cancelled(environment(), code, tmp_path / "pid") < GRACE
    assert (tmp_path / "bye").read_text() == "bye\n"


def test_a_program_that_ignores_the_request_is_killed(
    environment: NewEnvironment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline_runner.activities.shell.GRACE", 0.2)
    code = f"trap '' TERM; echo $$ > {tmp_path}/pid; while :; do sleep 0.02; done"
    _cancelled(environment(), code, tmp_path / "pid")
    assert _gone(_read_pid(tmp_path / "pid"))


def test_what_the_program_leaves_running_ends_with_the_step(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline_runner.activities.shell.DRAIN", 0.1)
    code = f"sleep 600 & echo $! > {tmp_path}/child; echo done"
    begin = time.monotonic()
    assert run(shell_run, command=["sh", "-c", code]).stdout == "done\n"
    assert time.monotonic() - begin < 3
    assert _gone(_read_pid(tmp_path / "child"))


def test_a_killed_worker_takes_its_programs_with_it(tmp_path: Path) -> None:
    """A kill -9 leaves nobody to clean up but the watcher."""
    code = f"trap '' TERM HUP; sleep 600 & echo $! > {tmp_path}/child; echo $$ > {tmp_path}/parent; wait"
    worker = subprocess.Popen(
        _strings(
            "import asyncio, dataclasses\n"
            "from datetime import timedelta\n"
            "from temporalio.testing import ActivityEnvironment\n"
            "from pipeline_runner.activities.shell import run\n"
            "env = ActivityEnvironment()\n"
            "env.info = dataclasses.replace(env.info, start_to_close_timeout=timedelta(60))\n"
            f"asyncio.run(env.run(run, {{'command': ['sh', '-c', {code!r}]}}))\n"
        ),
        cwd=Path(__file__).parents[2],
    )
    child, parent = _read_pid(tmp_path / "child"), _read_pid(tmp_path / "parent")
    time.sleep(0.2)
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    assert _gone(child)
    assert _gone(parent)
