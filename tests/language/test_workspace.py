"""Files, folders, children, catalogues: what is found where, and each mistake once."""

import errno
import os
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from pipeline_runner.core.model import ActivityCall, ChildCall
from pipeline_runner.language import rules
from pipeline_runner.language.checks import names
from pipeline_runner.language.workspace import MAX_CHAIN, UsageError, check_paths, load

PIPELINE = "version: 1\nname: {name}\nsteps: [{step}]\n"


def write(folder: Path, **files: str) -> None:
    """Write files; ``__`` in a name is a folder's slash."""
    for name, text in files.items():
        path = folder / (name.replace("__", "/") + ".yaml")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def pipeline(step: str = "{id: a, set: {}}", name: str = "p") -> str:
    """Return a pipeline with one step."""
    return PIPELINE.replace("{name}", name).replace("{step}", step)


def test_keys_are_relative_to_the_root_files_folder(tmp_path: Path) -> None:
    """With slashes, and upwards where need be; the folder it is started from does not matter."""
    write(
        tmp_path,
        a__root=pipeline("{id: a, pipeline: ../b/child.yaml}"),
        b__child=pipeline("{id: a, pipeline: ./deep/leaf.yaml}", "child"),
        b__deep__leaf=pipeline(name="leaf"),
    )
    bundle = load(tmp_path / "a" / "root.yaml").bundle
    assert bundle is not None
    assert bundle.root == "root.yaml"
    assert set(bundle.pipelines) == {"root.yaml", "../b/child.yaml", "../b/deep/leaf.yaml"}
    inner = bundle.pipelines["../b/child.yaml"].steps[0].action
    assert isinstance(inner, ChildCall)
    assert inner.pipeline == "../b/deep/leaf.yaml"


def test_child_named_twice_is_checked_once(tmp_path: Path) -> None:
    """Its mistakes are told once, and it is one pipeline of the bundle."""
    two = "{id: a, pipeline: c.yaml}, {id: b, pipeline: ./x/../c.yaml}"
    write(tmp_path, p=pipeline(two), c=pipeline("{id: a, wait: 5}"))
    assert [d.rule for d in load(tmp_path / "p.yaml").diagnostics] == ["bad-duration"]


@pytest.mark.parametrize(
    ("first", "later", "rules"),
    [
        ("with: &w {pth: x, path: y}", "with: *w", ["unknown-parameter"]),
        ("with: &w {path: '{{ inputs.x }}'}", "with: *w", ["unknown-input"]),
        ("with: &w {path: '{{ steps.none.output }}'}", "with: *w", ["unknown-step"]),
        ("with: &w {path: '{{ steps.last.output }}'}", "with: *w", ["step-order"]),
        ("with: &w {path: '{{ steps. }}'}", "with: *w", ["expression-syntax"]),
        ("with: &w {path: y}\n    retry: &r {maximum_attemps: 3}", "with: *w, retry: *r", ["unknown-key"]),
        ("with: &w {path: y}\n    timeouts: &t {heartbeat: 5}", "with: *w, timeouts: *t", ["bad-duration"]),
    ],
)
def test_an_anchor_used_ten_times_is_one_mistake(
    tmp_path: Path, first: str, later: str, rules: list[str]
) -> None:
    """Also where the help differs from use to use, such as the steps that are visible there."""
    uses = "".join(f"  - {{id: s{number}, activity: file.read, {later}}}\n" for number in range(9))
    text = f"name: p\nsteps:\n  - id: one\n    activity: file.read\n    {first}\n{uses}  - {{id: last, set: {{}}}}\n"
    (tmp_path / "p.yaml").write_text(text)
    assert [d.rule for d in check_paths([tmp_path / "p.yaml"]).diagnostics] == rules


def test_pipelines_of_one_name_may_be_in_one_bundle(tmp_path: Path) -> None:
    """Keys tell them apart."""
    write(tmp_path, p=pipeline("{id: a, pipeline: c.yaml}"), c=pipeline())
    bundle = load(tmp_path / "p.yaml").bundle
    assert bundle is not None
    assert len(bundle.pipelines) == 2


