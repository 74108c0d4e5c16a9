"""Infers the type of an expression from the types of its names, and finds what cannot work in it.

It walks an expression as its evaluation would (:mod:`pipeline_runner.core.expressions.evaluate`). Where
that would certainly fail, there is a problem.
"""

from collections.abc import Callable, Sequence
from collections.abc import Mapping as AnyMapping
from types import MappingProxyType
from typing import Any, Protocol

import msgspec
from jinja2 import nodes as jinja

from pipeline_runner.core.expressions.filters import FILTERS, range_problem
from pipeline_runner.core.expressions.parsing import branches
from pipeline_runner.core.scope import RUN_KEYS, Place
from pipeline_runner.core.suggest import did_you_mean, listed
from pipeline_runner.language.document import Step, Use
from pipeline_runner.language.types import (
    ANY,
    ANY_LIST,
    ANY_MAP,
    BOOLEAN,
    ERROR,
    NULL,
    NUMBER,
    SECRET,
    STRING,
    List,
    Map,
    Plain,
    Type,
    Union,
    base,
    may_be,
    of_value,
    options,
    union,
    words,
)
from pipeline_runner.language.typing import operators, signatures
from pipeline_runner.language.typing.naming import filter_help, is_result, named, path_of, paths_in
from pipeline_runner.language.typing.operators import Mistake

_STATUS = Plain(
    "string",
    ("pending", "running", "waiting", "completed", "skipped", "failed", "caught", "cancelled"),
)
_ERROR_OR_NULL = union([ERROR, NULL])
_RUN_STATUS = Plain("string", ("completed", "failed", "timed_out", "cancelled"))
_LOOP = Map({"index": NUMBER, "index0": NUMBER, "first": BOOLEAN, "last": BOOLEAN, "length": NUMBER}, "none")
_UNSEEING = (
    "none", "string", "number", "integer", "float", "boolean", "true", "false", "mapping", "sequence",
)  # fmt: skip
"""The tests that are false for undefined values; the others fail."""


class Problem(msgspec.Struct, frozen=True):
    """A part of an expression that cannot work, or not as intended."""

    rule: str
    offset: int
    """In the tree."""
    word: str
    """The word that it is about, at or after the offset."""
    message: str
    help: str | None = None


class Types(Protocol):
    """What an expression needs to know about its file."""

    @property
    def inputs(self) -> Map:
        """The type of ``inputs``."""

    def element(self, step: Step) -> Type:
        """Return the type of the elements of a step with ``for_each``."""

    def single(self, step: Step) -> Type:
        """Return the type of a step's output, or that of a loop, if no error of it was caught."""

    def step_of(self, use: Use) -> Type:
        """Return the type of ``step`` for a template."""

    def output_of(self, name: str, use: Use) -> Type | None:
        """Return the type of a step's output; None: the template does not see the step."""


