"""The tree of a run that is followed: its steps, and the state of each. Pure: it makes no requests.

Only activities, children and timers leave events. The state of a scope (a block, branch, arm, item,
loop) is derived from the steps inside it and after it: the steps of a list run in order, so if one has
begun, those before it have ended, and one that would have left an event was skipped.
"""

from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from typing import Any, NamedTuple

from pipeline_runner.core.model import ChildCall, Pipeline, Retry, SetValues, Wait
from pipeline_runner.core.paths import CATCH, SWITCH, Path, Segment
from pipeline_runner.core.state import Continuation
from pipeline_runner.engine.history.happenings import Counts, End
from pipeline_runner.engine.history.node import (
    ACTIVE,
    FOLD,
    HANDLER,
    WELL,
    Node,
    NodeState,
    add_contents,
    add_part,
    add_step,
    add_steps,
    add_unknown,
    empty,
    found_in,
    key_of,
)
from pipeline_runner.engine.history.plan import catches, leaves_event

_FOLD_UNDOS = 50
_FAR = 100_000
"""The maximum number of items between two observed ones that is believed."""
_WRITTEN = ("completed", "skipped", "failed", "caught", "cancelled", "undone")


class Error(NamedTuple):
    """The reason of a failure."""

    message: str
    type: str | None = None
    """None: not known."""
    is_final: bool = False
    """Whether it prevents a retry."""