def test_chain_of_children_is_bounded(tmp_path: Path) -> None:
    """A generated chain is an error, not a crash."""
    for n in range(MAX_CHAIN + 5):
        write(tmp_path, **{f"p{n}": pipeline(f"{{id: a, pipeline: p{n + 1}.yaml}}")})
    write(tmp_path, **{f"p{MAX_CHAIN + 5}": pipeline()})
    assert [d.rule for d in load(tmp_path / "p0.yaml").diagnostics] == ["too-deep"]


@pytest.mark.parametrize("name", ["p{:02}", "p{:02x}", "q{0}"])
@pytest.mark.parametrize("backwards", [False, True])
def test_what_is_too_deep_depends_on_the_files_only(tmp_path: Path, name: str, *, backwards: bool) -> None:
    """Not on which of them is checked first; it is told where the chain becomes too long."""
    names = [name.format(99 - n if backwards else n) for n in range(40)]
    for own, child in pairwise(names):
        write(tmp_path, **{own: pipeline(f"{{id: a, pipeline: {child}.yaml}}", own)})
    write(tmp_path, **{names[-1]: pipeline(name="last")})
    expected = [(str(tmp_path / f"{names[39 - MAX_CHAIN]}.yaml"), "too-deep")]
    for paths in ([tmp_path], sorted(tmp_path.iterdir()), sorted(tmp_path.iterdir(), reverse=True)):
        assert [(d.path, d.rule) for d in check_paths(paths).diagnostics] == expected
    assert load(tmp_path / f"{names[40 - MAX_CHAIN]}.yaml").diagnostics == ()


def test_chain_beside_a_cycle(tmp_path: Path) -> None:
    """A cycle has no depth, and hides no chain that is too deep."""
    for n in range(MAX_CHAIN):
        write(
            tmp_path,
            **{
                f"p{n}": pipeline(
                    f"{{id: a, pipeline: p{n + 1}.yaml}}" if n < MAX_CHAIN - 1 else "{id: a, set: {}}",
                    f"p{n}",
                )
            },
        )
    calls = "{id: a, pipeline: b.yaml}, {id: c, pipeline: p0.yaml}"
    write(
        tmp_path,
        a=pipeline(calls),
        b=pipeline("{id: a, pipeline: a.yaml}", "b"),
        z=pipeline("{id: a, pipeline: a.yaml}", "z"),
    )
    for paths in ([tmp_path], [tmp_path / "z.yaml"], [tmp_path / "p0.yaml", tmp_path / "b.yaml"]):
        assert sorted(d.rule for d in check_paths(paths).diagnostics) == ["child-cycle", "too-deep"]


@pytest.mark.parametrize(
    ("last", "rule"), [("{id: a, set: {}}", "too-deep"), ("{id: a, pipeline: p0.yaml}", "child-cycle")]
)
def test_chain_longer_than_the_stack(tmp_path: Path, last: str, rule: str) -> None:
    for n in range(1200):
        text = pipeline(f"{{id: a, pipeline: p{n + 1}.yaml}}")
        (tmp_path / f"p{n}.yaml").write_text(text, encoding="utf-8")
    write(tmp_path, p1200=pipeline(last))
    (found,) = load(tmp_path / "p0.yaml").diagnostics
    assert found.rule == rule
    assert len(found.message) < 200


@pytest.mark.parametrize(
    ("child", "reason"),
    [("x" * 300, "File name too long"), ("pipe", "not a regular file"), ('"a\\0b"', "embedded null byte")],
)
def test_unreadable_child_is_told_at_its_step(tmp_path: Path, child: str, reason: str) -> None:
    """With the system's reason."""
    os.mkfifo(tmp_path / "pipe")
    write(tmp_path, p=pipeline(f"{{id: a, pipeline: {child}}}"))
    (found,) = load(tmp_path / "p.yaml").diagnostics
    assert found.rule == "unknown-child"
    assert found.message.endswith(f" cannot be read: {reason}")


