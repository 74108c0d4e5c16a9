"""The examples do what they say, through the command; what fails leaves the files as they were."""

import json
from pathlib import Path

import pytest

from tests.cli.command import Done, run
from tests.pipelines.trees import files, tree

PIPELINES = Path(__file__).parents[2] / "pipelines"
EXAMPLES = [path for path in PIPELINES.glob("*.yaml") if path.name != "activities.yaml"]
PROVISION = str(PIPELINES / "provision-resource.yaml")
ROLLOUT = str(PIPELINES / "stage-rollout.yaml")
CLOSE = str(PIPELINES / "parent-close.yaml")


def undone(done: Done) -> list[str]:
    """Return the steps that the command says are undone, in its order."""
    return [
        line.removeprefix("  undone: ") for line in done.err.splitlines() if line.startswith("  undone: ")
    ]


def failure(done: Done) -> str:
    """Return the line that says why the run failed."""
    (line,) = (line for line in done.err.splitlines() if line.startswith("failed: "))
    return line


def test_every_example_is_clean_and_names_its_schema() -> None:
    """A reader's editor checks the examples as the command does: not even a warning."""
    done = run(PIPELINES.parent, "validate", "--strict", "pipelines")
    assert (done.code, done.err) == (0, f"{len(EXAMPLES)} files: 0 errors, 0 warnings\n")
    for path in EXAMPLES:
        first = path.read_text().partition("\n")[0]
        assert first == "# yaml-language-server: $schema=../schemas/pipeline.schema.json"


def test_provision_makes_the_resource(tmp_path: Path) -> None:
    done = run(tmp_path, PROVISION, "-i", "name=demo", "-i", "port=9000")
    assert done.code == 0, done.err
    place = tmp_path / "demo-resources/demo"
    assert done.json == {"path": str(place), "new": True, "status": "provisioned"}
    assert json.loads((place / "resource.json").read_text()) == {"name": "demo", "port": 9000}
    assert sum(name.startswith("demo-resources/demo/check-") for name in files(tmp_path)) == 1


@pytest.mark.parametrize("before", ["nothing", "a resource"])
@pytest.mark.parametrize(
    ("breaks", "inputs", "error", "order"),
    [
        (
            "create",
            ("name=x",),
            "create resource x: cannot create {at}/x: there is a file with that name",
            [],
        ),
        (
            "configure",
            ("name=y",),
            "configure resource y: {at}/y/resource.json is a directory, not a file [IsADirectory]",
            ["create"],
        ),
        (
            "validate",
            ("name=z", "port=80"),
            "validate resource z: exit code 1: port 80 is reserved: take one from 1024 [CommandFailed]",
            ["validate", "configure", "create"],
        ),
    ],
)
def test_provision_that_fails_leaves_no_trace(
    tmp_path: Path, before: str, breaks: str, inputs: tuple[str, ...], error: str, order: list[str]
) -> None:
    """At every stage, whether the resource is new or was there: the tree is the same, byte for byte."""
    root = tmp_path / "demo-resources"
    if before == "a resource":
        assert run(tmp_path, PROVISION, "-i", "name=z").code == 0
    if breaks == "create":
        root.mkdir(exist_ok=True)
        (root / "x").write_text("in the way")
    if breaks == "configure":
        (root / "y/resource.json").mkdir(parents=True)
    was = tree(tmp_path)
    done = run(tmp_path, PROVISION, *(word for pair in inputs for word in ("-i", pair)))
    assert (done.code, done.out) == (1, ""), done.err
    assert failure(done).startswith("failed: " + error.format(at=root))
    assert undone(done) == order
    assert tree(tmp_path) == was


def test_provision_refuses_wrong_inputs_all_at_once(tmp_path: Path) -> None:
    done = run(tmp_path, PROVISION, "-i", "name=Demo", "-i", "port=x", "-i", "size=3")
    assert (done.code, done.out, tree(tmp_path)) == (2, "", {})
    for line in (
        'name: must match the pattern "^[a-z][a-z0-9-]*$", not "Demo"',
        'port: must be an integer, not "x"',
        "size: there is no such input",
    ):
        assert line in done.err


