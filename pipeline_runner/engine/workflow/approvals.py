"""Approvals: steps that wait for people, who answer with updates.

Who answers is the identity that the sender's client claims, which the server passes on. The validator and the
handler of an update judge an answer the same way: the handler is what a replay runs.
"""

from typing import Any

import msgspec
from temporalio import workflow
from temporalio.exceptions import ApplicationError

from pipeline_runner.core import durations, errors
from pipeline_runner.core.errors import shortened
from pipeline_runner.core.expressions.evaluate import render_text
from pipeline_runner.core.inputs import value_problems
from pipeline_runner.core.model import Approval
from pipeline_runner.core.paths import Path
from pipeline_runner.core.state import Answer, Continuation, Waiting
from pipeline_runner.core.suggest import listed
from pipeline_runner.engine.workflow import senders
from pipeline_runner.engine.workflow.program import Program
from pipeline_runner.engine.workflow.scopes import Turn
from pipeline_runner.engine.workflow.step_errors import StepError, info_of, step_error
from pipeline_runner.engine.workflow.values import plain, without_secrets
from pipeline_runner.engine.workflow.waiting import PAYLOAD_BYTES, Waits, size_of

APPROVE = "pipeline_runner.approve"
REJECT = "pipeline_runner.reject"
"""The updates. Their one argument is a mapping: ``step``, ``payload`` (of an approval) and ``comment``."""

REFUSED = "AnswerRefused"
"""The type of the error with which a sender learns that an answer was not taken."""

COMMENT = 500
"""Characters of a comment."""

_EXAMPLE = '{"step": "deploy.ok", "payload": {"build": 7}, "comment": "tested"}'


class _Given(msgspec.Struct, forbid_unknown_fields=True):
    """The argument of an update."""

    step: str
    payload: Any = None
    comment: str = ""


class Approvals:
    """Takes answers, and hands them to the steps that wait for them."""

    def __init__(self, program: Program, state: Continuation, waits: Waits) -> None:
        """Take the answers for a run.

        Args:
            program: Its bundle.
            state: Its state.
            waits: What its steps wait for.
        """
        self._program = program
        self._state = state
        self._waits = waits

    async def wait(self, turn: Turn, approval: Approval, name: str) -> dict[str, Any]:
        """Wait for approval.

        Returns:
            The step's output.

        Raises:
            StepError: It was rejected, or not given in time.
            Interrupted: The work is to end.
        """
        message = ""
        if approval.message is not None:
            message = without_secrets(render_text(approval.message, turn.scope.names))
        default = _default(approval, turn.scope.names)
        waiting = self._waits.begin(str(turn.path), event=None, timeout=approval.timeout)

        def is_answered() -> bool:
            return waiting.rejection is not None or len(waiting.answers) >= approval.approvals

        what = f"approval: {message}" if message else "approval"
        answered = await self._waits.wait(waiting, turn.scope, is_answered, name=name, what=what)
        if (error := _error(approval, waiting, in_time=answered)) is not None:
            self._waits.end(waiting, "failed", error.info.message)
            raise error
        self._waits.end(waiting, "completed")
        if not answered:
            return {"by": None, "at": workflow.now().isoformat(), "payload": default}
        return _output(approval, waiting.answers)

    def approve(self, given: Any) -> dict[str, Any]:
        """Take an approval.

        Returns:
            The path of its step, and how many approvals are missing now.

        Raises:
            ApplicationError: It is refused; the message says why.
        """
        waiting, answer = self.checked(given, rejects=False)
        waiting.answers.append(answer)
        missing = self._approval(waiting).approvals - len(waiting.answers)
        return {"step": waiting.path, "missing": missing}

    def reject(self, given: Any) -> dict[str, Any]:
        """Take a rejection.

        Returns:
            The path of its step.

        Raises:
            ApplicationError: It is refused; the message says why.
        """
        waiting, answer = self.checked(given, rejects=True)
        waiting.rejection = answer
        return {"step": waiting.path}

    def checked(self, given: Any, *, rejects: bool) -> tuple[Waiting, Answer]:
        """Return the wait that an answer is for, and the answer, if it may be taken.

        Raises:
            ApplicationError: It may not.
        """
        try:
            read = msgspec.convert(given, _Given)
        except msgspec.ValidationError as error:
            raise _refused(f"an answer is a mapping such as {_EXAMPLE}: {error}") from None
        waiting = self._waiting(read.step)
        approval = self._approval(waiting)
        by = senders.sender()
        if not by:
            raise _refused(
                "nobody knows who answers: the client claims no identity, or the worker has a workflow runner"
                " that does not pass it on"
            )
        if waiting.rejection is not None or len(waiting.answers) >= approval.approvals:
            raise _refused(f'"{waiting.path}" is decided already')
        if not rejects:
            self._check(waiting, approval, by, read.payload)
        comment = shortened(read.comment, COMMENT)
        payload = None if rejects else read.payload
        return waiting, Answer(payload=payload, by=by, at=workflow.now().isoformat(), comment=comment)

    def _check(self, waiting: Waiting, approval: Approval, by: str, payload: Any) -> None:
        """Raise what is wrong with an approval."""
        if approval.not_by_starter and not self._state.log.starter:
            raise _refused(
                f'"{waiting.path}" must not be approved by whoever started the run, and nobody knows who did'
            )
        if approval.not_by_starter and by == self._state.log.starter:
            raise _refused(f'"{waiting.path}" must not be approved by {by}, who started the run')
        if any(answer.by == by for answer in waiting.answers):
            raise _refused(
                f'{by} has approved "{waiting.path}" already: it needs {approval.approvals} approvals by'
                " different identities"
            )
        if (size := size_of(payload)) > PAYLOAD_BYTES:
            raise _refused(f"the payload has {size:,} bytes, and may have {PAYLOAD_BYTES:,}")
        if problem := _problem(approval, payload):
            raise _refused(f'the payload for "{waiting.path}" does not fit its schema: {problem}')

    def _waiting(self, step: str) -> Waiting:
        """Return the open approval of a step, by its path or, if there is only one, by its id."""
        waits = [one for one in self._state.waits if one.event is None and not one.is_question]
        found = [one for one in waits if one.path == step]
        found = found or [one for one in waits if Path.of_id(one.path).name == step]
        if len(found) == 1:
            return found[0]
        which = listed([one.path for one in found or waits])
        if found:
            raise _refused(f'several approvals have the id "{step}": choose one of {which}')
        if waits:
            raise _refused(f'the run does not wait for the approval of "{step}". It waits for {which}')
        others = (one.event for one in self._state.waits)
        events = listed(dict.fromkeys(f'the event "{one}"' if one else "a decision" for one in others))
        waits_for = f": it waits for {events}" if self._state.waits else " now"
        raise _refused(f'the run does not wait for the approval of "{step}", or of any other step{waits_for}')

    def _approval(self, waiting: Waiting) -> Approval:
        action = self._program.step(self._state.log.pipeline, Path.of_id(waiting.path).name).action
        assert isinstance(action, Approval)
        return action


