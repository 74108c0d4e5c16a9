"""The catalogue of a pipeline file: built-in activities, Python modules, and ``activities.yaml``.

Later sources take precedence: built-in activities, entry points, the modules of ``activities.yaml``,
the modules of the command line, the activities declared in ``activities.yaml``. The last ones override
single fields of an entry with the same name. Python modules are imported only where one is named, and
not even then if the caller wants none: then a catalogue that was written earlier replaces them.
"""

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec

from pipeline_runner.activities.catalogue import providers
from pipeline_runner.activities.catalogue.entries import Catalogue, Entry, builtin
from pipeline_runner.activities.catalogue.providers import Activity, Provider
from pipeline_runner.activities.catalogue.undo import Undo
from pipeline_runner.core.inputs import schema_problems
from pipeline_runner.language import policies
from pipeline_runner.language.checks import undos
from pipeline_runner.language.checks.schemas import check_schema
from pipeline_runner.language.diagnostics import Diagnostic, has_errors
from pipeline_runner.language.table.fields import ACTIVITIES_FILE
from pipeline_runner.language.yaml import loader
from pipeline_runner.language.yaml.nodes import START, MappingNode, Node, Scalar, Source, plain

NAMES = ("activities.yaml", "activities.yml")
LOCK = "activities.lock.json"
"""The file beside it with the known activities, written by ``run-pipeline activities --json``."""
MAX_LOCK = 16 * 1024 * 1024
"""The maximum size of such a file in bytes."""
_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


@dataclass(frozen=True, kw_only=True)
class Activities:
    """The catalogue of the pipelines below a directory, and its source."""

    catalogue: Catalogue
    modules: tuple[Provider, ...] = ()
    """Python modules that the worker serves, without the built-in ones."""
    unread: tuple[str, ...] = ()
    """Modules that were not imported, and whose activities are not known."""
    sources: tuple[Source, ...] = ()
    root: MappingNode | None = None
    """The content of the file, if its YAML is valid."""
    diagnostics: tuple[Diagnostic, ...] = field(default=())


def nearest(folder: Path) -> Path | None:
    """Return the ``activities.yaml`` in a directory or in the nearest one above it."""
    for candidate in (folder, *folder.parents):
        for name in NAMES:
            with suppress(OSError):  # a directory that cannot be read has none for us
                if (candidate / name).is_file():
                    return candidate / name
    return None


def without_file(given: Iterable[str | Activity], *, imports: bool = True) -> Activities:
    """Return the catalogue where there is no ``activities.yaml``.

    Raises:
        ProviderError: A module cannot be imported or provides nothing, or a callable is not an activity.
    """
    if not imports:
        return Activities(catalogue=builtin())
    return _assembled((), tuple(given), None)


def read(path: Path, shown: str, given: Iterable[str | Activity], *, imports: bool = True) -> Activities:
    """Read an ``activities.yaml``, and add it to everything of lower precedence.

    Args:
        path: The file.
        shown: The path that messages show.
        given: Modules and activities of the command line or the caller.
        imports: Whether modules may be imported, which runs their code.

    Raises:
        ProviderError: A given module or an entry point cannot be imported, or a callable is not an activity.
    """
    named = tuple(given)
    base = _assembled((), named, path.parent) if imports else Activities(catalogue=builtin())
    try:
        source, diagnostics = loader.read(path, shown)
    except OSError as error:
        source = Source(shown, "")
        diagnostics = [
            source.diagnostic(START, "unreadable-file", f"the file cannot be read: {error.strerror}")
        ]
    root: Node | None = None
    if not diagnostics:
        root, diagnostics = loader.load(source)
    if root is not None:
        diagnostics = list(_check(root, source))
    if not isinstance(root, MappingNode):
        return Activities(
            catalogue=base.catalogue,
            modules=base.modules,
            sources=(source,),
            diagnostics=tuple(diagnostics),
        )
    own, problems = _own(root, source, path.parent, imports=imports)
    if imports:
        whole = _assembled(own, named, path.parent)
    else:
        whole, more = _locked(path.parent, shown, tuple(one.module for one in own))
        problems += more
    sound = not has_errors(diagnostics)
    catalogue = whole.catalogue.extended(_declared(root, whole.catalogue, sound=sound))
    if sound:
        complete = not whole.unread and not has_errors(problems)
        problems += undos.check(root, source, path, catalogue, complete=complete)
    return Activities(
        catalogue=catalogue,
        modules=whole.modules,
        unread=whole.unread,
        sources=(source,),
        root=root,
        diagnostics=(*diagnostics, *problems),
    )


def _assembled(
    own: tuple[Provider, ...], given: tuple[str | Activity, ...], folder: Path | None
) -> Activities:
    last = [providers.provider(one, folder) for one in given if isinstance(one, str)]
    modules = tuple(dict.fromkeys([*map(Provider, providers.entry_points()), *own, *last]))
    catalogue = builtin()
    for module in modules:
        catalogue = catalogue.extended(providers.catalogue_of(*module))
    functions = providers.entries_of(one for one in given if not isinstance(one, str))
    return Activities(catalogue=catalogue.extended(functions), modules=modules)