class Evaluation:
    """Walks one expression as its evaluation would."""

    _inserted: list[tuple[jinja.Expr, Type]] | None = None
    """The values that are inserted into strings, if they are requested."""
    _bound: AnyMapping[str, Type] = MappingProxyType({})
    """The variables of loops and of ``set``."""
    _lenient = False
    """Whether undefined values are allowed, as before ``default``."""
    _asked: tuple[jinja.Node, ...] = ()
    """The enclosing conditions, which may have checked whether a value exists."""
    _unseen = False
    """Whether undefined values are ignored, as before ``is none``."""

    def __init__(self, types: Types, use: Use, found: list[Problem]) -> None:
        self._types = types
        self._use = use
        self._found = found

    def result(self, tree: jinja.Template) -> Type:
        """Return the type of the whole result."""
        if not self._use.is_lone:
            return self._body(tree.body)
        (output,) = tree.body
        assert isinstance(output, jinja.Output)
        return self._of(output.nodes[0])

    def insertions(self) -> list[tuple[jinja.Expr, Type]]:
        """Return the expressions whose values become parts of a string, with their types."""
        self._inserted = []
        self._body(self._use.tree.body if self._use.tree else ())
        return self._inserted

    def _body(self, parts: Sequence[jinja.Node]) -> Type:
        """Walk a string, and the statements in it."""
        kinds: list[Type] = []
        for part in parts:
            match part:
                case jinja.Output():
                    kinds += [
                        self._in_text(node) for node in part.nodes if not isinstance(node, jinja.TemplateData)
                    ]
                case jinja.If():
                    kinds.append(self._branches(part))
                case jinja.Assign(target=jinja.Name(name=name)):
                    self._bound = {**self._bound, name: self._of(part.node)}
                case jinja.For():
                    kinds.append(self._loop(part))
        return _text_of(kinds)

    def _branches(self, node: jinja.If) -> Type:
        asked, bound = self._asked, self._bound
        self._ask(node.test)
        results, after = [], dict(bound)
        for branch in branches(node):
            self._bound = bound
            results.append(self._body(branch))
            for name, kind in self._bound.items():
                if kind is not bound.get(name):
                    after[name] = union([after[name], kind]) if name in after else kind
        self._asked, self._bound = asked, after
        return union(results)

    def _insert(self, node: jinja.Expr | None, inserted: list[tuple[jinja.Expr, Type]]) -> None:
        match node:
            case jinja.CondExpr(expr1=first, expr2=second):
                self._insert(first, inserted)
                self._insert(second, inserted)
            case jinja.Expr() if not isinstance(node, jinja.Concat):  # its parts are reported one by one
                inserted.append((node, self._of(node)))

    def _in_text(self, node: jinja.Expr) -> Type:
        kind = self._of(node)
        if self._inserted is not None:
            self._insert(node, self._inserted)
        if kind == NULL:
            self._report(
                "null-in-text", node, f"{named(node)} is null, which cannot be put into a string",
                "use default('') or a condition",
            )  # fmt: skip
        return kind

    def _loop(self, node: jinja.For) -> Type:
        items = self._of(node.iter)
        if not may_be(items, (ANY_LIST, ANY_MAP, STRING)):
            self._report("not-a-list", node.iter, f"{named(node.iter)} is {words(items)}, not a list")
        before = self._bound
        names = [name.name for name in node.target.find_all(jinja.Name)]
        element = union([kind.item if isinstance(kind, List) else ANY for kind in options(items)])
        if isinstance(node.target, jinja.Name):
            names, self._bound = [], {**before, node.target.name: element}
        self._bound = {**self._bound, **dict.fromkeys(names, ANY), "loop": _LOOP}
        asked = self._asked
        if node.test:
            self._ask(node.test)
        result = self._body(node.body)
        self._bound, self._asked = before, asked
        results = [result, self._body(node.else_)]
        self._bound = before
        return union(results)

    def _of(self, node: jinja.Node | None) -> Type:
        """Return the type of an expression."""
        rule = _RULES.get(type(node))
        if not self._lenient or _is_handed_on(node):
            return rule(self, node) if rule else self._operation(node)
        # An undefined value fails here, before anything could replace it.
        self._lenient = False
        kind = rule(self, node) if rule else self._operation(node)
        self._lenient = True
        return kind

    def _operation(self, node: jinja.Node | None) -> Type:
        match node:
            case jinja.UnaryExpr():
                return self._sign(node)
            case jinja.BinExpr():
                return self._arithmetic(node)
        return ANY

    def _const(self, node: jinja.Const) -> Type:
        return of_value(node.value)

    def _list(self, node: jinja.List | jinja.Tuple) -> Type:
        return List(union([self._of(item) for item in node.items]))

    def _dict(self, node: jinja.Dict) -> Type:
        keys: dict[str, Type] = {}
        computed: list[Type] = []
        for pair in node.items:
            kind = self._of(pair.value)
            match pair.key:
                case jinja.Const(value=str(name)):
                    keys[name] = kind
                case _:
                    computed.append(self._of(pair.key))
        if not computed:
            return Map(keys, "none")
        # It may be equal to any other; and a mapping with keys other than strings is not JSON.
        return ANY_MAP if base(union(computed)) == STRING else ANY

    def _ask(self, test: jinja.Node) -> Type:
        """Walk a condition. From then on, it is in doubt whether the values in it exist."""
        kind = self._of(test)
        self._seen(test, kind)
        self._asked += (test,)
        return kind

    def _condition(self, node: jinja.CondExpr) -> Type:
        before = self._asked
        self._ask(node.test)
        # Without "else" it may be undefined, which is not a value.
        kinds = [self._of(one) for one in (node.expr1, node.expr2) if one]
        self._asked = before
        return union(kinds)

    def _either(self, node: jinja.And | jinja.Or) -> Type:
        before = self._asked
        kinds = [self._ask(node.left), self._of(node.right)]
        self._asked = before
        return union(kinds)

    def _not(self, node: jinja.Not) -> Type:
        self._seen(node.node, self._of(node.node))
        return BOOLEAN

    def _joined(self, node: jinja.Concat) -> Type:
        return _text_of([self._in_text(part) for part in node.nodes])

    def _sign(self, node: jinja.UnaryExpr) -> Type:
        kind = self._of(node.node)
        self._tell(operators.sign(node, kind))
        return NUMBER

    def _call(self, node: jinja.Call) -> Type:  # the only function is range()
        for argument in node.args:
            self._of(argument)
        numbers = [argument.value for argument in node.args if isinstance(argument, jinja.Const)]
        if len(numbers) == len(node.args) and not node.kwargs and (problem := range_problem(numbers)):
            self._report("bad-value", node.node, problem)
        return List(NUMBER)

    # Names and keys.

    def _name(self, node: jinja.Name) -> Type:
        name = node.name
        if name in self._bound:
            return self._bound[name]
        if name not in self._use.roots:
            return ANY
        use = self._use
        match name:
            case "inputs":
                return self._types.inputs
            case "run":
                keys: dict[str, Type] = dict.fromkeys(RUN_KEYS, STRING)
                return Map({**keys, "status": _RUN_STATUS} if "status" in _run_keys(use) else keys, "none")
            case "item":
                return self._types.element(next(loop for loop in use.loops if "for_each" in loop.node))
            case "index":
                return NUMBER
            case "last":
                return self._last()
            case "error":
                return ERROR
            case "step":
                return self._types.step_of(use)
        return ANY_MAP if name in ("steps", "secrets") else ANY

    def _last(self) -> Type:
        """Return the type of the latest repetition's output: in the step itself there is none at first."""
        use = self._use
        loop = next(loop for loop in use.loops if "until" in loop.node)
        kind = self._types.single(loop) if "for_each" not in loop.node else ANY
        ended = use.step is loop and use.key == "until" and "when" not in loop.node
        return kind if ended else union([kind, NULL])

    def _key(self, node: jinja.Getattr | jinja.Getitem) -> Type:
        if isinstance(node, jinja.Getattr):
            key: Any = node.attr
        elif isinstance(node.arg, jinja.Const):
            key = node.arg.value
        else:
            return self._computed(node)
        base = node.node
        if isinstance(base, jinja.Name) and base.name not in self._bound and isinstance(key, str):
            if base.name == "steps" and "steps" in self._use.roots:
                return self._result(key)
            if base.name == "secrets":
                return SECRET
        return self._lookup(node, self._of(base), key)

    def _computed(self, node: jinja.Getitem) -> Type:
        """Return the type of the result of a computed key, or of a slice."""
        kind = self._of(node.node)
        if isinstance(node.arg, jinja.Slice):
            return kind if isinstance(kind, List) or kind == STRING else ANY
        self._of(node.arg)
        return kind.item if isinstance(kind, List) else ANY

    def _result(self, name: str) -> Type:
        output = self._types.output_of(name, self._use)
        if output is None:
            return ANY
        return Map({"output": output, "status": _STATUS, "error": _ERROR_OR_NULL}, "none")

    def _lookup(self, node: jinja.Getattr | jinja.Getitem, kind: Type, key: Any) -> Type:
        """Return the type of a key of a value, and report a key that does not exist."""
        if type(kind) is Type:
            return ANY
        if type(kind) is not Union and (one := _inner(kind, key)):
            return one
        found = [inner for option in options(kind) if (inner := _inner(option, key))]
        if SECRET in options(kind):
            self._seen(node.node, kind)
            return ANY
        if found:
            return union(found)
        # A value that may be null, or have undeclared keys, may have this one in another run.
        unsure = len(options(kind)) > 1 or any(
            isinstance(option, Map) and option.others == "undeclared" for option in options(kind)
        )
        self._missing(node, kind, key, certain=not unsure)
        return ANY

    def _missing(self, node: jinja.Getattr | jinja.Getitem, kind: Type, key: Any, *, certain: bool) -> None:
        what = named(node.node)
        known = [name for option in options(kind) if isinstance(option, Map) for name in option.keys]
        near = did_you_mean(key, known) if isinstance(key, str) else None
        if any(isinstance(option, Map) for option in options(kind)):
            message = (
                f'{what} has no key "{key}": the keys are {listed(known)}' if known else f"{what} is empty"
            )
        else:
            message = f'{what} has no key "{key}": it is {words(kind)}'
        help_ = near
        if not known and not near and key in FILTERS:
            help_ = f'write "| {key}"'
        elif isinstance(kind, List) and not near:
            help_ = f"an element is {words(kind.item)}: use [0], first, or map" if kind.item != ANY else None
        elif is_result(node.node) and not near:
            help_ = f"the step's result is {what[:-1]}.output\""
        if self._lenient and near is None:
            return
        certain = certain and not self._lenient and not self._unseen
        self._report(
            "unknown-attribute" if certain else "undeclared-attribute", node, message, help_, str(key)
        )

    # Operators, tests and filters.

    def _arithmetic(self, node: jinja.BinExpr) -> Type:
        left, right = self._of(node.left), self._of(node.right)
        if self._seen(node.left, left) or self._seen(node.right, right):
            return ANY
        kind, mistake = operators.arithmetic(node, left, right)
        self._tell(mistake)
        return kind

    def _compare(self, node: jinja.Compare) -> Type:
        left = node.expr, self._of(node.expr)
        for operand in node.ops:
            right = operand.expr, self._of(operand.expr)
            if not self._seen(*left) and not self._seen(*right):
                self._tell(operators.comparison(left, operand.op, right))
            left = right
        return BOOLEAN

    def _test(self, node: jinja.Test) -> Type:
        before = self._lenient, self._unseen
        self._lenient = node.name in ("defined", "undefined")
        self._unseen = node.name in _UNSEEING and isinstance(node.node, jinja.Getattr | jinja.Getitem)
        kind = self._of(node.node)
        self._lenient, self._unseen = before
        for argument in node.args:
            self._of(argument)
        if node.name not in ("defined", "undefined"):
            self._seen(node.node, kind)
        return BOOLEAN

    def _filter(self, node: jinja.Filter) -> Type:
        before = self._lenient
        self._lenient |= node.name in ("default", "d")
        kind = self._of(node.node)
        self._lenient = before
        given: dict[int | str, Type] = {place: self._of(one) for place, one in enumerate(node.args)}
        for keyword in node.kwargs:
            given[str(keyword.key)] = self._of(keyword.value)
        if node.name in ("default", "d"):
            if kind == SECRET:
                return SECRET
        elif self._seen(node.node, kind, f'the filter "{node.name}"'):
            return ANY
        takes = signatures.takes(node.name, given)
        if takes and not may_be(kind, takes):
            fact = f"{named(node.node)} is {words(kind)}"
            message = f'the filter "{node.name}" requires {words(union(takes))}, but {fact}'
            self._report("filter-type", node, message, filter_help(node, kind, takes), node.name)
        self._attribute(node, kind)
        return signatures.result(node.name, kind, given)

    def _attribute(self, node: jinja.Filter, kind: Type) -> None:
        """Report a key that a filter reads from each element, and that none of them has."""
        by_name = {str(keyword.key): keyword.value for keyword in node.kwargs}
        first = node.args[:1] if node.name in ("selectattr", "rejectattr") else [by_name.get("attribute")]
        asks = [one.value for one in node.args[1:2] if isinstance(one, jinja.Const)]
        element = kind.item if isinstance(kind, List) else None
        match first:
            case [jinja.Const(value=str(path))] if isinstance(element, Map) and element.others != "some":
                if "default" in by_name or "defined" in asks:
                    return
                for key in (part.strip().partition(".")[0] for part in path.split(",")):
                    if key not in element.keys and not key.isdecimal():
                        what = f"an element of {named(node.node)}"
                        message = f'{what} has no key "{key}": the keys are {listed(element.keys)}'
                        near = did_you_mean(key, element.keys)
                        self._report("undeclared-attribute", node, message, near, key)

    # Reports.

    def _seen(self, node: jinja.Node | None, kind: Type, by: str = "") -> bool:
        """Report a secret that is inspected."""
        if SECRET not in options(kind):
            return False
        if not self._use.takes_secrets:
            return True  # it is not allowed here at all, which is already reported
        message = f"{by or 'an expression'} cannot inspect a secret: only the worker knows its value"
        self._report("secret-use", node, message, "pass it to the activity unchanged")
        return True

    def _tell(self, mistake: Mistake | None) -> None:
        if mistake:
            self._report(mistake.rule, mistake.node, mistake.message, mistake.help)

    def _report(
        self, rule: str, node: jinja.Node | None, message: str, help_: str | None = None, word: str = ""
    ) -> None:
        first: jinja.Node | None = node
        if not word:  # the position of a whole path is that of its name
            while isinstance(first, jinja.Getattr | jinja.Getitem | jinja.Filter | jinja.Test):
                first = first.node
            word = path_of(node) or _text(node)
        if self._is_in_doubt(node):
            return
        self._found.append(Problem(rule, ((first and first.lineno) or 1) - 1, word, message, help_))

    def _is_in_doubt(self, node: jinja.Node | None) -> bool:
        """Tell whether an enclosing condition has checked the value, or one that contains it."""
        path = path_of(node) or path_of(getattr(node, "node", None)) or ""
        asked = [one for test in self._asked for one in paths_in(test)]
        return any(path == one or path.startswith((f"{one}.", f"{one}[")) for one in asked)


