"""The display while a run is followed: lines on a pipe, a live view in a terminal."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Protocol

from pipeline_runner.cli import console
from pipeline_runner.cli.words import attempts, counted, one_line
from pipeline_runner.core.paths import Path

if TYPE_CHECKING:
    from pipeline_runner.engine.history.happenings import Connection, Counts, Ended, Progress
    from pipeline_runner.engine.history.tree import Tree

FOLD = 8
"""How many items of a large loop have their own lines."""
_STEPS = 10
"""How many lines the counts of a loop get if its size is known."""


class View(Protocol):
    """Shows progress."""

    def show(self, progress: "Progress") -> None:
        """Show an event of a step."""

    def note(self, text: str) -> None:
        """Show a line of text."""

    def end(self, ended: "Ended") -> None:
        """Show how the run ended, and how long it took."""


class Lines:
    """One line per event: time since the start of the run, step, state, attempt, elapsed, error.

    In a loop with many items, only the first items and failed ones have such lines; the others are
    counted.
    """

    def __init__(self) -> None:
        """Begin with a run that has done nothing."""
        self._told: dict[str, int] = {}
        """The number of completed items in a loop's last line, by its path."""
        self._open: dict[str, Counts] = {}
        """The counts of the items of open loops."""

    def show(self, progress: "Progress") -> None:
        """Write the line. Heartbeats are omitted."""
        counts = progress.counts
        if progress.details is not None:
            return
        if counts is None or progress.state == "failed" or _is_shown(progress, counts):
            console.tell(f"{progress.since:8.2f}s  {line_of(progress)}")
        if counts is not None:
            self._count(progress, counts)

    def _count(self, progress: "Progress", counts: "Counts") -> None:
        """Write the counts of a loop, if they have changed much since its last line."""
        if progress.path == counts.path:
            self._told[counts.path] = counts.done
            self._open.pop(counts.path, None)
            return
        self._open[counts.path] = counts
        # The end of the loop reports the total.
        if counts.done != counts.total and counts.done >= _next(self._told.get(counts.path, 0), counts.total):
            self._told[counts.path] = counts.done
            console.tell(f"{progress.since:8.2f}s  {one_line(counts.path)}: {counted(counts)}")

    def note(self, text: str) -> None:
        """Write a line of text."""
        console.tell(text)

    def end(self, ended: "Ended") -> None:
        """Write the last line, with the total time."""
        for path, counts in self._open.items():
            if counts.done > self._told.get(path, 0):
                console.tell(f"{ended.elapsed:8.2f}s  {one_line(path)}: {counted(counts)}")
        console.tell(f"{ended.elapsed:8.2f}s  {ended.state}")


class Objects:
    """One JSON object per event, for programs."""

    def show(self, progress: "Progress") -> None:
        """Write the object, without empty fields."""
        fields = {key: value for key, value in asdict(progress).items() if value not in (None, False)}
        console.tell_object({"event": "step", **fields})

    def note(self, text: str) -> None:
        """Write a line of text, as an object."""
        console.tell(text)

    def end(self, ended: "Ended") -> None:
        """Write the end of the run."""
        console.tell_object({"event": "end", **asdict(ended)})


def _is_shown(progress: "Progress", counts: "Counts") -> bool:
    """Tell whether it is the loop itself, or one of its first items."""
    index = progress.path.removeprefix(f"{counts.path}[").partition("]")[0]
    return progress.path == counts.path or (index.isdecimal() and int(index) < FOLD)


def _next(done: int, total: int | None) -> int:
    """Return how many items are done at the next line: another tenth, or 10, 20, 50, 100, 200 and so on."""
    if total is not None:
        return done + max(total // _STEPS, 1)
    power: int = 10 ** max(len(str(done)) - 1, 1)
    return next(step * power for step in (1, 2, 5, 10) if step * power > done)


def line_of(progress: "Progress") -> str:
    """Return the text of one event."""
    state = f"waiting for {one_line(progress.waiting_for)}" if progress.waiting_for else progress.state
    parts = [f"{'undo ' if progress.undo else ''}{one_line(progress.path)}: {state}"]
    if progress.counts is not None and progress.path == progress.counts.path:
        parts.append(counted(progress.counts))
    if progress.attempt > 1:
        parts.append(attempts(progress.attempt, progress.maximum_attempts))
    if progress.next_attempt:
        parts.append(f"in {progress.next_attempt:.1f}s")
    if progress.elapsed is not None:
        parts.append(f"{progress.elapsed:.2f}s")
    begins = progress.state in ("running", "waiting") and not progress.error
    if begins and progress.name != Path.of_id(progress.path).name:
        parts.append(one_line(progress.name))
    text = ", ".join(parts)
    return f"{text}: {one_line(progress.error)}" if progress.error else text


@contextmanager
def view(tree: "Tree") -> Iterator[View]:
    """Return the live view of a tree in a terminal, lines elsewhere, and objects on request."""
    if console.tells_objects():
        yield Objects()
    elif sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        from pipeline_runner.cli.live import Live

        with Live(tree) as live:
            yield live
    else:
        yield Lines()


def connection_line(connection: "Connection") -> str:
    """Say that the server is unreachable, or reachable again."""
    return (
        "lost the connection to the Temporal server; reconnecting"
        if connection.lost
        else "reconnected to the Temporal server"
    )
