"""What users write against the public names, the pages included, is clean under ``mypy --strict``, and mistakes are not."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs import test_service_pages

SAMPLE = Path(__file__).parent / "sample/embedding.py"
WRONG = """\
from pipeline_runner import Run, load, lod
from pipeline_runner.activity import progress

load("a.yaml", activities=[3])
progress("half")


async def wait(run: Run) -> str:
    return await run.result(int)
"""


def mypy(project: Path, cache: Path, *files: str) -> subprocess.CompletedProcess[str]:
    """Check files as a user's project of its own would, with the package as it is installed."""
    return subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={cache}", *files],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mypy")


def test_a_users_project_is_clean(tmp_path: Path, cache: Path) -> None:
    shutil.copy(SAMPLE, tmp_path)
    test_service_pages.write(tmp_path)
    files = sorted(file.name for file in tmp_path.glob("*.py"))
    assert {SAMPLE.name, "service.py", "warehouse.py"} < set(files)
    result = mypy(tmp_path, cache, *files)
    assert result.returncode == 0, result


def test_a_users_mistakes_are_found(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "wrong.py").write_text(WRONG)
    result = mypy(tmp_path, cache, "wrong.py")
    lines = [
        line.partition(":")[2].partition(":")[0] for line in result.stdout.splitlines() if ": error:" in line
    ]
    assert lines == ["1", "4", "5", "9"], result.stdout
