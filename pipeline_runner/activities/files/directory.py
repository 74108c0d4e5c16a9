"""The ``directory`` family: directories of the worker's machine.

``directory.create`` records under the step's idempotency key what it creates (see ``kept.py``), so that
its
undo removes exactly that::

    compensate:
      activity: directory.remove
      with: {path: "{{ step.input.path }}", key: "{{ step.key }}"}
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated

from pipeline_runner.activities.catalogue.undo import Undo
from pipeline_runner.activities.files.copying import sync_folder
from pipeline_runner.activities.files.file import PATH, Key, itself, put_back
from pipeline_runner.activities.files.kept import Kept, beside, new_name, remove_directory
from pipeline_runner.activities.toolkit.context import absolute, step_key, working_directory
from pipeline_runner.activities.toolkit.errors import explain_errors, refused
from pipeline_runner.activities.toolkit.heartbeat import pulse
from pipeline_runner.activities.toolkit.parameters import built_in, doc

Path = Annotated[str, doc("The directory. Relative paths are relative to the run's directory.", pattern=PATH)]
AbsolutePath = Annotated[str, doc("The directory's absolute path.")]


@dataclass(frozen=True, kw_only=True)
class CreateInput:
    """The directory to create."""

    path: Path


@dataclass(frozen=True, kw_only=True)
class RemoveInput:
    """The directory to remove."""

    path: Path
    recursive: Annotated[bool, doc("Remove the directory with everything in it.")] = False
    key: Annotated[
        Key | None,
        doc(
            "For an undo: remove the directory only if the step with this idempotency key created"
            " it, together with the parents that the step created."
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class Created:
    """The directory, and whether it was created."""

    path: AbsolutePath
    created: Annotated[bool, doc("False if the directory existed before this step.")]


@dataclass(frozen=True, kw_only=True)
class Removed:
    """Whether the directory was removed."""

    path: AbsolutePath
    removed: Annotated[bool, doc("False if there was nothing to remove.")]


@built_in(
    "directory.create",
    undo=Undo("directory.remove", {"path": "{{ step.input.path }}", "key": "{{ step.key }}"}),
)
def create(parameters: CreateInput) -> Created:
    """Create a directory and its parents. An existing directory is not an error."""
    path = os.path.realpath(absolute(parameters.path))
    with explain_errors(f"create {path}"):
        if os.path.lexists(path) and not os.path.isdir(path):
            raise refused(f"cannot create {path}: there is a file with that name", "FileExists")
        key = step_key()
        made = _missing(path) if key is None else _make_first(path, key)
        for directory in made[1:] if key else made:
            with suppress(FileExistsError):
                os.mkdir(directory)
            sync_folder(os.path.dirname(directory))
    return Created(path=path, created=bool(made))


@built_in("directory.remove")
def remove(parameters: RemoveInput) -> Removed:
    """Remove a directory, empty unless ``recursive`` is set. A missing directory is not an error.

    A symbolic link is not a directory and is never followed. `file.remove` removes links.
    """
    path = itself(parameters.path)
    beat = pulse()
    beat()
    with explain_errors(f"remove {path}"):
        if parameters.key is not None:
            return Removed(path=path, removed=_undo(parameters, parameters.key))
        if not os.path.lexists(path):
            return Removed(path=path, removed=False)
        if os.path.islink(path):
            raise refused(
                f"cannot remove {path}: it is a symbolic link, not a directory (file.remove removes links)",
                "NotADirectory",
            )
        _check_meant(path)
        remove_directory(path, recursive=parameters.recursive)
        sync_folder(os.path.dirname(path))
    return Removed(path=path, removed=True)


def _check_meant(path: str) -> None:
    """Refuse to remove a directory that can only be the result of an empty variable in a path.

    Raises:
        ApplicationError: The path is the root directory, the user's home directory or the working directory,
            or contains one of these.
    """
    # Compare the directories, not the paths: a path may begin with two slashes, or belong to a bind mount.
    if os.path.samefile(path, os.sep):
        raise refused(f"cannot remove {path}: it is the root directory", "ProtectedDirectory")
    for what, find in (("run's", working_directory), ("user's home", _home)):
        with suppress(OSError):
            protected = os.path.realpath(find())
            holder = next((one for one in _upwards(protected) if os.path.samefile(path, one)), None)
            if holder is not None:
                told = (
                    f"it is the {what} directory"
                    if holder == protected
                    else (f"it contains the {what} directory, {protected}")
                )
                raise refused(f"cannot remove {path}: {told}", "ProtectedDirectory")


def _home() -> str:
    home = os.path.expanduser("~")
    if not os.path.isabs(home):
        raise FileNotFoundError(home)
    return home


def _missing(path: str) -> tuple[str, ...]:
    """Return the directories that a path needs and that do not exist, outermost first."""
    missing: list[str] = []
    while not os.path.lexists(path):
        missing.insert(0, path)
        path = os.path.dirname(path)
    return tuple(missing)


def _kept(path: str, key: str) -> Kept:
    """Return the record of a path. Earlier versions kept it with the outermost directory that was created."""
    for top in _upwards(path):
        if beside(top, key).taken:
            return Kept(top, key)
    return Kept(path, key)


def _make_first(path: str, key: str) -> tuple[str, ...]:
    """Record what this step is about to create, and create the outermost directory of it.

    Return what this step creates, whichever attempt began with it. The outermost directory is created
    through the record, so that it is not created after an undo.
    """
    kept = _kept(path, key)
    kept.begin()
    if kept.path != path and kept.find() is None:
        kept = Kept(path, key)
    record = kept.find()
    made = record.made if record is not None else ()
    made = made or _missing(path)
    if not made:
        kept.keep_nothing()
        return ()
    try:
        kept.keep_made(made)
        if not os.path.isdir(made[0]):
            new = new_name(kept.near)
            os.mkdir(new)
            os.rename(new, made[0])
            sync_folder(os.path.dirname(made[0]))
    finally:
        kept.close()
    return made


def _undo(parameters: RemoveInput, key: str) -> bool:
    followed = os.path.realpath(absolute(parameters.path))
    paths = sorted({itself(parameters.path), followed})
    kept = [_kept(path, key) for path in paths]
    return put_back(kept, f"remove {paths[0]}", recursive=parameters.recursive, beat=pulse())


def _upwards(path: str) -> Iterator[str]:
    while path != os.path.dirname(path):
        yield path
        path = os.path.dirname(path)
