"""Random pipelines of nested scopes against a model of them that shares no code with the interpreter.

``SCOPES_EXAMPLES=2000 ./dev test tests/engine/test_scopes_model.py`` runs more of them.
"""

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from temporalio import workflow
from temporalio.client import WorkflowFailureError

from tests.conftest import Pipelines
from tests.effects import lines

DEFAULT = 20
EXAMPLES = int(os.environ.get("SCOPES_EXAMPLES", DEFAULT))


NEVER = 99


@dataclass
class Node:
    """A step.

    ``do``, ``fail``, ``early`` (fails in the first attempts of a step around it), ``block``, ``late`` (a block that
    exceeds its time limit), ``switch``, ``parallel``, ``loop`` (``for_each``) or ``until``.
    """

    kind: str
    lists: list[list["Node"]] = field(default_factory=list)
    handler: list["Node"] | None = None
    attempts: int = 1
    limit: int = 1
    times: int = 0
    """Items or repetitions; of a switch the number of the arm that runs, if there is one."""
    fail_fast: bool = True
    good: int = NEVER
    """The attempt of ``early`` that does not fail; the repetition with which ``until`` ends."""
    id: str = ""
    of: str = ""
    """The innermost step around it that is retried."""
    pivot: bool = False
    """Of steps of the pipeline's own list only."""


