"""Loads files: from a path to a bundle, or to all errors. This is the entry point of the language.

:func:`load` is for running one pipeline, :func:`check_paths` for checking many. Children are files
relative to the file that names them. Each file is read and checked once.
"""

import errno
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from pipeline_runner.activities.catalogue.entries import Catalogue
from pipeline_runner.activities.catalogue.providers import Activity, Provider, ProviderError
from pipeline_runner.core.model import Bundle, Pipeline
from pipeline_runner.language import catalogue_file, checks, children, served
from pipeline_runner.language.build import build
from pipeline_runner.language.catalogue_file import Activities
from pipeline_runner.language.diagnostics import Diagnostic, has_errors, tidy
from pipeline_runner.language.document import Call, Document
from pipeline_runner.language.typing.inference import Inference
from pipeline_runner.language.yaml import ignores, loader
from pipeline_runner.language.yaml.nodes import MappingNode, Node, Source

MAX_CHAIN = 32
"""The maximum depth of children."""

STDIN = "<stdin>"
"""The name of a pipeline from standard input in messages."""

TEXT = "<string>"
"""The name of a pipeline from a string in messages."""

# The file from which its children are found. No real file has this name, so it cannot be confused with one.
_STDIN_NAME = "\0stdin"


class UsageError(ValueError):
    """A path or module on the command line is wrong."""


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A pipeline file with all its children, ready to be started if there are no errors."""

    bundle: Bundle | None
    """None if there are errors."""
    diagnostics: tuple[Diagnostic, ...]
    """Of all files, in order, including warnings."""
    sources: dict[str, str]
    """The content of each file, by the path that its diagnostics show."""
    catalogue: Catalogue
    """The activities that the steps of the root file can call."""
    modules: tuple[Provider, ...]
    """Python modules that a worker for this bundle serves, without the built-in ones."""


@dataclass(frozen=True, kw_only=True)
class Checked:
    """The diagnostics of some files."""

    diagnostics: tuple[Diagnostic, ...]
    sources: dict[str, str]
    files: tuple[str, ...]
    """The files that were checked, children included."""
    unreadable: tuple[str, ...]
    """What could not be checked, each with the reason."""
    unread: tuple[str, ...]
    """Modules that were not imported, so that their activities are not known."""


@dataclass(kw_only=True)
class _File:
    source: Source
    document: Document | None = None
    children: dict[str, Path] = field(default_factory=dict)
    """Paths of the children, by their paths in the file."""
    height: int | None = 1
    """The length of the longest chain of children from this pipeline on; None: it has no end."""


_Visit = Iterator["_Visit"]
"""The check of a file. It yields the checks that must be done before it continues."""


def load(path: str | Path, *, modules: Iterable[str | Activity] = ()) -> Loaded:
    """Read, check and resolve a pipeline file.

    Args:
        path: The file; messages show its path as given.
        modules: Python modules with activities, from the command line, or activities themselves.

    Raises:
        UsageError: The file does not exist, a module cannot be imported, or a callable is not an activity.
    """
    root = Path(os.path.abspath(path))
    workspace = _Workspace(modules)
    try:
        if not root.is_file():
            raise UsageError(_no_file(path))
        workspace.visit(root, os.path.normpath(path))
    except OSError as error:
        raise UsageError(_unreadable(str(path), error)) from None
    return _load(workspace, root, str(path))


def load_text(text: str, *, base: str | Path | None = None, modules: Iterable[str | Activity] = ()) -> Loaded:
    """Check and resolve a pipeline from a string; see :func:`load`.

    Args:
        text: The pipeline, as YAML.
        base: The directory to which its paths are relative; None: the current one.
        modules: Python modules with activities, or activities themselves.

    Raises:
        UsageError: A module cannot be imported, or a callable is not an activity.
    """
    shown = TEXT if base is None else os.path.join(base, TEXT)
    root = Path(os.path.abspath(shown))
    workspace = _Workspace(modules)
    workspace.add_text(root, shown, text.encode("utf-8", "surrogatepass"))
    return _load(workspace, root, shown)


def _load(workspace: "_Workspace", root: Path, shown: str) -> Loaded:
    diagnostics = workspace.remaining_diagnostics()
    bundle = None if has_errors(diagnostics) else workspace.bundle(root)
    used = list(workspace.activities.values())
    return Loaded(
        bundle=bundle,
        diagnostics=diagnostics,
        sources={source.path: source.text for source in workspace.sources},
        catalogue=workspace.activities_for(root.parent, shown).catalogue,
        modules=tuple(dict.fromkeys(module for found in used for module in found.modules)),
    )


def check_paths(
    paths: Iterable[str | Path],
    *,
    modules: Iterable[str | Activity] = (),
    stdin: BinaryIO | None = None,
    imports: bool = True,
) -> Checked:
    """Check files, and the pipelines in directories. A file that cannot be read does not stop the others.

    Args:
        paths: The files and directories.
        modules: Python modules with activities, from the command line, or activities themselves.
        stdin: The content for the path ``-``; None: a file with that name.
        imports: Whether modules may be imported, which runs their code.

    Raises:
        UsageError: A module of the command line cannot be imported, or standard input cannot be read.
    """
    workspace = _Workspace(modules, imports=imports)
    workspace.visit_all(paths, stdin)
    workspace.compare()
    return Checked(
        diagnostics=workspace.remaining_diagnostics(),
        sources={source.path: source.text for source in workspace.sources},
        files=tuple(file.source.path for file in workspace.files.values()),
        unreadable=tuple(dict.fromkeys(workspace.unreadable)),
        unread=tuple(dict.fromkeys(name for found in workspace.activities.values() for name in found.unread)),
    )


class _Workspace:
    """The files read so far."""

    def __init__(self, modules: Iterable[str | Activity], *, imports: bool = True) -> None:
        self.files: dict[Path, _File] = {}
        self.activities: dict[Path | None, Activities] = {}
        self.diagnostics: list[Diagnostic] = []
        self.sources: list[Source] = []
        self.unreadable: list[str] = []
        self._modules = tuple(modules)
        self._imports = imports
        self._open: dict[Path, None] = {}
        """The files that are being checked, each a child of the previous one."""
        self._nearest: dict[Path, Path | None] = {}
        """The catalogue's file, by the directory of a pipeline."""

    def visit_all(self, paths: Iterable[str | Path], stdin: BinaryIO | None) -> None:
        """Check files, and the pipelines in directories; see :func:`check_paths`."""
        for path in paths:
            if path == "-" and stdin is not None:
                self.visit_stream(stdin)
                continue
            absolute, shown = Path(os.path.abspath(path)), os.path.normpath(path)
            try:
                self._visit_path(absolute, shown)
            except OSError as error:
                self.unreadable.append(_unreadable(shown, error))

    def compare(self) -> None:
        """Report what no worker can serve together."""
        documents = (file.document for file in self.files.values())
        self.diagnostics += served.same_names(document for document in documents if document)
        self.diagnostics += served.same_activities(self.activities.values())

    def _visit_path(self, absolute: Path, shown: str) -> None:
        if absolute.is_dir():
            for below in self._yaml_files(absolute, shown):
                self.visit_found(below, _beside(shown, str(below.relative_to(absolute))))
        elif not absolute.is_file():
            self.unreadable.append(_no_file(shown))
        elif absolute.name in catalogue_file.NAMES:
            self.activities_for(absolute.parent, shown)
        else:
            self.visit(absolute, shown)

    def _yaml_files(self, folder: Path, shown: str) -> Iterator[Path]:
        """Yield the files below a directory that may be pipelines, in order.

        Hidden files belong to other programs, such as the lock of an editor, or the other half of a
        file from a Mac. So do the directories of npm's packages.
        """

        def unreadable(error: OSError) -> None:
            below = os.path.relpath(error.filename or folder, folder)
            self.unreadable.append(_unreadable(_beside(shown, below), error))

        for parent, folders, names in os.walk(folder, onerror=unreadable):
            folders[:] = sorted(
                name for name in folders if not name.startswith(".") and name != "node_modules"
            )
            for name in sorted(names):
                path = Path(parent, name)
                if path.suffix not in (".yaml", ".yml") or path.stem.endswith(".test"):
                    continue
                if name not in catalogue_file.NAMES and not name.startswith("."):
                    yield path

    def visit(self, path: Path, shown: str) -> _File:
        """Check a file and its children, unless that is already done.

        Raises:
            OSError: The file cannot be read.
        """
        if path not in self.files:
            source, root, diagnostics = _parsed(path, shown)
            self._add(path, source, root, diagnostics)
        return self.files[path]

    def visit_found(self, path: Path, shown: str) -> None:
        """Check a file found in a directory, if it is a pipeline or cannot be parsed as YAML."""
        if path in self.files:
            return
        try:
            source, root, diagnostics = _parsed(path, shown)
        except OSError as error:
            self.unreadable.append(_unreadable(shown, error))
            return
        if diagnostics or (isinstance(root, MappingNode) and "steps" in root):
            self._add(path, source, root, diagnostics)

    def visit_stream(self, stream: BinaryIO) -> None:
        """Check a pipeline from a stream, as if it were a file in the current directory."""
        path = Path(os.path.abspath(_STDIN_NAME))
        if path in self.files:
            raise UsageError('standard input, "-", can be read only once')
        try:
            data = stream.read(loader.MAX_BYTES + 1)
        except OSError as error:
            raise UsageError(f"standard input cannot be read: {error.strerror or error}") from None
        self.add_text(path, STDIN, data)

    def add_text(self, path: Path, shown: str, data: bytes) -> None:
        """Check a pipeline that is not in a file, as if it were in the file at this path."""
        source, root, diagnostics = _tree(*loader.decode(data, shown))
        self._add(path, source, root, diagnostics)

    def activities_for(self, folder: Path, shown: str) -> Activities:
        """Return the catalogue for the files of a directory."""
        if folder not in self._nearest:
            self._nearest[folder] = catalogue_file.nearest(folder)
        path = self._nearest[folder]
        if path not in self.activities:
            try:
                if path is None:
                    found = catalogue_file.without_file(self._modules, imports=self._imports)
                else:
                    label = catalogue_file.shown_path(path, shown)
                    found = catalogue_file.read(path, label, self._modules, imports=self._imports)
            except ProviderError as error:
                raise UsageError(str(error)) from None
            self.activities[path] = found
            self.diagnostics += found.diagnostics
            self.sources += found.sources
        return self.activities[path]

    def bundle(self, root: Path) -> Bundle:
        """Build a file that has no errors, with its children."""
        pipelines: dict[str, Pipeline] = {}
        waiting = [root]
        while waiting:
            path = waiting.pop()
            file, key = self.files[path], _key(root, path)
            if key not in pipelines and file.document:
                inner = {text: _key(root, child) for text, child in file.children.items()}
                pipelines[key] = build(file.document, inner.__getitem__)
                waiting += file.children.values()
        return Bundle(root=_key(root, root), pipelines=pipelines)

    def remaining_diagnostics(self) -> tuple[Diagnostic, ...]:
        """Return the diagnostics of all files, without the warnings that comments ignore."""
        found: dict[str, list[Diagnostic]] = {}
        for diagnostic in self.diagnostics:
            found.setdefault(diagnostic.path, []).append(diagnostic)
        for source, root in self._trees():
            if ignores.MARK in source.text:
                own = tidy(found.get(source.path, []))
                found[source.path] = list(ignores.apply(source, root, own))
        return tuple(tidy(one for group in found.values() for one in group))

    def _trees(self) -> Iterator[tuple[Source, Node]]:
        """Yield the files whose YAML is valid."""
        for file in self.files.values():
            if file.document:
                yield file.source, file.document.root
        for known in self.activities.values():
            if known.root:
                yield known.sources[0], known.root

    def _add(self, path: Path, source: Source, root: Node | None, found: list[Diagnostic]) -> None:
        """Check a file, and before it its children: in a loop, because a chain of children may be long."""
        waiting = [self._visit(path, source, root, found)]
        while waiting:
            if inner := next(waiting[-1], None):
                waiting.append(inner)
            else:
                waiting.pop()

    def _visit(self, path: Path, source: Source, root: Node | None, found: list[Diagnostic]) -> _Visit:
        file = self.files[path] = _File(source=source)
        self.sources.append(source)
        self.diagnostics += found
        if root is None:
            return
        if not isinstance(root, MappingNode):
            message = 'a pipeline file must be a mapping with "name" and "steps"'
            self.diagnostics.append(source.diagnostic(root.span, "wrong-type", message))
            return
        known = self.activities_for(path.parent, source.path)
        complete = not known.unread and not has_errors(known.diagnostics)
        file.document = Document(source, root, path, known.catalogue, complete=complete)
        self._open[path] = None
        for call in file.document.calls:
            if call.kind == "pipeline" and call.name and "{{" not in call.name:
                yield from self._child(file, file.document, call)
        del self._open[path]
        inferred = Inference(file.document)
        self.diagnostics += checks.check(file.document, inferred)
        file.document.output_type = inferred.pipeline_output
        file.document.forget()

    def _child(self, file: _File, document: Document, call: Call) -> _Visit:
        source, text = document.source, call.name or ""
        path = Path(os.path.normpath(document.path.parent / text))
        if path in self._open:
            file.height = None
            chain = list(self._open)
            self.diagnostics.append(children.cycle(source, call, [*chain[chain.index(path) :], path]))
            return
        if path not in self.files:
            try:
                parsed = _parsed(path, _beside(os.path.dirname(source.path), text))
            except (OSError, ValueError) as error:
                self.diagnostics.append(children.unreadable(source, call, path, error))
                return
            yield self._visit(path, *parsed)
        child = self.files[path]
        file.children[text] = path
        if child.height == MAX_CHAIN:
            message = f"more than {MAX_CHAIN} pipelines are nested in each other"
            self.diagnostics.append(source.diagnostic(call.span, "too-deep", message))
        if file.height is not None:
            file.height = None if child.height is None else max(file.height, child.height + 1)
        if child.document:
            self.diagnostics += children.check_inputs(source, call, child.document)
            if child.height is not None and child.height < MAX_CHAIN:
                document.children[text] = child.document


def _parsed(path: Path, shown: str) -> tuple[Source, Node | None, list[Diagnostic]]:
    if path.exists() and not path.is_file():
        # Reading a pipe would wait for ever.
        raise OSError(errno.EINVAL, "not a regular file")
    return _tree(*loader.read(path, shown))


def _tree(source: Source, found: list[Diagnostic]) -> tuple[Source, Node | None, list[Diagnostic]]:
    return (source, None, found) if found else (source, *loader.load(source))


def _beside(folder: str, text: str) -> str:
    return os.path.normpath(os.path.join(folder, text))


def _key(root: Path, path: Path) -> str:
    return Path(os.path.relpath(path, root.parent)).as_posix()


def _no_file(path: str | Path) -> str:
    return (
        f"{path} is a directory, not a pipeline file" if Path(path).is_dir() else f"there is no file {path}"
    )


def _unreadable(shown: str, error: OSError) -> str:
    return f"{shown} cannot be read: {error.strerror or error}"
