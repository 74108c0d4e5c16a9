"""``unknown-name``: an expression uses only the names that exist where it stands.

Bad: ``{{ input.name }}``; good: ``{{ inputs.name }}``.
"""

from collections.abc import Iterator

from pipeline_runner.core.scope import Place
from pipeline_runner.core.suggest import did_you_mean, listed
from pipeline_runner.language.diagnostics import Diagnostic
from pipeline_runner.language.document import Document

_ELSEWHERE = {
    "item": 'in a step with "for_each"',
    "index": 'in a step with "for_each"',
    "step": "in a compensation",
    "error": 'in a compensation, a "catch" and "finally"',
}
_WHERE = {
    Place.STEP: "in a step",
    Place.COMPENSATION: "in a compensation",
    Place.FINALLY: 'in "finally"',
    Place.OUTPUT: 'in "output"',
    Place.CATCH: 'in a "catch"',
    Place.START: 'in the "workflow_id" or "search_attributes" of a pipeline',
}


def check(document: Document) -> Iterator[Diagnostic]:
    """Yield names that do not exist."""
    for use in document.uses:
        known = use.roots
        for reference in use.references:
            name = reference.path[0]
            if name in known:
                continue
            span = use.span(document.source, reference)
            message = f'there is no "{name}" {_WHERE[use.place]}'
            if name in _ELSEWHERE:
                message += f", only {_ELSEWHERE[name]}"
            help_ = did_you_mean(name, known) or f"there are {listed(known)}"
            yield document.source.error(span, "unknown-name", message, help_)
