"""``cancel``, leaving a run, and runs that nobody serves."""

import asyncio
import inspect
import json
import signal
from pathlib import Path

import pytest
from temporalio.client import Client

from pipeline_runner.cli import session
from pipeline_runner.cli.exit_codes import ExitCode
from pipeline_runner.server.devserver import DevServer
from tests.cli.command import assert_nothing_left, finish, interrupt, popen, run, wait_for
from tests.cli.test_run_command import EFFECTS, PIPELINE, arguments
from tests.effects import lines


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (tmp_path / "shop.yaml").write_text(PIPELINE)
    return tmp_path


def test_an_interrupt_before_a_command_begins_leaves_no_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python warns, on standard error, of a coroutine that nobody ran or closed."""

    def interrupted() -> None:
        raise KeyboardInterrupt

    async def command() -> ExitCode:
        return ExitCode.OK

    monkeypatch.setattr(session, "_loop_factory", interrupted)
    made = command()
    with pytest.raises(KeyboardInterrupt):
        session.run_loop(made)
    assert inspect.getcoroutinestate(made) == inspect.CORO_CLOSED


def test_cancel_has_the_run_undone_and_says_so(shop: Path) -> None:
    process = popen(shop, *arguments(shop, then="hang"), "--workflow-id", "shop")
    wait_for(lambda: "do b" in lines(shop / "log"))
    done = run(shop, "cancel", "shop", "--reason", "closing time")
    assert (done.code, done.out) == (0, "")
    assert done.err == (
        "cancellation requested: shop. The run undoes what it has done; to follow it: run-pipeline watch shop\n"
    )
    ended = finish(process)
    assert ended.code == 4
    assert "cancelled: closing time" in ended.err
    assert lines(shop / "log") == ["do a", "do b", "undo b", "undo a"]
    again = run(shop, "cancel", "shop")
    assert (again.code, again.err) == (
        1,
        'run-pipeline: the run "shop" is not open: its status is canceled\n',
    )
    unknown = run(shop, "cancel", "shep")
    assert (unknown.code, unknown.err) == (1, 'run-pipeline: there is no run "shep" here\n')


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_watch_only_looks(shop: Path, number: signal.Signals) -> None:
    process = popen(shop, *arguments(shop, then="hang"), "--workflow-id", "shop")
    wait_for(lambda: "do b" in lines(shop / "log"))
    watching = popen(shop, "watch", "shop")
    assert watching.stderr is not None
    while "b: running" not in watching.stderr.readline():
        pass
    watching.send_signal(number)
    left = finish(watching)
    assert (left.code, left.out) == (130, "")
    assert left.err.splitlines()[-3:] == [
        "left; the run is still open. To follow it again: run-pipeline watch shop",
        "To cancel it: run-pipeline cancel shop",
        "Unless another command serves the run, it waits until you follow it again",
    ]
    assert process.poll() is None
    assert lines(shop / "log") == ["do a", "do b"], "nothing was cancelled"
    interrupt(process)
    assert finish(process).code == 4


def test_a_cancelled_run_that_nobody_serves_is_told_and_undone_by_watch(shop: Path) -> None:
    text = PIPELINE.replace("  - id: b\n", "  - {id: long, wait: 1h}\n  - id: b\n")
    (shop / "shop.yaml").write_text(text)
    process = popen(shop, *arguments(shop), "--workflow-id", "shop")
    read_until(process, "long: waiting")
    process.kill()
    finish(process)
    done = run(shop, "cancel", "shop")
    assert done.code == 0
    assert done.err.splitlines()[-1] == (
        "no worker serves the run: it will be undone when you follow it (run-pipeline watch shop)"
    )
    assert run(shop, "cancel", "shop").err.startswith("cancellation requested again: shop.")
    watched = run(shop, "watch", "shop")
    assert watched.code == 4, watched.err
    assert lines(shop / "log") == ["do a", "undo a"]
    assert_nothing_left(shop)


async def test_a_run_without_a_worker_is_told_with_what_to_do(
    shop: Path, server: DevServer, client: Client
) -> None:
    """Pending, and then cancelled; by ``run``, ``watch`` and ``cancel``."""
    address = {"TEMPORAL_ADDRESS": server.address}
    queue = f"queue-{shop.name}"
    words = (*arguments(shop), "--task-queue", queue, "--workflow-id", shop.name)
    told = (
        f'no worker serves the task queue "{queue}", so the run is waiting: start one (run-pipeline worker'
        f" --task-queue {queue}, or one in another SDK), or end the run without undo (temporal workflow"
        f" terminate --address {server.address} --workflow-id {shop.name})"
    )
    running = popen(shop, *words, **address)
    await until(running, told)
    interrupt(running)
    await until(running, "cancelling and undoing the run")
    interrupt(running)
    detached = await asyncio.to_thread(finish, running)
    assert detached.code == 130
    assert "detached; the run is still open" in detached.err
    asked = await asyncio.to_thread(run, shop, "cancel", shop.name, **address)
    assert (asked.code, asked.err.splitlines()[-1]) == (0, told)
    watching = popen(shop, "watch", shop.name, **address)
    await until(watching, told)
    await client.get_workflow_handle(shop.name).terminate()
    done = await asyncio.to_thread(finish, watching)
    assert (done.code, done.out) == (1, ""), "it had done nothing, so nothing is left"
    assert "terminated: nothing was undone" in done.err
    assert "dirty" not in done.err


async def until(process: object, text: str) -> None:
    seen = ""
    while text not in seen:
        line = await asyncio.to_thread(process.stderr.readline)  # type: ignore[attr-defined]
        assert line, seen
        seen += line


def test_a_step_and_its_undo_on_a_queue_without_a_worker_are_told(shop: Path) -> None:
    (shop / "n.yaml").write_text(
        "name: n\nsteps:\n  - {id: a, activity: payment.charge, task_queue: go-queue,"
        " compensate: {activity: payment.refund, task_queue: refunds}}\n"
    )
    process = popen(shop, "n.yaml", "--workflow-id", "n")
    seen = read_until(process, 'no worker serves the task queue "go-queue", so the run is waiting: start one')
    assert 'a: waiting: no worker serves the task queue "go-queue"' in seen
    interrupt(process)
    seen = read_until(process, 'no worker serves the task queue "refunds"')
    assert 'undo a: waiting: no worker serves the task queue "refunds"' in seen
    interrupt(process)
    assert finish(process).code == 130


def read_until(process: object, text: str) -> str:
    seen = ""
    while text not in seen:
        line = process.stderr.readline()  # type: ignore[attr-defined]
        assert line, seen
        seen += line
    return seen


FINALLY = """
name: release
steps:
  - {id: a, activity: effect.do, with: {log: LOG, name: a}, compensate: {activity: effect.undo, with: {log: LOG, name: a}}}
