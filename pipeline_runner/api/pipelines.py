"""Pipelines for programs: loaded, checked, and ready to be started or served.

Imports no temporalio.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pipeline_runner.activities.catalogue.providers import Activity
from pipeline_runner.core import model
from pipeline_runner.core.inputs import validate_inputs
from pipeline_runner.language import workspace
from pipeline_runner.language.diagnostics import Diagnostic, render
from pipeline_runner.language.needs import needs_of
from pipeline_runner.language.workspace import Loaded, UsageError, check_paths


class InvalidPipeline(ValueError):
    """A pipeline has errors and cannot be started or served. The message shows all of them."""

    def __init__(self, path: str, diagnostics: tuple[Diagnostic, ...], sources: Mapping[str, str]) -> None:
        self.path = path
        self.diagnostics = diagnostics
        errors = [one for one in diagnostics if one.severity == "error"]
        shown = "\n".join(render(one, sources.get(one.path, "")) for one in errors)
        super().__init__(f"{path} has {len(errors)} {'error' if len(errors) == 1 else 'errors'}\n{shown}")


class Pipeline:
    """A pipeline with its children and its diagnostics.

    Created by :func:`load`, :func:`load_text` and :func:`load_directory`. Only if it is :attr:`ok` does it
    have a name and inputs, and can it be started and served.
    """

    def __init__(self, path: str, loaded: Loaded, activities: tuple[Activity, ...]) -> None:
        self.path = path
        """The path as given; ``<string>`` for a pipeline loaded from a string."""
        self.loaded = loaded
        """The result of the checker. Not part of the public interface."""
        self.activities = activities
        """The callables in ``activities``, which its workers serve."""

    def __repr__(self) -> str:
        return f"<Pipeline {self.path}{'' if self.ok else ', with errors'}>"

    @property
    def diagnostics(self) -> tuple[Diagnostic, ...]:
        """Errors and warnings, including those of its children, in order of position."""
        return self.loaded.diagnostics

    @property
    def ok(self) -> bool:
        """Whether the pipeline has no errors; it may have warnings."""
        return self.loaded.bundle is not None

    @property
    def bundle(self) -> model.Bundle:
        """The pipeline and its children, as sent to the server.

        Raises:
            InvalidPipeline: It has errors.
        """
        if self.loaded.bundle is None:
            raise InvalidPipeline(self.path, self.diagnostics, self.loaded.sources)
        return self.loaded.bundle

    @property
    def _root(self) -> model.Pipeline:
        return self.bundle.pipelines[self.bundle.root]

    @property
    def name(self) -> str:
        """The name under which workers serve it.

        Raises:
            InvalidPipeline: It has errors.
        """
        return self._root.name

    @property
    def description(self) -> str | None:
        """The pipeline's ``description``.

        Raises:
            InvalidPipeline: It has errors.
        """
        return self._root.description

    @property
    def inputs(self) -> dict[str, Any]:
        """The JSON Schema of each input, by name; inputs with ``default`` are optional.

        Raises:
            InvalidPipeline: It has errors.
        """
        return dict(self._root.inputs)

    @property
    def secrets(self) -> tuple[str, ...]:
        """The names of the secrets that its worker needs.

        Raises:
            InvalidPipeline: It has errors.
        """
        return needs_of(self.loaded).secrets if self.bundle else ()

    def check_inputs(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Validate the inputs of a run and return them with defaults filled in.

        Args:
            given: The values by name: JSON data.

        Raises:
            InvalidInputs: Inputs are unknown, missing or of the wrong type; ``problems`` lists all of them.
            InvalidPipeline: The pipeline itself has errors.
        """
        return validate_inputs(self._root.inputs, given)


def load(path: str | Path, *, activities: Iterable[str | Activity] = ()) -> Pipeline:
    """Load and check a pipeline file and the children that it names.

    Args:
        path: The file; diagnostics show its path as given.
        activities: Activities for its steps, in addition to the built-in ones and those of the nearest
            ``activities.yaml``: names of Python modules, or the activities themselves.

    Raises:
        UsageError: The file does not exist, a module cannot be imported, or a callable is not an activity.
    """
    given = tuple(activities)
    return _made(str(path), workspace.load(path, modules=given), given)


def load_text(
    text: str, *, base: str | Path | None = None, activities: Iterable[str | Activity] = ()
) -> Pipeline:
    """Load and check a pipeline from a string; diagnostics call it ``<string>``.

    Args:
        text: The pipeline, as YAML.
        base: The directory to search for its children and ``activities.yaml``; None: the current
            directory.
        activities: See :func:`load`.

    Raises:
        UsageError: A module cannot be imported, or a callable is not an activity.
    """
    given = tuple(activities)
    return _made(workspace.TEXT, workspace.load_text(text, base=base, modules=given), given)


def load_directory(path: str | Path, *, activities: Iterable[str | Activity] = ()) -> list[Pipeline]:
    """Load and check every pipeline file in a directory tree, as ``run-pipeline worker`` does.

    Args:
        path: The directory. Hidden files and directories and ``node_modules`` are skipped.
        activities: See :func:`load`.

    Raises:
        UsageError: The directory does not exist, something in it cannot be read, a module cannot be
            imported, or a callable is not an activity.
    """
    if not Path(path).is_dir():
        raise UsageError(f"there is no directory {path}")
    given = tuple(activities)
    checked = check_paths([path], modules=given)
    for problem in checked.unreadable:
        raise UsageError(problem)
    return [load(file, activities=given) for file in sorted(checked.files)]


def _made(path: str, loaded: Loaded, given: tuple[str | Activity, ...]) -> Pipeline:
    return Pipeline(path, loaded, tuple(one for one in given if not isinstance(one, str)))
