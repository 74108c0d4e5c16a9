"""Throws broken files at the checker: it must tell what is wrong, at once, and never fall over.

``python -m tests.fuzz.checker --files 100000 --seed 1`` changes the good and bad files of the tests in
many ways and checks each. It fails if a check raises, takes more than a second of CPU, tells of a place
outside the file, tells things unsorted or twice, or something that cannot be shown. What failed is saved
below ``--keep``, and the seed is printed: the same seed makes the same files.
"""

import argparse
import contextlib
import multiprocessing
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pipeline_runner.language.catalogue_file import NAMES
from pipeline_runner.language.diagnostics import Diagnostic, lines_of, render, tidy
from pipeline_runner.language.workspace import check_paths
from tests.docs.pages import EVERY, ROOT

SLOW = 1.0
"""Seconds of CPU that one file may take."""

_LARGEST = 200_000
_FRAGMENTS = [
    b"{{ inputs.x }}", b"{{", b"}}", b"{% if x %}", b"{% endif %}", b"{% for a in inputs.x %}{{ a }}{% endfor %}", b"{#",
    b"{{ steps.a.output.b | default('x') }}", b"{{ " + b"(" * 40 + b"1" + b")" * 40 + b" }}", b"{{ item }}", b"{{ secrets.TOKEN }}",
    b"{{ 1 if }}", b"{{ [1, 2][0] + 'a' }}", b"{{ step.output }}", b"{{ error.message }}", b"{{ 2 ** 99 ** 99 }}", b"{{ a.b.c.d.e }}",
    b"'{{ \"a\" ~ 1 }}'", b"{{ x | map('y') | list }}", b"{{ range(10) }}", b"{{ '\xc3\xa9' }}", b"{{ inputs[inputs.x] }}",
]  # fmt: skip
_TOKENS = [
    b"- ", b": ", b":", b"-", b"|\n", b">-\n", b"{", b"}", b"[", b"]", b",", b"#", b"&a ", b"*a", b"<<: *a\n", b"!!str ", b"!x ",
    b"? ", b"'", b'"', b"\\", b"\n", b"\r\n", b"\r", b"\t", b"  ", b"---\n", b"...\n", b"%YAML 1.2\n", b"null", b"~", b"true", b"no",
    b"0x1F", b"1e999", b".inf", b"-0", b"5m", b"PT5M", b"99999999999999999999", b"2026-01-01", b"steps", b"id", b"with", b"when",
    b"for_each", b"activity", b"pipeline", b"compensate", b"catch", b"finally", b"parallel", b"retry", b"inputs", b"set", b"wait",
    b"approval", b"fail", b"policies", b"# noqa: ", b"# pipeline-runner: ignore ", b"version: 1\n", b"name: x\n", b"type: string",
    b"$ref: '#'", b"{$ref: '#/$defs/a'}", b"additionalProperties: false", b"[[[[", b"]]]]", b"\xef\xbb\xbf", b"\x00", b"\x85",
    b"\xe2\x80\xa8", b"\xf0\x9f\x98\x80", b"\xff", b"\xed\xa0\x80", b"e\xcc\x81", b"\xe4\xb8\xad", b"\xc2\xa0", b"\\ud83d\\ude00",
]  # fmt: skip


@dataclass(kw_only=True)
class Corpus:
    """The files that mistakes are made in, and those that must stand beside them."""

    files: list[tuple[Path, bytes]]
    """With the folder that each is put back into."""


@dataclass(kw_only=True)
class Outcome:
    """What came of some files."""

    files: int = 0
    told: int = 0
    rules: Counter[str] = field(default_factory=Counter)
    slowest: float = 0
    failures: list[tuple[str, bytes]] = field(default_factory=list)
    """What went wrong, and the file."""

    def add(self, other: "Outcome") -> None:
        self.files += other.files
        self.told += other.told
        self.rules.update(other.rules)
        self.slowest = max(self.slowest, other.slowest)
        self.failures += other.failures


