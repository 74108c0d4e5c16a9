"""``history-size``, ``payload-size``: a run stays within Temporal's limits.

The figures: a step produces about six events; a server warns at 10,240 events and terminates the run at
51,200, warns about a payload of 512 KiB and refuses one of 2 MiB, and allows at most 2,000 activities
of one run at a time (Temporal's documentation, "Temporal Service limits"; measured with server 1.32). A
sequence of steps continues as new before it reaches these limits; a single loop or ``parallel`` does
not.
"""

import json
import sys
from collections.abc import Iterator

from jinja2 import nodes as jinja

from pipeline_runner.language.diagnostics import Diagnostic
from pipeline_runner.language.document import Document, Scope, Step
from pipeline_runner.language.yaml.nodes import START, Scalar, SequenceNode, plain

EVENTS = 6
"""Of one step that calls an activity."""
MAX_EVENTS = 10_240
MAX_AT_ONCE = 2_000
MAX_BYTES = 512 * 1024
_SMALL = 100 * 1024
"""Files with at most so many characters are within the limit, and not measured."""


def check(document: Document) -> Iterator[Diagnostic]:
    """Yield loops that are too long for one history, and files that are too large to send."""
    for step in document.steps:
        yield from _history(document, step)
        yield from _at_once(document, step)
    yield from _payload(document)


def _is_wide(step: Step) -> bool:
    return "for_each" in step.node or "parallel" in step.node


def _history(document: Document, step: Step) -> Iterator[Diagnostic]:
    entry = step.node.entry("for_each") or step.node.entry("parallel")
    if entry is None or any(map(_is_wide, step.around)):
        return  # the enclosing step counts it
    events = _events(document, step)
    if events > MAX_EVENTS:
        message = (
            f'step "{step.id}" produces about {events:,} events, '
            f"but a server warns at {MAX_EVENTS:,} and terminates the run at 51,200"
        )
        help_ = "move a part of the work into a child pipeline, which has its own history"
        yield document.source.diagnostic(entry.key.span, "history-size", message, help_)


def _at_once(document: Document, step: Step) -> Iterator[Diagnostic]:
    limit = step.node.get("max_concurrency")
    at_once = limit.value if isinstance(limit, Scalar) and isinstance(limit.value, int) else 1
    if limit and min(_elements(document, step), at_once) > MAX_AT_ONCE:
        message = f"a run can have at most {MAX_AT_ONCE:,} activities at a time, not {at_once:,}"
        yield document.source.diagnostic(limit.span, "history-size", message, "500 is a safe limit")


def _events(document: Document, step: Step) -> int:
    """Return the approximate number of events of one step."""
    inner = sum(_of_scope(document, scope) for scope in step.inner if scope.kind != "catch")
    own = EVENTS if step.kind in ("activity", "pipeline", "wait", "approval") else 0
    return (own + inner) * _elements(document, step)


def _of_scope(document: Document, scope: Scope) -> int:
    return sum(_events(document, step) for step in scope.steps)


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
