"""``retry-intervals``: the first interval of a retry policy is not longer than its maximum."""

from collections.abc import Iterator

from pipeline_runner.core.durations import spell
from pipeline_runner.core.model import Retry
from pipeline_runner.language.diagnostics import Diagnostic
from pipeline_runner.language.document import Document, Step
from pipeline_runner.language.flow import SCOPES
from pipeline_runner.language.policies import RETRY, is_sound, retry, said, seconds
from pipeline_runner.language.yaml.nodes import Span


def check(document: Document) -> Iterator[Diagnostic]:
    """Yield calls whose merged policy the server would refuse."""
    for step in document.steps:
        if step.kind in SCOPES and "retry" in step.node:
            yield from _of_scope(document, step)
    for call in document.calls:
        fields = said(document, call, "retry")
        if "initial_interval" not in fields and "maximum_interval" not in fields:
            continue
        activity = call.activity
        known = activity.retry if activity else Retry()
        initial, maximum = (
            seconds(fields[name][0]) if name in fields else getattr(known, name)
            for name in ("initial_interval", "maximum_interval")
        )
        initial = RETRY.initial_interval or 0.0 if initial is None else initial
        if maximum is not None and initial > maximum and is_sound(document, call, "retry"):
            own, _ = fields.get("maximum_interval", (None, 0))
            yield _told(document, own.span if own else call.span, initial, maximum)


def _of_scope(document: Document, step: Step) -> Iterator[Diagnostic]:
    fields = step.node.mapping("retry")
    node = fields.get("maximum_interval") if fields else None
    policy = retry(fields)
    initial = RETRY.initial_interval or 0.0 if policy.initial_interval is None else policy.initial_interval
    if node and policy.maximum_interval is not None and initial > policy.maximum_interval:
        yield _told(document, node.span, initial, policy.maximum_interval)


def _told(document: Document, span: Span, initial: float, maximum: float) -> Diagnostic:
    message = (
        f"the retry policy's maximum_interval {spell(maximum)} "
        f"is shorter than its initial_interval {spell(initial)}"
    )
    return document.source.diagnostic(span, "retry-intervals", message)
