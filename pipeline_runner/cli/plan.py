"""Show what would be undone if a step failed. Nothing runs, and no server is needed.

The undos are printed in the order in which they would run.
"""

import argparse

import msgspec

from pipeline_runner.cli import console, options
from pipeline_runner.cli.exit_codes import ExitCode
from pipeline_runner.cli.main import CommandError
from pipeline_runner.core.suggest import did_you_mean
from pipeline_runner.language.preview import Preview, previews


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("file", help="a pipeline file")
    parser.add_argument("--if-fails", metavar="STEP", help="only this step: its path, such as deploy.copy")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options.add_activities(parser)


def execute(args: argparse.Namespace) -> ExitCode:
    """Run the command."""
    from pipeline_runner.cli import diagnose

    loaded = diagnose.loaded(args.file, args.activities)
    assert loaded.bundle is not None
    found = [*previews(loaded.bundle)]
    if args.if_fails is not None:
        chosen = [one for one in found if one.step == args.if_fails]
        if not chosen:
            help_ = did_you_mean(args.if_fails, [one.step for one in found])
            raise CommandError(f'{args.file} has no step "{args.if_fails}"' + (f": {help_}" if help_ else ""))
        found = chosen
    if args.json:
        console.result_json(msgspec.to_builtins(found))
    else:
        console.result("\n".join(map(_text, found)))
    return ExitCode.OK


def _text(preview: Preview) -> str:
    lines = [f'if "{preview.step}" fails, {_what(preview)}']
    width = max((len(one.step) for one in preview.undone), default=0)
    for one in preview.undone:
        condition = f"  ({one.condition})" if one.condition else ""
        lines.append(f"  {one.step:<{width}}  {one.by}{condition}")
    if preview.pivot is not None and not preview.keeps:
        lines.append(f'  point of no return: "{preview.pivot}" and the steps before it are not undone')
    lines += [
        f'  "{step}" catches some errors: then only what is inside it is undone'
        for step in preview.may_be_caught_by
    ]
    return console.plain("\n".join(lines)) + "\n"


def _what(preview: Preview) -> str:
    if preview.keeps:
        return "nothing is undone (on_failure: keep)"
    if not preview.undone and preview.caught_by is None:
        return "nothing is undone"
    undone = "these are undone" if preview.undone else "nothing is undone"
    caught = f', then "{preview.caught_by}" handles the error' if preview.caught_by else ""
    return undone + caught + (":" if preview.undone else "")
