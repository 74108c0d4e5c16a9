"""``# pipeline: ignore[rule]``: which warnings it silences, and what is said of it otherwise."""

from pathlib import Path

from pipeline_runner.language.workspace import load

WARNED = "activity: payment.charge, task_queue: q"


def told(folder: Path, *lines: str) -> list[tuple[int, int, str, str]]:
    """Return line, column, rule and message of what is said of these steps."""
    (folder / "main.yaml").write_text("\n".join(["name: main", "steps:", *lines, ""]))
    return [(d.line, d.column, d.rule, d.message) for d in load(folder / "main.yaml").diagnostics]


def test_without_a_comment_there_is_a_warning(tmp_path: Path) -> None:
    ((line, _, rule, _),) = told(tmp_path, f"  - {{id: a, {WARNED}}}")
    assert (line, rule) == (3, "undeclared-activity")


def test_a_comment_on_the_line_silences(tmp_path: Path) -> None:
    assert told(tmp_path, f"  - {{id: a, {WARNED}}} # pipeline: ignore[undeclared-activity]") == []


def test_a_comment_above_silences(tmp_path: Path) -> None:
    assert told(tmp_path, "  # pipeline: ignore[undeclared-activity]", f"  - {{id: a, {WARNED}}}") == []


def test_a_comment_holds_for_one_line_and_its_rules(tmp_path: Path) -> None:
    found = told(
        tmp_path,
        "  # pipeline: ignore[unknown-key, undeclared-activity]",
        f"  - {{id: a, {WARNED}}}",
        f"  - {{id: b, {WARNED}}}",
    )
    assert [(line, rule) for line, _, rule, _ in found] == [
        (3, "unneeded-ignore"),
        (5, "undeclared-activity"),
    ]
    assert found[0][1:] == (22, "unneeded-ignore", 'there is no warning "unknown-key" on line 4 to ignore')


def test_an_error_cannot_be_ignored(tmp_path: Path) -> None:
    found = told(tmp_path, "  - {id: a, activity: shell.rum} # pipeline: ignore[unknown-activity]")
    assert [(rule, message) for _, _, rule, message in found] == [
        ("unknown-activity", 'there is no activity "shell.rum" in the catalogue'),
        ("unneeded-ignore", '"unknown-activity" is an error here, and errors cannot be ignored'),
    ]


def test_text_that_looks_like_a_comment_is_text(tmp_path: Path) -> None:
    found = told(
        tmp_path,
        "  - id: a",
        "    set:",
        "      text: |",
        "        # pipeline: ignore[unknown-key]",
        '      more: "x # pipeline: ignore[unknown-key]"',
        "  # pipeline: ignore[undeclared-activity]",
        f"  - {{id: b, {WARNED}}}",
    )
    assert found == []


def test_a_file_that_is_no_pipeline_is_told_as_ever(tmp_path: Path) -> None:
    """There is nothing to hold a comment against."""
    (tmp_path / "main.yaml").write_text("[a] # pipeline: ignore[wrong-type]\n")
    assert [d.rule for d in load(tmp_path / "main.yaml").diagnostics] == ["wrong-type"]


SCRIPT = (
    "  - id: a",
    "    activity: shell.run",
    "    with:",
    "      command:",
    "        - sh",
    "        - -c",
)
BODY = ("          set -e", "          ls {{ run.workflow_id }}", "    compensate: none")


def test_a_comment_above_holds_for_all_of_a_block(tmp_path: Path) -> None:
    assert [rule for _, _, rule, _ in told(tmp_path, *SCRIPT, "        - |", *BODY)] == ["shell-template"]
    ignored = "        # pipeline: ignore[shell-template]"
    assert told(tmp_path, *SCRIPT, ignored, "        - |", *BODY) == []


def test_a_comment_behind_the_mark_of_a_block_is_one(tmp_path: Path) -> None:
    for mark in ("|", ">-", "&script |2-"):
        ignored = f"        - {mark} # pipeline: ignore[shell-template]"
        assert told(tmp_path, *SCRIPT, ignored, *BODY) == []


def test_a_comment_holds_for_one_block(tmp_path: Path) -> None:
    block = ("        - |", *BODY)
    ignored = "        # pipeline: ignore[shell-template]"
    second = ("  - id: b", *SCRIPT[1:], *block)
    found = told(tmp_path, *SCRIPT, ignored, *block, *second)
    assert [(line, rule) for line, _, rule, _ in found] == [(22, "shell-template")]
