"""Modules of one directory are never seen by another, and none is imported where none may be."""

import errno
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline_runner.activities.catalogue import providers
from pipeline_runner.cli.main import CommandError
from pipeline_runner.cli.session import activities_of, from_memo, noted
from pipeline_runner.language import workspace
from pipeline_runner.language.workspace import Checked, UsageError, check_paths, load

MODULE = """
from temporalio import activity
import helper
from parts import part

@activity.defn(name="shop.who_{name}")
def who() -> str:
    import late
    return helper.NAME + part.NAME + late.NAME

@activity.defn(name="shop.only_{name}")
def only(amount: "int") -> str:
    return "{name}"
"""


def shop(directory: Path, name: str, text: str = MODULE) -> Path:
    """Write a directory with a module ``shop``, and helpers of it."""
    (directory / "parts").mkdir(parents=True)
    (directory / "activities.yaml").write_text("modules: [shop]\n")
    (directory / "shop.py").write_text(text.format(name=name))
    for file in ("helper", "late", "parts/part"):
        (directory / f"{file}.py").write_text(f"NAME = {name!r}\n")
    (directory / "parts" / "__init__.py").write_text("from . import part as again\nimport helper\n")
    path = directory / "only.yaml"
    path.write_text(
        f"name: only-{name}\nsteps: [{{id: x, activity: shop.only_{name}, args: [1], compensate: none}}]\n"
    )
    return path


def told(checked: Checked) -> list[str]:
    return [f"{os.path.basename(d.path)}: {d.message}" for d in checked.diagnostics]


def test_each_directory_has_modules_of_its_own(tmp_path: Path) -> None:
    before = list(sys.path)
    one, two = shop(tmp_path / "a", "a"), shop(tmp_path / "b", "b")
    assert told(check_paths([one, two])) == told(check_paths([two])) == []
    modules = [*load(one).modules, *load(two).modules]
    assert modules == [("shop", tmp_path / "a"), ("shop", tmp_path / "b")]
    served = {
        providers.name_of(activity): activity
        for activity in activities_of(from_memo({"modules": noted(modules)}))
    }
    assert [served["shop.who_a"](), served["shop.who_b"]()] == ["aaa", "bbb"]
    assert [served["shop.only_a"](1), served["shop.only_b"](1)] == ["a", "b"]
    assert sys.path == before
    assert not {"shop", "helper", "late", "parts"} & set(sys.modules)


def test_what_a_command_of_an_older_version_noted_is_understood(tmp_path: Path) -> None:
    assert from_memo({"modules": ["shop"], "folders": [str(tmp_path)]}) == [("shop", tmp_path)]
    assert from_memo({"modules": ["shop"], "folders": []}) == [("shop", None)]


def test_two_directories_with_an_activity_of_one_name_are_refused(tmp_path: Path) -> None:
    text = MODULE.replace("shop.who_{name}", "shop.who")
    for name in ("a", "b"):
        shop(tmp_path / name, name, text)
    with pytest.raises(CommandError) as caught:
        activities_of(
            [providers.Provider("shop", tmp_path / "a"), providers.Provider("shop", tmp_path / "b")]
        )
    assert str(caught.value) == (
        f"the modules of both {tmp_path}/a/activities.yaml and {tmp_path}/b/activities.yaml have an activity"
        ' "shop.who", and one worker can serve only one: give them different names, or run a worker for each'
    )


