"""Print the JSON Schema (2020-12) of pipeline files."""

import argparse
import sys

from pipeline_runner.cli.exit_codes import ExitCode
from pipeline_runner.language import schema


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""


def execute(args: argparse.Namespace) -> ExitCode:  # noqa: ARG001
    """Print it."""
    sys.stdout.write(schema.text())
    return ExitCode.OK
