"""``maybe-null``: what a step did not do is not used as if it had.

Bad: ``{{ steps.build.output.id }}`` where ``build`` has a ``when``; good: with
``| default('')``, or in a step with the same ``when``.
"""

from collections.abc import Iterator

from pipeline_runner.core.expressions import Reference
from pipeline_runner.core.scope import Place
from pipeline_runner.language.diagnostics import Diagnostic
from pipeline_runner.language.document import Document, Step, Use
from pipeline_runner.language.guards import unguarded
from pipeline_runner.language.nodes import Mapping, Scalar

_HELP = "use default(…), or a condition"


def check(document: Document) -> Iterator[Diagnostic]:
    """Yield uses of outputs and errors that may be null."""
    for use in document.uses:
        if use.tree is None or use.place is Place.START:
            continue
        if not any(reference.path[0] in ("steps", "error", "step") for reference in use.references):
            continue
        for reference in unguarded(use.tree):
            why = _why(document, use, reference)
            if why:
                depth, message = why
                span = use.span(document.source, reference, depth)
                yield document.source.warning(span, "maybe-null", message, _HELP)


def _why(document: Document, use: Use, reference: Reference) -> tuple[int, str] | None:
    """Return the depth of the name that may be null, and why; None: it may not, or that does no harm."""
    path = reference.path
    # A value that is handed on as it is may well be null; a key of null, or null in a text, fails.
    harmless = use.is_lone
    if path[0] == "error":
        if use.place is Place.FINALLY and len(path) > 1 and not _asks(use, "error"):
            return 0, '"error" is null when the run completed'
        return None
    if path[0] == "step":
        return (
            (1, '"step.error" is null when the step completed')
            if path[1:2] == ("error",) < path[1:]
            else None
        )
    if len(path) < 3 or path[2] == "status" or (len(path) == 3 and harmless):
        return None
    step = document.ids.get(path[1])
    if step is None or not use.sees(step) or _asks(use, f"steps.{step.id}"):
        return None
    if path[2] == "error":
        return 2, f'"steps.{step.id}.error" is null unless the step failed'
    if use.place is Place.FINALLY and not step.in_finally:
        return 1, f'step "{step.id}" may not have run when "finally" does, its output is null then'
    if not _is_sure(use, step):
        return 1, f'step "{step.id}" may have been skipped, its output is null then'
    return None


def _conditions(step: Step | None) -> list[str]:
    """Return the conditions under which a step runs, its own first."""
    steps = [step, *step.around] if step else []
    nodes = [one.node.get("when") for one in steps]
    return [" ".join(node.text.split()) for node in nodes if isinstance(node, Scalar)]


def _asks(use: Use, name: str) -> bool:
    """Tell whether a condition that this stands under looks at a name."""
    return use.key != "when" and any(name in condition for condition in _conditions(use.step))


def _is_sure(use: Use, step: Step) -> bool:
    """Tell whether a step has run for certain where it is used."""
    when = step.node.get("when")
    if not isinstance(when, Scalar) or "for_each" in step.node:
        return True
    if any(isinstance(handler, Mapping) for handler in step.node.items("catch")):
        return True
    condition = " ".join(when.text.split())
    parts = [part for one in _conditions(use.step) for part in one.split(" and ")]
    return use.key != "when" and (condition in parts or condition in _conditions(use.step))
