"""The ``image`` family: the images of a Docker Engine and their tags.

The undo moves a tag back, if an earlier step has looked up the image that had it::

    - {id: before, activity: image.inspect, with: {image: "app:latest", optional: true}}
    - id: tag
      activity: image.tag
      with: {image: "app:2", tag: "app:latest", replace: true}
      compensate:
        activity: image.remove
        with:
          image: "{{ step.input.tag }}"
          of: "{{ step.input.image }}"
          restore: "{{ steps.before.output.id }}"
"""

from dataclasses import dataclass, field
from typing import Annotated, Any

from msgspec import Meta
from temporalio.exceptions import ApplicationError

from pipeline_runner.activities.catalogue.undo import Undo
from pipeline_runner.activities.docker.engine import (
    IMAGE,
    IMAGES,
    Engine,
    Family,
    Force,
    Image,
    Key,
    Removed,
    check_which,
    docker_activity,
)
from pipeline_runner.activities.docker.errors import is_type
from pipeline_runner.activities.toolkit.context import undone_outcome
from pipeline_runner.activities.toolkit.errors import refused
from pipeline_runner.activities.toolkit.heartbeat import heartbeating, remembered
from pipeline_runner.activities.toolkit.parameters import doc

Tag = Annotated[
    str,
    Meta(
        pattern=r"^[a-z0-9][a-z0-9_.:/-]*(:[A-Za-z0-9_.-]+)?$(?!\n)", description="The tag, such as `app:1`."
    ),
]


@dataclass(frozen=True, kw_only=True)
class InspectImageInput:
    """The image."""

    image: Image
    optional: Annotated[bool, doc("Do not fail if there is no such image. The `id` is null then.")] = False


@dataclass(frozen=True, kw_only=True)
class InspectImageOutput:
    """The properties of the image."""

    id: Annotated[str | None, doc("The image's id.")] = None
    tags: Annotated[list[str], doc("The image's tags.")] = field(default_factory=list)
    labels: Annotated[dict[str, str], doc("The image's labels.")] = field(default_factory=dict)
    created: Annotated[str | None, doc("The time of creation, in RFC 3339 format.")] = None
    size: Annotated[int | None, doc("The image's size in bytes.")] = None


@dataclass(frozen=True, kw_only=True)
class TagInput:
    """The image, and the tag to add."""

    image: Image
    tag: Tag
    replace: Annotated[bool, doc("Move the tag if it names another image.")] = False


@dataclass(frozen=True, kw_only=True)
class TagOutput:
    """The tagged image."""

    id: Annotated[str, doc("The image's id.")]
    tag: Annotated[str, doc("The full tag.")]
    replaced: Annotated[
        str | None,
        doc(
            "The id of the image that had the tag before the step, which may be the same"
            " image. Null if none had it."
        ),
    ]


@dataclass(frozen=True, kw_only=True)
class RemoveImageInput:
    """The image or tag to remove."""

    image: Annotated[
        Annotated[str, Meta(pattern=IMAGE)] | None,
        doc("The tag or id. If the image has other tags, only the given tag is removed."),
    ] = None
    key: Key = None
    of: Annotated[
        Annotated[str, Meta(pattern=IMAGE)] | None,
        doc("For an undo: remove the tag only if it names this image, given by tag or id."),
    ] = None
    restore: Annotated[
        Annotated[str, Meta(pattern=IMAGE)] | None,
        doc("The image to move the tag to instead of removing it. Null: none."),
    ] = None
    force: Force = False