_RULES: dict[type, Callable[[Evaluation, Any], Type]] = {
    jinja.Const: Evaluation._const,  # noqa: SLF001 - here and below: its own methods
    jinja.Name: Evaluation._name,  # noqa: SLF001
    jinja.Getattr: Evaluation._key,  # noqa: SLF001
    jinja.Getitem: Evaluation._key,  # noqa: SLF001
    jinja.List: Evaluation._list,  # noqa: SLF001
    jinja.Tuple: Evaluation._list,  # noqa: SLF001
    jinja.Dict: Evaluation._dict,  # noqa: SLF001
    jinja.CondExpr: Evaluation._condition,  # noqa: SLF001
    jinja.And: Evaluation._either,  # noqa: SLF001
    jinja.Or: Evaluation._either,  # noqa: SLF001
    jinja.Not: Evaluation._not,  # noqa: SLF001
    jinja.Compare: Evaluation._compare,  # noqa: SLF001
    jinja.Test: Evaluation._test,  # noqa: SLF001
    jinja.Filter: Evaluation._filter,  # noqa: SLF001
    jinja.Concat: Evaluation._joined,  # noqa: SLF001
    jinja.Call: Evaluation._call,  # noqa: SLF001
}
"""By the class of a node."""


def _is_handed_on(node: jinja.Node | None) -> bool:
    """Tell whether an expression passes on an undefined value instead of failing."""
    if isinstance(node, jinja.Filter):
        return node.name in ("default", "d")
    return isinstance(node, jinja.Name | jinja.Getattr | jinja.Getitem | jinja.CondExpr)


def _text_of(parts: Sequence[Type]) -> Type:
    """Return the type of a string that is put together. With a secret in it, it is a secret."""
    if SECRET in parts:
        return SECRET
    doubtful = [part for part in parts if isinstance(part, Union) and SECRET in part.options]
    return Union((SECRET, STRING)) if doubtful else STRING


def _inner(kind: Type, key: Any) -> Type | None:
    """Return the type of a key or an element of a value; None: it has none."""
    if isinstance(key, str):
        if not isinstance(kind, Map):
            return None
        return kind.keys.get(key) or (kind.rest if kind.others == "some" else None)
    if isinstance(kind, List):
        return kind.item
    return STRING if isinstance(kind, Plain) and kind.kind == "string" else None


def _text(node: jinja.Node | None) -> str:
    return node.value if isinstance(node, jinja.Const) and isinstance(node.value, str) else ""


def _run_keys(use: Use) -> tuple[str, ...]:
    last = use.place is Place.FINALLY or (use.step is not None and use.step.in_finally)
    return (*RUN_KEYS, "status") if last else RUN_KEYS
