"""``duplicate-step-id``, ``unknown-step``, ``step-order``: each id once, and used after its step.

Bad: ``{{ steps.deploy.output }}`` in a step before ``deploy``; good: in one after it.
"""

from collections.abc import Iterator

from pipeline_runner.core.expressions import Reference
from pipeline_runner.core.scope import Place, visible_steps
from pipeline_runner.core.suggest import did_you_mean, listed
from pipeline_runner.language.diagnostics import Diagnostic
from pipeline_runner.language.document import Document, Use, every_id


def check_ids(document: Document) -> Iterator[Diagnostic]:
    """Yield ids that are in the file already."""
    lines: dict[str, int] = {}
    for key in ("steps", "finally"):
        value = document.root.get(key)
        for node in every_id(value) if value else ():
            if not isinstance(node.value, str):
                continue
            if node.value in lines:
                message = f'the id "{node.value}" is in this file already, in line {lines[node.value]}'
                yield document.source.error(node.span, "duplicate-step-id", message)
            lines.setdefault(node.value, node.span.line)


def check_references(document: Document) -> Iterator[Diagnostic]:
    """Yield uses of steps that do not exist, or have not run yet."""
    nested = _nested(document)
    for use in document.uses:
        if use.place is Place.WORKFLOW_ID:
            continue
        index = use.step.index if use.step else document.step_count
        seen = visible_steps(document.ids, use.place, index)
        visible = [name for name in dict.fromkeys(document.ids) if name and name in seen]
        for reference in use.references:
            if reference.path[0] != "steps" or not reference.path[1:]:
                continue
            if reference.path[1] not in nested.union(visible):
                yield _mistake(document, use, reference, visible)


def _nested(document: Document) -> set[str]:
    """Return the ids in blocks and branches, whose scopes this version does not judge."""
    lists = [document.root.get("steps"), document.root.get("finally")]
    return {node.text for value in lists if value for node in every_id(value)} - set(document.ids)


def _mistake(document: Document, use: Use, reference: Reference, visible: list[str]) -> Diagnostic:
    source, name = document.source, reference.path[1]
    span = source.locate(use.node.span, ".".join(reference.path[:2]), name)
    if use.step and name == use.step.id:
        undo = use.place is Place.COMPENSATION
        help_ = 'in a compensation, "step.output" is the output of the step that is undone' if undo else None
        return source.error(span, "step-order", f'step "{name}" cannot see its own output', help_)
    if name in document.ids:
        what = 'the steps in "finally" run' if use.step is None else f'step "{name}" runs'
        what = f'"{name}" is a step of "finally", and runs' if use.step is None else what
        return source.error(span, "step-order", f"{what} later than this", _seen(visible))
    help_ = did_you_mean(name, visible) or _seen(visible)
    return source.error(span, "unknown-step", f'there is no step "{name}"', help_)


def _seen(visible: list[str]) -> str:
    return f"the steps before this are {listed(visible)}" if visible else "no step runs before this"
