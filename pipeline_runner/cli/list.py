"""List runs, newest first. Children belong to their parents and are not listed.

--problems lists only runs that need attention: failed, dirty, or retrying a step.
"""

import argparse
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from pipeline_runner.cli import console, logs, options, session
from pipeline_runner.cli.exit_codes import ExitCode
from pipeline_runner.core.durations import spell

if TYPE_CHECKING:
    from pipeline_runner.engine.listing import Listed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("--problems", action="store_true", help="only runs that need attention")
    parser.add_argument("--pipeline", metavar="NAME", help="only runs of this pipeline")
    parser.add_argument("--limit", type=int, default=20, metavar="N", help="at most N runs (default: 20)")
    parser.add_argument(
        "--all",
        action="store_true",
        help="also workflows that this package did not start, such as pipelines started by name",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    options.add_server(parser)


def execute(args: argparse.Namespace) -> ExitCode:
    """Run the command."""
    with session.place(args) as where:
        return session.run_loop(_list(args, where))


async def _list(args: argparse.Namespace, where: session.Target) -> ExitCode:
    from pipeline_runner.engine.listing import list_runs

    logs.follow(verbose=False)
    client = await session.connect(where)
    runs = await list_runs(
        client, limit=max(args.limit, 1), pipeline=args.pipeline, problems=args.problems, every=args.all
    )
    if args.json:
        console.result_json(msgspec.to_builtins(runs))
    elif runs:
        console.result(_table(runs))
    else:
        console.tell("no runs")
    return ExitCode.OK


def _table(runs: "list[Listed]") -> str:
    rows = [("RUN", "PIPELINE", "STATUS", "STARTED", "TIME", "")]
    rows += [(run.run, run.pipeline, _status(run), _when(run), _time(run), run.problem or "") for run in runs]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = ["  ".join([*map(str.ljust, row, widths), row[5]]).rstrip() for row in map(_shown, rows)]
    if (width := console.result_width()) is not None:
        lines = [line if len(line) <= width else f"{line[: width - 1]}…" for line in lines]
    return "".join(f"{line}\n" for line in lines)


def _shown(row: tuple[str, ...]) -> list[str]:
    return [console.plain(" ".join(cell.split())) for cell in row]


def _status(run: "Listed") -> str:
    return run.status + (", dirty" if run.dirty else ", undone by hand" if run.undone else "")


def _when(run: "Listed") -> str:
    return run.started_at.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _time(run: "Listed") -> str:
    end = run.ended_at or datetime.now(UTC)
    return spell(max(round((end - run.started_at).total_seconds()), 0))
