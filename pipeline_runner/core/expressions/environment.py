"""The Jinja2 environment: an allow-list, without methods and attributes of objects.

Nodes carry offsets instead of line numbers: ``lineno`` is the 1-based offset, in characters, of their
first token in the string. The checker uses it to show where in a string an error is.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from jinja2 import TemplateSyntaxError, nodes
from jinja2.lexer import TokenStream
from jinja2.nativetypes import NativeCodeGenerator
from jinja2.runtime import LoopContext, StrictUndefined, Undefined
from jinja2.sandbox import SandboxedEnvironment

from pipeline_runner.core.expressions import filters
from pipeline_runner.core.expressions.budget import CALL, current
from pipeline_runner.core.expressions.values import ExpressionValueError, joined, kept, kind_of
from pipeline_runner.core.secrets import SecretText

_LOOP_ATTRIBUTES = ("index", "index0", "first", "last", "length")


class Missing(StrictUndefined):
    """The value of an undefined name or key. Only ``default`` and ``is defined`` accept it."""

    __slots__ = ()

    @property
    def _undefined_message(self) -> str:
        """Return what is missing.

        This is computed on request, because most of these messages are never shown.
        """
        hint: Any = self._undefined_hint
        return str(hint()) if callable(hint) else super()._undefined_message


class _Generator(NativeCodeGenerator):
    """Passes every expression's value on unchanged, without folding it into text."""

    def _output_child_to_const(self, node: nodes.Expr, frame: Any, finalize: Any) -> Any:
        if isinstance(node, nodes.TemplateData):
            return super()._output_child_to_const(node, frame, finalize)
        raise nodes.Impossible


class Environment(SandboxedEnvironment):
    """The environment in which templates are parsed and evaluated."""

    code_generator_class = _Generator
    intercepted_binops = frozenset(["+", "-", "*", "/", "//", "%", "**"])

    def __init__(self) -> None:
        super().__init__(undefined=Missing, keep_trailing_newline=True, optimized=False, cache_size=0)
        self.filters = {name: _metered(name, f) for name, f in filters.FILTERS.items()}
        self.filters |= {
            "_concat": joined,
            "_compare": _compare,
            "_each": _each,
            "_kept": kept,
            "_no_else": _no_else,
        }
        self.filters["_slice"] = lambda value, *bounds: self.getitem(value, slice(*bounds))
        tests: dict[str, Any] = {name: self.tests[name] for name in filters.TESTS}
        self.tests = {name: _metered_test(name, function) for name, function in tests.items()}
        self.globals = {"range": filters.bounded_range}

    def _tokenize(
        self, source: str, name: str | None, filename: str | None = None, state: str | None = None
    ) -> TokenStream:
        """Give the parser tokens with offsets in place of lines.

        Jinja lets its own extensions filter them here.
        """
        return TokenStream(self.lexer.wrap(self.tokens(source)), name, filename)

    def tokens(self, text: str) -> Iterator[tuple[int, str, str]]:
        """Yield the tokens of a string: the 1-based offset, the kind, the text.

        Raises:
            jinja2.TemplateSyntaxError: There is no token at the offset in its ``lineno``.
        """
        end = 0
        try:
            for _, kind, value in self.lexer.tokeniter(text, None):
                # Jinja changes line breaks other than "\n", so the token is not found.
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
        """Look up a key or an index, but never an attribute of a Python object."""
        budget = current()
        budget.units(CALL)
        if isinstance(obj, Undefined):
            return obj
        if isinstance(obj, Mapping):
            if isinstance(argument, str) and argument in obj:
                return obj[argument]
            return _missing(lambda: f'there is no key "{argument}": {_listed(obj)}')
        if isinstance(obj, SecretText):
            obj.refuse()
        if isinstance(obj, LoopContext) and argument in _LOOP_ATTRIBUTES:
            return getattr(obj, str(argument))
        if isinstance(obj, list | tuple | str) and isinstance(argument, int | slice):
            try:
                found = obj[argument]
            except IndexError:
                return _missing(lambda: f"there is no element {argument}: there are {len(obj)} elements")
            if isinstance(argument, slice):
                budget.spend(found)
            return found
        return _missing(lambda: f'there is no key "{argument}": the value is {kind_of(obj)}')

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Apply an operator, within its limits."""
        return filters.arithmetic(current(), operator, left, right)


def _metered(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a filter so that its work counts towards the budget."""

    def metered(*args: Any, **kwargs: Any) -> Any:
        budget = current()
        budget.units(CALL)
        for arg in args:
            if isinstance(arg, SecretText) and name != "default":
                arg.refuse()
            budget.spend(arg)
        try:
            return budget.counted(function(*args, **kwargs))
        except TypeError as error:
            raise _explained(error, name, function, args, kwargs) from None

    # Jinja passes the context, the evaluation context or the environment to filters with this mark.
    if hasattr(function, "jinja_pass_arg"):
        metered.jinja_pass_arg = function.jinja_pass_arg  # type: ignore[attr-defined]
    return metered


def _explained(
    error: TypeError, name: str, function: Callable[..., Any], args: Any, kwargs: Any
) -> ExpressionValueError:
    """Return an error of a filter in the words of the language."""
    try:
        inspect.signature(function).bind(*args, **kwargs)
    except TypeError as wrong:
        return ExpressionValueError(f"{name}: {wrong}")
    if "not supported between" in str(error):
        return ExpressionValueError(f"{name}: some of the values cannot be compared")
    value = args[1] if hasattr(function, "jinja_pass_arg") else args[0]
    if isinstance(value, Iterator):
        return ExpressionValueError(f'a filter before "{name}" cannot be applied to its value')
    return ExpressionValueError(f"{name} cannot be applied to {kind_of(value)}")


def _metered_test(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a test so that its work counts towards the budget."""
    if comparison := filters.COMPARING_TESTS.get(name):
        return _comparing_test(comparison)

    def metered(*args: Any, **kwargs: Any) -> Any:
        budget = current()
        budget.units(CALL)
        for arg in args:
            budget.spend(arg)
        return function(*args, **kwargs)

    if hasattr(function, "jinja_pass_arg"):
        metered.jinja_pass_arg = function.jinja_pass_arg  # type: ignore[attr-defined]
    return metered


def _comparing_test(comparison: str) -> Callable[[Any, Any], bool]:
    return lambda value, other: filters.compared([value, other], comparison)


def _compare(values: list[Any], operators: str) -> bool:
    return filters.compared(values, *operators.split())


def _each(values: Any, cost: int) -> Any:
    """Count the work of all iterations of a loop, each of which has this cost."""
    budget = current()
    if isinstance(values, Iterator):
        return _counted_turns(values, cost)
    if isinstance(values, str | list | tuple | Mapping):
        budget.units(len(values) * cost)
    return values


def _counted_turns(values: Iterator[Any], cost: int) -> Iterator[Any]:
    budget = current()
    for value in values:
        budget.units(cost)
        yield value


def _no_else(_: None) -> Missing:
    return Missing(hint='the condition of "if" is false, and there is no "else"')


def _missing(message: Callable[[], str]) -> Missing:
    hint: Any = message  # a function: see Missing
    return Missing(hint=hint)


ENVIRONMENT = Environment()
"""The only environment."""


def _listed(names: Iterable[str]) -> str:
    shown = sorted(names)
    more = ", …" if len(shown) > 20 else ""
    return f"the keys are {', '.join(shown[:20])}{more}" if shown else "the mapping is empty"
