"""``missing-undo``, ``undo-output``, ``undo-input``: every effect can be undone."""

from bisect import bisect_left
from collections.abc import Iterator

from pipeline_runner.activities.catalogue.entries import builtin
from pipeline_runner.core.scope import Place
from pipeline_runner.core.suggest import listed
from pipeline_runner.language.checks.parameters import resolved
from pipeline_runner.language.diagnostics import Diagnostic
from pipeline_runner.language.document import Document, Step
from pipeline_runner.language.typing.guards import looks
from pipeline_runner.language.yaml.nodes import Scalar


def check(document: Document) -> Iterator[Diagnostic]:
    """Yield steps that are not undone, and compensations that cannot know what to undo."""
    yield from _missing(document)
    yield from _outputs(document)
    yield from _inputs(document)


def _missing(document: Document) -> Iterator[Diagnostic]:
    """Yield steps without an undo, if others have one and neither they nor the catalogue give a reason."""
    if document.root.text("on_failure") == "keep":
        return
    # What precedes a point of no return is never undone after it: only steps on the same side count.
    finals = [index for index, step in enumerate(document.scopes[0].steps) if _is_final(step)]
    undone = {_side(finals, step) for step in document.steps if step.compensation}
    undone |= {_side(finals, call.step) for call in document.declared}
    for step in document.steps:
        if step.kind != "activity" or step.in_finally or _is_final(step):
            continue
        if any("compensate" in one.node for one in (step, *step.around)):
            continue
        name = step.node.text("activity") or ""
        known = document.catalogue.get(name)
        if known is None or known.undo is not None or known.effect_free or name in builtin():
            continue  # of what comes with the product all is known
        retried = next((one.id for one in step.around if "retry" in one.node), None)
        if _side(finals, step) not in undone and retried is None:
            continue
        entry = step.node.get("activity")
        message = f'step "{step.id}" is not undone when the pipeline fails, but other steps are'
        if retried is not None:
            message = f'step "{step.id}" is not undone before "{retried}" is retried, which runs it again'
        help_ = (
            f'declare "undo" (or "undo: none") for "{name}" in the catalogue, or add "compensate" to the step'
        )
        yield document.source.diagnostic(
            entry.span if entry else step.node.span, "missing-undo", message, help_
        )


def _is_final(step: Step) -> bool:
    pivot = step.node.get("pivot")
    return isinstance(pivot, Scalar) and pivot.value is True


def _side(finals: list[int], step: Step) -> int:
    """Return how many points of no return precede a step."""
    outermost = [step, *step.around][-1]
    return bisect_left(finals, outermost.index)


def _outputs(document: Document) -> Iterator[Diagnostic]:
    """Yield uses of an output that may be missing when the step is undone."""
    for use in document.uses:
        undo = use.step.compensation if use.step and use.place is Place.COMPENSATION else None
        if undo is None or use.step is None or use.tree is None:
            continue
        if use.step.kind not in ("activity", "pipeline"):
            continue  # there is no doubt about the others: those with steps are undone from the inside
        after = undo.text("after") or "uncertain"
        if after == "completed" or all(one.path[:2] != ("step", "output") for one in use.references):
            continue
        for look in looks(use.tree, lone=use.is_lone):
            path = look.reference.path
            if path[:2] != ("step", "output") or len(path) + look.needed < 3:
                continue
            if any(look.known.asks("step", key) for key in ("output", "outcome", "error")):
                continue
            how = "has an unknown outcome" if after == "uncertain" else "failed"
            message = (
                f'"step.output" is null if the step {how}: its undo would fail, and the run would end dirty'
            )
            help_ = 'use "step.input", default(…) or "after: completed"'
            span = use.span(document.source, look.reference, 1)
            yield document.source.diagnostic(span, "undo-output", message, help_)


def _inputs(document: Document) -> Iterator[Diagnostic]:
    """Yield compensations without input."""
    for call in document.calls:
        activity = call.activity
        if not call.compensates or activity is None or "with" in call.node or "args" in call.node:
            continue  # a child declares what it needs
        if activity.input is None:
            continue  # another rule reports a missing argument, and nothing is known about the others
        schema = resolved(activity.input)
        names = list(schema.get("properties") or ())
        if schema.get("required") or not names:
            continue  # another rule reports a missing parameter
        message = f'"{call.name}" gets no input, so it does not know what to undo'
        help_ = f'add "with", using "step.input" or "step.key": the parameters are {listed(names)}'
        yield document.source.diagnostic(call.span, "undo-input", message, help_)
