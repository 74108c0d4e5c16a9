"""``retry-intervals``: the first wait of a retry policy is not longer than its longest.

Bad: ``{initial_interval: 1m, maximum_interval: 10s}``; good: the other way round.
"""

from collections.abc import Iterator

from pipeline_runner.core.durations import spell
from pipeline_runner.language.diagnostics import Diagnostic
from pipeline_runner.language.document import Document
from pipeline_runner.language.policies import RETRY, merged, said_at, said_retry


def check(document: Document) -> Iterator[Diagnostic]:
    """Yield calls whose merged policy the server would refuse."""
    for call in document.calls:
        if not any(said_at(document, call, "retry", f"{which}_interval") for which in ("initial", "maximum")):
            continue
        said = said_retry(document, call)
        initial = merged(RETRY, said).initial_interval or 0.0
        if said.maximum_interval is not None and initial > said.maximum_interval:
            own = said_at(document, call, "retry", "maximum_interval")
            message = (
                f"the retry policy's maximum_interval {spell(said.maximum_interval)} "
                f"is shorter than its initial_interval {spell(initial)}"
            )
            yield document.source.error(own.span if own else call.span, "retry-intervals", message)
