"""``unknown-attribute``: what follows ``steps.<id>``, ``run``, ``step`` and ``error`` exists.

Bad: ``{{ steps.create.result }}``; good: ``{{ steps.create.output }}``.
"""

from collections.abc import Iterator

from pipeline_runner.core.expressions import Reference
from pipeline_runner.core.scope import RESULT_KEYS, RUN_KEYS, STEP_KEYS, Place
from pipeline_runner.core.suggest import did_you_mean
from pipeline_runner.language.diagnostics import Diagnostic
from pipeline_runner.language.document import Document, Use

_ERROR_KEYS = ("type", "message", "step")


def check(document: Document) -> Iterator[Diagnostic]:
    """Yield attributes that do not exist."""
    for use in document.uses:
        for reference in use.references:
            path, depth, keys = _keys(use, reference)
            if len(path) <= depth or path[depth] in keys:
                continue
            span = document.source.locate(use.node.span, ".".join(path[: depth + 1]), path[depth])
            what = ".".join(path[:depth])
            message = f'"{path[depth]}" is not in "{what}": it has {", ".join(keys)}'
            help_ = did_you_mean(path[depth], keys)
            if path[0] == "steps" and not help_:
                help_ = f'the step\'s result is "{what}.output"'
            yield document.source.error(span, "unknown-attribute", message, help_)


def _keys(use: Use, reference: Reference) -> tuple[tuple[str, ...], int, tuple[str, ...]]:
    """Return the path, the index in it of the key to judge, and the keys that exist there."""
    path = reference.path
    match path[0]:
        case "steps":
            return path, 2, RESULT_KEYS
        case "run":
            return path, 1, (*RUN_KEYS, "status") if use.place is Place.FINALLY else RUN_KEYS
        case "step" if use.place is Place.COMPENSATION:
            return path, 1, STEP_KEYS
        case "error" if use.place in (Place.COMPENSATION, Place.FINALLY):
            return path, 1, _ERROR_KEYS
    return path, len(path), ()
