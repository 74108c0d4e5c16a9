"""The container pipelines: on a real Engine through the command, and on the stand-in.

Whatever fails, the containers, images, networks and volumes are as they were, and what ran
runs. The causes are real: a name or a tag that is taken, a check that fails, a port that
somebody takes, a Ctrl-C, an Engine that is killed.
"""

import asyncio
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import ApplicationError

from pipeline_runner.core import model
from pipeline_runner.engine.workflow.outcomes import report_of
from pipeline_runner.language.workspace import load
from pipeline_runner.testing.docker import FakeDocker, answer, broken, unreachable
from tests.cli.command import Done, finish, interrupt, popen, run
from tests.conftest import Pipelines, result_of
from tests.pipelines.test_examples import PIPELINES, failure, undone
from tests.services import IMAGE, Engine

LIFECYCLE = str(PIPELINES / "container-lifecycle.yaml")
CHILD = str(PIPELINES / "stop-and-snapshot.yaml")
ENDS_WELL = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.05; done"]
"""A container's command that ends when it is asked to."""
IGNORES = ["sh", "-c", "trap 'touch /asked' TERM; while :; do sleep 0.05; done"]

OF = "stop-and-snapshot for container"
BAD = "no such image: UPPER:latest: invalid reference format: repository name must be lowercase"


def state(engine: Engine) -> dict[str, Any]:
    """Return what is on the Engine: names, which image each tag names, and what runs."""
    images = engine.docker("images", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}")
    running = engine.docker("ps", "--format", "{{.Names}}").split()
    return {**engine.left(), "images": sorted(images.splitlines()), "running": sorted(running)}


@pytest.fixture
def web(engine: Engine) -> Iterator[Callable[..., None]]:
    """Make the container ``web``; the Engine is up and as it was after the test."""
    before = engine.left()

    def make(command: list[str] = ENDS_WELL, *options: str) -> None:
        engine.docker("run", "-d", "--name", "web", *options, IMAGE, *command)

    yield make
    if not engine.ready():
        engine.kill()
        engine.start()
    after = engine.left()
    for what, remove in {
        "containers": ["rm", "--force", "--volumes"],
        "images": ["rmi", "--force"],
        "networks": ["network", "rm"],
        "volumes": ["volume", "rm"],
    }.items():
        for name in set(after[what]) - set(before[what]):
            engine.docker(*remove, name)
    assert engine.left() == before


def lifecycle(folder: Path, engine: Engine, *inputs: str) -> Done:
    words = [word for pair in ("container=web", *inputs) for word in ("-i", pair)]
    return run(folder, LIFECYCLE, *words, DOCKER_HOST=engine.host)


def child(folder: Path, engine: Engine, image: str, tag: str, container: str = "web") -> Done:
    given = {"container": container, "image": image, "tag": tag, "grace": "1"}
    words = [word for name, value in given.items() for word in ("-i", f"{name}={value}")]
    return run(folder, CHILD, *words, DOCKER_HOST=engine.host)


def test_lifecycle_makes_a_snapshot_and_starts_again(tmp_path: Path, engine: Engine, web: Any) -> None:
    web()
    engine.docker("exec", "web", "sh", "-c", "echo hello > /note")
    was = state(engine)
    done = lifecycle(tmp_path, engine, "check=[grep, hello, /note]")
    assert done.code == 0, done.err
    image = engine.docker("image", "inspect", "-f", "{{.Id}}", "web-snapshots:1")
    assert done.json == {"container": "web", "snapshot": "web-snapshots:1", "id": image, "status": "running"}
    tags = [f"web-snapshots:{tag} {image}" for tag in ("1", "latest")]
    assert state(engine) == {**was, "images": sorted([*was["images"], *tags])}
    assert engine.docker("run", "--rm", "web-snapshots:1", "cat", "/note") == "hello"


