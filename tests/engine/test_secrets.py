"""A secret's value is never in the history, a result, an error, a heartbeat or a log."""

import asyncio
import base64
import enum
import json
import logging
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypedDict

import pytest
from temporalio import activity
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError

from tests.conftest import Pipelines, result_of
from tests.engine.test_undo import failure
from tests.engine.texts import pipeline, step

VALUE = "hunter2-correct-horse"


@dataclass
class Login:
    user: str
    headers: dict[str, list[str]] = field(default_factory=dict)


@activity.defn(name="test.login")
async def login(given: Login) -> dict[str, object]:
    """Return, heartbeat and log the secret, to see that it does not get through."""
    activity.heartbeat({"with": given.headers})
    await asyncio.sleep(0.05)
    [header] = given.headers["auth"]
    return {"header": header, header: [header], "length": len(header), "type": type(given).__name__}


@activity.defn(name="test.refuse-login")
def refuse(header: str, user: str) -> None:
    try:
        raise KeyError(header)
    except KeyError as error:
        raise ApplicationError(
            f"{header} is wrong", {"said": [header]}, type="Denied", non_retryable=True
        ) from error


PIPELINE = """
version: 1
name: secret
secrets: [TOKEN, FILE_TOKEN]
inputs: {fake: {type: string, default: ""}}
steps:
  - id: a
    activity: test.login
    task_queue: QUEUE
    with: {user: "{{ inputs.fake }}", headers: {auth: ["Bearer {{ secrets.TOKEN }}"]}}
    compensate:
      activity: test.login
      task_queue: QUEUE
      with: {user: undo, headers: {auth: ["{{ step.input.headers.auth[0] }}"]}}
"""


async def everything(pipelines: Pipelines, workflow_id: str) -> str:
    return (await pipelines.client.get_workflow_handle(workflow_id).fetch_history()).to_json()


