"""``retry-intervals``: the first wait of a retry policy is not longer than its longest.

Bad: ``{initial_interval: 1m, maximum_interval: 10s}``; good: the other way round.
"""

from collections.abc import Iterator

from pipeline_runner.core.durations import spell
from pipeline_runner.core.model import Retry
from pipeline_runner.language.diagnostics import Diagnostic
from pipeline_runner.language.document import Document
from pipeline_runner.language.policies import RETRY, is_sound, said, seconds


def check(document: Document) -> Iterator[Diagnostic]:
    """Yield calls whose merged policy the server would refuse."""
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
            message = (
                f"the retry policy's maximum_interval {spell(maximum)} "
                f"is shorter than its initial_interval {spell(initial)}"
            )
            yield document.source.diagnostic(own.span if own else call.span, "retry-intervals", message)
