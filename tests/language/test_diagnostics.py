"""Diagnostics are data, put in order once, and shown with the line they are about."""

from pipeline_runner.language.diagnostics import Diagnostic, as_json, has_errors, render, tidy
from pipeline_runner.language.yaml.nodes import START, Source


def diagnostic(line: int = 1, column: int = 1, end: int = 2, **kw: object) -> Diagnostic:
    """Return a diagnostic on one line."""
    fields: dict[str, object] = {
        "path": "f.yaml", "line": line, "column": column, "end_line": line, "end_column": end,
        "severity": "error", "rule": "a-rule", "message": "it is wrong",
    }  # fmt: skip
    return Diagnostic(**{**fields, **kw})  # type: ignore[arg-type]


def test_text_form() -> None:
    """Path, place, severity, message and rule; the line with the span marked; the help."""
    source = "one\n  with: {resource_id: x}\n"
    shown = render(diagnostic(2, 10, 21, help='did you mean "name"?'), source)
    assert shown == (
        "f.yaml:2:10: error: it is wrong [a-rule]\n"
        "  |\n"
        "2 |   with: {resource_id: x}\n"
        "  |          ^~~~~~~~~~~\n"
        '  = help: did you mean "name"?'
    )


def test_margin_is_as_wide_as_the_line_number() -> None:
    """The bars stand below each other."""
    assert render(diagnostic(12, 1, 2), "\n" * 11 + "x").splitlines()[1:] == ["   |", "12 | x", "   | ^"]


def test_span_over_several_lines_is_marked_to_the_end_of_the_first() -> None:
    """The rest would not fit the form."""
    assert render(diagnostic(1, 3, 9, end_line=4), "a: bcd\nx").splitlines()[-1] == "  |   ^~~~"


def test_empty_span_gets_one_caret() -> None:
    """A missing value has a place, but no characters."""
    assert render(diagnostic(1, 5, 5), "set:").splitlines()[-1] == "  |     ^"


def test_tabs_and_wide_characters_keep_the_caret_below_its_text() -> None:
    """A tab is repeated, a wide character takes two columns, a combining one none."""
    assert render(diagnostic(1, 4, 6), "\t日e\u0301x").splitlines()[-1] == "  | \t   ^"
    assert render(diagnostic(1, 2, 4), "a日本").splitlines()[-1] == "  |  ^~~~"


def test_control_characters_are_not_sent_to_the_terminal() -> None:
    """A file must not be able to repaint the screen."""
    assert "\x1b" not in render(diagnostic(), "a\x1b[31mred")


def test_long_line_is_cut_around_the_span() -> None:
    """A megabyte on one line is not printed."""
    shown = render(diagnostic(1, 500_001, 500_004), "x" * 500_000 + "bad" + "y" * 500_000).splitlines()
    assert max(len(line) for line in shown) < 200
    start = shown[-1].index("^")
    assert shown[-2][start : start + 3] == "bad"


def test_colour_only_when_asked() -> None:
    """Plain text is what a pipe gets."""
    assert "\x1b" not in render(diagnostic(), "x")
    assert "\x1b[1;31merror:\x1b[0m" in render(diagnostic(), "x", colour=True)


def test_tidy_sorts_by_place_and_drops_repetitions() -> None:
    """An anchor that is used twice is told of once."""
    first, second = diagnostic(2), diagnostic(10)
    other = diagnostic(1, path="a.yaml")
    assert tidy([second, first, other, first]) == [other, first, second]


def test_json_form_has_the_fields_of_the_contract() -> None:
    """In this order."""
    names = ["path", "line", "column", "end_line", "end_column", "severity", "rule", "message", "help"]
    assert list(as_json(diagnostic())) == names


def test_warnings_are_no_errors() -> None:
    """Only errors stop a start."""
    assert has_errors([diagnostic()])
    assert not has_errors([diagnostic(severity="warning")])


def test_message_is_one_line_whatever_it_quotes() -> None:
    """An escape in the file is shown as one."""
    found = Source("f.yaml", "x").diagnostic(START, "yaml-syntax", 'no "a\nb\x1b[31m"')
    assert found.message == 'no "a\\nb\\x1b[31m"'
