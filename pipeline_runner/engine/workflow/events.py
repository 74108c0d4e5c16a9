"""Events: what is sent to a run while it runs, by signals and by updates of their names.

An event that no step waits for yet is kept, within limits. It goes to the step that began to wait first.
"""

from collections.abc import Sequence
from typing import Any

from temporalio import workflow
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError

from pipeline_runner.core import durations, errors
from pipeline_runner.core.inputs import value_problems
from pipeline_runner.core.model import Event
from pipeline_runner.core.state import Answer, Continuation, KeptEvent
from pipeline_runner.core.suggest import did_you_mean, listed
from pipeline_runner.engine.workflow.cancel import Interrupted
from pipeline_runner.engine.workflow.payloads import decoded, is_plain
from pipeline_runner.engine.workflow.program import Program
from pipeline_runner.engine.workflow.scopes import Turn
from pipeline_runner.engine.workflow.step_errors import StepError, info_of
from pipeline_runner.engine.workflow.waiting import PAYLOAD_BYTES, Waits, size_of

KEPT = 1_000
"""Events that a run keeps until a step waits for them."""

KEPT_BYTES = 256 * 1024
"""Bytes of their payloads, as JSON."""

REFUSED = "EventRefused"
"""The type of the error with which a sender learns that an event was not taken."""


class Events:
    """Takes events, keeps them, and hands them to the steps that wait for them."""

    def __init__(self, program: Program, state: Continuation, waits: Waits) -> None:
        """Take the events of a run.

        Args:
            program: Its bundle.
            state: Its state, where events are kept.
            waits: What its steps wait for.
        """
        self._program = program
        self._state = state
        self._waits = waits
        self._bytes = sum(size_of(kept.payload) for kept in state.events)

    async def wait(self, turn: Turn, event: Event, name: str) -> Any:
        """Wait for an event, unless it is here.

        Returns:
            Its payload.

        Raises:
            StepError: It did not arrive in time.
            Interrupted: The work is to end.
        """
        path = str(turn.path)
        if self._waits.of(path) is None and (kept := self._take(event.name)) is not None:
            return kept.payload
        waiting = self._waits.begin(path, event=event.name, timeout=event.timeout)
        try:
            arrived = await self._waits.wait(
                waiting, turn.scope, lambda: bool(waiting.answers), name=name, what=f"event {event.name}"
            )
        except Interrupted:
            for answer in waiting.answers:
                self._deliver(event.name, answer.payload, first=True)
            raise
        if not arrived:
            message = f'the event "{event.name}" did not arrive within {durations.spell(event.timeout or 0)}'
            self._waits.end(waiting, "failed", message)
            raise StepError(info_of(errors.EVENT_TIMEOUT, message), non_retryable=False, cause=None)
        self._waits.end(waiting, "completed")
        return waiting.answers[0].payload

    def signalled(self, name: str, arguments: Sequence[RawValue]) -> None:
        """Take an event from a signal. Its sender learns nothing: the log says why one is ignored."""
        try:
            self.sent(name, arguments)
        except ApplicationError as error:
            workflow.logger.warning('ignored the signal "%s": %s', name, error.message)

    def sent(self, name: str, arguments: Sequence[RawValue]) -> None:
        """Take an event.

        Raises:
            ApplicationError: It is refused; the message says why.
        """
        self._deliver(name, self.checked(name, arguments))

    def checked(self, name: str, arguments: Sequence[RawValue]) -> Any:
        """Return the payload of an event that may be taken.

        Raises:
            ApplicationError: It may not.
        """
        schemas = self._program.events
        if name not in schemas:
            raise _refused(_unknown(self._program.root.name, name, list(schemas)))
        payload = _payload(arguments)
        if (size := size_of(payload)) > PAYLOAD_BYTES:
            raise _refused(
                f"the payload has {size:,} bytes, and may have {PAYLOAD_BYTES:,}: send a reference"
            )
        problems = [each for schema in schemas[name] for each in value_problems(schema, payload, "payload")]
        if problems:
            shown = "; ".join(str(problem) for problem in dict.fromkeys(problems))
            raise _refused(f'the payload of the event "{name}" does not fit its schema: {shown}')
        if not any(one.event == name and not one.answers for one in self._state.waits):
            self._check_room(payload)
        return payload

    def _check_room(self, payload: Any) -> None:
        if len(self._state.events) >= KEPT:
            raise _refused(f"the run keeps {KEPT:,} events that no step has waited for: it takes no more")
        if self._bytes + size_of(payload) > KEPT_BYTES:
            raise _refused(
                f"the run keeps events of up to {KEPT_BYTES:,} bytes that no step has waited for: it takes no"
                " more until a step waits for one"
            )

    def _deliver(self, name: str, payload: Any, *, first: bool = False) -> None:
        """Hand an event to the step that began to wait first, or keep it."""
        for waiting in self._state.waits:
            if waiting.event == name and not waiting.answers:
                waiting.answers.append(Answer(payload=payload, at=workflow.now().isoformat()))
                return
        kept = KeptEvent(name=name, payload=payload)
        self._state.events.insert(0 if first else len(self._state.events), kept)
        self._bytes += size_of(payload)

    def _take(self, name: str) -> KeptEvent | None:
        for index, kept in enumerate(self._state.events):
            if kept.name == name:
                self._bytes -= size_of(kept.payload)
                return self._state.events.pop(index)
        return None


def _payload(arguments: Sequence[RawValue]) -> Any:
    if len(arguments) > 1:
        raise _refused(f"an event has one payload, not {len(arguments)}")
    if not arguments:
        return None
    payload = arguments[0].payload
    if not is_plain(payload):
        raise _refused("its payload is encoded, and the worker lacks the codec")
    try:
        return decoded(arguments[0]) if payload.metadata or payload.data else None
    except Exception as error:  # noqa: BLE001 - whatever a converter raises
        raise _refused(f"its payload is not JSON data: {error}") from None


def _unknown(pipeline: str, name: str, known: list[str]) -> str:
    near = did_you_mean(name, known)
    which = f"the events that it waits for are {listed(known, 'none')}"
    return f'no step of the pipeline "{pipeline}" waits for the event "{name}": {near or which}'


def _refused(message: str) -> ApplicationError:
    return ApplicationError(message, type=REFUSED, non_retryable=True)
