"""Show a run: what it was given, its steps with their inputs and outputs, its errors, and its undo.

This reads the server alone, so it works for runs that have ended and for runs without a worker.
"""

import argparse
import json
from typing import TYPE_CHECKING, Any

import msgspec

from pipeline_runner.cli import console, logs, options, session, words
from pipeline_runner.cli.exit_codes import ExitCode
from pipeline_runner.core.errors import in_brackets

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline_runner.cli.rows import Row
    from pipeline_runner.engine.history.node import Node
    from pipeline_runner.engine.showing import Data, Shown

_SHORT = 120
"""Characters of an input or output, unless everything is shown."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("run", metavar="RUN", help="the workflow id")
    parser.add_argument("--full", action="store_true", help="do not shorten inputs and outputs")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options.add_server(parser)


def execute(args: argparse.Namespace) -> ExitCode:
    """Run the command."""
    with session.place(args) as where:
        return session.run_loop(_show(args, where))


async def _show(args: argparse.Namespace, where: session.Target) -> ExitCode:
    from pipeline_runner.cli.rows import rows_of
    from pipeline_runner.engine.showing import show

    logs.follow(verbose=False)
    client = await session.connect(where)
    _, description = await session.find_run(client, args.run)
    shown, root, data = await show(client, description)
    if args.json:
        console.result_json(msgspec.to_builtins(shown))
        return ExitCode.OK
    limit = None if args.full else _SHORT
    lines = [*_head(shown, limit), "", *_body(rows_of(root), data, limit), *_foot(shown, where)]
    console.result("".join(f"{console.plain(line)}\n" for line in lines))
    return ExitCode.OK


def _head(shown: "Shown", limit: int | None) -> "Iterator[str]":
    end = (
        ""
        if shown.ended_at is None
        else f", {words.duration((shown.ended_at - shown.started_at).total_seconds())}"
    )
    yield f"run       {shown.run}"
    yield f"run id    {shown.run_id}"
    yield f"pipeline  {shown.pipeline}"
    yield f"status    {shown.status}{', dirty' if shown.report.dirty else ''}"
    yield f"started   {shown.started_at.astimezone():%Y-%m-%d %H:%M:%S}{end}"
    if shown.inputs:
        yield f"inputs    {_data(shown.inputs, limit)}"
    if shown.output is not None:
        yield f"output    {_data(shown.output, limit)}"
    if shown.report.error is not None:
        yield f"error     {shown.report.error.message}{in_brackets(shown.report.error.type)}"
    links = {"resumes": shown.resumes, "undoes": shown.undoes, "undone by": shown.undone_by}
    yield from (f"{name:<9} {link}" for name, link in links.items() if link is not None)


def _body(rows: "list[Row]", data: "dict[Node, Data]", limit: int | None) -> "Iterator[str]":
    titles = [f"{'  ' * row.depth}{words.one_line(row.title)}" for row in rows]
    width = max(map(len, titles), default=0)
    for title, row in zip(titles, rows, strict=True):
        node = row.node
        if node is None:
            yield title
            continue
        yield f"{title:<{width}}  {_state(row, node)}".rstrip()
        pad = "  " * (row.depth + 2)
        if node.error is not None:
            yield f"{pad}error   {node.error}{in_brackets(node.error_type)}"
        kept = data.get(node)
        if kept is not None and kept.input is not None:
            yield f"{pad}input   {_data(kept.input, limit)}"
        if kept is not None and kept.output is not None:
            yield f"{pad}output  {_data(kept.output, limit)}"


def _state(row: "Row", node: "Node") -> str:
    parts = [node.state if row.counts is None else words.counted(row.counts)]
    if node.attempt > 1 or node.state == "retrying":
        parts.append(words.attempts(node.attempt, node.maximum_attempts))
    if node.begun is not None and node.ended is not None:
        parts.append(words.duration((node.ended - node.begun).total_seconds()))
    return ", ".join(parts)


def _foot(shown: "Shown", where: session.Target) -> "Iterator[str]":
    run = shown.undoes or shown.run
    left = [record for record in shown.report.undo if record.state in ("failed", "not undone")]
    if left or shown.report.kept or (shown.report.dirty and shown.ended_at is not None):
        yield ""
    for record in left:
        why = f": {record.error.message}{in_brackets(record.error.type)}" if record.error else ""
        yield f"{record.state}: {record.path}{why}"
    if shown.report.kept:
        yield f"to go on where it stopped: {where.command('resume', run)}"
    if shown.report.kept or (shown.report.dirty and shown.ended_at is not None):
        yield f"to undo what is left: {where.command('undo', run)}"


def _data(value: Any, limit: int | None) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if limit is None or len(text) <= limit else f"{text[: limit - 1]}…"
