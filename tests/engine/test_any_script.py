"""Ids in any script, and words of Python and Jinja: a whole run, its undo, and what is shown of it."""

import pytest

from pipeline_runner.cli.following import follow
from pipeline_runner.cli.session import Interrupts, Target
from tests.conftest import Pipelines, result_of
from tests.engine.test_scopes import do, failed, pipeline

CHILD = """version: 1
name: kind
inputs: {größe: {type: integer}}
steps:
  - {id: try, set: {not: "{{ inputs.größe }}"}}
  - DO
output: "{{ steps.try.output.not }}"
"""


async def test_a_run_with_ids_in_any_script(pipelines: Pipelines, capsys: pytest.CaptureFixture[str]) -> None:
    text = pipeline(
        f"""
  - id: import
    parallel:
      Москва: [{do("größe")}]
      else: [{{id: pass, pipeline: ./kind.yaml, with: {{größe: "{{{{ inputs.größe }}}}"}}}}]
  - id: クラス
    for_each: "[1, 2]"
    when: item == inputs.größe
    steps: [{do("क्षमा")}]
  - id: if
    switch:
      - when: steps.import.output.else == inputs.größe
        steps:
          - {{id: in, set: {{text: "{{% set für = steps.import.output.else %}}{{% if für %}}{{{{ für }}}}{{% endif %}}"}}}}
          - id: is
            steps: [{{id: or, fail: {{message: no, type: Größe}}}}]
            catch: [{{types: [Größe], output: {{और: "{{{{ error.step }}}}"}}}}]
  - {{id: raise, when: inputs.größe == 2, fail: {{message: "{{{{ steps.if.output.और }}}}"}}}}
""",
        'inputs: {größe: {type: integer}}\noutput: "{{ steps.if.output.और }} {{ steps.import.output.else }}"\n',
    )
    bundle = pipelines.bundle(text, kind=CHILD.replace("DO", do("名前")))
    async with pipelines.worker():
        assert await result_of(await pipelines.start(bundle, größe=1)) == "is 1"
        done = sorted(pipelines.effects)
        handle = await pipelines.start(bundle, größe=2)
        error, report = await failed(handle)
        here = Target(settings={"target_host": "unused"}, embedded=None)
        assert await follow(pipelines.client, handle, Interrupts(), here, cancels=True) == 1
    assert done == ["do größe", "do क्षमा", "do 名前"]
    assert error.message == "raise: is"
    assert report is not None
    assert {record.path for record in report.undo} == {
        "クラス[1].क्षमा",
        "import.Москва.größe",
        "import.else.pass/名前",
    }
    shown = capsys.readouterr().err
    for path in ("import.Москва.größe", "クラス", "import.else.pass"):
        assert path in shown
