"""``key-conflict``: keys of a step that exclude each other."""

from collections.abc import Iterator

from pipeline_runner.core.scope import Place
from pipeline_runner.language.diagnostics import Diagnostic
from pipeline_runner.language.document import Document, Step
from pipeline_runner.language.flow import SCOPES
from pipeline_runner.language.yaml.nodes import Scalar

_DEADLINES = frozenset([*SCOPES, "for_each", "until"])


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
    if (fast := node.entry("fail_fast")) and not ("for_each" in node or "parallel" in node):
        message = '"fail_fast" is only allowed with "for_each" or "parallel"'
        yield source.diagnostic(fast.key.span, "key-conflict", message)
    if (until := node.entry("until")) and "for_each" in node:
        message = 'a step has "for_each" or "until", not both: put one of them on a block around the other'
        yield source.diagnostic(until.key.span, "key-conflict", message)
    if (timeout := node.entry("timeout")) and _DEADLINES.isdisjoint(node.by_name):
        message = '"timeout" is only allowed on a block, "switch", "parallel" or a loop'
        help_ = 'write "timeouts: {start_to_close: 5m}"' if step.kind in ("activity", None) else None
        yield source.diagnostic(timeout.key.span, "key-conflict", message, help_)
    after = step.compensation.entry("after") if step.compensation and step.kind in SCOPES else None
    if after:
        message = f'the compensation of "{step.id}" takes no "after": it runs only if all of it completed'
        yield source.diagnostic(after.key.span, "key-conflict", message, 'remove "after"')
    if step.place is Place.FINALLY:
        for key in ("compensate", "pivot"):
            if entry := node.entry(key):
                message = f'a step in "finally" cannot have "{key}": it is never undone'
                yield source.diagnostic(entry.key.span, "key-conflict", message)