def _locked(folder: Path, shown: str, modules: tuple[str, ...]) -> tuple[Activities, list[Diagnostic]]:
    """Return the entries of the lock file, and its errors. Without one, the modules are unread."""
    path = folder / LOCK
    source = Source(os.path.join(os.path.dirname(shown), LOCK), "")
    try:
        with path.open("rb") as file:
            data = file.read(MAX_LOCK + 1)
        entries = _entries(data)
    except FileNotFoundError:
        return Activities(catalogue=builtin(), unread=modules), []
    except (OSError, ValueError, RecursionError) as error:
        message = f"the file cannot be used: {getattr(error, 'strerror', None) or error}"
        help_ = f"write it again: run-pipeline activities --json > {LOCK}"
        problem = source.diagnostic(START, "unreadable-file", message, help_)
        return Activities(catalogue=builtin(), unread=modules), [problem]
    return Activities(catalogue=builtin().extended(entries)), []


def _entries(data: bytes) -> list[Entry]:
    """Return the entries of a lock file that are not built in.

    Raises:
        ValueError: It is not a lock file.
    """
    if len(data) > MAX_LOCK:
        raise ValueError(f"it has more than {MAX_LOCK:,} bytes")
    known = builtin()
    found = [entry for entry in msgspec.json.decode(data, type=list[Entry]) if known.get(entry.name) != entry]
    for entry in found:
        schemas = [entry.input, entry.output, *(one.schema for one in entry.arguments or ())]
        for problem in (
            problem for schema in schemas if schema is not None for problem in schema_problems(schema)
        ):
            raise ValueError(f'a schema of "{entry.name}" is not a valid JSON Schema: {problem[1]}')
    return found


def _check(root: Node, source: Source) -> Iterator[Diagnostic]:
    yield from ACTIVITIES_FILE.check(root, source, "activities.yaml")
    activities = root.mapping("activities") if isinstance(root, MappingNode) else None
    for entry in activities or ():
        for key in ("input", "output"):
            schema = entry.value.mapping(key) if isinstance(entry.value, MappingNode) else None
            if schema:
                yield from check_schema(source, schema)


def _own(
    root: MappingNode, source: Source, folder: Path, *, imports: bool
) -> tuple[tuple[Provider, ...], list[Diagnostic]]:
    """Return the modules of the file that can be imported, and the errors of the others."""
    good: list[Provider] = []
    problems: list[Diagnostic] = []
    seen: set[str] = set()
    for node in root.items("modules"):
        name = node.value if isinstance(node, Scalar) else None
        if not isinstance(name, str) or not name.strip() or name in seen:
            continue
        seen.add(name)
        problem = _module_problem(node, name, source, folder, imports=imports)
        if problem:
            problems.append(problem)
        else:
            good.append(providers.provider(name, folder) if imports else Provider(name))
    return tuple(good), problems


def _module_problem(
    node: Node, name: str, source: Source, folder: Path, *, imports: bool
) -> Diagnostic | None:
    if not _MODULE.fullmatch(name):
        return _no_name(node, name, source)
    if not imports:
        return None
    try:
        providers.catalogue_of(name, folder)
    except providers.MissingModule as error:
        if name.endswith(".py"):
            return _no_name(node, name, source)
        return source.diagnostic(node.span, "bad-module", str(error))
    except providers.ProviderError as error:
        return source.diagnostic(node.span, "bad-module", str(error))
    return None


def _no_name(node: Node, name: str, source: Source) -> Diagnostic:
    dotted = re.sub(r"[/\\]+", ".", re.sub(r"^(\.*[/\\])+|\.py$", "", name))
    help_ = f"write {dotted}" if _MODULE.fullmatch(dotted) else 'write it as in "import": shop.activities'
    return source.diagnostic(node.span, "bad-module", f'"{name}" is not the name of a Python module', help_)


def _declared(root: MappingNode, below: Catalogue, *, sound: bool) -> Iterator[Entry]:
    """Yield the declared activities. In a file with errors, only their names are reliable."""
    for name, node in ((entry.name, entry.value) for entry in root.mapping("activities") or ()):
        if not isinstance(node, MappingNode) or not sound:
            yield Entry(name=name)
            continue
        entry = below.get(name) or Entry(name=name)
        said: dict[str, Any] = {
            key: plain(node.get(key) or node)
            for key in ("description", "task_queue", "input", "output", "effect_free", "secrets")
            if key in node
        }
        if "undo" in node:
            said["undo"] = _undo(node.get("undo"))
        elif said.get("effect_free"):  # then an undo declared in the code no longer applies
            said["undo"] = None
        if "input" in said:  # then it accepts one argument, whatever the code says
            said["arguments"] = None
        yield msgspec.structs.replace(
            entry,
            timeouts=policies.merged(entry.timeouts, policies.timeouts(node.get("timeouts"))),
            retry=policies.merged(entry.retry, policies.retry(node.get("retry"))),
            **said,
        )


def _undo(node: Node | None) -> Undo | Literal["none"]:
    if not isinstance(node, MappingNode):
        return "none"
    said = {key: plain(value) for key in ("args", "after", "task_queue") if (value := node.get(key))}
    return Undo(
        activity=node.text("activity") or "",
        input=plain(given) if (given := node.get("with")) else None,
        timeouts=policies.timeouts(node.get("timeouts")),
        retry=policies.retry(node.get("retry")),
        **said,
    )


def shown_path(path: Path, beside: str) -> str:
    """Return a path as messages show it: relative if the pipeline's path is."""
    return str(path) if os.path.isabs(beside) else os.path.relpath(path)
