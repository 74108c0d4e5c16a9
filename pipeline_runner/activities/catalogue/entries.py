"""The catalogue: which activities exist, and what is known about each.

Imports no implementation and no temporalio, so that checking a file stays offline and fast. An entry
comes from the built-in families (``builtin.json``, generated from their code), from Python modules,
from entry points, or from an ``activities.yaml``.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib import resources
from typing import Any, Literal

import msgspec

from pipeline_runner.activities.catalogue.undo import Undo
from pipeline_runner.core.model import Retry, Struct, Timeouts


class Argument(Struct, frozen=True, kw_only=True):
    """A positional argument of an activity that may take more or fewer than one."""

    name: str
    schema: dict[str, Any] | None = None
    """JSON Schema of its value; None: not known."""
    required: bool = True


class Entry(Struct, frozen=True, kw_only=True):
    """What is known about one activity."""

    name: str
    """The registered activity type."""
    description: str = ""
    input: dict[str, Any] | None = None
    """JSON Schema of its one argument; None: not known."""
    arguments: tuple[Argument, ...] | None = None
    """The arguments, if one is not what the activity needs; None: not known, or one."""
    output: dict[str, Any] | None = None
    """JSON Schema of its result; None: not known. If the schema refuses further keys, the result has none."""
    effect_free: bool = False
    """true: there is nothing to undo, and it is safe to repeat."""
    undo: Undo | Literal["none"] | None = None
    """How a step without ``compensate`` is undone; "none": there is nothing to undo; None: not known."""
    task_queue: str | None = None
    """The task queue of its worker; None: the run's own."""
    secrets: bool = False
    """Whether its worker uses this package, although the code is not known here."""
    timeouts: Timeouts = Timeouts()
    retry: Retry = Retry()
    extra: str | None = None
    """The optional part of this package that it needs; None: it needs only the core."""
    implementation: str | None = None
    """``module:name`` of the Python code; None: another worker serves it."""

    @property
    def takes_secrets(self) -> bool:
        """Whether its worker inserts the values of secrets into the input."""
        return self.secrets or self.implementation is not None


class Catalogue(Mapping[str, Entry]):
    """Entries by activity name. Later sources take precedence over earlier ones."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._entries = {entry.name: entry for entry in entries}

    def __getitem__(self, name: str) -> Entry:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def extended(self, entries: Iterable[Entry]) -> "Catalogue":
        """Return a catalogue with these entries added. They replace entries with the same names."""
        return Catalogue([*self._entries.values(), *entries])


@cache
def builtin() -> Catalogue:
    """Return the catalogue of the activities that come with this package."""
    text = resources.files(__package__).joinpath("builtin.json").read_bytes()
    return Catalogue(msgspec.convert(json.loads(text), list[Entry]))
