"""Limits how much a run computes at once: a workflow task that takes over two seconds is retried forever."""

from temporalio import workflow

from pipeline_runner.core.expressions import budget
from pipeline_runner.engine.workflow import calls
from pipeline_runner.engine.workflow.cancel import CancelScope

PAUSE_AFTER = budget.MAX_UNITS // 2
"""Units of work after which a run pauses, so that the server begins a new workflow task.

The counts decide where a history has a timer: a change of what an operation costs needs a patch.
"""

UNITS_OF_STEP = 100

_PATCH = "pause after much work"
"""In the histories of runs that pause. Runs that were open before this feature replay without pauses."""


class Work:
    """Counts the computation of one run, and pauses the run when it is much."""

    def __init__(self) -> None:
        """Count everything that is rendered from now on in this context."""
        self._meter = budget.metered()
        self._task = 0
        """Events of the history when the counting began: they tell workflow tasks apart."""
        self._paused: list[object] = []
        """A token for each branch that is paused; the first one goes on first."""

    def begin_anew(self) -> None:
        """Count from zero if a new workflow task has begun, as it has when something was waited for.

        Several branches may wait for what comes with one and the same task.
        """
        task = workflow.info().get_current_history_length()
        if task != self._task:
            self._task, self._meter.units = task, 0

    def count_step(self) -> None:
        """Count the cost of a step apart from its expressions: thousands of small steps are much, too."""
        self._meter.units += UNITS_OF_STEP

    async def pause_if_due(self, cancel: CancelScope) -> None:
        """Let the server begin a new workflow task if much was computed in this one.

        Branches that are due wait for their turn: in each workflow task one of them goes on at least.

        Args:
            cancel: What may cut a pause short.

        Raises:
            Interrupted: The work was ended meanwhile.
        """
        if not self._is_due or not workflow.patched(_PATCH):
            return
        turn = object()
        self._paused.append(turn)
        try:
            if self._paused[0] is not turn:
                await workflow.wait_condition(lambda: self._paused[0] is turn or cancel.requested)
                cancel.check()
            while self._is_due:
                await cancel.wait(calls.timer(0.001, "pause between steps with much to compute"))
                self.begin_anew()
        finally:
            self._paused.remove(turn)

    @property
    def _is_due(self) -> bool:
        return self._meter.units > PAUSE_AFTER
