"""The undos that the catalogue declares: in an ``activities.yaml``, and applied to a step."""

import copy
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import msgspec

from pipeline_runner.activities.catalogue.entries import Catalogue
from pipeline_runner.core.scope import Place, roots
from pipeline_runner.core.suggest import did_you_mean, listed
from pipeline_runner.language.checks import (
    activities,
    arguments,
    braces,
    digits,
    dollars,
    expressions,
    intervals,
    keys,
    limits,
    parameters,
    positional,
    secrets,
    types,
    undo,
    values,
)
from pipeline_runner.language.diagnostics import Diagnostic
from pipeline_runner.language.document import Document, Step
from pipeline_runner.language.types import Type, of_catalogue
from pipeline_runner.language.typing.inference import Inference
from pipeline_runner.language.yaml.nodes import Entry, MappingNode, Node, Scalar, SequenceNode, Source, Span


class _OfAny(Inference):
    """The types for any step that calls the activity."""

    def input_of(self, step: Step) -> Type:
        """Return the type of the activity's input."""
        activity = self._document.catalogue.get(step.id)
        return of_catalogue(activity.input if activity else None)


def check(
    root: MappingNode, source: Source, path: Path, catalogue: Catalogue, *, complete: bool
) -> Iterator[Diagnostic]:
    """Yield the errors in the undos of an ``activities.yaml`` whose structure is valid.

    Args:
        root: The file.
        source: Its content.
        path: Its path.
        catalogue: All activities that the pipelines below it can call.
        complete: Whether the catalogue contains everything that it should.
    """
    for entry in root.mapping("activities") or ():
        declared = entry.value.get("undo") if isinstance(entry.value, MappingNode) else None
        if not isinstance(declared, MappingNode):
            continue
        known = catalogue[entry.name]
        if known.effect_free:
            message = f'"{entry.name}" is effect-free, so there is nothing to undo'
            yield source.diagnostic(declared.span, "key-conflict", message, 'remove "undo" or "effect_free"')
            continue
        pipeline = _pipeline(entry, declared, known.task_queue)
        document = Document(source, pipeline, path, catalogue, complete=complete)
        for diagnostic in _check(document):
            if _is_in(diagnostic, declared.span):  # the enclosing step is artificial
                yield diagnostic


def _pipeline(activity: Entry, declared: MappingNode, queue: str | None) -> MappingNode:
    """Return a pipeline with one step, which calls an activity and is undone as the catalogue declares."""
    span = activity.key.span
    name, key = Scalar(span, activity.name, activity.name), partial(Scalar, span)
    if queue is not None and "task_queue" not in declared:
        inherited = Entry(key("task_queue", "task_queue"), key(queue, queue))
        declared = msgspec.structs.replace(declared, by_name={**declared.by_name, "task_queue": inherited})
    parts: dict[str, Node] = {"id": name, "activity": name, "compensate": declared}
    by_name = {part: Entry(key(part, part), value) for part, value in parts.items()}
    step = MappingNode(span, by_name, 1, 1)
    steps = Entry(key("steps", "steps"), SequenceNode(span, (step,), 1, 1))
    return MappingNode(span, {"steps": steps}, 1, 1)


def _names(document: Document) -> Iterator[Diagnostic]:
    """Yield names that do not exist in an undo, which applies to every pipeline."""
    known = roots(Place.CATALOGUE)
    for use in document.uses:
        for reference in use.references:
            if (name := reference.path[0]) not in known:
                message = f'there is no "{name}" in an activity\'s undo, which applies to every pipeline'
                help_ = did_you_mean(name, known) or f"the names here are {listed(known)}"
                span = use.span(document.source, reference)
                yield document.source.diagnostic(span, "unknown-name", message, help_)


_CHECKS: tuple[Callable[[Document], Iterator[Diagnostic]], ...] = (
    arguments.check,
    expressions.check,
    braces.check,
    dollars.check,
    _names,
    intervals.check,
    activities.check,
    parameters.check,
    digits.check,
    keys.check,
    limits.check,
    undo.check,
)
_OF_TYPES: tuple[Callable[[Document, Inference], Iterator[Diagnostic]], ...] = (
    types.check,
    positional.check,
    values.check,
)


def _check(document: Document) -> Iterator[Diagnostic]:
    for one in _CHECKS:
        yield from one(document)
    inferred = _OfAny(document)
    for of_types in _OF_TYPES:
        yield from of_types(document, inferred)


def _is_in(diagnostic: Diagnostic, span: Span) -> bool:
    start = diagnostic.line, diagnostic.column
    return (span.line, span.column) <= start <= (span.end_line, span.end_column)


def check_steps(document: Document, inferred: Inference) -> Iterator[Diagnostic]:
    """Yield undos of the catalogue that cannot work for a particular step."""
    if not document.declared or not document.complete:
        return
    view = copy.copy(document)
    view.__dict__ |= {"calls": document.declared, "uses": document.declared_uses}
    found = [*activities.check(view), *parameters.check(view)]
    for one in (types.check, positional.check, values.check, secrets.check_elsewhere):
        found += one(view, inferred)
    for diagnostic in found:
        if diagnostic.severity == "error":
            message = f"the undo in the catalogue does not fit this step: {diagnostic.message}"
            help_ = 'add "compensate" to the step, or "compensate: none"'
            yield msgspec.structs.replace(diagnostic, message=message, help=help_)
