"""``missing-argument``, ``unknown-argument``, ``type-mismatch``, ``bad-value``: the values of ``args``."""

from collections.abc import Iterator

from pipeline_runner.activities.catalogue.entries import Argument
from pipeline_runner.core.suggest import listed
from pipeline_runner.language.checks.values import argument
from pipeline_runner.language.diagnostics import Diagnostic
from pipeline_runner.language.document import Call, Document
from pipeline_runner.language.types import Map, of_catalogue
from pipeline_runner.language.typing.inference import Inference
from pipeline_runner.language.yaml.nodes import SequenceNode


def check(document: Document, inferred: Inference) -> Iterator[Diagnostic]:
    """Yield arguments that an activity does not accept, and missing ones."""
    for call in document.calls:
        taken = _taken(call)
        if taken is None or ("with" in call.node and "args" in call.node):
            continue
        if "with" in call.node and len(taken) != 1 and "args" not in call.node:
            span = (entry := call.node.entry("with")) and entry.key.span
            message = f'"{call.name}" takes {_arguments(taken)}, but "with" passes one mapping'
            help_ = 'pass them as "args"' if taken else 'remove "with"'
            yield document.source.diagnostic(span or call.span, "unknown-argument", message, help_)
            continue
        given = call.node.get("args")
        if isinstance(given, SequenceNode) or (given is None and "with" not in call.node):
            yield from _check(document, inferred, call, given, taken)


def _arguments(taken: tuple[Argument, ...]) -> str:
    names = listed(one.name for one in taken)
    return f"the argument{'s' if taken[1:] else ''} {names}" if taken else "no arguments"


def _taken(call: Call) -> tuple[Argument, ...] | None:
    """Return the parameters of an activity; None: not known, or ``with`` passes its input."""
    activity = call.activity
    if activity is None:
        return None
    if activity.arguments is not None:
        return activity.arguments
    plain = activity.input is not None and not isinstance(of_catalogue(activity.input), Map)
    if activity.input is not None and ("args" in call.node or (plain and "with" not in call.node)):
        return (Argument(name="input", schema=activity.input),)
    return None


def _check(
    document: Document,
    inferred: Inference,
    call: Call,
    given: SequenceNode | None,
    taken: tuple[Argument, ...],
) -> Iterator[Diagnostic]:
    source, items = document.source, given.items if given else ()
    activity = call.activity
    named = activity is not None and activity.arguments is not None
    missing = [one.name for one in taken[len(items) :] if one.required]
    if missing:
        needs = ", ".join(f'"{name}"' for name in missing) if named else "its one argument"
        message = f'"{call.name}" needs {needs} in its "args"'
        help_ = (
            f"the arguments are {listed(one.name for one in taken)}, in this order"
            if named
            else 'write "args: [VALUE]"'
        )
        yield source.diagnostic(given.span if given else call.span, "missing-argument", message, help_)
    for item in items[len(taken) :]:
        message = (
            f'"{call.name}" takes {"only " if taken else ""}{_arguments(taken) if named else "one argument"}'
        )
        yield source.diagnostic(item.span, "unknown-argument", message, "remove it")
    for item, one in zip(items, taken, strict=False):
        if one.schema is not None:
            yield from argument(document, inferred, call, item, one.schema, one.name)
