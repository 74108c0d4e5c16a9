"""The tree of a run that is followed, from recorded histories and from made ones."""

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent

from pipeline_runner.core import model
from pipeline_runner.core.model import (
    ActivityCall,
    Arm,
    Block,
    Branch,
    ChildCall,
    Fail,
    Handler,
    Parallel,
    Pipeline,
    Retry,
    SetValues,
    Step,
    Switch,
    Until,
    Wait,
)
from pipeline_runner.core.paths import Path as StepPath
from pipeline_runner.engine.history.happenings import Progress
from pipeline_runner.engine.history.node import FOLD, Node
from pipeline_runner.engine.history.reading import Reader, Watched
from tests.engine.scenarios import FOLDER
from tests.engine.test_reading import recorded

DO = ActivityCall(name="do")
START = datetime(2030, 1, 1, tzinfo=UTC)


class History:
    """Makes the events of a run, a second apart."""

    def __init__(self, *steps: Step, inputs: Any = None, declared: Any = None, **more: Any) -> None:
        pipeline = Pipeline(name="p", steps=steps, inputs=declared or {}, **more)
        self.bundle = model.Bundle(root="m", pipelines={"m": pipeline})
        self.reader = Reader("w", None)
        self.watched = self.reader.root
        self.told: list[Progress] = []
        self.names: dict[str, str] = {}
        """Those of steps that have other names than their ids, by path."""
        self._open: dict[str, int] = {}
        self._number = 0
        self.start({} if inputs is None else inputs, model.encode(self.bundle))

    def add(self, kind: str, **fields: Any) -> HistoryEvent:
        self._number += 1
        event = HistoryEvent(event_id=self._number, event_type=EventType.Value(f"EVENT_TYPE_{kind}"))
        event.event_time.FromDatetime(START + timedelta(seconds=self._number))
        attributes = getattr(event, f"{kind.lower()}_event_attributes")
        attributes.SetInParent()
        for name, value in fields.items():
            setattr(attributes, name, value)
        return event

    def take(self, event: HistoryEvent) -> None:
        for told in self.reader.take(self.watched, event):
            if isinstance(told, Progress):
                self.told.append(told)
            elif isinstance(told, Watched):
                self.watched = told

    def start(self, inputs: Any, bundle: bytes) -> None:
        event = self.add("WORKFLOW_EXECUTION_STARTED")
        payloads = event.workflow_execution_started_event_attributes.input.payloads
        payloads.extend([Payload(data=json.dumps(inputs).encode()), Payload(data=bundle)])
        self.take(event)

    def begin(self, *paths: str) -> "History":
        for path in paths:
            event = self.add("ACTIVITY_TASK_SCHEDULED", activity_id=path)
            name = self.names.get(path, StepPath.of_id(path).name)
            event.user_metadata.summary.data = json.dumps(
                f"{'undo ' * path.startswith('undo:')}{name}"
            ).encode()
            self._open[path] = event.event_id
            self.take(event)
        return self

    def complete(self, *paths: str, output: Any = None) -> "History":
        for path in paths:
            event = self.add("ACTIVITY_TASK_COMPLETED", scheduled_event_id=self._open.pop(path))
            result = event.activity_task_completed_event_attributes.result.payloads
            result.append(Payload(data=json.dumps(output).encode()))
            self.take(event)
        return self

    def do(self, *paths: str) -> "History":
        for path in paths:
            self.begin(path).complete(path)
        return self

    def fail(self, path: str, kind: str = "Broken", *, final: bool = False) -> "History":
        event = self.add("ACTIVITY_TASK_FAILED", scheduled_event_id=self._open.pop(path))
        failure = event.activity_task_failed_event_attributes.failure
        failure.message = f"{path} broke"
        failure.application_failure_info.type = kind
        failure.application_failure_info.non_retryable = final
        self.take(event)
        return self

    def end(self, kind: str = "COMPLETED") -> "History":
        self.take(self.add(f"WORKFLOW_EXECUTION_{kind}"))
        return self

    @property
    def now(self) -> datetime:
        return START + timedelta(seconds=self._number)

    @property
    def states(self) -> dict[str, str]:
        """The state of every node by its path."""
        return dict(_states(self.reader.tree.root))

    @property
    def skipped(self) -> list[str]:
        return [told.path for told in self.told if told.state == "skipped"]

    def node(self, *labels: str) -> Node:
        node = self.reader.tree.root
        for label in labels:
            node = node.children[label]
        return node


