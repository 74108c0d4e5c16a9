"""The ``sql`` family: statements and scripts for databases. Each call is one transaction.

A call works in its own thread, on its own connection, and commits at the very end. When the step is
cancelled or its time is up, the database stops the statement (PostgreSQL, SQLite), nothing is committed
any more, and the transaction is rolled back. With other databases, this depends on the driver, and on
whether the database rolls back definitions such as CREATE TABLE.

Messages name the secret with the connection, and quote the first line of the database's message,
without the values of parameters, rows or the connection.
"""

import base64
import math
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, time, timedelta
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta

from pipeline_runner.activities.sql.call import EXTRA, Call
from pipeline_runner.activities.sql.text import TOKENS, Statement, literal, split
from pipeline_runner.activities.toolkit.context import absolute
from pipeline_runner.activities.toolkit.errors import explain_errors, refused
from pipeline_runner.activities.toolkit.heartbeat import heartbeating
from pipeline_runner.activities.toolkit.parameters import built_in, doc
from pipeline_runner.activities.toolkit.sizes import MIB, RESULT_LIMIT, encoded_size
from pipeline_runner.core.model import Timeouts

if TYPE_CHECKING:
    from sqlalchemy import Connection

MAX_ROWS = 10_000
SCRIPT_LIMIT = 16 * MIB

_UNSHOWN = 4
"""Parameters with fewer characters are not removed from messages."""
Value = str | int | float | bool | None
Values = dict[str, Value]
ConnectionName = Annotated[
    str,
    Meta(
        min_length=1,
        description="The name of a secret on the worker that holds the database URL, such as"
        " postgresql://user:password@host/database or sqlite:////directory/file.db.",
        extra_json_schema={"x-secret": True},
    ),
]


@dataclass(frozen=True, kw_only=True)
class ExecuteInput:
    """The statement, and the database to run it on."""

    connection: ConnectionName
    statement: Annotated[
        str, doc("One SQL statement, with :name as a placeholder for a value.", min_length=1)
    ]
    parameters: Annotated[
        Values | Annotated[list[Values], Meta(min_length=1)],
        doc(
            "The values of the placeholders: strings, numbers, booleans or null. They are bound,"
            " never inserted into the statement. A list of mappings runs the statement once for each."
        ),
    ] = field(default_factory=dict)
    max_rows: Annotated[
        int,
        doc(
            "The maximum number of rows. If there are more, the step fails and changes nothing.",
            ge=1,
            le=MAX_ROWS,
        ),
    ] = 1000


@dataclass(frozen=True, kw_only=True)
class ExecuteOutput:
    """The result."""

    rows: Annotated[
        list[dict[str, Any]],
        doc(
            "The rows, by column. Decimals are strings, dates and times are strings in ISO 8601"
            " format, and bytes are base64."
        ),
    ]
    row_count: Annotated[
        int, doc("The number of rows returned, or else of rows affected. 0 if it is unknown.")
    ]
    columns: Annotated[list[str], doc("The column names, in order.")]


@dataclass(frozen=True, kw_only=True)
class ScriptInput:
    """The statements, and the database to run them on."""

    connection: ConnectionName
    script: Annotated[
        str | None, doc("SQL statements, separated by semicolons. Not allowed with `path`.")
    ] = None
    path: Annotated[str | None, doc("A UTF-8 file on the worker with the statements, at most 16 MiB.")] = None


@dataclass(frozen=True, kw_only=True)
class ScriptOutput:
    """The result."""

    statements: Annotated[
        int | None, doc("The number of statements that ran. Null if the database splits the script itself.")
    ]


@built_in("sql.execute", extra=EXTRA, timeouts=Timeouts(heartbeat=10.0))
async def execute(parameters: ExecuteInput) -> ExecuteOutput:
    """Run one SQL statement in its own transaction.

    If the response to a commit is lost, a retry runs the statement again. Write statements that
    can be repeated, such as INSERT with ON CONFLICT, or set `maximum_attempts: 1`.
    """
    call = Call("sql.execute", parameters.connection, _texts(parameters.parameters))
    async with heartbeating():
        return await call.make(lambda connection: _execute(call, connection, parameters))


@built_in("sql.script", extra=EXTRA, timeouts=Timeouts(heartbeat=10.0))
async def script(parameters: ScriptInput) -> ScriptOutput:
    """Run several SQL statements in one transaction: all of them, or none.

    BEGIN, COMMIT and ROLLBACK are not allowed in the script. PostgreSQL and SQLite also roll
    back definitions such as CREATE TABLE. If the response to the commit is lost, a retry runs
    the script again. Write scripts that can be repeated.
    """
    if (parameters.script is None) == (parameters.path is None):
        raise refused("set either script or path", "InvalidInput")
    call = Call("sql.script", parameters.connection)
    async with heartbeating():
        return await call.make(lambda connection: _script(call, connection, parameters))


