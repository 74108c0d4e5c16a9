"""Images, networks and volumes: each test runs on a real Engine and on the stand-in."""

import asyncio
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from temporalio.testing import ActivityEnvironment

from pipeline_runner.activities.docker.engine import KEY_LABEL
from pipeline_runner.activities.toolkit.context import set_undone_outcome
from tests.activities.conftest import KEY
from tests.activities.docker_world import World, attempt, failure, fake_world, told, world_of
from tests.services import IMAGE

Run = Callable[..., Any]
OTHER = "f" * 32
MINE = {KEY_LABEL: KEY}


@pytest.fixture(params=["fake", "real"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    with world_of(request) as world:
        yield world


def snapshot(world: World, name: str, **labels: str) -> str:
    """Make an image that differs from all others."""
    if "web" not in world.states():
        world.add("web", running=False)
    repository, _, tag = name.partition(":")
    changes = [f'LABEL {label}="{value}"' for label, value in labels.items()]
    made: str = world.api.commit("web", repository=repository, tag=tag, changes=changes)["Id"]
    return made


def again(activity: Any, details: Any, **parameters: Any) -> Any:
    """Run an activity as the second attempt, after one that remembered these details."""
    env = ActivityEnvironment()
    env.info = dataclasses.replace(env.info, attempt=2, heartbeat_details=[details])
    return asyncio.run(attempt(env, activity, **parameters))


def test_inspect_image(world: World, run: Run) -> None:
    made = snapshot(world, "app:1", tier="front")
    result = run(world.images.inspect, image="app:1")
    assert (result.id, result.tags, result.labels) == (made, ["app:1"], {"tier": "front"})
    assert result.created.endswith("Z")
    assert result.size > 0
    assert run(world.images.inspect, image=made).id == made
    error = failure(run, world.images.inspect, image="app:2")
    assert told(error) == ("there is no image app:2", "ImageNotFound", False)
    assert run(world.images.inspect, image="app:2", optional=True).id is None


def test_tag(world: World, run: Run) -> None:
    image = world.tags()[IMAGE]
    for before in (None, image):  # again is fine
        result = run(world.images.tag, image=IMAGE, tag="app")
        assert (result.id, result.tag, result.replaced) == (image, "app:latest", before)
    assert world.tags() == {IMAGE: image, "app:latest": image}


def test_a_tag_is_taken_from_another_image_only_with_replace(world: World, run: Run) -> None:
    made = snapshot(world, "app:1")
    image = world.tags()[IMAGE]
    error = failure(run, world.images.tag, image=IMAGE, tag="app:1")
    assert told(error) == ("the tag app:1 names another image", "TagTaken", False)
    assert world.tags()["app:1"] == made
    result = run(world.images.tag, image=IMAGE, tag="app:1", replace=True)
    assert (result.id, result.replaced) == (image, made)
    # An attempt before this one had moved it already, and remembered from where.
    result = again(world.images.tag, {"replaced": made}, image=IMAGE, tag="app:1", replace=True)
    assert (result.id, result.replaced) == (image, made)


def test_tag_of_an_image_that_is_missing(world: World, run: Run) -> None:
    error = failure(run, world.images.tag, image="nope:1", tag="app:1")
    assert told(error) == ("there is no image nope:1", "ImageNotFound", False)


def test_a_tag_that_was_moved_is_given_back(world: World, run: Run) -> None:
    old, image = snapshot(world, "app:1"), world.tags()[IMAGE]
    run(world.images.tag, image=IMAGE, tag="app:1", replace=True)
    undo = {"image": "app:1", "of": image, "restore": old}
    assert run(world.images.remove, **undo).removed is True
    assert world.tags() == {IMAGE: image, "app:1": old}
    # It is not of that image any more: nothing to undo.
    assert run(world.images.remove, **undo).removed is False
    assert world.tags() == {IMAGE: image, "app:1": old}


def test_a_tag_goes_if_the_image_that_had_it_is_gone(world: World, run: Run) -> None:
    run(world.images.tag, image=IMAGE, tag="app:1")
    result = run(world.images.remove, image="app:1", of=IMAGE, restore="sha256:" + "0" * 64)
    assert result.removed is True
    assert set(world.tags()) == {IMAGE}


def test_a_tag_that_cannot_be_given_back_is_not_undone(world: World, run: Run) -> None:
    """The step completed, so the tag did name the other image."""
    run(world.images.tag, image=IMAGE, tag="app:1")
    gone = "sha256:" + "0" * 64
    set_undone_outcome("completed")
    try:
        error = failure(run, world.images.remove, image="app:1", of=IMAGE, restore=gone)
    finally:
        set_undone_outcome(None)
    assert error.type == "ImageNotFound"
    assert set(world.tags()) == {IMAGE, "app:1"}


@pytest.mark.parametrize("more", [{"of": IMAGE}, {"restore": IMAGE}])
def test_what_is_of_a_tag_does_not_go_with_a_key(run: Run, more: dict[str, str]) -> None:
    error = failure(run, fake_world().images.remove, key=KEY, **more)
    assert told(error) == ("of and restore are not allowed with a key", "InvalidInput", False)


def test_remove_takes_a_tag_or_the_image(world: World, run: Run) -> None:
    run(world.images.tag, image=IMAGE, tag="app:1")
    assert run(world.images.remove, image="app:1").removed is True
    assert run(world.images.remove, image="app:1").removed is False
    assert set(world.tags()) == {IMAGE}
    snapshot(world, "app:2")
    assert len(world.image_ids()) == 2
    assert run(world.images.remove, image="app:2", of=IMAGE).removed is False
    assert run(world.images.remove, image="app:2").removed is True
    assert len(world.image_ids()) == 1


def test_an_image_in_use_is_not_removed(world: World, run: Run) -> None:
    snapshot(world, "app:1")
    world.add("user", Image="app:1")
    error = failure(run, world.images.remove, image="app:1")
    assert (error.type, error.non_retryable) == ("DockerError", False)
    assert error.message.startswith("cannot remove image app:1: conflict: unable to ")
    assert "app:1" in world.tags()


def test_remove_by_key_takes_the_image_with_all_its_tags(world: World, run: Run) -> None:
    made = snapshot(world, "app:1", **MINE)
    snapshot(world, "other:1", **{KEY_LABEL: OTHER})
    run(world.images.tag, image="app:1", tag="app:2")
    assert run(world.images.remove, image="other:1", key=KEY).removed is False
    assert run(world.images.remove, key=KEY).removed is True
    assert run(world.images.remove, key=KEY).removed is False
    assert set(world.tags()) == {IMAGE, "other:1"}
    assert made not in world.image_ids()


def test_an_undo_leaves_the_untagged_image_that_it_was_made_from(world: World, run: Run, key: str) -> None:
    """The Engine would remove it as well."""
    base = snapshot(world, "base:1")
    world.add("child", running=False, Image="base:1")
    run(world.containers.commit, container="child", image="app:1")
    world.api.remove_container("child")
    image = world.tags()[IMAGE]
    world.api.tag(image, "base", "1", force=True)  # now it has no tag
    assert run(world.images.remove, key=KEY).removed is True
    assert world.image_ids() == {base, image}


def test_create_network(world: World, run: Run, key: str) -> None:
    given = {"name": "front", "internal": True, "labels": {"n": 1}, "subnet": "172.31.7.0/24"}
    made = run(world.networks.create, **given)
    found = world.api.inspect_network("front")
    assert (made.id, made.name, made.created) == (found["Id"], "front", True)
    assert (found["Labels"]["n"], found["Labels"][KEY_LABEL], found["Internal"]) == ("1", KEY, True)
    assert run(world.networks.create, **given) == dataclasses.replace(made, created=False)


def test_a_network_of_somebody_else_is_refused(world: World, run: Run, key: str) -> None:
    world.api.create_network("front2")
    world.api.create_network("front", labels={KEY_LABEL: OTHER})
    error = failure(run, world.networks.create, name="front")
    assert told(error) == ("there is another network named front", "NameTaken", False)
    assert run(world.networks.create, name="fron").created is True  # a part of a name is another name


def test_outside_a_pipeline_nothing_is_ones_own(world: World, run: Run) -> None:
    run(world.networks.create, name="front")
    run(world.volumes.create, name="data")
    assert failure(run, world.networks.create, name="front").type == "NameTaken"
    assert failure(run, world.volumes.create, name="data").type == "NameTaken"


def test_connect_and_disconnect(world: World, run: Run) -> None:
    world.api.create_network("front")
    world.add("web", HostConfig={"NetworkMode": "front"})
    world.api.create_network("back")
    result = run(world.networks.connect, network="back", container="web", aliases=["db"])
    networks = world.api.inspect_container("web")["NetworkSettings"]["Networks"]
    assert (result.address, result.connected) == (networks["back"]["IPAddress"], True)
    assert set(networks) == {"front", "back"}
    assert run(world.networks.connect, network="back", container="web").connected is False
    result = again(world.networks.connect, {"connected": False}, network="back", container="web")
    assert result.connected is True
    assert run(world.networks.disconnect, network="back", container="web").disconnected is True
    assert run(world.networks.disconnect, network="back", container="web").disconnected is False
    assert set(world.api.inspect_container("web")["NetworkSettings"]["Networks"]) == {"front"}


def test_a_key_disconnects_what_its_step_has_connected(world: World, run: Run, key: str) -> None:
    for network in ("front", "back"):
        world.api.create_network(network)
    world.add("web", HostConfig={"NetworkMode": "front"})
    # It was in there before the step, which another attempt of the step does not change.
    assert run(world.networks.connect, network="front", container="web").connected is False
    assert run(world.networks.disconnect, network="front", container="web", key=key).disconnected is False
    for _ in range(2):  # the second attempt knows by the key that the first has connected it
        assert run(world.networks.connect, network="back", container="web").connected is True
    assert run(world.networks.disconnect, network="back", container="web", key=OTHER).disconnected is False
    assert set(world.api.inspect_container("web")["NetworkSettings"]["Networks"]) == {"front", "back"}
    assert run(world.networks.disconnect, network="back", container="web", key=key).disconnected is True
    assert set(world.api.inspect_container("web")["NetworkSettings"]["Networks"]) == {"front"}


@pytest.mark.parametrize(
    ("given", "message", "error_type"),
    [
        ({"network": "nope", "container": "web"}, "there is no network nope", "NetworkNotFound"),
        ({"network": "front", "container": "nope"}, "there is no container nope", "ContainerNotFound"),
    ],
)
def test_connect_names_what_is_missing_and_disconnect_is_content(
    world: World, run: Run, given: dict[str, str], message: str, error_type: str
) -> None:
    world.api.create_network("front")
    world.add("web", running=False)
    assert told(failure(run, world.networks.connect, **given)) == (message, error_type, False)
    assert run(world.networks.disconnect, **given).disconnected is False


def test_remove_network(world: World, run: Run) -> None:
    world.api.create_network("front", labels=MINE)
    world.api.create_network("other", labels={KEY_LABEL: OTHER})
    world.add("web", HostConfig={"NetworkMode": "front"})
    error = failure(run, world.networks.remove, network="front")
    assert (error.type, error.non_retryable) == ("DockerError", False)
    assert error.message.startswith("cannot remove network front: error while removing network: ")
    world.api.remove_container("web", force=True)
    assert run(world.networks.remove, network="other", key=KEY).removed is False
    assert run(world.networks.remove, key=KEY).removed is True
    assert run(world.networks.remove, key=KEY).removed is False
    assert world.network_names() == {"other"}
    assert run(world.networks.remove, network="other").removed is True
    assert run(world.networks.remove, network="other").removed is False


def test_create_and_remove_volume(world: World, run: Run, key: str) -> None:
    made = run(world.volumes.create, name="data", labels={"n": 1})
    found = world.api.inspect_volume("data")
    assert (made.name, made.mountpoint, made.created) == ("data", found["Mountpoint"], True)
    assert (found["Labels"]["n"], found["Labels"][KEY_LABEL]) == ("1", KEY)
    assert run(world.volumes.create, name="data") == dataclasses.replace(made, created=False)
    world.api.create_volume("other")
    error = failure(run, world.volumes.create, name="other")
    assert told(error) == ("there is another volume named other", "NameTaken", False)
    assert run(world.volumes.remove, volume="other", key=KEY).removed is False
    assert run(world.volumes.remove, key=KEY).removed is True
    assert run(world.volumes.remove, key=KEY).removed is False
    assert run(world.volumes.remove, volume="other").removed is True
    assert run(world.volumes.remove, volume="other").removed is False
    assert world.volume_names() == set()


def test_a_volume_in_use_is_not_removed(world: World, run: Run) -> None:
    world.api.create_volume("data")
    mount = {"Type": "volume", "Source": "data", "Target": "/data"}
    made = world.add("web", running=False, HostConfig={"Mounts": [mount]})
    error = failure(run, world.volumes.remove, volume="data")
    assert told(error) == (
        f"cannot remove volume data: remove data: volume is in use - [{made}]", "DockerError", True
    )  # fmt: skip