def _states(node: Node) -> Iterator[tuple[str, str]]:
    for child in node.children.values():
        yield str(child.path), child.state
        yield from _states(child)
    for undo in node.undo.children.values() if node.undo else ():
        yield f"undo {undo.label}", undo.state


def step(id_: str, action: Any = DO, **more: Any) -> Step:
    return Step(id=id_, action=action, **more)


def block(name: str, *inside: Step, **more: Any) -> Step:
    return step(name, Block(steps=inside), **more)


def states_of(name: str) -> dict[str, str]:
    reader = Reader("w", None)
    for event in recorded(name):
        reader.take(reader.root, event)
    return dict(_states(reader.tree.root))


def test_the_recorded_scopes_are_told_from_what_is_inside_them() -> None:
    states = states_of("scopes-failed")
    assert {path: state for path, state in states.items() if not path.startswith("undo ")} == {
        "tried": "caught", "tried.a": "undone", "tried.b": "undone", "tried.boom": "pending",
        "tried.catch[0]": "completed", "tried.catch[0].c": "undone",
        "both": "completed", "both.left": "completed", "both.left.d": "undone", "both.right": "completed",
        "both.right.rest": "completed", "both.right.child": "completed",
        "each": "completed", "each[0]": "completed", "each[0].e": "undone", "each[1]": "completed",
        "each[1].e": "undone", "each[2]": "completed", "each[2].e": "undone",
        # It fails in the workflow: the report of the run says so.
        "f": "failed",
    }  # fmt: skip
    undos = [path for path in states if path.startswith("undo ")]
    assert undos[:3] == ["undo tried.b", "undo tried.a", "undo each[2].e"]
    assert {states[path] for path in undos} == {"completed"}


@pytest.mark.parametrize(
    ("name", "states"),
    [
        (
            "dirty",
            {"a": "undone", "b": "completed", "stop": "failed", "undo b": "failed", "undo a": "completed"},
        ),
        ("by-name", {"a": "completed"}),
        (
            "cancelled-step",
            {"a": "undone", "hang": "undone", "undo hang": "completed", "undo a": "completed"},
        ),
        ("pipeline-timeout", {"a": "undone", "w": "cancelled", "undo a": "completed"}),
    ],
)
def test_a_recorded_run_has_this_tree(name: str, states: dict[str, str]) -> None:
    assert states_of(name) == states


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.json")), ids=lambda file: file.stem)
def test_the_tree_of_every_recorded_run_agrees_with_its_report(file: Path) -> None:
    reader = Reader(json.loads(file.read_text())["id"], None)
    for event in recorded(file.stem):
        reader.take(reader.root, event)
    states = dict(_states(reader.tree.root))
    if reader.tree.root.state == "running":
        return  # it goes on in another run
    failure = event.workflow_execution_failed_event_attributes.failure
    details = failure.application_failure_info.details.payloads
    told = json.loads(details[0].data)["steps"] if details else {}
    own = {name: node.state for name, node in reader.tree.root.children.items() if name in told}
    assert {name: state for name, state in own.items() if state != "undone"} == {
        name: told[name] for name, state in own.items() if state != "undone"
    }
    active = [path for path, state in states.items() if state in ("running", "waiting", "retrying")]
    assert active == (["c"] if file.stem == "not-waited-for" else [])


def test_a_run_that_goes_on_from_an_unseen_one_knows_how_its_steps_stand() -> None:
    """Those that the run before has undone are in its record; nothing is called skipped."""
    states = states_of("continued-0")
    assert {states[f"s{k}"] for k in range(11)} == {"undone"}
    assert states["s11"] == "failed"
    inner = states_of("scopes-continued-0")
    assert inner["each[6].a"] == "passed"
    assert inner["each"] == "completed"


