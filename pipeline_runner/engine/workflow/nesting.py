"""Steps that hold other steps: blocks and branches."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from pipeline_runner.core.model import Block, Compensation, Parallel, Step
from pipeline_runner.core.state import Frame, ScopeLog
from pipeline_runner.engine.workflow import calls
from pipeline_runner.engine.workflow.entries import Entries
from pipeline_runner.engine.workflow.gate import Gate
from pipeline_runner.engine.workflow.group import Group
from pipeline_runner.engine.workflow.scopes import Scope, Turn
from pipeline_runner.engine.workflow.undo import path_of
from pipeline_runner.engine.workflow.values import plain

Nesting = Block | Parallel
"""What a step does that holds other steps."""

Sequencing = Callable[[Sequence[Step], Scope], Awaitable[None]]
"""Runs a list of steps from where its frame says."""


class Nested:
    """Runs what holds other steps. Where it stands is in the frame of the turn."""

    def __init__(self, sequence: Sequencing, gate: Gate, log: ScopeLog, entries: Entries) -> None:
        """Prepare to run steps that hold others.

        Args:
            sequence: Runs one of their lists.
            gate: The run's.
            log: The undo log of the run.
            entries: What writes to it.
        """
        self._sequence = sequence
        self._gate = gate
        self._log = log
        self._entries = entries

    async def run(self, turn: Turn, action: Nesting, name: str) -> Any:
        """Run it; its own compensation replaces those inside it once it has completed.

        Returns:
            The step's output.
        """
        if not isinstance(turn.step.compensate, Compensation):
            return await self._scopes(turn, action)
        entries = self._log.entries
        entry = next((one for one in entries if one.key == calls.idempotency_key(turn.path)), None)
        if entry is None:
            entry = self._entries.register(turn, name)
            # Until then it is undone from the inside.
            entry.outcome = "failed"
        output = self._entries.complete(entry, await self._scopes(turn, action))
        entries[:] = [one for one in entries if one is entry or not turn.path.holds(path_of(one))]
        return output

    async def _scopes(self, turn: Turn, action: Nesting) -> Any:
        match action:
            case Block():
                return await self._block(turn, action)
            case Parallel():
                return await self._parallel(turn, action)

    async def _block(self, turn: Turn, block: Block) -> Any:
        scope = turn.scope.inside(turn.scope.frame.open.setdefault("steps", Frame()), turn.path)
        await self._sequence(block.steps, scope)
        if block.output is msgspec.UNSET:
            return _last(block.steps, scope)
        return plain(block.output, scope.names)

    async def _parallel(self, turn: Turn, parallel: Parallel) -> dict[str, Any]:
        branches = {branch.name: branch.steps for branch in parallel.branches}

        async def run(key: str, inside: Scope) -> Any:
            inside = replace(inside, path=turn.path.inner(key))
            await self._sequence(branches[key], inside)
            return _last(branches[key], inside)

        limit = turn.step.max_concurrency or len(branches)
        return await Group(self._gate, turn.scope, run).run(list(branches), limit=limit)


def _last(steps: Sequence[Step], scope: Scope) -> Any:
    return scope.results[steps[-1].id].output
