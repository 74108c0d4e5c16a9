"""What users write against the public names is clean under ``mypy --strict``, and mistakes are not."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SAMPLE = Path(__file__).parent / "sample/embedding.py"
WRONG = """\
from pipeline_runner import Run, load, lod
from pipeline_runner.activity import progress

load("a.yaml", activities=[3])
progress("half")


async def wait(run: Run) -> str:
    return await run.result(int)
"""


def mypy(file: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    """Check a file as a user's project of its own would, with the package as it is installed."""
    return subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={cache}", file.name],
        cwd=file.parent,
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
    result = mypy(tmp_path / SAMPLE.name, cache)
    assert (result.stdout, result.returncode) == ("Success: no issues found in 1 source file\n", 0), result


def test_a_users_mistakes_are_found(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "wrong.py").write_text(WRONG)
    result = mypy(tmp_path / "wrong.py", cache)
    lines = [
        line.partition(":")[2].partition(":")[0] for line in result.stdout.splitlines() if ": error:" in line
    ]
    assert lines == ["1", "4", "5", "9"], result.stdout