def test_steps_of_a_run_are_there_before_they_begin() -> None:
    history = History(step("a"), block("b", step("c"), step("v", SetValues(values={}))), step("d"))
    assert history.states == {"a": "pending", "b": "pending", "b.c": "pending", "d": "pending"}
    history.begin("a")
    assert history.states["a"] == "running"
    history.complete("a").begin("b.c")
    assert (history.states["b"], history.states["b.c"], history.states["d"]) == (
        "running",
        "running",
        "pending",
    )


def test_a_run_that_is_seen_from_its_start_goes_on_in_another_one() -> None:
    history = History(step("a"), step("s", when="x"), block("b", step("c")))
    history.do("a")
    following = history.add("WORKFLOW_EXECUTION_CONTINUED_AS_NEW", new_execution_run_id="r2")
    history.take(following)
    event = history.add("WORKFLOW_EXECUTION_STARTED", continued_execution_run_id="r1")
    history.take(event)
    history.do("b.c").end()
    assert history.skipped == ["s"]
    assert history.states == {"a": "completed", "s": "skipped", "b": "completed", "b.c": "completed"}


def goes_on(history: History, state: Any, *, after: str = "") -> None:
    """Have the run begin anew, from the state of another one; ``after``: its run id, if it is of the chain."""
    history.reader = Reader("w", None)
    history.watched = history.reader.root
    event = history.add("WORKFLOW_EXECUTION_STARTED", continued_execution_run_id=after)
    payloads = event.workflow_execution_started_event_attributes.input.payloads
    given: Any = {}, json.loads(model.encode(history.bundle)), {"continued": state}
    payloads.extend(Payload(data=json.dumps(value).encode()) for value in given)
    history.take(event)


@pytest.mark.parametrize("state", [None, {"phase": "of another version"}, ["steps"]])
def test_nothing_is_called_skipped_by_a_run_whose_state_before_is_not_known(state: Any) -> None:
    history = History(step("s", when="x"), step("z"))
    goes_on(history, state, after="r1")
    history.do("z").end()
    assert (history.skipped, history.states) == ([], {"s": "passed", "z": "completed"})


def test_a_run_that_undoes_another_one_has_no_steps_to_come() -> None:
    history = History(step("a"), step("b"), step("c"))
    log = {
        "pipeline": "m",
        "task_queue": "q",
        "steps": {"a": {"status": "completed"}, "b": {"status": "failed"}},
    }
    state = {"phase": "undo", "started_at": "2030-01-01T00:00:00Z", "log": log}
    goes_on(history, state)
    history.begin("undo:a")
    assert history.states == {"a": "completed", "b": "failed", "c": "pending", "undo a": "running"}
    assert history.reader.tree.root.failing
    assert history.complete("undo:a").states["a"] == "undone"


def test_a_timer_of_an_older_version_whose_step_is_not_known_may_be_that_of_any_wait() -> None:
    rest = step("rest", Wait(duration="5s"), name="rest {{ inputs.x }}", when="inputs.x")
    history = History(rest, step("s", when="inputs.x"), step("z"))
    history.take(timer(history, "rest of it", 5))
    history.do("z").end()
    assert history.skipped == ["s"]
    assert (history.states["rest"], history.told[0].path) == ("passed", "rest of it")
    known = History(rest, step("z")).do("z").end()
    assert known.skipped == ["rest"]


SKIPPED = [
    pytest.param(step("s", when="x"), ["s"], id="an activity"),
    pytest.param(step("s", Wait(duration="5s"), when="x"), ["s"], id="a wait"),
    pytest.param(step("s", Fail(message="no"), when="x"), ["s"], id="a failure"),
    pytest.param(block("s", step("t"), when="x"), ["s"], id="a block"),
    pytest.param(step("s", Wait(duration="0s"), when="x"), [], id="a wait without a timer"),
    pytest.param(step("s", Wait(duration="{{ x }}"), when="x"), [], id="a wait that may have none"),
    pytest.param(step("s", SetValues(values={}), when="x"), [], id="values"),
    pytest.param(step("s", when="x", for_each="y"), [], id="a loop, whose items are judged one by one"),
    pytest.param(step("s", when="x", catch=(Handler(),)), [], id="what fails without a trace"),
    pytest.param(block("s", step("t", when="y"), when="x"), [], id="a block that may do nothing"),
    pytest.param(step("s"), [], id="what is not conditional"),
]


