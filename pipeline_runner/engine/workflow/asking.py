"""``on_failure: ask``: a run whose step has failed is held until a person decides about that step.

What the step did is undone first. The question is in the run's state, so that it is still asked in a new run
of the chain, and in its memo, where anybody can read it without a worker.
"""

from datetime import datetime
from typing import Any, get_args

from temporalio import workflow
from temporalio.exceptions import ApplicationError

from pipeline_runner.core.model import Ask, Pipeline, Step
from pipeline_runner.core.paths import Path
from pipeline_runner.core.state import Continuation, Decision, Question
from pipeline_runner.core.suggest import listed
from pipeline_runner.engine.workflow.cancel import Interrupted
from pipeline_runner.engine.workflow.deadline import Deadline
from pipeline_runner.engine.workflow.payloads import PayloadTooLargeError
from pipeline_runner.engine.workflow.scopes import Scope, next_step, try_again
from pipeline_runner.engine.workflow.step_errors import StepError, kept, restored
from pipeline_runner.engine.workflow.steps import Steps
from pipeline_runner.engine.workflow.undo import Undo
from pipeline_runner.engine.workflow.waiting import Waits

DECIDE = "pipeline_runner.decide"
"""The update. Its one argument is the decision."""

REFUSED = "DecisionRefused"
"""The type of the error with which a sender learns that a decision was not taken."""

WAITS_FOR = "decision"
"""What a held run waits for, in its memo."""


class Asking:
    """Runs a pipeline's own list of steps, and asks about those that fail if the pipeline says so."""

    def __init__(
        self,
        pipeline: Pipeline,
        state: Continuation,
        steps: Steps,
        undo: Undo,
        waits: Waits,
        deadline: Deadline,
    ) -> None:
        """Prepare the run of a pipeline.

        Args:
            pipeline: The pipeline.
            state: The run's state, which holds the question.
            steps: Runs the steps.
            undo: Undoes what a failed step has done.
            waits: What the run waits for.
            deadline: The run's, which stands still while it is held.
        """
        self._pipeline = pipeline
        self._state = state
        self._steps = steps
        self._undo = undo
        self._waits = waits
        self._deadline = deadline

    async def run(self, scope: Scope) -> None:
        """Run the list to its end, whatever is decided on the way.

        Raises:
            StepError: A step failed, and nobody is asked, or the run is to be undone.
            Interrupted: The work is to end.
        """
        if self._state.question is None:
            self._deadline.start()
        while True:
            if self._state.question is None:
                try:
                    return await self._steps.sequence(self._pipeline.steps, scope)
                except StepError as error:
                    if not isinstance(self._pipeline.on_failure, Ask):
                        raise
                    self._hold(error, scope)
            assert self._state.question is not None
            await self._settle(self._state.question, scope)

    def _hold(self, error: StepError, scope: Scope) -> None:
        """Hold the run. What is open in the step is forgotten: its next attempt, if any, begins anew."""
        self._deadline.stop()
        step = self._step(scope)
        path, since = str(scope.path_of(step)), workflow.now().isoformat()
        self._state.question = Question(step=step.id, path=path, failure=kept(error), since=since)
        try_again(scope.frame)

    def _step(self, scope: Scope) -> Step:
        return self._pipeline.steps[scope.frame.position]

    async def _settle(self, question: Question, scope: Scope) -> None:
        """Undo what the step has done, ask, and do what is decided."""
        try:
            await self._undo.within(Path.of(question.step), question.failure.error, scope.cancel)
            decision = await self._decision(question, scope)
            scope.cancel.check()
        except (Interrupted, PayloadTooLargeError):
            self._state.question = None
            raise
        self._state.question = None
        workflow.logger.info("decided about %s: %s", question.path, decision)
        if decision == "undo":
            raise restored(question.failure)
        if decision == "skip":
            self._steps.skip(self._step(scope), scope)
            next_step(scope.frame)
        held = workflow.now() - datetime.fromisoformat(question.since)
        self._state.held += held.total_seconds()
        self._deadline.start()

    async def _decision(self, question: Question, scope: Scope) -> Decision:
        """Ask, and return the decision: ``undo`` if there is none in time."""
        assert isinstance(self._pipeline.on_failure, Ask)
        waiting = self._waits.begin(question.path, event=None, timeout=self._pipeline.on_failure.timeout)
        waiting.is_question = question.is_asked = True
        await self._waits.wait(
            waiting, scope, lambda: question.decision is not None, name=question.step, what=WAITS_FOR
        )
        decision = question.decision or "undo"
        what = f"decided: {decision}" if question.decision else "nobody decided in time"
        self._waits.end(waiting, "skipped" if decision == "skip" else "failed", what)
        return decision

    def decide(self, given: Any) -> str:
        """Take a decision, and return the path of its step.

        Raises:
            ApplicationError: It is refused; the message says why.
        """
        question = self.check(given)
        question.decision = given
        return question.path

    def check(self, given: Any) -> Question:
        """Return the question that a decision answers, if it may be taken.

        Raises:
            ApplicationError: It may not.
        """
        if given not in get_args(Decision):
            raise _refused(f"a decision is one of {listed(get_args(Decision))}")
        question = self._state.question
        if not isinstance(self._pipeline.on_failure, Ask):
            raise _refused('the run does not ask for decisions: its pipeline has no "on_failure: ask"')
        if question is None:
            raise _refused("the run does not wait for a decision now")
        if not question.is_asked:
            raise _refused(f'what "{question.step}" did is being undone: decide when that has ended')
        if question.decision is not None:
            raise _refused(f'"{question.step}" is decided already: {question.decision}')
        return question


def _refused(message: str) -> ApplicationError:
    return ApplicationError(message, type=REFUSED, non_retryable=True)
