"""A secret's value is never in the history, a result, an error, a heartbeat or a log."""

import asyncio
import logging
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from temporalio import activity
from temporalio.exceptions import ApplicationError

from tests.conftest import Pipelines, result_of
from tests.engine.test_undo import failure

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
    import base64

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