def nodes(limits: st.SearchStrategy[int], *, at_once: bool) -> st.SearchStrategy[Node]:
    """Return steps; where several run at the same time, any first error must lead to the same end."""
    early = st.builds(Node, st.just("early"), good=st.sampled_from([2, 2, 3, NEVER]))
    do = st.builds(Node, st.just("do"))
    # Nothing retries the error of a fail step.
    leaf = st.one_of(do, do, do, do, early, early if at_once else st.builds(Node, st.just("fail")))

    def holder(inner: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
        steps = st.lists(inner, min_size=1, max_size=3)
        one, many = st.tuples(steps).map(list), st.lists(steps, min_size=1, max_size=3)
        common = {
            "handler": st.one_of(st.none(), st.lists(inner, max_size=2)),
            "attempts": st.sampled_from([1, 1, 2, 3]),
        }
        grouped = {**common, "limit": limits, "fail_fast": st.booleans()}
        times = st.integers(0, 3)
        kinds = [
            st.builds(Node, st.just("block"), one, **common),
            st.builds(Node, st.just("switch"), many, times=times, **common),
            st.builds(Node, st.just("parallel"), many, **grouped),
            st.builds(Node, st.just("loop"), one, times=times, **grouped),
            st.builds(Node, st.just("until"), one, times=st.integers(1, 3), good=times, **common),
        ]
        if at_once:
            kinds.append(st.builds(Node, st.just("late"), one, **common))
        return st.one_of(kinds)

    return st.recursive(leaf, holder, max_leaves=10)


def own_list(limits: st.SearchStrategy[int], *, at_once: bool) -> st.SearchStrategy[list[Node]]:
    pivots = st.sampled_from([False, False, True])
    step = st.builds(lambda node, pivot: replace(node, pivot=pivot), nodes(limits, at_once=at_once), pivots)
    return st.lists(step, min_size=1, max_size=3)


def numbered(steps: list[Node], numbers: "list[int] | None" = None, of: str = "") -> list[Node]:
    numbers = [0] if numbers is None else numbers
    for node in steps:
        numbers[0] += 1
        node.id, node.of = f"s{numbers[0]}", of
        for inside in node.lists:
            numbered(inside, numbers, node.id if node.attempts > 1 else of)
        numbered(node.handler or [], numbers, of)
    return steps


def yaml(steps: list[Node], indent: int = 2) -> str:
    pad = " " * indent
    return "".join(f"{pad}- {one(node, indent + 2)}" for node in steps)


def one(node: Node, indent: int) -> str:
    pad = " " * indent
    lines = [f"id: {node.id}"]
    given, undo = (
        f"log: LOG, name: {node.id}",
        f"{{activity: effect.undo, with: {{log: LOG, name: {node.id}}}}}",
    )
    match node.kind:
        case "do":
            lines += ["activity: effect.do", f"with: {{{given}}}", f"compensate: {undo}"]
        case "early":
            lines += [
                "activity: effect.attempt",
                f"with: {{{given}, of: {node.of or '-'}, good: {node.good}}}",
            ]
            lines += ["retry: {maximum_attempts: 1}", f"compensate: {undo}"]
        case "fail":
            lines.append(f"fail: {{message: {node.id} fails}}")
        case "loop":
            lines += [f"for_each: {list(range(node.times))}", f"max_concurrency: {node.limit}"]
        case "until":
            lines.append(f"until: {{condition: index == {node.good}, every: 1ms, at_most: {node.times}}}")
        case "parallel":
            lines.append(f"max_concurrency: {node.limit}")
        case "late":
            lines.append("timeout: 50ms")
    if not node.fail_fast:
        lines.append("fail_fast: false")
    if node.attempts > 1:
        lines.append(f"retry: {{maximum_attempts: {node.attempts}, initial_interval: 1ms}}")
    lines += holding(node, indent)
    if node.pivot:
        lines.append("pivot: true")
    if node.handler is not None:
        steps = (
            f"- steps:\n{yaml(node.handler, indent + 6)}".rstrip() if node.handler else "- output: handled"
        )
        lines.append(f"catch:\n{pad}  {steps}")
    return f"\n{pad}".join(lines) + "\n"


def holding(node: Node, indent: int) -> list[str]:
    """The steps inside a step."""
    pad = " " * indent
    match node.kind:
        case "switch":
            # Only one of them is the pipeline's name.
            arms = "".join(
                f"{pad}  - when: run.pipeline == '{'p' if k == node.times else k}'\n"
                f"{pad}    steps:\n{yaml(steps, indent + 6)}"
                for k, steps in enumerate(node.lists)
            )
            return [f"switch:\n{arms}".rstrip()]
        case "parallel":
            branches = "".join(
                f"{pad}  b{k}:\n{yaml(steps, indent + 4)}" for k, steps in enumerate(node.lists)
            )
            return [f"parallel:\n{branches}".rstrip()]
        case "late":
            rest = f"{pad}  - {{id: {node.id}_rest, wait: 1h}}"
            return [f"steps:\n{yaml(node.lists[0], indent + 2)}{rest}"]
    return [f"steps:\n{yaml(steps, indent + 2)}".rstrip() for steps in node.lists]


class FailedError(Exception):
    def __init__(self, *, final: bool = False) -> None:
        super().__init__()
        self.final = final


class Model:
    """What happens where nothing happens at the same time."""

    def __init__(self) -> None:
        self.effects: list[str] = []
        self.log: list[str] = []
        self.attempts: dict[str, int] = {}

    def run(self, steps: list[Node]) -> bool:
        try:
            self.steps(steps)
        except FailedError:
            self.undo(0)
            return False
        return True

    def undo(self, mark: int) -> None:
        while len(self.log) > mark:
            self.effects.append(f"undo {self.log.pop()}")

    def steps(self, steps: list[Node]) -> None:
        for node in steps:
            mark = len(self.log)
            try:
                self.step(node)
            except FailedError:
                if node.handler is None:
                    raise
                self.undo(mark)
                self.steps(node.handler)
            else:
                if node.pivot:
                    self.log.clear()

    def step(self, node: Node) -> None:
        match node.kind:
            case "early" if self.attempts.get(node.of, 1) < node.good:
                raise FailedError
            case "do" | "early":
                self.effects.append(f"do {node.id}")
                self.log.append(node.id)
            case "fail":
                raise FailedError(final=True)
            case "loop":
                self.each(node, [lambda: self.turn(node, node.lists)] * node.times)
            case "until":
                for index in range(node.times):
                    self.turn(node, node.lists)
                    if index == node.good:
                        return
                raise FailedError
            case _:
                self.turn(node, node.lists)

    def turn(self, node: Node, lists: list[list[Node]]) -> None:
        """Run a step, an item or a repetition, as often as it is retried."""
        mark = len(self.log)
        for attempt in range(1, node.attempts + 1):
            self.attempts[node.id] = attempt
            try:
                self.once(node, lists)
            except FailedError as error:
                if error.final or attempt == node.attempts:
                    raise
                self.undo(mark)
            else:
                return

    def once(self, node: Node, lists: list[list[Node]]) -> None:
        match node.kind:
            case "switch":
                for steps in lists[node.times : node.times + 1]:
                    self.steps(steps)
            case "parallel":
                self.each(node, [lambda steps=steps: self.steps(steps) for steps in lists])  # type: ignore[misc]
            case kind:
                self.steps(lists[0])
                if kind == "late":
                    raise FailedError

    def each(self, node: Node, bodies: list[Callable[[], None]]) -> None:
        """Run items or branches."""
        errors = []
        for body in bodies:
            try:
                body()
            except FailedError as error:
                if node.fail_fast:
                    raise
                errors.append(error)
        if errors:
            raise errors[0]


@pytest_asyncio.fixture
async def served(pipelines: Pipelines) -> AsyncIterator[Pipelines]:
    # Every workflow task replays the history so far.
    async with pipelines.worker(max_cached_workflows=0):
        yield pipelines


async def observed(pipelines: Pipelines, steps: list[Node]) -> tuple[bool, list[str]]:
    """Run a pipeline; return whether it completed, and its effects."""
    text = f"version: 1\nname: p\nsteps:\n{yaml(numbered(steps))}"
    before = len(lines(pipelines.log))
    handle = await pipelines.start(pipelines.bundle(text))
    try:
        async with asyncio.timeout(60):
            await pipelines.client.get_workflow_handle(handle.id).result()
        completed = True
    except WorkflowFailureError:
        completed = False
    return completed, lines(pipelines.log)[before:]


def eagerly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have runs go on in new ones as soon as they have done anything."""
    monkeypatch.setattr(
        workflow.Info, "is_continue_as_new_suggested", lambda info: info.get_current_history_length() > 5
    )


CHECKED = settings(
    max_examples=EXAMPLES,
    deadline=None,
    # The same cases in every run of the suite; others where more are asked for.
    derandomize=EXAMPLES == DEFAULT,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    print_blob=True,
)


# Temporal holds back each continued run by about a second, so these are few.
CHECKED_EAGERLY = settings(CHECKED, max_examples=max(EXAMPLES // 5, 1))
ONE_BY_ONE = own_list(st.just(1), at_once=False)
AT_ONCE = own_list(st.integers(2, 3), at_once=True)


async def compare(served: Pipelines, steps: list[Node], *, in_order: bool) -> None:
    model = Model()
    expected = model.run(numbered(steps))
    completed, effects = await observed(served, steps)
    assert completed == expected
    if in_order:
        assert effects == model.effects
    # What stands at the end does not depend on the order; what is undone may not have begun.
    assert standing(effects) == standing(model.effects)


@CHECKED
@given(steps=ONE_BY_ONE)
async def test_one_after_the_other_is_as_in_the_model(served: Pipelines, steps: list[Node]) -> None:
    await compare(served, steps, in_order=True)


@CHECKED
@given(steps=AT_ONCE)
async def test_at_the_same_time_what_stands_is_as_in_the_model(served: Pipelines, steps: list[Node]) -> None:
    await compare(served, steps, in_order=False)


@CHECKED_EAGERLY
@given(steps=ONE_BY_ONE)
async def test_one_after_the_other_goes_on_from_every_boundary(served: Pipelines, steps: list[Node]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        eagerly(patch)
        await compare(served, steps, in_order=True)


@CHECKED_EAGERLY
@given(steps=AT_ONCE)
async def test_at_the_same_time_goes_on_from_every_boundary(served: Pipelines, steps: list[Node]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        eagerly(patch)
        await compare(served, steps, in_order=False)


def standing(effects: list[str]) -> Counter[str]:
    """What was done and is not undone; an undo of what was cut short before it began counts nothing."""
    left: Counter[str] = Counter()
    for line in effects:
        kind, name = line.split()
        left[name] = left[name] + 1 if kind == "do" else max(left[name] - 1, 0)
    return +left
