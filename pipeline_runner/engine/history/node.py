"""The nodes of a run's tree: steps, branches, arms, handlers, items and undos."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from pipeline_runner.core.model import Block, Parallel, SetValues, Step, Switch, Until
from pipeline_runner.core.paths import CATCH, ROOT, Path, Segment
from pipeline_runner.engine.history.happenings import Counts

NodeState = Literal[
    "pending", "running", "waiting", "retrying",
    "completed", "skipped", "failed", "caught", "cancelled", "undone", "passed", "terminated", "timed out",
]  # fmt: skip
"""``passed``: completed or skipped, but it is not known which."""

FOLD = 8
"""In loops with up to this many items, ended items are kept. In larger ones, they are only counted."""
ACTIVE: tuple[NodeState, ...] = ("running", "waiting", "retrying")
HANDLER = f"{CATCH}["
WELL: tuple[NodeState, ...] = ("completed", "skipped", "caught", "undone", "passed")


@dataclass(eq=False, slots=True, kw_only=True)
class Node:
    """A step, branch, arm, handler, item or undo."""

    label: str
    """Its part of the path: ``copy[3]``, ``left``, ``catch[0]``; for an undo the whole path."""
    name: str
    path: Path = ROOT
    parent: "Node | None" = None
    step: Step | None = None
    """None: it is a branch, an arm or a handler, or the run's pipeline is not known."""
    kind: Literal["leaf", "list", "choice", "group"] = "leaf"
    """``list``: steps one after the other; ``choice``: arms; ``group``: items, branches or undos."""
    is_run: bool = False
    is_item: bool = False
    is_finally: bool = False
    state: NodeState = "pending"
    attempt: int = 1
    maximum_attempts: int | None = None
    begun: datetime | None = None
    ended: datetime | None = None
    next_attempt: datetime | None = None
    error: str | None = None
    error_type: str | None = None
    is_final: bool = False
    """Whether its error prevents a retry."""
    details: Any = None
    waiting_for: str | None = None
    children: "dict[str, Node]" = field(default_factory=dict)
    undo: "Node | None" = None
    """For a run: the group of its undos."""
    failing: bool = False
    """For a run: whether it has failed, so that pending steps will not run."""
    partial: bool = False
    """For a run: whether it continues another one that was not read."""
    has_nameless: bool = False
    """Of a run: whether it has had a timer whose step is not known."""
    # For a list:
    places: dict[str, int] = field(default_factory=dict)
    """The index of each step by its id, including steps without a node."""
    position: int = 0
    """The index of the latest step that has begun: those before it have ended."""
    # For a group:
    fold: int | None = None
    """The number of members up to which ended ones are kept; None: any number."""
    total: int | None = None
    seen: int = 0
    highest: int = -1
    unseen: set[int] = field(default_factory=set)
    """Items that have begun before others, without any event."""
    tally: Counter[NodeState] = field(default_factory=Counter)

    @property
    def active(self) -> bool:
        """Whether it has begun and not ended."""
        return self.state in ACTIVE

    @property
    def is_loop(self) -> bool:
        """Whether its members are the items or the repetitions of a step."""
        return self.step is not None and not self.is_item and _loops(self.step)

    @property
    def until(self) -> Until | None:
        """How often it is repeated, if it is a loop of repetitions."""
        return self.step.until if self.step is not None and self.is_loop else None

    @property
    def folded(self) -> bool:
        """Whether there are so many members that they are counted."""
        return self.fold is not None and self.seen > self.fold

    def count(self, *states: NodeState) -> int:
        """Return how many members of a group are in these states."""
        return sum(self.tally[state] for state in states)

    def counts(self) -> Counts:
        """Return the counts of a group's members by state."""
        return Counts(
            path=str(self.path) if self.path.levels else self.label,
            total=self.total,
            done=self.count(*WELL) + len(self.unseen),
            running=self.count(*ACTIVE),
            failed=self.count("failed"),
        )


def add_steps(node: Node, steps: tuple[Step, ...]) -> None:
    """Add the steps of a list. ``set`` leaves no event, takes no time, and is not shown."""
    node.kind = "list"
    for place, step in enumerate(steps):
        node.places[step.id] = place
        if not isinstance(step.action, SetValues):
            add_step(node, step)


def add_step(node: Node, step: Step) -> Node:
    """Add a step to a list, and return its node."""
    # A name that contains a template is known when it is rendered.
    name = step.id if step.name is None or "{" in step.name else step.name
    child = _added(node, step.id, Node(label=step.id, name=name, step=step))
    add_contents(child)
    return child


def add_contents(node: Node) -> None:
    """Prepare a step for its content. Its own steps are added when it begins."""
    step = node.step
    if step is None:
        return
    if node.is_loop:
        node.kind, node.fold = "group", FOLD
        node.total = len(step.for_each) if isinstance(step.for_each, list) else None
        return
    match step.action:
        case Block(steps=steps):
            add_steps(node, steps)
        case Switch():
            node.kind = "choice"
        case Parallel(branches=branches):
            node.kind, node.total = "group", len(branches)
            for branch in branches:
                child = _added(node, branch.name, Node(label=branch.name, name=branch.name))
                node.tally["pending"] += 1
                add_steps(child, branch.steps)


def add_part(node: Node, segment: Segment, label: str) -> Node:
    """Add an arm or a handler."""
    child = _added(node, label, Node(label=label, name=label, kind="list"))
    number, step = segment.number or 0, node.step
    if step is not None and segment.name == CATCH and number < len(step.catch):
        add_steps(child, step.catch[number].steps)
    elif step is not None and isinstance(step.action, Switch) and number < len(step.action.arms):
        add_steps(child, step.action.arms[number].steps)
    return child


def add_unknown(node: Node, label: str) -> Node:
    """Add a part that the known pipelines do not have."""
    if node.kind == "group":
        node.tally["pending"] += 1
    return _added(node, label, Node(label=label, name=label))


def _added(node: Node, label: str, child: Node) -> Node:
    child.parent = node
    child.path = node.path.child(Path.of_id(label)) if node.is_run else node.path.inner(label)
    node.children[label] = child
    return child


def empty(node: Node) -> None:
    """Reset a node, because another attempt of it begins."""
    node.children.clear()
    node.tally.clear()
    node.places.clear()
    node.position, node.seen, node.highest, node.undo, node.failing = 0, 0, -1, None, False


def found_in(node: Node, segment: Segment) -> Node | None:
    """Return the node for one segment of a path; None: there is none, or none any more."""
    if segment.number is None:
        return node.children.get(segment.name)
    loop = node.children.get(segment.name)
    if loop is None:
        return node.children.get(str(segment._replace(attempt=1)))
    return loop.children.get(str(segment.number))


def key_of(node: Node) -> str:
    """Return the key of a member in its group."""
    return str(node.path.levels[-1].segments[-1].number) if node.is_item else node.label


def _loops(step: Step) -> bool:
    return step.for_each is not None or step.until is not None
