"""The networks and volumes of the fake Engine."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pipeline_runner.testing.docker_base import answer, fits, operation
from pipeline_runner.testing.docker_images import FakeImages, now


@dataclass(eq=False)
class Network:
    """A network, and the containers in it with their addresses."""

    id: str
    name: str
    labels: dict[str, str] = field(default_factory=dict)
    driver: str = "bridge"
    internal: bool = False
    prefix: str = "172.18.0"
    members: dict[str, str] = field(default_factory=dict)
    options: dict[str, dict[str, str]] = field(default_factory=dict)
    """Of the connections of some of them."""

    def join(self, container: str) -> None:
        """Give a container an address."""
        free = next(n for n in range(2, 255) if f"{self.prefix}.{n}" not in self.members.values())
        self.members.setdefault(container, f"{self.prefix}.{free}")

    def shown(self) -> dict[str, Any]:
        """Return the network in the Engine's format."""
        return {
            "Id": self.id,
            "Name": self.name,
            "Driver": self.driver,
            "Internal": self.internal,
            "Labels": dict(self.labels),
            "Containers": {one: {"IPv4Address": f"{ip}/16"} for one, ip in self.members.items()},
        }


class FakeNetworks(FakeImages):
    """Networks and volumes."""

    def __init__(self) -> None:
        super().__init__()
        self._networks = {
            name: Network(self.new_id(), name, driver=driver, prefix="172.17.0")
            for name, driver in (("bridge", "bridge"), ("host", "host"), ("none", "null"))
        }
        self._volumes: dict[str, dict[str, Any]] = {}

    def network(self, name: str) -> Network:
        """Return an existing network by its name or id."""
        for network in self._networks.values():
            if name in {network.name, network.id}:
                return network
        raise answer(404, f"network {name} not found")

    def network_names(self) -> list[str]:
        """Return the names of the networks that are not the Engine's own."""
        return sorted(set(self._networks) - {"bridge", "host", "none"})

    def full_id(self, container: str) -> str:
        """Return the id of an existing container."""
        raise NotImplementedError

    @operation(changes=False)
    def networks(self, names: Any = None, ids: Any = None, filters: Any = None) -> list[dict[str, Any]]:
        """List networks. A name matches if it is part of the network's name."""
        return [
            network.shown()
            for network in self._networks.values()
            if fits(network.labels, filters)
            and (not names or any(name in network.name for name in names))
            and (not ids or network.id in ids)
        ]

    @operation(changes=False)
    def inspect_network(self, net_id: str) -> dict[str, Any]:
        """Return the description of a network."""
        return self.network(net_id).shown()

    @operation(changes=True)
    def create_network(
        self,
        name: str,
        driver: str | None = None,
        options: Any = None,
        ipam: Any = None,
        check_duplicate: bool | None = None,
        internal: bool = False,
        labels: dict[str, str] | None = None,
        **_: Any,
    ) -> dict[str, Any]:
        """Create a network."""
        if name in self._networks:
            raise answer(409, f"network with name {name} already exists")
        subnet = ((ipam or {}).get("Config") or [{}])[0].get("Subnet")
        prefix = subnet.rpartition(".")[0] if subnet else f"172.{len(self._networks) + 15}.0"
        made = Network(self.new_id(), name, dict(labels or {}), driver or "bridge", internal, prefix)
        self._networks[name] = made
        return {"Id": made.id, "Warning": ""}

    @operation(changes=True)
    def remove_network(self, net_id: str) -> None:
        """Remove an empty network."""
        network = self.network(net_id)
        if network.members:
            raise answer(
                403,
                f"error while removing network: network {network.name} id {network.id} has active endpoints",
            )
        del self._networks[network.name]

    @operation(changes=True)
    def connect_container_to_network(
        self, container: str, net_id: str, aliases: list[str] | None = None, driver_opt: Any = None, **_: Any
    ) -> None:
        """Connect a container to a network."""
        network, member = self.network(net_id), self.full_id(container)
        if member in network.members:
            raise answer(
                403, f"endpoint with name {self.shown(member)} already exists in network {network.name}"
            )
        network.join(member)
        network.options[member] = dict(driver_opt or {})

    @operation(changes=True)
    def disconnect_container_from_network(self, container: str, net_id: str, force: bool = False) -> None:
        """Disconnect a container from a network."""
        network, member = self.network(net_id), self.full_id(container)
        if network.members.pop(member, None) is None:
            raise answer(500, f"container {member} is not connected to network {network.name}")
        network.options.pop(member, None)

    def add_volume(
        self, name: str, *, labels: dict[str, str] | None = None, driver: str | None = None
    ) -> dict[str, Any]:
        """Add a volume unless it exists."""
        made = {
            "Name": name,
            "Driver": driver or "local",
            "Labels": dict(labels or {}) or None,
            "Mountpoint": f"/var/lib/docker/volumes/{name}/_data",
            "CreatedAt": now(),
            "Scope": "local",
        }
        return dict(self._volumes.setdefault(name, made))

    def volume_users(self, name: str) -> Iterator[str]:
        """Yield the id of each container that uses a volume."""
        yield from ()

    @operation(changes=False)
    def volumes(self, filters: Any = None) -> dict[str, Any]:
        """List volumes."""
        return {"Volumes": [dict(v) for v in self._volumes.values() if fits(v["Labels"], filters)]}

    @operation(changes=False)
    def inspect_volume(self, name: str) -> dict[str, Any]:
        """Return the description of a volume."""
        if name not in self._volumes:
            raise answer(404, f"get {name}: no such volume")
        return dict(self._volumes[name])

    @operation(changes=True)
    def create_volume(
        self, name: str | None = None, driver: str | None = None, driver_opts: Any = None, labels: Any = None
    ) -> dict[str, Any]:
        """Create a volume, or return the existing one."""
        return self.add_volume(name or self.new_id(), labels=labels, driver=driver)

    @operation(changes=True)
    def remove_volume(self, name: str, force: bool = False) -> None:
        """Remove a volume that no container uses."""
        if name not in self._volumes:
            raise answer(404, f"get {name}: no such volume")
        users = list(self.volume_users(name))
        if users:
            raise answer(409, f"remove {name}: volume is in use - [{', '.join(users)}]")
        del self._volumes[name]