@pytest.mark.parametrize(("conditional", "skipped"), SKIPPED)
def test_what_is_skipped_is_told_at_every_depth(conditional: Step, skipped: list[str]) -> None:
    history = History(conditional, step("z")).do("z").end()
    assert history.skipped == skipped
    nested = History(block("in", conditional, step("z")), step("end")).do("in.z", "end").end()
    assert nested.skipped == [f"in.{name}" for name in skipped]
    branch = Branch(name="left", steps=(conditional,))
    other = Branch(name="right", steps=(step("o"),))
    last = History(step("p", Parallel(branches=(branch, other)))).do("p.right.o").end()
    assert last.skipped == [f"p.left.{name}" for name in skipped]


def test_what_comes_after_a_failure_is_not_called_skipped() -> None:
    history = History(step("a"), step("s", when="x"), finally_=(step("f", when="x"), step("g")))
    history.begin("a").fail("a").do("g").end("FAILED")
    assert history.skipped == []
    assert history.states == {"a": "failed", "s": "pending", "f": "pending", "g": "completed"}
    good = History(step("a"), finally_=(step("f", when="x"), step("g"))).do("a", "g").end()
    assert good.skipped == ["f"]


def test_a_run_that_goes_on_after_a_failure_has_steps_to_come_again() -> None:
    history = History(step("a"), step("b"), step("c")).begin("a").fail("a")
    assert history.reader.tree.root.failing
    history.begin("a")
    assert not history.reader.tree.root.failing
    history.complete("a").begin("b").fail("b").begin("c")
    assert history.states == {"a": "completed", "b": "failed", "c": "running"}
    assert not history.reader.tree.root.failing


def test_an_arm_a_handler_and_another_attempt_are_in_the_tree() -> None:
    arms = (Arm(when="x", steps=(step("one"),)), Arm(steps=(step("two"), step("three"))))
    chosen = History(step("size", Switch(arms=arms)), step("z")).do("size.switch[1].two")
    assert chosen.states == {
        "size": "running", "size.switch[1]": "running", "size.switch[1].two": "completed",
        "size.switch[1].three": "pending", "z": "pending",
    }  # fmt: skip
    assert chosen.do("size.switch[1].three").states["size"] == "completed"

    tell = Handler(types=("Broken",), steps=(step("tell"),))
    caught = History(block("b", step("a"), step("c"), catch=(tell,)), step("z")).begin("b.a").fail("b.a")
    assert (caught.states["b"], caught.reader.tree.root.failing) == ("failed", False)
    assert caught.do("b.catch[0].tell").states["b"] == "caught"
    other = History(block("b", step("a"), catch=(tell,)), step("z")).begin("b.a").fail("b.a", "Other")
    assert (other.states["b"], other.reader.tree.root.failing) == ("failed", True)
    silent = History(block("b", step("a"), catch=(Handler(),)), step("z")).begin("b.a").fail("b.a").begin("z")
    assert silent.states["b"] == "caught"

    retried = (
        History(block("b", step("a"), step("c"), retry=Retry(maximum_attempts=2))).begin("b.a").fail("b.a")
    )
    assert retried.states["b"] == "retrying"
    retried.do("undo:b.a").begin("b#2.a")
    assert (retried.node("b").state, retried.node("b").attempt) == ("running", 2)
    assert retried.states == {"b": "running", "b.a": "running", "b.c": "pending", "undo b.a": "completed"}
    assert retried.fail("b#2.a").states["b"] == "failed"


