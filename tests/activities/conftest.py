"""What the tests of the activities share: a step's context, and ways to run them."""

import asyncio
import dataclasses
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio.testing import ActivityEnvironment

from pipeline_runner.activities.files import stores
from pipeline_runner.activities.toolkit.context import set_idempotency_key

KEY = "0123456789abcdef0123456789abcdef"


def _environment(limit: float = 60.0) -> ActivityEnvironment:
    env = ActivityEnvironment()
    env.info = dataclasses.replace(
        env.info, start_to_close_timeout=timedelta(seconds=limit), schedule_to_close_timeout=None
    )
    return env


@pytest.fixture
def environment() -> Callable[..., ActivityEnvironment]:
    """Make environments whose attempts end after a number of seconds, 60 if not given."""
    return _environment


@pytest.fixture
def run() -> Callable[..., Any]:
    """Run an activity with its input as the plain mapping that a step renders."""

    def call(activity: Any, limit: float = 60.0, /, **parameters: Any) -> Any:
        result = _environment(limit).run(activity, parameters)
        return asyncio.run(result) if asyncio.iscoroutine(result) else result

    return call


@pytest.fixture
def state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state directory of the test's own, on the file system of its other directories."""
    made = tmp_path_factory.mktemp("state")
    monkeypatch.setenv("RUN_PIPELINE_STATE", str(made))
    return made


@pytest.fixture
def far_state(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A state directory on another file system, and no store on the file system of the test."""
    made = Path("/dev/shm", f"pipeline-runner-{uuid.uuid4().hex}")
    if not os.path.isdir("/dev/shm"):
        pytest.skip("needs a second file system at /dev/shm")
    monkeypatch.setenv("RUN_PIPELINE_STATE", str(made))
    monkeypatch.setattr(stores, "_at_root", lambda _: None)
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def key() -> Iterator[str]:
    """Make the test the step of a pipeline, with this idempotency key."""
    set_idempotency_key(KEY)
    yield KEY
    set_idempotency_key(None)
