"""The container family where it is rough: cancellation, a lost Engine, a port of somebody else.

These need the real Engine; what only needs a moment held still is in ``test_fake_docker.py``.
"""

import asyncio
import dataclasses
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from pipeline_runner.activities.docker import container_exec
from pipeline_runner.activities.docker.container import Containers
from pipeline_runner.activities.docker.engine import KEY_LABEL
from pipeline_runner.activities.docker.image import Images
from pipeline_runner.activities.toolkit import heartbeat
from pipeline_runner.core.errors import UNCERTAIN
from tests.activities.conftest import KEY
from tests.activities.docker_world import FOREVER, World, attempt, failure, real_world, told
from tests.activities.registry import registry
from tests.services import IMAGE, Engine

Run = Callable[..., Any]
NewEnvironment = Callable[..., ActivityEnvironment]

SOON = 15.0
"""Seconds within which a cancelled activity has ended on a busy machine; its work would take far longer."""


@pytest.fixture
def world(engine: Engine) -> Iterator[World]:
    with real_world(engine) as world:
        yield world


@pytest.fixture
def back(engine: Engine) -> Iterator[Engine]:
    """An Engine that may be killed, and is up again after the test."""
    yield engine
    if not engine.ready():
        engine.kill()
        engine.start()


def until(what: str, condition: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def processes(engine: Engine, name: str) -> list[str]:
    """Return the command lines in a container."""
    return [line.strip() for line in engine.docker("exec", name, "ps", "-o", "args").splitlines()[1:]]


@asynccontextmanager
async def under_way(
    env: ActivityEnvironment, activity: Any, begun: Callable[[], bool], **parameters: Any
) -> AsyncIterator["asyncio.Task[Any]"]:
    """Start an activity, and wait until its effect shows."""
    task = asyncio.ensure_future(attempt(env, activity, **parameters))
    await asyncio.to_thread(until, "it has not begun", begun)
    yield task


def cancelled(env: ActivityEnvironment, activity: Any, begun: Callable[[], bool], **parameters: Any) -> float:
    """Cancel an activity when its effect shows; return the seconds that it took to end."""

    async def scenario() -> float:
        async with under_way(env, activity, begun, **parameters) as task:
            before = time.monotonic()
            env.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return time.monotonic() - before

    return asyncio.run(scenario())


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have an exec wait long before it kills a command that does not end when it is asked to."""
    monkeypatch.setattr(container_exec, "GRACE", 2 * SOON)


@pytest.mark.usefixtures("patient")
def test_cancelled_exec_leaves_no_process(world: World, engine: Engine, environment: NewEnvironment) -> None:
    world.add("web")
    command = ["sh", "-c", "sleep 501 & sleep 502; true"]

    def begun() -> bool:
        return {"sleep 501", "sleep 502"} <= set(processes(engine, "web"))

    took = cancelled(environment(), world.containers.exec, begun, container="web", command=command)
    assert took < SOON
    until("the command goes on", lambda: not any("50" in line for line in processes(engine, "web")), 2)


@pytest.mark.usefixtures("patient")
def test_cancelled_exec_of_another_user(world: World, engine: Engine, environment: NewEnvironment) -> None:
    world.add("web")
    took = cancelled(
        environment(),
        world.containers.exec,
        lambda: "sleep 503" in processes(engine, "web"),
        container="web",
        command=["sleep", "503"],
        user="1000:1000",
    )
    assert took < SOON
    assert "sleep 503" not in processes(engine, "web")


def test_a_command_that_ignores_the_request_is_killed(
    world: World, engine: Engine, environment: NewEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline_runner.activities.docker.container_exec.GRACE", 0.3)
    world.add("web")
    script = "trap '' TERM; while :; do sleep 0.1; done"
    begun = f"sh -c {script}"
    cancelled(
        environment(),
        world.containers.exec,
        lambda: begun in processes(engine, "web"),
        container="web",
        command=["sh", "-c", script],
    )
    assert begun not in processes(engine, "web")


def test_a_command_that_cannot_be_ended_is_told(
    world: World, engine: Engine, environment: NewEnvironment
) -> None:
    """Without ``sh`` in the container the mark cannot be looked for."""
    world.add("web")
    engine.docker("exec", "web", "busybox", "rm", "/bin/sh")
    env = environment()

    async def scenario() -> ApplicationError:
        begun = lambda: "sleep 504" in processes(engine, "web")  # noqa: E731
        parameters: dict[str, Any] = {"container": "web", "command": ["sleep", "504"]}
        async with under_way(env, world.containers.exec, begun, **parameters) as task:
            env.cancel()
            with pytest.raises(ApplicationError) as caught:
                await task
            return caught.value

    error = asyncio.run(scenario())
    assert (error.type, error.details) == ("CommandLeftRunning", (UNCERTAIN,))
    assert error.message.startswith(
        "sleep is still running in container web: cannot stop sleep in container web: "
    )
    assert "sleep 504" in processes(engine, "web")


def test_a_retry_ends_what_the_attempt_before_left(
    world: World, engine: Engine, environment: NewEnvironment, key: str
) -> None:
    """A worker killed with -9 cannot clean up."""
    world.add("web")
    engine.docker("exec", "-d", "-e", f"PIPELINE_RUNNER_EXEC={KEY}", "web", "sleep", "505")
    until("it has not begun", lambda: "sleep 505" in processes(engine, "web"))
    env = environment()
    env.info = dataclasses.replace(env.info, attempt=2)
    asyncio.run(attempt(env, world.containers.exec, container="web", command=["true"]))
    until("it goes on", lambda: "sleep 505" not in processes(engine, "web"), 2)


def test_exec_drops_too_much_output_and_says_so(world: World, run: Run) -> None:
    world.add("web")
    script = "yes | head -c 2000000; yes no | head -c 2000000 >&2; echo end >&2"
    result = run(world.containers.exec, container="web", command=["sh", "-c", script])
    assert result.truncated
    assert 700_000 < len(result.stdout) <= 768 * 1024
    assert result.stderr.endswith("end\n")


def test_exec_is_not_kept_by_what_it_leaves_behind(world: World, run: Run) -> None:
    world.add("web")
    begin = time.monotonic()
    run(world.containers.exec, container="web", command=["sh", "-c", "sleep 30 & echo done"])
    assert time.monotonic() - begin < 10


def test_exec_says_what_cannot_be_started(world: World, run: Run) -> None:
    world.add("web")
    cases: list[tuple[dict[str, Any], str, bool]] = [
        ({"command": ["/etc/hostname"]}, "CommandNotExecutable", True),
        ({"command": ["pwd"], "working_dir": "/nope"}, "BadWorkingDirectory", True),
        ({"command": ["pwd"], "user": "nobody-here"}, "InvalidInput", True),
        ({"command": ["/bin/nope"]}, "CommandNotFound", True),
    ]
    for given, error_type, final in cases:
        error = failure(run, world.containers.exec, container="web", **given)
        assert (error.type, error.non_retryable) == (error_type, final), error.message


def test_cancelled_stop_ends_at_once_and_its_undo_starts_again(
    world: World, engine: Engine, environment: NewEnvironment, run: Run
) -> None:
    """The Engine goes on stopping for the grace: three seconds, as ``sleep`` ignores the request."""
    made = world.add("web", Cmd=["sh", "-c", "trap 'touch /asked' TERM; while :; do sleep 0.1; done"])

    def begun() -> bool:
        return "asked" in engine.docker("exec", "web", "ls", "/").split()

    assert cancelled(environment(), world.containers.stop, begun, container="web", grace="3s") < 1
    assert world.states() == {"web": "running"}
    result = run(world.containers.start, container="web", settle="6s")
    assert (result.id, result.started) == (made, True)
    assert world.states() == {"web": "running"}


def test_cancelled_commit_ends_at_once_and_leaves_no_image(
    world: World, engine: Engine, environment: NewEnvironment, run: Run, key: str
) -> None:
    world.add("web")
    engine.docker("exec", "web", "dd", "if=/dev/urandom", "of=/big", "bs=1048576", "count=300")
    before = world.image_ids()

    def begun() -> bool:
        return bool(world.api.inspect_container("web")["State"]["Paused"])

    took = cancelled(environment(), world.containers.commit, begun, container="web", image="snap:1")
    assert took < SOON
    run(world.images.remove, key=KEY)  # the undo: waits until the Engine is done
    assert world.image_ids() == before
    assert world.states() == {"web": "running"}


def test_cancelled_run_is_undone_by_its_key(
    world: World, environment: NewEnvironment, run: Run, key: str
) -> None:
    given: dict[str, Any] = {"image": IMAGE, "name": "web", "command": FOREVER, "settle": "1m"}
    took = cancelled(
        environment(), world.containers.run, lambda: world.states() == {"web": "running"}, **given
    )
    assert took < SOON
    assert run(world.containers.remove, key=KEY).removed is True
    assert world.states() == {}


def test_a_port_of_another_program_is_taken_too(world: World, run: Run) -> None:
    world.api.create_network("front")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        place = f"127.0.0.1:{other.getsockname()[1]}"
        error = failure(
            run,
            world.containers.run,
            image=IMAGE,
            name="web",
            command=FOREVER,
            network="front",
            ports={"80": place},
        )
    assert told(error) == (f"cannot start container web: the port {place} is taken", "PortTaken", True)
    assert world.states() == {}


def test_a_missing_image_is_pulled_and_tells_how_far_it_is(
    world: World, environment: NewEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "_OFTEN", 0)
    beats: list[Any] = []
    env = environment()
    env.on_heartbeat = lambda *details: beats.extend(details)
    with registry() as address:
        given = {"image": f"{address}/app:1", "name": "web", "settle": "0s"}
        asyncio.run(attempt(env, world.containers.run, **given))
        assert world.states() == {"web": "running"}
        assert f"{address}/app:1" in world.tags()
        assert {"pulling", "bytes", "of"} in [set(beat) for beat in beats]
        for name in ("app:2", "nope:1"):
            image = f"{address}/{name}"
            with pytest.raises(ApplicationError) as caught:
                asyncio.run(attempt(environment(), world.containers.run, image=image))
            assert (caught.value.type, caught.value.non_retryable) == ("ImageNotFound", True)
            assert caught.value.message.startswith(f"cannot pull image {image}: manifest")
    with pytest.raises(ApplicationError) as caught:
        asyncio.run(attempt(environment(), world.containers.run, **given, pull="always"))
    assert (caught.value.type, caught.value.non_retryable) == ("DockerError", False)
    assert caught.value.message.endswith("connection refused")


def test_an_engine_that_is_not_there(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the environment, as Docker's own command does."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        cases = {
            "unix:///nope/docker.sock": "no such file or directory",
            f"tcp://127.0.0.1:{closed.getsockname()[1]}": "connection refused",
        }
        for host, reason in cases.items():
            monkeypatch.setenv("DOCKER_HOST", host)
            error = failure(run, Containers().stop, container="web")
            assert told(error) == (f"{reason} (Docker Engine at {host})", "EngineUnreachable", True)
            assert error.details == ()


def test_the_environment_names_the_engine(
    world: World, engine: Engine, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", engine.host)
    assert run(Images().inspect, image=IMAGE).tags == [IMAGE]


def test_without_the_package_the_error_says_what_to_install(
    run: Run, environment: NewEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline_runner.activities.catalogue.extras.find_spec", lambda _: None)
    env = environment()
    env.info = dataclasses.replace(env.info, activity_type="container.stop")
    with pytest.raises(ApplicationError) as caught:
        asyncio.run(attempt(env, Containers().stop, container="web"))
    assert told(caught.value) == (
        '"container.stop" needs the Python package "docker": pip install "pipeline-runner[containers]"',
        "MissingExtra",
        False,
    )


def test_the_modules_need_no_docker_to_be_imported() -> None:
    """And a start of the command does not pay for it."""
    names = ", ".join(
        f"pipeline_runner.activities.docker.{n}" for n in ("container", "image", "network", "volume")
    )
    code = f"import sys, {names}; print([m for m in ('docker', 'requests') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_an_engine_killed_during_a_stop_and_an_exec(
    world: World, back: Engine, environment: NewEnvironment, run: Run, key: str
) -> None:
    """Both calls end at once and say that nobody knows; when the Engine is back, a retry works."""
    made = world.add("web", Labels={KEY_LABEL: KEY})

    async def both() -> list[ApplicationError]:
        stop = attempt(environment(), world.containers.stop, container="web", grace="60s")
        execute = attempt(environment(), world.containers.exec, container="web", command=["sleep", "506"])
        tasks = [asyncio.ensure_future(one) for one in (stop, execute)]
        await asyncio.to_thread(until, "begun", lambda: "sleep 506" in processes(back, "web"))
        begin = time.monotonic()
        await asyncio.to_thread(back.kill)
        errors = await asyncio.gather(*tasks, return_exceptions=True)
        assert time.monotonic() - begin < 5
        assert all(isinstance(error, ApplicationError) for error in errors), errors
        return [error for error in errors if isinstance(error, ApplicationError)]

    for error in asyncio.run(both()):
        assert (error.type, error.non_retryable, error.details) == ("EngineUnreachable", False, (UNCERTAIN,))
    error = failure(run, world.containers.stop, container="web")
    assert (error.type, error.details) == ("EngineUnreachable", ())
    back.start()
    result = run(world.containers.stop, container="web", grace="0s")  # the same instance connects anew
    assert result.id == made
    assert run(world.containers.start, container="web").started is True
    assert run(world.containers.exec, container="web", command=["echo", "hi"]).stdout == "hi\n"
    assert run(world.containers.remove, key=KEY).removed is True
