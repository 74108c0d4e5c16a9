"""``heartbeat-timeout``, ``timeout-order``, ``unlimited-retries``, ``useless-retry``, ``useless-policy``."""

from collections.abc import Iterator

from pipeline_runner.core.durations import spell
from pipeline_runner.language import policies
from pipeline_runner.language.diagnostics import Diagnostic
from pipeline_runner.language.document import Call, Document, Step
from pipeline_runner.language.flow import SCOPES
from pipeline_runner.language.table.fields import ACTIVITY_TIMEOUTS, CHILD_TIMEOUTS
from pipeline_runner.language.yaml.nodes import MappingNode, Scalar

_WAITS = ("until", "wait", "approval")
"""Keys of a step whose mappings have a ``timeout``."""
_TIMED = frozenset([*_WAITS, "timeout"])


def check(document: Document) -> Iterator[Diagnostic]:
    """Yield limits of calls that do not go together, and retries without any."""
    for step in document.steps:
        if not _TIMED.isdisjoint(step.node.by_name):
            yield from _deadlines(document, step)
        if step.kind in SCOPES:
            yield from _attempts_of_scope(document, step)
    for call in document.calls:
        found = list(_retries(document, call))
        if call.kind == "activity":
            found += _timeouts(document, call)
        if found and policies.is_sound(document, call, "timeouts"):
            yield from found
        if policies.is_sound(document, call, "retry"):
            yield from _single_attempts(document, call)
    yield from _policies(document)


def _timeouts(document: Document, call: Call) -> Iterator[Diagnostic]:
    """Yield limits that never take effect.

    A step may set a tighter limit, which makes a limit for many steps ineffective. That is not an
    error.
    """
    fields = policies.said(document, call, "timeouts")
    if "heartbeat" not in fields and "schedule_to_close" not in fields:
        return
    limits = policies.call_timeouts(document, call)
    names = ("heartbeat", "start_to_close", "schedule_to_close")
    (heartbeat, of_heartbeat), (one, of_one), (whole, of_whole) = (
        fields.get(name, (None, -1)) for name in names
    )
    ends = [
        (limit, name if strength >= 0 else f"the default of {name}")
        for limit, name, strength in (
            (limits.start_to_close, "start_to_close", of_one),
            (limits.schedule_to_close, "schedule_to_close", of_whole),
        )
        if limit is not None and strength <= of_heartbeat
    ]
    if heartbeat and limits.heartbeat and ends and limits.heartbeat >= min(ends)[0]:
        message = (
            f"a heartbeat timeout of {spell(limits.heartbeat)} has no effect: "
            f"{min(ends)[1]} ends the attempt after {spell(min(ends)[0])}"
        )
        yield document.source.diagnostic(heartbeat.span, "heartbeat-timeout", message, "make it shorter")
    if not whole or not one or not limits.schedule_to_close or not limits.start_to_close:
        return
    if of_one >= of_whole and limits.schedule_to_close < limits.start_to_close:
        message = (
            f"schedule_to_close ({spell(limits.schedule_to_close)}), the limit of all attempts together, "
            f"is shorter than start_to_close ({spell(limits.start_to_close)}), the limit of one"
        )
        place = one if of_one > of_whole else whole
        yield document.source.diagnostic(
            place.span, "timeout-order", message, "make schedule_to_close longer"
        )


def _retries(document: Document, call: Call) -> Iterator[Diagnostic]:
    attempts, _ = policies.said(document, call, "retry").get("maximum_attempts", (None, 0))
    if not isinstance(attempts, Scalar) or policies.number(attempts) != 0:
        return
    if not call.compensates and _is_ended(document, call.step):
        return  # a deadline ends the steps, but not their undo
    if call.kind == "activity":
        limited, name = policies.call_timeouts(document, call).schedule_to_close, "schedule_to_close"
    else:
        limited, name = policies.call_child_timeouts(document, call).execution, "execution"
    if limited is None:
        message = "this is retried for ever: if it always fails, the run never ends"
        yield document.source.diagnostic(
            attempts.span, "unlimited-retries", message, f"set {name}, or a number of attempts"
        )


