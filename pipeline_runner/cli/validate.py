"""Check pipeline files, and the pipelines in folders, offline."""

import argparse
import json
from collections.abc import Sequence

from pipeline_runner.cli import console, options
from pipeline_runner.cli.diagnose import show
from pipeline_runner.cli.exit_codes import ExitCode
from pipeline_runner.cli.main import CommandError
from pipeline_runner.language.diagnostics import Diagnostic, as_json
from pipeline_runner.language.resolve import UsageError, check_paths


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("path", nargs="+", help="a pipeline file, or a folder to search for them")
    options.add_activities(parser)
    parser.add_argument("--format", choices=("text", "json"), default="text", help="how mistakes are told")
    parser.add_argument("--strict", action="store_true", help="count warnings as mistakes")


def execute(args: argparse.Namespace) -> ExitCode:
    """Check, and tell what is wrong: as text on standard error, or as JSON on standard output."""
    try:
        checked = check_paths(args.path, modules=args.activities)
    except UsageError as error:
        raise CommandError(str(error)) from None
    if args.format == "json":
        console.result(
            json.dumps([as_json(d) for d in checked.diagnostics], ensure_ascii=False, indent=2) + "\n"
        )
    else:
        show(checked.diagnostics, checked.sources)
        _summarize(checked.diagnostics, len(checked.files))
    bad = [d for d in checked.diagnostics if args.strict or d.severity == "error"]
    return ExitCode.FAILED if bad else ExitCode.OK


def _summarize(found: Sequence[Diagnostic], files: int) -> None:
    errors = sum(d.severity == "error" for d in found)
    warnings = len(found) - errors
    checked = "1 file" if files == 1 else f"{files} files"
    console.tell(f"{checked}: {_count(errors, 'error')}, {_count(warnings, 'warning')}")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