def test_wrong_path_is_a_usage_error(tmp_path: Path) -> None:
    """There is no file to point into."""
    with pytest.raises(UsageError, match=r"there is no file .*nope.yaml"):
        load(tmp_path / "nope.yaml")
    with pytest.raises(UsageError, match="is a directory, not a pipeline file"):
        load(tmp_path)
    assert check_paths([tmp_path / "nope"]).unreadable == (f"there is no file {tmp_path}/nope",)


def test_folder_is_searched_for_pipelines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """YAML files with steps, and files that are no YAML; neither tests, catalogues, hidden folders nor packages of npm."""
    write(
        tmp_path,
        good=pipeline(),
        sub__bad=pipeline("{id: a}", name="bad"),
        sub__broken="steps: [",
        other="a: 1\n",
        activities="activities: {x: {}}\n",
        _hidden=pipeline("{id: a}"),
        node_modules__package="steps: [",
    )
    (tmp_path / "good.test.yaml").write_text("steps: 3\n")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "_hidden.yaml").rename(tmp_path / ".hidden" / "h.yaml")
    (tmp_path / "sub" / "short.yml").write_text(pipeline(name="short"))
    monkeypatch.chdir(tmp_path)
    checked = check_paths(["."])
    assert checked.files == ("good.yaml", "sub/bad.yaml", "sub/broken.yaml", "sub/short.yml")
    assert [(d.path, d.rule) for d in checked.diagnostics] == [
        ("sub/bad.yaml", "step-kind"),
        ("sub/broken.yaml", "yaml-syntax"),
    ]


def test_cycle_in_a_folder_is_told_once(tmp_path: Path) -> None:
    """However many files of it are checked."""
    write(tmp_path, a=pipeline("{id: a, pipeline: b.yaml}"), b=pipeline("{id: a, pipeline: a.yaml}", "b"))
    assert [d.rule for d in check_paths([tmp_path]).diagnostics] == ["child-cycle"]


def test_nearest_activities_file_counts(tmp_path: Path) -> None:
    """The one in the folder hides the one above, for each file by itself."""
    write(
        tmp_path,
        activities="activities: {top: {}}\n",
        p=pipeline("{id: a, activity: top}, {id: b, pipeline: sub/c.yaml}"),
        sub__activities="activities: {low: {}}\n",
        sub__c=pipeline("{id: a, activity: low}"),
        sub__d=pipeline("{id: a, activity: top}"),
    )
    assert load(tmp_path / "p.yaml").diagnostics == ()
    assert [d.rule for d in load(tmp_path / "sub" / "d.yaml").diagnostics] == ["unknown-activity"]


def test_built_in_activities_need_no_catalogue_file(tmp_path: Path) -> None:
    """And bring their parameters' names."""
    write(tmp_path, p=pipeline("{id: a, activity: shell.run, with: {comand: [ls]}}"))
    assert [d.rule for d in load(tmp_path / "p.yaml").diagnostics] == ["unknown-parameter"]


