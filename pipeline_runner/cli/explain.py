"""Explain a rule of the checker, or list all rules."""

import argparse
from itertools import groupby

from pipeline_runner.cli import console
from pipeline_runner.cli.exit_codes import ExitCode
from pipeline_runner.cli.main import CommandError
from pipeline_runner.language import rules


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("rule", nargs="?", metavar="RULE", help="the id at the end of a message, in brackets")


def execute(args: argparse.Namespace) -> ExitCode:
    """Print the page of the rule as Markdown, or the list of rules."""
    if args.rule is None:
        console.result(_list())
        return ExitCode.OK
    try:
        page = rules.page(args.rule)
    except rules.UnknownRuleError as error:
        help_ = "" if error.suggestion else ": run-pipeline explain lists them"
        raise CommandError(f"{error}{help_}") from None
    console.result(rules.readable(page))
    return ExitCode.OK


def _list() -> str:
    every = rules.every()
    width = max(len(rule.id) for rule in every)
    groups = [
        "\n".join([group, *(_line(rule, width) for rule in found)])
        for group, found in groupby(every, key=lambda rule: rule.group)
    ]
    return "\n\n".join(groups) + "\n"


def _line(rule: rules.Rule, width: int) -> str:
    first = " ".join(rule.first_sentence.split())
    return f"  {rule.id:<{width}}  {rule.severity:<7}  {first}"
