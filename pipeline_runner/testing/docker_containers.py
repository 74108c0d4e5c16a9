"""The containers of the fake Engine, and the commands in them."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from pipeline_runner.activities.docker.container_exec import KILL
from pipeline_runner.testing.docker_base import answer, fits, operation
from pipeline_runner.testing.docker_images import Image, Images, now
from pipeline_runner.testing.docker_networks import Networks, Volumes

KILLED = 137
"""The exit code of a stopped program: the fake Engine's programs ignore the request to stop."""
NEVER = "0001-01-01T00:00:00Z"


@dataclass(frozen=True, kw_only=True)
class Program:
    """The behaviour of a command."""

    exit_code: int | None = None
    """None: it runs until it is stopped."""
    stdout: str = ""
    stderr: str = ""
    missing: bool = False
    """Whether the program does not exist."""

    def output(self) -> list[tuple[int, bytes]]:
        """Return the output lines, each with the number of its stream."""
        return [
            (number, line.encode())
            for number, text in ((1, self.stdout), (2, self.stderr))
            for line in text.splitlines(keepends=True)
        ]


@dataclass(eq=False)
class Container:
    """A container."""

    id: str
    name: str
    image: Image
    config: dict[str, Any]
    program: Program
    status: str = "created"
    exit_code: int = 0
    started: str = NEVER
    finished: str = NEVER
    created: str = field(default_factory=now)
    log: list[tuple[int, bytes]] = field(default_factory=list)
    ports: dict[str, Any] = field(default_factory=dict)

    @property
    def running(self) -> bool:
        return self.status in {"running", "restarting"}

    @property
    def network(self) -> str:
        """The network that the container was created in."""
        mode = str(self.config.get("HostConfig", {}).get("NetworkMode") or "bridge")
        return "bridge" if mode == "default" else mode


@dataclass(eq=False)
class Exec:
    """A command in a container."""

    id: str
    container: Container
    command: list[str]
    environment: list[str]
    program: Program
    running: bool = False
    exit_code: int | None = None
    pid: int = 0
    ended: threading.Event = field(default_factory=threading.Event)

    def end(self, code: int) -> None:
        """End the command."""
        self.running, self.exit_code = False, code
        self.ended.set()

    def stream(self) -> Iterator[tuple[bytes | None, bytes | None]]:
        """Yield the output, and wait for the end."""
        for number, line in self.program.output():
            yield (line, None) if number == 1 else (None, line)
        self.ended.wait()


