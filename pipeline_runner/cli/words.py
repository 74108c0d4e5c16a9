"""The wording of the views: single lines, attempts, counts, times."""

from typing import TYPE_CHECKING

from pipeline_runner.cli import console

if TYPE_CHECKING:
    from pipeline_runner.engine.history.happenings import Counts


def one_line(text: str) -> str:
    """Return a string on one line of limited length, without terminal control sequences."""
    flat = console.plain(" ".join(text[:2_000].split()))
    return flat if len(flat) <= 300 else flat[:299] + "…"


def attempts(attempt: int, limit: int | None) -> str:
    """Return the attempt and the maximum number of attempts."""
    return f"attempt {attempt} of {limit}" if limit else f"attempt {attempt}"


def counted(counts: "Counts") -> str:
    """Return the counts of a loop's items in words."""
    total = "" if counts.total is None else f" of {counts.total:,}"
    parts = [f"{counts.done:,}{total} done"]
    parts += [f"{counts.running:,} running"] if counts.running else []
    parts += [f"{counts.failed:,} failed"] if counts.failed else []
    return ", ".join(parts)


def counted_briefly(counts: "Counts") -> str:
    """Return the same counts in few columns, with the marks of the tree."""
    total = " done" if counts.total is None else f"/{counts.total:,}"
    running = f" ▶{counts.running:,}" if counts.running else ""
    failed = f" ✗{counts.failed:,}" if counts.failed else ""
    return f"{counts.done:,}{total}{running}{failed}"


def duration(seconds: float) -> str:
    """Return a time for people: ``4.2s``, ``3m07s``, ``2h05m``."""
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s"
    return f"{minutes // 60}h{minutes % 60:02d}m"
