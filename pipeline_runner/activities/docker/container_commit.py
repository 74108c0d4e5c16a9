"""How ``container.commit`` works: one image per step, whichever attempt creates it."""

from dataclasses import dataclass
from typing import Annotated, Any

from temporalio.exceptions import ApplicationError

from pipeline_runner.activities.docker import container_state as state
from pipeline_runner.activities.docker.engine import IMAGES, LONG_PATIENCE, Container, Engine, own_labels
from pipeline_runner.activities.docker.errors import is_type
from pipeline_runner.activities.docker.image import (
    Tag,
    apply,
    discard,
    full,
    look,
    remove_image,
    split,
    tag_taken,
)
from pipeline_runner.activities.toolkit.errors import uncertain
from pipeline_runner.activities.toolkit.parameters import doc


@dataclass(frozen=True, kw_only=True)
class CommitInput:
    """The container, and the image to create from it."""

    container: Container
    image: Annotated[Tag, doc("The image's name, such as `app:1`. It must not name another image.")]
    message: Annotated[str | None, doc("A message for the image's history.")] = None
    author: Annotated[str | None, doc("The author of the image.")] = None
    pause: Annotated[bool, doc("Pause the container while the image is created.")] = True


@dataclass(frozen=True, kw_only=True)
class CommitOutput:
    """The image that was created."""

    id: Annotated[str, doc("The image's id.")]
    image: Annotated[str, doc("The image's full name.")]
    created: Annotated[bool, doc("False if an earlier attempt of this step created it.")]


async def commit(engine: Engine, parameters: CommitInput) -> CommitOutput:
    """Create an image of a container, or use the one that an earlier attempt has created."""
    container, tag = parameters.container, full(parameters.image)
    found = await state.find(engine, container)
    image = await IMAGES.own(engine)
    named = await look(engine, tag)
    if named is not None and named["Id"] != image:
        raise tag_taken(tag)
    created = image is None
    if image is None:
        image = await _make(engine, parameters, found["Id"])
    elif named is None:  # the earlier attempt was interrupted before it set the tag
        await apply(engine, image, tag)
    return CommitOutput(id=image, image=tag, created=created)


async def _make(engine: Engine, parameters: CommitInput, container: str) -> str:
    repository, tag = split(parameters.image)
    changes = [f'LABEL {name}="{_quoted(value)}"' for name, value in own_labels().items()]

    def make(docker: Any) -> str:
        made = docker.commit(
            container,
            repository=repository,
            tag=tag,
            message=parameters.message,
            author=parameters.author,
            pause=parameters.pause,
            changes=changes,
        )
        return str(made["Id"])

    doing = f"commit container {parameters.container}"
    try:
        return await engine.make(doing, make, remove_image, patience=LONG_PATIENCE)
    except ApplicationError as error:
        if not is_type(error, "DockerError"):
            raise
        # An error of the Engine itself, such as a full disk: a part of the image may exist.
        raise await _discard(engine, error) from None


async def _discard(engine: Engine, error: ApplicationError) -> ApplicationError:
    """Remove what exists of the image. Return the error, marked as uncertain if the removal fails too."""
    try:
        image = await IMAGES.own(engine)
        if image is not None:
            await discard(engine, image)
    except ApplicationError:
        return uncertain(error)
    return error


def _quoted(value: str) -> str:
    """Return a value as it is written between quotes in a Dockerfile."""
    for special in ("\\", '"', "$"):
        value = value.replace(special, f"\\{special}")
    return " ".join(value.splitlines())
