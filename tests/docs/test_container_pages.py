"""The pages on containers: their sessions on a real Engine, their test on a real Temporal server."""

import runpy
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline_runner.server.devserver import DevServer
from pipeline_runner.testing import Server
from tests.docs.pages import ROOT, blocks
from tests.docs.test_example_sessions import Reader
from tests.services import Engine

EXAMPLES = ROOT / "docs/examples"


@pytest.fixture
def reader(engine: Engine, tmp_path: Path) -> Iterator[Reader]:
    """A reader who has followed the page's preparations, and cleans up."""
    before = engine.left()
    prepare = next(b for b in blocks(EXAMPLES / "container-lifecycle.md") if b.language == "sh")
    reader = Reader(tmp_path, {"DOCKER_HOST": engine.host})
    environment = {"DOCKER_HOST": engine.host, "PATH": "/usr/local/bin:/usr/bin:/bin"}
    subprocess.run(
        ["sh", "-ec", prepare.text], cwd=tmp_path, env=environment, check=True, capture_output=True
    )
    yield reader
    engine.docker("rm", "--force", "web")
    engine.docker("rmi", "--force", *(set(engine.left()["images"]) - set(before["images"])))
    assert engine.left() == before


@pytest.mark.parametrize("page", ["container-lifecycle.md", "stop-and-snapshot.md"])
def test_sessions(reader: Reader, page: str) -> None:
    reader.follow(page)


async def test_the_test_that_is_shown(
    server: DevServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (block,) = (b for b in blocks(EXAMPLES / "stop-and-snapshot.md") if b.language == "python")
    queue = f"test-{uuid.uuid4().hex}"
    (tmp_path / block.name).write_text(block.text.replace('="test"', f'="{queue}"'))
    monkeypatch.chdir(ROOT)
    shown = runpy.run_path(str(tmp_path / block.name))
    await shown["test_the_container_runs_again"](Server(server.address, time_skipping=False))
