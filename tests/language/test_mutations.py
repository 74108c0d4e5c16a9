"""Small mistakes in good files: nearly all are told, and at the line where they are.

Every good file of the tests and of the documentation gets one mistake at a time that a reader could find
in the files. ``MUTATIONS=100000 pytest tests/language/test_mutations.py -s`` tries all of them.
"""

import os
import random
import shutil
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from jinja2 import nodes as jinja

from pipeline_runner.core.expressions.filters import FILTERS, TESTS
from pipeline_runner.core.inputs import value_problems
from pipeline_runner.core.scope import Place
from pipeline_runner.language.catalogue_file import NAMES
from pipeline_runner.language.document import Call, Document, Step, Use
from pipeline_runner.language.table.fields import COMPENSATION, PIPELINE, STEP
from pipeline_runner.language.types import Map, Plain, Type, of_schema
from pipeline_runner.language.typing.inference import Inference
from pipeline_runner.language.workspace import _Workspace, check_paths
from pipeline_runner.language.yaml.nodes import Entry, MappingNode, Node, Scalar, Span, plain
from tests.docs.pages import PAGES, ROOT, blocks

LIMIT = int(os.environ.get("MUTATIONS", "1500"))
EXPECTED = 0.95
DURATIONS = {
    "timeout", "start_to_close", "schedule_to_close", "schedule_to_start", "heartbeat", "run", "execution",
    "initial_interval", "maximum_interval",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Mutation:
    """A file with one mistake."""

    kind: str
    what: str
    text: str
    lines: frozenset[int]
    """Where it may be told."""


class Text:
    """A file's text, changed by the places of its nodes."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._starts = [0]
        for line in text.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))

    def offset(self, line: int, column: int) -> int:
        return min(self._starts[min(line, len(self._starts)) - 1] + column - 1, len(self.text))

    def start(self, span: Span) -> int:
        return self.offset(span.line, span.column)

    def end(self, span: Span) -> int:
        return self.offset(span.end_line, span.end_column)

    def of(self, span: Span) -> str:
        return self.text[self.start(span) : self.end(span)]

    def replaced(self, span: Span, new: str) -> str:
        return self.text[: self.start(span)] + new + self.text[self.end(span) :]

    def without(self, mapping: MappingNode, entry: Entry) -> str | None:
        """Return the text without a key; None where it cannot be cut out simply."""
        place = mapping.entries.index(entry)
        if len(mapping.entries) == 1 or not _is_own(mapping, entry):
            return None
        if place + 1 < len(mapping.entries):
            start, end = self.start(entry.key.span), self.start(mapping.entries[place + 1].key.span)
        else:
            start, end = self.end(mapping.entries[place - 1].value.span), self.end(entry.value.span)
        return self.text[:start] + self.text[end:] if start < end else None

    def with_entry(self, mapping: MappingNode, line: str) -> tuple[str, int] | None:
        """Return the text with a key put before the others, and the line that it is in."""
        first = mapping.entries[0].key.span
        start = self.start(first)
        flow = self.text[self.start(mapping.span)] == "{"
        if mapping.span.line == first.line and flow:
            return self.text[:start] + line + ", " + self.text[start:], first.line
        return self.text[:start] + line + "\n" + " " * (first.column - 1) + self.text[start:], first.line


def _is_own(mapping: MappingNode, entry: Entry) -> bool:
    """Tell whether a key stands in its mapping, and does not come from an anchor."""
    at, around = entry.key.span, mapping.span
    return (around.line, around.column) <= (at.line, at.column) <= (around.end_line, around.end_column)


def misspelt(name: str, taken: Any = ()) -> str:
    """Return a name with a slip in it that is no other name."""
    half = len(name) // 2
    slips = [name[:half] + name[half + 1 :]] if len(name) > 3 else []
    if len(name) > 2:
        slips.append(name[: half - 1] + name[half] + name[half - 1] + name[half + 1 :])
    slips += [name[:half] + name[half : half + 1] + name[half:], name + "x"]
    return next(slip for slip in slips if slip != name and slip not in taken and slip.strip("_"))


def _lines(span: Span) -> frozenset[int]:
    return frozenset(range(span.line, span.end_line + 1))


def _has_default(schema: Node) -> bool:
    return isinstance(schema, MappingNode) and "default" in schema


class Mutations:
    """The mistakes that can be made in one file."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._inferred = Inference(document)
        self._source = document.source
        self._text = Text(document.source.text)

    def every(self) -> Iterator[Mutation]:
        for found in (
            self._dropped, self._keys, self._references, self._names, self._words, self._types, self._durations, self._moved,
            self._ids, self._kinds, self._braces, self._comparisons,
        ):  # fmt: skip
            yield from found()

    def _made(self, kind: str, what: str, text: str | None, lines: frozenset[int]) -> Iterator[Mutation]:
        if text is not None and text != self._text.text:
            yield Mutation(kind=kind, what=what, text=text, lines=lines)

    def _changed(
        self, kind: str, span: Span, new: str, also: frozenset[int] = frozenset()
    ) -> Iterator[Mutation]:
        old = self._text.of(span)
        lines = frozenset([span.line]) | also
        yield from self._made(kind, f"{old} → {new}", self._text.replaced(span, new), lines)

    def _dropped(self) -> Iterator[Mutation]:
        required: list[tuple[MappingNode, str, str]] = [
            (self._document.root, name, "key") for name in ("name", "steps")
        ]
        for step in self._document.steps:
            required.append((step.node, "id", "id"))
            if step.kind:
                required.append((step.node, step.kind, "kind"))
        for call in self._document.calls:
            given = call.node.mapping("with")
            names = self._required(call)
            required += [(given, name, "parameter") for name in names if given and name in given]
        for mapping, name, kind in required:
            entry = mapping.entry(name)
            if entry is None:
                continue
            lines = _lines(mapping.span)
            if kind == "parameter":  # told at the name of the activity
                lines = frozenset(range(max(1, mapping.span.line - 8), mapping.span.end_line + 1))
            yield from self._made(f"drop a {kind}", name, self._text.without(mapping, entry), lines)

    def _required(self, call: Call) -> list[str]:
        activity = call.activity
        if activity and activity.input:
            return [str(name) for name in activity.input.get("required", [])]
        child = self._document.children.get(call.name or "") if call.kind == "pipeline" else None
        return [name for name, node in child.inputs.items() if not _has_default(node)] if child else []

    def _keys(self) -> Iterator[Mutation]:
        known: list[tuple[MappingNode, Any]] = [(self._document.root, PIPELINE.fields)]
        for step in self._document.steps:
            known.append((step.node, STEP.fields(step.node)))
            if step.compensation:
                known.append((step.compensation, COMPENSATION.fields(step.compensation)))
        for mapping, _ in list(known):
            names = ("timeouts", "retry", "approval", "schedule")
            known += [(inner, {}) for name in names if (inner := mapping.mapping(name))]
        known += [
            (policy, {}) for policy in self._document.policies.values() if isinstance(policy, MappingNode)
        ]
        known += [
            (schema, {}) for schema in self._document.inputs.values() if isinstance(schema, MappingNode)
        ]
        for call in self._document.calls:
            given, schema = call.node.mapping("with"), self._input(call)
            if given and isinstance(schema, Map) and schema.others != "some":
                known.append((given, schema.keys))
        for mapping, names in known:
            for entry in mapping:
                if _is_own(mapping, entry) and not entry.name.startswith("x-"):
                    new = misspelt(entry.name, names)
                    yield from self._changed("misspell a key", entry.key.span, new, _lines(entry.value.span))

    def _input(self, call: Call) -> Type | None:
        activity = call.activity
        if activity and activity.input:
            return of_schema(activity.input)
        child = self._document.children.get(call.name or "") if call.kind == "pipeline" else None
        return (
            Map({name: of_schema(plain(node)) for name, node in child.inputs.items()}, "none")
            if child
            else None
        )

    def _references(self) -> Iterator[Mutation]:
        for use in self._document.uses:
            for reference in use.references:
                for depth in range(len(reference.path)):
                    if self._is_known(use, reference.path[:depth]):
                        name = reference.path[depth]
                        span = use.span(self._source, reference, depth)
                        if self._text.of(span) != name:
                            continue
                        new = misspelt(name, self._beside(use, reference.path[:depth]))
                        kind = "a name" if depth == 0 else "a reference" if depth == 1 else "an attribute"
                        yield from self._changed(f"misspell {kind}", span, new)

    def _beside(self, use: Use, path: tuple[str, ...]) -> Any:
        match path:
            case ():
                return use.roots
            case ("inputs",):
                return self._document.inputs
            case ("steps",):
                return self._document.ids
            case ("secrets",):
                return self._document.secrets
        return getattr(self._type(use, path), "keys", ())

    def _is_known(self, use: Use, path: tuple[str, ...]) -> bool:
        """Tell whether a reader knows all keys of what a path leads to."""
        if path in ((), ("inputs",), ("steps",), ("secrets",)):
            return True
        kind = self._type(use, path)
        return isinstance(kind, Map) and kind.others == "none"

    def _type(self, use: Use, path: tuple[str, ...]) -> Type | None:
        match path:
            case ("inputs", name, *rest) if name in self._document.inputs:
                kind: Type | None = of_schema(plain(self._document.inputs[name]))
            case ("steps", name, *rest) if (step := self._document.ids.get(name)) and use.sees(step):
                kind = Map({"output": self._inferred.output(step), "status": Type(), "error": Type()}, "none")
            case ("item", *rest) if use.loops:
                kind = self._inferred.element(use.loops[0])
            case _:
                return None
        for key in rest:
            kind = kind.keys.get(key) if isinstance(kind, Map) else None
        return kind

    def _names(self) -> Iterator[Mutation]:
        for call in self._document.calls:
            if call.name and (call.activity or call.name in self._document.children):
                kind = "an activity" if call.kind == "activity" else "a child's path"
                stem, dot, end = call.name.rpartition(".")
                new = (
                    f"{stem}.{misspelt(end)}"
                    if dot and call.kind == "activity"
                    else f"{misspelt(stem)}.{end}"
                )
                if call.name not in self._document.catalogue or new not in self._document.catalogue:
                    yield from self._scalar(f"misspell {kind}", call.node.get(call.kind), new)
        for step in self._document.steps:
            for node in (step.node, step.compensation):
                name = node.get("policy") if node else None
                if isinstance(name, Scalar) and name.text in self._document.policies:
                    yield from self._scalar(
                        "misspell a policy", name, misspelt(name.text, self._document.policies)
                    )

    def _scalar(self, kind: str, node: Node | None, new: str) -> Iterator[Mutation]:
        if isinstance(node, Scalar) and self._text.of(node.span) == node.text:
            yield from self._changed(kind, node.span, new)

    def _words(self) -> Iterator[Mutation]:
        for use in self._document.uses:
            for node in use.tree.find_all(jinja.Filter | jinja.Test) if use.tree else ():  # type: ignore[arg-type]
                if not node.name.isalpha():
                    continue
                span = use.at(self._source, node.lineno - 1, node.name)
                if self._text.of(span) == node.name:
                    what = "a filter" if isinstance(node, jinja.Filter) else "a test"
                    yield from self._changed(
                        f"misspell {what}", span, misspelt(node.name, (*FILTERS, *TESTS))
                    )

    def _types(self) -> Iterator[Mutation]:
        for mapping, schemas in self._schemas():
            for entry in mapping:
                schema = schemas.get(entry.name)
                if schema is None or not _is_own(mapping, entry) or "{{" in self._text.of(entry.value.span):
                    continue
                for new, value in (("5", 5), ("some text", "some text"), ("[some, text]", ["some", "text"])):
                    if value_problems(schema, value, ""):
                        yield from self._valued("swap a type", entry, new)
        root = self._document.root
        wrong: dict[str, tuple[str, ...]] = {
            "steps": ("5", "text"),
            "secrets": ("5", "text"),
            "inputs": ("5", "text"),
        }
        wrong |= {"finally": ("text",)}
        shapes = [(root, wrong)]
        for step in self._document.steps:
            own: dict[str, tuple[str, ...]] = {
                "steps": ("5", "text"),
                "parallel": ("5", "text"),
                "with": ("5", "text"),
                "catch": ("5", "text"),
            }
            own |= {
                "retry": ("[1]",),
                "timeouts": ("5m", "[1]"),
                "compensate": ("5", "text"),
                "for_each": ("5",),
            }
            shapes.append((step.node, own))
            if retry := step.node.mapping("retry"):
                shapes.append(
                    (retry, {"maximum_attempts": ("many", "[3]"), "backoff_coefficient": ("twice",)})
                )
        for mapping, values in shapes:
            for entry in mapping:
                if _is_own(mapping, entry):
                    for new in values.get(entry.name, ()):
                        yield from self._valued("swap a type", entry, new)

    def _schemas(self) -> Iterator[tuple[MappingNode, dict[str, Any]]]:
        """Yield mappings of values with the schemas of their keys."""
        for call in self._document.calls:
            given, activity = call.given, call.activity
            child = self._document.children.get(call.name or "") if call.kind == "pipeline" else None
            if given and activity and activity.input:
                yield given, activity.input.get("properties", {})
            elif given and child:
                yield given, {name: plain(node) for name, node in child.inputs.items()}
        for node in self._document.inputs.values():
            if isinstance(node, MappingNode) and "default" in node:
                yield node, {"default": {k: v for k, v in plain(node).items() if k != "default"}}

    def _valued(self, kind: str, entry: Entry, new: str) -> Iterator[Mutation]:
        """Put another value in the place of an entry's."""
        span = entry.value.span
        old = self._text.of(span)
        if old.endswith("\n"):  # a block scalar, to the end of its last line
            new += "\n"
        if span.line in (span.end_line, entry.key.span.line):
            yield from self._changed(kind, span, new, frozenset([entry.key.span.line]))
            return
        text = self._text.text
        at = self._text.end(entry.key.span)
        text = text[:at] + ": " + new + text[self._text.end(span) :]
        yield from self._made(kind, f"{entry.name}: {new}", text, frozenset([entry.key.span.line]))

    def _durations(self) -> Iterator[Mutation]:
        places = [self._document.root, *(step.node for step in self._document.steps)]
        places += [step.compensation for step in self._document.steps if step.compensation]
        places += [policy for policy in self._document.policies.values() if isinstance(policy, MappingNode)]
        places += [inner for one in places for name in ("timeouts", "retry") if (inner := one.mapping(name))]
        for mapping in places:
            for entry in mapping:
                value = entry.value
                if not isinstance(value, Scalar) or not _is_own(mapping, entry) or "{{" in value.text:
                    continue
                if entry.name in DURATIONS or entry.name == "wait":
                    for new in (f"{value.text} minutes", "10", "PT5M", "5x"):
                        yield from self._valued("a bad duration", entry, new)

    def _moved(self) -> Iterator[Mutation]:
        for use in self._document.uses:
            step = use.step
            if step is None or use.place not in (Place.STEP, Place.FINALLY) or use.key == "output":
                continue
            for reference in use.references:
                other = self._document.ids.get(reference.path[1]) if len(reference.path) > 1 else None
                if reference.path[0] != "steps" or other is None or other.scope is not step.scope:
                    continue
                if other.index + 1 == step.index:
                    text = self._swapped(other, step)
                    ends = frozenset(range(other.node.span.line, step.node.span.end_line + 2))
                    yield from self._made("move a step", f"{step.id} before {other.id}", text, ends)
                    break

    def _swapped(self, first: Step, second: Step) -> str | None:
        one, other = self._text.of(first.node.span), self._text.of(second.node.span)
        if one.endswith("\n") or other.endswith("\n"):
            return None
        text = self._text.text
        a, b = self._text.start(first.node.span), self._text.end(first.node.span)
        c, d = self._text.start(second.node.span), self._text.end(second.node.span)
        return text[:a] + other + text[b:c] + one + text[d:]

    def _ids(self) -> Iterator[Mutation]:
        steps = [step for step in self._document.steps if step.id]
        for before, step in pairwise(steps):
            yield from self._scalar("duplicate an id", step.node.get("id"), before.id)

    def _kinds(self) -> Iterator[Mutation]:
        for step in self._document.steps:
            for line in ("wait: 1s", "set: {a: 1}", "activity: shell.run"):
                if step.kind and line.partition(":")[0] not in step.node:
                    made = self._text.with_entry(step.node, line)
                    if made:
                        end = step.node.span.end_line + 1
                        lines = frozenset(range(step.node.span.line, end + 1))
                        yield from self._made("double a kind", f"{step.kind}, {line}", made[0], lines)

    def _braces(self) -> Iterator[Mutation]:
        for use in self._document.uses:
            if use.bare:
                continue
            span = use.node.span
            start, end = self._text.start(span), self._text.end(span)
            text = self._text.text
            lines = _lines(span)
            for brace in ("}}", "{{"):
                at = text.find(brace, start, end)
                if at >= 0 and "{%" not in use.text:
                    yield from self._made(
                        "unbalance braces",
                        f"{brace} → {brace[0]} in {use.text[:50]}",
                        text[:at] + text[at + 1 :],
                        lines,
                    )

    def _comparisons(self) -> Iterator[Mutation]:
        for step in self._document.steps:
            if "when" in step.node:
                continue
            for name, node in self._document.inputs.items():
                kind = of_schema(plain(node))
                if not isinstance(kind, Plain) or kind.kind not in ("string", "number"):
                    continue
                text = kind.kind == "string"
                for expression in (
                    [f"inputs.{name} == 5", f"inputs.{name} > 5"]
                    if text
                    else [f"inputs.{name} == '5'", f"inputs.{name} < 'a'"]
                ):
                    if made := self._text.with_entry(step.node, f'when: "{expression}"'):
                        yield from self._made(
                            "compare text to a number", expression, made[0], frozenset([made[1]])
                        )


def good_files(folder: Path) -> list[Path]:
    """Copy the files that have no mistakes, and what they need."""
    shutil.copytree(ROOT / "tests/data/ok", folder / "data/ok")
    shutil.copy(ROOT / "tests/data/activities.yaml", folder / "data")
    for path in (ROOT / "tests/data").glob("*.py"):
        shutil.copy(path, folder / "data")
    shutil.copytree(ROOT / "pipelines", folder / "pipelines", ignore=shutil.ignore_patterns("*-worker"))
    paths = [*folder.glob("data/ok/**/*.yaml"), *folder.glob("pipelines/*.yaml")]
    for page in PAGES:
        place = folder / "docs" / page.stem
        for block in blocks(page):
            path = place / block.name
            if block.noted("file") or block.is_pipeline:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(block.text, encoding="utf-8")
            if block.is_pipeline and not block.noted("mistake"):
                paths.append(path)
    return sorted(path for path in paths if path.name not in NAMES)


def of_file(path: Path) -> list[Mutation]:
    """Return the mistakes that can be made in a file, none if something is wrong with it already."""
    workspace = _Workspace(())
    document = workspace.visit(path, path.name).document
    if workspace.remaining_diagnostics() or document is None or "\r" in document.source.text:
        return []
    return list(Mutations(document).every())


def chosen(found: dict[Path, list[Mutation]], limit: int) -> list[tuple[Path, Mutation]]:
    """Choose so many, from all files and of all kinds."""
    luck = random.Random(1)
    groups: dict[str, list[tuple[Path, Mutation]]] = defaultdict(list)
    for path, mutations in found.items():
        for mutation in mutations:
            groups[mutation.kind].append((path, mutation))
    for group in groups.values():
        luck.shuffle(group)
    share = max(1, limit // max(1, len(groups)))
    return [one for group in groups.values() for one in group[:share]]


def test_mistakes_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.chdir(tmp_path)
    found = {path: of_file(path) for path in good_files(tmp_path)}
    total: Counter[str] = Counter()
    caught: Counter[str] = Counter()
    misses: list[str] = []
    for path, mutation in chosen(found, LIMIT):
        before = path.read_text(encoding="utf-8")
        path.write_text(mutation.text, encoding="utf-8")
        told = check_paths([path]).diagnostics
        path.write_text(before, encoding="utf-8")
        total[mutation.kind] += 1
        if any(one.path == str(path) and one.line in mutation.lines for one in told):
            caught[mutation.kind] += 1
        else:
            others = ", ".join(f"{one.line} {one.rule}" for one in told)
            misses.append(
                f"{mutation.kind}: {mutation.what!r} in {path.relative_to(tmp_path)}:{min(mutation.lines)}"
                + (f", told: {others}" if others else "")
            )
    report = [f"{caught[kind]}/{number} {kind}" for kind, number in sorted(total.items())]
    report.append(f"{caught.total()}/{total.total()} in all")
    print("\n".join([*report, *misses]))
    assert len(total) > 15
    assert caught.total() / total.total() >= EXPECTED, "\n".join([*report, *misses])
