"""The networks and volumes of the fake Engine."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from pipeline_runner.testing.docker_base import answer, fits, operation
from pipeline_runner.testing.docker_images import now


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
    """The driver options of connections, by container."""

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


class Networks:
    """The networks.

    Args:
        new_id: Returns an unused id.
    """

    def __init__(self, new_id: Callable[[], str]) -> None:
        self._new_id = new_id
        self._networks = {
            name: Network(new_id(), name, driver=driver, prefix="172.17.0")
            for name, driver in (("bridge", "bridge"), ("host", "host"), ("none", "null"))
        }

    def name_of(self, target: str) -> str | None:
        """Return the name of the network with this id."""
        return next((network.name for network in self._networks.values() if network.id == target), None)

    def get(self, name: str) -> Network:
        """Return an existing network by its name or id."""
        for network in self._networks.values():
            if name in {network.name, network.id}:
                return network
        raise answer(404, f"network {name} not found")

    def of(self, container: str) -> list[Network]:
        """Return the networks that a container is in."""
        return [network for network in self._networks.values() if container in network.members]

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
        return self.get(net_id).shown()

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
        made = Network(self._new_id(), name, dict(labels or {}), driver or "bridge", internal, prefix)
        self._networks[name] = made
        return {"Id": made.id, "Warning": ""}

    @operation(changes=True)
    def remove_network(self, net_id: str) -> None:
        """Remove an empty network."""
        network = self.get(net_id)
        if network.members:
            raise answer(
                403,
                f"error while removing network: network {network.name} id {network.id} has active endpoints",
            )
        del self._networks[network.name]


class Volumes:
    """The volumes.

    Args:
        new_id: Returns an unused name.
        users: Returns the id of each container that uses a volume.
    """

    def __init__(self, new_id: Callable[[], str], users: Callable[[str], Iterable[str]]) -> None:
        self._new_id, self._users = new_id, users
        self._volumes: dict[str, dict[str, Any]] = {}

    def name_of(self, target: str) -> str | None:
        """Return the name of a volume, which has no other id."""
        return target if target in self._volumes else None

    def add(
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
        return self.add(name or self._new_id(), labels=labels, driver=driver)

    @operation(changes=True)
    def remove_volume(self, name: str, force: bool = False) -> None:
        """Remove a volume that no container uses."""
        if name not in self._volumes:
            raise answer(404, f"get {name}: no such volume")
        users = list(self._users(name))
        if users:
            raise answer(409, f"remove {name}: volume is in use - [{', '.join(users)}]")
        del self._volumes[name]
