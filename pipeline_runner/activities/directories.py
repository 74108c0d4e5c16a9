"""The ``directory`` family: folders of the worker's machine.

``directory.create`` remembers under the step's idempotency key what it made (how: see
``kept.py``), so that its undo removes that and nothing else::

    compensate:
      activity: directory.remove
      with: {path: "{{ step.input.path }}", key: "{{ step.key }}"}
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta
from temporalio import activity

from pipeline_runner.activities import kept
from pipeline_runner.activities.context import absolute, step_key
from pipeline_runner.activities.door import describe
from pipeline_runner.activities.errors import explained, refused
from pipeline_runner.activities.files import PATH, Key
from pipeline_runner.activities.pulse import pulse
from pipeline_runner.activities.strict import checked

Path = Annotated[str, Meta(pattern=PATH, description="The directory. Relative: to the run's directory.")]
AbsolutePath = Annotated[str, Meta(description="The directory's absolute path.")]


@dataclass(frozen=True, kw_only=True)
class CreateInput:
    """What to create."""

    path: Path


@dataclass(frozen=True, kw_only=True)
class RemoveInput:
    """What to remove."""

    path: Path
    recursive: Annotated[bool, Meta(description="Remove it with all that is in it.")] = False
    key: Annotated[
        Key | None,
        Meta(
            description="Remove it only if the step of this idempotency key created it, "
            "and the parents that it created with it: an undo."
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class Created:
    """What was created."""

    path: AbsolutePath
    created: Annotated[bool, Meta(description="False: it existed before this step.")]


@dataclass(frozen=True, kw_only=True)
class Removed:
    """What was removed."""

    path: AbsolutePath
    removed: Annotated[bool, Meta(description="False: there was nothing to remove.")]


@describe(inverse="directory.remove")
@activity.defn(name="directory.create", no_thread_cancel_exception=True)
@checked
def create(parameters: CreateInput) -> Created:
    """Create a directory, and its parents; it is fine if it exists."""
    path = os.path.realpath(absolute(parameters.path))
    with explained(f"create {path}"):
        if os.path.lexists(path) and not os.path.isdir(path):
            raise refused(f"cannot create {path}: there is a file of that name", "FileExists")
        key = step_key()
        made = (key and _recorded(path, key)) or _missing(path)
        if made and key:
            kept.keep_made(made[0], key, made)
            _make_first(made[0], kept.kept_folder(made[0], key))
        for directory in made[1:] if key else made:
            with suppress(FileExistsError):
                os.mkdir(directory)
            kept.sync_folder(os.path.dirname(directory))
    return Created(path=path, created=bool(made))


@activity.defn(name="directory.remove", no_thread_cancel_exception=True)
@checked
def remove(parameters: RemoveInput) -> Removed:
    """Remove a directory, which must be empty unless ``recursive``; it is fine if there is none."""
    path = os.path.realpath(absolute(parameters.path))
    beat = pulse()
    beat()
    with explained(f"remove {path}"):
        if parameters.key is not None:
            return Removed(path=path, removed=_undo(path, parameters.key, parameters.recursive))
        if not os.path.lexists(path):
            return Removed(path=path, removed=False)
        (shutil.rmtree if parameters.recursive else os.rmdir)(path)
        kept.sync_folder(os.path.dirname(path))
    return Removed(path=path, removed=True)


def _missing(path: str) -> tuple[str, ...]:
    """Return the directories that a path needs and that do not exist, outermost first."""
    missing: list[str] = []
    while not os.path.lexists(path):
        missing.insert(0, path)
        path = os.path.dirname(path)
    return tuple(missing)


def _recorded(path: str, key: str) -> tuple[str, ...]:
    """Return what an earlier attempt of this step set out to create; empty: nothing."""
    for top in _upwards(path):
        kept.finish_undo(top, key)
        record = kept.find(top, key)
        if record is not None:
            return record.made
    return ()


def _make_first(directory: str, folder: str) -> None:
    """Make the outermost directory by way of the kept folder: after an undo it is not made."""
    if os.path.isdir(directory):
        return
    new = kept.new_name(folder)
    os.mkdir(new)
    os.rename(new, directory)


def _undo(path: str, key: str, recursive: bool) -> bool:
    # The record stands beside the outermost directory that was created.
    return any(kept.put_back(top, key, recursive=recursive) for top in _upwards(path))


def _upwards(path: str) -> Iterator[str]:
    while path != os.path.dirname(path):
        yield path
        path = os.path.dirname(path)