def test_activities_file_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it may declare is not told as unknown."""
    write(tmp_path, activities="activities: {top: {}}\n", p=pipeline("{id: a, activity: top}"))
    opened = Path.open

    def refused(path: Path, *args: Any, **options: Any) -> Any:
        if path.name == "activities.yaml":
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(path, *args, **options)

    monkeypatch.setattr(Path, "open", refused)
    monkeypatch.chdir(tmp_path)
    (found,) = load("p.yaml").diagnostics
    assert (found.path, found.line, found.column) == ("activities.yaml", 1, 1)
    assert (found.rule, found.message) == ("unreadable-file", "the file cannot be read: Permission denied")


MODULE = '''
from temporalio import activity

@activity.defn(name="shop.pay")
async def pay(amount: int) -> str:
    """Pay."""
    return "paid"
'''


def test_modules_are_found_beside_the_catalogue_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the file declares goes over it field by field; the command's modules are known too."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "shop_activities_1.py").write_text(MODULE)
    (tmp_path / "shop_activities_2.py").write_text(MODULE.replace("shop.pay", "shop.refund"))
    write(
        tmp_path,
        activities="modules: [shop_activities_1]\n"
        "activities: {shop.pay: {timeouts: {heartbeat: 3s}, effect_free: true}}\n",
        sub__p=pipeline(
            "{id: a, activity: shop.pay, args: [1], compensate: {activity: shop.refund, args: [1]}}"
        ),
    )
    loaded = load(tmp_path / "sub" / "p.yaml", modules=["shop_activities_2"])
    assert loaded.diagnostics == ()
    assert loaded.modules == (("shop_activities_1", tmp_path), ("shop_activities_2", tmp_path))
    entry = loaded.catalogue["shop.pay"]
    assert (entry.description, entry.effect_free, entry.timeouts.heartbeat) == ("Pay.", True, 3.0)
    assert loaded.bundle is not None
    call = loaded.bundle.pipelines["p.yaml"].steps[0].action
    assert isinstance(call, ActivityCall)
    assert call.timeouts.heartbeat == 3.0


def test_module_that_cannot_be_imported_is_told_where_it_is_named(tmp_path: Path) -> None:
    """In the file at its line, on the command line as a usage error."""
    write(tmp_path, activities="modules:\n  - no_such_module_xyz\n", p=pipeline())
    (found,) = load(tmp_path / "p.yaml").diagnostics
    assert (found.rule, found.line, found.column) == ("bad-module", 2, 5)
    assert found.message == (
        f'there is no Python module "no_such_module_xyz" (looked for in {tmp_path} and where Python looks for modules)'
    )
    (tmp_path / "activities.yaml").unlink()
    with pytest.raises(UsageError, match="no_such_module_abc"):
        load(tmp_path / "p.yaml", modules=["no_such_module_abc"])


@pytest.mark.parametrize(
    ("module", "help_"),
    [
        ("shop.py", "write shop"),
        ("./shop", "write shop"),
        ("../shop/pay.py", "write shop.pay"),
        (".shop", 'write it as in "import": shop.activities'),
        ("my shop", 'write it as in "import": shop.activities'),
    ],
)
def test_module_is_named_as_import_names_it(tmp_path: Path, module: str, help_: str) -> None:
    """Nothing is imported by a path."""
    write(tmp_path, activities=f"modules: [{module}]\n", p=pipeline())
    (found,) = load(tmp_path / "p.yaml").diagnostics
    assert (found.rule, found.help) == ("bad-module", help_)
    assert found.message == f'"{module}" is not the name of a Python module'


@pytest.mark.parametrize(
    ("module", "rule"), [("3", "wrong-type"), ('""', "empty-text"), ("null", "wrong-type")]
)
def test_module_that_is_no_name_is_told_once(tmp_path: Path, module: str, rule: str) -> None:
    """By the table of the language alone."""
    write(tmp_path, activities=f"modules: [{module}]\n", p=pipeline())
    assert [found.rule for found in load(tmp_path / "p.yaml").diagnostics] == [rule]


@pytest.mark.parametrize("activities", ["modules: [no_such_module_xyz]\n", "activities: [\n", "- a\n"])
def test_activities_are_not_missed_while_their_file_is_broken(tmp_path: Path, activities: str) -> None:
    """One mistake is one message: the steps may be right."""
    write(tmp_path, activities=activities, p=pipeline("{id: a, activity: shop.pay}"))
    loaded = load(tmp_path / "p.yaml")
    assert len(loaded.diagnostics) == 1
    assert loaded.diagnostics[0].path.endswith("activities.yaml")


def test_warnings_do_not_keep_a_bundle_back(tmp_path: Path) -> None:
    """They are shown, and the run starts."""
    write(tmp_path, p=pipeline("{id: a, activity: elsewhere, task_queue: q}"))
    loaded = load(tmp_path / "p.yaml")
    assert [d.severity for d in loaded.diagnostics] == ["warning"]
    assert loaded.bundle is not None


def test_checking_is_offline_and_fast(tmp_path: Path) -> None:
    """A large file takes less than half a second as a process, and imports neither Temporal nor HTTP."""
    step = (
        "  - id: s{n}\n    name: step {{{{ inputs.name }}}} {n}\n    activity: shell.run\n"
        '    with: {{command: [echo, "{{{{ inputs.name }}}}", "{n}"]}}\n    when: inputs.name != "{n}"\n'
        "    retry: {{maximum_attempts: 3}}\n"
        "    compensate: {{activity: shell.run, with: {{command: [ls]}}}}\n"
    )
    steps = "".join(step.format(n=n) for n in range(300))
    text = f"version: 1\nname: big\ninputs: {{name: {{type: string, minLength: 1}}}}\nsteps:\n{steps}"
    (tmp_path / "big.yaml").write_text(text)
    code = (
        "import sys; from pipeline_runner.language.workspace import check_paths\n"
        "heavy = [name for name in ('temporalio', 'httpx') if name in sys.modules]\n"
        "print(check_paths(sys.argv[1:]).diagnostics, heavy)"
    )
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "big.yaml")],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.stdout == "() []\n"
    # Half a second on an idle machine; the rest is for a busy one.
    assert time.monotonic() - started < 2


def test_numbers_longer_than_python_reads_are_told(tmp_path: Path) -> None:
    cron = f"*/{'9' * 5000} {'9' * 5000} * * *"
    text = f'name: a\nschedules: {{n: {{cron: "{cron}"}}}}\nsteps: [{{id: a, set: {{x: 1}}}}]\n'
    (tmp_path / "a.yaml").write_text(text)
    assert {d.rule for d in load(tmp_path / "a.yaml").diagnostics} == {"bad-cron", "not-supported-yet"}


def test_what_many_mistakes_ask_for_is_looked_up_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ids of the rules, for comments; what an expression compares, for its names."""
    asked: list[str] = []

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            asked.append(name)
            return function(*given)

        return call

    monkeypatch.setattr(rules, "ids", counted("ids", rules.ids))
    monkeypatch.setattr(names, "_compared", counted("compared", names._compared))
    steps = "".join(
        f"  - {{id: s{n}, set: {{}}}} # pipeline: ignore[no-rule-of-this-test]\n" for n in range(50)
    )
    expression = " or ".join(["x == 1"] * 50)
    (tmp_path / "p.yaml").write_text(f'name: p\nsteps:\n{steps}output: "{{{{ {expression} }}}}"\n')
    assert len(load(tmp_path / "p.yaml").diagnostics) == 100
    assert asked == ["compared", "ids"]


def test_two_files_of_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker refuses to serve both: one warning (same-name) names all of them; a comment silences it."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path, a__p=pipeline(name="x"), b__p=pipeline(name="x"), c=pipeline(name="y"))
    (found,) = check_paths(["."]).diagnostics
    assert (found.rule, found.severity, found.path, found.line) == ("same-name", "warning", "b/p.yaml", 2)
    assert found.message.startswith('a/p.yaml and b/p.yaml are both named "x": ')
    write(tmp_path, c=pipeline(name="x"))
    (found,) = check_paths(["c.yaml", "a", "b", "a"]).diagnostics
    assert found.message.startswith('c.yaml, a/p.yaml and b/p.yaml are all named "x": ')
    assert check_paths(["a", "a/p.yaml"]).diagnostics == ()
    write(tmp_path, c=pipeline(name="x # pipeline: ignore[same-name]"))
    assert check_paths(["a", "c.yaml"]).diagnostics == ()
