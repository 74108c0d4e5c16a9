"""``retry-intervals``: the first wait of a retry policy is not longer than its longest.

Bad: ``{initial_interval: 1m, maximum_interval: 10s}``; good: the other way round.
"""

from collections.abc import Iterator

from pipeline_runner.core.durations import spell
from pipeline_runner.language.diagnostics import Diagnostic
from pipeline_runner.language.document import Document
from pipeline_runner.language.policies import RETRY, is_sound, merged, said, said_retry


def check(document: Document) -> Iterator[Diagnostic]:
    """Yield calls whose merged policy the server would refuse."""
    for call in document.calls:
        fields = said(document, call, "retry")
        if "initial_interval" not in fields and "maximum_interval" not in fields:
            continue
        retry = said_retry(document, call)
        initial = merged(RETRY, retry).initial_interval or 0.0
        maximum = retry.maximum_interval
        if maximum is not None and initial > maximum and is_sound(document, call, "retry"):
            own, _ = fields.get("maximum_interval", (None, 0))
            message = (
                f"the retry policy's maximum_interval {spell(maximum)} "
                f"is shorter than its initial_interval {spell(initial)}"
            )
            yield document.source.error(own.span if own else call.span, "retry-intervals", message)
