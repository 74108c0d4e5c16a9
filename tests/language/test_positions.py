"""A part of a text is found in the file, however the text is written there."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_runner.language.yaml import loader
from pipeline_runner.language.yaml.nodes import MappingNode, Scalar, Source, Span
from pipeline_runner.language.yaml.positions import part_of


def found(text: str, part: str) -> tuple[Source, Span]:
    source = Source("p.yaml", text)
    root, problems = loader.load(source)
    assert problems == []
    assert isinstance(root, MappingNode)
    value = root.get("k")
    assert isinstance(value, Scalar)
    start = value.text.index(part)
    return source, part_of(source, value, start, start + len(part))


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ("k: see {{ NEEDLE }}", 1, 11),
        ("k: 'see {{ NEEDLE }}'", 1, 12),
        ("k: 'it''s {{ NEEDLE }}'", 1, 14),
        ('k: "see {{ NEEDLE }}"', 1, 12),
        ('k: "a\\tb\\u0041\\" {{ NEEDLE }}"', 1, 21),
        ('k: "a\\\n     {{ NEEDLE }}"', 2, 9),
        ('k: "a\n\n     {{ NEEDLE }}"', 3, 9),
        ("k: a\n  b\n  {{ NEEDLE }}", 3, 6),
        ("k: |\n  a\n  {{ NEEDLE }}\n", 3, 6),
        ("k: |2-  # NEEDLE\n    a\n   {{ NEEDLE }}\n", 3, 7),
        ("k: >\n  a\n  b {{ NEEDLE }}\n\n  c\n", 3, 8),
        ("k: >-\n\n  {{\n  NEEDLE }}", 4, 3),
        ("k: &x {{NEEDLE}}".replace("{{", "<<"), 1, 9),
        ("k: &x !!str 'a {{ NEEDLE }}'", 1, 19),
        ("k: &x\n  'a {{ NEEDLE }}'", 2, 9),
        ("k: !!str &x |\n  a {{ NEEDLE }}\n", 2, 8),
        ("k: é😀 {{ NEEDLE }}", 1, 10),
        ('k:\n  "\\x41\\U0001F600 {{ NEEDLE }}"', 2, 22),
        ("j: &a see {{ NEEDLE }}\nk: *a", 1, 14),
    ],
)
def test_it_is_found(text: str, line: int, column: int) -> None:
    source, span = found(text, "NEEDLE")
    assert span == Span(line, column, line, column + 6)
    assert source.lines[line - 1][column - 1 : column + 5] == "NEEDLE"


def test_a_part_over_lines_ends_on_the_last() -> None:
    _, span = found("k: |\n  {{ a\n     b }}\n", "{{ a\n   b }}")
    assert span == Span(2, 3, 3, 10)


@given(
    st.text(
        st.characters(
            codec="utf-8", exclude_categories=["Cc", "Cn", "Cs", "Zl", "Zp"], exclude_characters="\x85\ufeff"
        ),
        max_size=40,
    )
)
def test_any_text_is_found_however_it_is_written(before: str) -> None:
    text = f"{before} NEEDLE"
    escaped = "".join(f"\\U{ord(c):08X}" for c in before)
    quoted = text.replace("'", "''")
    for written in (json.dumps(text, ensure_ascii=False), f'"{escaped} NEEDLE"', f"'{quoted}'"):
        source, span = found(f"k: {written}", "NEEDLE")
        assert source.lines[0][span.column - 1 : span.end_column - 1] == "NEEDLE"


def test_thousands_of_parts_of_one_text_take_no_time() -> None:
    """Each is found, in a text that is looked through once."""
    source = Source("p.yaml", "k: '" + "{{ a }}" * 10_000 + "'\n")
    root, _ = loader.load(source)
    assert isinstance(root, MappingNode)
    value = root.get("k")
    assert isinstance(value, Scalar)
    begin = time.process_time()
    spans = [part_of(source, value, 7 * n + 3, 7 * n + 4) for n in range(10_000)]
    assert spans == [Span(1, 7 * n + 8, 1, 7 * n + 9) for n in range(10_000)]
    assert time.process_time() - begin < 2
