"""The allow-list of filters, tests and operators, each bounded and deterministic."""

import json
import operator as operators
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast
from urllib.parse import quote

from jinja2 import filters as jinja
from jinja2 import pass_context
from jinja2.runtime import Context, Undefined

from pipeline_runner.core.budget import MAX_BITS, Budget
from pipeline_runner.core.values import ExpressionValueError, defined, plain, text

NOT_DETERMINISTIC = {
    "now": "a workflow is replayed, so it has no clock; use run.started_at, or an activity",
    "utcnow": "a workflow is replayed, so it has no clock; use run.started_at, or an activity",
    "random": "a workflow is replayed, so it has no random source; use run.run_id, or an activity",
    "shuffle": "a workflow is replayed, so it has no random source",
    "uuid": "a workflow is replayed, so it has no random source; use run.run_id, or step.key in an undo",
    "uuid4": "a workflow is replayed, so it has no random source; use run.run_id, or step.key in an undo",
    "today": "a workflow is replayed, so it has no clock; use run.started_at, or an activity",
    "env": "a workflow cannot read the environment; use an input, or secrets.NAME",
    "lookup": "a workflow cannot read files or the environment; use an input, or an activity",
}

TESTS = (
    "defined", "undefined", "none", "string", "number", "integer", "float", "boolean", "true",
    "false", "mapping", "sequence", "iterable", "in", "even", "odd", "divisibleby", "lower", "upper",
    "eq", "==", "equalto", "ne", "!=", "lt", "<", "lessthan", "gt", ">", "greaterthan", "le", "<=",
    "ge", ">=",
)  # fmt: skip

_RANGE = 10_000


def bounded_range(*arguments: int) -> list[int]:
    """``range()``, of at most 10,000 numbers."""
    numbers = range(*arguments)
    if len(numbers) > _RANGE:
        raise ExpressionValueError(f"range() gives at most {_RANGE} numbers")
    return list(numbers)


_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "+": operators.add, "-": operators.sub, "*": operators.mul, "/": operators.truediv,
    "//": operators.floordiv, "%": operators.mod, "**": operators.pow,
}  # fmt: skip


def arithmetic(budget: Budget, operator: str, left: Any, right: Any) -> Any:
    """Apply a binary operator to two values, within bounds."""
    for value in (left, right):
        defined(value)
        budget.spend(value)
    sizes = [len(value) for value in (left, right) if isinstance(value, str | list | tuple)]
    if sizes:
        if operator == "+":
            budget.text(sum(sizes))
        else:
            raise ExpressionValueError(f'"{operator}" works on numbers, not on text or lists')
    elif operator == "**" and (not _small(left) or not _small(right)):
        raise ExpressionValueError("the number is too large for **")
    result = _OPERATORS[operator](left, right)
    if isinstance(result, complex):
        raise ExpressionValueError("the result is not a real number")
    return budget.counted(result)


def _small(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) <= MAX_BITS


def _default(value: Any, default_value: Any = "", boolean: bool = False) -> Any:
    absent = isinstance(value, Undefined) or value is None
    return default_value if absent or (boolean and not value) else value


def _to_json(value: Any, indent: int | None = None) -> str:
    if indent is not None and not 0 <= indent <= 8:
        raise ExpressionValueError("tojson: indent is between 0 and 8")
    separators = (",", ":") if indent is None else (",", ": ")
    return json.dumps(plain(value, Budget()), ensure_ascii=False, separators=separators, indent=indent)


def _from_json(value: str) -> Any:
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise ExpressionValueError(f"fromjson: this is no JSON: {error}") from None


def _string(value: Any) -> str:
    return text(value)


def _replace(value: str, old: str, new: str) -> str:
    source = _text(value, "replace")
    grown = len(source) + source.count(old) * (len(new) - len(old))
    Budget().text(grown)
    return source.replace(old, new)


