"""``pivot-place``, ``unreachable-step``, ``unreachable-catch``: steps and handlers that can take effect.

Bad: a step after ``fail: {message: x}``; good: a ``when`` on the ``fail`` step.
"""

from collections.abc import Iterator

from pipeline_runner.language.diagnostics import Diagnostic
from pipeline_runner.language.document import Document, Scope, Step
from pipeline_runner.language.nodes import Mapping, Scalar


def check(document: Document) -> Iterator[Diagnostic]:
    """Yield what can never run, and points of no return where there can be none."""
    for scope in document.scopes:
        yield from _in_scope(document, scope)
    for step in document.steps:
        yield from _pivot(document, step)
        yield from _handlers(document, step)


def _in_scope(document: Document, scope: Scope) -> Iterator[Diagnostic]:
    for step, after in zip(scope.steps, scope.steps[1:], strict=False):
        if step.kind == "fail" and not any(key in step.node for key in ("when", "catch", "for_each")):
            node = after.node.get("id") or after.node
            message = f'step "{after.id}" never runs: step "{step.id}" before it always fails'
            help_ = f'give "{step.id}" a "when", or remove what comes after it'
            yield document.source.warning(node.span, "unreachable-step", message, help_)
            break
    for step in scope.steps:
        for inner in step.inner:
            yield from _in_scope(document, inner)


def _pivot(document: Document, step: Step) -> Iterator[Diagnostic]:
    pivot = step.node.entry("pivot")
    if pivot and step.scope.owner and isinstance(pivot.value, Scalar) and pivot.value.value is True:
        message = (
            f'a point of no return is one of the pipeline\'s own steps, not inside "{step.scope.owner.id}"'
        )
        yield document.source.error(pivot.key.span, "pivot-place", message)


def _handlers(document: Document, step: Step) -> Iterator[Diagnostic]:
    """Yield handlers behind one that takes every error, or all of their own types already."""
    taken: set[str] = set()
    everything = False
    for handler in step.node.items("catch"):
        if not isinstance(handler, Mapping):
            continue
        types = {node.text for node in handler.items("types") if isinstance(node, Scalar)}
        if everything or (types and types <= taken):
            message = "this handler never runs: one before it takes these errors"
            yield document.source.warning(
                handler.span, "unreachable-catch", message, "put it before that one"
            )
        taken |= types
        everything |= "types" not in handler