def timer(history: History, summary: str, seconds: int) -> HistoryEvent:
    event = history.add("TIMER_STARTED", timer_id="1")
    event.user_metadata.summary.data = json.dumps(summary).encode()
    event.timer_started_event_attributes.start_to_fire_timeout.FromSeconds(seconds)
    return event


def test_another_attempt_or_repetition_that_is_waited_for_is_told() -> None:
    again = Until(condition="last.ok", every="5s")
    history = History(block("b", step("a"), retry=Retry(maximum_attempts=4)), step("poll", until=again))
    history.begin("b.a").fail("b.a").do("undo:b.a")
    history.take(timer(history, "retry of b", 7))
    assert (history.node("b").next_attempt, history.told[-1].next_attempt) == (
        history.now + timedelta(seconds=7),
        7,
    )
    assert (history.told[-1].path, history.told[-1].state) == ("b", "retrying")
    assert (history.told[-1].attempt, history.told[-1].maximum_attempts) == (2, 4)
    history.do("b#2.a", "poll[0]")
    before = len(history.told)
    history.take(timer(history, "pause of poll", 5))
    history.take(timer(history, "pause between steps with much to compute", 5))
    history.take(timer(history, "timeout of p", 5))
    history.take(timer(history, "retry of somebody unknown", 5))
    assert len(history.told) == before
    assert history.node("poll").next_attempt == history.now - timedelta(seconds=3) + timedelta(seconds=5)
    assert (history.node("poll").state, history.node("poll").counts().done) == ("running", 1)


def test_an_error_that_is_final_is_not_followed_by_another_attempt() -> None:
    history = History(block("b", step("a"), retry=Retry(maximum_attempts=4))).begin("b.a")
    history.fail("b.a", final=True)
    assert history.states["b"] == "failed"
    listed = Retry(maximum_attempts=4, non_retryable_error_types=("Broken",))
    assert History(block("b", step("a"), retry=listed)).begin("b.a").fail("b.a").states["b"] == "failed"


def each(**more: Any) -> Step:
    return step("each", for_each="inputs.items", max_concurrency=3, **more)


def test_of_many_items_those_that_run_or_failed_are_kept_and_all_are_counted() -> None:
    history = History(each(fail_fast=False), step("z"), inputs={"items": list(range(1000))})
    history.do(*(f"each[{k}]" for k in range(FOLD)))
    assert len(history.node("each").children) == FOLD, "few items are all kept"
    assert history.told[-1].counts is None
    for k in range(FOLD, 1000):
        history.begin(f"each[{k}]")
        _ = history.fail(f"each[{k}]") if k in (20, 500) else history.complete(f"each[{k}]")
        assert len(history.node("each").children) <= FOLD + 3
    counts = history.told[-1].counts
    assert counts is not None
    assert (counts.path, counts.total, counts.done, counts.failed) == ("each", 1000, 998, 2)
    assert list(history.node("each").children) == ["20", "500"]
    told = [(one.state, one.counts and one.counts.done) for one in history.told if one.path == "each"]
    assert told == [("failed", 998)], "the end of such a loop is told"
    few = History(each(), inputs={"items": [1]}).do("each[0]").end()
    assert [one.path for one in few.told] == ["each[0]", "each[0]"]


def test_items_without_a_trace_count_as_done() -> None:
    history = History(each(when="item > 3"), step("z"), inputs={"items": list(range(20))})
    history.do(*(f"each[{k}]" for k in range(4, 18))).begin("z")
    node = history.node("each")
    assert (node.state, node.counts().done, node.counts().failed) == ("completed", 18, 0)


def test_an_item_that_is_taken_for_done_may_go_on() -> None:
    """Its last step is conditional: another item begins, though only so many run at a time."""
    inside = Block(steps=(step("a"), step("b", when="item")))
    history = History(step("each", inside, for_each=list(range(30)), max_concurrency=2))
    history.do("each[0].a", "each[1].a", *(f"each[{k}].a" for k in range(2, 12)))
    node = history.node("each")
    assert (node.seen, node.counts().done, node.counts().running) == (12, 10, 2)
    history.begin("each[4].b")
    # One of those that seemed to run has ended, then.
    assert (node.counts().done, node.counts().running) == (10, 2)
    history.complete("each[4].b")
    assert (node.counts().done, node.counts().running) == (11, 1)
    assert history.end().node("each").counts().done == 12


