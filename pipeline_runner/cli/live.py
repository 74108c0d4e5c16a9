"""The live view: the tree of a run, redrawn in place in a terminal."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.filesize import decimal
from rich.live import Live as RichLive
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pipeline_runner.cli import console
from pipeline_runner.cli.rows import Row, rows_of
from pipeline_runner.cli.words import attempts, counted, counted_briefly, duration, one_line

if TYPE_CHECKING:
    from pipeline_runner.engine.history.happenings import Ended, Progress
    from pipeline_runner.engine.history.node import Node
    from pipeline_runner.engine.history.tree import Tree

_MARKS = {
    "pending": ("dim", "·"),
    "running": ("cyan", "▶"), "waiting": ("cyan", "◷"), "retrying": ("yellow", "↻"),
    "completed": ("green", "✓"), "caught": ("green", "✓"), "failed": ("red", "✗"),
    "cancelled": ("yellow", "■"), "skipped": ("dim", "○"), "undone": ("magenta", "↩"),
    "terminated": ("red", "■"), "timed out": ("red", "✗"),
}  # fmt: skip
_UNDO = "magenta"
_FRAMES = 4
"""Pictures per second: each takes some 10 ms."""
_NARROW = 60
"""Below this width, only the mark, the title, the time and the most important part of a row are shown."""
_WIDE = 100
"""From this width on, counts are in words."""


class Live:
    """A tree of steps that is redrawn in place."""

    def __init__(self, tree: "Tree") -> None:
        """Begin to draw a tree, which others change."""
        self._tree = tree
        self._console = Console(stderr=True)
        # While it is redrawn, only what fits; at the end, all of it.
        self._whole = False
        self._ended: Ended | None = None
        self._live = RichLive(
            get_renderable=self._drawn,
            console=self._console,
            refresh_per_second=_FRAMES,
            redirect_stdout=False,
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._whole = True
        self._live.stop()

    def show(self, progress: "Progress") -> None:
        """Do nothing: the tree has changed, and is redrawn in a moment."""

    def note(self, text: str) -> None:
        """Print a line above the tree."""
        self._live.console.print(console.plain(text), markup=False, highlight=False)

    def end(self, ended: "Ended") -> None:
        """Show the total time in the last row."""
        self._ended = ended

    def _drawn(self) -> Table:
        limit = None if self._whole else self._console.height - 4
        return drawn(self._tree, self._console.width, datetime.now(UTC), limit=limit, ended=self._ended)


def drawn(
    tree: "Tree", width: int, now: datetime, *, limit: int | None = None, ended: "Ended | None" = None
) -> Table:
    """Return the drawing of a tree.

    Args:
        tree: The tree.
        width: Columns of the terminal.
        now: The time, for what is still running.
        limit: The maximum number of rows; None: any number.
        ended: The end of the run.
    """
    narrow = width < _NARROW
    table = Table(box=None, show_header=False, padding=(0, 1) if not narrow else (0, 1, 0, 0))
    table.add_column()
    table.add_column(max_width=max(16, 3 * width // 10))
    for row in rows_of(tree.root, limit):
        if row.node is None:
            table.add_row(Text(), Text(row.title, style="dim", no_wrap=True))
        else:
            table.add_row(*_cells(row, row.node, now, width))
    if ended is not None:
        colour, mark = _MARKS[ended.state]
        state = Text(ended.state, style=colour, no_wrap=True)
        whole = Text(duration(ended.elapsed), style="bold", no_wrap=True)
        cells = (whole, state) if narrow else (state, whole)
        table.add_row(Text(mark, style=colour), Text("total", style="bold"), *cells)
    return table


def _cells(row: Row, node: "Node", now: datetime, width: int) -> list[Any]:
    narrow = width < _NARROW
    colour, mark = _MARKS[node.state]
    title = " " * (row.depth if narrow else 2 * row.depth) + one_line(row.title)
    state = Text("" if node.state == "pending" else node.state, style=colour, no_wrap=True)
    return [
        Text(mark, style=colour),
        Text(title, style=_UNDO if row.undo else "", overflow="ellipsis", no_wrap=True),
        *([] if narrow else [state]),
        Text(_elapsed(node, now), style="dim", no_wrap=True),
        _note(row, node, now, brief=width < _WIDE),
    ]


def _elapsed(node: "Node", now: datetime) -> str:
    if node.begun is None or node.state in ("skipped", "pending"):
        return ""
    return duration(max(((node.ended or now) - node.begun).total_seconds(), 0.0))


def _note(row: Row, node: "Node", now: datetime, *, brief: bool) -> Any:
    """Return the end of a row: the attempt, and an error, the progress, or what it waits for."""
    note = Text(overflow="ellipsis", no_wrap=True)
    if node.attempt > 1:
        note.append(attempts(node.attempt, node.maximum_attempts), style="yellow")
    if (until := node.until) is not None and node.seen:
        note.append(f"repetition {node.highest + 1} of at most {until.at_most}", style="dim")
    if node.active and node.next_attempt is not None and node.next_attempt > now:
        wait = duration((node.next_attempt - now).total_seconds())
        again = f" in {wait}" if node.attempt > 1 else f"again in {wait}"
        note.append(f", {again}" if until is not None else again, style="yellow")
    if row.counts is not None:
        counts = counted_briefly(row.counts) if brief else counted(row.counts)
        return _joined(note, counts, "red" if row.counts.failed else "dim")
    if node.error and not (node.kind != "leaf" and node.state == "running"):
        return _joined(note, one_line(node.error), "red")
    if node.waiting_for and node.active:
        return _joined(note, f"for {one_line(node.waiting_for)}", "cyan")
    match node.details:
        case None:
            return note
        case {"done": int(done), "total": int(total)} if 0 <= done <= total > 0:
            return _bar(note, done, total, _figures(node.details.get("unit")))
        case {"done": int(done), "total": None}:
            return _joined(note, _figures(node.details.get("unit"))(done), "dim")
    return _joined(note, one_line(str(node.details)), "dim")


def _joined(note: Text, text: str, style: str) -> Text:
    return note.append(", " if note.plain else "").append(text, style=style)


def _bar(note: Text, done: int, total: int, figures: Callable[[int], str]) -> Table:
    row = Table.grid(padding=(0, 1))
    said = Text(f"{100 * done // total} % of {figures(total)}", style="dim", no_wrap=True)
    row.add_row(*([note] if note.plain else []), ProgressBar(total=total, completed=done, width=20), said)
    return row


def _figures(unit: Any) -> Callable[[int], str]:
    return decimal if unit == "bytes" else str
