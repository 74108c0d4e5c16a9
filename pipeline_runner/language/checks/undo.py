"""``missing-undo``, ``undo-output``, ``undo-input``: what was done can be undone.

Bad: ``{activity: network.create, with: {name: x}}`` beside steps that are undone; good: with
``compensate: {activity: network.remove, with: {name: x}}``, or ``compensate: none``.
"""

from collections.abc import Iterator

from pipeline_runner.core.scope import Place
from pipeline_runner.language.diagnostics import Diagnostic
from pipeline_runner.language.document import Document, Step
from pipeline_runner.language.guards import unguarded
from pipeline_runner.language.nodes import Scalar


def check(document: Document) -> Iterator[Diagnostic]:
    """Yield steps that are left done, and compensations that cannot know what to do."""
    yield from _missing(document)
    yield from _outputs(document)
    yield from _inputs(document)


def _missing(document: Document) -> Iterator[Diagnostic]:
    """Yield steps without an undo where others have one, and the catalogue knows what it would be."""
    if document.root.text("on_failure") == "keep" or not any(step.compensation for step in document.steps):
        return
    for step in document.steps:
        if step.kind != "activity" or "compensate" in step.node or step.in_finally or _is_final(step):
            continue
        name = step.node.text("activity") or ""
        known = document.catalogue.get(name)
        if known is None or known.inverse is None or known.effect_free:
            continue
        if any(around.compensation for around in step.around):
            continue
        entry = step.node.get("activity")
        message = f'step "{step.id}" is not undone when the pipeline fails, and other steps are'
        help_ = f'add "compensate" with "activity: {known.inverse}", or "compensate: none" if that is meant'
        yield document.source.warning(entry.span if entry else step.node.span, "missing-undo", message, help_)


def _is_final(step: Step) -> bool:
    pivot = step.node.get("pivot")
    return isinstance(pivot, Scalar) and pivot.value is True


def _outputs(document: Document) -> Iterator[Diagnostic]:
    """Yield uses of an output that a step which is undone may not have."""
    for use in document.uses:
        undo = use.step.compensation if use.step else None
        if use.place is not Place.COMPENSATION or undo is None or use.step is None or use.tree is None:
            continue
        if use.step.kind not in ("activity", "pipeline", "steps", "parallel"):
            continue  # there is no doubt about the others
        after = undo.text("after") or "uncertain"
        if after == "completed":
            continue
        lone = use.is_lone
        for reference in unguarded(use.tree):
            if reference.path[:2] != ("step", "output") or (len(reference.path) == 2 and lone):
                continue
            how = "ended without a known outcome" if after == "uncertain" else "failed"
            message = f'"step.output" is null if the step {how}: its undo would fail, and the run be dirty'
            help_ = 'use what was known before, such as "step.input", or default(…), or "after: completed"'
            yield document.source.warning(
                use.span(document.source, reference, 1), "undo-output", message, help_
            )


def _inputs(document: Document) -> Iterator[Diagnostic]:
    """Yield compensations that are not told what to undo."""
    for call in document.calls:
        if not call.compensates or not call.name or "with" in call.node or "args" in call.node:
            continue
        activity = document.activity(call)
        if call.kind == "pipeline" or (
            activity and (activity.input is None or activity.input.get("required"))
        ):
            continue  # a child says what it needs; a missing parameter is told
        if activity and activity.arguments == ():
            continue  # it takes none
        message = f'"{call.name}" is not told what to undo'
        help_ = 'hand it the input of the step: "with: {…: "{{ step.input.… }}"}"'
        yield document.source.warning(call.span, "undo-input", message, help_)
