"""Check pipeline files, and the pipelines in directories, offline."""

import argparse
import gc
import sys
from collections.abc import Sequence

from pipeline_runner.cli import console, options
from pipeline_runner.cli.diagnose import show
from pipeline_runner.cli.exit_codes import ExitCode
from pipeline_runner.cli.formats import FORMATS
from pipeline_runner.cli.main import CommandError
from pipeline_runner.language.catalogue_file import LOCK
from pipeline_runner.language.diagnostics import Diagnostic
from pipeline_runner.language.workspace import Checked, UsageError, check_paths


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument(
        "path",
        nargs="+",
        help="a pipeline file, a directory to search for pipelines, or - for standard input",
    )
    options.add_activities(parser)
    parser.add_argument(
        "--no-modules",
        action="store_true",
        help="import no Python modules; use it for files that you do not trust",
    )
    parser.add_argument("--format", choices=("text", *FORMATS), default="text", help="output format")
    parser.add_argument("--strict", action="store_true", help="treat warnings as errors")


def execute(args: argparse.Namespace) -> ExitCode:
    """Check, and report what is wrong: as text on standard error, or for programs on standard output."""
    if "-" in args.path and sys.stdin is None:
        raise CommandError("standard input is closed")
    if args.no_modules and args.activities:
        raise CommandError("--activities imports modules, so it cannot be used with --no-modules")
    # Nearly all objects are kept to the end: garbage collection would take a third of the time.
    gc.disable()
    stdin = sys.stdin.buffer if sys.stdin else None
    try:
        checked = check_paths(args.path, modules=args.activities, stdin=stdin, imports=not args.no_modules)
    except UsageError as error:
        raise CommandError(str(error)) from None
    _tell(checked, args.format)
    if checked.unreadable:
        return ExitCode.USAGE
    bad = [d for d in checked.diagnostics if args.strict or d.severity == "error"]
    return ExitCode.FAILED if bad else ExitCode.OK


def _tell(checked: Checked, format_: str) -> None:
    if checked.unreadable and not checked.files and not checked.diagnostics:
        pass  # the error has been reported
    elif format_ == "text":
        show(checked.diagnostics, checked.sources)
        _summarize(checked.diagnostics, len(checked.files))
    else:
        console.result(FORMATS[format_](checked.diagnostics))
    if checked.unread:
        console.tell(
            f"note: not imported, so their activities are not checked: {', '.join(checked.unread)}."
            f" To record them, run this beside activities.yaml: run-pipeline activities --json > {LOCK}"
        )
    for problem in checked.unreadable:
        console.tell(f"run-pipeline: {problem}")


def _summarize(found: Sequence[Diagnostic], files: int) -> None:
    errors = sum(d.severity == "error" for d in found)
    warnings = len(found) - errors
    checked = "1 file" if files == 1 else f"{files} files"
    console.tell(f"{checked}: {_count(errors, 'error')}, {_count(warnings, 'warning')}")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
