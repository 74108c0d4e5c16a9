"""Containers, images, networks and volumes are undone without a word: on a real Engine and on the stand-in."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.activities.docker_world import FOREVER, World, world_of
from tests.conftest import Pipelines
from tests.engine.test_undo import failure
from tests.services import IMAGE

EVERYTHING = f"""
version: 1
name: everything
steps:
  - {{id: volume, activity: volume.create, with: {{name: data}}}}
  - {{id: network, activity: network.create, with: {{name: back}}}}
  - {{id: run, activity: container.run, with: {{image: "{IMAGE}", name: new, command: {FOREVER}, pull: never, settle: 0s}}}}
  - {{id: connect, activity: network.connect, with: {{network: back, container: web}}}}
  - {{id: again, activity: network.connect, with: {{network: front, container: web}}}}
  - {{id: stop_idle, activity: container.stop, with: {{container: idle}}}}
  - {{id: start_web, activity: container.start, with: {{container: web}}}}
  - {{id: commit, activity: container.commit, with: {{container: web, image: "web:1"}}}}
  - {{id: tag, activity: image.tag, with: {{image: "web:1", tag: "app:1", replace: true}}}}
  - {{id: same, activity: image.tag, with: {{image: "{IMAGE}", tag: "mine:1"}}}}
  - {{id: stop_web, activity: container.stop, with: {{container: web, grace: 0s}}}}
  - {{id: start_idle, activity: container.start, with: {{container: idle}}}}
  - {{id: enough, fail: {{message: enough}}}}
"""


@pytest.fixture(params=["fake", "real"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    with world_of(request) as world:
        yield world


async def test_everything_is_as_it_was(pipelines: Pipelines, world: World) -> None:
    """Also where a step changed nothing: what was connected, stopped, running or tagged before it stays so."""
    world.api.create_network("front")
    world.add("web", HostConfig={"NetworkMode": "front"})
    world.add("idle", running=False)
    for tag in ("app", "mine"):
        world.api.tag(IMAGE, tag, "1")
    before = world.states(), world.tags(), world.network_names(), world.volume_names()
    containers, images, networks, volumes = world.containers, world.images, world.networks, world.volumes
    activities: list[Callable[..., Any]] = [
        containers.run, containers.remove, containers.start, containers.stop, containers.commit,
        images.tag, images.remove, networks.create, networks.remove, networks.connect, networks.disconnect,
        volumes.create, volumes.remove,
    ]  # fmt: skip
    async with pipelines.worker(*activities):
        _, report = await failure(await pipelines.start(pipelines.bundle(EVERYTHING)))
    assert report is not None
    assert not report.dirty, report
    assert [(one.path, one.state) for one in report.undo] == [
        (name, "undone")
        for name in (
            "start_idle", "stop_web", "same", "tag", "commit", "start_web", "stop_idle", "again", "connect",
            "run", "network", "volume",
        )
    ]  # fmt: skip
    assert (world.states(), world.tags(), world.network_names(), world.volume_names()) == (
        before[0] | {"idle": "exited"}, *before[1:],
    )  # fmt: skip
    endpoints = world.api.inspect_container("web")["NetworkSettings"]["Networks"]
    assert set(endpoints) == {"front"} if world.fake is None else set(endpoints) <= {"front"}
