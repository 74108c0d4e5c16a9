"""What a run keeps: the outputs that something still reads, and no others."""

from pathlib import Path

import pytest
from temporalio import workflow

from pipeline_runner.core import model
from pipeline_runner.core.state import Continuation, Frame, ScopeLog, StepResult
from pipeline_runner.engine.workflow.liveness import Liveness
from pipeline_runner.language.workspace import load
from tests.conftest import Pipelines, result_of


def loaded(folder: Path, steps: str, rest: str = "") -> model.Pipeline:
    path = folder / "main.yaml"
    path.write_text(f"version: 1\nname: p\nsteps:\n{steps}{rest}")
    found = load(path, modules=["tests.effects"])
    assert found.bundle is not None, found.diagnostics
    return found.bundle.pipelines[found.bundle.root]


def read(pipeline: model.Pipeline) -> set[str]:
    liveness = Liveness(pipeline)
    return {step.id for step in model.steps_of(pipeline) if liveness.is_read(step)}


LOOP = "  - {id: each, for_each: [1, 2], set: {x: 1}}\n"


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("", False),
        ('output: "{{ steps.each.output }}"\n', True),
        ('output: "{{ steps.each.output[0].x }}"\n', True),
        ('output: "{{ steps.each }}"\n', True),
        ('output: "{{ steps.each.status }}"\n', False),
        ('output: "{{ steps }}"\n', True),
        ('output: {a: ["{% for s in steps.each.output %}{{ s.x }}{% endfor %}"]}\n', True),
        ('  - {id: next, when: "steps.each.output[0].x == 1", set: {}}\n', True),
        ("  - {id: next, for_each: steps.each.output, set: {}}\n", True),
        ('  - {id: next, name: "{{ steps.each.output[1].x }}", set: {}}\n', True),
        (
            '  - {id: next, switch: [{when: "steps.each.output[1].x == 1", steps: [{id: a, set: {}}]}]}\n',
            True,
        ),
        ("  - {id: next, steps: [{id: a, set: {x: '{{ steps.each.output }}'}}]}\n", True),
        ("  - {id: next, set: {}, catch: [{output: '{{ steps.each.output }}'}]}\n", True),
        ("finally: [{id: next, set: {x: '{{ steps.each.output }}'}}]\n", True),
        (
            (
                "  - id: next\n    activity: effect.do\n    with: {log: l, name: n}\n    compensate:"
                " {activity: effect.undo, with: {log: l, name: '{{ steps.each.output }}'}}\n"
            ),
            True,
        ),
    ],
)
def test_whatever_reads_an_output_is_found(tmp_path: Path, more: str, expected: str) -> None:
    assert (
        "each" in read(loaded(tmp_path, LOOP, more)) if expected else not read(loaded(tmp_path, LOOP, more))
    )


def test_the_output_of_a_scope_is_that_of_its_last_steps(tmp_path: Path) -> None:
    pipeline = loaded(
        tmp_path,
        """
  - id: block
    steps:
      - {id: a, set: {}}
      - id: both
        parallel:
          one: [{id: b, set: {}}, {id: c, set: {}}]
          two: [{id: d, switch: [{when: "1 == 1", steps: [{id: e, set: {}}, {id: f, set: {}}]}]}]
  - id: unread
    steps: [{id: g, set: {}}]
  - id: chosen
    steps: [{id: h, set: {}}, {id: i, set: {}}]
    output: "{{ steps.h.output }}"
""",
        'output: ["{{ steps.block.output }}", "{{ steps.chosen.output }}"]\n',
    )
    assert read(pipeline) == {"block", "both", "c", "d", "f", "chosen", "h"}


def test_a_run_that_goes_on_takes_what_later_steps_read(tmp_path: Path) -> None:
    undo = "compensate: {activity: effect.undo, with: {log: l, name: '{{ steps.c.output.x }}'}}"
    pipeline = loaded(
        tmp_path,
        f"""
  - {{id: a, set: {{x: 1}}}}
  - {{id: b, set: {{x: "{{{{ steps.a.output.x }}}}"}}}}
  - {{id: c, set: {{x: 1}}}}
  - {{id: d, activity: effect.do, with: {{log: l, name: n}}, {undo}}}
  - {{id: e, set: {{x: "{{{{ steps.b.output.x }}}}"}}}}
""",
    )

    def kept(position: int, phase: str = "steps") -> set[str]:
        results = {step: StepResult(status="completed", output={"x": 1}) for step in "abcd"}
        log = ScopeLog(pipeline="p", task_queue="q", steps=results)
        state = Continuation(phase=phase, started_at="", log=log, frame=Frame(position=position))  # type: ignore[arg-type]
        Liveness(pipeline).prune(state)
        assert {result.status for result in log.steps.values()} == {"completed"}
        return {step for step, result in log.steps.items() if result.output is not None}

    assert kept(1) == {"a", "b", "c"}
    assert kept(2) == {"b", "c"}
    assert kept(4) == {"b", "c"}
    assert kept(5) == {"c"}
    assert kept(0, "undo") == {"c"}


async def test_a_loop_whose_outputs_nobody_reads_goes_on_with_little(
    pipelines: Pipelines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state that is handed on does not grow with the items that have completed."""
    monkeypatch.setattr(
        workflow.Info,
        "is_continue_as_new_suggested",
        lambda info: info.continued_run_id is None and info.get_current_history_length() > 25,
    )
    items = list(range(10_000))
    text = f"""\
version: 1
name: p
inputs: {{items: {{type: array, items: {{type: integer}}}}}}
steps:
  - id: long
    for_each: inputs.items
    set: {{x: "{"x" * 100}"}}
  - id: each
    for_each: {list(range(12))}
    max_concurrency: 3
    steps:
      - {{id: inner, for_each: [1, 2, 3, 4, 5], set: {{x: "{"x" * 100}"}}}}
      - {{id: do, activity: effect.do, with: {{log: LOG, name: "{{{{ item }}}}"}}}}
  - {{id: read, for_each: [1, 2], set: {{x: "{{{{ item }}}}"}}}}
output: ["{{{{ steps.long.status }}}}", "{{{{ steps.read.output[1].x }}}}"]
"""
    async with pipelines.worker():
        handle = await pipelines.start(pipelines.bundle(text), items=items)
        newest = pipelines.client.get_workflow_handle(handle.id, result_type=handle._result_type)
        assert await result_of(newest) == ["completed", 2]
        started = await anext(newest.fetch_history_events())
    attributes = started.workflow_execution_started_event_attributes
    assert attributes.continued_execution_run_id
    size = len(attributes.input.payloads[2].data) - len(str(items).replace(" ", ""))
    assert 0 < size < 3_000
    assert sorted(pipelines.effects) == sorted(f"do {item}" for item in range(12))
