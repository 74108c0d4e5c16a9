"""What an activity may ask about the step that it serves, and what it may tell.

Beside ``temporalio.activity``, and not instead of it: an activity is a function or a method with
Temporal's own ``@activity.defn``. Importing this module does not import temporalio.
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
    """Heartbeat with how far the activity has come: the live view shows it as a progress bar.

    The next attempt finds it in ``temporalio.activity.info().heartbeat_details``. Outside an activity
    this does nothing.

    Args:
        done: How much is done.
        total: How much there is to do; None: nobody knows, and ``done`` is shown alone.
        unit: What is counted; ``bytes`` are shown as sizes, such as ``1.2 MB``.
    """
    from temporalio import activity

    if activity.in_activity():
        details = {"done": done, "total": total}
        activity.heartbeat(details if unit is None else {**details, "unit": unit})
