"""The ``network`` family: networks of a Docker Engine, and the containers in them."""

from dataclasses import dataclass, field
from typing import Annotated, Any

from msgspec import Meta
from temporalio.exceptions import ApplicationError

from pipeline_runner.activities.catalogue.undo import Undo
from pipeline_runner.activities.docker import container_state as state
from pipeline_runner.activities.docker.engine import (
    KEY_LABEL,
    NAME,
    NETWORKS,
    Container,
    Family,
    Force,
    Key,
    Labels,
    Network,
    Removed,
    docker_activity,
    has_key,
    own_labels,
    texts,
    wait_until_settled,
)
from pipeline_runner.activities.docker.errors import is_type
from pipeline_runner.activities.toolkit.context import step_key
from pipeline_runner.activities.toolkit.errors import refused
from pipeline_runner.activities.toolkit.heartbeat import heartbeating, remembered
from pipeline_runner.activities.toolkit.parameters import doc


@dataclass(frozen=True, kw_only=True)
class CreateNetworkInput:
    """The network to create."""

    name: Annotated[str, doc("The network's name.", pattern=NAME)]
    driver: Annotated[str, doc("The network's driver.", min_length=1)] = "bridge"
    internal: Annotated[bool, doc("Isolate the network from the outside.")] = False
    labels: Labels = field(default_factory=dict)
    subnet: Annotated[
        str | None, doc("The subnet, such as 172.30.0.0/16. Default: the Engine chooses one.")
    ] = None


@dataclass(frozen=True, kw_only=True)
class NetworkCreated:
    """The network."""

    id: Annotated[str, doc("The network's id.")]
    name: Annotated[str, doc("The network's name.")]
    created: Annotated[bool, doc("False if an earlier attempt of this step created it.")]


@dataclass(frozen=True, kw_only=True)
class ConnectInput:
    """The container and the network."""

    network: Network
    container: Container
    aliases: Annotated[list[str], doc("Additional names for the container in the network.")] = field(
        default_factory=list
    )


@dataclass(frozen=True, kw_only=True)
class ConnectOutput:
    """The connection."""

    address: Annotated[str, doc("The container's address in the network.")]
    connected: Annotated[bool, doc("False if it was connected before this step.")]


@dataclass(frozen=True, kw_only=True)
class DisconnectInput:
    """The container and the network."""

    network: Network
    container: Container
    key: Key = None
    force: Force = False


@dataclass(frozen=True, kw_only=True)
class Disconnected:
    """Whether the container was disconnected."""

    disconnected: Annotated[bool, doc("False if it was not connected, or not by the step with this `key`.")]


@dataclass(frozen=True, kw_only=True)
class RemoveNetworkInput:
    """The network to remove."""

    network: Annotated[Annotated[str, Meta(pattern=NAME)] | None, doc("The network's name or id.")] = None
    key: Key = None


class Networks(Family):
    """The activities of this family."""

    @docker_activity("network.create", undo=Undo("network.remove", {"key": "{{ step.key }}"}))
    async def create(self, parameters: CreateNetworkInput) -> NetworkCreated:
        """Create a network. A network of the same name that this step did not create is an error."""
        name = parameters.name
        async with heartbeating():
            await wait_until_settled(step_key())
            listed = await self._engine.call("list networks", lambda docker: docker.networks(names=[name]))
            found = next((one for one in listed if one["Name"] == name), None)
            if found is not None and not has_key(found, step_key()):
                raise refused(f"there is another network named {name}", "NameTaken")
            network = found["Id"] if found is not None else await self._make(parameters)
        return NetworkCreated(id=network, name=name, created=found is None)

    async def _make(self, parameters: CreateNetworkInput) -> str:
        labels = {**texts(parameters.labels), **own_labels()}
        subnet = parameters.subnet

        def make(docker: Any) -> str:
            made = docker.create_network(
                parameters.name,
                driver=parameters.driver,
                check_duplicate=True,  # Engines of API 1.44 and newer always do
                internal=parameters.internal,
                labels=labels,
                ipam=None if subnet is None else {"Driver": "default", "Config": [{"Subnet": subnet}]},
            )
            return str(made["Id"])

        return await self._engine.make(
            f"create network {parameters.name}", make, lambda docker, network: docker.remove_network(network)
        )

    @docker_activity(
        "network.connect",
        undo=Undo(
            "network.disconnect",
            {
                "network": "{{ step.input.network }}",
                "container": "{{ step.input.container }}",
                "key": "{{ step.key }}",
            },
        ),
    )
    async def connect(self, parameters: ConnectInput) -> ConnectOutput:
        """Connect a container to a network. An existing connection is not an error."""
        network, container = parameters.network, parameters.container
        async with heartbeating() as heart:
            name = await self._name(network)
            found = await state.find(self._engine, container)
            before: Any = remembered() or {
                "connected": name in state.networks(found) and not _is_connected_by(found, name, step_key())
            }
            if name not in state.networks(found):
                await heart.remember(before)
                await self._engine.call(
                    f"connect container {container} to network {network}",
                    lambda docker: docker.connect_container_to_network(
                        container, name, aliases=parameters.aliases or None, driver_opt=own_labels() or None
                    ),
                    effect=True,
                )
                found = await state.find(self._engine, container)
        return ConnectOutput(address=state.networks(found).get(name, ""), connected=not before["connected"])

    @docker_activity("network.disconnect")
    async def disconnect(self, parameters: DisconnectInput) -> Disconnected:
        """Disconnect a container from a network. It is not an error if either of them is missing."""
        network, container, force = parameters.network, parameters.container, parameters.force
        async with heartbeating():
            try:
                name = await self._name(network)
                found = await state.find(self._engine, container)
                ours = parameters.key is None or _is_connected_by(found, name, parameters.key)
                if name not in state.networks(found) or not ours:
                    return Disconnected(disconnected=False)
                await self._engine.call(
                    f"disconnect container {container} from network {network}",
                    lambda docker: docker.disconnect_container_from_network(container, name, force=force),
                    effect=True,
                )
            except ApplicationError as error:
                if not is_type(error, "NetworkNotFound", "ContainerNotFound"):
                    raise
                return Disconnected(disconnected=False)
        return Disconnected(disconnected=True)

    async def _name(self, network: str) -> str:
        found = await self._engine.call(
            f"inspect network {network}", lambda docker: docker.inspect_network(network)
        )
        return str(found["Name"])

    @docker_activity("network.remove")
    async def remove(self, parameters: RemoveNetworkInput) -> Removed:
        """Remove a network. A missing network is not an error."""
        async with heartbeating():
            found = await NETWORKS.find_all(self._engine, parameters.network, parameters.key)
            for network, name in found.items():
                await NETWORKS.remove(
                    self._engine, network, lambda docker, one: docker.remove_network(one), shown=name
                )
        return Removed(removed=bool(found))


def _is_connected_by(found: Any, network: str, key: str | None) -> bool:
    """Tell whether the step with a key connected a container to a network."""
    endpoint = (found["NetworkSettings"].get("Networks") or {}).get(network) or {}
    return key is not None and (endpoint.get("DriverOpts") or {}).get(KEY_LABEL) == key
