"""Random pipelines of nested scopes against a model of them that shares no code with the interpreter.

``SCOPES_EXAMPLES=2000 ./dev test tests/engine/test_scopes_model.py`` runs more of them.
"""

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

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


@dataclass
class Node:
    """A step: ``do``, ``fail``, ``block``, ``loop`` or ``parallel``."""

    kind: str
    lists: list[list["Node"]] = field(default_factory=list)
    handler: list["Node"] | None = None
    limit: int = 1
    times: int = 0
    id: str = ""


def nodes(limits: st.SearchStrategy[int]) -> st.SearchStrategy[Node]:
    leaf = st.builds(Node, st.sampled_from(["do", "do", "do", "fail"]))

    def holder(inner: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
        steps = st.lists(inner, min_size=1, max_size=3)
        handler = st.one_of(st.none(), st.lists(inner, max_size=2))
        return st.one_of(
            st.builds(Node, st.just("block"), st.tuples(steps).map(list), handler),
            st.builds(Node, st.just("loop"), st.tuples(steps).map(list), handler, limits, st.integers(0, 3)),
            st.builds(Node, st.just("parallel"), st.lists(steps, min_size=1, max_size=3), handler, limits),
        )

    return st.recursive(leaf, holder, max_leaves=10)


def numbered(steps: list[Node], numbers: "list[int] | None" = None) -> list[Node]:
    numbers = [0] if numbers is None else numbers
    for node in steps:
        numbers[0] += 1
        node.id = f"s{numbers[0]}"
        for inside in [*node.lists, node.handler or []]:
            numbered(inside, numbers)
    return steps


def yaml(steps: list[Node], indent: int = 2) -> str:
    pad = " " * indent
    return "".join(f"{pad}- {one(node, indent + 2)}" for node in steps)


def one(node: Node, indent: int) -> str:
    pad = " " * indent
    lines = [f"id: {node.id}"]
    match node.kind:
        case "do":
            lines.append(f"activity: effect.do\n{pad}with: {{log: LOG, name: {node.id}}}")
            lines.append(f"compensate: {{activity: effect.undo, with: {{log: LOG, name: {node.id}}}}}")
        case "fail":
            lines.append(f"fail: {{message: {node.id} fails}}")
        case "block":
            lines.append(f"steps:\n{yaml(node.lists[0], indent + 2)}".rstrip())
        case "loop":
            lines.append(f"for_each: {list(range(node.times))}\n{pad}max_concurrency: {node.limit}")
            lines.append(f"steps:\n{yaml(node.lists[0], indent + 2)}".rstrip())
        case "parallel":
            branches = "".join(
                f"{pad}  b{k}:\n{yaml(steps, indent + 4)}" for k, steps in enumerate(node.lists)
            )
            lines.append(f"max_concurrency: {node.limit}\n{pad}parallel:\n{branches}".rstrip())
    if node.handler is not None:
        steps = (
            f"- steps:\n{yaml(node.handler, indent + 6)}".rstrip() if node.handler else "- output: handled"
        )
        lines.append(f"catch:\n{pad}  {steps}")
    return f"\n{pad}".join(lines) + "\n"


class FailedError(Exception):
    pass


class Model:
    """What happens where nothing happens at the same time."""

    def __init__(self) -> None:
        self.effects: list[str] = []
        self.log: list[str] = []

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

    def step(self, node: Node) -> None:
        match node.kind:
            case "do":
                self.effects.append(f"do {node.id}")
                self.log.append(node.id)
            case "fail":
                raise FailedError
            case "loop":
                for _ in range(node.times):
                    self.steps(node.lists[0])
            case _:
                for steps in node.lists:
                    self.steps(steps)


@pytest_asyncio.fixture
async def served(pipelines: Pipelines) -> AsyncIterator[Pipelines]:
    async with pipelines.worker():
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
ONE_BY_ONE = st.lists(nodes(st.just(1)), min_size=1, max_size=3)
AT_ONCE = st.lists(nodes(st.integers(2, 3)), min_size=1, max_size=3)


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
