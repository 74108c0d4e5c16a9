"""The checker and the evaluator agree about expressions.

Random expressions over values of known types are both judged and evaluated. What an evaluation gives
is of the type that was foretold; what the checker calls an error fails; a comparison of which it says
that it is always the same, is.

``AGREEMENT_EXAMPLES=20000 pytest tests/language/test_agreement.py`` looks further, and elsewhere.
"""

import json
import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from jinja2.nodes import Compare

from pipeline_runner.activities.catalogue.entries import Catalogue
from pipeline_runner.core.expressions.evaluate import evaluate, render
from pipeline_runner.core.expressions.filters import FILTERS, TESTS
from pipeline_runner.core.expressions.parsing import ExpressionError, parse
from pipeline_runner.core.secrets import Secrets, SecretText
from pipeline_runner.language.document import Document
from pipeline_runner.language.types import List, Map, Plain, Secret, Type, Union, of_schema
from pipeline_runner.language.typing.evaluation import Problem
from pipeline_runner.language.typing.inference import Inference
from pipeline_runner.language.yaml import loader
from pipeline_runner.language.yaml.nodes import MappingNode, Source

# A literal that is indexed, as in "5[0]", makes Python's compiler warn.
pytestmark = pytest.mark.filterwarnings("ignore::SyntaxWarning")

EXAMPLES = int(os.environ.get("AGREEMENT_EXAMPLES", "0"))
SETTINGS = settings(
    max_examples=EXAMPLES or 250,
    derandomize=not EXAMPLES,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
)
RUN = {"workflow_id": "w", "run_id": "r-1", "pipeline": "p", "started_at": "2026-01-02T03:04:05Z"}
ERRORS = {
    "filter-type", "not-a-list", "not-comparable", "null-in-text", "operand-type", "secret-use", "unknown-attribute",
}  # fmt: skip

# The values, each with its schema.

