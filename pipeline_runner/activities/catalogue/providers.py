"""How Python modules provide activities. The built-in families are provided in the same way.

A *provider* is an importable module. It provides:

* if it has a top-level ``activities``: that list of activity callables, or the list that this
  function without arguments returns when a worker starts, so that clients are created only
  then::

      activities = lambda: [charge, Mailer(connect()).send]

* otherwise every function decorated with ``@activity.defn`` in its namespace, and the
  activity methods of the instances there. A class with activity methods and no instance is
  instantiated when a worker starts; it must not need arguments.

:func:`describe` adds what type hints cannot express::

    @describe(timeouts=Timeouts(heartbeat=10), undo=Undo("mail.recall", {"key": "{{ step.key }}"}))
    @activity.defn(name="mail.send")
    async def send(mail: Mail) -> Receipt: ...

Modules are named in ``activities.yaml``, by ``--activities``, or by installed packages in the entry
point group ``pipeline_runner.activities`` (the value is the module's name). Python looks for them in
the directory of the ``activities.yaml`` that names them, in the usual places, and then in the current
directory; see :mod:`pipeline_runner.activities.catalogue.importing`.

Imports neither temporalio nor an implementation: only the requested providers import them.
"""

import importlib
import importlib.metadata
import inspect
import sysconfig
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NamedTuple, TypeVar, get_type_hints

import msgspec

from pipeline_runner.activities.catalogue import importing
from pipeline_runner.activities.catalogue.entries import Argument, Entry
from pipeline_runner.activities.catalogue.type_schemas import schema_of
from pipeline_runner.activities.catalogue.undo import Undo, check
from pipeline_runner.core.model import Retry, Timeouts

GROUP = "pipeline_runner.activities"
"""The entry point group in which installed packages provide activities."""

BUILTIN_MODULES = (
    "pipeline_runner.activities.shell",
    "pipeline_runner.activities.http.request",
    "pipeline_runner.activities.http.download",
    "pipeline_runner.activities.files.file",
    "pipeline_runner.activities.files.directory",
    "pipeline_runner.activities.docker.container",
    "pipeline_runner.activities.docker.image",
    "pipeline_runner.activities.docker.network",
    "pipeline_runner.activities.docker.volume",
    "pipeline_runner.activities.dns.records",
    "pipeline_runner.activities.sql.statements",
)
"""The families that come with this package."""

Activity = Callable[..., Any]
F = TypeVar("F", bound=Activity)


class Provider(NamedTuple):
    """A module with activities, and the directory in which Python looks for it first."""

    module: str
    directory: Path | None = None
    """The directory of the ``activities.yaml`` that names it; None: another source named it."""


def provider(module_name: str, directory: Path | None) -> Provider:
    """Return a module with the directory, if it is in there. Otherwise it belongs to no directory."""
    own = directory is not None and importing.directory(directory).has(module_name)
    return Provider(module_name, directory if own else None)


class ProviderError(Exception):
    """A module provides no usable activities. The message is for people."""


class MissingModule(ProviderError):
    """The module does not exist."""


class _Facts(msgspec.Struct, frozen=True, kw_only=True):
    timeouts: Timeouts = Timeouts()
    retry: Retry = Retry()
    effect_free: bool = False
    undo: Undo | Literal["none"] | None = None
    extra: str | None = None


_UNSAID = _Facts()


def describe(
    *,
    timeouts: Timeouts = _UNSAID.timeouts,
    retry: Retry = _UNSAID.retry,
    effect_free: bool = False,
    undo: Undo | Literal["none"] | None = None,
    extra: str | None = None,
) -> Callable[[F], F]:
    """Add facts about an activity to the catalogue. Use it above or below ``@activity.defn``.

    Args:
        timeouts: Default timeouts in seconds.
        retry: Default retry settings.
        effect_free: True if there is nothing to undo, and the activity is safe to repeat.
        undo: How a step without ``compensate`` is undone; "none": there is nothing to undo.
        extra: The optional part of this package that a built-in activity needs.

    Raises:
        ValueError: The undo has a template that cannot work, or belongs to an activity without effects.
    """
    if isinstance(undo, Undo):
        check(undo, effect_free=effect_free)
    facts = _Facts(timeouts=timeouts, retry=retry, effect_free=effect_free, undo=undo, extra=extra)

    def attach(function: F) -> F:
        function.__pipeline_facts__ = facts  # type: ignore[attr-defined]  # that is the point
        return function

    return attach


def entry_points() -> list[str]:
    """Return the modules that installed packages provide, sorted."""
    return sorted({point.module for point in importlib.metadata.entry_points(group=GROUP)})


def catalogue_of(module_name: str, directory: Path | None = None) -> list[Entry]:
    """Return the catalogue entries of a module's activities, sorted by name.

    Imports the module, but calls nothing in it unless that is unavoidable.

    Raises:
        ProviderError: It cannot be imported, or provides nothing.
    """
    found = _offered(module_name, directory)
    return sorted((_entry(activity) for activity in found if name_of(activity)), key=lambda e: e.name)


