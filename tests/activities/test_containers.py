"""The container family: each test runs on a real Engine and on the stand-in, which so is proven too."""

import ipaddress
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pipeline_runner.activities.docker.engine import KEY_LABEL, WORKFLOW_LABEL
from tests.activities.conftest import KEY
from tests.activities.docker_world import FOREVER, World, failure, fake_world, told, world_of
from tests.services import IMAGE

Run = Callable[..., Any]


@pytest.fixture(params=["fake", "real"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    with world_of(request) as world:
        yield world


def test_run_starts_a_container_with_the_steps_labels(world: World, run: Run, key: str) -> None:
    result = run(
        world.containers.run,
        image=IMAGE,
        name="web",
        command=FOREVER,
        env={"A": 1, "B": True},
        labels={"tier": "front"},
        settle="0s",
    )
    found = world.api.inspect_container("web")
    assert (result.id, result.name, result.image, result.created) == (found["Id"], "web", IMAGE, True)
    assert found["State"]["Running"]
    assert {"A=1", "B=true"} <= set(found["Config"]["Env"])
    labels = found["Config"]["Labels"]
    assert labels == {"tier": "front", KEY_LABEL: KEY, WORKFLOW_LABEL: labels[WORKFLOW_LABEL]}


def test_outside_a_pipeline_there_are_no_labels(world: World, run: Run) -> None:
    run(world.containers.run, image=IMAGE, name="web", command=FOREVER, settle="0s")
    assert not world.api.inspect_container("web")["Config"]["Labels"]


def test_a_container_without_a_name_gets_one(world: World, run: Run) -> None:
    result = run(world.containers.run, image=IMAGE, command=FOREVER, settle="0s")
    assert world.states() == {result.name: "running"}


@pytest.mark.parametrize("started", [True, False])
def test_a_retry_takes_over_what_the_attempt_before_has_made(
    world: World, run: Run, key: str, started: bool
) -> None:
    made = world.add("web", running=started, Labels={KEY_LABEL: KEY})
    result = run(world.containers.run, image=IMAGE, name="web", command=FOREVER, settle="100ms")
    assert (result.id, result.created) == (made, False)
    assert world.states() == {"web": "running"}


def test_a_retry_finds_that_it_has_exited_and_removes_it(world: World, run: Run, key: str) -> None:
    world.add("web", Labels={KEY_LABEL: KEY})
    world.api.stop("web", timeout=0)
    error = failure(run, world.containers.run, image=IMAGE, name="web", command=FOREVER)
    assert told(error) == ("container web exited with code 137 within 1s", "ContainerExited", True)
    assert world.states() == {}


def test_a_name_that_is_taken_is_refused(world: World, run: Run, key: str) -> None:
    world.add("web", Labels={KEY_LABEL: "f" * 32})
    error = failure(run, world.containers.run, image=IMAGE, name="web", command=FOREVER)
    assert told(error) == ("there is another container named web", "NameTaken", False)
    assert world.states() == {"web": "running"}


@pytest.mark.parametrize("code", [0, 3])
def test_a_container_that_exits_at_once_is_an_error_and_removed(world: World, run: Run, code: int) -> None:
    program = world.program(
        ["sh", "-c", f"echo warming up; echo no config >&2; exit {code}"],
        exit_code=code,
        stdout="warming up\n",
        stderr="no config\n",
    )
    error = failure(run, world.containers.run, image=IMAGE, name="web", command=program)
    assert told(error) == (
        f"container web exited with code {code} within 1s: no config",
        "ContainerExited",
        True,
    )
    (details,) = error.details
    assert details == {"exit_code": code, "stdout": "warming up\n", "stderr": "no config\n"}
    assert world.states() == {}


def test_one_that_is_restarted_over_and_over_is_one_that_exits(world: World, run: Run) -> None:
    program = world.program(["sh", "-c", "exit 1"], exit_code=1)
    error = failure(run, world.containers.run, image=IMAGE, name="web", command=program, restart="always")
    assert error.type == "ContainerExited"
    assert world.states() == {}


def test_a_program_that_is_missing_leaves_no_container(world: World, run: Run) -> None:
    program = world.program(["nope-nope"], missing=True)
    error = failure(run, world.containers.run, image=IMAGE, name="web", command=program)
    assert (error.type, error.non_retryable) == ("InvalidInput", True)
    assert error.message.startswith("cannot start container web: exec: ")
    assert error.message.endswith(": executable file not found in $PATH: unknown")
    assert world.states() == {}


def test_an_image_that_is_missing_is_named(world: World, run: Run) -> None:
    error = failure(run, world.containers.run, image="nope-nope:9", name="web", pull="never")
    assert told(error) == ("there is no image nope-nope:9", "ImageNotFound", False)


def test_networks_and_ports_are_in_the_output(world: World, run: Run) -> None:
    world.api.create_network("front")
    result = run(
        world.containers.run,
        image=IMAGE,
        name="web",
        command=FOREVER,
        network="front",
        aliases=["www"],
        ports={"8080": "127.0.0.1:", "53/udp": ""},
        settle="0s",
    )
    assert list(result.networks) == ["front"]
    assert ipaddress.ip_address(result.networks["front"]).is_private  # of a pool that is free
    assert sorted(result.ports) == ["53/udp", "8080/tcp"]
    host, _, port = result.ports["8080/tcp"].partition(":")
    assert (host, int(port) >= 1024) == ("127.0.0.1", True)


def test_a_port_that_is_taken_is_named_and_leaves_no_container(world: World, run: Run) -> None:
    """The first one goes on."""
    world.api.create_network("front")
    given = {"image": IMAGE, "command": FOREVER, "network": "front", "settle": "0s"}
    first = run(world.containers.run, name="one", ports={"80": "127.0.0.1:"}, **given)
    place = first.ports["80/tcp"]
    error = failure(run, world.containers.run, name="two", ports={"80": place}, **given)
    assert told(error) == (f"cannot start container two: the port {place} is taken", "PortTaken", True)
    assert world.states() == {"one": "running"}


def test_a_network_that_is_missing_leaves_no_container(world: World, run: Run) -> None:
    error = failure(run, world.containers.run, image=IMAGE, name="web", command=FOREVER, network="nope")
    assert told(error) == ("there is no network nope", "NetworkNotFound", False)
    assert world.states() == {}


def test_volumes_must_exist(world: World, run: Run) -> None:
    """The Engine would make one, and the undo would not know of it."""
    given = {
        "image": IMAGE,
        "name": "web",
        "command": FOREVER,
        "volumes": {"/data": "data:ro"},
        "settle": "0s",
    }
    error = failure(run, world.containers.run, **given)
    assert told(error) == ("there is no volume data", "VolumeNotFound", False)
    assert (world.states(), world.volume_names()) == ({}, set())
    world.api.create_volume("data")
    run(world.containers.run, **given)
    (mount,) = world.api.inspect_container("web")["HostConfig"]["Mounts"]
    assert (mount["Type"], mount["Source"], mount["Target"], mount["ReadOnly"]) == (
        "volume",
        "data",
        "/data",
        True,
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"image": "a/../b"}, None),
        ({"image": IMAGE, "settle": "5"}, None),
        ({"image": IMAGE, "ports": {"80": "here"}}, 'ports: "here" is not an address: write for example "127.0.0.1:8080"'),
        ({"image": IMAGE, "aliases": ["www"]}, "aliases require a network"),
        ({"image": IMAGE, "env": {"": "s3cret"}}, None),
        ({"image": IMAGE, "env": {"A": "s3cret\0"}}, "the environment contains a character that cannot be passed to a program"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_before_anything_is_done(
    run: Run, given: dict[str, Any], message: str | None
) -> None:
    world = fake_world()
    error = failure(run, world.containers.run, **given)
    assert (error.type, error.non_retryable) == ("InvalidInput", True)
    assert message is None or error.message == message
    assert "s3cret" not in error.message
    assert world.fake is not None
    assert world.fake.calls == []


def test_inspect_tells_what_there_is(world: World, run: Run) -> None:
    made = world.add("web", Labels={"tier": "front"})
    result = run(world.containers.inspect, container="web")
    assert (result.id, result.name, result.image) == (made, "web", IMAGE)
    assert result.image_id == world.tags()[IMAGE]
    assert (result.status, result.running, result.exit_code, result.health) == ("running", True, None, None)
    assert (result.labels, result.ports) == ({"tier": "front"}, {})
    assert result.created.endswith("Z")
    world.api.stop("web", timeout=0)
    result = run(world.containers.inspect, container=made[:12])
    assert (result.status, result.running, result.exit_code) == ("exited", False, 137)


@pytest.mark.parametrize("name", ["inspect", "start", "stop", "exec", "commit", "logs"])
def test_a_container_that_is_missing_is_named(world: World, run: Run, name: str) -> None:
    more: dict[str, dict[str, Any]] = {"exec": {"command": ["true"]}, "commit": {"image": "app:1"}}
    error = failure(run, getattr(world.containers, name), container="nope", **more.get(name, {}))
    assert told(error) == ("there is no container nope", "ContainerNotFound", False)


def test_stop_and_start(world: World, run: Run) -> None:
    made = world.add("web")
    result = run(world.containers.stop, container="web", grace="0s")
    assert (result.id, result.name, result.stopped, result.exit_code) == (made, "web", True, 137)
    assert world.states() == {"web": "exited"}
    assert run(world.containers.stop, container="web").stopped is False
    result = run(world.containers.start, container="web")
    assert (result.id, result.name, result.started) == (made, "web", True)
    assert world.states() == {"web": "running"}
    assert run(world.containers.start, container="web").started is False


def in_time(minutes: int) -> str:
    return (datetime.now(UTC) + timedelta(minutes=minutes)).isoformat().replace("+00:00", "Z")


def test_an_undo_starts_only_what_its_step_has_stopped(world: World, run: Run) -> None:
    """``changed`` is what the step said; if it said nothing, the time when it ended decides."""
    world.add("web", running=False)
    never = {"container": "web", "since": in_time(-1)}
    assert run(world.containers.start, **never).started is False
    world.api.start("web")
    world.api.stop("web", timeout=0)
    for given in ({"changed": False}, {"changed": False, "since": in_time(-1)}, {"since": in_time(1)}):
        assert run(world.containers.start, container="web", **given).started is False
        assert world.states()["web"] == "exited"
    assert run(world.containers.start, container="web", since=in_time(-1)).started is True
    world.api.stop("web", timeout=0)
    assert run(world.containers.start, container="web", changed=True, since=in_time(1)).started is True
    error = failure(run, world.containers.start, container="web", since="now")
    assert told(error) == ("since is not a time such as 2030-01-31T12:00:00Z", "InvalidInput", False)


def test_an_undo_stops_only_what_its_step_has_started(world: World, run: Run) -> None:
    world.add("web")
    for given in ({"changed": False}, {"since": in_time(1)}):
        assert run(world.containers.stop, container="web", grace="0s", **given).stopped is False
        assert world.states()["web"] == "running"
    assert run(world.containers.stop, container="web", grace="0s", since=in_time(-1)).stopped is True
    world.api.start("web")
    assert (
        run(world.containers.stop, container="web", grace="0s", changed=True, since=in_time(1)).stopped
        is True
    )


def test_start_watches_a_container_that_is_being_stopped(world: World, run: Run) -> None:
    """The undo of a stop that was cut off: the Engine goes on stopping."""
    world.add("web")
    threading.Timer(0.3, lambda: world.connect().stop("web", timeout=0)).start()
    result = run(world.containers.start, container="web", settle="10s")
    assert result.started is True
    assert world.states() == {"web": "running"}


def test_exec_gives_the_output_back(world: World, run: Run) -> None:
    world.add("web")
    program = world.program(
        ["sh", "-c", 'echo "out $A"; echo err >&2'], exit_code=0, stdout="out 1\n", stderr="err\n"
    )
    result = run(world.containers.exec, container="web", command=program, env={"A": 1})
    assert (result.exit_code, result.stdout, result.stderr, result.truncated) == (
        0,
        "out 1\n",
        "err\n",
        False,
    )


def test_exec_fails_with_another_exit_code(world: World, run: Run) -> None:
    world.add("web")
    program = world.program(
        ["sh", "-c", "echo 'disk  on fire' >&2; exit 3"], exit_code=3, stderr="disk  on fire\n"
    )
    error = failure(run, world.containers.exec, container="web", command=program)
    assert told(error) == ("exit code 3: disk on fire", "CommandFailed", True)
    assert error.details == ({"exit_code": 3, "stdout": "", "stderr": "disk  on fire\n"},)


def test_exec_of_a_program_that_is_missing(world: World, run: Run) -> None:
    world.add("web")
    program = world.program(["nope-nope"], missing=True)
    error = failure(run, world.containers.exec, container="web", command=program)
    assert told(error) == ("there is no program nope-nope in container web", "CommandNotFound", False)


def test_exec_in_a_container_that_does_not_run(world: World, run: Run) -> None:
    made = world.add("web", running=False)
    error = failure(run, world.containers.exec, container="web", command=["true"])
    assert told(error) == (
        f"cannot run true in container web: Container {made} is not running", "DockerError", True
    )  # fmt: skip


def test_commit_makes_an_image_with_the_key(world: World, run: Run, key: str) -> None:
    world.add("web", Labels={KEY_LABEL: "f" * 32, "tier": "front"})
    result = run(world.containers.commit, container="web", image="snap", message="before", author="Ada")
    assert (result.image, result.created) == ("snap:latest", True)
    found = world.api.inspect_image("snap:latest")
    assert found["Id"] == result.id
    assert (found["Config"]["Labels"][KEY_LABEL], found["Config"]["Labels"]["tier"]) == (KEY, "front")


def test_a_retry_of_commit_takes_the_image_that_is_there(world: World, run: Run, key: str) -> None:
    world.add("web")
    made = world.api.commit("web", changes=[f'LABEL {KEY_LABEL}="{KEY}"'])["Id"]
    for _ in range(2):
        result = run(world.containers.commit, container="web", image="snap:1")
        assert (result.id, result.created) == (made, False)
        assert world.tags()["snap:1"] == made


def test_commit_takes_no_tag_away(world: World, run: Run, key: str) -> None:
    world.add("web")
    before = world.image_ids()
    error = failure(run, world.containers.commit, container="web", image=IMAGE)
    assert told(error) == (f"the tag {IMAGE} names another image", "TagTaken", False)
    assert world.image_ids() == before


def test_remove_takes_what_is_named_and_gone_is_fine(world: World, run: Run) -> None:
    world.add("web")
    error = failure(run, world.containers.remove, container="web")
    assert (error.type, error.non_retryable) == ("DockerError", False)
    assert error.message.startswith("cannot remove container web: You cannot remove a running container ")
    assert run(world.containers.remove, container="web", force=True).removed is True
    assert run(world.containers.remove, container="web", force=True).removed is False
    assert world.states() == {}


def test_remove_by_key_touches_nothing_else(world: World, run: Run) -> None:
    other = "f" * 32
    world.add("mine", Labels={KEY_LABEL: KEY})
    world.add("theirs", Labels={KEY_LABEL: other})
    world.add("plain")
    assert run(world.containers.remove, container="theirs", key=KEY).removed is False
    assert run(world.containers.remove, container="plain", key=KEY).removed is False
    assert run(world.containers.remove, key=KEY).removed is True
    assert run(world.containers.remove, key=KEY).removed is False
    assert world.states() == {"theirs": "running", "plain": "running"}
    assert run(world.containers.remove, container="theirs", key=other).removed is True


@pytest.mark.parametrize("family", ["containers", "images", "networks", "volumes"])
def test_remove_of_nothing_is_refused(run: Run, family: str) -> None:
    error = failure(run, getattr(fake_world(), family).remove)
    assert told(error) == (
        f"specify the {family[:-1]} by its name, by the key of the step that created it, or by both",
        "InvalidInput",
        False,
    )


def test_logs_give_the_end(world: World, run: Run) -> None:
    command = ["sh", "-c", "echo one; echo two; sleep 0.3; echo three >&2"]
    program = world.program(command, exit_code=0, stdout="one\ntwo\n", stderr="three\n")
    world.add("web", Cmd=program)
    world_waits_for_exit(world, "web")
    result = run(world.containers.logs, container="web")
    assert (result.stdout, result.stderr, result.truncated) == ("one\ntwo\n", "three\n", False)
    result = run(world.containers.logs, container="web", tail=2)
    assert (result.stdout, result.stderr) == ("two\n", "three\n")


def world_waits_for_exit(world: World, name: str) -> None:
    end = time.monotonic() + 10
    while world.api.inspect_container(name)["State"]["Running"]:
        assert time.monotonic() < end
        time.sleep(0.02)


def test_what_others_made_of_it_stays(world: World, run: Run, key: str) -> None:
    """Labels go from a container to an image of it, and on to that image's containers."""
    run(world.containers.run, image=IMAGE, name="web", command=FOREVER, settle="0s")
    world.api.commit("web", repository="backup", tag="1")
    other = world.api.create_container_from_config(
        {"Image": "backup:1", "Cmd": FOREVER, "Labels": {}}, "other"
    )
    assert world.api.inspect_container(other["Id"])["Config"]["Labels"][KEY_LABEL] == KEY
    assert not run(world.containers.remove, container="other", key=KEY).removed
    assert run(world.containers.remove, key=KEY).removed
    assert set(world.states()) == {"other"}
    assert "backup:1" in world.tags()
    again = run(world.containers.run, image=IMAGE, name="web", command=FOREVER, settle="0s")
    assert again.created
    assert set(world.states()) == {"other", "web"}


def test_an_image_that_others_built_on_it_stays(world: World, run: Run, key: str) -> None:
    world.add("web")
    made = run(world.containers.commit, container="web", image="snap:1")
    base = world.api.create_container_from_config({"Image": "snap:1", "Cmd": FOREVER, "Labels": {}}, "base")
    world.api.commit(base["Id"], repository="precious", tag="1")
    world.api.remove_container(base["Id"], force=True)
    assert run(world.containers.commit, container="web", image="snap:1").id == made.id
    error = failure(run, world.images.remove, key=KEY)
    assert "has dependent child images" in error.message
    assert {"precious:1", "snap:1"} <= set(world.tags())