async def test_values_reach_the_activity_and_nothing_else(
    pipelines: Pipelines, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TOKEN", VALUE)
    caplog.set_level(logging.DEBUG)
    bundle = pipelines.bundle(
        PIPELINE.replace("QUEUE", pipelines.queue)
        + """
  - {id: b, activity: test.refuse-login, task_queue: QUEUE, args: ["{{ secrets.TOKEN }}", x]}
""".replace("QUEUE", pipelines.queue)
    )
    async with pipelines.worker(login, refuse):
        handle = await pipelines.start(bundle, fake="<secret TOKEN>")
        cause, report = await failure(handle)
    assert isinstance(cause, ApplicationError)
    assert (cause.type, cause.message) == ("Denied", "b: *** is wrong")
    assert report is not None
    assert [record.state for record in report.undo] == ["undone"]
    text = await everything(pipelines, handle.id)
    assert VALUE not in text
    assert base64.b64encode(VALUE.encode())[:-4].decode() not in text
    assert VALUE not in caplog.text


async def test_results_are_masked_and_typed_and_look_alikes_are_left_alone(
    pipelines: Pipelines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", VALUE)
    bundle = pipelines.bundle(PIPELINE.replace("QUEUE", pipelines.queue) + 'output: "{{ steps.a.output }}"\n')
    async with pipelines.worker(login):
        handle = await pipelines.start(bundle, fake="<secret TOKEN>")
        output = await result_of(handle)
    assert output == {
        "header": "Bearer ***",
        "Bearer ***": ["Bearer ***"],
        "length": len("Bearer ") + len(VALUE),
        "type": "Login",
    }


async def test_a_secret_comes_from_a_mounted_file_too(
    pipelines: Pipelines, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "FILE_TOKEN").write_text(f"{VALUE}\n")
    monkeypatch.setenv("PIPELINE_SECRETS_DIR", str(tmp_path))

    @activity.defn(name="test.length")
    def length(text: str) -> int:
        return len(text)

    bundle = pipelines.bundle(
        """
version: 1
name: file
secrets: [FILE_TOKEN]
steps: [{id: a, activity: test.length, task_queue: QUEUE, args: ["{{ secrets.FILE_TOKEN }}"]}]
output: "{{ steps.a.output }}"
""".replace("QUEUE", pipelines.queue)
    )
    async with pipelines.worker(length):
        assert await result_of(await pipelines.start(bundle)) == len(VALUE)


async def test_a_missing_secret_is_an_error_that_nothing_retries(
    pipelines: Pipelines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TOKEN", raising=False)
    monkeypatch.setenv("PIPELINE_SECRETS_DIR", "/nowhere")
    bundle = pipelines.bundle(PIPELINE.replace("QUEUE", pipelines.queue))
    async with pipelines.worker(login):
        cause, report = await failure(await pipelines.start(bundle))
    assert isinstance(cause, ApplicationError)
    assert cause.type == "SecretNotFound"
    assert cause.message == (
        'a: the worker has no secret "TOKEN": there is no environment variable and no file /nowhere/TOKEN'
    )
    assert report is not None
    assert report.undo == ()


async def test_an_uncertain_failure_keeps_the_secret_too(
    pipelines: Pipelines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", VALUE)

    @activity.defn(name="test.second")
    async def second(header: str) -> None:
        if activity.info().attempt == 1:
            await asyncio.sleep(3600)
        raise ValueError(f"{header} was seen")

    bundle = pipelines.bundle(
        """
version: 1
name: second
secrets: [TOKEN]
steps:
  - id: a
    activity: test.second
    task_queue: QUEUE
    args: ["{{ secrets.TOKEN }}"]
    timeouts: {start_to_close: 500ms}
    retry: {maximum_attempts: 2, initial_interval: 10ms}
    compensate: {activity: effect.undo, with: {log: LOG, name: a}}
""".replace("QUEUE", pipelines.queue)
    )
    async with pipelines.worker(second):
        cause, report = await failure(await pipelines.start(bundle))
    assert isinstance(cause, ApplicationError)
    assert (cause.type, cause.message) == ("ValueError", "a: *** was seen")
    assert report is not None
    assert [(r.outcome, r.state) for r in report.undo] == [("uncertain", "undone")]


TOKEN = "{{ secrets.TOKEN }}"
WITH_TOKEN = f"with: {{token: '{TOKEN}'}}"


def one_step(pipelines: Pipelines, given: str = WITH_TOKEN) -> str:
    """A pipeline of one step, whose activity is named ``test.one``, and whose output is the step's."""
    text = pipeline(step(pipelines, "test.one", given), head="secrets: [TOKEN]\n")
    return f'{text}output: "{{{{ steps.o.output }}}}"\n'


async def output_of(pipelines: Pipelines, one: Callable[..., Any], given: str = WITH_TOKEN) -> Any:
    """Run an activity with the secret, and see that the history has no trace of it."""
    async with pipelines.worker(one):
        handle = await pipelines.start(pipelines.bundle(one_step(pipelines, given)))
        async with asyncio.timeout(15):
            output = await result_of(handle)
    assert VALUE not in await everything(pipelines, handle.id)
    return output


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", VALUE)


@pytest.mark.usefixtures("token")
async def test_an_activity_with_a_secret_may_return_null(pipelines: Pipelines) -> None:
    seen: list[dict[str, str]] = []

    @activity.defn(name="test.one")
    async def one(given: dict[str, str]) -> None:
        seen.append(given)

    assert await output_of(pipelines, one) is None
    assert seen == [{"token": VALUE}]


@pytest.mark.usefixtures("token")
async def test_an_argument_beside_a_secret_may_be_null(pipelines: Pipelines) -> None:
    seen: list[object] = []

    @activity.defn(name="test.one")
    async def one(text: str, other: str | None) -> str:
        seen.extend([text, other])
        return "ok"

    assert await output_of(pipelines, one, f"args: ['{TOKEN}', null]") == "ok"
    assert seen == [VALUE, None]


@pytest.mark.usefixtures("token")
async def test_a_result_of_bytes_is_masked(pipelines: Pipelines) -> None:
    @activity.defn(name="test.one")
    async def one(given: dict[str, str]) -> bytes:
        return b"<" + given["token"].encode() + b"\xff>"

    # What is no text travels on as base64.
    assert base64.b64decode(await output_of(pipelines, one)) == b"<***\xff>"


@pytest.mark.usefixtures("token")
async def test_an_error_with_details_of_bytes_keeps_its_type_and_the_secret(
    pipelines: Pipelines, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    @activity.defn(name="test.one")
    async def one(given: dict[str, str]) -> None:
        raise ApplicationError(
            f"no {given['token']}", b"\xff" + given["token"].encode(), type="Denied", non_retryable=True
        )

    async with pipelines.worker(one):
        handle = await pipelines.start(pipelines.bundle(one_step(pipelines)))
        cause, _ = await failure(handle)
    assert isinstance(cause, ApplicationError)
    assert (cause.type, cause.message) == ("Denied", "o: no ***")
    text = await everything(pipelines, handle.id)
    assert base64.b64encode(b"\xff***").decode() in text
    assert base64.b64encode(b"\xff" + VALUE.encode()).decode() not in text
    assert VALUE not in text + caplog.text


@pytest.mark.parametrize(
    ("value", "core", "lines"),
    [
        ('pa"ss\\word-long', "word-long", 1),
        ("-----BEGIN KEY-----\nAAAABBBBCCCCDDDD\n-----END KEY-----", "AAAABBBBCCCCDDDD", 3),
    ],
    ids=["quoted", "lines"],
)
async def test_a_value_is_masked_quoted_and_line_by_line(
    pipelines: Pipelines, monkeypatch: pytest.MonkeyPatch, value: str, core: str, lines: int
) -> None:
    monkeypatch.setenv("TOKEN", value)

    @activity.defn(name="test.one")
    async def one(given: dict[str, str]) -> dict[str, object]:
        text = given["token"]
        return {
            "json": json.dumps({"h": text}),
            "repr": repr(text),
            "error": str(KeyError(text)),
            "lines": text.splitlines(),
        }

    output = await output_of(pipelines, one)
    assert output == {"json": '{"h": "***"}', "repr": "'***'", "error": "'***'", "lines": ["***"] * lines}
    assert core not in str(output)


@pytest.mark.usefixtures("token")
async def test_a_cancelled_error_of_the_activitys_own_is_an_error_and_masked(pipelines: Pipelines) -> None:
    """Nobody asked for a cancellation: the run fails, and does not count as cancelled."""

    @activity.defn(name="test.one")
    async def one(given: dict[str, str]) -> None:
        raise asyncio.CancelledError(given["token"])

    async with pipelines.worker(one):
        handle = await pipelines.start(pipelines.bundle(one_step(pipelines)))
        cause, report = await failure(handle)
    assert isinstance(cause, ApplicationError)
    assert (cause.type, cause.message) == ("CancelledError", "o: ***")
    assert report is not None
    assert report.status == "failed"
    assert VALUE not in await everything(pipelines, handle.id)


@pytest.mark.usefixtures("token")
async def test_heartbeats_from_a_thread_are_masked(pipelines: Pipelines) -> None:
    @activity.defn(name="test.one")
    def one(given: dict[str, str]) -> str:
        activity.heartbeat(given["token"], None)
        time.sleep(0.6)
        return "ok"

    seen = set()
    async with pipelines.worker(one):
        handle = await pipelines.start(pipelines.bundle(one_step(pipelines)))
        for _ in range(8):
            await asyncio.sleep(0.1)
            pending = (await handle.describe()).raw_description.pending_activities
            seen |= {tuple(p.data for p in a.heartbeat_details.payloads) for a in pending}
        assert await result_of(handle) == "ok"
    assert seen - {()} == {(b'"***"', b"")}


class Plain(enum.Enum):
    RED = "red"


class Text(enum.StrEnum):
    RED = "red"


@dataclass
class Inner:
    when: datetime
    n: int | None = None
    tags: tuple[str, ...] = ()


@dataclass
class Typed:
    token: str
    inner: Inner
    color: Text = Text.RED
    ident: uuid.UUID | None = None
    more: dict[str, Any] = field(default_factory=dict)
    raw: bytes | None = None


@dataclass
class WithEnum:
    token: str
    color: Plain = Plain.RED


@dataclass
class WithOwnField:
    token: str
    size: int = field(init=False, default=3)


class Keyed(TypedDict):
    token: str
    when: datetime


TIME = datetime(2030, 1, 1, tzinfo=UTC)
IDENT = "12345678-1234-5678-1234-567812345678"


@pytest.mark.usefixtures("token")
@pytest.mark.parametrize(
    ("expected", "given"),
    [
        (
            Typed(VALUE, Inner(TIME, tags=("a",)), ident=uuid.UUID(IDENT), more={"k": [1, None]}),
            f"inner: {{when: '2030-01-01T00:00:00+00:00', tags: [a]}}, ident: '{IDENT}', more: {{k: [1, null]}}",
        ),
        (WithEnum(VALUE), ""),
        (WithOwnField(VALUE), ""),
        ({"token": VALUE, "when": TIME}, "when: '2030-01-01T00:00:00+00:00'"),
    ],
    ids=["nested dataclass", "plain enum", "field without init", "typed dict"],
)
async def test_a_secret_reaches_a_parameter_of_any_type(
    pipelines: Pipelines, expected: object, given: str
) -> None:
    """The rest of the value is what Temporal's converter made of it, with the types it gave."""
    seen: list[object] = []

    def one(value: Any) -> str:
        seen.append(value)
        return "ok"

    one.__annotations__["value"] = Keyed if isinstance(expected, dict) else type(expected)
    activity.defn(name="test.one")(one)
    more = f", {given}" if given else ""
    assert await output_of(pipelines, one, f"with: {{token: '{TOKEN}'{more}}}") == "ok"
    assert seen == [expected]


@pytest.mark.usefixtures("token")
async def test_a_secret_reaches_a_dynamic_activity(pipelines: Pipelines) -> None:
    """Its arguments are raw, and become those that it would have had without secrets."""
    seen: list[bytes] = []

    @activity.defn(dynamic=True)
    async def one(args: Sequence[RawValue]) -> str:
        seen.extend(arg.payload.data for arg in args)
        return args[0].payload.data.decode()

    output = await output_of(pipelines, one)
    assert [json.loads(data) for data in seen] == [{"token": VALUE}]
    assert json.loads(output) == {"token": "***"}
