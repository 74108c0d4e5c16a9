"""List the activities that steps can use, with their inputs and outputs."""

import argparse
import json
from pathlib import Path

import msgspec

from pipeline_runner.activities.catalogue import extras
from pipeline_runner.activities.catalogue.entries import Entry
from pipeline_runner.activities.catalogue.providers import ProviderError
from pipeline_runner.activities.catalogue.undo import Undo
from pipeline_runner.cli import console, options
from pipeline_runner.cli.exit_codes import ExitCode
from pipeline_runner.cli.main import CommandError
from pipeline_runner.language import catalogue_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("name", nargs="*", help="activities to show in full (default: list all)")
    options.add_activities(parser)
    parser.add_argument("--format", choices=("text", "json"), default="text")
    parser.add_argument(
        "--json", action="store_const", const="json", dest="format", help="short for --format json"
    )


def execute(args: argparse.Namespace) -> ExitCode:
    """Print the catalogue of the current directory."""
    path = catalogue_file.nearest(Path.cwd())
    try:
        if path is None:
            found = catalogue_file.without_file(args.activities)
        else:
            found = catalogue_file.read(path, path.name, args.activities)
    except ProviderError as error:
        raise CommandError(str(error)) from None
    unknown = [name for name in args.name if name not in found.catalogue]
    if unknown:
        raise CommandError(f"there is no activity {', '.join(unknown)}", ExitCode.FAILED)
    entries = [found.catalogue[name] for name in args.name or sorted(found.catalogue)]
    if args.format == "json":
        console.result_json(msgspec.to_builtins(entries))
    elif args.name:
        console.result(console.plain("\n".join(_full(entry) for entry in entries)))
    else:
        width = max(len(entry.name) for entry in entries)
        for entry in entries:
            first = entry.description.partition("\n")[0]
            console.result(console.plain(f"{entry.name:<{width}}  {first}\n"))
    return ExitCode.OK


def _full(entry: Entry) -> str:
    lines = [entry.name, f"  {entry.description}"]
    for title, schema in (("with", entry.input), ("output", entry.output)):
        properties = (schema or {}).get("properties") or {}
        if properties:
            lines.append(f"  {title}:")
        required = (schema or {}).get("required", [])
        for key, value in properties.items():
            needed = ", required" if key in required and title == "with" else ""
            lines.append(f"    {key} ({_type(value)}{needed}): {value.get('description', '')}".rstrip(": "))
    if entry.arguments:
        lines.append("  args:")
    for argument in entry.arguments or ():
        needed = ", required" if argument.required else ""
        lines.append(f"    {argument.name} ({_type(argument.schema or {})}{needed})")
    if entry.extra:
        lines.append(f"  needs: {extras.remedy(entry.extra)}")
    if isinstance(entry.undo, Undo):
        lines += _undo(entry.undo)
    return "\n".join(lines) + "\n"


def _undo(undo: Undo) -> list[str]:
    given = [*(undo.input or {}).items(), *enumerate(undo.args or (), 1)]
    lines = [f"    {key}: {value if isinstance(value, str) else json.dumps(value)}" for key, value in given]
    when = "" if undo.given is None else f', if "{undo.given}" is given'
    only = ", only if the step completed" if undo.after == "completed" else ""
    return [f"  undone by: {undo.activity}{only}{when}", *lines]


def _type(schema: dict[str, object]) -> str:
    if "enum" in schema and isinstance(schema["enum"], list):
        return " | ".join(map(str, schema["enum"]))
    options = schema.get("anyOf")
    if isinstance(options, list):
        return " | ".join(_type(option) for option in options)
    return str(schema.get("type", "any"))
