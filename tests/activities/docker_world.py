"""A Docker Engine for tests, real or the stand-in: the same tests run on both."""

from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import docker
import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from pipeline_runner.activities.docker import engine as docker_engine
from pipeline_runner.activities.docker.container import Containers
from pipeline_runner.activities.docker.image import Images
from pipeline_runner.activities.docker.network import Networks
from pipeline_runner.activities.docker.volume import Volumes
from pipeline_runner.testing.docker import FakeDocker
from tests.services import IMAGE, Engine

FOREVER = ["sleep", "600"]


class World:
    """An Engine, the activities on it, and a client of the tests' own."""

    def __init__(self, api: Any, connect: Callable[[], Any], fake: FakeDocker | None = None) -> None:
        self.api, self.connect, self.fake = api, connect, fake
        self.others: set[str] = set()
        engine = docker_engine.Engine(connect)
        self.containers, self.images = Containers(engine), Images(engine)
        self.networks, self.volumes = Networks(engine), Volumes(engine)

    def program(self, command: list[str], **does: Any) -> list[str]:
        """Return a command; the real Engine runs it, the stand-in is told what it does."""
        if self.fake is not None:
            self.fake.program(command, **does)
        return command

    def add(self, name: str, *, running: bool = True, **more: Any) -> str:
        """Make a container that is nobody's, and return its id."""
        config = {"Image": IMAGE, "Cmd": FOREVER, "Labels": {}, **more}
        made: str = self.api.create_container_from_config(config, name)["Id"]
        if running:
            self.api.start(made)
        return made

    def states(self) -> dict[str, str]:
        return {one["Names"][0][1:]: one["State"] for one in self._containers()}

    def _containers(self) -> list[Any]:
        return [one for one in self.api.containers(all=True) if one["Id"] not in self.others]

    def tags(self) -> dict[str, str]:
        listed = {tag: one["Id"] for one in self.api.images() for tag in one["RepoTags"] or []}
        return {tag: image for tag, image in listed.items() if tag not in self.others}

    def image_ids(self) -> set[str]:
        return {one["Id"] for one in self.api.images()} - self.others

    def network_names(self) -> set[str]:
        return {one["Name"] for one in self.api.networks()} - {"bridge", "host", "none"} - self.others

    def volume_names(self) -> set[str]:
        return {one["Name"] for one in self.api.volumes()["Volumes"] or []} - self.others

    def leave_alone(self) -> None:
        """Do not touch what is there now, but the image that everything is made from."""
        image = {IMAGE, self.tags()[IMAGE]}
        names = self.network_names() | self.volume_names() | set(self.tags()) | self.image_ids()
        self.others = {one["Id"] for one in self._containers()} | (names - image)

    def clear(self) -> None:
        for one in self._containers():
            self.api.remove_container(one["Id"], v=True, force=True)
        for name in self.network_names():
            self.api.remove_network(name)
        for name in self.volume_names():
            self.api.remove_volume(name)
        kept = self.tags()[IMAGE]
        for tag, image in self.tags().items():
            if tag != IMAGE and image == kept:
                self.api.remove_image(tag)
        while images := self.image_ids() - {kept}:
            for image in images:
                try:
                    self.api.remove_image(image, force=True, noprune=True)
                except docker.errors.APIError as error:
                    assert "has dependent child images" in str(error)  # children first
            assert self.image_ids() - {kept} != images


def fake_world() -> World:
    fake = FakeDocker()
    fake.add_image(IMAGE)
    return World(fake, lambda: fake, fake)


@contextmanager
def real_world(engine: Engine) -> Iterator[World]:
    from pipeline_runner.activities.docker.client import Client

    made: list[Any] = []

    def connect() -> Any:
        made.append(Client(base_url=engine.host, version="auto"))
        return made[-1]

    world = World(connect(), connect)
    world.leave_alone()
    yield world
    world.api = connect()  # the Engine may have been started anew
    world.clear()
    for client in made:
        client.close()


@contextmanager
def world_of(request: pytest.FixtureRequest) -> Iterator[World]:
    """Make the world that a fixture's parameter names: ``fake`` or ``real``."""
    if request.param == "fake":
        yield fake_world()
    else:
        with real_world(request.getfixturevalue("engine")) as world:
            yield world


def attempt(env: ActivityEnvironment, activity: Any, /, **given: Any) -> Coroutine[Any, Any, Any]:
    """Run an activity with its input as the plain mapping that a step renders."""
    started: Coroutine[Any, Any, Any] = env.run(activity, given)
    return started


def failure(run: Any, activity: Any, *arguments: Any, **parameters: Any) -> ApplicationError:
    with pytest.raises(ApplicationError) as caught:
        run(activity, *arguments, **parameters)
    return caught.value


def told(error: ApplicationError) -> tuple[str, str | None, bool]:
    """Return an error's message, its type, and whether it is retried."""
    return error.message, error.type, not error.non_retryable
