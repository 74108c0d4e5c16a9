"""The ``volume`` family: volumes of a Docker Engine."""

from dataclasses import dataclass, field
from typing import Annotated, Any

from msgspec import Meta
from temporalio import activity

from pipeline_runner.activities.catalogue.providers import describe
from pipeline_runner.activities.docker.engine import (
    EXTRA,
    NAME,
    TIMEOUTS,
    VOLUMES,
    Engine,
    Force,
    Key,
    Labels,
    has_key,
    own_labels,
    remove_and_wait,
    texts,
    wait_until_settled,
)
from pipeline_runner.activities.toolkit.context import step_key
from pipeline_runner.activities.toolkit.errors import refused
from pipeline_runner.activities.toolkit.heartbeat import heartbeating
from pipeline_runner.activities.toolkit.parameters import checked


@dataclass(frozen=True, kw_only=True)
class CreateVolumeInput:
    """The volume to create."""

    name: Annotated[str, Meta(pattern=NAME, description="The volume's name.")]
    driver: Annotated[str, Meta(min_length=1, description="The volume's driver.")] = "local"
    labels: Labels = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class VolumeCreated:
    """The volume."""

    name: Annotated[str, Meta(description="The volume's name.")]
    mountpoint: Annotated[str, Meta(description="The volume's path on the Engine's host.")]
    created: Annotated[bool, Meta(description="False if an earlier attempt of this step created it.")]


@dataclass(frozen=True, kw_only=True)
class RemoveVolumeInput:
    """The volume to remove."""

    volume: Annotated[Annotated[str, Meta(pattern=NAME)] | None, Meta(description="The volume's name.")] = (
        None
    )
    key: Key = None
    force: Force = False


@dataclass(frozen=True, kw_only=True)
class VolumeRemoved:
    """Whether the volume was removed."""

    removed: Annotated[bool, Meta(description="False if there was nothing to remove.")]


class Volumes:
    """The activities of this family, with one Engine."""

    def __init__(self, engine: Engine | None = None) -> None:
        """Use this Engine; default: the one that the environment names."""
        self._engine = engine or Engine()

    @describe(extra=EXTRA, timeouts=TIMEOUTS, inverse="volume.remove")
    @activity.defn(name="volume.create")
    @checked
    async def create(self, parameters: CreateVolumeInput) -> VolumeCreated:
        """Create a volume. A volume of the same name that this step did not create is an error."""
        name = parameters.name
        async with heartbeating():
            await wait_until_settled(step_key())
            before = await VOLUMES.there(self._engine, name)
            found = before or await self._make(parameters)
            # The Engine gives back a volume that somebody made in this moment, and says nothing.
            if (own_labels() and not has_key(found, step_key())) or (before and step_key() is None):
                raise refused(f"there is another volume named {name}", "NameTaken")
        return VolumeCreated(name=name, mountpoint=found["Mountpoint"], created=before is None)

    async def _make(self, parameters: CreateVolumeInput) -> Any:
        labels = {**texts(parameters.labels), **own_labels()}
        key = step_key()

        def remove(docker: Any, made: Any) -> None:
            if has_key(made, key):  # else it is somebody else's
                docker.remove_volume(made["Name"])

        return await self._engine.make(
            f"create volume {parameters.name}",
            lambda docker: docker.create_volume(parameters.name, driver=parameters.driver, labels=labels),
            remove,
        )

    @describe(extra=EXTRA, timeouts=TIMEOUTS)
    @activity.defn(name="volume.remove")
    @checked
    async def remove(self, parameters: RemoveVolumeInput) -> VolumeRemoved:
        """Remove a volume and its content. A missing volume is not an error."""
        async with heartbeating():
            found = await VOLUMES.meant(self._engine, parameters.volume, parameters.key)
            for name in found:
                await self._remove(name, force=parameters.force)
        return VolumeRemoved(removed=bool(found))

    async def _remove(self, name: str, *, force: bool) -> None:
        await remove_and_wait(
            self._engine,
            f"remove volume {name}",
            lambda docker: docker.remove_volume(name, force=force),
            lambda docker: docker.inspect_volume(name),
        )
