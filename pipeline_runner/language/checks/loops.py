"""``endless-until``: the condition of an ``until`` can change from one repetition to the next."""

from collections.abc import Iterator

from pipeline_runner.language.diagnostics import Diagnostic
from pipeline_runner.language.document import Document, Use
from pipeline_runner.language.yaml.nodes import Scalar

_CHANGE = frozenset(["last", "index"])


def check(document: Document) -> Iterator[Diagnostic]:
    """Yield conditions that are the same after every repetition."""
    for step in document.steps:
        until = step.node.mapping("until")
        node = until.get("condition") if until else None
        use = document.use_at(node, step) if isinstance(node, Scalar) else None
        if use is None or use.tree is None or any(one.path[0] in _CHANGE for one in use.references):
            continue
        if any(
            one.path[0] == "steps" and not _is_before(document, use, one.path[1:2]) for one in use.references
        ):
            continue  # most likely its own output is meant, which is told
        message = f'the condition is the same after every repetition of "{step.id}"'
        help_ = 'use "last", the output of the repetition that has just ended, or "index"'
        yield document.source.diagnostic(use.node.span, "endless-until", message, help_)


def _is_before(document: Document, use: Use, path: tuple[str, ...]) -> bool:
    step = document.ids.get(path[0]) if path else None
    return step is not None and use.sees(step)