class Images(Family):
    """The activities of this family."""

    @docker_activity("image.inspect", effect_free=True)
    async def inspect(self, parameters: InspectImageInput) -> InspectImageOutput:
        """Return the properties of an image."""
        async with heartbeating():
            found = await look(self._engine, parameters.image)
        if found is None and not parameters.optional:
            raise missing(parameters.image)
        if found is None:
            return InspectImageOutput()
        return InspectImageOutput(
            id=found["Id"],
            tags=sorted(found.get("RepoTags") or []),
            labels=(found.get("Config") or {}).get("Labels") or {},
            created=found.get("Created"),
            size=found.get("Size"),
        )

    @docker_activity(
        "image.tag",
        # Only a completed step knows which image had the tag.
        undo=Undo(
            "image.remove",
            {
                "image": "{{ step.output.tag }}",
                "of": "{{ step.output.id }}",
                "restore": "{{ step.output.replaced }}",
            },
            after="completed",
        ),
    )
    async def tag(self, parameters: TagInput) -> TagOutput:
        """Add a tag to an image.

        A tag that names another image is moved only with ``replace``, and moved back by the
        undo. Which image had it is unknown if the outcome of the step is unknown: then inspect
        it in an earlier step, and use ``of`` and ``restore`` of ``image.remove``.
        """
        async with heartbeating() as heart:
            image, tag = parameters.image, full(parameters.tag)
            found = await look(self._engine, image)
            if found is None:
                raise missing(image)
            other = await look(self._engine, tag)
            before = remembered() or {"replaced": other and other["Id"]}
            if other is not None and other["Id"] != found["Id"] and not parameters.replace:
                raise tag_taken(tag)
            if other is None or other["Id"] != found["Id"]:
                await heart.remember(before)
                await apply(self._engine, found["Id"], tag)
        return TagOutput(id=found["Id"], tag=tag, replaced=before["replaced"])

    @docker_activity("image.remove")
    async def remove(self, parameters: RemoveImageInput) -> Removed:
        """Remove an image or a tag. A missing image or tag is not an error.

        With ``key``, removes the image with all its tags, but not the images that it was made
        from.
        """
        check_which(parameters.image, parameters.key, "image")
        if parameters.key is not None and (parameters.of is not None or parameters.restore is not None):
            raise refused("of and restore are not allowed with a key", "InvalidInput")
        async with heartbeating():
            if parameters.key is not None:
                own = await IMAGES.find_all(self._engine, parameters.image, parameters.key)
                for one in own:
                    await discard(self._engine, one)
                return Removed(removed=bool(own))
            assert parameters.image is not None  # by check_which
            found = await look(self._engine, parameters.image)
            if found is None or not await self._is(found, parameters.of):
                return Removed(removed=False)
            await self._remove(parameters, parameters.image)
        return Removed(removed=True)

    async def _is(self, found: Any, of: str | None) -> bool:
        if of is None:
            return True
        other = await look(self._engine, of)
        return other is not None and other["Id"] == found["Id"]

    async def _remove(self, parameters: RemoveImageInput, image: str) -> None:
        if parameters.restore is not None:
            try:
                return await apply(self._engine, parameters.restore, full(image))
            except ApplicationError as error:
                # The other image has been removed in the meantime, so there is nothing to restore. This does
                # not undo a completed step: its tag named the other image before.
                if not is_type(error, "ImageNotFound") or undone_outcome() == "completed":
                    raise
        await IMAGES.remove(
            self._engine, image, lambda docker, one: docker.remove_image(one, force=parameters.force)
        )
        return None


def split(image: str) -> tuple[str, str]:
    """Return the repository and the tag of a reference (default: ``latest``), or its digest."""
    if "@" in image:
        repository, _, digest = image.partition("@")
        return repository, digest
    repository, colon, tag = image.rpartition(":")
    return (repository, tag) if colon and "/" not in tag else (image, "latest")


def full(tag: str) -> str:
    """Return a tag with ``:latest`` if it has no other."""
    return ":".join(split(tag))


def missing(image: str) -> ApplicationError:
    """Return the error for an image that does not exist."""
    return refused(f"there is no image {image}", "ImageNotFound")


def tag_taken(tag: str) -> ApplicationError:
    """Return the error for a tag that names another image."""
    return refused(f"the tag {tag} names another image", "TagTaken")


async def look(engine: Engine, image: str) -> Any:
    """Return the Engine's description of an image; None: there is no such image."""
    return await IMAGES.look_up(engine, image)


async def apply(engine: Engine, image: str, tag: str) -> None:
    """Make a tag name an image, whatever it named before."""
    repository, name = split(tag)
    await engine.call(
        f"tag image {image}", lambda docker: docker.tag(image, repository, name, force=True), effect=True
    )


def remove_image(docker: Any, image: str) -> None:
    """Remove an image with all its tags, but not the images that it was built from."""
    docker.remove_image(image, force=True, noprune=True)


async def discard(engine: Engine, image: str) -> None:
    """Remove an image with all its tags, but not those that it was built from.

    A missing one is not an error.
    """
    await IMAGES.remove(engine, image, remove_image, shown=image[:19])
