"""What a person sees while a run is followed: lines on a pipe, a live view in a terminal."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, Self

from pipeline_runner.cli import console
from pipeline_runner.core.paths import Path

if TYPE_CHECKING:
    from pipeline_runner.engine.history.happenings import Connection, Ended, Progress


class View(Protocol):
    """Shows progress."""

    def show(self, progress: "Progress") -> None:
        """Show what happened to a step."""

    def note(self, text: str) -> None:
        """Show a line of text."""

    def end(self, ended: "Ended") -> None:
        """Show how the run ended, and how long it took."""


class Lines:
    """One line per event: time since the start of the run, step, state, attempt, elapsed, error."""

    def show(self, progress: "Progress") -> None:
        """Write the line; heartbeats are left out."""
        if progress.details is not None:
            return
        console.tell(f"{progress.since:8.2f}s  {line_of(progress)}")

    def note(self, text: str) -> None:
        """Write a line of text."""
        console.tell(text)

    def end(self, ended: "Ended") -> None:
        """Write the last line: the whole time."""
        console.tell(f"{ended.elapsed:8.2f}s  {ended.state}")


def line_of(progress: "Progress") -> str:
    """Return the text of one event."""
    parts = [f"{'undo ' if progress.undo else ''}{_one_line(progress.path)}: {_state(progress)}"]
    if progress.attempt > 1:
        parts.append(_attempt(progress))
    if progress.next_attempt:
        parts.append(f"in {progress.next_attempt:.1f}s")
    if progress.elapsed is not None:
        parts.append(f"{progress.elapsed:.2f}s")
    begins = progress.state in ("running", "waiting") and not progress.error
    if begins and progress.name != Path.of_id(progress.path).name:
        parts.append(_one_line(progress.name))
    text = ", ".join(parts)
    return f"{text}: {_one_line(progress.error)}" if progress.error else text


def _state(progress: "Progress") -> str:
    return f"waiting for {_one_line(progress.waiting_for)}" if progress.waiting_for else progress.state


def _attempt(progress: "Progress") -> str:
    limit = f" of {progress.maximum_attempts}" if progress.maximum_attempts else ""
    return f"attempt {progress.attempt}{limit}"


def _one_line(text: str) -> str:
    flat = console.plain(" ".join(text.split()))
    return flat if len(flat) <= 300 else flat[:299] + "…"


_MARKS = {
    "running": ("cyan", "▶"), "waiting": ("cyan", "◷"), "retrying": ("yellow", "↻"),
    "completed": ("green", "✓"), "failed": ("red", "✗"), "cancelled": ("yellow", "■"),
    "skipped": ("dim", "○"), "terminated": ("red", "■"), "timed out": ("red", "✗"),
}  # fmt: skip


class Live:
    """A table of steps that is redrawn in place."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live as RichLive

        self._console = Console(stderr=True)
        self._rows: dict[tuple[str, bool], tuple[Progress, float]] = {}
        # While it is redrawn, only what fits; at the end, all of it.
        self._whole = False
        self._ended: Ended | None = None
        self._live = RichLive(
            get_renderable=self._table, console=self._console, refresh_per_second=8, redirect_stdout=False
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._whole = True
        self._live.stop()

    def show(self, progress: "Progress") -> None:
        """Update the step's row."""
        key = (progress.path, progress.undo)
        begun = time.monotonic() if key not in self._rows else self._rows[key][1]
        self._rows[key] = (progress, begun)

    def note(self, text: str) -> None:
        """Print a line above the table."""
        self._live.console.print(console.plain(text), markup=False, highlight=False)

    def end(self, ended: "Ended") -> None:
        """Have the last row show the whole time."""
        self._ended = ended

    def _table(self) -> Any:
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, show_header=False, padding=(0, 1))
        rows = list(self._rows.values())
        hidden = 0 if self._whole else max(len(rows) - self._console.height + 4, 0)
        if hidden:
            table.add_row(Text(), Text(f"… {hidden} earlier", style="dim"))
        for progress, begun in rows[hidden:]:
            colour, mark = _MARKS[progress.state]
            attempt = _attempt(progress) if progress.attempt > 1 else ""
            table.add_row(
                Text(mark, style=colour),
                Text(_title(progress), overflow="ellipsis", no_wrap=True),
                Text(_state(progress), style=colour, no_wrap=True),
                Text(_elapsed(progress, begun), style="dim"),
                Text(attempt, style="yellow"),
                _last(progress),
            )
        if self._ended is not None:
            colour, mark = _MARKS[self._ended.state]
            table.add_row(
                Text(mark, style=colour),
                Text("total", style="bold"),
                Text(self._ended.state, style=colour, no_wrap=True),
                Text(f"{self._ended.elapsed:.1f}s", style="bold"),
            )
        return table


def _title(progress: "Progress") -> str:
    """Return a step's name: a child's below the child, and in an undo with the child's in front."""
    name = _one_line(progress.name)
    path = Path.of_id(progress.path)
    if not progress.undo:
        return "  " * path.depth + name
    above = f"{_one_line(str(path.above))}/" if path.depth else ""
    return f"undo {above}{name}"


def _elapsed(progress: "Progress", begun: float) -> str:
    if progress.state == "skipped":
        return ""
    return f"{time.monotonic() - begun if progress.elapsed is None else progress.elapsed:.1f}s"


def _last(progress: "Progress") -> Any:
    """Return what a row ends with: an error, how far it has come, or what it said of itself."""
    from rich.text import Text

    if progress.error:
        return Text(_one_line(progress.error), style="red", overflow="ellipsis", no_wrap=True)
    if progress.details is None:
        return Text()
    match progress.details:
        case {"done": int(done), "total": int(total)} if 0 <= done <= total > 0:
            return _bar(done, total, _figures(progress.details.get("unit")))
        case {"done": int(done), "total": None}:
            said = _figures(progress.details.get("unit"))(done)
        case _:
            said = _one_line(str(progress.details))
    return Text(said, style="dim", overflow="ellipsis", no_wrap=True)


def _bar(done: int, total: int, figures: Callable[[int], str]) -> Any:
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    row = Table.grid(padding=(0, 1))
    said = Text(f"{100 * done // total} % of {figures(total)}", style="dim", no_wrap=True)
    row.add_row(ProgressBar(total=total, completed=done, width=20), said)
    return row


def _figures(unit: Any) -> Callable[[int], str]:
    from rich.filesize import decimal

    return decimal if unit == "bytes" else str


@contextmanager
def view() -> Iterator[View]:
    """Return the live view in a terminal, lines elsewhere."""
    if sys.stderr.isatty():
        with Live() as live:
            yield live
    else:
        yield Lines()


def connection_line(connection: "Connection") -> str:
    """Say that the server went away or came back."""
    return (
        "lost the connection to the Temporal server; reconnecting"
        if connection.lost
        else "reconnected to the Temporal server"
    )
