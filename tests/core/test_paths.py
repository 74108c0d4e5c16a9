"""Paths: whatever is made is read back, and no two steps of a run share one."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline_runner.core.paths import CATCH, ROOT, Path, PathError

SETTINGS = settings(
    max_examples=300, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)
# Few names, so that the same ones meet; those of the marks, and letters of other scripts, are among them.
BRANCHES = ["a", "b", "switch", "catch", "undo", "child", "été", "变量", "क्षमा", "import"]
IDS = [name for name in BRANCHES if name != CATCH]
KINDS = ["activity", "child", "block", "switch", "parallel"]


@dataclass(frozen=True)
class Step:
    """A step, and how often what is inside it runs."""

    kind: str = "activity"
    inside: "dict[str, list[Named]]" = field(default_factory=dict)
    """Lists of steps by the branch; of a block under ``""``, of arms under their numbers."""
    handlers: "list[list[Named]]" = field(default_factory=list)
    items: int | None = None
    attempts: int = 1
    undo: "str | list[Named] | None" = None
    """None, ``activity``, or the steps of a pipeline that undoes it."""


Named = tuple[str, Step]


def steps_by(luck: random.Random, depth: int) -> list[Named]:
    return [(name, step_by(luck, depth)) for name in luck.sample(IDS, luck.randint(1, 2))]


def step_by(luck: random.Random, depth: int) -> Step:
    kind = luck.choice(KINDS) if depth else "activity"
    names = {
        "activity": [],
        "child": [""],
        "block": [""],
        "switch": ["0", "1"],
        "parallel": luck.sample(BRANCHES, 2),
    }
    undo = luck.choice([None, "activity", "pipeline"])
    return Step(
        kind=kind,
        inside={name: steps_by(luck, depth - 1) for name in names[kind]},
        handlers=[steps_by(luck, depth - 1) for _ in range(luck.choice([0, 0, 1, 2]) if depth else 0)],
        items=luck.choice([None, None, 0, 1, 2]),
        attempts=luck.choice([1, 1, 2, 3]) if kind in ("block", "switch", "parallel") else 1,
        undo=steps_by(luck, depth - 1)
        if undo == "pipeline" and depth
        else undo
        if undo != "pipeline"
        else None,
    )


def made(steps: list[Named]) -> Iterator[Path]:
    """Yield the path of every step and scope that one run has, with its children and what undoes it."""
    for name, step in steps:
        yield from made_by(Path.of(name), step)
        yield from undoing(Path.of(name), step)


def made_by(path: Path, step: Step) -> Iterator[Path]:
    yield path
    for item in [path] if step.items is None else [path.item(number) for number in range(step.items)]:
        if item != path:
            yield item
        for number in range(1, step.attempts + 1):
            attempt = item.attempt(number)
            if attempt != item:
                yield attempt
            for key, steps in step.inside.items():
                yield from within(attempt, step.kind, key, steps)
    for number, steps in enumerate(step.handlers):
        yield path.handler(number)
        yield from listed(path.handler(number), steps)


def within(path: Path, kind: str, key: str, steps: list[Named]) -> Iterator[Path]:
    match kind:
        case "child":
            yield from (path.child(below) for below in made(steps))
        case "block":
            yield from listed(path, steps)
        case "switch":
            yield path.arm(int(key))
            yield from listed(path.arm(int(key)), steps)
        case "parallel":
            yield path.inner(key)
            yield from listed(path.inner(key), steps)


def listed(scope: Path, steps: list[Named]) -> Iterator[Path]:
    for name, step in steps:
        yield from made_by(scope.inner(name), step)


def undoing(path: Path, step: Step) -> Iterator[Path]:
    """Yield the paths of what undoes a step of the run's own list, and what is inside it."""
    if step.undo is not None:
        yield path.undo()
        if isinstance(step.undo, list):
            yield from (path.undo().child(below) for below in made(step.undo))
    elif step.kind == "child" and step.items is None:
        for name, inner in step.inside[""]:
            yield from undoing(path.child(Path.of(name)), inner)


@SETTINGS
@given(st.integers(0, 2**32), st.integers(0, 3))
def test_steps_of_a_run_have_different_paths_which_are_read_back(seed: int, depth: int) -> None:
    paths = list(made(steps_by(random.Random(seed), depth)))
    texts = [str(path) for path in paths]
    assert len(set(texts)) == len(texts), sorted(texts)
    for path, text in zip(paths, texts, strict=True):
        assert Path.parse(text) == path
        assert Path.of_id(text) == path


def test_a_step_named_catch_would_share_its_paths_with_a_handler() -> None:
    deploy = Path.of("deploy")
    assert str(deploy.handler(0).inner("tell")) == str(deploy.inner(CATCH).item(0).inner("tell"))


