"""Imports Python modules from a directory, invisible to other directories.

Two directories may each have a ``shop.py``, and a ``helpers.py`` that it imports. Python has one table
of modules and one search path per process. Each directory therefore becomes a package with a name of
its own: Python looks for its modules in the directory first, then in the usual places. ``sys.path`` is
unchanged.

Inside these modules, ``import helpers`` means the ``helpers.py`` of their directory, even if a function
imports it while it runs. ``importlib.import_module("helpers")`` does not.
"""

import builtins
import hashlib
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.machinery import (
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    ModuleSpec,
    PathFinder,
    SourceFileLoader,
)
from pathlib import Path
from types import ModuleType
from typing import Any

_PREFIX = "activities_of_"


class Directory:
    """A directory whose modules can be imported."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.package = _PREFIX + hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
        self.builtins = {**vars(builtins), "__import__": self._import}
        package = ModuleType(self.package, f"The modules in {path}.")
        package.__path__ = [str(path)]
        package.__spec__ = ModuleSpec(self.package, None, is_package=True)
        package.__spec__.submodule_search_locations = [str(path)]
        sys.modules[self.package] = package

    def has(self, name: str) -> bool:
        """Tell whether this directory has the first part of a module's name."""
        top = name.partition(".")[0]
        spec = PathFinder.find_spec(top, [str(self.path)])
        if spec is None:
            return False
        # A directory that is not a package comes last, as everywhere in Python: its name may be a
        # coincidence.
        return spec.origin is not None or (top not in sys.modules and PathFinder.find_spec(top) is None)

    def load(self, name: str) -> ModuleType:
        """Import a module of this directory. Errors of the import are not caught."""
        return importlib.import_module(f"{self.package}.{name}")

    def _import(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,  # noqa: A002 - the name in Python's signature
        locals: Mapping[str, Any] | None = None,  # noqa: A002
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        """Carry out an ``import`` statement of a module in this directory."""
        if level or not self.has(name):
            return builtins.__import__(name, globals, locals, fromlist or (), level)
        self.load(name)
        if fromlist:
            return builtins.__import__(f"{self.package}.{name}", globals, locals, fromlist, 0)
        return sys.modules[f"{self.package}.{name.partition('.')[0]}"]


@cache
def directory(path: Path) -> Directory:
    """Return the object for the directory at a path."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
    found = Directory(path)
    _BY_PACKAGE[found.package] = found
    return found


def plain_name(name: str) -> str:
    """Return the name of a module, or of an object in it, as people write it."""
    return name.partition(".")[2] if name.startswith(_PREFIX) else name


_BY_PACKAGE: dict[str, Directory] = {}


class _Finder:
    """Finds the modules of the directories, in their packages."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find a module. Return None if it is not one of ours, or does not exist."""
        if not name.startswith(_PREFIX) or path is None:
            return None
        own = _BY_PACKAGE[name.partition(".")[0]]
        for place in path:
            finder = FileFinder(
                place, (ExtensionFileLoader, EXTENSION_SUFFIXES), (_loader(own), SOURCE_SUFFIXES)
            )
            spec = finder.find_spec(name)
            if spec is not None and (spec.loader or spec.submodule_search_locations):
                return spec
        return None


def _loader(own: Directory) -> type[SourceFileLoader]:
    """Return a loader whose modules import like those of a directory."""

    class Loader(SourceFileLoader):
        def exec_module(self, module: ModuleType) -> None:
            vars(module)["__builtins__"] = own.builtins
            super().exec_module(module)

    return Loader
