"""Loads a pipeline for a command, and shows its errors."""

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from pipeline_runner.cli import console
from pipeline_runner.cli.main import CommandError
from pipeline_runner.core.inputs import InvalidInputs, validate_inputs
from pipeline_runner.core.model import Pipeline
from pipeline_runner.core.suggest import listed
from pipeline_runner.language.diagnostics import Diagnostic, render
from pipeline_runner.language.input_text import parse_input
from pipeline_runner.language.workspace import Loaded, UsageError, load
from pipeline_runner.language.yaml import loader
from pipeline_runner.language.yaml.nodes import plain

_FEW = 3
"""How many diagnostics with the same content are shown; the others are counted."""


def colour() -> bool:
    """Tell whether standard error accepts colours."""
    return sys.stderr.isatty() and not os.environ.get("NO_COLOR")


def show(diagnostics: Iterable[Diagnostic], sources: Mapping[str, str]) -> None:
    """Write diagnostics to standard error, as text."""
    alike: dict[tuple[str, str, str], list[Diagnostic]] = {}
    for diagnostic in (diagnostics := list(diagnostics)):
        alike.setdefault(_kind(diagnostic), []).append(diagnostic)
    for diagnostic in diagnostics:
        group = alike[_kind(diagnostic)]
        shown = group if len(group) <= _FEW + 1 else group[:_FEW]
        if not any(diagnostic is one for one in shown):
            continue
        text = render(_plain(diagnostic), sources.get(diagnostic.path, ""), colour=colour())
        console.tell(text.rstrip("\n"), steering=True)
        if diagnostic is shown[-1] and len(shown) < len(group):
            console.tell(f"  = {len(group) - len(shown)} more like this: lines {_lines(group[_FEW:])}")


def _kind(diagnostic: Diagnostic) -> tuple[str, str, str]:
    """Return what diagnostics with the same meaning for a reader have in common."""
    return diagnostic.path, diagnostic.rule, diagnostic.message


def _lines(diagnostics: Iterable[Diagnostic]) -> str:
    return listed(dict.fromkeys(str(diagnostic.line) for diagnostic in diagnostics))


def _plain(d: Diagnostic) -> Diagnostic:
    """Return a diagnostic without terminal control sequences, which a quoted part of the file may contain."""
    help_ = None if d.help is None else console.plain(d.help)
    return msgspec.structs.replace(
        d, path=console.plain(d.path), message=console.plain(d.message), help=help_
    )


def loaded(path: str, modules: Sequence[str]) -> Loaded:
    """Load a pipeline file, and show its warnings.

    Raises:
        CommandError: There are errors, which have been shown.
    """
    try:
        result = load(path, modules=modules)
    except UsageError as error:
        raise CommandError(str(error)) from None
    show(result.diagnostics, result.sources)
    if result.bundle is None:
        count = sum(diagnostic.severity == "error" for diagnostic in result.diagnostics)
        raise CommandError(f"{count} {'error' if count == 1 else 'errors'} in {path}: nothing was started")
    return result


def inputs_of(pipeline: Pipeline, pairs: Sequence[str], file: str | None) -> dict[str, Any]:
    """Return a run's inputs from ``-i name=value`` and ``--input-file``, validated, with defaults.

    Raises:
        CommandError: They do not match the pipeline's ``inputs``. The message lists all problems.
    """
    given = {} if file is None else _from_file(file)
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise CommandError(f'-i expects name=value, not "{pair}"')
        try:
            given[name] = parse_input(text, pipeline.inputs.get(name, True))
        except ValueError as error:
            raise CommandError(f'the input "{name}" cannot be read: {error}') from None
    try:
        return validate_inputs(pipeline.inputs, given)
    except InvalidInputs as error:
        problems = "\n".join(f"  {problem}" for problem in error.problems)
        raise CommandError(f'invalid inputs for "{pipeline.name}": nothing was started\n{problems}') from None


def _from_file(file: str) -> dict[str, Any]:
    try:
        source, problems = loader.read(Path(file), file)
    except OSError as error:
        raise CommandError(f"the input file {file} cannot be read: {error.strerror}") from None
    node = None
    if not problems:
        node, problems = loader.load(source)
    if node is None:
        show(problems, {source.path: source.text})
        raise CommandError(f"the input file {file} cannot be used: nothing was started")
    value = plain(node)
    if not isinstance(value, dict):
        raise CommandError(f"the input file {file} is not a mapping of inputs")
    return value
