"""Jinja2 cut down to the language: an allow-list, no methods, no attributes of objects.

Its nodes carry places rather than lines: ``lineno`` is the 1-based offset, in characters, of
their first token in the text. That is how the checker knows where in a text a mistake is.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any

from jinja2 import TemplateSyntaxError, nodes
from jinja2.lexer import TokenStream
from jinja2.nativetypes import NativeCodeGenerator
from jinja2.runtime import LoopContext, StrictUndefined, Undefined
from jinja2.sandbox import SandboxedEnvironment

from pipeline_runner.core import filters
from pipeline_runner.core.budget import Budget
from pipeline_runner.core.secrets import SecretText
from pipeline_runner.core.values import joined, kind_of

BUDGET: ContextVar[Budget] = ContextVar("pipeline_runner_expression_budget")
"""The budget of the evaluation that is going on."""

_LOOP_ATTRIBUTES = ("index", "index0", "first", "last", "length")


class Missing(StrictUndefined):
    """What an undefined name or key gives: usable with ``default`` and ``is defined`` only."""

    __slots__ = ()


class _Generator(NativeCodeGenerator):
    """Hands over every expression's value as it is, never folded into text."""

    def _output_child_to_const(self, node: nodes.Expr, frame: Any, finalize: Any) -> Any:
        if isinstance(node, nodes.TemplateData):
            return super()._output_child_to_const(node, frame, finalize)
        raise nodes.Impossible


class Environment(SandboxedEnvironment):
    """What templates are parsed and evaluated in."""

    code_generator_class = _Generator
    intercepted_binops = frozenset(["+", "-", "*", "/", "//", "%", "**"])

    def __init__(self) -> None:
        super().__init__(undefined=Missing, keep_trailing_newline=True, optimized=False, cache_size=0)
        self.filters = {name: _metered(name, f) for name, f in filters.FILTERS.items()}
        self.filters["_concat"] = joined
        self.tests = {name: self.tests[name] for name in filters.TESTS}
        self.globals = {"range": filters.bounded_range}

    def _tokenize(
        self, source: str, name: str | None, filename: str | None = None, state: str | None = None
    ) -> TokenStream:
        """Hand the parser tokens with places for lines; Jinja gives its own extensions a say here."""
        return TokenStream(self.lexer.wrap(self.tokens(source)), name, filename)

    def tokens(self, text: str) -> Iterator[tuple[int, str, str]]:
        """Yield the tokens of a text: the 1-based offset, the kind, the text.

        Raises:
            jinja2.TemplateSyntaxError: There is no token where its ``lineno`` says.
        """
        end = 0
        try:
            for _, kind, value in self.lexer.tokeniter(text, None):
                # Not found is what Jinja changed: a line break that is not "\n".
                start = max(text.find(value, end), end)
                yield start + 1, kind, value
                end = start + len(value)
        except TemplateSyntaxError as error:
            error.lineno = end + 1
            raise

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Look up a key."""
        return self.getitem(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Look up a key or an index, never an attribute of a Python object."""
        if isinstance(obj, Undefined):
            return obj
        if isinstance(obj, Mapping):
            if isinstance(argument, str) and argument in obj:
                return obj[argument]
            return Missing(hint=f'"{argument}" is not there: {_listed("it has", obj)}')
        if isinstance(obj, LoopContext) and argument in _LOOP_ATTRIBUTES:
            return getattr(obj, str(argument))
        if isinstance(obj, list | tuple | str) and isinstance(argument, int | slice):
            try:
                return obj[argument]
            except IndexError:
                return Missing(hint=f"there is no element {argument}: it has {len(obj)} elements")
        return Missing(hint=f'"{argument}" is not there: {kind_of(obj)} has no such key')

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Apply an operator, within bounds."""
        return filters.arithmetic(BUDGET.get(), operator, left, right)


def _metered(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a filter so that its work counts against the evaluation's budget."""

    def metered(*args: Any, **kwargs: Any) -> Any:
        budget = BUDGET.get()
        for arg in args:
            if isinstance(arg, SecretText) and name != "default":
                arg.refuse()
            budget.spend(arg)
        return budget.counted(function(*args, **kwargs))

    # Jinja passes the context, the evaluation context or the environment to filters so marked.
    if hasattr(function, "jinja_pass_arg"):
        metered.jinja_pass_arg = function.jinja_pass_arg  # type: ignore[attr-defined]
    return metered


ENVIRONMENT = Environment()
"""The only one."""


def _listed(lead: str, names: Iterable[str]) -> str:
    shown = sorted(names)
    more = ", …" if len(shown) > 20 else ""
    return f"{lead} {', '.join(shown[:20])}{more}" if shown else "it is empty"
