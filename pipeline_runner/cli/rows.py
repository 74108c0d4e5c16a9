"""Selects the rows of a run's tree to show: loops are folded, and the number of rows is limited."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pipeline_runner.core.paths import Path
from pipeline_runner.engine.history.happenings import Counts
from pipeline_runner.engine.history.node import FOLD, Node

_FAILED = 5
"""How many failed items of a folded loop are shown; the others are counted."""


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the tree."""

    depth: int
    title: str
    node: Node | None = None
    """None: the row replaces omitted rows, and its title says which."""
    undo: bool = False
    counts: Counts | None = None
    """The counts of a loop whose items are not all shown."""


def rows_of(root: Node, limit: int | None = None) -> list[Row]:
    """Return the rows of a run.

    Args:
        root: The run.
        limit: The maximum number of rows. Pending steps are omitted first, then successful ones, then the
            earliest rows.
    """
    rows = list(_inside(root, 0, undo=False, coming=root.active))
    if limit is None or len(rows) <= limit:
        return rows
    room = max(limit, 3) - 1
    rows, later = _without(rows, room, from_end=True, states=("pending",))
    tail = [Row(0, f"… {later} to come")] if later else []
    if len(rows) <= room:
        return [*rows, *tail]
    room -= 1
    rows, earlier = _without(rows, room, states=("completed", "skipped", "undone", "passed", "caught"))
    # The deepest rows are omitted first, so that the rows around them stay.
    order = sorted(range(len(rows)), key=lambda place: (-rows[place].depth, place))
    cut = set(order[: max(len(rows) - room, 0)])
    kept = [row for place, row in enumerate(rows) if place not in cut]
    return [Row(0, f"… {earlier + len(cut)} more"), *kept, *tail]


def _without(
    rows: list[Row], limit: int, *, states: tuple[str, ...], from_end: bool = False
) -> tuple[list[Row], int]:
    """Omit rows in these states until the number fits. Return the others, and how many were omitted."""
    surplus = len(rows) - limit
    if surplus <= 0:
        return rows, 0
    order = range(len(rows) - 1, -1, -1) if from_end else range(len(rows))
    found = [place for place in order if (node := rows[place].node) is not None and node.state in states]
    gone = set(found[:surplus])
    return [row for place, row in enumerate(rows) if place not in gone], len(gone)


def _inside(node: Node, depth: int, *, undo: bool, coming: bool) -> Iterator[Row]:
    """Yield the rows inside a node. ``coming``: whether pending steps are still to come."""
    last = [child for child in node.children.values() if child.is_finally]
    first = _members(node) if node.kind == "group" else node.children.values()
    yield from _rows(
        (child for child in first if not child.is_finally),
        depth,
        undo=undo,
        coming=coming and not node.failing,
    )
    if node.undo is not None:
        if node.undo.folded:
            yield Row(depth, "undo", node.undo, undo=True, counts=node.undo.counts())
        yield from _rows(_members(node.undo), depth, undo=True, coming=False)
    yield from _rows(last, depth, undo=undo, coming=coming)


def _rows(nodes: Iterable[Node], depth: int, *, undo: bool, coming: bool) -> Iterator[Row]:
    for node in nodes:
        if node.state == "passed" or (node.state == "pending" and not coming):
            continue
        counts = node.counts() if _is_counted(node) and node.until is None else None
        yield Row(depth, title_of(node, undo=undo), node, undo, counts)
        if node.state != "pending":
            yield from _inside(node, depth + 1, undo=False, coming=node.active)


def _is_counted(node: Node) -> bool:
    if node.until is not None:
        return True
    return node.kind == "group" and (node.folded or (node.fold is None and len(node.children) > FOLD))


def _members(group: Node) -> list[Node]:
    """Return the members of a group to show: all if they are few, else those that run or have failed."""
    members = list(group.children.values())
    if not _is_counted(group):
        return members
    active = [node for node in members if node.active]
    failed = [node for node in members if node.state == "failed"]
    parts = [node for node in members if node.label.startswith("catch[")]
    return [*failed[:_FAILED], *active[:FOLD], *parts]


def title_of(node: Node, *, undo: bool = False) -> str:
    """Return the title of a node: its name, else its part of the path."""
    if not undo:
        step = node.step.id if node.step is not None else node.label
        return node.label if node.name == step else node.name
    path = Path.of_id(node.label)
    name = str(path.local) if node.name == path.name else node.name
    return f"undo {path.above}/{name}" if path.depth else f"undo {name}"
