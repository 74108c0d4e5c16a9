"""An activity whose optional part is not installed: told by the checker, before a run, and in a run."""

import sys
from pathlib import Path

import pytest
from temporalio.exceptions import ApplicationError

from pipeline_runner.activities.catalogue.extras import EXTRAS
from pipeline_runner.activities.catalogue.providers import activities_of, name_of
from pipeline_runner.language.workspace import load
from tests.cli.command import run

STEPS = {
    "containers": "{id: a, activity: container.stop, with: {container: web}, compensate: none}",
    "dns": "{id: a, activity: dns.lookup, with: {name: example.test, type: A}}",
    "sql": '{id: a, activity: sql.execute, with: {connection: DB, statement: "SELECT 1"}, compensate: none}',
}
CALLS = {
    "containers": ("pipeline_runner.activities.docker.container", "container.stop", {"container": "web"}),
    "dns": ("pipeline_runner.activities.dns.records", "dns.lookup", {"name": "example.test", "type": "A"}),
    "sql": (
        "pipeline_runner.activities.sql.statements",
        "sql.execute",
        {"connection": "DB", "statement": "SELECT 1"},
    ),
}


def message(extra: str) -> str:
    """What is said everywhere."""
    return f'"{CALLS[extra][1]}" needs the Python package "{EXTRAS[extra]}"'


@pytest.fixture(params=sorted(EXTRAS))
def extra(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    name: str = request.param
    (tmp_path / "a.yaml").write_text(f"name: a\nsteps:\n  - {STEPS[name]}\n")
    return name


def test_the_checker_warns(extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A warning: the worker may be another machine, which has it."""
    assert load(tmp_path / "a.yaml").diagnostics == ()
    monkeypatch.setitem(sys.modules, EXTRAS[extra], None)
    (found,) = load(tmp_path / "a.yaml").diagnostics
    assert (found.rule, found.severity, found.message) == ("missing-extra", "warning", message(extra))
    assert found.help == f'on the worker: pip install "pipeline-runner[{extra}]"'
    assert found.line == 3


def test_a_run_that_this_process_would_serve_is_not_started(extra: str, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.modules[{EXTRAS[extra]!r}] = None\n")
    root = str(Path(__file__).parents[2])
    done = run(tmp_path, "run", "a.yaml", PYTHONPATH=f"{tmp_path}:{root}")
    assert (done.code, done.out) == (2, "")
    last = f'{message(extra)}: pip install "pipeline-runner[{extra}]". Nothing was started'
    assert done.err.splitlines()[-1].endswith(last)
    assert "run: " not in done.err
    checked = run(tmp_path, "validate", "a.yaml", PYTHONPATH=f"{tmp_path}:{root}")
    assert checked.code == 0
    assert f"warning: {message(extra)} [missing-extra]" in checked.err + checked.out


async def test_an_activity_says_what_to_install(extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a worker that was started without it."""
    from temporalio.testing import ActivityEnvironment

    module, name, given = CALLS[extra]
    monkeypatch.setitem(sys.modules, EXTRAS[extra], None)
    (function,) = (one for one in activities_of(module) if name_of(one) == name)
    with pytest.raises(ApplicationError) as caught:
        await ActivityEnvironment().run(function, given)
    assert (caught.value.type, caught.value.non_retryable) == ("MissingExtra", True)
    assert caught.value.message.endswith(f'pip install "pipeline-runner[{extra}]"')
