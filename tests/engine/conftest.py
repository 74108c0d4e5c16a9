"""A server that makes histories short: a run goes on by continue-as-new after few steps."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from temporalio import workflow

from pipeline_runner.server import devserver
from tests.conftest import Pipelines, connected


@pytest.fixture(scope="module")
def short_histories() -> Iterator[devserver.DevServer]:
    running = devserver.start(settings=("limit.historyCount.suggestContinueAsNew=60",))
    yield running
    running.stop()


@pytest_asyncio.fixture
async def small(short_histories: devserver.DevServer, tmp_path: Path) -> AsyncIterator[Pipelines]:
    yield Pipelines(await connected(short_histories.address), tmp_path)


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Suggest to go on in a new run as soon as a run has done anything."""
    asked: list[int] = []

    def suggested(self: workflow.Info) -> bool:
        asked.append(self.get_current_history_length())
        return asked[-1] > 5

    monkeypatch.setattr(workflow.Info, "is_continue_as_new_suggested", suggested)
    return asked
