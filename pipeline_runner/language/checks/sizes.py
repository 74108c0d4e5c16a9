"""``history-size``, ``payload-size``: a run stays within Temporal's limits.

The figures: a server warns about a payload of 512 KiB and refuses one of 2 MiB, and allows at most 2,000
activities of one run at a time (Temporal's documentation, "Temporal Service limits"; measured with
server 1.32). The number of events does not matter: a run can continue as new between any two steps.
"""

import json
import sys
from collections.abc import Iterator

from jinja2 import nodes as jinja

from pipeline_runner.language.diagnostics import Diagnostic
from pipeline_runner.language.document import Document, Scope, Step
from pipeline_runner.language.yaml.nodes import START, Node, Scalar, SequenceNode, plain

MAX_AT_ONCE = 2_000
_CALLS = ("activity", "pipeline")
MAX_BYTES = 512 * 1024
_SMALL = 100 * 1024
"""Files with at most so many characters are within the limit, and not measured."""


def check(document: Document) -> Iterator[Diagnostic]:
    """Yield what does too much at a time, and files that are too large to send."""
    for scope in document.scopes:
        for step in scope.steps:
            yield from _too_wide(document, step)
    yield from _payload(document)


def _too_wide(document: Document, step: Step) -> Iterator[Diagnostic]:
    at_once = _at_once(document, step)
    if at_once <= MAX_AT_ONCE:
        return
    inner = [one for scope in step.inner for one in scope.steps]
    if widest := [one for one in inner if _at_once(document, one) > MAX_AT_ONCE]:
        for one in widest:
            yield from _too_wide(document, one)
        return
    limit, branches = step.node.get("max_concurrency"), step.node.entry("parallel")
    span = limit.span if limit else branches.key.span if branches else step.node.span
    message = f"a run can have at most {MAX_AT_ONCE:,} activities at a time, not {at_once:,}"
    yield document.source.diagnostic(
        span, "history-size", message, "limit it with max_concurrency: 500 activities at a time are safe"
    )


def _at_once(document: Document, step: Step) -> int:
    """Return how many activities and children of a step can run at the same time."""
    if not step.inner and "max_concurrency" not in step.node:  # as most are
        return 1 if step.kind in _CALLS else 0
    limit, loop = _number(step.node.get("max_concurrency")), "for_each" in step.node
    branches = sorted((_most(document, scope) for scope in step.body("branch")), reverse=True)
    others = (_most(document, scope) for scope in step.inner if scope.kind != "branch")
    own = sum(branches if loop else branches[:limit])
    width = min(_elements(document, step), limit or 1) if loop else 1
    return width * max(own, *others, 1 if step.kind in _CALLS else 0)


def _most(document: Document, scope: Scope) -> int:
    return max((_at_once(document, step) for step in scope.steps), default=0)


def _number(node: Node | None) -> int | None:
    return node.value if isinstance(node, Scalar) and isinstance(node.value, int) else None


def _elements(document: Document, step: Step) -> int:
    """Return the number of elements of a loop if it is known from the file, else 1."""
    node = step.node.get("for_each")
    if isinstance(node, SequenceNode):
        return len(node.items)
    use = document.use_at(node, step) if isinstance(node, Scalar) else None
    if use is None or use.tree is None or not use.is_lone:
        return 1
    (output,) = use.tree.body
    match output:
        case jinja.Output(nodes=[jinja.Call(node=jinja.Name(name="range"), args=arguments)]):
            numbers = [one.value for one in arguments if isinstance(one, jinja.Const)]
            if len(numbers) == len(arguments) and all(isinstance(one, int) for one in numbers):
                try:
                    return len(range(*numbers))
                except OverflowError:
                    return sys.maxsize
                except (TypeError, ValueError):
                    return 1  # it is not a range
    return 1


def _payload(document: Document) -> Iterator[Diagnostic]:
    """Yield a pipeline that is too large, with its children, for the workflow's input."""
    files = {document.path: document}
    waiting = [document]
    while waiting:
        for child in waiting.pop().children.values():
            if child.path not in files:
                files[child.path] = child
                waiting.append(child)
    if sum(len(one.source.text) + one.root.size for one in files.values()) <= _SMALL:
        return
    size = sum(len(json.dumps(plain(one.root), ensure_ascii=False).encode()) for one in files.values())
    if size > MAX_BYTES:
        message = (
            f"this pipeline and its children have {size // 1024:,} KiB, sent to the server as one payload: "
            "it warns at 512 KiB and refuses 2,048 KiB"
        )
        help_ = "put long strings into files that the steps read, or use fewer steps"
        yield document.source.diagnostic(START, "payload-size", message, help_)
