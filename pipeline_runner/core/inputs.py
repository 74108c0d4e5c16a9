"""Validates values against JSON Schemas, such as a run's inputs, and inserts defaults.

This also runs inside the workflow, for children: no clock, no files, and references to remote schemas
are never followed. jsonschema is imported where it is used, because importing it takes longer than
checking most files.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from copy import copy, deepcopy
from functools import lru_cache
from typing import Any

from pipeline_runner.core.model import Struct
from pipeline_runner.core.schemas.formats import FORMATS
from pipeline_runner.core.schemas.pattern_syntax import PatternError
from pipeline_runner.core.schemas.patterns import compiled
from pipeline_runner.core.schemas.plain import fits, is_pattern, is_plain
from pipeline_runner.core.suggest import did_you_mean, listed, meant

JsonSchema = dict[str, Any] | bool
Path = tuple[str | int, ...]
"""Keys and indexes that lead to a part of a value."""

_TYPES = {
    "string": "a string", "integer": "an integer", "number": "a number", "boolean": "true or false",
    "object": "a mapping", "array": "a list", "null": "null",
}  # fmt: skip
_ALIASES = {
    "str": "string", "text": "string", "int": "integer", "float": "number", "bool": "boolean",
    "dict": "object", "map": "object", "mapping": "object", "list": "array", "nil": "null", "none": "null",
}  # fmt: skip
"""Names of the types in other languages."""
_LIMITS = {
    "minimum": "must be {limit} or more, not {value}",
    "maximum": "must be {limit} or less, not {value}",
    "exclusiveMinimum": "must be more than {limit}, not {value}",
    "exclusiveMaximum": "must be less than {limit}, not {value}",
    "multipleOf": "must be a multiple of {limit}, not {value}",
    "minLength": "must have {limit} or more characters, not {value}",
    "maxLength": "must have {limit} or fewer characters",
    "pattern": "must match the pattern {limit}, not {value}",
    "format": "must be a valid {limit}, not {value}",
    "minItems": "must have {limit} or more elements",
    "maxItems": "must have {limit} or fewer elements",
    "uniqueItems": "must not contain duplicates",
    "minProperties": "must have {limit} or more keys",
    "maxProperties": "must have {limit} or fewer keys",
    "const": "must be {limit}, not {value}",
    "anyOf": "does not match any of the allowed forms",
    "oneOf": "must match exactly one of the allowed forms",
    "not": "is a value that is not allowed",
}
_SHOWN = 80
CANNOT = "cannot be checked"
"""The beginning of problems about values that nobody can check."""
_PROBES: tuple[Any, ...] = (None, True, 1, "", [], {}, [0], {"": 0})


class Problem(Struct, frozen=True, kw_only=True):
    """One problem of a value."""

    path: str
    """The place, such as ``settings.ports[0]``."""
    message: str
    help: str | None = None

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" + (f" ({self.help})" if self.help else "")


class InvalidInputs(ValueError):
    """Inputs do not match the declarations of a pipeline."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(str(problem) for problem in problems))
        self.problems = problems


def validate_inputs(declared: Mapping[str, JsonSchema], given: Mapping[str, Any]) -> dict[str, Any]:
    """Validate the inputs of a run, and return them with defaults.

    Args:
        declared: A JSON Schema for each input. One with ``default`` is optional.
        given: The values.

    Raises:
        InvalidInputs: Some are unknown, missing or invalid. It lists all of them.
    """
    unknown = [name for name in given if name not in declared]
    misspelt = meant(unknown, declared)
    problems = [_unknown(name, declared) for name in unknown]
    values: dict[str, Any] = {}
    for name, schema in declared.items():
        if name in given:
            values[name] = deepcopy(given[name])
            problems += value_problems(schema, given[name], name)
        elif isinstance(schema, dict) and "default" in schema:
            values[name] = deepcopy(schema["default"])
        elif name not in misspelt:
            problems.append(Problem(path=name, message="this input is missing"))
    if problems:
        raise InvalidInputs(problems)
    return values


def value_problems(schema: JsonSchema, value: Any, path: str) -> list[Problem]:
    """Return the problems of a value, each with its path below ``path``."""
    found = [Problem(path=path + dotted(where), message=message) for where, message in misfits(schema, value)]
    return sorted(dict.fromkeys(found), key=lambda problem: (problem.path, problem.message))