def corpus(folder: Path) -> Corpus:
    """Copy the files of the tests and the documentation into a folder."""
    shutil.copytree(ROOT / "tests/data", folder / "data", ignore=shutil.ignore_patterns("histories", "*.out"))
    ignored = shutil.ignore_patterns("*-worker", "*.sh")
    shutil.copytree(ROOT / "pipelines", folder / "pipelines", ignore=ignored)
    for number, block in enumerate(EVERY):
        if block.is_pipeline:
            path = folder / "docs" / f"{number}.yaml"
            path.parent.mkdir(exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
    # A Python module that cannot be imported stops a check before it begins, as it should.
    paths = sorted(path for path in folder.glob("**/*.y*ml") if path.name not in NAMES)
    return Corpus(files=[(path, data) for path in paths if len(data := path.read_bytes()) < _LARGEST])


def mutated(luck: random.Random, files: Corpus) -> tuple[Path, bytes]:
    """Return a file with some mistakes in it, and where it goes."""
    path, data = luck.choice(files.files)
    for _ in range(luck.choice((1, 1, 1, 2, 2, 3, 5, 8))):
        data = luck.choice(_CHANGES)(luck, data, files)[:_LARGEST]
    return path, data


def _flip(luck: random.Random, data: bytes, _: Corpus) -> bytes:
    changed = bytearray(data or b"x")
    for _unused in range(luck.choice((1, 1, 2, 5))):
        changed[luck.randrange(len(changed))] = luck.choice((luck.randrange(256), luck.randrange(32, 127)))
    return bytes(changed)


def _insert(luck: random.Random, data: bytes, _: Corpus) -> bytes:
    at = luck.randrange(len(data) + 1)
    return data[:at] + luck.choice(luck.choice((_TOKENS, _FRAGMENTS))) + data[at:]


def _cut(luck: random.Random, data: bytes, _: Corpus) -> bytes:
    start = luck.randrange(len(data) + 1)
    return data[:start] + data[start + luck.choice((1, 2, 5, 20, 100)) :]


def _end(luck: random.Random, data: bytes, _: Corpus) -> bytes:
    return data[: luck.randrange(len(data) + 1)]


def _lines(luck: random.Random, data: bytes, _: Corpus) -> bytes:
    lines = data.splitlines(keepends=True) or [b"\n"]
    at, to = luck.randrange(len(lines)), luck.randrange(len(lines))
    match luck.randrange(5):
        case 0:
            del lines[at]
        case 1:
            lines.insert(to, lines[at])
        case 2:
            lines[at], lines[to] = lines[to], lines[at]
        case 3:
            lines[at] = luck.choice((b" ", b"  ", b"    ", b"\t", b"- ")) + lines[at]
        case _:
            lines[at] = lines[at].lstrip()
    return b"".join(lines)


def _words(luck: random.Random, data: bytes, files: Corpus) -> bytes:
    """Put a word of a file in the place of another."""
    words, others = data.split(b" "), luck.choice(files.files)[1].split(b" ")
    words[luck.randrange(len(words))] = luck.choice(others) if luck.random() < 0.7 else luck.choice(_TOKENS)
    return b" ".join(words)


def _splice(luck: random.Random, data: bytes, files: Corpus) -> bytes:
    other = luck.choice(files.files)[1]
    return data[: luck.randrange(len(data) + 1)] + other[luck.randrange(len(other) + 1) :]


def _splice_lines(luck: random.Random, data: bytes, files: Corpus) -> bytes:
    lines, other = data.splitlines(keepends=True), luck.choice(files.files)[1].splitlines(keepends=True)
    at, start = luck.randrange(len(lines) + 1), luck.randrange(len(other) + 1)
    return b"".join(lines[:at] + other[start : start + luck.choice((1, 3, 10, 50))] + lines[at:])


def _deep(luck: random.Random, data: bytes, _: Corpus) -> bytes:
    depth = luck.choice((20, 63, 64, 65, 200, 5000))
    opening, closing = luck.choice(
        ((b"[", b"]"), (b"{a: ", b"}"), (b"- ", b""), (b"{{ (", b") }}"), (b"[{id: a, steps: ", b"}]"))
    )
    return _into(luck, data, opening * depth + b"1" + closing * depth)


def _blocks(luck: random.Random, data: bytes, _: Corpus) -> bytes:
    """Nest steps in steps."""
    lines = [b"steps:\n"]
    for level in range(luck.choice((3, 10, 25, 40))):
        key = luck.choice((b"steps", b"steps", b"parallel", b"catch", b"compensate", b"for_each"))
        lines.append(b"  " * level + b"  - id: s%d\n" % level + b"  " * level + b"    " + key + b":\n")
    return data + b"".join(lines) if luck.random() < 0.5 else b"name: deep\n" + b"".join(lines)


def _huge(luck: random.Random, data: bytes, _: Corpus) -> bytes:
    size = luck.choice((1000, 20_000, 100_000))
    piece = luck.choice(
        (
            b"x",
            b"9",
            b"{{ a }}",
            b"x ",
            b"\xc3\xa9",
            b"{{",
            b"{% if a %}",
            b"|upper",
            b"- a\n",
            b"'",
            b"1 + ",
            b"\\n",
        )
    )
    huge = (piece * (size // len(piece) + 1))[:size]
    return _into(luck, data, luck.choice((b"%s", b'"%s"', b'"{{ %s }}"', b"'{{ a%s }}'")) % huge)


def _many(luck: random.Random, data: bytes, _: Corpus) -> bytes:
    """Repeat the end of the file, such as its last steps."""
    lines = data.splitlines(keepends=True)
    start = luck.randrange(len(lines) + 1)
    return data + b"".join(lines[start:]) * luck.choice((2, 20, 200))


def _alias(luck: random.Random, data: bytes, _: Corpus) -> bytes:
    lines = data.splitlines(keepends=True) or [b"\n"]
    for at in sorted((luck.randrange(len(lines)), luck.randrange(len(lines)))):
        key, colon, value = lines[at].partition(b":")
        mark = luck.choice(
            (b" &a", b" *a", b" &a [*a, *a]", b" {<<: *a}", b" &a {x: *a}", b" &b [*a, *a, *a]")
        )
        if colon:
            lines[at] = key + b":" + (mark + value if b"&" in mark else mark + b"\n")
    return b"".join(lines)


def _bomb(luck: random.Random, data: bytes, _: Corpus) -> bytes:
    """Make aliases of aliases."""
    lines = [b"x-a0: &a0 [1, 2, 3]\n"]
    lines += [
        b"x-a%d: &a%d [%s]\n" % (n, n, b", ".join([b"*a%d" % (n - 1)] * 8))
        for n in range(1, luck.randrange(2, 9))
    ]
    return b"".join(lines) + data


def _returns(luck: random.Random, data: bytes, _: Corpus) -> bytes:
    return data.replace(b"\n", luck.choice((b"\r\n", b"\r", b"\n\n", b"\xe2\x80\xa8", b"\xc2\x85", b"\n\r")))


def _templates(luck: random.Random, data: bytes, files: Corpus) -> bytes:
    """Put something into, or for, the inside of a template."""
    start = data.find(b"{{", luck.randrange(len(data) + 1))
    end = data.find(b"}}", start)
    if start < 0 or end < 0:
        return _insert(luck, data, files)
    inner = luck.choice((
        b"", b" ", b"inputs", b"steps", b"inputs.", b"1 +", b"x | y", b"x |", b"not", b"'", b"{{ x }}", b"x }} {{ y", b"a.b | default(c)",
        b"[a, b, {'c': d}]", b"a if b", b"a is c", b"a[0].b['c']", b"item.x ~ index", b"\xe4\xb8\xad.x", b"a\n\n  .b", b"x\\ty",
    ))  # fmt: skip
    at = luck.randrange(start + 2, end + 1)
    return data[:at] + inner + data[luck.choice((at, end)) :]


def _into(luck: random.Random, data: bytes, value: bytes) -> bytes:
    """Put a value behind a key, or anywhere."""
    lines = data.splitlines(keepends=True)
    at = luck.randrange(len(lines) + 1)
    if at < len(lines) and b":" in lines[at] and luck.random() < 0.8:
        lines[at] = lines[at].partition(b":")[0] + b": " + value + b"\n"
        return b"".join(lines)
    at = luck.randrange(len(data) + 1)
    return data[:at] + value + data[at:]


_CHANGES: tuple[Callable[[random.Random, bytes, Corpus], bytes], ...] = (
    _flip, _insert, _insert, _cut, _end, _lines, _lines, _words, _words, _splice, _splice_lines, _deep, _blocks,
    _huge, _many, _alias, _bomb, _returns, _templates, _templates,
)  # fmt: skip


def judge(path: Path, data: bytes, outcome: Outcome) -> None:
    """Check a file in the place of one of the corpus, and note what went wrong."""
    path.write_bytes(data)
    outcome.files += 1
    began = time.process_time()
    try:
        with _stopped_after(20 * SLOW):
            checked = check_paths([path])
        took = time.process_time() - began
        problems = list(_problems(checked.diagnostics, checked.sources))
    except (Exception, _EndlessError):  # noqa: BLE001 - none is expected
        outcome.failures.append((traceback.format_exc(), data))
        return
    outcome.told += bool(checked.diagnostics)
    outcome.rules.update({one.rule for one in checked.diagnostics})
    outcome.slowest = max(outcome.slowest, took)
    if took > SLOW:
        problems.append(f"it took {took:.2f} s of CPU")
    outcome.failures += [(problem, data) for problem in problems]


class _EndlessError(BaseException):
    """A check took so long that it was stopped."""


@contextlib.contextmanager
def _stopped_after(seconds: float) -> Iterator[None]:
    """Stop what takes more CPU than this."""

    def stop(*_: object) -> None:
        raise _EndlessError(f"it was stopped after {seconds:.0f} s of CPU")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _problems(found: tuple[Diagnostic, ...], sources: dict[str, str]) -> Iterator[str]:
    """Yield what is wrong with what is told."""
    if list(found) != tidy(found):
        yield "unsorted, or the same twice"
    for one in found:
        # A file that cannot be decoded has no text to point into.
        lines = lines_of(sources.get(one.path, ""))
        if lines != [""] and not _is_inside(one, lines):
            yield f"outside of the file: {one}"
        for text in (render(one, sources.get(one.path, "")), render(one, "", colour=True)):
            text.encode("utf-8")
        if "\n" in one.message or not one.message:
            yield f"no message of one line: {one}"


def _is_inside(one: Diagnostic, lines: list[str]) -> bool:
    if not 1 <= one.line <= one.end_line <= len(lines):
        return False
    starts, ends = one.column - 1, one.end_column - 1
    in_order = one.line < one.end_line or starts <= ends
    # Where something is missing, the place after the last character of a line is one wide.
    return (
        in_order and 0 <= starts <= len(lines[one.line - 1]) and 0 <= ends <= len(lines[one.end_line - 1]) + 1
    )


def run(seed: int, start: int, files: int) -> Outcome:
    """Judge some files, numbered from ``start``; each has a random source of its own."""
    outcome = Outcome()
    with tempfile.TemporaryDirectory(dir=_memory()) as folder, contextlib.chdir(folder):
        known = corpus(Path(folder))
        for number in range(start, start + files):
            luck = random.Random(f"{seed}.{number}")
            path, data = mutated(luck, known)
            before = path.read_bytes()
            judge(path, data, outcome)
            path.write_bytes(before)
    return outcome


def _memory() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def _batch(work: tuple[int, int, int]) -> Outcome:
    return run(*work)


def main() -> int:
    """Return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**9))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-failures"), help="where files that fail go")
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    size = min(1000, -(-given.files // given.processes))
    work = [(given.seed, start, min(size, given.files - start)) for start in range(0, given.files, size)]
    total, began = Outcome(), time.monotonic()
    with multiprocessing.Pool(given.processes) as pool:
        for outcome in pool.imap_unordered(_batch, work):
            total.add(outcome)
            if sys.stderr.isatty():
                print(f"\r{total.files} files, {len(total.failures)} failures", end="", file=sys.stderr)
    took = time.monotonic() - began
    for number, (problem, data) in enumerate(total.failures):
        given.keep.mkdir(exist_ok=True)
        path = given.keep / f"{given.seed}-{number}.yaml"
        path.write_bytes(data)
        print(f"{path}: {problem}")
    print(
        f"{total.files} files in {took:.0f} s ({total.files / took:.0f} a second): {len(total.failures)} failures; "
        f"{total.told} files with mistakes, {len(total.rules)} rules, the slowest {total.slowest * 1000:.0f} ms"
    )
    return 1 if total.failures else 0


if __name__ == "__main__":
    sys.exit(main())