class Containers:
    """The containers, and the commands in them.

    Args:
        new_id: Returns an unused id.
        images: The images to create them from.
        networks: The networks to connect them to.
        volumes: The volumes to mount.
    """

    def __init__(
        self, new_id: Callable[[], str], images: Images, networks: Networks, volumes: Volumes
    ) -> None:
        self._new_id, self._images, self._networks, self._volumes = new_id, images, networks, volumes
        self._containers: dict[str, Container] = {}
        self._execs: dict[str, Exec] = {}
        self._programs: list[tuple[list[str], Program]] = []

    def program(self, command: list[str], program: Program) -> None:
        """Set the behaviour of a command."""
        self._programs.insert(0, (command, program))

    def add(self, name: str, image: str, *, running: bool, labels: dict[str, str] | None) -> str:
        """Add a container of an existing image, and return its id."""
        made = self._make({"Image": image, "Labels": dict(labels or {})}, name)
        if running:
            self._start(made)
        return made.id

    @property
    def states(self) -> dict[str, str]:
        """The status of each container by its name, such as ``running`` or ``exited``."""
        return {c.name: c.status for c in sorted(self._containers.values(), key=lambda c: c.name)}

    def get(self, name: str) -> Container:
        """Return an existing container by its name, its id or a prefix of its id."""
        for container in self._containers.values():
            if name in {container.id, container.name} or (len(name) >= 12 and container.id.startswith(name)):
                return container
        raise answer(404, f"No such container: {name}")

    def name_of(self, target: str) -> str | None:
        """Return the name of the container with this id, or of the command with it."""
        command = self._execs.get(target)
        container = command.container if command else self._containers.get(target)
        return container.name if container else None

    def users(self, image: Image) -> Iterator[tuple[str, bool]]:
        """Yield the id of each container of an image, and whether it is running."""
        for container in self._containers.values():
            if container.image is image:
                yield container.id, container.running

    def volume_users(self, name: str) -> Iterator[str]:
        """Yield the id of each container that uses a volume."""
        for container in self._containers.values():
            mounts = container.config.get("HostConfig", {}).get("Mounts") or []
            if any(mount["Type"] == "volume" and mount["Source"] == name for mount in mounts):
                yield container.id

    @operation(changes=False)
    def inspect_container(self, container: str) -> dict[str, Any]:
        """Return the description of a container."""
        found = self.get(container)
        return {
            "Id": found.id,
            "Name": f"/{found.name}",
            "Created": found.created,
            "Image": found.image.id,
            "RestartCount": 0,
            "Config": {**found.config, "Labels": self._labels(found)},
            "HostConfig": found.config.get("HostConfig", {}),
            "State": {
                "Status": found.status,
                "Running": found.running,
                "Restarting": found.status == "restarting",
                "Paused": False,
                "Dead": False,
                "OOMKilled": False,
                "ExitCode": found.exit_code,
                "Error": "",
                "StartedAt": found.started,
                "FinishedAt": found.finished,
            },
            "NetworkSettings": {"Networks": self._endpoints(found), "Ports": found.ports},
        }

    def _labels(self, container: Container) -> dict[str, str]:
        return {**container.image.labels, **container.config.get("Labels", {})}

    def _endpoints(self, container: Container) -> dict[str, Any]:
        found = {
            network.name: {
                "NetworkID": network.id,
                "IPAddress": network.members[container.id],
                "DriverOpts": network.options.get(container.id),
            }
            for network in self._networks.of(container.id)
        }
        return found or {container.network: {"NetworkID": "", "IPAddress": ""}}

    @operation(changes=False)
    def containers(
        self,
        quiet: bool = False,
        all: bool = False,  # noqa: A002 - the client's name
        filters: Any = None,
        **_: Any,
    ) -> list[dict[str, Any]]:
        """List the running containers, or all."""
        return [
            {
                "Id": container.id,
                "Names": [f"/{container.name}"],
                "Image": container.config["Image"],
                "ImageID": container.image.id,
                "Labels": self._labels(container),
                "State": container.status,
                "Status": container.status,
            }
            for container in self._containers.values()
            if (all or container.running) and fits(self._labels(container), filters)
        ]

    @operation(changes=True)
    def create_container_from_config(
        self, config: dict[str, Any], name: str | None = None, platform: Any = None
    ) -> dict[str, Any]:
        """Create a container from a configuration of the Engine's API."""
        return {"Id": self._make(config, name).id, "Warnings": []}

    def _make(self, config: dict[str, Any], name: str | None) -> Container:
        image = self._images.get(config["Image"])
        container_id = self._new_id()
        for other in self._containers.values():
            if other.name == name:
                raise answer(
                    409,
                    f'Conflict. The container name "/{name}" is already in use by container "{other.id}".'
                    " You have to remove (or rename) that container to be able to reuse that name.",
                )
        for mount in config.get("HostConfig", {}).get("Mounts") or []:
            if mount["Type"] == "volume":
                self._volumes.add(mount["Source"])
        command = [*(config.get("Entrypoint") or []), *(config.get("Cmd") or image.command)]
        made = Container(
            container_id,
            name or f"fake_{len(self._containers)}",
            image,
            config,
            self._program(command, Program()),
        )
        self._containers[made.id] = made
        return made

    def _program(self, command: list[str], default: Program) -> Program:
        return next((program for known, program in self._programs if known == command), default)

    @operation(changes=True)
    def start(self, container: str, *_: Any, **__: Any) -> None:
        """Start a container unless it is running."""
        found = self.get(container)
        if not found.running:
            self._start(found)

    def _start(self, container: Container) -> None:
        if container.program.missing:
            container.exit_code = 127
            raise answer(
                400,
                "failed to create shim task: OCI runtime create failed: runc create failed: unable to start"
                ' container process: exec: "program": executable file not found in $PATH: unknown',
            )
        network = self._networks.get(container.network)
        container.ports = self._bound(container)
        if network.name not in {"host", "none"}:
            network.join(container.id)
        container.status, container.started = "running", now()
        container.log += container.program.output()
        if container.program.exit_code is not None:
            restarts = container.config.get("HostConfig", {}).get("RestartPolicy", {}).get("Name", "no")
            again = restarts in {"always", "unless-stopped"} or (
                restarts == "on-failure" and container.program.exit_code != 0
            )
            self._end(container, container.program.exit_code)
            if again:
                container.status = "restarting"

    def _bound(self, container: Container) -> dict[str, Any]:
        """Return the published ports of a container in the Engine's format."""
        wanted = container.config.get("HostConfig", {}).get("PortBindings") or {}
        taken = {
            place["HostPort"]
            for other in self._containers.values()
            for p in other.ports.values()
            for place in p
        }
        found: dict[str, Any] = {}
        for port, places in wanted.items():
            host, number = places[0].get("HostIp") or "0.0.0.0", places[0].get("HostPort")  # noqa: S104
            if number in taken:
                container.exit_code = 128
                raise answer(
                    500,
                    f"driver failed programming external connectivity on endpoint {container.name}"
                    f" ({container.id}): Bind for {host}:{number} failed: port is already allocated",
                )
            number = number or next(str(n) for n in range(32768, 61000) if str(n) not in taken)
            taken.add(number)
            found[port] = [{"HostIp": host, "HostPort": number}]
        return found

    def _end(self, container: Container, code: int) -> None:
        container.status, container.exit_code, container.ports = "exited", code, {}
        container.finished = now()
        for network in self._networks.of(container.id):
            del network.members[container.id]
            network.options.pop(container.id, None)
        for running in self._execs.values():
            if running.container is container and running.running:
                running.end(KILLED)

    @operation(changes=True)
    def stop(self, container: str, timeout: float | None = None) -> None:
        """Stop a container if it is running."""
        found = self.get(container)
        if found.running:
            self._end(found, KILLED)

    @operation(changes=True)
    def restart(self, container: str, timeout: float = 10) -> None:
        """Restart a container."""
        found = self.get(container)
        if found.running:
            self._end(found, KILLED)
        self._start(found)

    @operation(changes=True)
    def remove_container(
        self, container: str, v: bool = False, link: bool = False, force: bool = False
    ) -> None:
        """Remove a container."""
        found = self.get(container)
        if found.running and not force:
            raise answer(
                409,
                f"You cannot remove a running container {found.id}."
                " Stop the container before attempting removal or force remove",
            )
        self._end(found, KILLED)
        del self._containers[found.id]

    @operation(changes=True)
    def connect_container_to_network(
        self, container: str, net_id: str, aliases: list[str] | None = None, driver_opt: Any = None, **_: Any
    ) -> None:
        """Connect a container to a network."""
        network, found = self._networks.get(net_id), self.get(container)
        if found.id in network.members:
            raise answer(403, f"endpoint with name {found.name} already exists in network {network.name}")
        network.join(found.id)
        network.options[found.id] = dict(driver_opt or {})

    @operation(changes=True)
    def disconnect_container_from_network(self, container: str, net_id: str, force: bool = False) -> None:
        """Disconnect a container from a network."""
        network, member = self._networks.get(net_id), self.get(container).id
        if network.members.pop(member, None) is None:
            raise answer(500, f"container {member} is not connected to network {network.name}")
        network.options.pop(member, None)

    @operation(changes=True)
    def commit(
        self,
        container: str,
        repository: str | None = None,
        tag: str | None = None,
        message: str | None = None,
        author: str | None = None,
        pause: bool = True,
        changes: list[str] | str | None = None,
        conf: Any = None,
    ) -> dict[str, Any]:
        """Create an image from a container."""
        found = self.get(container)
        name = f"{repository}:{tag or 'latest'}" if repository else None
        return {"Id": self._images.add_layer(found.image, self._labels(found), name, changes).id}

    @operation(changes=False)
    def logs(
        self,
        container: str,
        stdout: bool = True,
        stderr: bool = True,
        stream: bool = False,
        timestamps: bool = False,
        tail: int | str = "all",
        follow: bool | None = None,
        **_: Any,
    ) -> Any:
        """Return the end of a container's log."""
        lines = list(self.get(container).log)
        lines = lines[-tail:] if isinstance(tail, int) else lines
        wanted = [line for number, line in lines if (stdout if number == 1 else stderr)]
        return iter(wanted) if stream else b"".join(wanted)

    @operation(changes=False)
    def exec_create(
        self,
        container: str,
        cmd: list[str],
        environment: Any = None,
        user: str = "",
        workdir: Any = None,
        **_: Any,
    ) -> dict[str, Any]:
        """Prepare a command in a container."""
        found = self.get(container)
        if not found.running:
            raise answer(409, f"Container {found.id} is not running")
        variables = environment or []
        if isinstance(variables, dict):
            variables = [f"{name}={value}" for name, value in variables.items()]
        made = Exec(
            self._new_id(), found, list(cmd), list(variables), self._program(list(cmd), Program(exit_code=0))
        )
        self._execs[made.id] = made
        return {"Id": made.id}

    @operation(changes=True)
    def exec_start(
        self,
        exec_id: str,
        detach: bool = False,
        tty: bool = False,
        stream: bool = False,
        socket: bool = False,
        demux: bool = False,
    ) -> Any:
        """Start a command, and return its output like the client's method of the same name."""
        found = self._exec(exec_id)
        if not found.container.running:
            raise answer(409, f"Container {found.container.id} is not running")
        if found.program.missing:
            said = (
                "OCI runtime exec failed: exec failed: unable to start container process: exec:"
                f' "{found.command[0]}": executable file not found in $PATH: unknown\r\n'
            )
            found.program = Program(exit_code=126, stdout=said)
            found.end(126)
        else:
            found.running, found.pid = True, int(exec_id[-6:], 16)
            self._signal(found)
            if found.program.exit_code is not None:
                found.end(found.program.exit_code)
        pieces = found.stream()
        if stream:
            return pieces if demux else ((out or err or b"") for out, err in pieces)
        both = list(pieces)
        out, err = (b"".join(pair[n] or b"" for pair in both) for n in (0, 1))
        return (out or None, err or None) if demux else out + err

    def _signal(self, command: Exec) -> None:
        """Emulate the script that stops a command."""
        if command.command[2:3] == [KILL]:
            mark, name = command.command[4:6]
            for other in self._execs.values():
                if other.running and other.container is command.container and mark in other.environment:
                    other.end(143 if name == "TERM" else KILLED)

    def _exec(self, exec_id: str) -> Exec:
        if exec_id not in self._execs:
            raise answer(404, f"No such exec instance: {exec_id}")
        return self._execs[exec_id]

    @operation(changes=False)
    def exec_inspect(self, exec_id: str) -> dict[str, Any]:
        """Return the description of a command."""
        found = self._exec(exec_id)
        return {
            "ID": found.id,
            "Running": found.running,
            "ExitCode": found.exit_code,
            "Pid": found.pid,
            "ContainerID": found.container.id,
        }