@pass_context
def _join(context: Context, value: Iterable[Any], d: str = "", attribute: str | None = None) -> str:
    if attribute is not None:
        value = (context.environment.getitem(item, attribute) for item in value)
    texts = [_string(item) for item in value]
    Budget().text(sum(map(len, texts)) + len(d) * len(texts))
    return d.join(texts)


def _split(value: str, separator: str | None = None, limit: int = -1) -> list[str]:
    return _text(value, "split").split(separator, limit)


def _int(value: Any, default: int | None = None) -> int:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        if default is None:
            raise ExpressionValueError(f"int: {_brief(value)} is no number") from None
        return default


def _float(value: Any, default: float | None = None) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        if default is None:
            raise ExpressionValueError(f"float: {_brief(value)} is no number") from None
        return default


def _round(value: float, precision: int = 0, method: str = "common") -> float:
    if not 0 <= precision <= 15:
        raise ExpressionValueError("round: the precision is between 0 and 15")
    return jinja.do_round(value, precision, cast("Any", method))


@pass_context
def _sum(context: Context, value: Iterable[Any], attribute: str | None = None, start: float = 0) -> float:
    if isinstance(value, str | Mapping):
        raise ExpressionValueError(f"sum: {_brief(value)} is no list")
    total = start
    for item in value:
        number = item if attribute is None else context.environment.getitem(item, attribute)
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise ExpressionValueError(f"sum: {_brief(number)} is no number")
        total += number
    return total


def _indent(value: str, width: int = 4, first: bool = False, blank: bool = False) -> str:
    if not isinstance(width, int) or not 0 <= width <= 80:
        raise ExpressionValueError("indent: the width is between 0 and 80")
    source = _text(value, "indent")
    Budget().text(len(source) + (source.count("\n") + 1) * width)
    return jinja.do_indent(source, width, first, blank)


def _trim(value: str, chars: str | None = None) -> str:
    return _text(value, "trim").strip(chars)


def _truncate(value: str, length: int = 255, end: str = "…") -> str:
    source = _text(value, "truncate")
    return source if len(source) <= length else source[: max(0, length - len(end))] + end


def _url_encode(value: str) -> str:
    return quote(_string(value), safe="")


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


def _dictsort(value: Mapping[str, Any], *arguments: Any, **named: Any) -> list[tuple[str, Any]]:
    return jinja.do_dictsort(_mapping(value, "dictsort"), *arguments, **named)


def _mapping(value: Any, name: str) -> Mapping[str, Any]:
    defined(value)
    if not isinstance(value, Mapping):
        raise ExpressionValueError(f"{name}: {_brief(value)} is no mapping")
    return value


def _each(name: str) -> Callable[..., Any]:
    """Return a filter of Jinja's that takes 0 and false for empty lists, and here does not."""
    function = jinja.FILTERS[name]

    @pass_context
    def each(context: Context, value: Any, *arguments: Any, **named: Any) -> Any:
        if isinstance(value, bool | int | float):
            raise ExpressionValueError(f"{name}: {_brief(value)} is no list")
        return function(context, value, *arguments, **named)

    return each


def _text(value: Any, name: str) -> str:
    defined(value)
    if not isinstance(value, str):
        raise ExpressionValueError(f"{name}: {_brief(value)} is no text")
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
    "max": jinja.do_max,
    "min": jinja.do_min,
    "reject": _each("reject"),
    "rejectattr": _each("rejectattr"),
    "replace": _replace,
    "reverse": jinja.do_reverse,
    "round": _round,
    "select": _each("select"),
    "selectattr": _each("selectattr"),
    "sort": jinja.do_sort,
    "split": _split,
    "string": _string,
    "sum": _sum,
    "title": _text_filter("title", str.title),
    "tojson": _to_json,
    "trim": _trim,
    "truncate": _truncate,
    "unique": jinja.do_unique,
    "upper": _text_filter("upper", str.upper),
    "urlencode": _url_encode,
    "values": _values,
}
