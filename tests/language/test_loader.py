"""Bytes become a tree with positions, or sentences about what is wrong; nothing crashes or hangs."""

import time
from typing import Any

import pytest

from pipeline_runner.language.yaml import loader
from pipeline_runner.language.yaml.nodes import MappingNode, Node, Scalar, SequenceNode, Span, plain


def parsed(text: str | bytes) -> tuple[Node | None, list[str]]:
    """Return the tree and the messages with their rules and places."""
    source, found = loader.decode(text.encode() if isinstance(text, str) else text, "f.yaml")
    node = None
    if not found:
        node, found = loader.load(source)
    return node, [f"{d.line}:{d.column} {d.message} [{d.rule}]" for d in found]


def values(text: str) -> Any:
    """Return the data of a text without mistakes."""
    node, found = parsed(text)
    assert found == []
    assert node is not None
    return plain(node)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"), ("on", "on"), ("off", "off"), ("y", "y"), ("Yes", "Yes"),
        ("12:30", "12:30"), ("1_000", "1_000"), ("2030-01-31", "2030-01-31"),
        ("2030-01-31T12:00:00Z", "2030-01-31T12:00:00Z"), ("1.2.3", "1.2.3"), ("0b11", "0b11"),
        ("017", 17), ("0o17", 15), ("0x1F", 31), ("+5", 5), ("-5", -5), ("=", "="), ("--", "--"), (".", "."),
        ("1.5", 1.5), (".5", 0.5), ("1.", 1.0), ("1e3", 1000.0), ("-1.5E-1", -0.15),
        ("true", True), ("True", True), ("TRUE", True), ("false", False), ("tRue", "tRue"),
        ("null", None), ("Null", None), ("NULL", None), ("~", None), ("", None),
        ('"1"', "1"), ("'true'", "true"), ("!!str 1", "1"), ("! 1", "1"),
        ("!!float 3", 3.0), ("!!int '3'", 3),
        (str(2**63 - 1), 2**63 - 1),
    ],
)  # fmt: skip
def test_plain_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    """Only the core schema's words and numbers are anything but text."""
    found = values(f"a: {text}")["a"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("text", [".inf", "-.Inf", ".nan", "1e999", str(2**63), "9" * 5000, "!!int x"])
def test_number_that_json_cannot_hold_is_a_mistake(text: str) -> None:
    """It is not turned into something else silently."""
    assert "[bad-number]" in parsed(f"a: {text}")[1][0]


def test_every_node_knows_its_place() -> None:
    """Positions count characters from 1; a block collection ends with its last child."""
    node, _ = parsed("é: 'aé'\nlist:\n  - {k: 1}\n\n  - two\n\nlast:\n")
    assert isinstance(node, MappingNode)
    assert node.span == Span(1, 1, 7, 6)
    first = node.entries[0]
    assert first.key.span == Span(1, 1, 1, 2)
    assert first.value.span == Span(1, 4, 1, 8)
    items = node.get("list")
    assert isinstance(items, SequenceNode)
    assert items.span == Span(3, 3, 5, 8)
    assert items.items[0].span == Span(3, 5, 3, 11)
    assert node.get("last") == Scalar(Span(7, 6, 7, 6), None, "")


def test_byte_order_mark_does_not_shift_positions() -> None:
    """Editors on Windows write one."""
    node, found = parsed(b"\xef\xbb\xbfa: 1\r\nb: 2\r\n")
    assert found == []
    assert isinstance(node, MappingNode)
    assert [entry.key.span for entry in node] == [Span(1, 1, 1, 2), Span(2, 1, 2, 2)]


def test_merge_keys() -> None:
    """Own keys win over merged ones, earlier merges over later; a quoted "<<" is a key."""
    text = "x: &x {a: 1, b: 2}\ny: &y {b: 3, c: 4}\nz: {b: 5, <<: *x}\nl: {<<: [*x, *y]}\nq: {'<<': 1}\n"
    found = values(text)
    assert found["z"] == {"a": 1, "b": 5}
    assert found["l"] == {"a": 1, "b": 2, "c": 4}
    assert found["q"] == {"<<": 1}


def test_merge_of_anything_but_mappings_is_a_mistake() -> None:
    """It would have no meaning."""
    assert parsed("a: {<<: [1]}")[1] == ['1:10 "<<" requires a mapping or a list of mappings [merge-key]']


def test_all_duplicate_keys_are_told_at_once() -> None:
    """Each points at the second and names the line of the first."""
    assert parsed("a: 1\nb: {c: 1, c: 2}\na: 3\na: 4\n")[1] == [
        '2:11 duplicate key "c": it is already in line 2 [duplicate-key]',
        '3:1 duplicate key "a": it is already in line 1 [duplicate-key]',
        '4:1 duplicate key "a": it is already in line 1 [duplicate-key]',
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "1:1 the file is empty [empty-file]"),
        ("# nothing\n", "1:1 the file is empty [empty-file]"),
        ("a: {[1]: 2}", "1:5 a key must be a string, not a list [bad-key]"),
        ("~: 2", "1:1 a key must be a string: put ~ in quotes [bad-key]"),
        ("a: *b", '1:4 there is no anchor "&b" before this [unknown-anchor]'),
        ("a: &b [1, *b]", '1:11 "*b" is inside its own "&b" [recursive-alias]'),
        ("a: !mine 3", '1:4 the tag "!mine" has no meaning here [unknown-tag]'),
        ("a: !!set {b: }", '1:4 the tag "!!set" has no meaning here [unknown-tag]'),
        (
            "a: 1\n---\nb: 1",
            "2:1 a second document begins here, but a file must contain only one [yaml-syntax]",
        ),
        ("a:\n  \tb: 1\n", "2:3 tabs are not allowed for indentation [yaml-syntax]"),
        ("a: 'x", "1:4 the quote in line 1 is never closed [yaml-syntax]"),
        ("a: [1,\nb", '1:4 the "[" in line 1 is never closed [yaml-syntax]'),
        ("a: {b: 1\nc", '1:4 the "{" in line 1 is never closed [yaml-syntax]'),
        ("a: b: c", '1:5 a ":" is not allowed here [yaml-syntax]'),
        ("a: %x", '1:4 a string cannot begin with "%" here [yaml-syntax]'),
        ("a: \x00", "1:4 the control character U+0000 is not allowed in YAML [yaml-syntax]"),
    ],
)
def test_mistakes_are_sentences_with_a_place(text: str, message: str) -> None:
    """Nobody has to know the parser's own words."""
    assert parsed(text)[1] == [message]