@pytest.mark.parametrize(
    ("expression", "total"),
    [
        ("inputs.items", 9),
        ("steps.list.output.found", 12),
        ("steps.list.output.found | list", 12),
        ("steps['list'].output.found", None),
        ("steps.values.output", None),
        ("item.parts", None),
    ],
)
def test_how_many_items_there_are_is_told_where_the_history_has_it(
    expression: str, total: int | None
) -> None:
    given: dict[str, Any] = {"items": {"default": list(range(9))}}
    history = History(step("list"), step("each", for_each=expression), declared=given)
    history.begin("list").complete("list", output={"found": list(range(12))}).begin("each[0]")
    assert history.node("each").total == total


def child(history: History, *, at: Watched) -> int:
    """Have the step ``c`` of a run start its child, whose history comes next."""
    history.watched = at
    event = history.add("START_CHILD_WORKFLOW_EXECUTION_INITIATED", workflow_id="w/c")
    history.take(event)
    started = history.add("CHILD_WORKFLOW_EXECUTION_STARTED", initiated_event_id=event.event_id)
    started.child_workflow_execution_started_event_attributes.workflow_execution.workflow_id = "w/c"
    history.take(started)
    inside = model.Bundle(root="k", pipelines={"k": Pipeline(name="k", steps=(step("a"), step("b")))})
    history.start({}, model.encode(inside))
    return event.event_id


def test_the_steps_of_a_child_are_below_it_and_it_may_be_tried_again() -> None:
    again = ChildCall(pipeline="k", retry=Retry(maximum_attempts=2))
    history = History(step("c", again), step("z"))
    root = history.reader.root
    number = child(history, at=root)
    history.do("a").begin("b").fail("b").do("undo:a").end("FAILED")
    history.watched = root
    history.take(history.add("CHILD_WORKFLOW_EXECUTION_FAILED", initiated_event_id=number))
    assert history.states == {
        "c": "retrying", "c/a": "undone", "c/b": "failed", "undo a": "completed", "z": "pending",
    }  # fmt: skip
    assert [(one.path, one.undo) for one in history.told if one.state == "completed"] == [
        ("c/a", False), ("c/a", True),
    ]  # fmt: skip
    number = child(history, at=root)
    assert history.states == {"c": "running", "c/a": "pending", "c/b": "pending", "z": "pending"}
    assert (history.node("c").attempt, history.node("c").maximum_attempts) == (2, 2)
    history.watched = root
    history.take(history.add("CHILD_WORKFLOW_EXECUTION_FAILED", initiated_event_id=number))
    assert (history.states["c"], history.told[-1].attempt) == ("failed", 2)
    assert history.reader.tree.root.failing


def test_a_run_that_goes_on_knows_how_many_items_there_are() -> None:
    """Inputs and outputs are in its state."""
    history = History(step("list"), step("each", for_each="inputs.n + steps.list.output"), declared={"n": {}})
    log = {
        "pipeline": "m",
        "task_queue": "q",
        "inputs": {"n": [1, 2]},
        "steps": {"list": {"status": "completed", "output": [3]}},
    }
    goes_on(history, {"phase": "steps", "started_at": "2030-01-01T00:00:00Z", "log": log})
    node = history.begin("each[2]").node("each")
    assert (node.total, node.counts().done, node.counts().running) == (3, 2, 1)


@pytest.mark.parametrize(
    "paths", [["x.y[3].z", "x.y[99999999999999999].z", "a#3.b", "p/q", "no path", "undo:r"]]
)
def test_a_history_without_a_pipeline_still_has_a_tree(paths: Iterable[str]) -> None:
    history = History()
    history.reader = Reader("w", None)
    history.watched = history.reader.root
    history.do(*paths).end()
    assert history.states["x.y[3].z"] == "completed"
    assert history.states["undo r"] == "completed"
    assert history.node("x", "y").seen == 2
