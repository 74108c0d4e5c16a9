"""An activity's error arrives at once, whatever its size, and tells people what they can use."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from pydantic import BaseModel, Field
from temporalio import activity
from temporalio.exceptions import ApplicationError, FailureError

from pipeline_runner.engine.workflow import ending, run
from tests.conftest import Pipelines
from tests.engine.test_limits import failed
from tests.engine.texts import pipeline, step

SIZE = 4_200_000
"""Over 4 MiB, which the server takes in no message."""


def chained(length: int) -> Exception:
    error: Exception = ValueError("the root")
    for number in range(length):
        outer = ValueError(f"cause {number}")
        outer.__cause__ = error
        error = outer
    return error


def deep(level: int) -> None:
    if level == 0:
        raise ValueError("the bottom")
    [deep, other_deep][level % 2](level - 1)


def other_deep(level: int) -> None:
    deep(level)


def circle() -> Exception:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    return first


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


class Stranger:
    def __repr__(self) -> str:
        return "a stranger"


LARGE: dict[str, tuple[Callable[[], Exception], str, str]] = {
    "message": (lambda: ValueError("the reason " + "x" * SIZE), "ValueError", "the reason xxx"),
    "details": (lambda: ApplicationError("the reason", {"log": "x" * SIZE}, type="Large"), "Large", "the reason"),
    "many details": (lambda: ApplicationError("reason", *["x" * 9000] * 500, type="Large"), "Large", "reason"),
    "long list": (lambda: ApplicationError("reason", [1] * SIZE, type="Large"), "Large", "reason"),
    "deep details": (lambda: ApplicationError("reason", nested(900), type="Large"), "Large", "reason"),
    "no JSON": (lambda: ApplicationError("reason", Stranger(), type="Large"), "Large", "reason"),
    "causes": (lambda: chained(3000), "ValueError", "cause 2999"),
    "a circle": (circle, "ValueError", "first"),
    "a type": (lambda: type("X" * SIZE, (ValueError,), {})("reason"), "X" * 199 + "…", "reason"),
}  # fmt: skip


@pytest.mark.parametrize("case", LARGE)
async def test_a_large_error_arrives_at_once_with_its_type_and_reason(
    pipelines: Pipelines, case: str
) -> None:
    make, kind, message = LARGE[case]
    attempts = []

    @activity.defn(name="test.fail")
    async def fail(given: dict[str, str]) -> None:
        attempts.append(activity.info().attempt)
        raise make()

    bundle = pipelines.bundle(pipeline(step(pipelines, "test.fail")))
    async with pipelines.worker(fail):
        handle = await pipelines.start(bundle)
        cause, report = await failed(handle)
    assert cause.type == kind
    assert cause.message.startswith(f"o: {message}")
    assert report.error is not None
    assert report.error.message == cause.message
    assert attempts == [1]


async def activity_failure(pipelines: Pipelines, error: Exception) -> Any:
    """The failure of a failed activity, as the server has it."""

    @activity.defn(name="test.fail")
    async def fail(given: dict[str, str]) -> None:
        raise error

    async with pipelines.worker(fail):
        handle = await pipelines.start(pipelines.bundle(pipeline(step(pipelines, "test.fail"))))
        await failed(handle)
    async for event in handle.fetch_history_events():
        if event.HasField("activity_task_failed_event_attributes"):
            return event.activity_task_failed_event_attributes.failure
    raise AssertionError


async def test_the_causes_that_are_left_out_are_counted(pipelines: Pipelines) -> None:
    found = await activity_failure(pipelines, chained(3000))
    messages = []
    while True:
        messages.append(found.message)
        if not found.HasField("cause"):
            break
        found = found.cause
    assert messages == [*(f"cause {number}" for number in range(2999, 2988, -1)), "and 2990 more causes"]


async def test_details_keep_their_form_when_they_are_cut(pipelines: Pipelines) -> None:
    error = ApplicationError("reason", {"log": "x" * SIZE, "code": 7}, [1, 2], type="Large")
    found = await activity_failure(pipelines, error)
    first, second = [json.loads(p.data) for p in found.application_failure_info.details.payloads]
    assert first["code"] == 7
    assert first["log"].startswith("xxxx")
    assert first["log"].endswith("x…")
    assert second == [1, 2]


async def test_the_stack_trace_has_the_authors_frames_alone(pipelines: Pipelines) -> None:
    @activity.defn(name="test.deep")
    async def fail(given: dict[str, str]) -> None:
        deep(200)

    async with pipelines.worker(fail):
        handle = await pipelines.start(pipelines.bundle(pipeline(step(pipelines, "test.deep"))))
        await failed(handle)
    text = (await handle.fetch_history()).to_json()
    assert text.count("in other_deep") + text.count("in deep") == 20 * 2  # as the step's, and the run's cause
    assert "interceptor.py" not in text
    assert "worker/_activity.py" not in text


async def test_an_error_that_says_itself_what_is_wrong_has_no_frames(pipelines: Pipelines) -> None:
    found = await activity_failure(pipelines, ApplicationError("reason", type="Said"))
    assert found.stack_trace == ""


async def test_errors_of_temporals_own_that_an_activity_raises_keep_their_type(pipelines: Pipelines) -> None:
    """Sent as they are, they would be taken for the end of this activity."""

    class OwnError(FailureError):
        pass

    found = await activity_failure(pipelines, OwnError("mine"))
    assert (found.application_failure_info.type, found.message) == ("OwnError", "mine")


class Size(BaseModel):
    width: int = Field(ge=1)
    unit: str


class Struct(msgspec.Struct):
    width: int
    unit: str = "cm"


@dataclass
class Plain:
    width: int
    unit: str = "cm"


def takes(hint: Any, name: str = "test.take") -> Callable[..., Any]:
    def take(size: Any) -> str:
        return str(size.width)

    take.__annotations__["size"] = hint
    activity.defn(name=name)(take)
    return take


@pytest.mark.parametrize(
    ("hint", "reason"),
    [
        (Size, "width: Input should be a valid integer, unable to parse string as an integer; unit: Field required"),
        (Struct, "Expected `int`, got `str` - at `width`"),
        (Plain, "Expected `int`, got `str` - at `width`"),
    ],
    ids=["pydantic", "msgspec", "dataclass"],
)  # fmt: skip
async def test_a_parameter_that_does_not_fit_is_refused_at_once(
    pipelines: Pipelines, hint: Any, reason: str
) -> None:
    given = step(pipelines, "test.take", "with: {width: wide}", more="retry: {maximum_attempts: 5}")
    async with pipelines.worker(takes(hint)):
        handle = await pipelines.start(pipelines.bundle(pipeline(given)))
        cause, _ = await failed(handle, 5)
    assert (cause.type, cause.message) == ("InvalidInput", f"o: the input is not valid: {reason}")
    text = (await handle.fetch_history()).to_json()
    assert 'File \\"' not in text
    assert "Failed decoding" not in text


@pytest.mark.parametrize("hint", [Size, Struct, Plain], ids=["pydantic", "msgspec", "dataclass"])
async def test_a_parameter_that_fits_is_of_its_type(pipelines: Pipelines, hint: Any) -> None:
    seen = []

    def take(size: Any) -> None:
        seen.append(type(size))

    take.__annotations__["size"] = hint
    activity.defn(name="test.take")(take)
    async with pipelines.worker(take):
        handle = await pipelines.start(
            pipelines.bundle(pipeline(step(pipelines, "test.take", "with: {width: 3, unit: m}")))
        )
        await handle.result()
    assert seen == [hint]


async def test_a_parameter_of_several_is_named_and_their_number_is_checked(pipelines: Pipelines) -> None:
    @activity.defn(name="test.two")
    async def two(size: Plain, count: int = 1) -> str:
        return f"{size.width * count}"

    async def told(given: str) -> str:
        bundle = pipelines.bundle(pipeline(step(pipelines, "test.two", given)))
        cause, _ = await failed(await pipelines.start(bundle), 5)
        assert cause.type == "InvalidInput"
        return cause.message

    async with pipelines.worker(two):
        assert await told("args: [{width: 1}, many]") == (
            "o: the input is not valid: count: Expected `int`, got `str`"
        )
        assert await told("args: [{width: 1}, 2, 3]") == (
            "o: the input is not valid: the activity takes 1 to 2 arguments (size, count), not 3"
        )
        fits = pipeline(step(pipelines, "test.two", "args: [{width: 3}]"), "output: '{{ steps.o.output }}'\n")
        handle = await pipelines.start(pipelines.bundle(fits))
        # The second one has its default, and the first one is a dataclass all the same.
        assert json.loads((await handle.result()).payload.data) == "3"


async def test_the_errors_of_children_in_children_stay_small(pipelines: Pipelines) -> None:
    """Each level has its own report; those of the levels below would be told again in every cause."""

    @activity.defn(name="test.fail")
    async def fail(given: dict[str, str]) -> None:
        raise ApplicationError("the reason", {"log": "x" * SIZE}, type="Large")

    undo = "compensate: {activity: test.fail, with: {a: x}, task_queue: %s, retry: {maximum_attempts: 1}}"
    many = "".join(
        f"  - {{id: s{k}, name: '{'n' * 190}', set: {{a: 1}}, {undo % pipelines.queue}}}\n" for k in range(15)
    )
    levels = {f"c{k}": pipeline(f"  - {{id: c, pipeline: ./c{k + 1}.yaml}}\n") for k in range(1, 5)}
    bundle = pipelines.bundle(
        pipeline("  - {id: c, pipeline: ./c1.yaml}\n"),
        **levels,
        c5=pipeline(many, step(pipelines, "test.fail")),
    )
    async with pipelines.worker(fail):
        handle = await pipelines.start(bundle)
        cause, report = await failed(handle)
    assert (cause.type, cause.message) == ("Large", "c: c: c: c: c: o: the reason")
    assert len(report.undo) + report.omitted == 15
    async for event in handle.fetch_history_events():
        if event.HasField("workflow_execution_failed_event_attributes"):
            failure = event.workflow_execution_failed_event_attributes.failure
            assert failure.application_failure_info.details.ByteSize() < 250_000
            assert failure.cause.ByteSize() <= ending.CAUSES
            kinds = [one.WhichOneof("failure_info") for one in ending.chain(failure)]
            assert kinds[-1] == "application_failure_info"  # the root is still there
            assert len(kinds) == 13


def test_a_report_without_room_for_all_steps_keeps_those_that_did_not_complete() -> None:
    many = {f"{k}{'s' * 900}": "completed" for k in range(300)}
    assert run._steps(many | {"a": "failed"}, 200_000) == {"a": "failed"}
    assert run._steps(dict.fromkeys(many, "skipped"), 200_000) == {}
    assert run._steps(many, None) == many