def names_of(module: Provider) -> set[str]:
    """Return the names of a module's activities. The empty name stands for a dynamic activity.

    Imports the module, but calls nothing in it unless that is unavoidable.

    Raises:
        ProviderError: It cannot be imported, or provides nothing.
    """
    return {name_of(activity) or "" for activity in _offered(*module)}


def _offered(module_name: str, directory: Path | None) -> list[Activity]:
    module = import_module(module_name, directory)
    declared = getattr(module, "activities", None)
    found: list[Activity] = []
    if declared is None or callable(declared):
        found = [*_functions(module), *(f for c in _classes(module) for f in _methods(c))]
    if not found and declared is not None:
        found = _listed(module_name, declared)
    return _distinct(module_name, found)


def entries_of(activities: Iterable[Activity]) -> list[Entry]:
    """Return the catalogue entries of activities without a module, in their order.

    Raises:
        ProviderError: One is not decorated with ``@activity.defn``.
    """
    found = list(activities)
    for activity in found:
        if _definition(activity) is None:
            raise ProviderError(f"{activity!r} is not an activity: decorate it with @activity.defn")
    return [_entry(activity) for activity in found if name_of(activity)]


def activities_of(module_name: str, directory: Path | None = None) -> list[Activity]:
    """Return a module's activities, ready to be served.

    Raises:
        ProviderError: It cannot be imported, provides nothing, or a class needs arguments.
    """
    module = import_module(module_name, directory)
    declared = getattr(module, "activities", None)
    if declared is not None:
        return _distinct(module_name, _listed(module_name, declared))
    methods = (
        getattr(instance, method.__name__)
        for instance in _instances(module)
        for method in _methods(type(instance))
    )
    return _distinct(module_name, [*_functions(module), *methods])


def served(modules: Iterable[Provider]) -> list[Activity]:
    """Return the activities that a worker serves: the built-in ones, and those of packages and modules.

    Raises:
        ProviderError: A module cannot be imported, or provides nothing, or two directories have activities
            with the same name.
    """
    first = [Provider(module) for module in (*BUILTIN_MODULES, *entry_points())]
    # By name, so that a later module takes precedence. A dynamic activity, which has no name, is unique.
    found: dict[str, Activity] = {}
    directories: dict[str, Path] = {}
    for module, directory in dict.fromkeys([*first, *modules]):
        for activity in activities_of(module, directory):
            name = name_of(activity) or ""
            found[name] = activity
            if directory is not None and directories.setdefault(name, directory) != directory:
                raise ProviderError(_twice(name, directories[name], directory))
    return list(found.values())


def _twice(name: str, one: Path, other: Path) -> str:
    what = f'an activity "{name}"' if name else "an activity that takes any name"
    return (
        f"the modules of both {one / 'activities.yaml'} and {other / 'activities.yaml'} have {what}, and"
        " one worker can serve only one: give them different names, or run a worker for each"
    )


def import_module(name: str, directory: Path | None = None) -> ModuleType:
    """Import a module from a directory, from Python's usual places, or from the current directory.

    Raises:
        ProviderError: It does not exist, or cannot be imported.
    """
    importlib.invalidate_caches()
    here = Path.cwd()
    try:
        if directory is not None and importing.directory(directory).has(name):
            return importing.directory(directory).load(name)
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            # Last: a stray local directory must not hide an installed package.
            if error.name != name.partition(".")[0] or not importing.directory(here).has(name):
                raise
        return importing.directory(here).load(name)
    except ModuleNotFoundError as error:
        missing = importing.plain_name(error.name or "")
        if missing and f"{name}.".startswith(f"{missing}."):
            where = f"looked for in {directory or here} and where Python looks for modules"
            raise MissingModule(f'there is no Python module "{name}" ({where})') from None
        raise _import_error(name, error) from error
    except (Exception, SystemExit) as error:
        raise _import_error(name, error) from error


def _import_error(name: str, error: BaseException) -> ProviderError:
    """Return the error with the cause, and the last line of the user's code that led to it."""
    libraries = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib"))
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(("<", str(Path(__file__).parent), *libraries))
    ]
    where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return ProviderError(f'the module "{name}" cannot be imported: {type(error).__name__}: {error}{where}')


def _listed(module_name: str, declared: Any) -> list[Activity]:
    if callable(declared):
        try:
            declared = declared()
        except Exception as error:
            raise ProviderError(
                f'"activities" of the module "{module_name}" failed: {type(error).__name__}: {error}'
            ) from error
    if isinstance(declared, str) or not isinstance(declared, Iterable):
        raise ProviderError(
            f'"activities" of the module "{module_name}" must be a list of activities, or a'
            f" function without arguments that returns one, not {type(declared).__name__}"
        )
    listed = list(declared)
    for item in listed:
        if _definition(item) is None:
            raise ProviderError(
                f'"activities" of the module "{module_name}" has {item!r} in it, which is not'
                " decorated with @activity.defn"
            )
    return listed


def _functions(module: ModuleType) -> list[Activity]:
    return [v for v in vars(module).values() if inspect.isroutine(v) and _definition(v) is not None]


