"""``heartbeat-timeout``, ``timeout-order``, ``unlimited-retries``, ``useless-policy``.

Bad: ``{start_to_close: 10s, heartbeat: 30s}``; good: a heartbeat that is shorter than the
attempt (Temporal's documentation, "Detecting activity failures").
"""

from collections.abc import Iterator

from pipeline_runner.core.durations import spell
from pipeline_runner.language import policies
from pipeline_runner.language.diagnostics import Diagnostic
from pipeline_runner.language.document import Call, Document
from pipeline_runner.language.nodes import Mapping


def check(document: Document) -> Iterator[Diagnostic]:
    """Yield limits of calls that do not go together, and retries without any."""
    for call in document.calls:
        if call.kind == "activity":
            yield from _timeouts(document, call)
        yield from _retries(document, call)
        yield from _policy(document, call)


def _timeouts(document: Document, call: Call) -> Iterator[Diagnostic]:
    limits = policies.call_timeouts(document, call)
    attempt = limits.start_to_close
    heartbeat = policies.said_at(document, call, "timeouts", "heartbeat")
    if heartbeat and attempt and limits.heartbeat and limits.heartbeat >= attempt:
        message = (
            f"a heartbeat timeout of {spell(limits.heartbeat)} is never noticed: "
            f"start_to_close ends the attempt after {spell(attempt)}"
        )
        yield document.source.warning(
            heartbeat.span, "heartbeat-timeout", message, "make it shorter than start_to_close"
        )
    whole = policies.said_at(document, call, "timeouts", "schedule_to_close")
    one = policies.said_at(document, call, "timeouts", "start_to_close")
    if whole and one and attempt and limits.schedule_to_close and limits.schedule_to_close < attempt:
        message = (
            f"schedule_to_close {spell(limits.schedule_to_close)} limits all attempts together, "
            f"and is shorter than start_to_close {spell(attempt)}"
        )
        yield document.source.warning(whole.span, "timeout-order", message, "make it the longer one")


def _retries(document: Document, call: Call) -> Iterator[Diagnostic]:
    attempts = policies.said_at(document, call, "retry", "maximum_attempts")
    if attempts is None or policies.said_retry(document, call).maximum_attempts != 0:
        return
    if call.kind == "activity":
        limited, name = policies.call_timeouts(document, call).schedule_to_close, "schedule_to_close"
    else:
        limited, name = policies.call_child_timeouts(document, call).execution, "execution"
    if limited is None:
        message = f'"{call.name}" is tried for ever if it always fails: the run would never end'
        yield document.source.warning(
            attempts.span, "unlimited-retries", message, f"set {name}, or a number of attempts"
        )


def _policy(document: Document, call: Call) -> Iterator[Diagnostic]:
    """Yield a policy of which a call can use nothing."""
    value, name = call.node.get("policy"), call.node.text("policy")
    policy = document.policies.get(name or "")
    if value is None or not isinstance(policy, Mapping) or "retry" in policy:
        return
    limits = policy.mapping("timeouts")
    names = [entry.name for entry in limits or ()]
    of_children = ("run", "execution")
    if names and all((name in of_children) == (call.kind == "activity") for name in names):
        what = "an activity" if call.kind == "activity" else "a child pipeline"
        message = f'the policy "{name}" has nothing for {what}: {", ".join(names)}'
        yield document.source.warning(value.span, "useless-policy", message)