class Tree:
    """What is known about a run, from its own history and those of its children."""

    def __init__(self) -> None:
        """Begin with a run that has done nothing."""
        self.root = Node(label="", name="", kind="list", is_run=True, state="running")
        self.skipped: list[Node] = []
        """Steps that have turned out to be skipped. Readers empty the list."""
        self.counted: list[Node] = []
        """Large loops that have ended. Readers empty the list."""

    # The content of a run

    def open_run(self, run: Node, pipeline: Pipeline | None, state: Continuation | None = None) -> None:
        """Add the pipeline of a run whose history begins.

        Args:
            run: The root, or the step whose child the run is.
            pipeline: None: not known.
            state: The state of the run that it continues or undoes.
        """
        run.kind, run.is_run = "list", True
        if pipeline is None or run.children:
            return
        run.partial = state is not None
        add_steps(run, pipeline.steps)
        for step in pipeline.finally_:
            if not isinstance(step.action, SetValues):
                add_step(run, step).is_finally = True
        if state is not None:
            run.failing = state.phase != "steps"
            undone = {record.path: "undone" for record in state.records if record.state == "undone"}
            statuses = {name: step.status for name, step in state.log.steps.items()} | undone
            for name in statuses.keys() & run.children.keys():
                run.children[name].state = _known(statuses[name]) or "pending"

    def begin(self, run: Node, path: Path, name: str, at: datetime, state: NodeState = "running") -> Node:
        """Record that a step of a run, or an undo, has begun. Return its node.

        Args:
            run: The root, or the step whose child the run is.
            path: The step's path in that run.
            name: Its name, for people.
            at: The time.
            state: Its state.
        """
        node = self._undo(run, path, at) if path.is_undo else self._enter(run, path, at)
        if node.is_run and node is not self.root:
            node.attempt += node.state == "retrying"
            empty(node)
        node.name, node.begun = name, at
        node.error = node.details = node.waiting_for = None
        self._set(node, state, at)
        return node

    def end(self, node: Node, state: NodeState, at: datetime, error: Error | None) -> None:
        """Record the end of something that has events."""
        node.error, node.error_type, node.is_final = error or (None, None, False)
        node.waiting_for = node.next_attempt = node.details = None
        self._conclude(node, state, at)

    def change(self, node: Node, state: NodeState, at: datetime, **more: Any) -> None:
        """Record a change without an event. ``more`` are fields of the node."""
        for name, value in more.items():
            setattr(node, name, value)
        if state != "running":
            node.details = None
        self._set(node, state, at)

    def undone(self, run: Node, path: Path) -> None:
        """Record that a step was undone, by the path of the undo in the run that undoes it."""
        node = self.find(run, path.undone)
        if node is not None:
            self._set(node, "undone", node.ended)

    def find(self, run: Node, path: Path) -> Node | None:
        """Return the node at a path in a run; None: there is none, or none any more."""
        if path.is_undo:
            return run.undo.children.get(str(path.undone)) if run.undo is not None else None
        node: Node | None = run
        for segment in (segment for level in path.levels for segment in level.segments):
            node = None if node is None else found_in(node, segment)
        return node

    def finish(self, run: Node, end: End, at: datetime, statuses: dict[str, Any] | None = None) -> None:
        """Record the end of a run: everything that was open in it has ended too.

        Args:
            run: The root, or the step whose child the run is.
            end: How it ended.
            at: The time.
            statuses: The states of its steps in its report, by id: some steps have left no event.
        """
        if end == "completed":
            for node in list(run.children.values()):
                self._settle(node, at)
        else:
            self._stop(run, "cancelled" if end == "cancelled" else "failed", end, at)
            run.failing = True
            for name, status in (statuses or {}).items():
                step = run.children.get(name)
                # What the steps inside one came to does not tell that its own handler took the error.
                unsaid = (
                    ("pending", "passed", "failed", "cancelled")
                    if status == "caught"
                    else ("pending", "passed")
                )
                if step is not None and step.state in unsaid:
                    step.state = _known(status) or step.state
        if run.undo is not None:
            self._set(run.undo, "failed" if run.undo.tally["failed"] else "completed", at)
        if run is self.root:
            self._set(run, end, at)

    def path_of_name(self, run: Node, name: str) -> Path:
        """Return the path of a timer's step in a run of an older version, which recorded only its name."""
        steps = ((node, node.step) for node in _all_inside(run) if node.step is not None)
        found = [node for node, step in steps if (step.name or step.id) == name]
        if len(found) == 1:
            return found[0].path.local
        run.has_nameless = True
        return Path.of_id(name)

    # Finding

    def _undo(self, run: Node, path: Path, at: datetime) -> Node:
        if run.undo is None:
            run.undo = Node(label="undo", name="undo", kind="group", fold=_FOLD_UNDOS, begun=at)
        run.undo.state = "running"
        label = str(path.undone)
        node = run.undo.children.get(label)
        if node is None:
            node = Node(label=label, name=label, path=run.path.child(path), parent=run.undo)
            run.undo.children[label] = node
            run.undo.seen += 1
            run.undo.tally["pending"] += 1
        return node

    def _enter(self, run: Node, path: Path, at: datetime) -> Node:
        node = run
        for segment in path.levels[0].segments:
            if node.kind == "leaf":
                node.kind = "list"
            self._reach(node, segment.name, at)
            node = self._inside(node, segment, at)
            if segment.attempt > node.attempt:
                self._restart(node, segment.attempt, at)
            if not node.active:
                self._set(node, "running", at)
            if node.parent is run and not node.is_finally:
                run.failing = False  # somebody has decided that it goes on
        return node

    def _reach(self, node: Node, name: str, at: datetime) -> None:
        """Record that a step of a list has begun: those before it have ended."""
        place = node.places.get(name, -1)
        if place <= node.position:
            return
        before = list(islice(node.places, node.position, place))
        node.position = place
        for each in before:
            if each in node.children:
                self._settle(node.children[each], at, certain=not _run_of(node).partial)

    def _inside(self, node: Node, segment: Segment, at: datetime) -> Node:
        """Return the node for one segment of a path. Create it if it is new."""
        label = str(segment._replace(attempt=1))
        if segment.number is None:
            return node.children.get(label) or add_unknown(node, label)
        if segment.name in (CATCH, SWITCH) and segment.name not in node.children:
            return node.children.get(label) or add_part(node, segment, label)
        loop = node.children.get(segment.name) or add_unknown(node, segment.name)
        loop.kind, loop.fold, loop.next_attempt = "group", FOLD, None
        if not loop.active:
            self._set(loop, "running", at)
        return self._item(loop, segment.number, at)

    def _item(self, loop: Node, index: int, at: datetime) -> Node:
        key = str(index)
        if key in loop.children:
            return loop.children[key]
        item = Node(label=f"{loop.label}[{index}]", name=f"{loop.name}[{index}]", step=loop.step, parent=loop)
        item.path, item.is_item = loop.path.item(index), True
        if index > loop.highest:
            if index - loop.highest < _FAR:
                loop.unseen.update(range(loop.highest + 1, index))
            loop.highest = index
            loop.seen += 1
        elif index in loop.unseen:
            loop.unseen.discard(index)
            loop.seen += 1
        else:
            # It was counted as completed too early.
            item.state = "completed"
        if item.state == "pending":
            loop.tally["pending"] += 1
        loop.children[key] = item
        add_contents(item)
        if loop.seen == FOLD + 1:
            for each in [each for each, one in loop.children.items() if one.state in WELL]:
                del loop.children[each]
            loop.children[key] = item
        self._free(loop, item, at)
        return item

    def _free(self, loop: Node, item: Node, at: datetime) -> None:
        """Record that another item has ended when an item begins, if the loop limits how many run."""
        limit = (loop.step.max_concurrency or 1) if loop.step is not None else 0
        if not limit or loop.count(*ACTIVE) < limit:
            return
        for other in list(loop.children.values()):
            if other is not item and other.active and not _is_busy(other):
                self._settle(other, at)
                if loop.count(*ACTIVE) < limit:
                    return

    def _restart(self, node: Node, attempt: int, at: datetime) -> None:
        """Record that a scope is retried: its content was undone, and begins again."""
        node.attempt = attempt
        empty(node)
        add_contents(node)
        self._set(node, "running", at)

    # Ends

    def _conclude(self, node: Node, state: NodeState, at: datetime | None) -> None:
        """Set the state of a node that has ended, and of the scopes that have ended with it."""
        if state == "failed" and (retry := _retry_of(node)) is not None:
            node.maximum_attempts = retry.maximum_attempts or None
            self._set(node, "retrying", at)
            return
        self._set(node, state, at)
        if state == "failed" and _is_caught(node):
            return
        parent = node.parent
        if parent is None:
            return
        if parent.is_run:
            parent.failing |= state in ("failed", "cancelled") and not node.is_finally
            return
        end = _end_of(parent, node)
        if end is not None and end != parent.state:
            parent.error_type, parent.is_final = node.error_type, node.is_final
            self._conclude(parent, end, at)

    def _settle(self, node: Node, at: datetime | None, *, certain: bool = True) -> None:
        """Record that a step has ended, because the run has continued after it."""
        step = node.step
        if node.state == "pending" and step is not None and (step.when is not None or step.catch):
            skipped = certain and step.when is not None and not node.is_loop and leaves_event(step)
            if isinstance(step.action, Wait) and _run_of(node).has_nameless:
                skipped = False
            if skipped:
                self.skipped.append(node)
            self._set(node, "skipped" if skipped else "passed", at)
        elif node.state in ("failed", "retrying") and step is not None and step.catch and not node.is_item:
            self._set(node, "caught", at)
        elif node.state == "pending" or (node.active and _ends_with_its_list(node)):
            for child in list(node.children.values()):
                self._settle(child, at, certain=certain)
            has_failed = node.kind == "group" and node.tally["failed"]
            state: NodeState = "caught" if has_failed else "completed"
            self._set(node, state if certain or node.active else "passed", at)

    def _stop(self, node: Node, state: NodeState, end: End, at: datetime) -> None:
        """Record that a run has ended before its content."""
        for child in [*node.children.values(), *(node.undo.children.values() if node.undo else ())]:
            if not child.active:
                continue
            if child.kind != "leaf" and not child.is_run:
                self._stop(child, state, end, at)
                self._set(child, state, at)
            elif end in ("terminated", "timed out"):
                self._set(child, end, at)
            elif child.waiting_for is not None:
                self._set(child, "cancelled", at)

    def _set(self, node: Node, state: NodeState, at: datetime | None) -> None:
        old, node.state = node.state, state
        if state in ACTIVE:
            node.begun, node.ended = node.begun or at, None
        elif old in ACTIVE:
            node.ended = at
            if node.folded and node.parent is not None and state not in ("undone", "caught"):
                self.counted.append(node)
        group = node.parent
        if group is None or group.kind != "group" or node.label.startswith(HANDLER):
            return
        group.tally[old] -= 1
        group.tally[state] += 1
        if group.folded and state in WELL:
            group.children.pop(key_of(node), None)


