"""Steps that contain other steps: blocks, switches and parallels."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from pipeline_runner.core.model import Block, Compensation, Parallel, Step, Switch
from pipeline_runner.core.state import Frame
from pipeline_runner.engine.workflow.attempts import Attempts
from pipeline_runner.engine.workflow.entries import Entries
from pipeline_runner.engine.workflow.gate import Gate
from pipeline_runner.engine.workflow.group import Group
from pipeline_runner.engine.workflow.limits import limit_of, within
from pipeline_runner.engine.workflow.scopes import Scope, Turn, is_loop
from pipeline_runner.engine.workflow.values import holds, plain

Nesting = Block | Parallel | Switch
"""The action of a step that contains other steps."""

Sequencing = Callable[[Sequence[Step], Scope], Awaitable[None]]
"""Runs a list of steps from the position in its frame."""


class Nested:
    """Runs steps that contain other steps. The frame of the turn holds their state."""

    def __init__(self, sequence: Sequencing, gate: Gate, entries: Entries, attempts: Attempts) -> None:
        """Prepare to run steps that hold others.

        Args:
            sequence: Runs one of their lists.
            gate: The run's.
            entries: What writes to the undo log of the run.
            attempts: Runs those that are retried.
        """
        self._sequence = sequence
        self._gate = gate
        self._entries = entries
        self._attempts = attempts

    async def run(self, turn: Turn, action: Nesting, name: str) -> Any:
        """Run a step that contains others, with its retries, and return its output.

        Raises:
            StepError: It failed.
            Interrupted: It was interrupted.
        """

        async def once(attempt: Turn) -> Any:
            return await self._once(attempt, action, name)

        if turn.step.retry is None:
            return await once(turn)
        return await self._attempts.run(turn, turn.step.retry, name, once)

    async def _once(self, turn: Turn, action: Nesting, name: str) -> Any:
        """Run it. Once it has completed, its own compensation replaces those inside it."""
        if not isinstance(turn.step.compensate, Compensation):
            return await self._in_time(turn, action)
        entry = self._entries.taken_up(turn)
        if entry is None:
            entry = self._entries.register(turn, name)
            # Until then, the steps inside it are undone.
            entry.outcome = "failed"
        output = self._entries.complete(entry, await self._in_time(turn, action))
        self._entries.drop_inside(turn, entry)
        return output

    async def _in_time(self, turn: Turn, action: Nesting) -> Any:
        # The limit of a loop applies to all of its turns together.
        limit = None if is_loop(turn.step) else limit_of(turn.step)
        return await within(
            limit, turn.scope, lambda inside: self._scopes(replace(turn, scope=inside), action)
        )

    async def _scopes(self, turn: Turn, action: Nesting) -> Any:
        match action:
            case Block():
                return await self._block(turn, action)
            case Switch():
                return await self._switch(turn, action)
            case Parallel():
                return await self._parallel(turn, action)

    async def _block(self, turn: Turn, block: Block) -> Any:
        scope = turn.scope.inside(turn.scope.frame.open.setdefault("steps", Frame()), turn.path)
        await self._sequence(block.steps, scope)
        if block.output is msgspec.UNSET:
            return _last(block.steps, scope)
        return plain(block.output, scope.names)

    async def _switch(self, turn: Turn, switch: Switch) -> Any:
        # Once an arm was chosen, its frame is the one that is open.
        opened = turn.scope.frame.open
        if not opened:
            chosen = _chosen(switch, turn.scope.names)
            if chosen is None:
                return None
            opened[str(chosen)] = Frame()
        [(number, frame)] = opened.items()
        scope = turn.scope.inside(frame, turn.path.arm(int(number)))
        steps = switch.arms[int(number)].steps
        await self._sequence(steps, scope)
        return _last(steps, scope)

    async def _parallel(self, turn: Turn, parallel: Parallel) -> dict[str, Any]:
        branches = {branch.name: branch.steps for branch in parallel.branches}

        async def run(key: str, inside: Scope) -> Any:
            inside = replace(inside, path=turn.path.inner(key))
            await self._sequence(branches[key], inside)
            return _last(branches[key], inside)

        # In a loop, these belong to the loop.
        limit = None if is_loop(turn.step) else turn.step.max_concurrency
        fail_fast = is_loop(turn.step) or turn.step.fail_fast
        group = Group(self._gate, turn.scope, run, fail_fast=fail_fast)
        return await group.run(list(branches), limit=limit or len(branches))


def _chosen(switch: Switch, names: dict[str, Any]) -> int | None:
    """Return the number of the first arm whose condition holds; None: there is none."""
    for number, arm in enumerate(switch.arms):
        if arm.when is None or holds("when", arm.when, names):
            return number
    return None


def _last(steps: Sequence[Step], scope: Scope) -> Any:
    return scope.results[steps[-1].id].output
