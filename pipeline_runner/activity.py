"""What activities can ask about the step that they run, and what they can report.

This module complements ``temporalio.activity`` and does not replace it: an activity is a function or a
method with Temporal's own ``@activity.defn``. Importing this module does not import temporalio.
"""

from pipeline_runner.activities.catalogue.providers import describe
from pipeline_runner.activities.catalogue.undo import Undo
from pipeline_runner.activities.toolkit.context import (
    absolute,
    idempotency_key,
    undone_outcome,
    working_directory,
)
from pipeline_runner.core.model import Retry, Timeouts

__all__ = [
    "Retry",
    "Timeouts",
    "Undo",
    "absolute",
    "describe",
    "idempotency_key",
    "progress",
    "undone_outcome",
    "working_directory",
]


def progress(done: int, total: int | None = None, unit: str | None = None) -> None:
    """Report the activity's progress in a heartbeat; the live view shows it as a progress bar.

    The next attempt finds the progress in ``temporalio.activity.info().heartbeat_details``. Outside an
    activity, this function does nothing.

    Args:
        done: How much is done.
        total: How much there is to do; None: unknown, and only ``done`` is shown.
        unit: The unit of both numbers; ``bytes`` are shown as sizes, such as ``1.2 MB``.
    """
    from temporalio import activity

    if activity.in_activity():
        details = {"done": done, "total": total}
        activity.heartbeat(details if unit is None else {**details, "unit": unit})