def _known(status: Any) -> NodeState | None:
    """Return a status of an ended step in a run's report; None: it is another value."""
    return status if status in _WRITTEN else None


def _retry_of(node: Node) -> Retry | None:
    """Return the retry policy after the failure of a scope or a child; None: it is not retried."""
    step = node.step
    if step is None or node.is_loop or node.is_final:
        return None
    retry = step.action.retry if isinstance(step.action, ChildCall) else step.retry
    if retry is None or node.error_type in (retry.non_retryable_error_types or ()):
        return None
    return retry if not retry.maximum_attempts or node.attempt < retry.maximum_attempts else None


def _is_caught(node: Node) -> bool:
    return node.step is not None and not node.is_item and catches(node.step, node.error_type)


def _end_of(parent: Node, node: Node) -> NodeState | None:
    """Return how a scope has ended with something inside it; None: it has not ended."""
    if node.label.startswith(HANDLER):
        return "caught" if node.state == "completed" else node.state
    if parent.kind == "choice":
        return node.state
    if parent.kind == "group":
        return _end_of_group(parent)
    if node.state in ("failed", "cancelled"):
        return node.state
    return "completed" if parent.places.get(node.label) == len(parent.places) - 1 else None


def _end_of_group(group: Node) -> NodeState | None:
    """Return how a loop or a ``parallel`` has ended; None: it has not ended."""
    if group.count(*ACTIVE):
        return None
    bad = group.count("failed", "cancelled")
    whole = group.total is not None and group.count(*WELL) + bad + len(group.unseen) >= group.total
    if bad and (whole or group.step is None or group.step.fail_fast):
        return "failed" if group.tally["failed"] else "cancelled"
    return "completed" if whole else None


def _ends_with_its_list(node: Node) -> bool:
    """Tell whether no event marks the end of a node."""
    return (node.kind != "leaf" and not node.is_run) or node.waiting_for is not None


def _run_of(node: Node) -> Node:
    """Return the run that a node is in."""
    while not node.is_run and node.parent is not None:
        node = node.parent
    return node


def _all_inside(run: Node) -> Iterator[Node]:
    for node in run.children.values():
        yield node
        if not node.is_run:
            yield from _all_inside(node)


def _is_busy(node: Node) -> bool:
    """Tell whether something with events is running in a scope."""
    if node.kind == "leaf" or node.is_run:
        return node.active
    return any(_is_busy(child) for child in node.children.values())


def counts_around(node: Node) -> Counts | None:
    """Return the counts of the outermost large loop that contains a node; None: there is none."""
    found, above = None, node.parent
    while above is not None:
        if above.folded:
            found = above
        above = above.parent
    return None if found is None else found.counts()
