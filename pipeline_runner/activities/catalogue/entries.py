"""The catalogue: which activities exist, and what is known of each.

Imports no implementation and no temporalio, so that checking a file stays offline and
fast. An entry comes from the built-in families (``builtin.json``, generated from their
code), from Python modules, from entry points, or from an ``activities.yaml``.
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
    """One of the positional arguments of an activity that may take more or fewer than one."""

    name: str
    schema: dict[str, Any] | None = None
    """JSON Schema of its value; None: unknown."""
    required: bool = True


class Entry(Struct, frozen=True, kw_only=True):
    """What is known of one activity."""

    name: str
    """The registered activity type."""
    description: str = ""
    input: dict[str, Any] | None = None
    """JSON Schema of its one argument; None: unknown."""
    arguments: tuple[Argument, ...] | None = None
    """What it takes, where one argument is not what it needs; None: unknown, or one."""
    output: dict[str, Any] | None = None
    """JSON Schema of its result; None: unknown. Where it refuses further keys, there are none."""
    effect_free: bool = False
    """true: nothing to undo, and safe to repeat."""
    undo: Undo | Literal["none"] | None = None
    """How a step without compensate is undone; "none": there is nothing to undo; None: not known."""
    task_queue: str | None = None
    """Where its worker listens; None: on the run's own task queue."""
    secrets: bool = False
    """Whether its worker is one of this package, although the code is not known here."""
    timeouts: Timeouts = Timeouts()
    retry: Retry = Retry()
    extra: str | None = None
    """The optional part of this package that it needs; None: nothing beyond the core."""
    implementation: str | None = None
    """``module:name`` of the Python code; None: served by somebody else's worker."""

    @property
    def takes_secrets(self) -> bool:
        """Whether its worker puts the values of secrets into the input."""
        return self.secrets or self.implementation is not None


class Catalogue(Mapping[str, Entry]):
    """Entries by activity name. Later sources win over earlier ones."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._entries = {entry.name: entry for entry in entries}

    def __getitem__(self, name: str) -> Entry:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def extended(self, entries: Iterable[Entry]) -> "Catalogue":
        """Return a catalogue with these entries added, or put over those of the same name."""
        return Catalogue([*self._entries.values(), *entries])


@cache
def builtin() -> Catalogue:
    """Return the catalogue of the activities that come with this package."""
    text = resources.files(__package__).joinpath("builtin.json").read_bytes()
    return Catalogue(msgspec.convert(json.loads(text), list[Entry]))
