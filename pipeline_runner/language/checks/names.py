"""``unknown-name``: an expression uses only names that exist at its place."""

from collections.abc import Iterator

from jinja2 import nodes as jinja

from pipeline_runner.core.scope import Place
from pipeline_runner.core.suggest import did_you_mean, listed
from pipeline_runner.language.diagnostics import Diagnostic
from pipeline_runner.language.document import Document, Use

_ELSEWHERE = {
    "item": 'in a step with "for_each"',
    "index": 'in a step with "for_each" or "until"',
    "last": 'in a step with "until"',
    "step": 'in a compensation, and as "step.key" in "with" and "args"',
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
        compared: set[str] | None = None
        for reference in use.references:
            name = reference.path[0]
            if name in known:
                continue
            span = use.span(document.source, reference)
            message = f'there is no "{name}" {_WHERE[use.place]}'
            if name in _ELSEWHERE:
                message += f": it only exists {_ELSEWHERE[name]}"
            compared = _compared(use) if compared is None else compared
            text = f"put a string in quotes: '{name}'" if name in compared else None
            help_ = _of_variables(use, name, known) or text or f"the names here are {listed(known)}"
            yield document.source.diagnostic(span, "unknown-name", message, help_)


def _of_variables(use: Use, name: str, known: frozenset[str]) -> str | None:
    """Return the name that is meant, or why one that the string sets is not there."""
    targets = [assign.target for assign in use.tree.find_all(jinja.Assign)] if use.tree else []
    names = {target.name for target in targets if isinstance(target, jinja.Name)}
    if name in names:
        return f'"{name}" is set after this, or inside a loop, where only the loop sees it'
    return did_you_mean(name, known | names)


def _compared(use: Use) -> set[str]:
    """Return the names that are compared with something, or searched."""
    found: set[str] = set()
    for compare in use.tree.find_all(jinja.Compare) if use.tree else ():
        sides = [compare.expr, *(operand.expr for operand in compare.ops)]
        lists = [one for one in sides if isinstance(one, jinja.List | jinja.Tuple)]
        parts = [*sides, *(item for one in lists for item in one.items)]
        found |= {part.name for part in parts if isinstance(part, jinja.Name)}
    return found
