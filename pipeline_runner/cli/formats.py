"""The formats of ``validate`` for other programs: JSON, SARIF, and GitHub's annotations.

All of them go to standard output. :mod:`diagnose` writes the text for people.
"""

import os
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any
from urllib.parse import quote

from pipeline_runner.cli import console
from pipeline_runner.language.diagnostics import Diagnostic, as_json

SARIF_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def as_json_text(found: Sequence[Diagnostic]) -> str:
    """Return diagnostics as a JSON list."""
    return _json([as_json(diagnostic) for diagnostic in found])


def as_sarif(found: Sequence[Diagnostic]) -> str:
    """Return diagnostics as a SARIF 2.1.0 log of one run."""
    levels: dict[str, str] = {}
    for diagnostic in found:  # a rule may be both: its default is the more severe one
        if levels.get(diagnostic.rule) != "error":
            levels[diagnostic.rule] = diagnostic.severity
    rules = sorted(levels)
    driver = {
        "name": "run-pipeline",
        "version": version("pipeline-runner"),
        "rules": [{"id": rule, "defaultConfiguration": {"level": levels[rule]}} for rule in rules],
    }
    results = [_sarif_result(diagnostic, rules.index(diagnostic.rule)) for diagnostic in found]
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    return _json({"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]})


def as_github(found: Sequence[Diagnostic]) -> str:
    """Return diagnostics as workflow commands, which GitHub Actions shows beside the changed lines."""
    return "".join(map(_github_command, found))


FORMATS: dict[str, Callable[[Sequence[Diagnostic]], str]] = {
    "json": as_json_text,
    "sarif": as_sarif,
    "github": as_github,
}


def _sarif_result(diagnostic: Diagnostic, rule: int) -> dict[str, Any]:
    d = diagnostic
    region = {
        "startLine": d.line,
        "startColumn": d.column,
        "endLine": d.end_line,
        "endColumn": d.end_column,
    }
    return {
        "ruleId": d.rule,
        "ruleIndex": rule,
        "level": d.severity,
        "message": {"text": _message(d)},
        "locations": [
            {"physicalLocation": {"artifactLocation": {"uri": _uri(d.path)}, "region": region}},
        ],
    }


def _github_command(diagnostic: Diagnostic) -> str:
    d = diagnostic
    properties: dict[str, object] = {"file": _local(d.path), "line": d.line, "endLine": d.end_line}
    if d.line == d.end_line:  # GitHub ignores the columns of a span of several lines
        properties |= {"col": d.column, "endColumn": d.end_column}
    properties["title"] = d.rule
    told = ",".join(f"{name}={_github_property(str(value))}" for name, value in properties.items())
    return f"::{d.severity} {told}::{_github_data(_message(d))}\n"


def _github_data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _github_property(text: str) -> str:
    return _github_data(text).replace(":", "%3A").replace(",", "%2C")


def _message(diagnostic: Diagnostic) -> str:
    return f"{diagnostic.message}\nhelp: {diagnostic.help}" if diagnostic.help else diagnostic.message


def _uri(path: str) -> str:
    """Return a path as a URI reference, even if it is not UTF-8."""
    local = _local(path)
    return f"{'file://' if os.path.isabs(local) else ''}{quote(os.fsencode(local))}"


def _local(path: str) -> str:
    """Return a path relative to the current directory, if the file is in it."""
    inside = os.path.join(os.getcwd(), "")
    return path.removeprefix(inside)


def _json(value: Any) -> str:
    return console.json_text(value)
