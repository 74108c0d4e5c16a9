"""Writes the published JSON Schema of a pipeline file, from the table of the language.

``python -m pipeline_runner.language.table.schema > schemas/pipeline.schema.json`` updates it.
"""

import json
import sys
from typing import Any

from pipeline_runner.language.table.fields import PIPELINE


def pipeline_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a pipeline file."""
    defs: dict[str, Any] = {}
    PIPELINE.schema(defs)
    top = defs.pop(PIPELINE.name)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Pipeline Runner pipeline, language version 1",
        **top,
        "$defs": dict(sorted(defs.items())),
    }


def text() -> str:
    """Return the content of the schema file."""
    return json.dumps(pipeline_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text())
