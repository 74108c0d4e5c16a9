"""``duplicate-step-id``, ``unknown-step``, ``step-order``, ``step-scope``: ids and their uses."""

from collections.abc import Iterator

from pipeline_runner.core.expressions.fast_path import Reference
from pipeline_runner.core.scope import Place
from pipeline_runner.core.suggest import did_you_mean, listed, nearest
from pipeline_runner.language.diagnostics import Diagnostic
from pipeline_runner.language.document import Document, Scope, Step, Use
from pipeline_runner.language.yaml.nodes import Scalar

_LAST = 'in "until", "last" is the output of the repetition that has just ended'
_OF_UNDONE = 'in a compensation, "step.output" is the output of the step that is undone'


def check_ids(document: Document) -> Iterator[Diagnostic]:
    """Yield ids that are already used in the file."""
    lines: dict[str, int] = {}
    for step in document.steps:
        node = step.node.get("id")
        if not isinstance(node, Scalar) or not isinstance(node.value, str):
            continue
        if node.value in lines:
            message = f'the id "{node.value}" is already used in line {lines[node.value]}'
            yield document.source.diagnostic(node.span, "duplicate-step-id", message)
        lines.setdefault(node.value, node.span.line)


def check_references(document: Document) -> Iterator[Diagnostic]:
    """Yield uses of steps that do not exist, run later, or are not visible.

    Nothing is reported if ids are missing or duplicate: a use may be meant for one of these steps.
    """
    doubtful = len(document.ids) != len(document.steps) or not document.steps
    for use in document.uses:
        if use.place is Place.START:
            continue
        for reference in use.references:
            if reference.path[0] == "steps" and reference.path[1:]:
                step = document.ids.get(reference.path[1])
                if step is None and doubtful and not nearest(reference.path[1], document.ids):
                    continue
                if step is None or not use.sees(step):
                    yield _mistake(document, use, reference, _visible(document, use))


def _visible(document: Document, use: Use) -> list[str]:
    """Return the ids of the steps that an expression sees, in the order of the file."""
    seen = set(map(id, use.visible))
    return list(dict.fromkeys(step.id for step in document.steps if id(step) in seen and step.id))


def _mistake(document: Document, use: Use, reference: Reference, visible: list[str]) -> Diagnostic:
    source, name = document.source, reference.path[1]
    span = use.span(source, reference, 1)
    if use.step and name == use.step.id:
        help_ = _OF_UNDONE if use.place is Place.COMPENSATION else _LAST if use.key == "until" else None
        return source.diagnostic(span, "step-order", f'step "{name}" cannot use its own output', help_)
    step = document.ids.get(name)
    if step is None:
        help_ = did_you_mean(name, visible) or _seen(visible)
        return source.diagnostic(span, "unknown-step", f'there is no step "{name}"', help_)
    if use.step and step in use.step.around:
        message = f'step "{name}" contains this, so it has no output yet'
        return source.diagnostic(span, "step-order", message, _seen(visible))
    if hidden := _hidden(step, use):
        message, help_ = hidden
        return source.diagnostic(span, "step-scope", message, help_)
    if use.step and use.key == "until" and use.step in step.around:
        message = f'step "{name}" is inside step "{use.step.id}" and can only be used there'
        return source.diagnostic(span, "step-scope", message, _LAST)
    message = f'step "{name}" runs later'
    if step.in_finally and not (use.step and use.step.in_finally):
        message = f'"{name}" is a step of "finally", which runs later'
    return source.diagnostic(span, "step-order", message, _seen(visible))


def _hidden(step: Step, use: Use) -> tuple[str, str | None] | None:
    """Return why a step is hidden outside of its scope; None: it is not."""
    around = [use.step, *use.step.around] if use.step else []
    scope: Scope = step.scope
    while scope.owner and scope not in use.scopes:
        owner = scope.owner
        if owner in around:
            part = next((one for one in use.scopes if one.owner is owner), None)
            if part is None and use.place is Place.COMPENSATION:
                return f'step "{step.id}" is inside step "{owner.id}" and can only be used there', _OF_UNDONE
            return _apart(step, owner, scope, part) if part else None
        if owner.scope.owner is None or owner.scope in use.scopes:
            path = f"steps.{owner.id}.output" + (f".{scope.name}" if scope.kind == "branch" else "")
            message = f'step "{step.id}" is inside step "{owner.id}" and can only be used there'
            return message, f'outside, use "{path}"' if use.sees(owner) else None
        scope = owner.scope
    return None


def _apart(step: Step, owner: Step, scope: Scope, part: Scope) -> tuple[str, str | None] | None:
    """Return why one part of a step does not see into another; None: the other part runs later."""
    match scope.kind, part.kind:
        case "branch", "branch":
            message = (
                f'step "{step.id}" is in another branch, and branches cannot use the steps of each other'
            )
            return message, f'after "{owner.id}", its outputs are in "steps.{owner.id}.output"'
        case "arm", "arm":
            return f'step "{step.id}" is in another arm of "{owner.id}", and only one of them runs', None
        case "catch", "catch":
            return f'step "{step.id}" is in another handler of "{owner.id}", and only one of them runs', None
        case _, "catch":
            return f'step "{step.id}" is in the part of "{owner.id}" that failed, and has been undone', None
    return None


def _seen(visible: list[str]) -> str:
    return f"the steps before this are {listed(visible)}" if visible else "no step runs before this"
