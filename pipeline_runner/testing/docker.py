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

import functools
import itertools
from collections.abc import Callable
from typing import Any

import docker

from pipeline_runner.activities.docker import container, image, network, volume
from pipeline_runner.activities.docker.engine import Engine
from pipeline_runner.testing.docker_base import Calls, Hold, answer, broken, unreachable
from pipeline_runner.testing.docker_containers import Containers, Program
from pipeline_runner.testing.docker_images import Images
from pipeline_runner.testing.docker_networks import Networks, Volumes

__all__ = ["FakeDocker", "Hold", "Program", "answer", "broken", "unreachable"]


class FakeDocker:
    """An Engine that holds containers, images, networks and volumes, and runs nothing."""

    timeout = 60.0
    _version = "1.41"

    def __init__(self) -> None:
        numbers = itertools.count(1)

        def new_id() -> str:
            return f"{next(numbers):064x}"

        self._calls = Calls()
        self.calls = self._calls.all
        """Every call, such as ``stop web``, in order."""
        self.changes = self._calls.changes
        """The calls that change something, in order. Calls that only read are left out."""
        self._images = Images(new_id, lambda image: self._containers.users(image))  # noqa: PLW0108 - made below
        self._networks = Networks(new_id)
        self._volumes = Volumes(new_id, lambda name: self._containers.volume_users(name))  # noqa: PLW0108
        self._containers = Containers(new_id, self._images, self._networks, self._volumes)
        self._parts = (self._containers, self._images, self._networks, self._volumes)

    @property
    def states(self) -> dict[str, str]:
        """The status of each container by its name, such as ``running`` or ``exited``."""
        return self._containers.states

    @property
    def tags(self) -> dict[str, str]:
        """The id of the image that each tag names."""
        return self._images.tags

    @property
    def client(self) -> docker.DockerClient:
        """The ``docker`` package's client, connected to this Engine."""
        made = docker.DockerClient.__new__(docker.DockerClient)
        made.api = self  # type: ignore[assignment]  # it has the methods that are used
        return made

    def activities(self) -> list[Callable[..., Any]]:
        """Return all container activities, connected to this Engine, for a worker."""
        engine = Engine(lambda: self)
        containers, images = container.Containers(engine), image.Images(engine)
        networks, volumes = network.Networks(engine), volume.Volumes(engine)
        return [
            containers.run, containers.inspect, containers.start, containers.stop, containers.exec,
            containers.commit, containers.remove, containers.logs,
            images.inspect, images.tag, images.remove,
            networks.create, networks.connect, networks.disconnect, networks.remove,
            volumes.create, volumes.remove,
        ]  # fmt: skip

    def add_image(self, name: str, *, labels: dict[str, str] | None = None) -> str:
        """Add an image, and return its id."""
        return self._images.add(name, labels=labels)

    def add_to_registry(self, name: str) -> None:
        """Add an image to the registry, from which it can be pulled."""
        self._images.add_to_registry(name)

    def add_container(
        self, name: str, image: str, *, running: bool = True, labels: dict[str, str] | None = None
    ) -> str:
        """Add a container of an existing image, and return its id."""
        return self._containers.add(name, image, running=running, labels=labels)

    def program(
        self,
        command: list[str],
        *,
        exit_code: int | None = None,
        stdout: str = "",
        stderr: str = "",
        missing: bool = False,
    ) -> None:
        """Set the behaviour of a command. By default, containers keep running and ``exec`` succeeds silently.

        Args:
            command: The program and its arguments.
            exit_code: The exit code, at once. None: it runs until it is stopped.
            stdout: Its standard output.
            stderr: Its standard error.
            missing: Whether the program does not exist.
        """
        made = Program(exit_code=exit_code, stdout=stdout, stderr=stderr, missing=missing)
        self._containers.program(command, made)

    def fail(
        self,
        operation: str,
        *,
        container: str | None = None,
        image: str | None = None,
        network: str | None = None,
        volume: str | None = None,
        with_: Exception | None = None,
        times: int = 1,
        after: bool = False,
    ) -> None:
        """Make calls fail.

        Args:
            operation: The client's method, such as ``stop``, ``commit`` or ``create_network``.
            container: Only calls for this container, by its name.
            image: Only calls for this image.
            network: Only calls for this network.
            volume: Only calls for this volume.
            with_: The error. See :func:`answer`, :func:`unreachable`, :func:`broken`. Default: status 500.
            times: The number of calls.
            after: Perform the call first and fail then, as if the response was lost.
        """
        error = with_ or answer(500, f"the {operation} was made to fail")
        target = container or image or network or volume
        self._operation(operation)
        self._calls.order(operation, target, error=error, times=times, after=after)

    def hold(self, operation: str, target: str | None = None, *, after: bool = False) -> Hold:
        """Make a call wait until it is released, before it does anything; with ``after``, when it is done."""
        self._operation(operation)
        hold = Hold()
        self._calls.order(operation, target, hold=hold, after=after)
        return hold

    def __getattr__(self, name: str) -> Any:
        """Return a method of the client, which records its calls."""
        try:
            method = self._operation(name)
        except ValueError:
            raise AttributeError(name) from None

        @functools.wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            target = self._shown(str(next((a for a in (*args, *kwargs.values()) if isinstance(a, str)), "")))
            if name == "pull":
                target = f"{target}:{kwargs.get('tag') or 'latest'}"
            return self._calls.make(method, target, *args, **kwargs)

        return call

    def _operation(self, name: str) -> Callable[..., Any]:
        for part in self.__dict__.get("_parts", ()):
            method: Any = getattr(part, name, None)
            if hasattr(method, "changes"):
                return method  # type: ignore[no-any-return]
        raise ValueError(f"there is no operation {name}")

    def _shown(self, target: str) -> str:
        """Return the name of the target, which the call may name by its id."""
        return next((name for part in self._parts if (name := part.name_of(target))), target)

    def create_container(
        self, image: str, command: Any = None, *, name: str | None = None, platform: Any = None, **more: Any
    ) -> dict[str, Any]:
        """Create a container, with the arguments of the client's method of the same name."""
        more.pop("use_config_proxy", None)
        config = docker.types.ContainerConfig(self._version, image, command, **more)
        made: dict[str, Any] = self.create_container_from_config(dict(config), name)
        return made

    def close(self) -> None:
        """Do nothing: there is no connection."""

    def version(self, api_version: bool = True) -> dict[str, str]:
        """Return the version that this Engine emulates."""
        return {"ApiVersion": self._version, "Version": "20.10"}