def test_lifecycle_removes_the_container_if_it_is_told_to(tmp_path: Path, engine: Engine, web: Any) -> None:
    web()
    done = lifecycle(tmp_path, engine, "then=remove", "version=final")
    assert (done.code, done.json["status"]) == (0, "removed"), done.err
    assert "web" not in engine.left()["containers"]
    assert engine.docker("run", "--rm", "web-snapshots:final", "echo", "there") == "there"


def test_a_container_that_would_be_gone_when_it_stops_is_left_alone(
    tmp_path: Path, engine: Engine, web: Any
) -> None:
    """Nothing could start it again."""
    web(ENDS_WELL, "--rm")
    was = state(engine)
    done = child(tmp_path, engine, "snaps:1", "snaps:latest")
    assert (done.code, undone(done)) == (1, []), done.err
    assert failure(done) == (
        "failed: check container web: the Engine removes it when it stops (--rm) [RemovedWhenStopped]"
    )
    assert state(engine) == was


async def test_a_removal_that_fails_keeps_the_snapshot(pipelines: Pipelines, fake: FakeDocker) -> None:
    """From the removal on nothing is undone: else neither container nor snapshot might be left."""
    fake.fail("remove_container", container="abc123", with_=answer(500, "device busy"), times=4)
    inputs = {**FULL, "then": "remove"}
    message, order = await failed(pipelines, fake, "container-lifecycle.yaml", container="abc123", **inputs)
    assert message == "remove container abc123: cannot remove container abc123: device busy [DockerError]"
    assert order == []
    assert fake.states == {"abc123": "exited"}
    assert {"snaps:1", "snaps:latest"} <= set(fake.tags)


def test_a_container_that_does_not_run_stays_so(tmp_path: Path, engine: Engine, web: Any) -> None:
    web()
    engine.docker("stop", "-t", "0", "web")
    done = lifecycle(tmp_path, engine)
    assert (done.code, done.json["status"]) == (0, "stopped"), done.err
    assert "web" not in state(engine)["running"]
    was = state(engine)
    done = lifecycle(tmp_path, engine, "version=2", 'check=["false"]')
    # The undo of the stop finds that there was nothing to stop.
    assert undone(done) == ["trial", "snapshot/tag", "snapshot/commit", "snapshot/stop"]
    assert state(engine) == was


@pytest.mark.parametrize(
    ("inputs", "error", "order"),
    [
        (
            ("container=nope",),
            f"{OF} nope: inspect container nope: there is no container nope [ContainerNotFound]",
            [],
        ),
        (
            ("repository=UPPER",),
            f"{OF} web: look which image has the tag UPPER:latest: cannot inspect image UPPER:latest: {BAD} [InvalidInput]",
            [],
        ),
        (
            ("repository=busybox-test",),
            f"{OF} web: commit container web to {IMAGE}: the tag {IMAGE} names another image [TagTaken]",
            ["snapshot/stop"],
        ),
        (
            ("check=[sh, -c, 'echo no licence >&2; exit 3']", "version=2"),
            "check container web-trial: exit code 3: no licence [CommandFailed]",
            ["trial", "snapshot/tag", "snapshot/commit", "snapshot/stop"],
        ),
        (
            ("check=[sh, -c, 'test ! -e /data/full']", "version=2"),
            "check container web: exit code 1 [CommandFailed]",
            ["trial", "snapshot/tag", "snapshot/commit", "snapshot/stop"],
        ),
    ],
)
def test_what_fails_leaves_the_engine_as_it_was(
    tmp_path: Path,
    engine: Engine,
    web: Any,
    inputs: tuple[str, ...],
    error: str,
    order: list[str],
) -> None:
    """At every stage; also the tag that an earlier snapshot had."""
    web(ENDS_WELL, "--volume", "data:/data")
    engine.docker("exec", "web", "touch", "/data/full")  # a volume is in no snapshot
    if "version=2" in inputs:
        assert lifecycle(tmp_path, engine).code == 0
    was = state(engine)
    done = lifecycle(tmp_path, engine, *inputs)
    assert (done.code, done.out) == (1, ""), done.err
    assert failure(done) == f"failed: {error}"
    assert undone(done) == order
    assert state(engine) == was