def _classes(module: ModuleType) -> list[type]:
    """Return the classes with activity methods, without those that another class extends."""
    values = list(vars(module).values())
    # type(), not __class__: a lazy object of the module must not be initialized.
    offered = [v if isinstance(v, type) else type(v) for v in values]
    found = [c for c in dict.fromkeys(offered) if any(_methods(c))]
    return [c for c in found if not any(other is not c and issubclass(other, c) for other in found)]


def _instances(module: ModuleType) -> Iterator[Any]:
    values = list(vars(module).values())
    for found in _classes(module):
        there = [v for v in values if type(v) is found]
        yield from there or [_instance(importing.plain_name(module.__name__), found)]


def _instance(module_name: str, found: type) -> Any:
    needed = [
        p.name
        for p in inspect.signature(found).parameters.values()
        if p.default is p.empty and p.kind not in {p.VAR_POSITIONAL, p.VAR_KEYWORD}
    ]
    if needed or inspect.isabstract(found):
        what = f"needs {', '.join(needed)}" if needed else "is abstract"
        raise ProviderError(
            f'the class {found.__name__} of the module "{module_name}" has activities, but'
            f" {what}: make an instance in the module, or write"
            f" activities = lambda: [{found.__name__}(…).{next(_methods(found)).__name__}]"
        )
    try:
        return found()
    except Exception as error:
        raise ProviderError(
            f'{found.__name__}() of the module "{module_name}" failed: {type(error).__name__}: {error}'
        ) from error


def _methods(found: type) -> Iterator[Activity]:
    # Finds the same as inspect.getmembers_static, without searching every base for every name.
    members = {name: value for base in reversed(found.__mro__) for name, value in vars(base).items()}
    for name in sorted(name for name, value in members.items() if inspect.isfunction(value)):
        method = getattr(found, name)
        if _definition(method) is not None:
            yield method


def _distinct(module_name: str, found: list[Activity]) -> list[Activity]:
    by_name: dict[str | None, Activity] = {}
    for activity in found:
        other = by_name.setdefault(name_of(activity), activity)
        if other != activity:
            raise ProviderError(
                f'the module "{module_name}" has two activities named "{name_of(activity)}":'
                f" {_path(other)} and {_path(activity)}"
            )
    if not found:
        raise ProviderError(
            f'the module "{module_name}" offers no activities: decorate functions with'
            ' @activity.defn, or give it a list named "activities"'
        )
    return list(by_name.values())


def _definition(value: Any) -> Any:
    """Return what ``@activity.defn`` attached. Reads it by name, to avoid importing temporalio."""
    if not (inspect.isroutine(value) or hasattr(type(value), "__temporal_activity_definition")):
        return None
    return getattr(value, "__temporal_activity_definition", None)


def is_activity(value: Any) -> bool:
    """Tell whether an object is decorated with ``@activity.defn``."""
    return _definition(value) is not None


def name_of(activity: Activity) -> str | None:
    """Return the registered name; None: a dynamic activity, which accepts any name."""
    name: str | None = _definition(activity).name
    return name


def _path(activity: Activity) -> str:
    function = inspect.unwrap(activity)
    name = getattr(function, "__qualname__", type(activity).__qualname__)
    return f"{importing.plain_name(function.__module__)}:{name}"


def _entry(activity: Activity) -> Entry:
    facts: _Facts = getattr(activity, "__pipeline_facts__", _UNSAID)
    function = inspect.unwrap(activity)
    hints, parameters = _hints(function), _parameters(function)
    alone = parameters[0] if parameters is not None and len(parameters) == 1 else None
    needed = alone is not None and alone.default is alone.empty
    name = name_of(activity)
    assert name is not None
    return Entry(
        name=name,
        description=" ".join((inspect.getdoc(activity) or "").split("\n\n")[0].split()),
        input=_given(hints, alone) if alone else None,
        arguments=None if parameters is None or needed else tuple(_argument(hints, p) for p in parameters),
        output=schema_of(hints.get("return", Any), "serialization"),
        effect_free=facts.effect_free,
        undo=facts.undo,
        extra=facts.extra,
        timeouts=facts.timeouts,
        retry=facts.retry,
        implementation=_path(activity),
    )


def _hints(function: Activity) -> dict[str, Any]:
    try:
        return get_type_hints(function, include_extras=True)
    except (AttributeError, NameError, SyntaxError, TypeError, ValueError):
        return {}  # names that only type checkers see, and the like


def _parameters(function: Activity) -> list[inspect.Parameter] | None:
    """Return the positional parameters; None: not known, or any number of them."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return None
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return None
    if parameters and parameters[0].name == "self":
        del parameters[0]
    return [p for p in parameters if p.kind in {p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD}]


def _given(hints: dict[str, Any], parameter: inspect.Parameter) -> dict[str, Any] | None:
    return schema_of(hints.get(parameter.name, Any), "validation")


def _argument(hints: dict[str, Any], parameter: inspect.Parameter) -> Argument:
    schema, required = _given(hints, parameter), parameter.default is parameter.empty
    return Argument(name=parameter.name, schema=schema, required=required)
