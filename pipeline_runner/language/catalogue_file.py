"""The catalogue of a pipeline file: what comes with the product, plugins, and ``activities.yaml``.

Later sources win: built-in, entry points, the modules of ``activities.yaml``, the modules of
the command line, the activities declared in ``activities.yaml``; the last go field by field
over an entry of the same name. Python modules are imported only where one is named.
"""

import os
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from pipeline_runner.activities import door
from pipeline_runner.activities.catalogue import Catalogue, Entry, builtin
from pipeline_runner.language import loader, policies
from pipeline_runner.language.checks.schemas import check_schema
from pipeline_runner.language.diagnostics import Diagnostic, has_errors
from pipeline_runner.language.fields import ACTIVITIES_FILE
from pipeline_runner.language.nodes import START, Mapping, Node, Scalar, Source, plain

NAMES = ("activities.yaml", "activities.yml")
_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


@dataclass(frozen=True, kw_only=True)
class Activities:
    """The catalogue of the pipelines below a folder, and where it comes from."""

    catalogue: Catalogue
    modules: tuple[str, ...] = ()
    """Python modules that the worker serves, without the built-in ones."""
    folder: Path | None = None
    """Where ``activities.yaml`` is, which its modules are found from; None without one."""
    sources: tuple[Source, ...] = ()
    diagnostics: tuple[Diagnostic, ...] = field(default=())


def nearest(folder: Path) -> Path | None:
    """Return the ``activities.yaml`` in a folder or the nearest above it."""
    for candidate in (folder, *folder.parents):
        for name in NAMES:
            if (candidate / name).is_file():
                return candidate / name
    return None


def without_file(modules: Iterable[str]) -> Activities:
    """Return the catalogue where there is no ``activities.yaml``.

    Raises:
        ProviderError: A module cannot be imported or offers nothing.
    """
    return _assembled((), tuple(modules))


def read(path: Path, shown: str, modules: Iterable[str]) -> Activities:
    """Read an ``activities.yaml`` on top of everything below it.

    Args:
        path: The file.
        shown: The path that messages show.
        modules: The modules of the command line.

    Raises:
        ProviderError: A module of the command line or an entry point cannot be imported.
    """
    named = tuple(modules)
    _importable(path.parent)
    base = _assembled((), named)
    try:
        source, diagnostics = loader.read(path, shown)
    except OSError as error:
        source = Source(shown, "")
        diagnostics = [source.error(START, "unreadable-file", f"the file cannot be read: {error.strerror}")]
    root: Node | None = None
    if not diagnostics:
        root, diagnostics = loader.load(source)
    if root is not None:
        diagnostics = list(_check(root, source))
    if not isinstance(root, Mapping):
        return Activities(
            catalogue=base.catalogue,
            modules=base.modules,
            folder=path.parent,
            sources=(source,),
            diagnostics=tuple(diagnostics),
        )
    own, problems = _imported(root, source, path.parent)
    whole = _assembled(own, named)
    declared = _declared(root, whole.catalogue, sound=not has_errors(diagnostics))
    return Activities(
        catalogue=whole.catalogue.extended(declared),
        modules=whole.modules,
        folder=path.parent,
        sources=(source,),
        diagnostics=(*diagnostics, *problems),
    )


def _assembled(own: tuple[str, ...], named: tuple[str, ...]) -> Activities:
    modules = tuple(dict.fromkeys([*door.entry_points(), *own, *named]))
    catalogue = builtin()
    for module in modules:
        catalogue = catalogue.extended(door.catalogue_of(module))
    return Activities(catalogue=catalogue, modules=modules)


def _importable(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _check(root: Node, source: Source) -> Iterator[Diagnostic]:
    yield from ACTIVITIES_FILE.check(root, source, "activities.yaml")
    activities = root.mapping("activities") if isinstance(root, Mapping) else None
    for entry in activities or ():
        for key in ("input", "output"):
            schema = entry.value.mapping(key) if isinstance(entry.value, Mapping) else None
            if schema:
                yield from check_schema(source, schema)


def _imported(root: Mapping, source: Source, folder: Path) -> tuple[tuple[str, ...], list[Diagnostic]]:
    """Return the modules of the file that can be imported, and what is wrong with the others."""
    good: list[str] = []
    problems: list[Diagnostic] = []
    seen: set[str] = set()
    for node in root.items("modules"):
        name = node.value if isinstance(node, Scalar) else None
        if not isinstance(name, str) or not name.strip() or name in seen:
            continue
        seen.add(name)
        problem = _module_problem(node, name, source, folder)
        if problem:
            problems.append(problem)
        else:
            good.append(name)
    return tuple(good), problems


def _module_problem(node: Node, name: str, source: Source, folder: Path) -> Diagnostic | None:
    if not _MODULE.fullmatch(name):
        return _no_name(node, name, source)
    try:
        door.catalogue_of(name)
    except door.ProviderError as error:
        if not _is_missing(name, error):
            return source.error(node.span, "bad-module", str(error))
        if name.endswith(".py"):
            return _no_name(node, name, source)
        # The folder of the file comes before that of the command, which the error names.
        where = f"looked for in {folder} and where Python looks for modules"
        return source.error(node.span, "bad-module", f'there is no Python module "{name}" ({where})')
    return None


def _no_name(node: Node, name: str, source: Source) -> Diagnostic:
    dotted = re.sub(r"[/\\]+", ".", re.sub(r"^(\.*[/\\])+|\.py$", "", name))
    help_ = f"write {dotted}" if _MODULE.fullmatch(dotted) else 'write it as "import" does: shop.activities'
    return source.error(node.span, "bad-module", f'"{name}" is not the name of a Python module', help_)


def _is_missing(name: str, error: door.ProviderError) -> bool:
    """Tell whether it is the module itself that is not there, and not one that it imports."""
    cause = error.__context__
    return isinstance(cause, ModuleNotFoundError) and f"{name}.".startswith(f"{cause.name}.")


def _declared(root: Mapping, below: Catalogue, *, sound: bool) -> Iterator[Entry]:
    """Yield the declared activities; in a file with mistakes their names alone can be relied on."""
    for name, node in ((entry.name, entry.value) for entry in root.mapping("activities") or ()):
        if not isinstance(node, Mapping) or not sound:
            yield Entry(name=name)
            continue
        entry = below.get(name) or Entry(name=name)
        said: dict[str, Any] = {
            key: plain(node.get(key) or node)
            for key in ("description", "task_queue", "input", "output", "effect_free", "inverse")
            if key in node
        }
        if "input" in said:  # then it takes one argument, whatever the code says
            said["arguments"] = None
        yield msgspec.structs.replace(
            entry,
            timeouts=policies.merged(entry.timeouts, policies.timeouts(node.get("timeouts"))),
            retry=policies.merged(entry.retry, policies.retry(node.get("retry"))),
            **said,
        )


def shown_path(path: Path, beside: str) -> str:
    """Return a path as messages show it: relative where the pipeline's is."""
    return str(path) if os.path.isabs(beside) else os.path.relpath(path)
