"""Check pipeline files, and the pipelines in folders, offline."""

import argparse
import gc
import sys
from collections.abc import Sequence

from pipeline_runner.cli import console, options
from pipeline_runner.cli.diagnose import show
from pipeline_runner.cli.exit_codes import ExitCode
from pipeline_runner.cli.formats import FORMATS
from pipeline_runner.cli.main import CommandError
from pipeline_runner.language.diagnostics import Diagnostic
from pipeline_runner.language.resolve import UsageError, check_paths


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument(
        "path",
        nargs="+",
        help="a pipeline file, a folder to search for them, or - for a pipeline on standard input",
    )
    options.add_activities(parser)
    parser.add_argument("--format", choices=("text", *FORMATS), default="text", help="how mistakes are told")
    parser.add_argument("--strict", action="store_true", help="count warnings as mistakes")


def execute(args: argparse.Namespace) -> ExitCode:
    """Check, and tell what is wrong: as text on standard error, or for programs on standard output."""
    if "-" in args.path and sys.stdin is None:
        raise CommandError("standard input is closed")
    # Nearly all that is made is kept to the end: to look for garbage takes a third of the time.
    gc.disable()
    stdin = sys.stdin.buffer if sys.stdin else None
    try:
        checked = check_paths(args.path, modules=args.activities, stdin=stdin)
    except UsageError as error:
        raise CommandError(str(error)) from None
    if args.format == "text":
        show(checked.diagnostics, checked.sources)
        _summarize(checked.diagnostics, len(checked.files))
    else:
        console.result(FORMATS[args.format](checked.diagnostics))
    bad = [d for d in checked.diagnostics if args.strict or d.severity == "error"]
    return ExitCode.FAILED if bad else ExitCode.OK


def _summarize(found: Sequence[Diagnostic], files: int) -> None:
    errors = sum(d.severity == "error" for d in found)
    warnings = len(found) - errors
    checked = "1 file" if files == 1 else f"{files} files"
    console.tell(f"{checked}: {_count(errors, 'error')}, {_count(warnings, 'warning')}")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
