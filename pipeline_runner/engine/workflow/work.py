"""How much a run computes in one go: the SDK gives each workflow task two seconds, and retries it forever."""

from temporalio import workflow

from pipeline_runner.core.expressions import budget
from pipeline_runner.engine.workflow import calls
from pipeline_runner.engine.workflow.cancel import CancelScope

PAUSE_AFTER = budget.MAX_UNITS // 2
"""Units of work of expressions after which a run pauses, so that the server begins a new workflow task.

The counts decide where a history has a timer: a change of what an operation counts needs a patch.
"""

UNITS_OF_STEP = 100

_PATCH = "pause after much work"
"""In the histories of runs that pause. Runs that were open before there were pauses replay without them."""


class Work:
    """Counts what the expressions of one run take, and pauses the run when it is much."""

    def __init__(self) -> None:
        """Count all that is rendered from now on in this context."""
        self._meter = budget.metered()

    def begin_anew(self) -> None:
        """Count from zero: what the run has waited for came with a new workflow task."""
        self._meter.units = 0

    def count_step(self) -> None:
        """Count what a step takes beside its expressions: thousands that compute little are much, too."""
        self._meter.units += UNITS_OF_STEP

    async def pause_if_due(self, cancel: CancelScope) -> None:
        """Let the server begin a new workflow task if much was computed in this one.

        Args:
            cancel: What may cut a pause short.

        Raises:
            Interrupted: The work was ended meanwhile.
        """
        if self._meter.units > PAUSE_AFTER and workflow.patched(_PATCH):
            await cancel.wait(calls.timer(0.001, "pause between steps with much to compute"))
            self.begin_anew()