def _default(approval: Approval, names: dict[str, Any]) -> Any:
    """Return the payload of an approval that nobody has given in time."""
    if approval.on_timeout != "approve":
        return None
    payload = plain(approval.payload, names)
    if problem := _problem(approval, payload):
        raise step_error(errors.EXPRESSION_ERROR, f"the payload for a timeout does not fit: {problem}")
    return payload


def _problem(approval: Approval, payload: Any) -> str:
    """Say why a payload does not fit; empty: it does."""
    schema = approval.payload_schema
    problems = [] if schema is None else value_problems(schema, payload, "payload")
    return "; ".join(map(str, problems))


def _output(approval: Approval, answers: list[Answer]) -> dict[str, Any]:
    """Return what an approved step gives: payload and time of the last approval."""
    last = answers[-1]
    by: Any = last.by if approval.approvals == 1 else [answer.by for answer in answers]
    return {"by": by, "at": last.at, "payload": last.payload}


def _error(approval: Approval, waiting: Waiting, *, in_time: bool) -> StepError | None:
    """Return why a step is not approved that waits no longer; None: it is."""
    if waiting.rejection is not None:
        return _rejected(waiting.rejection)
    return None if in_time or approval.on_timeout == "approve" else _late(approval, waiting)


def _rejected(rejection: Answer) -> StepError:
    comment = f": {rejection.comment}" if rejection.comment else ""
    return step_error(errors.APPROVAL_REJECTED, f"rejected by {rejection.by}{comment}")


def _late(approval: Approval, waiting: Waiting) -> StepError:
    given = f" by all: {len(waiting.answers)} of {approval.approvals}" if waiting.answers else ""
    message = f"not approved{given} within {durations.spell(approval.timeout or 0)}"
    return StepError(info_of(errors.APPROVAL_TIMEOUT, message), non_retryable=False, cause=None)


def _refused(message: str) -> ApplicationError:
    return ApplicationError(message, type=REFUSED, non_retryable=True)
