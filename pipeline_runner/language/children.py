"""``unknown-child``, ``child-cycle``, ``unknown-child-input``, ``missing-child-input``."""

import os
from collections.abc import Iterator
from pathlib import Path

from pipeline_runner.core.suggest import did_you_mean, listed, nearest
from pipeline_runner.language.diagnostics import Diagnostic
from pipeline_runner.language.document import Call, Document
from pipeline_runner.language.yaml.nodes import MappingNode, Source

_MOST = 10
"""How many files of a cycle are listed at most."""


def cycle(source: Source, call: Call, chain: list[Path]) -> Diagnostic:
    """Return the error of a child that would run the file that names it."""
    folder = chain[0].parent
    most = chain if len(chain) <= _MOST else [*chain[: _MOST - 2], Path(folder, "…"), chain[-1]]
    names = " -> ".join(os.path.relpath(path, folder) for path in most)
    return source.diagnostic(call.span, "child-cycle", f"this pipeline would run itself: {names}")


def unreadable(source: Source, call: Call, path: Path, error: OSError | ValueError) -> Diagnostic:
    """Return the error of a child file that cannot be read."""
    if os.path.isdir(path):
        return source.diagnostic(
            call.span, "unknown-child", f'"{call.name}" is a directory, not a pipeline file'
        )
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        message = f'"{call.name}" cannot be read: {getattr(error, "strerror", None) or error}'
        return source.diagnostic(call.span, "unknown-child", message)
    beside = path.parent.glob("*.y*ml") if path.parent.is_dir() else ()
    files = {file.stem: file.name for file in beside}
    near = nearest(path.stem, files)
    help_ = "the path is relative to this file"
    if near:
        folder = (call.name or "").rpartition("/")[0]
        help_ = f'did you mean "{folder}/{files[near]}"?' if folder else f'did you mean "{files[near]}"?'
    return source.diagnostic(call.span, "unknown-child", f'there is no file "{call.name}"', help_)


def check_inputs(source: Source, call: Call, child: Document) -> Iterator[Diagnostic]:
    """Yield inputs that a child does not declare, or requires and does not get."""
    given = call.node.get("with")
    if given is not None and not isinstance(given, MappingNode):
        return
    for entry in given or ():
        if entry.name not in child.inputs:
            message = f'"{call.name}" has no input "{entry.name}"'
            declared = f"its inputs are {listed(child.inputs)}" if child.inputs else "it has no inputs"
            help_ = did_you_mean(entry.name, child.inputs) or declared
            yield source.diagnostic(entry.key.span, "unknown-child-input", message, help_)
    if needed := child.needed(given):
        names = ", ".join(f'"{name}"' for name in needed)
        message = f'"{call.name}" needs {names} in its "with"'
        yield source.diagnostic(call.input_span, "missing-child-input", message)
