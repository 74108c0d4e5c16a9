"""Write the built-in catalogue: ``python -m pipeline_runner.activities.catalogue.generate``.

Checking a file needs the catalogue but must not import the implementations, so their descriptions are
written to ``builtin.json``. Run this after changing one; a test fails if you forget it.
"""

import json
from pathlib import Path
from typing import Any

import msgspec

from pipeline_runner.activities.catalogue.entries import Entry
from pipeline_runner.activities.catalogue.providers import BUILTIN_MODULES, catalogue_of

TARGET = Path(__file__).with_name("builtin.json")


def generate() -> str:
    """Return the content of ``builtin.json``."""
    entries = [_plain(entry) for module in BUILTIN_MODULES for entry in catalogue_of(module)]
    return json.dumps(entries, indent=2) + "\n"


def _plain(entry: Entry) -> dict[str, Any]:
    return {key: value for key, value in msgspec.to_builtins(entry).items() if value != {}}


if __name__ == "__main__":
    TARGET.write_text(generate(), encoding="utf-8")
