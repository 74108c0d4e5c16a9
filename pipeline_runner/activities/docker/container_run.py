"""How ``container.run`` works: pull, create, start, watch. A container that does not run is removed again."""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from msgspec import Meta
from temporalio.exceptions import ApplicationError

from pipeline_runner.activities.docker import container_state as state
from pipeline_runner.activities.docker.engine import (
    CONTAINERS,
    IMAGE,
    NAME,
    Engine,
    Labels,
    Variables,
    environment,
    look_up,
    own_labels,
    seconds,
    texts,
)
from pipeline_runner.activities.docker.errors import MESSAGE_LIMIT, is_type
from pipeline_runner.activities.docker.image import split
from pipeline_runner.activities.toolkit.errors import refused, uncertain
from pipeline_runner.activities.toolkit.heartbeat import Heart
from pipeline_runner.activities.toolkit.parameters import Scalar, as_text, doc
from pipeline_runner.activities.toolkit.sizes import one_line
from pipeline_runner.core.durations import PATTERN
from pipeline_runner.core.errors import UNCERTAIN

PORT = r"^[0-9]{1,5}(/(tcp|udp|sctp))?$(?!\n)"
_NOT_THERE = ("not found", "manifest unknown", "does not exist", "access denied", "no such image")
"""Messages of a registry about an image that it does not have, or does not show."""


