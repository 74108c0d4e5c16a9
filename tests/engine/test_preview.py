"""``plan``: what is said from the file alone is what a run really undoes."""

from pathlib import Path

import pytest

from pipeline_runner.core.state import Report
from pipeline_runner.engine.history.happenings import Ended
from pipeline_runner.engine.reports import read_report
from pipeline_runner.language.preview import Preview, previews
from tests.cli.command import run
from tests.conftest import Pipelines
from tests.engine.test_undo import effects_of

INPUTS = "inputs: {log: {type: string}, at: {type: string, default: ''}}\n"


def do(name: str, indent: int = 2) -> str:
    pad = " " * indent
    return (
        f"{pad}- id: {name}\n{pad}  activity: effect.do\n"
        f"{pad}  with: {{log: '{{{{ inputs.log }}}}', name: {name}, at: '{{{{ inputs.at }}}}', mode: fail}}\n"
        f"{pad}  compensate: {{activity: effect.undo, with: {{log: '{{{{ inputs.log }}}}', name: {name}}}}}\n"
    )


CHILD = f"name: child\n{INPUTS}steps:\n{do('c1')}{do('c2')}"
TEXT = (
    f"name: p\n{INPUTS}steps:\n{do('a')}"
    f"  - id: block\n    steps:\n{do('b1', 6)}"
    f"      - id: inner\n        steps:\n{do('b2', 10)}{do('b3', 10)}"
    f"        compensate: {{activity: effect.undo, with: {{log: '{{{{ inputs.log }}}}', name: inner}}}}\n"
    "  - {id: inside, pipeline: ./child.yaml, with: {log: '{{ inputs.log }}', at: '{{ inputs.at }}'}}\n"
    f"  - id: choice\n    switch:\n      - when: inputs.at == 'nothing'\n        steps:\n{do('no', 10)}"
    f"      - steps:\n{do('d1', 10)}{do('d2', 10)}"
    f"  - id: tried\n    steps:\n{do('e1', 6)}{do('e2', 6)}"
    f"    catch:\n      - steps:\n{do('h1', 10)}{do('h2', 10)}"
    f"{do('z')}"
)


async def test_what_is_undone_is_what_the_file_tells(pipelines: Pipelines) -> None:
    bundle = pipelines.bundle(TEXT, child=CHILD)
    told = {one.step: one for one in previews(bundle)}
    assert [*told] == [
        *("a", "block", "block.b1", "block.inner", "block.inner.b2", "block.inner.b3", "inside", "choice"),
        *(
            "choice.switch[0].no",
            "choice.switch[1].d1",
            "choice.switch[1].d2",
            "tried",
            "tried.e1",
            "tried.e2",
        ),
        *("tried.catch[0].h1", "tried.catch[0].h2", "z"),
    ]
    async with pipelines.worker():
        for path, preview in told.items():
            name = path.rpartition(".")[2]
            if name in ("block", "inner", "inside", "choice", "no", "tried", "h1", "h2"):
                continue
            log = str(pipelines.folder / name)
            handle = await pipelines.start(bundle, log=log, at=name)
            report = await ended(pipelines, handle.id, handle.run_id)
            undone = [
                line.partition(" ")[2] for line in effects_of(pipelines, name) if line.startswith("undo")
            ]
            expected = [one.step for one in preview.undone if one.condition != "if it may have taken effect"]
            names = [one.rpartition("/")[2].rpartition(".")[2] for one in expected]
            # That arm does not run.
            assert undone == [one for one in names if one != "no"], path
            assert report.status == ("completed" if preview.caught_by else "failed")


async def ended(pipelines: Pipelines, workflow_id: str, run_id: str | None) -> Report:
    from pipeline_runner.engine.follow import Follower

    async for event in Follower(pipelines.client, workflow_id, run_id).events():
        if isinstance(event, Ended):
            break
    return await read_report(pipelines.client, workflow_id, run_id, "p")


def of(pipelines: Pipelines, text: str, step: str) -> Preview:
    return next(one for one in previews(pipelines.bundle(text)) if one.step == step)


def test_conditions_points_of_no_return_and_what_is_kept_are_told(pipelines: Pipelines) -> None:
    text = (
        f"name: p\n{INPUTS}steps:\n{do('a')}    pivot: true\n{do('b')}    when: inputs.at == 'x'\n"
        f"  - id: both\n    parallel:\n      one:\n{do('p1', 8)}      two:\n{do('p2', 8)}{do('p3', 8)}"
        f"  - id: each\n    for_each: [1, 2]\n    steps:\n{do('i', 6)}"
        f"    catch: [{{types: [Broken]}}]\n{do('z')}"
    )
    at = of(pipelines, text, "both.two.p3")
    assert [(one.step, one.condition) for one in at.undone] == [
        ("both.two.p3", "if it may have taken effect"),
        ("both.two.p2", None),
        ("both.one.p1", "as far as its branch has come"),
        ("b", "unless it was skipped"),
    ]
    assert at.pivot == "a"
    last = of(pipelines, text, "z")
    assert [(one.step, one.condition) for one in last.undone][1] == ("each.i", "for each item")
    assert of(pipelines, text, "each.i").may_be_caught_by == ("each",)
    kept = of(pipelines, text.replace("name: p\n", "name: p\non_failure: keep\n"), "z")
    assert (kept.undone, kept.keeps) == ((), True)


FAILS = """\
if "tried.e2" fails, these are undone, then "tried" handles the error:
  tried.e2  effect.undo  (if it may have taken effect)
  tried.e1  effect.undo
"""


@pytest.mark.parametrize(
    ("words", "code", "out", "err"),
    [
        (
            ("--if-fails", "tried.e2"),
            0,
            FAILS,
            "",
        ),
        (
            ("--if-fails", "tried.e3"),
            2,
            "",
            'run-pipeline: p.yaml has no step "tried.e3": did you mean "tried.e2"?\n',
        ),
    ],
)
def test_the_command_prints_it(tmp_path: Path, words: tuple[str, ...], code: int, out: str, err: str) -> None:
    (tmp_path / "p.yaml").write_text(TEXT)
    (tmp_path / "child.yaml").write_text(CHILD)
    done = run(tmp_path, "plan", "p.yaml", "--activities", "tests.effects", *words)
    assert (done.code, done.out, done.err) == (code, out, err)
