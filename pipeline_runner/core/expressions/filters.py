"""The allow-list of filters, tests and operators. Each is bounded and deterministic."""

import json
import math
import operator as operators
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NoReturn, cast
from urllib.parse import quote

from jinja2 import Environment, pass_context, pass_environment
from jinja2 import filters as jinja
from jinja2.runtime import Undefined

from pipeline_runner.core.expressions.budget import CALL, MAX_BITS, Budget, current
from pipeline_runner.core.expressions.values import ExpressionValueError, defined, kind_of, plain, text, whole

NOT_DETERMINISTIC = {
    "now": "a workflow is replayed, so it has no clock; use run.started_at or an activity",
    "utcnow": "a workflow is replayed, so it has no clock; use run.started_at or an activity",
    "random": "a workflow is replayed, so it has no random source; use run.run_id or an activity",
    "shuffle": "a workflow is replayed, so it has no random source",
    "uuid": "a workflow is replayed, so it has no random source; use run.run_id or step.key",
    "uuid4": "a workflow is replayed, so it has no random source; use run.run_id or step.key",
    "today": "a workflow is replayed, so it has no clock; use run.started_at or an activity",
    "env": "a workflow cannot read the environment; use an input or secrets.NAME",
    "lookup": "a workflow cannot read files or the environment; use an input or an activity",
}

TESTS = (
    "defined", "undefined", "none", "string", "number", "integer", "float", "boolean", "true",
    "false", "mapping", "sequence", "iterable", "in", "even", "odd", "divisibleby", "lower", "upper",
    "eq", "==", "equalto", "ne", "!=", "lt", "<", "lessthan", "gt", ">", "greaterthan", "le", "<=",
    "ge", ">=",
)  # fmt: skip

_RANGE = 10_000


def bounded_range(*arguments: int) -> list[int]:
    """``range()``, limited to 10,000 numbers."""
    if problem := range_problem(arguments):
        raise ExpressionValueError(problem)
    numbers = range(*arguments)
    current().units(len(numbers))
    return list(numbers)


def range_problem(arguments: Sequence[Any]) -> str | None:
    """Say why ``range()`` cannot take these arguments; None: it can."""
    try:
        if len(range(*arguments)) <= _RANGE:
            return None
    except (TypeError, ValueError) as error:
        return f"range(): {str(error).removeprefix('range() ').removeprefix('range ')}"
    except OverflowError:
        pass
    return f"range() returns at most {_RANGE} numbers"


_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "+": operators.add, "-": operators.sub, "*": operators.mul, "/": operators.truediv,
    "//": operators.floordiv, "%": operators.mod, "**": operators.pow,
}  # fmt: skip


def arithmetic(budget: Budget, operator: str, left: Any, right: Any) -> Any:
    """Apply a binary operator to two values, within its limits."""
    for value in (left, right):
        defined(value)
        budget.spend(value)
    sizes = [len(value) for value in (left, right) if isinstance(value, str | list | tuple)]
    if sizes:
        if operator == "+":
            budget.text(sum(sizes))
        else:
            raise ExpressionValueError(f'"{operator}" requires numbers, not strings or lists')
    elif operator == "**" and (not _small(left) or not _small(right)):
        raise ExpressionValueError("the number is too large for **")
    try:
        result = _OPERATORS[operator](left, right)
    except TypeError:
        message = f'"{operator}" cannot be applied to {kind_of(left)} and {kind_of(right)}'
        raise ExpressionValueError(message) from None
    if isinstance(result, complex):
        raise ExpressionValueError("the result is not a real number")
    return budget.counted(result)


def _small(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) <= MAX_BITS


