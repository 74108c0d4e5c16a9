"""``key-conflict``: keys of a step that do not go together.

Bad: ``{activity: a, with: {}, args: []}``; good: one of the two.
"""

from collections.abc import Iterator

from pipeline_runner.core.scope import Place
from pipeline_runner.language.diagnostics import Diagnostic
from pipeline_runner.language.document import Document, Step
from pipeline_runner.language.yaml.nodes import Scalar


def check(document: Document) -> Iterator[Diagnostic]:
    """Yield combinations of keys that have no meaning."""
    source = document.source
    for call in document.calls:
        args = call.node.entry("args")
        if args and "with" in call.node:
            message = '"args" and "with" both pass the input: use only one of them'
            yield source.diagnostic(args.key.span, "key-conflict", message)
    for step in document.steps:
        yield from _check_step(document, step)


def _check_step(document: Document, step: Step) -> Iterator[Diagnostic]:
    source, node = document.source, step.node
    wait = node.get("wait_for_completion")
    if isinstance(wait, Scalar) and wait.value is False and node.text("parent_close_policy") != "abandon":
        message = '"wait_for_completion: false" requires a child that outlives its parent'
        yield source.diagnostic(wait.span, "key-conflict", message, 'add "parent_close_policy: abandon"')
    if (limit := node.entry("max_concurrency")) and not ("for_each" in node or "parallel" in node):
        message = '"max_concurrency" is only allowed with "for_each" or "parallel"'
        yield source.diagnostic(limit.key.span, "key-conflict", message)
    if step.place is Place.FINALLY:
        for key in ("compensate", "pivot"):
            if entry := node.entry(key):
                message = f'a step in "finally" cannot have "{key}": it is never undone'
                yield source.diagnostic(entry.key.span, "key-conflict", message)