def test_a_trial_whose_name_is_taken(tmp_path: Path, engine: Engine, web: Any) -> None:
    """The other one is not touched."""
    web()
    engine.docker("run", "-d", "--name", "web-trial", IMAGE, *ENDS_WELL)
    was = state(engine)
    done = lifecycle(tmp_path, engine)
    assert failure(done) == (
        "failed: start container web-trial: there is another container named web-trial [NameTaken]"
    )
    assert undone(done) == ["snapshot/tag", "snapshot/commit", "snapshot/stop"]
    assert state(engine) == was


def test_a_container_that_needs_its_volume_has_no_trial(tmp_path: Path, engine: Engine, web: Any) -> None:
    needs = "grep -q ' /data ' /proc/mounts || { echo no volume >&2; exit 4; }; "
    web(["sh", "-c", needs + ENDS_WELL[2]], "--volume", "data:/data")
    was = state(engine)
    done = lifecycle(tmp_path, engine)
    assert failure(done) == (
        "failed: start container web-trial: container web-trial exited with code 4 within 1s: no volume"
        " [ContainerExited]"
    )
    assert undone(done) == ["snapshot/tag", "snapshot/commit", "snapshot/stop"]
    assert state(engine) == was


def test_a_tag_that_cannot_be_set(tmp_path: Path, engine: Engine, web: Any) -> None:
    """The name of a repository may not look like an id, which only setting it tells."""
    web()
    was = state(engine)
    name = "f" * 64
    done = child(tmp_path, engine, "snap:1", name)
    assert failure(done).startswith(f"failed: tag snap:1 as {name}: ")
    assert failure(done).endswith("[InvalidInput]")
    assert undone(done) == ["commit", "stop"]
    assert state(engine) == was


def test_a_port_that_somebody_takes_meanwhile(tmp_path: Path, engine: Engine, web: Any) -> None:
    """The container cannot start again; its undo goes on until it can."""
    engine.docker("network", "create", "front")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
    web(ENDS_WELL, "--network", "front", "--publish", f"127.0.0.1:{port}:80")
    was = state(engine)
    process = popen(tmp_path, LIFECYCLE, "-i", "container=web", DOCKER_HOST=engine.host)
    said = read_to(process, "snapshot/commit: running")
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        said += read_to(process, "restart: failed")
        said += read_to(process, "undo snapshot/stop: running")
    done = finish(process)
    assert done.code == 1, said + done.err
    taken = f"start container web: cannot start container web: the port 127.0.0.1:{port} is taken [PortTaken]"
    assert failure(done) == f"failed: {taken}"
    assert undone(done) == ["trial", "snapshot/tag", "snapshot/commit", "snapshot/stop"]
    assert state(engine) == was


def read_to(process: subprocess.Popen[str], text: str) -> str:
    """Read what the command says up to a line with this text."""
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if text in line:
            return said
    raise AssertionError(f"it never said {text}: {said}")


def test_a_run_that_is_cancelled_during_the_stop(tmp_path: Path, engine: Engine, web: Any) -> None:
    """The Engine goes on stopping the container, which ignores the request, and kills it; the undo waits."""
    web(IGNORES)
    was = state(engine)
    process = popen(tmp_path, LIFECYCLE, "-i", "container=web", "-i", "grace=2", DOCKER_HOST=engine.host)
    read_to(process, "snapshot/stop: running")
    until(lambda: "asked" in engine.docker("exec", "web", "ls", "/").split())
    started = engine.docker("inspect", "-f", "{{.State.StartedAt}}", "web")
    interrupt(process)
    done = finish(process)
    assert done.code == 4, done.err
    assert undone(done) == ["snapshot/stop"]
    assert state(engine) == was
    assert engine.docker("inspect", "-f", "{{.State.StartedAt}}", "web") != started


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize("moment", ["snapshot/stop: running", "trial: running"])
def test_an_engine_that_is_killed_and_comes_back(
    tmp_path: Path, engine: Engine, web: Any, moment: str
) -> None:
    """The run completes or is undone, and says which; the Engine has what that means."""
    web(ENDS_WELL)
    was = state(engine)
    process = popen(tmp_path, LIFECYCLE, "-i", "container=web", DOCKER_HOST=engine.host)
    read_to(process, moment)
    engine.kill()
    threading.Timer(1, engine.start).start()
    done = finish(process, 120)
    until(engine.ready)
    now = state(engine)
    if done.code == 0:
        assert done.json["status"] == "running"
        assert {"web-snapshots:1", "web-snapshots:latest"} <= {line.split()[0] for line in now["images"]}
        assert {**now, "images": was["images"]} == was
    else:
        assert done.code == 1, done.err  # undone, and nothing is left over
        assert failure(done).startswith("failed: ")
        assert now == was


