"""What comes from elsewhere neither steers the terminal nor commands who reads the log."""

import json

import pytest

from pipeline_runner.cli import console


@pytest.mark.parametrize(
    "steering",
    [
        "\x1b[2J",
        "\x1b]0;title\x07",
        "\x9b2J",
        "\x9d0;x\x9c",
        "\r",
        "\x08",
        "\x7f",
        "\u202e",
        "\u2066",
        "\u2028",
    ],
)
def test_what_would_steer_a_terminal_is_replaced(steering: str, capsys: pytest.CaptureFixture[str]) -> None:
    console.tell(f"a{steering}b")
    told = capsys.readouterr().err
    assert not set(told) & set("\x1b\x07\x9b\x9d\x9c\r\x08\x7f\u202e\u2066\u2028")
    assert "�" in told
    written = console.json_text({"key": f"a{steering}b"})
    assert all(c == "\n" or c.isprintable() for c in written), "escaped, not raw"
    assert json.loads(written) == {"key": f"a{steering}b"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("::error::x", "> ::error::x"),
        ("fine\n  ::stop-commands::t\nfine", "fine\n>   ::stop-commands::t\nfine"),
        ("a ##[error]x", "a # #[error]x"),
        ("##vso[task.setvariable variable=x]y", "# #vso[task.setvariable variable=x]y"),
        ("##teamcity[buildStatus]", "# #teamcity[buildStatus]"),
        ("a::b and ## c", "a::b and ## c"),
    ],
)
@pytest.mark.parametrize("steering", [False, True])
def test_no_line_is_a_command(
    text: str, shown: str, capsys: pytest.CaptureFixture[str], *, steering: bool
) -> None:
    console.tell(text, steering=steering)
    assert capsys.readouterr().err == f"{shown}\n"
    written = console.json_text([text])
    assert "##[" not in written
    assert "##vso[" not in written
    assert json.loads(written) == [text]
