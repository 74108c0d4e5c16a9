"""Stands in for every activity of a pipeline: it writes down what is asked of it, and fails on demand.

A run's record is a file of JSON lines in the recorder's directory, named after the run; so are its
:class:`Fault` s. The children of a run share its files. As a program this is a worker for such runs::

    python -m tests.engine.recorder ADDRESS TASK_QUEUE DIRECTORY
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from temporalio import activity
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError

from pipeline_runner.activities.toolkit.context import idempotency_key
from pipeline_runner.core.errors import UNCERTAIN
from pipeline_runner.core.paths import Path as StepPath
from pipeline_runner.engine.worker import pipeline_worker
from tests.effects import note


class Fault(msgspec.Struct, kw_only=True):
    """What goes wrong in a run, at one of its nodes: the path of an activity, from the run on."""

    node: str
    mode: str
    """``fail``, ``hang`` or ``die``, each followed by ``-before`` or ``-after`` the effect."""
    times: int = 1
    """At how many attempts."""


@dataclass(frozen=True)
class Line:
    """One entry of the record."""

    node: str
    name: str
    """Of the activity."""
    event: str
    """``start``, ``effect`` or ``fault``."""
    key: str
    attempt: int

    @property
    def undoes(self) -> str | None:
        """The path of the step that is undone; None: it is a step."""
        levels = StepPath.parse(self.node).levels
        if not any(level.undo for level in levels):
            return None
        return "/".join(str(level._replace(undo=False)) for level in levels)


class Recorder:
    """Reads and writes the records."""

    def __init__(self, directory: Path) -> None:
        """Keep the records in a directory."""
        self._directory = directory
        self._outputs: dict[str, Any] | None = None

    def describe(self, outputs: dict[str, Any]) -> None:
        """Say what activities return, by name; those that are not named return an empty mapping."""
        (self._directory / "outputs").write_bytes(msgspec.json.encode(outputs))

    def inject(self, run: str, faults: Sequence[Fault]) -> None:
        """Have things go wrong in a run."""
        (self._directory / f"{run}.faults").write_bytes(msgspec.json.encode(faults))

    def lines(self, run: str) -> list[Line]:
        """Return the record of a run so far."""
        with suppress(FileNotFoundError):
            return [Line(*json.loads(line)) for line in self._file(run).read_text().splitlines()]
        return []

    def activity(self) -> Callable[..., Any]:
        """Return the activity that stands in for all others."""

        @activity.defn(dynamic=True)
        async def recorded(_: Sequence[RawValue]) -> Any:
            info = activity.info()
            assert info.workflow_id is not None
            run, *above = info.workflow_id.split("/")
            node = "/".join([*above, info.activity_id])

            def write(event: str) -> None:
                line = [node, info.activity_type, event, idempotency_key(), info.attempt]
                note(str(self._file(run)), json.dumps(line))

            write("start")
            mode = self._mode(run, node, info.attempt)
            if mode.endswith("-before"):
                write("fault")
                await _go_wrong(mode)
            write("effect")
            if mode.endswith("-after"):
                write("fault")
                await _go_wrong(mode)
            return self._output(info.activity_type)

        return recorded

    def _mode(self, run: str, node: str, attempt: int) -> str:
        with suppress(FileNotFoundError):
            faults = msgspec.json.decode((self._directory / f"{run}.faults").read_bytes(), type=list[Fault])
            return next((one.mode for one in faults if one.node == node and attempt <= one.times), "")
        return ""

    def _output(self, name: str) -> Any:
        if self._outputs is None:
            path = self._directory / "outputs"
            self._outputs = json.loads(path.read_text()) if path.exists() else {}
        return self._outputs.get(name, {})

    def _file(self, run: str) -> Path:
        return self._directory / f"{run}.record"


async def _go_wrong(mode: str) -> None:
    kind = mode.partition("-")[0]
    if kind == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "hang":
        await asyncio.sleep(3600)
    details = [UNCERTAIN] if mode.endswith("-after") else []
    raise ApplicationError("it goes wrong", *details, type="Injected", non_retryable=False)


async def main(address: str, task_queue: str, directory: str) -> None:
    """Serve runs until somebody ends the process."""
    from tests.conftest import connected

    client = await connected(address)
    recorder = Recorder(Path(directory))
    async with pipeline_worker(client, task_queue=task_queue, activities=[recorder.activity()]):
        print("ready", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