@dataclass(frozen=True, kw_only=True)
class RunInput:
    """The container to run, and how to run it."""

    image: Annotated[str, doc("The image, such as `app:1`.", pattern=IMAGE)]
    name: Annotated[
        Annotated[str, Meta(pattern=NAME)] | None,
        doc("The container's name. Default: the Engine generates one."),
    ] = None
    command: Annotated[list[Scalar], doc("The arguments. Default: the image's.")] = field(
        default_factory=list
    )
    entrypoint: Annotated[list[Scalar], doc("The program. Default: the image's.")] = field(
        default_factory=list
    )
    env: Annotated[Variables, doc("Environment variables to add to the image's.")] = field(
        default_factory=dict
    )
    labels: Labels = field(default_factory=dict)
    ports: Annotated[
        dict[Annotated[str, Meta(pattern=PORT)], Scalar],
        doc(
            'The ports to publish: the container\'s port, such as `"80"` or `"53/udp"`, and where'
            ' to publish it on the Engine\'s host: `"8080"`, `"127.0.0.1:8080"`, or `""` for any free port.'
        ),
    ] = field(default_factory=dict)
    volumes: Annotated[
        dict[Annotated[str, Meta(pattern=r"^/.*$(?!\n)")], str],
        doc(
            "The paths in the container, and what to mount there: an existing volume, or an"
            " existing path on the Engine's host. Add `:ro` to mount it read-only."
        ),
    ] = field(default_factory=dict)
    network: Annotated[
        Annotated[str, Meta(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.:-]*$(?!\n)")] | None,
        doc("The network. Default: the Engine's."),
    ] = None
    aliases: Annotated[list[str], doc("Additional names for the container in the network.")] = field(
        default_factory=list
    )
    user: Annotated[str | None, doc("The user. Default: the image's.")] = None
    working_dir: Annotated[str | None, doc("The working directory. Default: the image's.")] = None
    restart: Annotated[
        Literal["no", "on-failure", "always", "unless-stopped"],
        doc("When the Engine restarts the container."),
    ] = "no"
    pull: Annotated[
        Literal["missing", "always", "never"],
        doc("When to pull the image. A pulled image stays, even after an undo."),
    ] = "missing"
    settle: Annotated[
        str,
        Meta(
            pattern=PATTERN + r"(?!\n)",
            description="How long the container must keep running. If it exits earlier, the step fails.",
        ),
    ] = "1s"


@dataclass(frozen=True, kw_only=True)
class RunOutput:
    """The running container."""

    id: Annotated[str, doc("The container's id.")]
    name: Annotated[str, doc("The container's name.")]
    image: Annotated[str, doc("The image, as given in the input.")]
    networks: Annotated[dict[str, str], doc("The container's address in each network, by network name.")]
    ports: Annotated[dict[str, str], doc('The published ports: `{"80/tcp": "127.0.0.1:8080"}`.')]
    created: Annotated[bool, doc("False if an earlier attempt of this step created it.")]


async def run(engine: Engine, parameters: RunInput, heart: Heart) -> RunOutput:
    """Run a container, or take over the one that an earlier attempt has created."""
    settle = seconds(parameters.settle, "settle")
    config = _config(parameters)  # refuses wrong input before anything is done
    container = await CONTAINERS.own(engine)
    created = container is None
    if container is None:
        await _prepare(engine, parameters, heart)
        container = await _create(engine, parameters, config)
    try:
        found = await _start(engine, container, settle)
    except ApplicationError as error:
        raise await _discard(engine, container, error) from None
    return RunOutput(
        id=found["Id"],
        name=state.name_of(found),
        image=parameters.image,
        networks=state.networks(found),
        ports=state.ports(found),
        created=created,
    )


async def _prepare(engine: Engine, parameters: RunInput, heart: Heart) -> None:
    """Check that the container's volumes exist, and pull its image."""
    for source in parameters.volumes.values():
        volume = source.removesuffix(":ro")
        if not volume.startswith("/"):  # the Engine would create it, and nothing would remove it
            await _volume(engine, volume)
    image = parameters.image
    if parameters.pull == "never":
        return
    if parameters.pull == "missing" and await look_up(
        engine, f"look for image {image}", lambda docker: docker.inspect_image(image)
    ):
        return
    await _pull(engine, image, heart)


async def _volume(engine: Engine, volume: str) -> None:
    await engine.call(f"look for volume {volume}", lambda docker: docker.inspect_volume(volume))


async def _pull(engine: Engine, image: str, heart: Heart) -> None:
    loop = asyncio.get_running_loop()
    stopped = threading.Event()

    def tell(progress: dict[str, Any]) -> None:
        if not stopped.is_set():
            loop.call_soon_threadsafe(heart.tell, progress)

    try:
        await engine.call(f"pull image {image}", lambda docker: _report_pull(docker, image, tell, stopped))
    except ApplicationError as error:
        if is_type(error, "DockerError") and any(words in error.message.lower() for words in _NOT_THERE):
            raise refused(error.message, "ImageNotFound") from None
        raise
    finally:
        stopped.set()  # the Engine ends a pull that nobody reads


def _report_pull(
    docker: Any, image: str, tell: Callable[[dict[str, Any]], None], stopped: threading.Event
) -> None:
    repository, tag = split(image)
    layers: dict[str, tuple[int, int]] = {}
    for line in docker.pull(repository, tag=tag, stream=True, decode=True):
        if stopped.is_set():
            return
        if "error" in line:
            said = one_line(str(line["error"]), MESSAGE_LIMIT)
            raise ApplicationError(f"cannot pull image {image}: {said}", type="DockerError")
        detail = line.get("progressDetail") or {}
        if "id" in line and detail.get("total"):
            layers[line["id"]] = (detail.get("current", 0), detail["total"])
            done, total = (sum(column) for column in zip(*layers.values(), strict=True))
            tell({"pulling": image, "bytes": done, "of": total})


async def _create(engine: Engine, parameters: RunInput, config: dict[str, Any]) -> str:
    doing = f"create container {parameters.name or f'of image {parameters.image}'}"

    def create(docker: Any) -> str:
        return str(docker.create_container_from_config(config, parameters.name)["Id"])

    return await engine.make(
        doing, create, lambda docker, container: docker.remove_container(container, v=True, force=True)
    )


async def _start(engine: Engine, container: str, settle: float) -> Any:
    """Start a container unless it runs, watch it, and return its description."""
    found = await state.find(engine, container)
    if found["State"]["Status"] == "created":
        doing = f"start container {state.name_of(found)}"
        await engine.call(doing, lambda docker: docker.start(container), effect=True)
        found = await state.find(engine, container)
    found, steady = await state.watch(engine, found, settle)
    if not steady:
        raise await state.exit_error(engine, found, settle)
    return found


async def _discard(engine: Engine, container: str, error: ApplicationError) -> ApplicationError:
    """Remove a container that does not run.

    Return the error, marked as uncertain if the removal fails too.
    """
    if is_type(error, "ContainerNotFound"):
        return error
    try:
        await state.remove_container(engine, container, container[:12], force=True, volumes=True)
    except ApplicationError:
        return uncertain(error)
    # Nothing is left now, so the outcome is known.
    details = [detail for detail in error.details if detail != UNCERTAIN]
    return ApplicationError(error.message, *details, type=error.type, non_retryable=error.non_retryable)


def _config(parameters: RunInput) -> dict[str, Any]:
    """Return the container's configuration for the Engine's API."""
    host: dict[str, Any] = {"RestartPolicy": {"Name": parameters.restart}}
    config: dict[str, Any] = {
        "Image": parameters.image,
        "Env": environment(parameters.env),
        "Labels": {**texts(parameters.labels), **own_labels()},
        "HostConfig": host,
    }
    if parameters.command:
        config["Cmd"] = [as_text(part) for part in parameters.command]
    if parameters.entrypoint:
        config["Entrypoint"] = [as_text(part) for part in parameters.entrypoint]
    if parameters.user is not None:
        config["User"] = parameters.user
    if parameters.working_dir is not None:
        config["WorkingDir"] = parameters.working_dir
    if parameters.ports:
        places = {_port(port): [_binding(place)] for port, place in parameters.ports.items()}
        host["PortBindings"] = places
        config["ExposedPorts"] = {port: {} for port in places}
    if parameters.volumes:
        host["Mounts"] = [_mount(target, source) for target, source in parameters.volumes.items()]
    if parameters.network is not None:
        host["NetworkMode"] = parameters.network
    if parameters.aliases:
        if parameters.network is None:
            raise refused("aliases require a network", "InvalidInput")
        endpoint = {"Aliases": parameters.aliases}
        config["NetworkingConfig"] = {"EndpointsConfig": {parameters.network: endpoint}}
    return config


def _port(text: str) -> str:
    return text if "/" in text else f"{text}/tcp"


def _binding(place: Scalar) -> dict[str, str]:
    host, _, port = as_text(place).rpartition(":")
    if port and not (port.isascii() and port.isdigit()):
        raise refused(
            f'ports: "{place}" is not an address: write for example "127.0.0.1:8080"', "InvalidInput"
        )
    return {"HostIp": host.removeprefix("[").removesuffix("]"), "HostPort": port}


def _mount(target: str, source: str) -> dict[str, Any]:
    writable = source.removesuffix(":ro")
    return {
        "Type": "bind" if source.startswith("/") else "volume",
        "Source": writable,
        "Target": target,
        "ReadOnly": writable != source,
    }
