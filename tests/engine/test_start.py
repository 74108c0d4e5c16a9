"""``engine.client.start``: what it refuses at the door, and what it fills in."""

import math

import msgspec
import pytest

from pipeline_runner.core import model
from pipeline_runner.core.inputs import InvalidInputs
from pipeline_runner.engine import client as starting
from pipeline_runner.engine.workflow_ids import WorkflowIdError
from tests.conftest import Pipelines
from tests.engine.texts import pipeline


def _start(own: Pipelines, inputs: object, template: str = "", **more: str) -> starting.Start:
    head = f"inputs: {{n: {{type: integer}}, m: {{type: string, default: 'd'}}}}\n{template}"
    bundle = own.bundle(pipeline("  - {id: w, wait: 1h}\n", head=head))
    encoded = model.encode(bundle)
    return starting.Start(name="p", bundle=encoded, inputs=inputs, task_queue=own.queue, **more)  # type: ignore[arg-type]


async def test_inputs_that_do_not_fit_start_nothing(pipelines: Pipelines) -> None:
    what = _start(pipelines, {"n": "x", "k": 1}, workflow_id=pipelines.queue)
    with pytest.raises(InvalidInputs) as caught:
        await starting.start(pipelines.client, what)
    assert [str(problem) for problem in caught.value.problems] == [
        "k: there is no such input (the inputs are m, n)",
        'n: must be an integer, not "x"',
    ]
    with pytest.raises(LookupError):
        await starting.find(pipelines.client, pipelines.queue)


async def test_without_an_id_the_pipeline_s_template_gives_it(pipelines: Pipelines) -> None:
    template = f"workflow_id: '{pipelines.queue}-{{{{ inputs.n }}}}-{{{{ inputs.m }}}}'\n"
    handle, new = await starting.start(pipelines.client, _start(pipelines, {"n": 7}, template))
    again, also_new = await starting.start(pipelines.client, _start(pipelines, {"n": 7, "m": "d"}, template))
    await handle.terminate()
    assert (handle.id, new) == (f"{pipelines.queue}-7-d", True)
    assert (again.run_id, also_new) == (handle.run_id, False)


async def test_without_a_template_the_id_is_the_name_and_a_random_part(pipelines: Pipelines) -> None:
    handle, _ = await starting.start(pipelines.client, _start(pipelines, {"n": 7}))
    await handle.terminate()
    name, _, part = handle.id.rpartition("-")
    assert (name, len(part)) == ("p", 8)
    first = await anext(handle.fetch_history_events())
    payload = first.workflow_execution_started_event_attributes.input.payloads[0]
    assert msgspec.json.decode(payload.data) == {"n": 7, "m": "d"}


async def test_an_id_that_no_server_takes_is_refused(pipelines: Pipelines) -> None:
    with pytest.raises(WorkflowIdError, match="1 to 1000 bytes, not 1001"):
        await starting.start(pipelines.client, _start(pipelines, {"n": 7}, workflow_id="w" * 1001))


async def test_half_of_a_surrogate_pair_starts_nothing(pipelines: Pipelines) -> None:
    with pytest.raises(WorkflowIdError, match="but character 2 of this one is half of a surrogate pair"):
        await starting.start(pipelines.client, _start(pipelines, {"n": 7}, workflow_id="a\ud800"))


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("a\ud800", "contains half of a surrogate pair, which UTF-8 cannot encode"),
        ({"k\udc00": 1}, "contains half of a surrogate pair, which UTF-8 cannot encode"),
        ([math.inf], "contains a number that is not finite"),
        (math.nan, "contains a number that is not finite"),
        (object(), "cannot be represented as JSON: Encoding objects of type object is unsupported"),
    ],
    ids=["half", "half-key", "infinite", "nan", "object"],
)
async def test_an_input_that_cannot_be_sent_starts_nothing(
    pipelines: Pipelines, value: object, told: str
) -> None:
    bundle = model.encode(pipelines.bundle(pipeline("  - {id: w, wait: 1h}\n", head="inputs: {v: {}}\n")))
    for sent in (bundle, None):
        what = starting.Start(
            name="p",
            bundle=sent,
            inputs={"v": value},
            task_queue=pipelines.queue,
            workflow_id=pipelines.queue,
        )
        with pytest.raises(InvalidInputs) as caught:
            await starting.start(pipelines.client, what)
        assert [str(problem) for problem in caught.value.problems] == [f"v: {told}"]
    with pytest.raises(LookupError):
        await starting.find(pipelines.client, pipelines.queue)


async def test_half_of_a_surrogate_pair_that_an_expression_makes_is_replaced(pipelines: Pipelines) -> None:
    template = f"workflow_id: '{pipelines.queue}-{{{{ \"\\ud800\" }}}}'\n"
    handle, _ = await starting.start(pipelines.client, _start(pipelines, {"n": 7}, template))
    await handle.terminate()
    assert handle.id == f"{pipelines.queue}-\N{REPLACEMENT CHARACTER}"