TEXT = st.sampled_from(["", "a", "b", "abc", "7", "1.5", "a b", "true", "[1]", '{"a": 1}', "é\n", "id"])
NUMBER = st.sampled_from([0, 1, 2, 3, 7, -1, 1.0, 0.5, -2.5, 100, 2**62])
BOOLEAN = st.booleans()
ANYTHING = st.recursive(
    st.one_of(st.none(), BOOLEAN, NUMBER, TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=4,
)
CLOSED = {
    "type": "object", "required": ["id"], "additionalProperties": False,
    "properties": {
        "id": {"type": "string"}, "size": {"type": "integer"}, "extra": {"type": ["string", "null"]},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
}  # fmt: skip
CLOSED_VALUE = st.fixed_dictionaries(
    {"id": TEXT},
    optional={"size": st.integers(-3, 3), "extra": st.none() | TEXT, "tags": st.lists(TEXT, max_size=2)},
)
INPUTS: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "text": ({"type": "string"}, TEXT),
    "choice": ({"enum": ["a", "b", "id"]}, st.sampled_from(["a", "b", "id"])),
    "number": ({"type": "number"}, NUMBER),
    "count": ({"type": "integer"}, st.integers(-2, 5)),
    "level": ({"enum": [1, 2, 3]}, st.sampled_from([1, 2, 3])),
    "flag": ({"type": "boolean"}, BOOLEAN),
    "always": ({"const": True}, st.just(True)),
    "nothing": ({"type": "null"}, st.none()),
    "maybe": ({"type": ["string", "null"]}, st.none() | TEXT),
    "either": ({"anyOf": [{"type": "string"}, {"type": "number"}]}, TEXT | NUMBER),
    "mixed": ({"enum": ["x", 1, None, True]}, st.sampled_from(["x", 1, None, True])),
    "numbers": ({"type": "array", "items": {"type": "integer"}}, st.lists(st.integers(-2, 5), max_size=3)),
    "words": ({"type": "array", "items": {"type": "string"}}, st.lists(TEXT, max_size=3)),
    "choices": ({"type": "array", "items": {"enum": ["a", "b"]}}, st.lists(st.sampled_from(["a", "b"]), max_size=3)),
    "records": ({"type": "array", "items": CLOSED}, st.lists(CLOSED_VALUE, max_size=3)),
    "things": ({"type": "array"}, st.lists(ANYTHING, max_size=3)),
    "pair": (
        {"type": "array", "prefixItems": [{"type": "string"}, {"type": "number"}]},
        st.tuples(TEXT, NUMBER).map(list),
    ),
    "closed": (CLOSED, CLOSED_VALUE),
    "open": (
        {"type": "object", "properties": {"id": {"type": "string"}}},
        st.dictionaries(st.sampled_from(["a", "b", "more"]), ANYTHING, max_size=2),
    ),
    "free": (
        {"type": "object", "additionalProperties": {"type": "integer"}},
        st.dictionaries(st.sampled_from(["a", "b", "id"]), st.integers(-2, 5), max_size=3),
    ),
    "nested": (
        {
            "type": "object", "additionalProperties": False,
            "properties": {"inner": {"$ref": "#/$defs/closed"}, "list": {"type": "array", "items": {"type": "array"}}},
            "$defs": {"closed": CLOSED},
        },
        st.fixed_dictionaries({"inner": CLOSED_VALUE, "list": st.lists(st.lists(ANYTHING, max_size=2), max_size=2)}),
    ),
    "shape": (
        {"oneOf": [CLOSED, {"type": "array", "items": {"type": "number"}}, {"type": "null"}]},
        st.one_of(CLOSED_VALUE, st.lists(NUMBER, max_size=2), st.none()),
    ),
    "anything": ({}, ANYTHING),
}  # fmt: skip
SEEDS = st.integers(0, 2**32 - 1)
"""Of expressions: left to hypothesis, most of them are too simple to show anything."""
VALUES = st.fixed_dictionaries({name: values for name, (_, values) in INPUTS.items()})

# Expressions, by what they roughly are. The wrong kind is taken now and then.

ATOMS = {
    "text": [
        "inputs.text", "inputs.choice", "inputs.closed.id", "inputs['closed']['id']", "inputs.nested.inner.id", "run.run_id",
        "inputs.words[0]", "inputs.records[0].id", "inputs.maybe", "inputs.either", "inputs.mixed", "'a'", "'x'", "''", "'abc'",
        "inputs.pair[0]", "inputs.open.id", "inputs.text[0]", "inputs.text[:2]", "inputs.choice[1:]", "'id'", "'7'",
    ],
    "number": [
        "inputs.number", "inputs.count", "inputs.level", "inputs.closed.size", "inputs.numbers[0]", "inputs.free.a",
        "inputs.free['b']", "inputs.either", "inputs.pair[1]", "0", "1", "2", "3", "1.5", "-1", "4", "inputs.numbers[-1]",
    ],
    "boolean": ["inputs.flag", "inputs.always", "true", "false", "inputs.mixed"],
    "list": [
        "inputs.numbers", "inputs.words", "inputs.records", "inputs.things", "inputs.pair", "inputs.choices", "[]", "[1, 2]",
        "['a', 'b']", "[1, 'a']", "(1, 2)", "inputs.closed.tags", "inputs.numbers[1:]", "inputs.nested.list", "inputs.shape",
        "['id']", "inputs.nested.list[0]", "[[1], [2]]", "[none]", "[['a', 1]]",
    ],
    "map": [
        "inputs.closed", "inputs.open", "inputs.free", "inputs.records[0]", "inputs.nested", "inputs.nested.inner", "{}",
        "{'a': 1}", "{'id': 1, 'size': 'x'}", "inputs.shape", "run", "inputs", "{'a': none}",
    ],
    "other": ["inputs.nothing", "none", "inputs.anything", "inputs.mixed", "inputs.maybe", "inputs.things[0]"],
}  # fmt: skip
WRONG = [
    "inputs.closed.nope", "inputs.text.x", "inputs.nothing.a", "inputs.numbers.first", "inputs.text[99]", "inputs.open.extra",
    "inputs.free.zzz", "inputs.records.id", "inputs.count.a", "inputs.flag[0]", "inputs.closed[0]", "inputs.nope",
    "inputs.words[9]", "inputs.maybe.x", "inputs.shape.nope", "inputs.shape.id", "inputs.closed.idd", "inputs.run_id", "run.nope",
    "inputs.level[1:]", "inputs.closed.extra.x", "inputs.either.x", "inputs.nested.inner.nope", "inputs.anything.a",
]  # fmt: skip
KINDS = list(ATOMS)
OPERATORS = ["+", "-", "*", "/", "//", "%", "**"]
COMPARISONS = ["==", "!=", "<", "<=", ">", ">=", "in", "not in"]
LAZY = {"items", "map", "reject", "rejectattr", "reverse", "select", "selectattr", "unique"}
KEYS = ["a", "b", "id", "size", "extra", "nope", "x"]
BY_KIND: dict[str, list[str]] = {
    "text": [
        "capitalize", "indent", "join", "lower", "replace", "string", "title", "tojson", "trim", "truncate", "upper",
        "urlencode", "first", "last", "max", "min", "reverse", "default",
    ],
    "number": ["abs", "count", "float", "int", "length", "round", "sum", "first", "last", "max", "min", "d"],
    "boolean": ["default", "first", "fromjson"],
    "list": [
        "split", "keys", "values", "dictsort", "items", "list", "map", "reject", "rejectattr", "select", "selectattr",
        "sort", "unique", "reverse", "default", "fromjson",
    ],
    "map": ["combine", "default", "first", "last", "fromjson"],
    "other": ["default", "d", "fromjson", "first"],
}  # fmt: skip
TAKES = {
    **dict.fromkeys(["abs", "round"], "number"),
    **dict.fromkeys(["combine", "dictsort", "items", "keys", "values"], "map"),
    **dict.fromkeys(
        ["capitalize", "indent", "lower", "replace", "split", "title", "trim", "truncate", "upper", "fromjson"], "text"
    ),
    **dict.fromkeys(["default", "d", "string", "tojson", "urlencode", "int", "float"], "other"),
}  # fmt: skip


class Writer:
    """Writes an expression.

    One that is ``certain`` has no part that may not be looked at: no conditions, no ``default``, no
    tests of what is not there, no elements or arguments that do not exist.
    """

    def __init__(self, luck: Callable[[int], int], *, certain: bool, names: dict[str, str]) -> None:
        self._luck = luck
        """A number below this one."""
        self._certain = certain
        self._atoms = {
            kind: atoms + [name for name, its in names.items() if its == kind]
            for kind, atoms in ATOMS.items()
        }

    def of(self, kind: str, depth: int, *, safe: bool = False) -> str:
        """Write one of about this kind; ``safe``: nothing in it is undefined on its own."""
        luck = self._luck(20)
        if luck == 0:
            kind = self._one(KINDS)
        if luck == 1 and not (safe and self._certain):
            return self._wrong()
        if depth <= 0 or luck < 5 or (safe and self._certain):
            return self._one((ATOMS if safe and self._certain else self._atoms)[kind])
        return str(getattr(self, f"_{kind}")(depth - 1))

    def comparison(self, depth: int) -> str:
        kind = self._one(KINDS)
        operator = self._one(COMPARISONS)
        if operator in ("in", "not in"):
            left = self.of(kind, depth, safe=True)
            return f"({left} {operator} {self.of(self._one(['list', 'list', 'map', 'text']), depth)})"
        other = kind if self._luck(4) else self._one(KINDS)
        chain = (
            f" {self._one(COMPARISONS[:6])} {self.of(kind, depth)}"
            if not self._certain and not self._luck(8)
            else ""
        )
        return f"({self.of(kind, depth)} {operator} {self.of(other, depth)}{chain})"

    def template(self, depth: int) -> str:
        """Write a text with templates in it."""
        parts = [self._one(["x ", "- ", "é\n"])]
        for _ in range(1 + self._luck(3)):
            kind = self._one(KINDS)
            expression = f"{{{{ {self.of(kind, depth)} }}}}"
            if not self._certain:
                match self._luck(5):
                    case 2:
                        # Its name, too, is set or not, and of one type or another.
                        name = self._one(["v", "w"])
                        expression = f"{{% set {name} = {self.of(kind, depth)} %}}{expression}{{{{ {self._one(['v', 'w', 'v.id'])} }}}}"
                        if not self._luck(3):
                            test, other = self.of("boolean", 1), self.of(self._one(KINDS), 1)
                            expression = f"{{% set {name} = {other} %}}{{% if {test} %}}{expression}{{% endif %}}{{{{ {name} }}}}"
                    case 0:
                        expression = (
                            f"{{% if {self.of('boolean', 1)} %}}{expression}{{% else %}}n{{% endif %}}"
                        )
                    case 1:
                        inner = self._one(["x", "loop.index", "x.id", "loop", "x ~ loop.last"])
                        expression = f"{{% for x in {self.of('list', 1)} %}}{{{{ {inner} }}}},{expression}{{% endfor %}}"
            parts.append(expression)
        return "".join(parts)

    def _one(self, items: list[str]) -> str:
        return items[self._luck(len(items))]

    def _wrong(self) -> str:
        return self._one(WRONG)

    def _any(self, depth: int, kind: str) -> str:
        """Write what may give any kind."""
        match self._luck(4 if self._certain else 7):
            case 0 | 1:
                return self._filter(self._one(BY_KIND[kind]), depth)
            case 2:
                return self._filter(self._one(list(FILTERS)), depth)
            case 3:
                return f"{self._group(self.of(self._one(['list', 'map']), depth))}[{self.of(self._one(['number', 'text']), 0, safe=True)}]"
            case 4:
                no = f" else {self.of(kind, depth)}" if self._luck(6) else ""
                return f"({self.of(kind, depth)} if {self.of('boolean', depth)}{no})"
            case 5:
                return f"({self.of(kind, depth)} {self._one(['and', 'or'])} {self.of(kind, depth)})"
            case _:
                name = self._one(["default", "d"])
                arguments = self._one(
                    [
                        "",
                        f"({self.of(kind, 0)})",
                        f"({self.of(kind, 0)}, true)",
                        f"(default_value={self.of(kind, 0)})",
                    ]
                )
                return f"({self.of(kind, depth)})|{name}{arguments}"

    def _text(self, depth: int) -> str:
        match self._luck(4):
            case 0:
                return f"({self.of('text', depth)} ~ {self.of(self._one(KINDS), depth)})"
            case 1:
                return f"({self.of('text', depth)} + {self.of('text', depth)})"
        return self._any(depth, "text")

    def _number(self, depth: int) -> str:
        match self._luck(3):
            case 0:
                return f"({self.of('number', depth)} {self._one(OPERATORS)} {self.of('number', depth)})"
            case 1:
                return f"{self._one(['-', '+', '-'])}{self._group(self.of('number', depth))}"
        return self._any(depth, "number")

    def _boolean(self, depth: int) -> str:
        match self._luck(5):
            case 0 | 1:
                return self.comparison(depth)
            case 2:
                return f"(not {self.of('boolean', depth)})"
            case 3:
                test = self._one(
                    list(TESTS) if not self._certain else ["even", "lower", "eq(1)", "divisibleby(2)"]
                )
                if test in ("divisibleby", "in") or (test != "defined" and not self._luck(3)):
                    test = f"{test.partition('(')[0]}({self.of(self._one(KINDS), 0, safe=True)})"
                if not test[0].isalpha():
                    test = "string"
                return f"({self._group(self.of(self._one(KINDS), depth))} is {self._one(['', 'not '])}{test})"
        return self._any(depth, "boolean")

    def _list(self, depth: int) -> str:
        match self._luck(5):
            case 0:
                items = [self.of(self._one(KINDS), depth, safe=True) for _ in range(self._luck(4))]
                return self._one([f"[{', '.join(items)}]", f"({', '.join(items)},)" if items else "()"])
            case 1:
                return f"({self.of('list', depth)} + {self.of('list', depth)})"
            case 2:
                bounds = [self.of("number", 0, safe=True) for _ in range(1 + self._luck(2))]
                return f"range({', '.join(bounds)})"
            case 3:
                return f"{self._group(self.of('list', depth))}[{self._one(['1:', ':1', ':', '::2', '-1:'])}]"
        return self._any(depth, "list")

    def _map(self, depth: int) -> str:
        if self._luck(3):
            return self._any(depth, "map")
        pairs = []
        for _ in range(self._luck(4)):
            key = f"'{self._one(KEYS)}'" if self._luck(4) else self.of("text", 0, safe=True)
            pairs.append(f"{key}: {self.of(self._one(KINDS), depth, safe=True)}")
        return f"{{{', '.join(pairs)}}}"

    _other = _boolean

    def _filter(self, name: str, depth: int) -> str:
        if self._certain and name in ("default", "d"):
            name = "string"
        kind = TAKES.get(name, "list")
        value = self._group(self.of(kind if kind != "other" else self._one(KINDS), depth))
        text = f"{value}|{name}{self._arguments(name)}"
        if self._certain and name in LAZY:
            text += "|list"
        if name in LAZY and self._luck(2):
            text += self._one(["|list", "|first", "|length", "|join(',')"])
        return f"({text})" if self._luck(3) else f"({text})[0]" if not self._luck(4) else f"({text}|list)"

    def _arguments(self, name: str) -> str:  # noqa: PLR0912 - one case a filter
        """Write sensible arguments, or none, or others."""
        match self._luck(6):
            case 0:
                return ""
            case 1:
                return f"({', '.join(self.of(self._one(KINDS), 0, safe=True) for _ in range(1 + self._luck(2)))})"
        key = f"'{self._one(KEYS)}'"
        value = self.of(self._one(KINDS), 0, safe=True)
        match name:
            case "map":
                return self._one([
                    f"(attribute={key})", "('upper')", "('string')", f"('int', {value})", "('length')", "('first')",
                    f"(attribute={key}, default={value})", f"('default', {value})",
                ])  # fmt: skip
            case "select" | "reject":
                return self._one(
                    ["", "('string')", "('odd')", f"('eq', {value})", "('none')", f"('in', {value})"]
                )
            case "selectattr" | "rejectattr":
                return self._one([f"({key})", f"({key}, 'eq', {value})", f"({key}, 'defined')"])
            case "sort" | "unique" | "max" | "min":
                return self._one(["", f"(attribute={key})", "(reverse=true)", "(case_sensitive=true)"])
            case "sum":
                return self._one(["", f"(attribute={key})", f"(start={value})", f"('size', {value})"])
            case "join":
                return self._one(["", "(',')", f"(attribute={key})", f"({value})"])
            case "int" | "float":
                return self._one(["", f"({value})", f"(default={value})"])
            case "round":
                return self._one(["", "(1)", "(0, 'floor')", "(method='ceil')"])
            case "replace":
                return f"({self._one(self._atoms['text'])}, {self._one(self._atoms['text'])})"
            case "split":
                return self._one(["", "(',')", f"({value})", "(limit=1)"])
            case "combine":
                return f"({', '.join(self.of('map', 0, safe=True) for _ in range(1 + self._luck(2)))})"
            case "dictsort":
                return self._one(["", "(by='value')", "(false, 'key', true)"])
            case "tojson" | "indent" | "truncate":
                return self._one(["", "(2)", "(4, true)"])
            case "default" | "d":
                return self._one(
                    [
                        "",
                        f"({value})",
                        f"({value}, true)",
                        f"(default_value={value})",
                        f"(boolean=true, default_value={value})",
                    ]
                )
        return ""

    def _group(self, text: str) -> str:
        return text if text.replace("_", "").replace(".", "").isalnum() else f"({text})"


@dataclass(frozen=True, kw_only=True)
class Case:
    """An expression, and what it sees."""

    expression: str
    mode: str
    """``lone``, ``bare`` or ``text``."""
    inputs: dict[str, Any]
    before: str = "none"
    """Of the step before it, ``before``: its output's key ``v``."""
    each: str = ""
    """What the step goes through; empty: nothing."""


def written(luck: Callable[[int], int], inputs: dict[str, Any], *, certain: bool = False) -> Case:
    def one(items: list[str]) -> str:
        return items[luck(len(items))]

    first = Writer(luck, certain=False, names={})
    before = first.of(one(KINDS), 2) if luck(2) else "none"
    each = first.of("list", 1) if not luck(4) else ""
    mode = one(["lone", "bare", "text"])
    names = {"steps.before.output.v": one(KINDS), "steps.before.output": "map", "steps.before": "map"}
    names |= {"steps.before.output.w": "other", "steps.before.status": "text"}
    if each:
        names |= {"item": one(KINDS), "index": "number", "item.id": "text"}
    if mode != "bare":
        names |= {"secrets.TOKEN": "text"}
    writer = Writer(luck, certain=certain, names=names)
    depth = luck(4)
    text = writer.template(depth - 1) if mode == "text" else writer.of(one(KINDS), depth)
    return Case(expression=text, mode=mode, inputs=inputs, before=before, each=each)


@st.composite
def cases(draw: Callable[[st.SearchStrategy[Any]], Any], *, certain: bool = False) -> Case:
    return written(random.Random(draw(SEEDS)).randrange, draw(VALUES), certain=certain)


def documented(case: Case) -> tuple[Document, Type, list[Problem], dict[str, Type]]:
    """Return what the checker says: the type and the problems, and the types of what is before."""
    with_ = {"v": case.expression if case.mode == "text" else f"{{{{ {case.expression} }}}}"}
    step: dict[str, Any] = {"id": "it", "activity": "x.y", "with": with_}
    if case.mode == "bare":
        step |= {"when": case.expression, "with": {}}
    if case.each:
        step["for_each"] = case.each
    data = {
        "version": 1, "name": "p", "secrets": ["TOKEN"],
        "inputs": {name: schema for name, (schema, _) in INPUTS.items()},
        "steps": [{"id": "before", "set": {"v": f"{{{{ {case.before} }}}}"}}, step],
    }  # fmt: skip
    source = Source("p.yaml", json.dumps(data))
    root, found = loader.load(source)
    assert isinstance(root, MappingNode), found
    document = Document(source, root, Path("/p.yaml"), Catalogue([]), complete=False)
    uses = {use.key: use for use in document.uses}
    use = uses["when" if case.mode == "bare" else "with"]
    assert not use.errors, (use.errors[0].message, use.text)
    inferred = Inference(document)
    types = {"before": inferred.of(uses["set"])}
    if "for_each" in uses:
        types["each"] = inferred.of(uses["for_each"])
        types["item"] = inferred.element(document.ids["it"])
    return document, inferred.of(use), inferred.problems(use), types


NOTHING = object()


def evaluated(case: Case, types: dict[str, Type]) -> Any:
    """Return what the evaluation gives, ``NOTHING`` if it fails."""
    steps: dict[str, Any] = {}
    names: dict[str, Any] = {"inputs": case.inputs, "steps": steps, "run": RUN}
    names["secrets"] = Secrets(("TOKEN",))
    try:
        value = evaluate(case.before, names)
        assert belongs(value, types["before"]), ("before", value, types["before"])
        steps["before"] = {"output": {"v": value}, "status": "completed", "error": None}
        if case.each:
            elements = evaluate(case.each, names)
            assert belongs(elements, types["each"]), ("each", elements, types["each"])
            if isinstance(elements, list) and elements:
                assert belongs(elements[0], types["item"]), ("item", elements, types["item"])
                names |= {"item": elements[0], "index": 0}
    except ExpressionError:
        pass
    try:
        if case.mode == "bare":
            return evaluate(case.expression, names)
        return render(case.expression if case.mode == "text" else f"{{{{ {case.expression} }}}}", names)
    except ExpressionError:
        return NOTHING


def belongs(value: Any, kind: Type) -> bool:
    """Tell whether a value is of a type."""
    match kind:
        case Union(options=options):
            return any(belongs(value, option) for option in options)
        case Secret():
            return isinstance(value, SecretText)
        case Plain(kind=name, values=values):
            if not _is_a(value, name):
                return False
            return values is None or any(
                isinstance(value, bool) is isinstance(one, bool) and value == one for one in values
            )
        case List(item=item):
            return isinstance(value, list) and all(belongs(one, item) for one in value)
        case Map(keys=keys, others=others, rest=rest):
            if not isinstance(value, dict):
                return False
            return all(
                belongs(one, keys[key]) if key in keys else others != "none" and belongs(one, rest)
                for key, one in value.items()
            )
    return True


def _is_a(value: Any, name: str) -> bool:
    match name:
        case "string":
            return isinstance(value, str)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "boolean":
            return isinstance(value, bool)
    return value is None


def check(case: Case, *, certain: bool = False) -> None:
    _, kind, problems, types = documented(case)
    value = evaluated(case, types)
    if value is not NOTHING:
        assert belongs(value, kind), (case.expression, value, kind)
        errors = [problem for problem in problems if problem.rule in ERRORS]
        assert not (certain and errors), (case.expression, value, errors)


@SETTINGS
@given(cases())
def test_values_are_of_the_foretold_types(case: Case) -> None:
    """Whatever an evaluation gives; whatever else it raises than an ``ExpressionError`` is a fault too."""
    check(case)


@SETTINGS
@given(cases(certain=True))
def test_errors_are_errors(case: Case) -> None:
    """Where every part of an expression is looked at, an error of the checker is one of the evaluation."""
    check(case, certain=True)


@st.composite
def comparisons(draw: Callable[[st.SearchStrategy[Any]], Any]) -> Case:
    luck = random.Random(draw(SEEDS)).randrange
    writer = Writer(luck, certain=True, names={})
    return Case(expression=writer.comparison(luck(2)), mode="bare", inputs=draw(VALUES))


@SETTINGS
@given(comparisons())
def test_constant_comparisons_are_constant(case: Case) -> None:
    """What is "always false" is false whatever the values are."""
    compare(case)


def compare(case: Case) -> None:
    _, _, problems, types = documented(case)
    told = [problem for problem in problems if problem.rule == "constant-comparison"]
    value = evaluated(case, types)
    alone = len(list(parse(case.expression, bare=True).tree.find_all(Compare))) == 1
    if alone and told and value is not NOTHING:
        assert f"always {str(value).lower()}" in told[0].message, (case.expression, value, told)


@SETTINGS
@given(VALUES)
def test_inputs_are_of_the_types_of_their_schemas(values: dict[str, Any]) -> None:
    for name, value in values.items():
        assert belongs(value, of_schema(INPUTS[name][0])), (name, value)


FOUND: list[tuple[str, str, dict[str, Any]]] = [
    # The expression, how it is used, and the inputs that matter. All of these were disagreements once.
    ("inputs.words[9]|default(default_value=true)", "lone", {"words": []}),
    ("inputs.flag|default(boolean=true, default_value=2)", "lone", {"flag": False}),
    ("inputs.shape|int(default=inputs.closed)", "lone", {"shape": None}),
    ("inputs.numbers|float(inputs.text)", "bare", {}),
    ("inputs.numbers|sum(start=inputs.text)", "bare", {"numbers": []}),
    ("inputs.numbers|sum('size', inputs.text)|list", "bare", {"numbers": []}),
    ("'abc'|reverse", "bare", {}),
    ("inputs.shape|reverse", "bare", {"shape": [1]}),
    ("inputs.nothing|map('upper')", "bare", {}),
    ("inputs.nothing|select|list", "bare", {}),
    ("{'id': 1, inputs.text: 'x'}.id", "bare", {"text": "id"}),
    ("{'': 1, 'a': 2}", "bare", {}),
    ("{'id': 1}|combine(inputs.nested.inner)", "bare", {}),
    ("{'size': 'a'}|combine(inputs.closed)", "bare", {"closed": {"id": "a"}}),
    ("inputs.closed.nope is none", "bare", {}),
    ("inputs.closed.nope is not string", "bare", {}),
    ("steps.before", "bare", {}),
    ("steps.before.error", "bare", {}),
    ("steps.before.error|default('x')", "bare", {}),
    ("x{% if inputs.flag %}{{ secrets.TOKEN }}{% endif %}", "text", {"flag": False}),
    ("x{% if inputs.flag %}{{ secrets.TOKEN }}{% endif %}", "text", {"flag": True}),
    ("x{% for x in inputs.words %}{{ secrets.TOKEN }}{% endfor %}", "text", {"words": []}),
    ("'x' ~ (secrets.TOKEN if inputs.flag else 'y')", "lone", {"flag": False}),
    ("'x' ~ (secrets.TOKEN if inputs.flag else 'y')", "lone", {"flag": True}),
    ("(1, 2) * 3", "bare", {}),
    ("inputs.numbers|keys", "bare", {"numbers": [1]}),
    ("inputs.numbers|combine({'a': 1})", "bare", {"numbers": []}),
    ("inputs.closed.nope|items|list", "bare", {}),
    ("inputs.text|sum", "bare", {"text": ""}),
    ("inputs.count|map('upper')", "bare", {"count": 0}),
    ("{inputs.either: true, 'size': 1}|keys", "bare", {"either": 100}),
    ("{inputs.either: true, 'size': 1}|combine({'a': 1})|list", "bare", {"either": 100}),
    ("x{{ secrets.TOKEN if inputs.flag }}", "text", {"flag": True}),
    # These raised what is no ExpressionError.
    ("inputs.count|values", "bare", {"count": 5}),
    ("inputs.numbers|dictsort", "bare", {"numbers": [1]}),
    ("inputs.words|join(inputs.numbers)", "bare", {"words": ["a"]}),
]  # fmt: skip
SIMPLE: dict[str, Any] = {
    "text": "a", "choice": "a", "number": 1, "count": 1, "level": 1, "flag": True, "always": True, "nothing": None,
    "maybe": None, "either": 1, "mixed": None, "numbers": [1], "words": ["a"], "choices": ["a"], "records": [],
    "things": [], "pair": ["a", 1], "closed": {"id": "a"}, "open": {}, "free": {}, "nested": {"inner": {"id": "b"}},
    "shape": None, "anything": None,
}  # fmt: skip


@pytest.mark.parametrize(("expression", "mode", "inputs"), FOUND)
def test_disagreements_that_were_found(expression: str, mode: str, inputs: dict[str, Any]) -> None:
    conditional = "if " in expression or "for " in expression or "default" in expression
    case = Case(expression=expression, mode=mode, inputs=SIMPLE | inputs)
    check(case, certain=not conditional)


@pytest.mark.parametrize(
    ("expression", "inputs"),
    [
        ("1 not in [[1], [2]]", {}),
        ("true not in inputs.words", {}),
        ("'x' not in inputs.choices", {}),
        ("'x' in inputs.choices", {}),
        ("inputs.level == 'x'", {}),
        ("inputs.choice != 'x'", {}),
    ],
)
def test_comparisons_that_were_told_wrongly(expression: str, inputs: dict[str, Any]) -> None:
    case = Case(expression=expression, mode="bare", inputs=SIMPLE | inputs)
    assert documented(case)[2]
    compare(case)


@pytest.mark.parametrize(
    ("expression", "rule"),
    [
        # ``default`` stands in for what is undefined, and not for an expression that fails before it.
        ("inputs.closed.nope|default('x')", None),
        ("(inputs.closed.nope|upper)|default('x')", "unknown-attribute"),
        ("(inputs.closed.nope ~ 'a')|default('x')", "unknown-attribute"),
        ("(inputs.closed.nope if inputs.flag else 1)|default('x')", None),
        ("inputs.closed.idd|default('x')", "undeclared-attribute"),
        ("inputs.closed.nope is defined", None),
        ("inputs.closed.nope is none", "undeclared-attribute"),
    ],
)
def test_what_stands_in_for_the_undefined(expression: str, rule: str | None) -> None:
    problems = documented(Case(expression=expression, mode="bare", inputs=SIMPLE))[2]
    assert [problem.rule for problem in problems] == ([rule] if rule else [])


def test_every_filter_is_written() -> None:
    assert {name for names in BY_KIND.values() for name in names} == set(FILTERS)