@pytest.mark.parametrize(
    ("version", "stage", "rolled_back"),
    [
        ("2.0.0-dev", "canary", ["canary", "staging"]),
        ("2.0.0-rc.1", "production", ["production", "canary", "staging"]),
    ],
)
@pytest.mark.parametrize("before", ["nothing", "a version"])
def test_rollout_undoes_completed_children_by_their_own_logs(
    tmp_path: Path, version: str, stage: str, rolled_back: list[str], before: str
) -> None:
    """The error names every level; the stages before the one that failed are as they were."""
    if before == "a version":
        assert run(tmp_path, ROLLOUT, "-i", "version=1.0.0").code == 0
    was = tree(tmp_path)
    (tmp_path / "state").mkdir(exist_ok=True)
    done = run(tmp_path, ROLLOUT, "-i", f"version={version}", "--report", "state/report.json")
    assert (done.code, done.out) == (1, ""), done.err
    assert failure(done) == (
        f"failed: roll out {version} to {stage}: smoke test: exit code 1: {stage} does not take {version}"
        " [CommandFailed]"
    )
    steps = [f"{one}/{step}" for one in rolled_back for step in ("switch", "directory")]
    assert undone(done) == [*steps, "directory"]
    report = json.loads((tmp_path / "state/report.json").read_text())
    assert (report["status"], report["error"]["type"], report["error"]["step"]) == (
        "failed",
        "CommandFailed",
        stage,
    )
    assert [record["path"] for record in report["undo"]] == [*steps, "directory"]
    assert tree(tmp_path) == was


def test_rollout_fails_in_its_first_stage(tmp_path: Path) -> None:
    (tmp_path / "demo-rollout").mkdir()
    (tmp_path / "demo-rollout/staging").write_text("in the way")
    was = tree(tmp_path)
    done = run(tmp_path, ROLLOUT, "-i", "version=2.0.0")
    assert done.code == 1
    assert failure(done) == (
        f"failed: roll out 2.0.0 to staging: directory: cannot create {tmp_path}/demo-rollout/staging:"
        " there is a file with that name [FileExists]"
    )
    assert tree(tmp_path) == was


def test_rollout_reaches_every_stage(tmp_path: Path) -> None:
    done = run(tmp_path, ROLLOUT, "-i", "version=2.0.0")
    assert done.code == 0, done.err
    places = [tmp_path / "demo-rollout" / stage / "current" for stage in ("staging", "canary", "production")]
    assert done.json == {"version": "2.0.0", "files": [str(place) for place in places]}
    assert [place.read_text() for place in places] == ["2.0.0"] * 3


def test_parent_close_runs_to_its_end(tmp_path: Path) -> None:
    done = run(tmp_path, CLOSE)
    assert (done.code, done.json) == (0, str(tmp_path / "demo-parent-close")), done.err
    assert files(tmp_path) == [
        "demo-parent-close-notified.txt",
        "demo-parent-close/report",
        "demo-parent-close/reserved",
    ]


def test_parent_close_that_fails_leaves_the_abandoned_child_alone(tmp_path: Path) -> None:
    """``abandon``: neither the parent's error nor its undo reaches the notification."""
    (tmp_path / "demo-parent-close/report").mkdir(parents=True)
    was = tree(tmp_path)
    done = run(tmp_path, CLOSE)
    assert done.code == 1
    assert failure(done).endswith("/demo-parent-close/report is a directory, not a file [IsADirectory]")
    assert undone(done) == ["reserve/write", "directory"]
    left = {name: what for name, what in tree(tmp_path).items() if "notified" not in name}
    assert left == was
    assert (tmp_path / "demo-parent-close-notified.txt").is_file()