def test_not_utf8_names_the_byte() -> None:
    """Line and column count what comes before it."""
    assert parsed(b"a: 1\nb\xc3\xa9: \xff")[1] == ["2:5 the file is not UTF-8: byte 11 is 0xff [not-utf8]"]
    assert parsed("a: 1".encode("utf-16"))[1][0].endswith("[not-utf8]")


def test_file_over_one_mebibyte_is_refused() -> None:
    """Exactly one is not over."""
    assert parsed(b"#" * (1024 * 1024) + b"\n")[1] == ["1:1 the file is larger than 1 MiB [file-too-large]"]
    assert parsed(b"a: 1\n#" + b"#" * (1024 * 1024 - 6))[1] == []


@pytest.mark.parametrize(
    "text", ["[" * 1000, "[" * 1_000_000, "{a: " * 99_999, "- " * 400_000, "? " * 400_000]
)
def test_deep_nesting_is_a_mistake_and_no_crash(text: str) -> None:
    """libyaml's own composer overruns the C stack here."""
    started = time.monotonic()
    (message,) = parsed(text)[1]
    assert message.endswith("nested deeper than 64 levels [too-deep]")
    assert time.monotonic() - started < 5


def test_sixty_four_levels_are_fine() -> None:
    """The limit is no smaller than it says."""
    assert parsed("[" * 64 + "]" * 64)[1] == []


def test_alias_bomb_is_a_mistake() -> None:
    """What aliases stand for counts as often as they repeat it."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 20)]
    (message,) = parsed("\n".join(lines))[1]
    assert message == "5:45 the file has more than 100,000 values [too-many-values]"


def test_alias_chain_is_no_way_around_the_depth() -> None:
    """Each alias adds the depth of what it stands for."""
    lines = ["a0: &a0 [x]", *(f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 70))]
    assert parsed("\n".join(lines))[1] == ['64:12 "*a62" nests deeper than 64 levels [too-deep]']


def test_merge_bomb_is_a_mistake() -> None:
    """Merging counts what it merges."""
    lines = ["m0: &m0 {" + ", ".join(f"k{n}: 1" for n in range(1000)) + "}"]
    lines += [f"m{n}: {{<<: *m0}}" for n in range(1, 200)]
    assert parsed("\n".join(lines))[1][0].endswith("more than 100,000 values [too-many-values]")


def test_the_pure_parser_gives_the_same_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where libyaml is missing, only speed is."""
    import yaml

    text = "a: [1, {b: &x no}, *x]\nc: |\n  t\n"
    with_c = parsed(text)
    monkeypatch.setattr(loader, "_PARSER", yaml.SafeLoader)
    assert parsed(text) == with_c
    assert parsed("a: b: c")[1] == ['1:5 a ":" is not allowed here [yaml-syntax]']


def test_control_character_after_other_line_breaks() -> None:
    """Lines are counted as everywhere: a carriage return ends one."""
    assert parsed("a: 1\rb: 2\u2028c: \x07")[1] == [
        "3:4 the control character U+0007 is not allowed in YAML [yaml-syntax]"
    ]


def test_nothing_after_the_marker_at_the_end() -> None:
    """What is not there stands at the end, and not in a line that the file does not have."""
    node, found = parsed("%YAML 1.2\n---")
    assert isinstance(node, Scalar)
    assert (node.span, found) == (Span(2, 4, 2, 4), [])
