"""Unit tests of activities as their authors write them: no server, no worker."""

import asyncio
import logging
import os
import runpy
import sys
from pathlib import Path

import pytest
from temporalio import activity

from pipeline_runner.activities.toolkit.context import idempotency_key, undone_outcome, working_directory
from pipeline_runner.activities.toolkit.secret_values import SecretNotFoundError, secret_value
from pipeline_runner.testing.activities import KEY, activity_environment
from tests.docs.pages import EVERY


def seen() -> dict[str, object]:
    return {
        "key": idempotency_key(),
        "attempt": activity.info().attempt,
        "directory": working_directory(),
        "undone": undone_outcome(),
    }


@activity.defn
async def asynchronous(more: str) -> dict[str, object]:
    await asyncio.sleep(0)
    activity.heartbeat(more)
    return seen()


@activity.defn
def synchronous(more: str) -> dict[str, object]:
    activity.heartbeat(more)
    return seen()


async def test_an_activity_sees_what_a_step_would_give_it(tmp_path: Path) -> None:
    environment = activity_environment(key="k", attempt=3, directory=str(tmp_path), undone="uncertain")
    beats: list[object] = []
    environment.on_heartbeat = beats.append
    expected = {"key": "k", "attempt": 3, "directory": str(tmp_path), "undone": "uncertain"}
    assert await environment.run(asynchronous, "a") == expected
    assert environment.run(synchronous, "s") == expected
    assert beats == ["a", "s"]


async def test_without_more_it_is_a_first_attempt_that_undoes_nothing() -> None:
    expected = {"key": KEY, "attempt": 1, "directory": os.getcwd(), "undone": None}
    assert await activity_environment().run(asynchronous, "") == expected


async def test_nothing_of_it_stays_in_the_test() -> None:
    environment = activity_environment(secrets={"TOKEN_OF_TEST": "s3cret-value"})
    await environment.run(asynchronous, "")
    environment.run(synchronous, "")
    with pytest.raises(LookupError, match="no idempotency key"):
        idempotency_key()
    with pytest.raises(SecretNotFoundError):
        secret_value("TOKEN_OF_TEST")


def test_secrets_are_found_by_name_and_masked_in_logs(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN_OF_TEST", "of the environment")

    def tell() -> str:
        value = secret_value("TOKEN_OF_TEST")
        logging.getLogger("test").warning("the token is %s", value)
        return value

    environment = activity_environment(secrets={"TOKEN_OF_TEST": "s3cret-value"})
    assert environment.run(tell) == "s3cret-value"
    assert caplog.messages == ["the token is ***"]


async def test_a_cancelled_environment_cancels_the_activity() -> None:
    begun = asyncio.Event()

    async def waits() -> str:
        begun.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return f"cancelled: {idempotency_key()}"
        return "done"

    environment = activity_environment(key="k")
    task = asyncio.ensure_future(environment.run(waits))
    await begun.wait()
    environment.cancel()
    assert await task == "cancelled: k"


def test_the_unit_test_of_the_reference_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = {block.name: block.text for block in EVERY if block.name in ("shop.py", "test_shop.py")}
    (tmp_path / "shop.py").write_text(shown["shop.py"])
    (tmp_path / "test_shop.py").write_text(shown["test_shop.py"])
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "shop", raising=False)
    tests = runpy.run_path(str(tmp_path / "test_shop.py"))
    tests["test_an_order_has_the_key_of_its_step"]()
    sys.modules.pop("shop")