def test_an_engine_that_is_not_there(tmp_path: Path) -> None:
    done = run(
        tmp_path, CHILD, "-i", "container=abc123", "-i", "image=snap:1", "-i", "tag=snap:latest",
        DOCKER_HOST="unix:///nope/docker.sock",
    )  # fmt: skip
    assert done.code == 1
    assert failure(done) == (
        "failed: inspect container abc123: no such file or directory"
        " (Docker Engine at unix:///nope/docker.sock) [EngineUnreachable]"
    )


# With the stand-in: as a user would test pipelines of their own.


@pytest.fixture
def fake() -> FakeDocker:
    fake = FakeDocker()
    fake.add_image("app:1")
    fake.add_container("abc123", "app:1")
    return fake


def bundle(name: str) -> model.Bundle:
    loaded = load(PIPELINES / name)
    assert loaded.bundle is not None, loaded.diagnostics
    return loaded.bundle


async def failed(pipelines: Pipelines, fake: FakeDocker, name: str, **inputs: Any) -> tuple[str, list[str]]:
    """Run a pipeline that fails on the stand-in; return the error, and what was undone."""
    async with pipelines.worker(*fake.activities()):
        handle = await pipelines.start(bundle(name), **inputs)
        with pytest.raises(WorkflowFailureError) as caught:
            await handle.result()
    error = caught.value.cause
    assert isinstance(error, ApplicationError)
    report = report_of(error)
    assert report is not None
    assert not report.dirty
    return f"{error.message} [{error.type}]", [record.path for record in report.undo]


FULL = {"repository": "snaps", "version": "1", "check": ["true"], "then": "restart", "grace": 0}


async def test_the_order_of_calls(pipelines: Pipelines, fake: FakeDocker) -> None:
    async with pipelines.worker(*fake.activities()):
        handle = await pipelines.start(bundle("container-lifecycle.yaml"), container="abc123", **FULL)
        output = await result_of(handle)
    assert output == {
        "container": "abc123", "snapshot": "snaps:1", "id": fake.tags["snaps:1"], "status": "running"
    }  # fmt: skip
    assert fake.changes == [
        "stop abc123",
        "commit abc123",
        "tag snaps:1",
        "create_container_from_config abc123-trial",
        "start abc123-trial",
        "exec_start abc123-trial",
        "remove_container abc123-trial",
        "start abc123",
        "exec_start abc123",
    ]
    assert fake.states == {"abc123": "running"}


@pytest.mark.parametrize(
    ("operation", "error", "order", "changes"),
    [
        ("stop", "stop container abc123: connection refused (Docker Engine) [EngineUnreachable]", [], []),
        (
            "commit",
            "commit container abc123 to snaps:1: connection refused (Docker Engine) [EngineUnreachable]",
            ["snapshot/stop"],
            ["start abc123"],
        ),
        (
            "tag",
            "tag snaps:1 as snaps:latest: connection refused (Docker Engine) [EngineUnreachable]",
            ["snapshot/commit", "snapshot/stop"],
            ["remove_image snaps:1", "start abc123"],
        ),
    ],
)
async def test_the_error_names_every_level_letter_by_letter(
    pipelines: Pipelines, fake: FakeDocker, operation: str, error: str, order: list[str], changes: list[str]
) -> None:
    before = (fake.states, fake.tags)
    fake.fail(operation, with_=unreachable(), times=4)
    told = await failed(pipelines, fake, "container-lifecycle.yaml", container="abc123", **FULL)
    assert told == (f"stop-and-snapshot for container abc123: {error}", order)
    last = max(i for i, line in enumerate(fake.changes) if line.split()[0] == operation)
    assert fake.changes[last + 1 :] == changes
    assert (fake.states, fake.tags) == before


