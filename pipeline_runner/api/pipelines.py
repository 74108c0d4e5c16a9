"""Pipelines as programs have them: loaded, checked, ready to be started or served.

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
    """A pipeline has errors, so that it cannot be started or served. The message shows all of them."""

    def __init__(self, path: str, diagnostics: tuple[Diagnostic, ...], sources: Mapping[str, str]) -> None:
        self.path = path
        self.diagnostics = diagnostics
        errors = [one for one in diagnostics if one.severity == "error"]
        shown = "\n".join(render(one, sources.get(one.path, "")) for one in errors)
        super().__init__(f"{path} has {len(errors)} {'error' if len(errors) == 1 else 'errors'}\n{shown}")


class Pipeline:
    """A pipeline with its children, and what the checker says of them.

    :func:`load`, :func:`load_text` and :func:`load_directory` make it. It has a name and inputs, and can be
    started and served, only if it is :attr:`ok`.
    """

    def __init__(self, path: str, loaded: Loaded, activities: tuple[Activity, ...]) -> None:
        self.path = path
        """The file, as it was given; ``<string>`` for a string."""
        self.loaded = loaded
        """What the language knows of it. Not part of the public interface."""
        self.activities = activities
        """The callables among ``activities``, which its workers serve."""

    def __repr__(self) -> str:
        return f"<Pipeline {self.path}{'' if self.ok else ', with errors'}>"

    @property
    def diagnostics(self) -> tuple[Diagnostic, ...]:
        """Errors and warnings, of its children too, in the order of their places."""
        return self.loaded.diagnostics

    @property
    def ok(self) -> bool:
        """Whether there are no errors; there may be warnings."""
        return self.loaded.bundle is not None

    @property
    def bundle(self) -> model.Bundle:
        """The pipeline as it is sent to the server, with its children.

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
        """Its name, by which workers serve it.

        Raises:
            InvalidPipeline: It has errors.
        """
        return self._root.name

    @property
    def description(self) -> str | None:
        """What it says of itself.

        Raises:
            InvalidPipeline: It has errors.
        """
        return self._root.description

    @property
    def inputs(self) -> dict[str, Any]:
        """The JSON Schema of each input, by name; one with ``default`` may be left out.

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
        """Return the inputs of a run, with defaults filled in.

        Args:
            given: The values by name: JSON data.

        Raises:
            InvalidInputs: Some are unknown, missing or of the wrong type; its ``problems`` are all of them.
            InvalidPipeline: The pipeline itself has errors.
        """
        return validate_inputs(self._root.inputs, given)


def load(path: str | Path, *, activities: Iterable[str | Activity] = ()) -> Pipeline:
    """Load and check a pipeline file, with the children that it names.

    Args:
        path: The file; diagnostics show its path as given.
        activities: What its steps can name beside the built-in activities and the nearest
            ``activities.yaml``: names of Python modules, or activities themselves.

    Raises:
        UsageError: There is no such file, a module cannot be imported, or a callable is no activity.
    """
    given = tuple(activities)
    return _made(str(path), workspace.load(path, modules=given), given)


def load_text(
    text: str, *, base: str | Path | None = None, activities: Iterable[str | Activity] = ()
) -> Pipeline:
    """Load and check a pipeline that is a string; diagnostics call it ``<string>``.

    Args:
        text: The pipeline, as YAML.
        base: The directory in which its children and ``activities.yaml`` are looked for; None: the
            current directory.
        activities: See :func:`load`.

    Raises:
        UsageError: A module cannot be imported, or a callable is no activity.
    """
    given = tuple(activities)
    return _made(workspace.TEXT, workspace.load_text(text, base=base, modules=given), given)


def load_directory(path: str | Path, *, activities: Iterable[str | Activity] = ()) -> list[Pipeline]:
    """Load and check every pipeline file in a directory and below, as ``run-pipeline worker`` does.

    Args:
        path: The directory. What is hidden, and what ``node_modules`` contains, is left out.
        activities: See :func:`load`.

    Raises:
        UsageError: There is no such directory, something in it cannot be read, a module cannot be imported,
            or a callable is no activity.
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