_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "eq": operators.eq, "ne": operators.ne, "lt": operators.lt, "lteq": operators.le,
    "gt": operators.gt, "gteq": operators.ge,
    "in": lambda value, within: value in within, "notin": lambda value, within: value not in within,
}  # fmt: skip
COMPARING_TESTS = {
    **dict.fromkeys(("eq", "==", "equalto"), "eq"), **dict.fromkeys(("ne", "!="), "ne"),
    **dict.fromkeys(("lt", "<", "lessthan"), "lt"), **dict.fromkeys(("le", "<="), "lteq"),
    **dict.fromkeys(("gt", ">", "greaterthan"), "gt"), **dict.fromkeys(("ge", ">="), "gteq"),
    "in": "in",
}  # fmt: skip
"""The comparisons behind the tests."""


def compared(values: list[Any], *names: str) -> bool:
    """Compare each value with the next one, and count the work, which depends on their sizes."""
    budget = current()
    for name, (value, other) in zip(names, pairwise(values), strict=True):
        cost = _cost_of_search if name in ("in", "notin") else _cost
        budget.units(CALL + cost(budget, value, other))
        try:
            holds = _COMPARISONS[name](value, other)
        except TypeError:
            kind, other_kind = kind_of(value), kind_of(other)
            if name in ("in", "notin"):
                raise ExpressionValueError(f'"in" cannot search {other_kind} for {kind}') from None
            raise ExpressionValueError(f"{kind} and {other_kind} cannot be compared") from None
        if not holds:
            return False
    return True


def _cost(budget: Budget, value: Any, other: Any) -> int:
    """Return the cost of comparing two values, and count their content."""
    if isinstance(value, str) and isinstance(other, str):
        return 1 + min(len(value), len(other)) // 16
    if isinstance(value, _LARGE) and isinstance(other, _LARGE):
        budget.weigh(min(value, other, key=len))
    return 1


def _cost_of_search(budget: Budget, value: Any, within: Any) -> int:
    """Return the cost of searching for one value in another, and count their content."""
    if isinstance(within, str):
        return 1 + len(within) // 16
    if isinstance(value, _LARGE):
        budget.weigh(within)
    own = 1 + len(value) // 16 if isinstance(value, str) else 1
    return own * len(within) if isinstance(within, list | tuple) else own


_LARGE = (list, tuple, dict)


def _default(value: Any, default_value: Any = "", boolean: bool = False) -> Any:
    absent = isinstance(value, Undefined) or value is None
    return default_value if absent or (boolean and not value) else value


def _to_json(value: Any, indent: int | None = None) -> str:
    if indent is not None and not 0 <= indent <= 8:
        raise ExpressionValueError("tojson: indent must be between 0 and 8")
    separators = (",", ":") if indent is None else (",", ": ")
    budget, length = current(), 0
    data = plain(value, budget)
    if indent is None:
        return json.dumps(data, ensure_ascii=False, separators=separators)
    parts: list[str] = []  # one by one, because the white space alone may exceed the limit
    for part in json.JSONEncoder(ensure_ascii=False, separators=separators, indent=indent).iterencode(data):
        budget.units(1)
        length += len(part)
        budget.text(length)
        parts.append(part)
    return "".join(parts)


