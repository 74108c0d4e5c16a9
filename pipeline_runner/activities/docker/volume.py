"""The ``volume`` family: volumes of a Docker Engine."""

from dataclasses import dataclass, field
from typing import Annotated, Any

from msgspec import Meta

from pipeline_runner.activities.catalogue.undo import Undo
from pipeline_runner.activities.docker.engine import (
    NAME,
    VOLUMES,
    Family,
    Force,
    Key,
    Labels,
    Removed,
    docker_activity,
    has_key,
    own_labels,
    texts,
    wait_until_settled,
)
from pipeline_runner.activities.toolkit.context import step_key
from pipeline_runner.activities.toolkit.errors import refused
from pipeline_runner.activities.toolkit.heartbeat import heartbeating
from pipeline_runner.activities.toolkit.parameters import doc


@dataclass(frozen=True, kw_only=True)
class CreateVolumeInput:
    """The volume to create."""

    name: Annotated[str, doc("The volume's name.", pattern=NAME)]
    driver: Annotated[str, doc("The volume's driver.", min_length=1)] = "local"
    labels: Labels = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class VolumeCreated:
    """The volume."""

    name: Annotated[str, doc("The volume's name.")]
    mountpoint: Annotated[str, doc("The volume's path on the Engine's host.")]
    created: Annotated[bool, doc("False if an earlier attempt of this step created it.")]


@dataclass(frozen=True, kw_only=True)
class RemoveVolumeInput:
    """The volume to remove."""

    volume: Annotated[Annotated[str, Meta(pattern=NAME)] | None, doc("The volume's name.")] = None
    key: Key = None
    force: Force = False


class Volumes(Family):
    """The activities of this family."""

    @docker_activity("volume.create", undo=Undo("volume.remove", {"key": "{{ step.key }}"}))
    async def create(self, parameters: CreateVolumeInput) -> VolumeCreated:
        """Create a volume. A volume of the same name that this step did not create is an error."""
        name = parameters.name
        async with heartbeating():
            await wait_until_settled(step_key())
            before = await VOLUMES.look_up(self._engine, name)
            found = before or await self._make(parameters)
            # The Engine silently returns a volume that somebody else has created at this moment.
            if (own_labels() and not has_key(found, step_key())) or (before and step_key() is None):
                raise refused(f"there is another volume named {name}", "NameTaken")
        return VolumeCreated(name=name, mountpoint=found["Mountpoint"], created=before is None)

    async def _make(self, parameters: CreateVolumeInput) -> Any:
        labels = {**texts(parameters.labels), **own_labels()}
        key = step_key()

        def remove(docker: Any, made: Any) -> None:
            if has_key(made, key):  # else somebody else created it
                docker.remove_volume(made["Name"])

        return await self._engine.make(
            f"create volume {parameters.name}",
            lambda docker: docker.create_volume(parameters.name, driver=parameters.driver, labels=labels),
            remove,
        )

    @docker_activity("volume.remove")
    async def remove(self, parameters: RemoveVolumeInput) -> Removed:
        """Remove a volume and its content. A missing volume is not an error."""
        async with heartbeating():
            found = await VOLUMES.find_all(self._engine, parameters.volume, parameters.key)
            for name in found:
                await VOLUMES.remove(
                    self._engine, name, lambda docker, one: docker.remove_volume(one, force=parameters.force)
                )
        return Removed(removed=bool(found))
