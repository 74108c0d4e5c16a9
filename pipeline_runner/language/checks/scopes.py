"""``pivot-place``, ``unreachable-arm``, ``unreachable-catch``, ``unreachable-step``: all can take effect."""

from collections.abc import Iterator

from pipeline_runner.core.scope import Place
from pipeline_runner.language.diagnostics import Diagnostic
from pipeline_runner.language.document import Document, Scope, Step
from pipeline_runner.language.flow import always_fails, arms
from pipeline_runner.language.table.fields import ARM, CATCH
from pipeline_runner.language.yaml.nodes import MappingNode, Scalar


def check(document: Document) -> Iterator[Diagnostic]:
    """Yield steps and handlers that can never run, and misplaced points of no return."""
    for scope in document.scopes:
        yield from _in_scope(document, scope)
    for step in document.steps:
        yield from _pivot(document, step)
        yield from _arms(document, step) if step.kind == "switch" else ()
        yield from _handlers(document, step) if "catch" in step.node else ()


def _in_scope(document: Document, scope: Scope) -> Iterator[Diagnostic]:
    pairs = () if _goes_on(document, scope) else zip(scope.steps, scope.steps[1:], strict=False)
    for step, after in pairs:
        if always_fails(step):
            node = after.node.get("id") or after.node
            name = f'step "{after.id}"' if after.id else "this step"
            message = f'{name} never runs: step "{step.id}" before it always fails'
            help_ = f'add a "when" to "{step.id}", or remove the steps after it'
            yield document.source.diagnostic(node.span, "unreachable-step", message, help_)
            break
    for step in scope.steps:
        for inner in step.inner:
            yield from _in_scope(document, inner)


def _goes_on(document: Document, scope: Scope) -> bool:
    """Tell whether a step may run after one that has failed: in ``finally``, or since a person says so."""
    asks = document.root.text("on_failure") == "ask" or document.root.mapping("on_failure") is not None
    return scope.kind == "finally" or (scope.kind == "steps" and asks)


def _arms(document: Document, step: Step) -> Iterator[Diagnostic]:
    """Yield arms behind one that always holds, or that has the same condition."""
    conditions: set[str] = set()
    always = False
    for arm in arms(step):
        condition = arm.text("when")
        message, help_ = "", ""
        if always:
            message, help_ = 'one before it has no "when", so it always holds', "put that one last"
        elif condition in conditions:
            message, help_ = "one before it has the same condition", "change one of the conditions"
        if message:
            message = f"this arm never runs: {message}"
            yield document.source.diagnostic(arm.span, "unreachable-arm", message, help_)
        conditions |= {condition} if condition else set()
        # With a key that is misspelt, nobody knows whether it has one.
        always |= "when" not in arm and all(entry.name in ARM.fields for entry in arm)


def _pivot(document: Document, step: Step) -> Iterator[Diagnostic]:
    pivot = step.node.entry("pivot")
    if step.place is Place.FINALLY:
        return  # another rule reports that it is not allowed there
    if pivot and step.scope.owner and isinstance(pivot.value, Scalar) and pivot.value.value is True:
        owner = step.scope.owner.id
        message = f'a point of no return must be one of the pipeline\'s own steps, not inside "{owner}"'
        help_ = f'set it on "{[*step.around][-1].id}" or a later step'
        yield document.source.diagnostic(pivot.key.span, "pivot-place", message, help_)


def _handlers(document: Document, step: Step) -> Iterator[Diagnostic]:
    """Yield handlers that follow one for every error, or others for all of their own types."""
    taken: set[str] = set()
    everything = False
    for handler in step.node.items("catch"):
        if not isinstance(handler, MappingNode):
            continue
        types = {node.text for node in handler.items("types") if isinstance(node, Scalar)}
        message = "this handler never runs: one before it handles these errors"
        if everything:
            help_ = "put it before that one"
            yield document.source.diagnostic(handler.span, "unreachable-catch", message, help_)
        elif types and types <= taken:
            yield document.source.diagnostic(handler.span, "unreachable-catch", message, "remove one of them")
        taken |= types
        # If a key is misspelled, it is not known what the handler accepts.
        everything |= "types" not in handler and all(entry.name in CATCH.fields for entry in handler)