@pytest.mark.parametrize(
    ("operation", "container", "error"),
    [
        ("start", "abc123-trial", "start container abc123-trial: cannot start container abc123-trial"),
        (
            "exec_start",
            "abc123-trial",
            "check container abc123-trial: cannot run true in container abc123-trial",
        ),
        (
            "remove_container",
            "abc123-trial",
            "remove container abc123-trial: cannot remove container abc123-trial",
        ),
        ("exec_start", "abc123", "check container abc123: cannot run true in container abc123"),
    ],
)
async def test_every_later_stage_is_undone_down_to_the_stop(
    pipelines: Pipelines, fake: FakeDocker, operation: str, container: str, error: str
) -> None:
    before = (fake.states, fake.tags)
    # A retry of exec looks first for what the attempt before has left.
    times = 8 if operation == "exec_start" else 4
    fake.fail(operation, container=container, with_=answer(500, "no space left on device"), times=times)
    message, order = await failed(pipelines, fake, "container-lifecycle.yaml", container="abc123", **FULL)
    assert message == f"{error}: no space left on device [DockerError]"
    assert order[-3:] == ["snapshot/tag", "snapshot/commit", "snapshot/stop"]
    assert (fake.states, fake.tags) == before


@pytest.mark.parametrize("operation", ["stop", "commit", "tag", "create_container_from_config", "start"])
async def test_an_answer_that_gets_lost_is_made_up_by_the_retry(
    pipelines: Pipelines, fake: FakeDocker, operation: str
) -> None:
    """The work was done, and is neither done twice nor left over."""
    fake.fail(operation, with_=broken(), after=True)
    async with pipelines.worker(*fake.activities()):
        handle = await pipelines.start(bundle("container-lifecycle.yaml"), container="abc123", **FULL)
        await handle.result()
    assert fake.states == {"abc123": "running"}
    assert set(fake.tags) == {"app:1", "snaps:1", "snaps:latest"}
    assert len(fake.images()) == 2


@pytest.mark.parametrize(
    ("operation", "target", "look", "order"),
    [
        ("stop", "abc123", "inspect_container", ["snapshot/stop"]),
        ("commit", "abc123", "inspect_container", ["snapshot/commit", "snapshot/stop"]),
        ("tag", "snaps:1", "inspect_image", ["snapshot/tag", "snapshot/commit", "snapshot/stop"]),
    ],
)
async def test_an_outcome_that_nobody_knows_is_undone(
    pipelines: Pipelines, fake: FakeDocker, operation: str, target: str, look: str, order: list[str]
) -> None:
    """The answer gets lost, and then the Engine is out of reach: the work was done, and is undone."""
    fake.add_image("old:1")
    fake.tag("old:1", "snaps", "latest")
    before = (fake.states, fake.tags)
    fake.changes.clear()
    fake.fail(operation, with_=broken(), after=True)

    async def cut_off() -> None:  # the next attempt comes half a second later, or a second
        while f"{operation} {target}" not in fake.changes:
            await asyncio.sleep(0.01)
        fake.fail(look, with_=unreachable(), times=3 if operation == "tag" else 2)

    cutting = asyncio.ensure_future(cut_off())
    message, undone = await failed(pipelines, fake, "container-lifecycle.yaml", container="abc123", **FULL)
    await cutting
    assert message.endswith(": connection refused (Docker Engine) [EngineUnreachable]")
    assert undone == order
    assert (fake.states, fake.tags) == before
