"""A fake Docker Engine in memory, for tests of pipelines and of your own activities.

It has the methods of the ``docker`` package's client that the container activities use,
raises that package's errors, records every call, and can be made to fail::

    fake = FakeDocker()
    fake.add_image("app:1")
    fake.add_container("web", "app:1")
    fake.fail("commit", container="web", with_=answer(500, "no space left on device"))
    async with worker(client, [pipeline], activities=fake.activities()):
        ...
    assert fake.states == {"web": "running"}
    assert fake.changes == ["stop web", "commit web", "start web"]

:attr:`FakeDocker.client` is the package's own ``DockerClient`` for this Engine, for code such as
``client.containers.get("web").stop()``.
"""

from collections.abc import Callable
from typing import Any

import docker

from pipeline_runner.activities.docker.container import Containers
from pipeline_runner.activities.docker.engine import Engine
from pipeline_runner.activities.docker.image import Images
from pipeline_runner.activities.docker.network import Networks
from pipeline_runner.activities.docker.volume import Volumes
from pipeline_runner.testing.docker_base import Hold, answer, broken, unreachable
from pipeline_runner.testing.docker_containers import FakeContainers, Program

__all__ = ["FakeDocker", "Hold", "Program", "answer", "broken", "unreachable"]


class FakeDocker(FakeContainers):
    """An Engine that holds containers, images, networks and volumes, and runs nothing."""

    @property
    def client(self) -> docker.DockerClient:
        """The ``docker`` package's client, connected to this Engine."""
        made = docker.DockerClient.__new__(docker.DockerClient)
        made.api = self  # type: ignore[assignment]  # it has the methods that are used
        return made

    def activities(self) -> list[Callable[..., Any]]:
        """Return all container activities, connected to this Engine, for a worker."""
        engine = Engine(lambda: self)
        containers, images = Containers(engine), Images(engine)
        networks, volumes = Networks(engine), Volumes(engine)
        return [
            containers.run, containers.inspect, containers.start, containers.stop, containers.exec,
            containers.commit, containers.remove, containers.logs,
            images.inspect, images.tag, images.remove,
            networks.create, networks.connect, networks.disconnect, networks.remove,
            volumes.create, volumes.remove,
        ]  # fmt: skip
