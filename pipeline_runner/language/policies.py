"""The retry settings and timeouts of a call, merged field by field from all sources.

The sources, lowest precedence first: the language, the catalogue (the activity's entry, then the
undo's), the pipeline's ``defaults`` (their policy, then their own fields), the step's policy, the
step's own fields. Neither the catalogue nor ``defaults`` affect children. Malformed settings are
ignored, because the structure check has reported them.
"""

from typing import TypeVar

import msgspec

from pipeline_runner.core import durations
from pipeline_runner.core.model import ChildTimeouts, Retry, Struct, Timeouts
from pipeline_runner.language.document import Call, Document
from pipeline_runner.language.table.fields import POLICY_TIMEOUTS
from pipeline_runner.language.table.fields import RETRY as RETRY_FIELDS
from pipeline_runner.language.yaml.nodes import MappingNode, Node, Scalar

T = TypeVar("T", bound=Struct)

START_TO_CLOSE = 300.0
RETRY = Retry(initial_interval=1.0, backoff_coefficient=2.0, maximum_interval=60.0, maximum_attempts=5)
COMPENSATION_RETRY = Retry(
    initial_interval=1.0, backoff_coefficient=2.0, maximum_interval=60.0, maximum_attempts=10
)

_FIELDS = {"retry": RETRY_FIELDS.fields, "timeouts": POLICY_TIMEOUTS.fields}


def merged(*layers: T) -> T:
    """Return one struct whose fields come from the last layer that sets them."""
    result = layers[0]
    for layer in layers[1:]:
        said = {key: value for key, value in msgspec.structs.asdict(layer).items() if value is not None}
        if said:
            result = msgspec.structs.replace(result, **said)
    return result


def seconds(node: Node | None) -> float | None:
    """Return the seconds of a duration; None: there is none, or it is malformed."""
    if not isinstance(node, Scalar) or not isinstance(node.value, str):
        return None
    try:
        return durations.parse(node.value)
    except durations.DurationError:
        return None


def retry(node: Node | None) -> Retry:
    """Return the settings of a ``retry`` mapping."""
    if not isinstance(node, MappingNode):
        return Retry()
    types = node.items("non_retryable_error_types")
    return Retry(
        initial_interval=seconds(node.get("initial_interval")),
        backoff_coefficient=number(node.get("backoff_coefficient")),
        maximum_interval=seconds(node.get("maximum_interval")),
        maximum_attempts=None if (n := number(node.get("maximum_attempts"))) is None else int(n),
        non_retryable_error_types=tuple(item.text for item in types if isinstance(item, Scalar))
        if "non_retryable_error_types" in node
        else None,
    )


def timeouts(node: Node | None) -> Timeouts:
    """Return the timeouts of an activity."""
    return _durations(Timeouts, node)


def child_timeouts(node: Node | None) -> ChildTimeouts:
    """Return the timeouts of a child."""
    return _durations(ChildTimeouts, node)


def said_retry(document: Document, call: Call) -> Retry:
    """Return the retry settings of a call in the file and the catalogue, without the language's defaults."""
    own = call.activity.retry if call.activity else Retry()
    if call.compensates:
        # An undo must try hard, however often its activity is retried as a step.
        own = msgspec.structs.replace(own, maximum_attempts=None)
    if call.declared:
        own = merged(own, call.declared.retry)
    return merged(own, *(retry(part.get("retry")) for part in _parts(document, call)))


def said(document: Document, call: Call, group: str) -> dict[str, tuple[Node, int]]:
    """Return the settings in ``retry`` or ``timeouts`` that apply, with their precedence.

    The higher the number, the higher the precedence.
    """
    if group not in call.said:
        found = call.said[group] = {}
        for strength, part in enumerate(_parts(document, call)):
            if own := part.mapping(group):
                for name, entry in own.by_name.items():
                    found[name] = entry.value, strength
    return call.said[group]


def is_sound(document: Document, call: Call, group: str) -> bool:
    """Tell whether all settings in ``retry`` or ``timeouts`` are well-formed.

    If not, errors that follow from them, or from a default in their place, are not worth reporting.
    """
    known = _FIELDS[group]
    return all(
        name in known and not list(known[name].shape.check(node, document.source, name))
        for name, (node, _) in said(document, call, group).items()
    )


