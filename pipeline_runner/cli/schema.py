"""Print the JSON Schema (2020-12) of pipeline files."""

import argparse

from pipeline_runner.cli import console
from pipeline_runner.cli.exit_codes import ExitCode
from pipeline_runner.language.table import schema


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""


def execute(args: argparse.Namespace) -> ExitCode:  # noqa: ARG001
    """Print it."""
    console.result(schema.text())
    return ExitCode.OK