finally:
  - {id: notify, name: tell them, activity: effect.do, with: {log: LOG, name: n, then: fail}}
  - {id: more, activity: effect.do, with: {log: LOG, name: m, then: fail}}
output: released
"""


def write(folder: Path, **texts: str) -> None:
    for name, text in texts.items():
        (folder / f"{name}.yaml").write_text(text.replace("LOG", str(folder / "log")))


def test_a_failed_finally_says_that_the_steps_are_kept(shop: Path) -> None:
    write(shop, release=FINALLY)
    done = run(shop, "release.yaml", *EFFECTS)
    assert (done.code, done.out) == (1, "")
    assert (
        "the steps completed and their effects are kept, but finally failed:"
        " tell them: n is out of order [Broken]\nfinally: more: m is out of order [Broken]\n"
    ) in done.err
    assert "undone" not in done.err
    assert lines(shop / "log") == ["do a"]


def test_a_child_whose_finally_failed_is_undone_with_its_parent(shop: Path) -> None:
    """For its parent it has failed, and a child that failed has undone itself."""
    write(shop, release=FINALLY, outer="name: outer\nsteps:\n  - {id: inner, pipeline: ./release.yaml}\n")
    done = run(shop, "outer.yaml", *EFFECTS, "--report", "r.json")
    assert done.code == 1, done.err
    assert "failed: inner: tell them: n is out of order [Broken]\n  undone: inner/a\n" in done.err
    assert lines(shop / "log") == ["do a", "undo a"]
    report = json.loads((shop / "r.json").read_text())
    assert [(undo["path"], undo["state"]) for undo in report["undo"]] == [("inner/a", "undone")]


def test_skipped_steps_the_whole_time_and_the_page_of_the_run_are_told(shop: Path) -> None:
    write(
        shop,
        skips="name: skips\ninputs: {on: {type: boolean, default: false}}\nsteps:\n"
        "  - {id: a, when: inputs.on, activity: effect.do, with: {log: LOG, name: a}, compensate: none}\n"
        "  - {id: b, activity: effect.do, with: {log: LOG, name: b}, compensate: none}\n"
        "  - {id: c, when: inputs.on, name: 'c {{ inputs.on }}', wait: 1s}\n"
        "  - {id: d, when: inputs.on, fail: {message: x}}\n"
        "finally:\n  - {id: e, when: inputs.on, activity: effect.do, with: {log: LOG, name: e}}\n",
    )
    done = run(shop, "skips.yaml", *EFFECTS, "--workflow-id", "a/b c")
    assert done.code == 0, done.err
    told = [line.split("s  ", 1)[-1].split(", ")[0] for line in done.err.splitlines()]
    assert told[2:] == [
        "a: skipped", "b: running", "b: completed", "c: skipped", "d: skipped", "e: skipped", "completed",
        "to look at the run later: run-pipeline server",
    ]  # fmt: skip
    assert told[0] == "run: a/b c"
    assert "/namespaces/default/workflows/a%2Fb%20c/" in told[1]
    assert told[1].startswith("web UI: http://127.0.0.1:")