def _execute(call: Call, connection: "Connection", given: ExecuteInput) -> ExecuteOutput:
    import sqlalchemy

    dialect = connection.dialect
    text, options = given.statement, {}
    if (tokens := TOKENS.get(dialect.name)) is not None:
        statement = _the_one(call, split(text, tokens))
        text = literal(statement.text, tokens)
        if dialect.driver == "psycopg" and isinstance(given.parameters, dict) and statement.only_reads():
            options = {"stream_results": True}  # else the driver fetches all rows, however many
    clause = sqlalchemy.text(text)
    _check_names(call, set(clause.compile(dialect=dialect).params), given.parameters)
    call.check()
    result = connection.execute(clause, given.parameters, execution_options=options)
    if not result.returns_rows:
        return ExecuteOutput(rows=[], row_count=_affected(connection, result.rowcount), columns=[])
    columns = list(result.keys())
    if doubles := sorted({name for name in columns if columns.count(name) > 1}):
        named = ", ".join(f'"{name}"' for name in doubles)
        raise refused(
            f"{call.what}: several columns are named {named}: rename them with AS", "StatementFailed"
        )
    rows: list[dict[str, Any]] = []
    size = 0
    for row in result:
        if len(rows) == given.max_rows:
            raise refused(f"{call.what}: more than {given.max_rows:,} rows (max_rows)", "TooManyRows")
        rows.append({name: _json(value) for name, value in zip(columns, row, strict=True)})
        size += encoded_size(rows[-1])
        if size > RESULT_LIMIT:
            raise refused(
                f"{call.what}: the rows are larger than 1.5 MiB, which is too large for a step's output",
                "ResultTooLarge",
            )
    return ExecuteOutput(rows=rows, row_count=len(rows), columns=columns)


def _affected(connection: "Connection", count: int) -> int:
    """Return how many rows a statement changed. Python's sqlite3 does not count with WITH."""
    if count < 0 and connection.dialect.name == "sqlite":
        count = connection.exec_driver_sql("select changes()").scalar_one()
    return max(count, 0)


def _script(call: Call, connection: "Connection", given: ScriptInput) -> ScriptOutput:
    text = given.script if given.script is not None else _file(absolute(given.path or ""))
    tokens = TOKENS.get(connection.dialect.name)
    if tokens is None:
        call.check()
        connection.exec_driver_sql(text, execution_options={"no_parameters": True})
        return ScriptOutput(statements=None)
    statements = list(split(text, tokens))
    if not statements:
        raise refused(f"{call.what}: there is no statement", "InvalidInput")
    for number, statement in enumerate(statements, 1):
        _check_transaction(call, statement, f"statement {number}")
    # SQLite runs them one by one.
    alone = connection.dialect.name == "sqlite"
    pieces = [statement.text for statement in statements] if alone else [text]
    for piece in pieces:
        call.check()
        connection.exec_driver_sql(piece, execution_options={"no_parameters": True})
    return ScriptOutput(statements=len(statements))


def _check_names(call: Call, wanted: set[str], given: Values | list[Values]) -> None:
    for values in given if isinstance(given, list) else [given]:
        if missing := sorted(wanted - values.keys()):
            raise refused(f"{call.what}: the statement's :{missing[0]} is not in parameters", "InvalidInput")
        if extra := sorted(values.keys() - wanted):
            raise refused(f"{call.what}: there is no :{extra[0]} in the statement", "InvalidInput")


def _texts(parameters: Values | list[Values]) -> tuple[str, ...]:
    """Return the strings among the values, which messages must not contain."""
    sets = parameters if isinstance(parameters, list) else [parameters]
    return tuple(v for values in sets for v in values.values() if isinstance(v, str) and len(v) >= _UNSHOWN)


def _file(path: str) -> str:
    with explain_errors(f"read {path}"), open(path, "rb", opener=_without_waiting) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise refused(f"{path} is not a regular file", "NotARegularFile")
        data = file.read(SCRIPT_LIMIT + 1)
    if len(data) > SCRIPT_LIMIT:
        raise refused(f"cannot read {path}: it is larger than 16 MiB", "FileTooLarge")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise refused(f"cannot read {path}: it is not UTF-8 text (byte {error.start})", "NotText") from None


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # for a named pipe


def _the_one(call: Call, statements: Iterator[Statement]) -> Statement:
    found = next(statements, None)
    if found is None:
        raise refused(f"{call.what}: there is no statement", "InvalidInput")
    if next(statements, None) is not None:
        raise refused(
            f"{call.what}: only one statement is allowed: use sql.script for several", "InvalidInput"
        )
    _check_transaction(call, found, "the statement")
    return found


def _check_transaction(call: Call, statement: Statement, which: str) -> None:
    """Refuse a statement that would end the call's transaction."""
    first, rest = statement.words[:1], statement.words[1:3]
    if (
        first in (["BEGIN"], ["COMMIT"], ["END"], ["ABORT"])
        or (first in (["START"], ["PREPARE"]) and rest[:1] == ["TRANSACTION"])
        or (first == ["ROLLBACK"] and "TO" not in rest)
    ):
        raise refused(f"{call.what}: {which} is {first[0]}, but each call is one transaction", "InvalidInput")


# The values of the drivers, as JSON.


def _json(value: Any) -> Any:
    """Return the value of a column as JSON data."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode()
    if isinstance(value, date | time):  # a datetime is also a date
        return value.isoformat()
    if isinstance(value, timedelta):
        seconds = f"{abs(value.total_seconds()):f}".rstrip("0").rstrip(".")
        return f"{'-' if value < timedelta(0) else ''}PT{seconds}S"
    if isinstance(value, list | tuple):
        return [_json(item) for item in value]
    if isinstance(value, dict):
        return {str(name): _json(item) for name, item in value.items()}
    return str(value)  # decimals, UUIDs, addresses, ranges