def misfits(schema: JsonSchema, value: Any) -> list[tuple[Path, str]]:
    """Return the problems of a value, each with its path."""
    if fits(schema, value):
        return []
    from referencing.exceptions import Unresolvable

    try:
        errors = list(_validator(json.dumps(schema, sort_keys=True)).iter_errors(value))
    except RecursionError:
        return [((), "cannot be checked: its schema refers to itself without end")]
    except Unresolvable as error:
        return [((), f'cannot be checked: its schema refers to "{error.ref}"')]
    causes = [cause for error in errors for cause in _causes(error)]
    return [(tuple(cause.absolute_path), _message(cause)) for cause in causes]


def dotted(path: Iterable[str | int]) -> str:
    """Return a path inside a value as messages show it: ``.ports[0]``."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)


def schema_problems(schema: Any) -> list[tuple[Path, str]]:
    """Return why a value is not a usable JSON Schema: each problem with its path.

    A reference must point into the schema itself (``#…``), to something that exists.
    """
    if is_plain(schema):
        return []
    from jsonschema import Draft202012Validator

    formats = copy(Draft202012Validator.FORMAT_CHECKER)
    # jsonschema's own check fails on patterns with too many nested brackets, and on too large numbers.
    formats.checkers = {**formats.checkers, "regex": (_is_pattern_or_no_text, ())}
    meta = Draft202012Validator(Draft202012Validator.META_SCHEMA, format_checker=formats)
    errors = [cause for error in meta.iter_errors(schema) for cause in _of_list(error)]
    found = [(tuple(error.absolute_path), _schema_message(error)) for error in errors]
    found += _reference_problems(schema, schema, ())
    if not found:
        # Some references fail only when a value is validated.
        probes = [problem.message for value in _PROBES for problem in value_problems(schema, value, "")]
        found += [((), message) for message in probes if message.startswith("cannot be checked")]
    return sorted(dict.fromkeys(found), key=repr)


def _is_pattern_or_no_text(value: object) -> bool:
    return not isinstance(value, str) or is_pattern(value)


def _reference_problems(part: Any, root: Any, path: Path) -> Iterator[tuple[Path, str]]:
    if isinstance(part, list):
        for index, item in enumerate(part):
            yield from _reference_problems(item, root, (*path, index))
    if not isinstance(part, dict):
        return
    for key, value in part.items():
        here = (*path, key)
        if problem := _useless(key, value, part):
            yield here, problem
        if key in ("default", "const", "enum", "examples"):
            continue
        if key in ("$ref", "$dynamicRef") and isinstance(value, str):
            if not value.startswith("#"):
                yield (
                    here,
                    f'"{value}" is outside the schema: write a reference inside it, such as "#/$defs/name"',
                )
            elif value.startswith("#/") and not _leads_somewhere(value, root):
                yield here, f'"{value}" does not exist in this schema'
        yield from _reference_problems(value, root, here)


def _useless(key: str, value: Any, schema: dict[str, Any]) -> str | None:
    """Return why a valid keyword cannot be used here; None: it can."""
    if key == "unevaluatedProperties" and "patternProperties" in schema:
        return 'cannot be combined with "patternProperties": write "additionalProperties"'
    if key == "enum" and value == []:
        return "must have at least one element, otherwise no value is allowed"
    return None


def _leads_somewhere(pointer: str, root: Any) -> bool:
    for step in pointer[2:].split("/"):
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(root, dict) and name in root:
            root = root[name]
        elif isinstance(root, list) and name.isdigit() and int(name) < len(root):
            root = root[int(name)]
        else:
            return False
    return True


@lru_cache(maxsize=1000)
def _validator(schema: str) -> Any:
    from referencing import Registry

    return _validator_class()(json.loads(schema), registry=Registry(), format_checker=_formats())


@lru_cache(maxsize=1)
def _formats() -> Any:
    """Return jsonschema's format checker with our own formats: its own depend on installed packages."""
    from jsonschema import FormatChecker

    checker = FormatChecker(())
    checker.checkers = {name: (judge, ()) for name, judge in FORMATS.items()}
    return checker


@lru_cache(maxsize=1)
def _validator_class() -> Any:
    """Return jsonschema's validator with our own patterns."""
    from jsonschema import Draft202012Validator, validators

    extend: Any = validators.extend
    own = {"pattern": _pattern, "patternProperties": _properties, "additionalProperties": _others}
    return extend(Draft202012Validator, own)


def _pattern(_: Any, limit: str, value: Any, __: Any) -> Iterator[Any]:
    from jsonschema import ValidationError

    try:
        if isinstance(value, str) and not compiled(limit).search(value):
            yield ValidationError(f"{_shown(value)} does not match {limit}")
    except PatternError as error:
        yield ValidationError(f"{CANNOT}: {error}", validator=CANNOT)


def _properties(validator: Any, limit: Any, value: Any, _: Any) -> Iterator[Any]:
    for key, schema in limit.items():
        for name in _matching(key, value):
            yield from validator.descend(value[name], schema, path=name, schema_path=key)


def _others(validator: Any, limit: Any, value: Any, schema: Any) -> Iterator[Any]:
    from jsonschema import ValidationError

    known = {name for key in schema.get("patternProperties", ()) for name in _matching(key, value)}
    known.update(schema.get("properties", ()))
    extra = [name for name in value if name not in known] if isinstance(value, dict) else []
    if isinstance(limit, dict):
        for name in extra:
            yield from validator.descend(value[name], limit, path=name)
    elif not limit and extra:
        help_ = did_you_mean(extra[0], schema.get("properties", ()))
        names = " or ".join(f'"{name}"' for name in extra)
        yield ValidationError(f"must not have the key {names}" + (f", {help_}" if help_ else ""))


def _matching(pattern: str, value: Any) -> list[str]:
    """Return the keys of a mapping that match a pattern. Keys that cannot be checked do not match."""
    found = []
    for name in value if isinstance(value, dict) else ():
        with suppress(PatternError):
            if compiled(pattern).search(name):
                found.append(name)
    return found


def _unknown(name: str, declared: Mapping[str, JsonSchema]) -> Problem:
    help_ = did_you_mean(name, declared) or f"the inputs are {listed(declared, 'none')}"
    return Problem(path=name, message="there is no such input", help=help_)


def _causes(error: Any) -> Iterator[Any]:
    """Yield an error.

    If several forms are allowed, yield the errors of the only one with the value's type.
    """
    forms: dict[Any, list[Any]] = {}
    if error.validator in ("anyOf", "oneOf"):
        for cause in error.context:
            forms.setdefault(cause.schema_path[0], []).append(cause)
    near = [causes for causes in forms.values() if not any(_is_of_type(cause) for cause in causes)]
    if len(near) == 1:
        for cause in near[0]:
            yield from _causes(cause)
    else:
        yield error


def _of_list(error: Any) -> Iterator[Any]:
    """Yield an error in a schema. If a list of types is wrong, yield what is wrong with the list."""
    causes = [cause for cause in error.context or () if cause.schema_path[0] == 1]
    yield from causes if isinstance(error.instance, list) and causes else [error]


def _is_of_type(error: Any) -> bool:
    """Tell whether an error is about a different type."""
    return error.validator == "type" and not error.relative_path


def _message(error: Any) -> str:
    value, limit = error.instance, error.validator_value
    match error.validator:
        case "type":
            return _type_message(error)
        case "anyOf" | "oneOf" if error.context and all(map(_is_of_type, error.context)):
            return _type_message(*error.context)
        case "enum":
            return f"must be one of {', '.join(_shown(item) for item in limit)}, not {_shown(value)}"
        case "required":
            return "needs " + ", ".join(f'"{name}"' for name in limit if name not in value)
    if error.validator is None:
        return "no value is allowed here"
    known = _LIMITS.get(error.validator)
    return known.format(limit=_shown(limit), value=_shown(value)) if known else str(error.message)


def _type_message(*errors: Any) -> str:
    limits = [error.validator_value for error in errors]
    kinds = [kind for limit in limits for kind in ([limit] if isinstance(limit, str) else limit)]
    words = [_TYPES.get(kind, kind) for kind in dict.fromkeys(kinds)]
    either = " or ".join([*([", ".join(words[:-1])] if words[1:] else []), words[-1]])
    return f"must be {either}, not {_shown(errors[0].instance)}"


def _schema_message(error: Any) -> str:
    path, value = list(error.absolute_path), error.instance
    keys = [key for key in path if isinstance(key, str)]
    if keys[-1:] == ["type"] and not isinstance(value, list):
        meant = _ALIASES.get(value) if isinstance(value, str) else None
        near = did_you_mean(meant or value, _TYPES) if isinstance(value, str) else None
        return f"cannot be {_shown(value)}, {near or f'the types are {listed(_TYPES)}'}"
    if keys[-1:] == ["pattern"] and error.validator == "format":
        return f"is not a valid pattern: {_pattern_problem(value)}"
    return _message(error)


def _pattern_problem(pattern: str) -> str:
    try:
        compiled(pattern)
    except PatternError as error:
        return str(error)
    return "it cannot be used"


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