def test_checker_tells_activities_of_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of children of one parent too (same-activity); a comment silences it."""
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        shop(tmp_path / name, name, MODULE.replace("shop.who_{name}", "shop.who"))
    steps = "{id: x, pipeline: a/only.yaml}, {id: y, pipeline: b/only.yaml}"
    Path("parent.yaml").write_text(f"name: parent\nsteps: [{steps}]\n")
    for paths in (["parent.yaml"], ["."], ["a", "b"]):
        (found,) = check_paths(paths).diagnostics
        assert (found.rule, found.severity, found.path, found.line, found.column) == (
            "same-activity", "warning", "b/activities.yaml", 1, 11,
        )  # fmt: skip
        assert found.message == (
            'the modules of both a/activities.yaml and b/activities.yaml have "shop.who":'
            " no worker can serve more than one of them"
        )
    assert check_paths(["a"]).diagnostics == check_paths(["b"]).diagnostics == ()
    assert check_paths(["parent.yaml"], imports=False).diagnostics == ()
    Path("b/activities.yaml").write_text("modules: [shop] # pipeline: ignore[same-activity]\n")
    assert check_paths(["parent.yaml"]).diagnostics == ()


def test_a_module_found_elsewhere_belongs_to_no_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two directories may name the same installed one."""
    (tmp_path / "installed").mkdir()
    (tmp_path / "installed" / "everybodys_shop.py").write_text(
        "from temporalio import activity\n@activity.defn(name='shop.all')\ndef every() -> str: ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path / "installed")
    found: list[Any] = []
    for name in ("a", "b"):
        path = shop(tmp_path / name, name)
        (tmp_path / name / "activities.yaml").write_text("modules: [shop, everybodys_shop]\n")
        found += load(path).modules
    assert found.count(("everybodys_shop", None)) == 2
    assert "shop.all" in map(providers.name_of, activities_of(found))
    monkeypatch.delitem(sys.modules, "everybodys_shop")


def test_nothing_is_imported_unless_it_may_be(tmp_path: Path) -> None:
    """The activities are untyped then, or what the lock file says."""
    path = shop(tmp_path, "a", "raise SystemExit('this ran')\n")
    (tmp_path / "activities.yaml").write_text("modules: [shop, more.parts]\nactivities: {own.one: {}}\n")
    path.write_text(
        "name: a\nsteps:\n  - {id: x, activity: shop.only, with: {amount: no}, compensate: none}\n"
        "  - {id: y, activity: own.one, compensate: none}\n"
    )
    before = {name for name in sys.modules if "shop" in name}
    checked = check_paths([path], imports=False)
    assert (told(checked), checked.unread) == ([], ("shop", "more.parts"))
    schema = '{"type": "object", "properties": {"amount": {"type": "integer"}}}'
    (tmp_path / "activities.lock.json").write_text(f'[{{"name": "shop.only", "input": {schema}}}]')
    checked = check_paths([path], imports=False)
    assert told(checked) == ['only.yaml: "amount" must be an integer, not "no"']
    assert checked.unread == ()
    assert {name for name in sys.modules if "shop" in name} == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "Input data was truncated"),
        ("[{}]", "Object missing required field `name` - at `$[0]`"),
        (
            '[{"name": "a", "input": {"type": "strange"}}]',
            'a schema of "a" is not a valid JSON Schema: cannot be "strange"',
        ),
        (" " * 100, "it has more than 50 bytes"),
    ],
)
def test_a_lock_file_that_cannot_be_used_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    monkeypatch.setattr("pipeline_runner.language.catalogue_file.MAX_LOCK", 50)
    path = shop(tmp_path, "a")
    (tmp_path / "activities.lock.json").write_text(text)
    (found,) = check_paths([path], imports=False).diagnostics
    assert (os.path.basename(found.path), found.rule) == ("activities.lock.json", "unreadable-file")
    assert found.message.startswith(f"the file cannot be used: {message}")
    assert found.help == "write it again: run-pipeline activities --json > activities.lock.json"


PIPELINE = "name: p\nsteps: [{id: a, set: {v: 1}}]\n"
BAD = "name: q\nsteps: [{id: a, set: {v: 1}, no: 1}]\n"


@pytest.fixture
def closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a directory and a file that cannot be read, whoever runs the tests."""
    for path in ("closed/p.yaml", "open/closed/p.yaml", "open/shut.yaml", "open/bad.yaml"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(BAD if path.endswith("bad.yaml") else PIPELINE)
    scan, opened = os.scandir, Path.open

    def scandir(path: str) -> Any:
        if os.path.basename(path) == "closed":
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scan(path)

    def opens(path: Path, *args: Any, **options: Any) -> Any:
        if path.name == "shut.yaml":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(path, *args, **options)

    monkeypatch.setattr(os, "scandir", scandir)
    monkeypatch.setattr(Path, "open", opens)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("closed")
def test_what_cannot_be_read_is_told_and_the_rest_is_checked() -> None:
    checked = check_paths(["closed", "open/shut.yaml", "nowhere.yaml", "open"])
    assert checked.unreadable == (
        "closed cannot be read: Permission denied",
        "open/shut.yaml cannot be read: Permission denied",
        "there is no file nowhere.yaml",
        "open/closed cannot be read: Permission denied",
    )
    assert checked.files == ("open/bad.yaml",)
    assert told(checked) == ['bad.yaml: unknown key "no" in a step']
    with pytest.raises(UsageError, match=r"^open/shut\.yaml cannot be read: Permission denied$"):
        load("open/shut.yaml")


def test_hidden_files_are_somebody_elses(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(PIPELINE)
    (tmp_path / ".#p.yaml").symlink_to("nobody@host.1:1")
    (tmp_path / "._p.yaml").write_bytes(b"\0\5\x16\7")
    checked = check_paths([tmp_path])
    assert (checked.unreadable, told(checked), len(checked.files)) == ((), [], 1)
    (tmp_path / "gone.yaml").symlink_to("nowhere")
    assert check_paths([tmp_path]).unreadable == (
        f"{tmp_path}/gone.yaml cannot be read: No such file or directory",
    )
    assert workspace.check_paths([tmp_path / "._p.yaml"]).diagnostics, "one that is named is checked"