def test_the_paths_of_the_language() -> None:
    copy, checks, child = Path.of("copy"), Path.of("checks"), Path.of("child")
    assert [str(path) for path in (
        Path.of("create"), checks.inner("api").inner("ping"), copy.item(3), checks.attempt(1).inner("api"),
        checks.attempt(2).inner("api"), copy.item(3).attempt(2).inner("x"), Path.of("size").arm(1).inner("grow"),
        Path.of("deploy").handler(0).inner("tell"), child.child(Path.of("step")), copy.item(3).undo(),
        child.child(Path.of("step")).undo(), child.child(Path.of("step").undo()), ROOT, ROOT.child(copy),
    )] == [
        "create", "checks.api.ping", "copy[3]", "checks.api",
        "checks#2.api", "copy[3]#2.x", "size.switch[1].grow",
        "deploy.catch[0].tell", "child/step", "undo:copy[3]",
        "undo:child/step", "child/undo:step", "", "copy",
    ]  # fmt: skip


def test_a_path_tells_its_parts() -> None:
    path = Path.parse("undo:a/b.c/d[1]#2")
    assert (path.is_undo, str(path.undone), path.depth) == (True, "a/b.c/d[1]#2", 2)
    assert (str(path.above), str(path.local)) == ("undo:a/b.c", "d[1]#2")
    assert not path.undone.is_undo
    assert Path.of("a").above == ROOT


@pytest.mark.parametrize(
    "text",
    ["", ".", "a.", ".a", "a..b", "a/", "/a", "undo:", "undo:undo:a", "undo: a", "1", "a-b", "a[1", "a[]", "a[01]", "a[-1]",
     "a[x]", "a[\u0661]", "a[1][2]", "a#", "a#0", "a#1", "a#01", "a#2#3", "a#2[1]", "a.undo:b", "a\n", " a", "a b", "a[" + "9" * 5000 + "]"],
)  # fmt: skip
def test_a_string_that_is_no_path_is_refused(text: str) -> None:
    with pytest.raises(PathError, match="not the path of a step, such as"):
        Path.parse(text)


@SETTINGS
@given(st.text(st.sampled_from("ab1_/.:#[]é \n"), max_size=12).map(lambda text: text.replace("b", "undo:")))
def test_any_id_is_read_and_keeps_its_string(text: str) -> None:
    path = Path.of_id(text)
    assert str(path) == text
    assert path.is_undo == text.startswith("undo:")
    assert str(path.undone) == text.removeprefix("undo:")


def test_the_workflow_id_of_a_child_tells_its_path() -> None:
    path = Path.parse("undo:a/b")
    assert path.workflow_id("run/x") == "run/x/undo:a/b"
    assert Path.of_workflow_id("run/x/undo:a/b", "run/x") == path
    assert str(Path.of_workflow_id("chosen by its author", "run/x")) == "chosen by its author"


def test_a_path_is_read_from_a_title_as_it_was_written() -> None:
    path = Path.of("both").inner("left").inner("rest")
    assert path.titled("rest") == "both.left.rest"
    assert Path.of_title("both.left.rest") == (path, "rest")
    assert path.titled("note: rest") == "both.left.rest: note: rest"
    assert Path.of_title("both.left.rest: note: rest") == (path, "note: rest")
    assert Path.of_title("have a rest") == (Path.of_id("have a rest"), "have a rest")


@pytest.mark.parametrize(
    ("path", "inside", "outside"),
    [
        ("copy", "copy copy[3] copy[3]#2 copy#2 copy.a copy[3].a copy#2.a copy/a", "copyist copies.copy a.copy undo:copy a/copy"),
        ("copy[3]", "copy[3] copy[3]#2 copy[3].a copy[3]#2.a copy[3]/a", "copy copy[4] copy[33] copy.a copy#2"),
        ("copy#2", "copy#2 copy#2.a copy#2/a", "copy copy.a copy#3 copy#22"),
        ("a.copy", "a.copy a.copy[1] a.copy.b a.copy/b", "a a.b copy a.copy2 a[1].copy"),
        ("a/copy", "a/copy a/copy[1] a/copy.b a/copy/b", "a copy a/b a.copy a/undo:copy"),
    ],
)  # fmt: skip
def test_a_path_holds_its_turns_and_what_is_inside(path: str, inside: str, outside: str) -> None:
    for one in inside.split():
        assert Path.parse(path).holds(one), one
        assert Path.parse(path).holds(Path.parse(one)), one
    for one in outside.split():
        assert not Path.parse(path).holds(one), one