def _is_ended(document: Document, step: Step) -> bool:
    """Tell whether a deadline of a step, of one around it or of the pipeline ends it."""
    own = any("timeout" in one.node for one in (step, *step.around))
    return own or ("timeout" in document.root and not step.in_finally)


def _attempts_of_scope(document: Document, step: Step) -> Iterator[Diagnostic]:
    retry = step.node.mapping("retry")
    attempts = retry.get("maximum_attempts") if retry else None
    if isinstance(attempts, Scalar) and policies.number(attempts) == 0 and not _is_ended(document, step):
        message = "this is retried for ever: if it always fails, the run never ends"
        help_ = "set timeout, or a number of attempts"
        yield document.source.diagnostic(attempts.span, "unlimited-retries", message, help_)


def _deadlines(document: Document, step: Step) -> Iterator[Diagnostic]:
    """Yield deadlines that a shorter one around them always comes before."""
    for node in (step.node, *map(step.node.mapping, _WAITS)):
        found = node.get("timeout") if node else None
        limit = policies.seconds(found)
        if found is None or limit is None:
            continue
        around = [*step.around] if node is step.node else [step, *step.around]
        shorter = [(end, name) for end, name in _ends(document, step, around) if end <= limit]
        if shorter:
            end, name = min(shorter)
            message = (
                f"a timeout of {spell(limit)} has no effect: that of {name} ends this after {spell(end)}"
            )
            yield document.source.diagnostic(found.span, "timeout-order", message, "make it shorter")


def _ends(document: Document, step: Step, around: list[Step]) -> Iterator[tuple[float, str]]:
    for one in around:
        if (end := policies.seconds(one.node.get("timeout"))) is not None:
            yield end, f'step "{one.id}"'
    end = None if step.in_finally else policies.seconds(document.root.get("timeout"))
    if end is not None:
        yield end, "the pipeline"


def _single_attempts(document: Document, call: Call) -> Iterator[Diagnostic]:
    """Yield a call's own ``retry`` that has no effect: by default, its activity has one attempt."""
    own = call.node.mapping("retry")
    if own is None or "maximum_attempts" in policies.said(document, call, "retry"):
        return
    if call.activity and own.by_name and policies.call_retry(document, call).maximum_attempts == 1:
        place = next(iter(own.by_name.values())).value
        message = f"{call.activity.name} has one attempt by default, so this retry has no effect"
        help_ = "set maximum_attempts if it may run more than once, or remove the retry"
        yield document.source.diagnostic(place.span, "useless-retry", message, help_)


def _policies(document: Document) -> Iterator[Diagnostic]:
    """Yield policies without any setting that applies to their users."""
    users = [(call.node, call.kind) for call in document.calls]
    if defaults := document.root.mapping("defaults"):
        users += [(node, "activity") for node in (defaults, defaults.mapping("compensate")) if node]
    for node, kind in users:
        if "policy" not in node:
            continue
        value, name = node.get("policy"), node.text("policy")
        policy = document.policies.get(name or "")
        if value is None or not isinstance(policy, MappingNode) or "retry" in policy:
            continue
        names = [entry.name for entry in policy.mapping("timeouts") or ()]
        others = CHILD_TIMEOUTS if kind == "activity" else ACTIVITY_TIMEOUTS
        if names and all(one in others.fields for one in names):
            what = "activities" if kind == "activity" else "a child pipeline"
            message = f'the policy "{name}" has no setting for {what}, only {", ".join(names)}'
            help_ = f"these are timeouts of {'children' if kind == 'activity' else 'activities'}"
            yield document.source.diagnostic(value.span, "useless-policy", message, help_)
