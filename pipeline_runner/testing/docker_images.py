"""The images of the fake Engine."""

import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pipeline_runner.activities.docker.image import split
from pipeline_runner.testing.docker_base import answer, fits, operation


def now() -> str:
    """Return the time in the Engine's format."""
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


@dataclass(eq=False)
class Image:
    """An image."""

    id: str
    labels: dict[str, str] = field(default_factory=dict)
    command: list[str] = field(default_factory=list)
    parent: str = ""
    created: str = field(default_factory=now)


class Images:
    """The images and their tags.

    Args:
        new_id: Returns an unused id.
        users: Returns the id of each container of an image, and whether it is running.
    """

    def __init__(
        self, new_id: Callable[[], str], users: Callable[[Image], Iterable[tuple[str, bool]]]
    ) -> None:
        self._new_id, self._users = new_id, users
        self._images: dict[str, Image] = {}
        self._tags: dict[str, str] = {}
        self._registry: dict[str, Image] = {}

    def add(self, name: str, *, labels: dict[str, str] | None = None) -> str:
        """Add an image, and return its id."""
        image = Image(f"sha256:{self._new_id()}", dict(labels or {}), ["sh"])
        self._images[image.id] = image
        self._tags[":".join(split(name))] = image.id
        return image.id

    def add_to_registry(self, name: str) -> None:
        """Add an image to the registry, from which it can be pulled."""
        self._registry[":".join(split(name))] = Image(f"sha256:{self._new_id()}", {}, ["sh"])

    @property
    def tags(self) -> dict[str, str]:
        """The id of the image that each tag names."""
        return dict(sorted(self._tags.items()))

    def name_of(self, target: str) -> str | None:
        """Return a tag of the image with this id."""
        image = self._images.get(target)
        return None if image is None else next(iter(self.tags_of(image)), target)

    def get(self, reference: str) -> Image:
        """Return an existing image by its tag or id."""
        found = self._tags.get(":".join(split(reference)))
        for image in self._images.values():
            digits = image.id.removeprefix("sha256:")
            if image.id in {found, reference} or digits == reference:
                return image
        shown = reference if ":" in reference else f"{reference}:latest"
        raise answer(404, f"No such image: {shown}")

    def tags_of(self, image: Image) -> list[str]:
        """Return the tags of an image."""
        return sorted(tag for tag, named in self._tags.items() if named == image.id)

    def _layers(self, image: Image) -> list[str]:
        """Return a layer for each image that it is built on, its own last."""
        below = self._images.get(image.parent)
        return [*(self._layers(below) if below else []), image.id]

    @operation(changes=False)
    def inspect_image(self, image: str) -> dict[str, Any]:
        """Return the description of an image."""
        found = self.get(image)
        return {
            "Id": found.id,
            "RepoTags": self.tags_of(found),
            "Parent": found.parent,
            "Created": found.created,
            "Size": 1_000_000,
            "Config": {"Labels": dict(found.labels), "Cmd": list(found.command)},
            "RootFS": {"Type": "layers", "Layers": self._layers(found)},
        }

    @operation(changes=False)
    def images(
        self,
        name: str | None = None,
        quiet: bool = False,
        all: bool = False,  # noqa: A002 - the client's name
        filters: Any = None,
    ) -> list[Any]:
        """List images."""
        found = [
            image
            for image in self._images.values()
            if fits(image.labels, filters)
            and (name is None or any(name in {tag, split(tag)[0]} for tag in self.tags_of(image)))
        ]
        if quiet:
            return [image.id for image in found]
        return [
            {"Id": image.id, "RepoTags": self.tags_of(image), "Labels": dict(image.labels)} for image in found
        ]

    @operation(changes=True)
    def pull(
        self, repository: str, tag: str | None = None, stream: bool = False, decode: bool = False
    ) -> Any:
        """Pull an image from the registry. See :meth:`add_to_registry`."""
        name = ":".join((repository, tag or "latest"))
        image = self._registry.get(name)
        if image is None:
            raise answer(
                404,
                f"pull access denied for {repository}, repository does not exist"
                " or may require 'docker login': denied: requested access to the resource is denied",
            )
        self._images[image.id] = image
        self._tags[name] = image.id
        lines = [
            {"status": f"Pulling from {repository}", "id": tag},
            {"status": "Downloading", "id": "layer", "progressDetail": {"current": 500, "total": 1000}},
            {"status": "Downloading", "id": "layer", "progressDetail": {"current": 1000, "total": 1000}},
            {"status": f"Status: Downloaded newer image for {name}"},
        ]
        return iter(lines) if stream else str(lines)

    @operation(changes=True)
    def tag(self, image: str, repository: str, tag: str | None = None, force: bool = False) -> bool:
        """Set a tag of an image, even if it names another image."""
        self._tags[f"{repository}:{tag or 'latest'}"] = self.get(image).id
        return True

    @operation(changes=True)
    def remove_image(self, image: str, force: bool = False, noprune: bool = False) -> list[Any]:
        """Remove a tag, and the image with its last tag."""
        found = self.get(image)
        tags = self.tags_of(found)
        name = ":".join(split(image))
        if name in tags and len(tags) > 1:
            del self._tags[name]
            return [{"Untagged": name}]
        if name not in tags and len(tags) > 1 and not force:
            raise answer(
                409,
                f"conflict: unable to delete {found.id[7:19]} (must be forced)"
                " - image is referenced in multiple repositories",
            )
        self._check_unused(found, image, force=force)
        for tag in tags:
            del self._tags[tag]
        del self._images[found.id]
        if not noprune:
            self._prune(found.parent)
        return [*({"Untagged": tag} for tag in tags), {"Deleted": found.id}]

    def _check_unused(self, image: Image, reference: str, *, force: bool) -> None:
        for container, running in self._users(image):
            if running:
                raise answer(
                    409,
                    f"conflict: unable to delete {image.id[7:19]} (cannot be forced)"
                    f" - image is being used by running container {container[:12]}",
                )
            if not force:
                raise answer(
                    409,
                    f'conflict: unable to remove repository reference "{reference}" (must force)'
                    f" - container {container[:12]} is using its referenced image {image.id[7:19]}",
                )
        if any(child.parent == image.id for child in self._images.values()):
            raise answer(
                409,
                f"conflict: unable to delete {image.id[7:19]} (cannot be forced)"
                " - image has dependent child images",
            )

    def _prune(self, parent: str) -> None:
        image = self._images.get(parent)
        children = any(child.parent == parent for child in self._images.values())
        if image is not None and not self.tags_of(image) and not children and not any(self._users(image)):
            del self._images[parent]
            self._prune(image.parent)

    def add_layer(
        self, base: Image, labels: dict[str, str], name: str | None, changes: list[str] | str | None
    ) -> Image:
        """Create an image on top of another one."""
        image = Image(f"sha256:{self._new_id()}", dict(labels), list(base.command), base.id)
        for change in [changes] if isinstance(changes, str) else changes or []:
            instruction, _, rest = change.partition(" ")
            if instruction == "LABEL":
                image.labels.update(part.split("=", 1) for part in shlex.split(rest))  # type: ignore[misc]
        self._images[image.id] = image
        if name is not None:
            self._tags[name] = image.id
        return image