def _from_json(value: str) -> Any:
    current().units(len(_text(value, "fromjson")) // 4)
    try:
        return json.loads(value, parse_constant=_refuse_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise ExpressionValueError(f"fromjson: this is not valid JSON: {error}") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {_brief(text)} is too large")
    return number


def _string(value: Any) -> str:
    return text(value)


def _replace(value: str, old: str, new: str) -> str:
    source = _text(value, "replace")
    grown = len(source) + source.count(old) * (len(new) - len(old))
    current().text(grown)
    current().units(grown // 16)
    return source.replace(old, new)


@pass_environment
def _join(environment: Environment, value: Iterable[Any], d: str = "", attribute: str | None = None) -> str:
    if attribute is not None:
        value = (environment.getitem(item, attribute) for item in value)
    budget, length, texts = current(), 0, []
    for item in value:
        texts.append(_string(item))
        length += len(texts[-1]) + len(d)
        budget.text(length)
    return d.join(texts)


def _split(value: str, separator: str | None = None, limit: int = -1) -> list[str]:
    source = _text(value, "split")
    current().units(source.count(separator) if separator else len(source) // 4)
    return source.split(separator, limit)


def _int(value: Any, default: int | None = None) -> int:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        if default is None:
            raise ExpressionValueError(f"int: {_brief(value)} is not a number") from None
        return default


def _float(value: Any, default: float | None = None) -> float:
    try:
        return _finite(value)
    except (TypeError, ValueError, OverflowError):
        if default is None:
            raise ExpressionValueError(f"float: {_brief(value)} is not a number") from None
        return default


def _round(value: float, precision: int = 0, method: str = "common") -> float:
    if not 0 <= precision <= 15:
        raise ExpressionValueError("round: the precision must be between 0 and 15")
    return jinja.do_round(value, precision, cast("Any", method))


@pass_environment
def _sum(
    environment: Environment, value: Iterable[Any], attribute: str | None = None, start: float = 0
) -> float:
    if isinstance(value, str | Mapping):
        raise ExpressionValueError(f"sum: {_brief(value)} is not a list")
    total = start
    for item in value:
        number = item if attribute is None else environment.getitem(item, attribute)
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise ExpressionValueError(f"sum: {_brief(number)} is not a number")
        total += number
    return total


def _indent(value: str, width: int = 4, first: bool = False, blank: bool = False) -> str:
    if not isinstance(width, int) or not 0 <= width <= 80:
        raise ExpressionValueError("indent: the width must be between 0 and 80")
    source = _text(value, "indent")
    current().text(len(source) + (source.count("\n") + 1) * width)
    current().units(source.count("\n"))
    space = " " * width
    head, *others = source.split("\n")
    lines = [line if not blank and line in ("", "\r") else space + line for line in others]
    return "\n".join([space + head if first else head, *lines])


def _trim(value: str, chars: str | None = None) -> str:
    return _text(value, "trim").strip(chars)


def _truncate(value: str, length: int = 255, end: str = "…") -> str:
    source = _text(value, "truncate")
    return source if len(source) <= length else source[: max(0, length - len(end))] + end


def _url_encode(value: str) -> str:
    source = whole(_string(value))
    current().units(len(source))
    return quote(source, safe="")


def _keys(value: Mapping[str, Any]) -> list[str]:
    return list(_mapping(value, "keys"))


def _values(value: Mapping[str, Any]) -> list[Any]:
    return list(_mapping(value, "values").values())


def _combine(value: Mapping[str, Any], *others: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(_mapping(value, "combine"))
    for other in others:
        merged.update(_mapping(other, "combine"))
    return merged


def _items(value: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return list(_mapping(value, "items").items())


def _dictsort(
    value: Mapping[str, Any], case_sensitive: bool = True, by: str = "key", reverse: bool = False
) -> list[tuple[str, Any]]:
    pairs = _mapping(value, "dictsort")
    if by not in ("key", "value"):
        raise ExpressionValueError('dictsort: "by" must be "key" or "value"')
    compared = list(pairs if by == "key" else pairs.values())
    return _ordered(list(pairs.items()), compared, case_sensitive, reverse)


@pass_environment
def _sort(
    environment: Environment,
    value: Iterable[Any],
    reverse: bool = False,
    case_sensitive: bool = True,
    attribute: str | int | None = None,
) -> list[Any]:
    items = list(value)
    getter = jinja.make_multi_attrgetter(environment, attribute)
    return _ordered(items, list(map(getter, items)), case_sensitive, reverse)


def _ordered(items: list[Any], compared: list[Any], case_sensitive: bool, reverse: bool) -> list[Any]:
    """Return items in the order of their keys."""
    current().weigh(compared, times=len(items).bit_length())
    keys = compared if case_sensitive else list(map(_without_case, compared))
    order = sorted(range(len(items)), key=keys.__getitem__, reverse=reverse)
    return [items[place] for place in order]


def _without_case(value: Any) -> Any:
    if isinstance(value, list):  # the values of several attributes
        return list(map(_without_case, value))
    return value.lower() if isinstance(value, str) else value


def _extreme(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a filter that finds the smallest or the largest of some values."""

    @pass_environment
    def extreme(
        environment: Environment,
        value: Iterable[Any],
        case_sensitive: bool = True,
        attribute: str | int | None = None,
    ) -> Any:
        items = list(value)
        current().weigh(items)
        return function(environment, items, case_sensitive, attribute)

    return extreme


@pass_environment
def _unique(
    environment: Environment,
    value: Iterable[Any],
    case_sensitive: bool = True,
    attribute: str | int | None = None,
) -> Iterator[Any]:
    getter = jinja.make_attrgetter(environment, attribute)
    seen: set[Any] = set()
    for item in value:
        one = getter(item)
        current().weigh(one)
        key = _identity(one if case_sensitive else _without_case(one))
        if key not in seen:
            seen.add(key)
            yield item


def _identity(value: Any) -> Any:
    """Return an object that is equal for equal JSON values: for 1 and 1.0, but not for 1 and true."""
    match value:
        case bool() | None:
            return (type(value), value)
        case list() | tuple():
            return (list, *map(_identity, value))
        case dict():
            return (dict, frozenset((key, _identity(item)) for key, item in value.items()))
    defined(value)
    return value


def _mapping(value: Any, name: str) -> Mapping[str, Any]:
    defined(value)
    if not isinstance(value, Mapping):
        raise ExpressionValueError(f"{name}: {_brief(value)} is not a mapping")
    return value


def _each(name: str) -> Callable[..., Any]:
    """Return a filter of Jinja's that, unlike Jinja's own, does not treat 0 and false as empty lists."""
    function = jinja.FILTERS[name]

    @pass_context
    def each(context: Any, value: Any, *arguments: Any, **named: Any) -> Any:
        if isinstance(value, bool | int | float):
            raise ExpressionValueError(f"{name}: {_brief(value)} is not a list")
        return function(context, value, *arguments, **named)

    return each


def _text(value: Any, name: str) -> str:
    defined(value)
    if not isinstance(value, str):
        raise ExpressionValueError(f"{name}: {_brief(value)} is not a string")
    return value


def _text_filter(name: str, function: Callable[[str], Any]) -> Callable[[Any], Any]:
    return lambda value: function(_text(value, name))


def _brief(value: Any) -> str:
    defined(value)
    shown = repr(value)
    return shown if len(shown) <= 40 else shown[:39] + "…"


FILTERS: dict[str, Callable[..., Any]] = {
    "abs": abs,
    "capitalize": _text_filter("capitalize", str.capitalize),
    "combine": _combine,
    "count": len,
    "d": _default,
    "default": _default,
    "dictsort": _dictsort,
    "first": jinja.FILTERS["first"],
    "float": _float,
    "fromjson": _from_json,
    "indent": _indent,
    "int": _int,
    "items": _items,
    "join": _join,
    "keys": _keys,
    "last": jinja.do_last,
    "length": len,
    "list": list,
    "lower": _text_filter("lower", str.lower),
    "map": _each("map"),
    "max": _extreme(jinja.do_max),
    "min": _extreme(jinja.do_min),
    "reject": _each("reject"),
    "rejectattr": _each("rejectattr"),
    "replace": _replace,
    "reverse": jinja.do_reverse,
    "round": _round,
    "select": _each("select"),
    "selectattr": _each("selectattr"),
    "sort": _sort,
    "split": _split,
    "string": _string,
    "sum": _sum,
    "title": _text_filter("title", str.title),
    "tojson": _to_json,
    "trim": _trim,
    "truncate": _truncate,
    "unique": _unique,
    "upper": _text_filter("upper", str.upper),
    "urlencode": _url_encode,
    "values": _values,
}