def call_retry(document: Document, call: Call) -> Retry:
    """Return the retry policy of a call, with every field but the error types set."""
    return _with_defaults(COMPENSATION_RETRY if call.compensates else RETRY, said_retry(document, call))


def _with_defaults(defaults: Retry, said: Retry) -> Retry:
    result = merged(defaults, said)
    initial, maximum = result.initial_interval or 0.0, result.maximum_interval or 0.0
    if said.maximum_interval is None and initial > maximum:
        # Nobody asked for the default that the first interval exceeds.
        return msgspec.structs.replace(result, maximum_interval=initial)
    return result


def child_retry(document: Document, call: Call) -> Retry | None:
    """Return the retry policy of a child; None: it has none."""
    return None if said_retry(document, call) == Retry() else call_retry(document, call)


def scope_retry(node: Node | None) -> Retry | None:
    """Return the retry policy of a block, switch or parallel; None: it has none."""
    return _with_defaults(RETRY, retry(node)) if node else None


def call_timeouts(document: Document, call: Call) -> Timeouts:
    """Return the timeouts of an activity."""
    activity = call.activity
    layers = [timeouts(part.get("timeouts")) for part in _parts(document, call)]
    declared = call.declared.timeouts if call.declared else Timeouts()
    said = merged(activity.timeouts if activity else Timeouts(), declared, *layers)
    if said.start_to_close is not None:
        return said
    if said.schedule_to_close is not None and said.schedule_to_close < START_TO_CLOSE:
        # The limit for all attempts is tighter than the default limit for one.
        return said
    return msgspec.structs.replace(said, start_to_close=START_TO_CLOSE)


def call_child_timeouts(document: Document, call: Call) -> ChildTimeouts:
    """Return the timeouts of a child."""
    return merged(ChildTimeouts(), *(child_timeouts(part.get("timeouts")) for part in _parts(document, call)))


def task_queue(document: Document, call: Call) -> str | None:
    """Return the task queue of an activity: the call's, the catalogue's, ``defaults``', the pipeline's."""
    layers = [_defaults(document, call), document.root.mapping("defaults") if call.declared else None]
    return (
        _own_queue(document, call)
        or next((queue for layer in layers if layer and (queue := layer.text("task_queue"))), None)
        or document.root.text("task_queue")
    )


def _own_queue(document: Document, call: Call) -> str | None:
    """Return the task queue that a call, or the catalogue, names.

    The catalogue's undo runs on the queue of the step: the files or the Engine that the step has
    changed may be reachable only from there.
    """
    known = call.activity.task_queue if call.activity else None
    if not call.declared:
        return call.node.text("task_queue") or known
    step = document.catalogue.get(call.step.node.text("activity") or "")
    of_step = step.task_queue if step else None
    chosen = call.step.node.text("task_queue") if known in (None, of_step) else None
    return call.declared.task_queue or chosen or known or of_step


def _parts(document: Document, call: Call) -> list[MappingNode]:
    """Return the mappings with settings for a call, lowest precedence first."""
    if call.parts is None:
        call.parts = _found_parts(document, call)
    return call.parts


def _found_parts(document: Document, call: Call) -> list[MappingNode]:
    owners = [call.node] if call.kind == "pipeline" else [_defaults(document, call), call.node]
    parts: list[MappingNode] = []
    for owner in owners:
        if owner is None:
            continue
        policy = document.policies.get(owner.text("policy") or "")
        parts += [policy, owner] if isinstance(policy, MappingNode) else [owner]
    return parts


def _defaults(document: Document, call: Call) -> MappingNode | None:
    defaults = document.root.mapping("defaults")
    return defaults.mapping("compensate") if defaults and call.compensates else defaults


def _durations(kind: type[T], node: Node | None) -> T:
    if not isinstance(node, MappingNode):
        return kind()
    return kind(**{field: seconds(node.get(field)) for field in kind.__struct_fields__})


def number(node: Node | None) -> float | None:
    """Return the value of a number; None: it is not a number."""
    value = node.value if isinstance(node, Scalar) else None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
