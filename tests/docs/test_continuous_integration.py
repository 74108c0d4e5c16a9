"""The hook for pre-commit and the examples of docs/continuous-integration.md: they parse, and their commands work."""

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from pipeline_runner.cli.main import COMMANDS
from tests.cli.command import environment, run
from tests.cli.test_formats import sarif
from tests.cli.test_telling import BAD, GOOD
from tests.docs.pages import ROOT, blocks

__all__ = ["sarif"]

EXAMPLES = {
    block.name: yaml.safe_load(block.text)
    for block in blocks(ROOT / "docs/continuous-integration.md")
    if block.noted("file")
}
(HOOK,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
(CONFIGURED,) = EXAMPLES[".pre-commit-config.yaml"]["repos"][0]["hooks"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A repository with pipelines, and with YAML files that are none."""
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines/good.yaml").write_text(GOOD)
    (tmp_path / "pipelines/values.yaml").write_text("replicas: 3\n")
    (tmp_path / "compose.yaml").write_text("services: {}\n")
    return tmp_path


def commands(workflow: str) -> list[str]:
    """Return the lines of a workflow that run this project's command."""
    (job,) = EXAMPLES[f".github/workflows/{workflow}.yaml"]["jobs"].values()
    lines = [step["run"] for step in job["steps"] if "run" in step]
    return [line for line in lines if line.startswith("run-pipeline ")]


def shell(folder: Path, line: str) -> "subprocess.CompletedProcess[str]":
    """Run a line as a workflow does."""
    program = shlex.join([sys.executable, "-m", "pipeline_runner"])
    return subprocess.run(
        ["bash", "-e", "-c", re.sub(r"^run-pipeline\b", lambda _: program, line)],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_hook_runs_a_command_that_exists() -> None:
    program, command, *_ = HOOK["entry"].split()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert program in project["scripts"]
    assert command in COMMANDS
    assert (HOOK["language"], HOOK["types"]) == ("python", ["yaml"])
    assert {"id", "name", "entry", "language"} <= set(HOOK)


def hooked(folder: Path, *names: str) -> int:
    """Run the hook as pre-commit does, and return its exit code."""
    hook: dict[str, Any] = HOOK | CONFIGURED
    return run(folder, *shlex.split(hook["entry"])[1:], *hook["args"], *names).code


def test_the_hook_as_configured_checks_the_folder(folder: Path) -> None:
    assert CONFIGURED["id"] == HOOK["id"]
    assert CONFIGURED["pass_filenames"] is False
    assert re.search(CONFIGURED["files"], "pipelines/good.yaml")
    assert not re.search(CONFIGURED["files"], "compose.yaml")
    assert hooked(folder) == 0
    (folder / "pipelines/bad.yaml").write_text(BAD)
    assert hooked(folder) == 1


def test_a_file_that_is_named_is_checked_whatever_it_is(folder: Path) -> None:
    words = shlex.split(HOOK["entry"])[1:]
    assert run(folder, *words, "pipelines/good.yaml").code == 0
    assert run(folder, *words, "pipelines/good.yaml", "compose.yaml").code == 1


def test_the_job_that_annotates_works(folder: Path) -> None:
    (line,) = commands("pipelines")
    done = shell(folder, line)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    (folder / "pipelines/bad.yaml").write_text(BAD)
    done = shell(folder, line)
    assert done.returncode == 1
    assert done.stdout.startswith("::error file=pipelines/bad.yaml,line=4,")


def test_the_job_that_uploads_works(folder: Path, sarif: jsonschema.Draft4Validator) -> None:
    (line,) = commands("code-scanning")
    (job,) = EXAMPLES[".github/workflows/code-scanning.yaml"]["jobs"].values()
    file = folder / job["steps"][-1]["with"]["sarif_file"]
    for expected in (0, 1):
        done = shell(folder, line)
        assert (done.returncode, done.stdout, done.stderr) == (expected, "", "")
        sarif.validate(yaml.safe_load(file.read_text(encoding="utf-8")))
        (folder / "pipelines/bad.yaml").write_text(BAD)
