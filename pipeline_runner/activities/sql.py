"""The ``sql`` family: statements and scripts for databases, each call one transaction.

A call works in a thread of its own, on a connection of its own, and commits as the last
thing it does. When the step is cancelled or runs out of time, the database is told to stop
the statement (PostgreSQL, SQLite), nothing is committed any more, and the transaction is
rolled back. Where PostgreSQL or SQLite is not what the connection leads to, that depends on
the driver, and on whether the database rolls back definitions such as CREATE TABLE.

Messages name the secret that holds the connection, and say what the database says in its
first line, without the values of parameters, rows or the connection.
"""

import asyncio
import base64
import logging
import math
import os
import re
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, time, timedelta
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from msgspec import Meta
from temporalio import activity
from temporalio.exceptions import ApplicationError

from pipeline_runner.activities import extras
from pipeline_runner.activities.door import describe
from pipeline_runner.activities.errors import explained, refused
from pipeline_runner.activities.pulse import heartbeating
from pipeline_runner.activities.secret_values import MASK, SecretNotFoundError, forms, masked, secret_value
from pipeline_runner.activities.sizes import MIB, RESULT_LIMIT, encoded_size, one_line
from pipeline_runner.activities.strict import checked
from pipeline_runner.activities.threads import in_thread
from pipeline_runner.core import errors
from pipeline_runner.core.errors import UNCERTAIN
from pipeline_runner.core.model import Timeouts

if TYPE_CHECKING:
    import sqlalchemy
    from sqlalchemy import URL, Connection, Engine

EXTRA = "sql"
CONNECT_TIMEOUT = 10
"""Seconds, in whole ones, for a connection to PostgreSQL or MySQL."""
BUSY_TIMEOUT = 5.0
"""Seconds that SQLite waits for others to release the database."""
STOP_TIMEOUT = 0.8
"""Seconds that a cancelled step waits for the rollback; it comes later if need be."""
MAX_ROWS = 10_000
SCRIPT_LIMIT = 16 * MIB

_UNSHOWN = 4
"""Characters; parameters of fewer are not looked for in messages."""
_DRIVERS = {"postgres": "postgresql+psycopg", "postgresql": "postgresql+psycopg"}
"""The drivers for URLs that name none."""
_SETTINGS: dict[str, Callable[[], dict[str, Any]]] = {
    "postgresql+psycopg": lambda: {
        "connect_timeout": CONNECT_TIMEOUT,
        "fallback_application_name": "pipeline-runner",
        "prepare_threshold": None,  # prepared statements are in the way of poolers
    },
    "postgresql+psycopg2": lambda: {"connect_timeout": CONNECT_TIMEOUT},
    "mysql+pymysql": lambda: {"connect_timeout": CONNECT_TIMEOUT},
    "mysql+mysqldb": lambda: {"connect_timeout": CONNECT_TIMEOUT},
    "sqlite+pysqlite": lambda: {"timeout": BUSY_TIMEOUT},
}
"""What a driver is told, unless the URL says it."""

T = TypeVar("T")
Value = str | int | float | bool | None
Values = dict[str, Value]
ConnectionName = Annotated[
    str,
    Meta(
        min_length=1,
        description="The name of a secret on the worker, whose value is the database's URL, such as"
        " postgresql://user:password@host/database or sqlite:////folder/file.db.",
    ),
]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ExecuteInput:
    """One statement, and where it runs."""

    connection: ConnectionName
    statement: Annotated[
        str, Meta(min_length=1, description="One SQL statement; values stand in it as :name.")
    ]
    parameters: Annotated[
        Values | Annotated[list[Values], Meta(min_length=1)],
        Meta(
            description="The values of the :names: texts, numbers, booleans or null. They are handed"
            " over beside the statement, never pasted into it. A list of mappings runs it once for each."
        ),
    ] = field(default_factory=dict)
    max_rows: Annotated[
        int, Meta(ge=1, le=MAX_ROWS, description="More rows fail the step, and nothing is changed.")
    ] = 1000


@dataclass(frozen=True, kw_only=True)
class ExecuteOutput:
    """What came of it."""

    rows: Annotated[
        list[dict[str, Any]],
        Meta(
            description="The rows by column. Decimals are texts; dates and times are texts in ISO 8601;"
            " bytes are base64."
        ),
    ]
    row_count: Annotated[int, Meta(description="Rows returned; else rows affected, 0 if not known.")]
    columns: Annotated[list[str], Meta(description="The names of the columns, in order.")]


@dataclass(frozen=True, kw_only=True)
class ScriptInput:
    """Statements, and where they run."""

    connection: ConnectionName
    script: Annotated[
        str | None, Meta(description="SQL statements, separated by semicolons; excludes `path`.")
    ] = None
    path: Annotated[
        str | None, Meta(description="A file on the worker that holds them, UTF-8, at most 16 MiB.")
    ] = None


@dataclass(frozen=True, kw_only=True)
class ScriptOutput:
    """What came of it."""

    statements: Annotated[
        int | None,
        Meta(description="How many statements ran; null where the database splits the text itself."),
    ]


@describe(extra=EXTRA, timeouts=Timeouts(heartbeat=10.0))
@activity.defn(name="sql.execute")
@checked
async def execute(parameters: ExecuteInput) -> ExecuteOutput:
    """Run one SQL statement in a transaction of its own.

    When the answer to a commit is lost, a retry runs it again: write statements that may be
    repeated, such as INSERT with ON CONFLICT, or set `maximum_attempts: 1`.
    """
    call = _Call("sql.execute", parameters.connection, _texts(parameters.parameters))
    async with heartbeating():
        return await call.make(lambda connection: _execute(call, connection, parameters))


@describe(extra=EXTRA, timeouts=Timeouts(heartbeat=10.0))
@activity.defn(name="sql.script")
@checked
async def script(parameters: ScriptInput) -> ScriptOutput:
    """Run several SQL statements in one transaction: all of them, or none.

    BEGIN, COMMIT and ROLLBACK have no place in the script. Definitions such as CREATE TABLE
    are rolled back as well by databases that can, PostgreSQL and SQLite. When the answer to
    the commit is lost, a retry runs it again: write scripts that may be repeated.
    """
    if (parameters.script is None) == (parameters.path is None):
        raise refused("give script or path, one of them", "InvalidInput")
    call = _Call("sql.script", parameters.connection)
    async with heartbeating():
        return await call.make(lambda connection: _script(call, connection, parameters))


class _Stopped(Exception):
    """Nobody waits for this call any more."""


class _Call:
    """A connection and a transaction, in a thread; and the end of both from outside of it."""

    def __init__(self, activity_name: str, secret: str, unshown: tuple[str, ...] = ()) -> None:
        """Keep how messages call it, and what they must not hold."""
        self.what = secret
        self._activity = activity_name
        self._unshown = unshown
        self._private: tuple[str, ...] = ()
        self._lock = threading.Lock()
        self._stopped = self._committing = False
        self._known = True
        """Whether it is known how the database reads text, and that it rolls everything back."""
        self._open = False
        self._driver: Any = None
        """The driver's own connection, while statements may be running."""

    async def make(self, work: Callable[["Connection"], T]) -> T:
        """Do the work in a transaction, and commit it."""
        task = asyncio.ensure_future(in_thread(lambda: self._transact(work)))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await self._stop(task)
            raise

    async def _stop(self, task: "asyncio.Future[Any]") -> None:
        """Have nothing committed from now on, and the statement stopped.

        Again and again: the thread may have been about to start it.
        """
        with self._lock:
            self._stopped = True
        try:
            async with asyncio.timeout(STOP_TIMEOUT):
                while self._open and not task.done():
                    await in_thread(self._interrupt)
                    await asyncio.wait({task}, timeout=0.02)
        except TimeoutError:
            _log.warning("%s: it goes on for a while after its cancellation, to roll back", self.what)
        finally:
            task.cancel()

    def _interrupt(self) -> None:
        driver = self._driver
        for way in ("interrupt", "cancel_safe", "cancel"):  # SQLite's, psycopg's, some others'
            if hasattr(driver, way):
                try:
                    getattr(driver, way)()
                except Exception as error:  # noqa: BLE001 - it has ended, or cannot be reached
                    _log.info("%s: cannot be interrupted: %s", self.what, type(error).__name__)
                return

    def check(self) -> None:
        """End the call here if it is to do nothing more."""
        with self._lock:
            if self._stopped:
                raise _Stopped

    def _transact(self, work: Callable[["Connection"], T]) -> T:
        url = self._url()
        engine = self._engine(url)
        self._known = engine.dialect.name in _TOKENS
        self.check()
        with self._connect(engine, url) as connection:
            self._open = True
            try:
                with self._explained(), connection.begin() as transaction:
                    result = self._worked(connection, work)
                    transaction.commit()
            finally:
                self._open = False
        return result

    def _worked(self, connection: "Connection", work: Callable[["Connection"], T]) -> T:
        """Do the work, and return when it may be committed."""
        self._driver = connection.connection.driver_connection
        try:
            self.check()
            result = work(connection)
            if _has_ended(self._driver):
                raise refused(
                    f"{self.what}: the transaction was ended from within; what came before that stays",
                    "StatementFailed",
                    UNCERTAIN,
                )
        finally:
            self._driver = None
        with self._lock:
            if self._stopped:
                raise _Stopped
            self._committing = True
        return result

    def _url(self) -> "URL":
        try:
            import sqlalchemy
        except ImportError:
            missing = f"{extras.missing(self._activity, EXTRA)}: {extras.remedy(EXTRA)}"
            raise refused(missing, "MissingExtra") from None
        try:
            text = secret_value(self.what).strip()
            url = sqlalchemy.make_url(text)
        except SecretNotFoundError as error:
            raise refused(str(error), errors.SECRET_NOT_FOUND) from None
        except (sqlalchemy.exc.ArgumentError, ValueError):
            raise self._bad_url(
                "is not a database URL such as postgresql://user:password@host/name"
            ) from None
        self._private = _by_length({text, *_passwords(url)})
        return url.set(drivername=_DRIVERS.get(url.drivername, url.drivername))

    def _bad_url(self, reason: str) -> ApplicationError:
        return refused(f'the secret "{self.what}" {reason}', "InvalidInput")

    def _engine(self, url: "URL") -> "Engine":
        import sqlalchemy

        try:
            asynchronous = url.get_dialect().is_async
            settings = _SETTINGS.get(_driver_name(url), dict)()
            engine = sqlalchemy.create_engine(
                url,
                connect_args={name: value for name, value in settings.items() if name not in url.query},
                poolclass=sqlalchemy.NullPool,
                hide_parameters=True,
            )
        except sqlalchemy.exc.NoSuchModuleError:
            raise self._no_driver(f'nothing installed knows "{url.drivername}"') from None
        except ImportError as error:
            needed = f'the Python package "{error.name}"' if error.name else "a part that is not there"
            raise self._no_driver(f'"{url.drivername}" needs {needed}') from None
        except (sqlalchemy.exc.ArgumentError, TypeError, ValueError):
            raise self._bad_url("has an option that its driver does not know") from None
        if asynchronous:
            raise self._bad_url(f'names an asynchronous driver, "{url.drivername}"')
        if engine.dialect.driver == "pysqlite":
            sqlalchemy.event.listen(engine, "connect", _leave_transactions_alone)
            sqlalchemy.event.listen(engine, "begin", _begin)
        return engine

    def _no_driver(self, reason: str) -> ApplicationError:
        return refused(f"{self.what}: {self._shown(reason)}", "MissingDriver")

    def _connect(self, engine: "Engine", url: "URL") -> "Connection":
        import sqlalchemy

        try:
            return engine.connect()
        except (sqlalchemy.exc.ProgrammingError, TypeError, ValueError):
            raise self._bad_url("has an option that its driver does not know") from None
        except sqlalchemy.exc.DBAPIError as error:
            # More than elsewhere is not shown: these messages hold all that is in the URL.
            reason = _connect_reason(error.orig)
            for part in (url.host, url.username, url.database):
                if part:
                    reason = re.sub(rf"(?<!\w){re.escape(part)}(?!\w)", MASK, reason)
            raise ApplicationError(
                f"{self.what}: {self._shown(reason)}", type="DatabaseUnreachable"
            ) from None

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn the library's errors inside into errors for people."""
        import sqlalchemy

        try:
            yield
        except sqlalchemy.exc.DBAPIError as error:
            raise self._told(error) from None
        except sqlalchemy.exc.SQLAlchemyError as error:
            raise refused(
                f"{self.what}: the statement cannot be run ({type(error).__name__})", "StatementFailed"
            ) from None
        except (OverflowError, TypeError, ValueError):
            # from None: these are the driver's about a value, and may show it.
            raise refused(
                f"{self.what}: a value or a text is none that the database can take", "InvalidInput"
            ) from None

    def _told(self, error: "sqlalchemy.exc.DBAPIError") -> ApplicationError:
        """Return what the database's error is called, and whether it may pass."""
        kind, final = _classified(error)
        lost = kind == "ConnectionLost"
        # Other databases commit at each definition, such as CREATE TABLE.
        uncertain = (lost and self._committing) or (
            not self._known and (lost or self._activity == "sql.script")
        )
        return ApplicationError(
            f"{self.what}: {self._shown(_reason(error, known=self._known, lost=lost))}",
            *([UNCERTAIN] if uncertain else []),
            type=kind,
            non_retryable=final,
        )

    def _shown(self, text: str) -> str:
        return one_line(masked(text, _by_length({*self._private, *self._unshown})), 300)


def _execute(call: _Call, connection: "Connection", given: ExecuteInput) -> ExecuteOutput:
    import sqlalchemy

    dialect = connection.dialect
    text, options = given.statement, {}
    if (tokens := _TOKENS.get(dialect.name)) is not None:
        statement = _the_one(call, _split(text, tokens))
        text = _literal(statement.text, tokens)
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
            f"{call.what}: several columns are called {named}: rename them with AS", "StatementFailed"
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
                f"{call.what}: the rows are over 1.5 MiB, too big for a step's output", "ResultTooLarge"
            )
    return ExecuteOutput(rows=rows, row_count=len(rows), columns=columns)


def _affected(connection: "Connection", count: int) -> int:
    """Return how many rows a statement changed; Python's sqlite3 does not count for WITH."""
    if count < 0 and connection.dialect.name == "sqlite":
        count = connection.exec_driver_sql("select changes()").scalar_one()
    return max(count, 0)


def _script(call: _Call, connection: "Connection", given: ScriptInput) -> ScriptOutput:
    text = given.script if given.script is not None else _file(given.path or "")
    tokens = _TOKENS.get(connection.dialect.name)
    if tokens is None:
        call.check()
        connection.exec_driver_sql(text, execution_options={"no_parameters": True})
        return ScriptOutput(statements=None)
    statements = list(_split(text, tokens))
    if not statements:
        raise refused(f"{call.what}: there is no statement", "InvalidInput")
    for number, statement in enumerate(statements, 1):
        _check_transaction(call, statement, f"statement {number}")
    # SQLite takes them one by one.
    alone = connection.dialect.name == "sqlite"
    pieces = [statement.text for statement in statements] if alone else [text]
    for piece in pieces:
        call.check()
        connection.exec_driver_sql(piece, execution_options={"no_parameters": True})
    return ScriptOutput(statements=len(statements))


def _check_names(call: _Call, wanted: set[str], given: Values | list[Values]) -> None:
    for values in given if isinstance(given, list) else [given]:
        if missing := sorted(wanted - values.keys()):
            raise refused(f"{call.what}: the statement's :{missing[0]} is not in parameters", "InvalidInput")
        if extra := sorted(values.keys() - wanted):
            raise refused(f"{call.what}: there is no :{extra[0]} in the statement", "InvalidInput")


def _texts(parameters: Values | list[Values]) -> tuple[str, ...]:
    """Return the texts among the values that messages must not hold."""
    sets = parameters if isinstance(parameters, list) else [parameters]
    return tuple(v for values in sets for v in values.values() if isinstance(v, str) and len(v) >= _UNSHOWN)


def _file(path: str) -> str:
    with explained(f"read {path}"), open(path, "rb", opener=_without_waiting) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise refused(f"{path} is not a regular file", "NotARegularFile")
        data = file.read(SCRIPT_LIMIT + 1)
    if len(data) > SCRIPT_LIMIT:
        raise refused(f"cannot read {path}: it is over 16 MiB", "FileTooLarge")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise refused(f"cannot read {path}: it is not UTF-8 text (byte {error.start})", "NotText") from None


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # for a named pipe


# How the text of statements is read: just enough to tell where one ends and what it begins with.

_COMMON = r"""
    (?P<skip> \s+ | --[^\n]* | /\*.*?(?:\*/|\Z) )
  | (?P<end> ; )
  | (?P<cast> :: )
"""
_TOKENS = {
    "postgresql": re.compile(
        _COMMON
        + r"""
      | (?P<quoted>
          [eE]'(?:[^'\\]++|\\.|'')*+' | '[^']*' | "[^"]*" | (?P<tag>\$(?:[^\W\d]\w*)?\$).*?(?P=tag)
        )
      | (?P<word> [^\W\d][\w$]* )
      | (?P<other> \d[\w$.]* | . )
    """,
        re.DOTALL | re.VERBOSE,
    ),
    "sqlite": re.compile(
        _COMMON
        + r"""
      | (?P<quoted> '[^']*' | "[^"]*" | `[^`]*` | \[[^\]]*\] )
      | (?P<word> [^\W\d][\w$]* )
      | (?P<other> \d[\w$.]* | . )
    """,
        re.DOTALL | re.VERBOSE,
    ),
}


@dataclass(frozen=True, kw_only=True)
class _Statement:
    """One statement without its semicolon, and the words in it that stand outside of quotes."""

    text: str
    words: list[str]

    def only_reads(self) -> bool:
        """Tell whether a cursor can be declared for it."""
        return self.words[:1] in (["SELECT"], ["VALUES"], ["TABLE"]) and "INTO" not in self.words


def _split(text: str, tokens: re.Pattern[str]) -> Iterator[_Statement]:
    """Split a text at its semicolons, but for those in quotes, comments and bodies."""
    start, depth, some = 0, 0, False
    words: list[str] = []
    for token in tokens.finditer(text):
        kind = token.lastgroup
        if kind == "skip":
            continue
        if kind == "end" and depth == 0:
            if some:
                yield _Statement(text=text[start : token.start()], words=words)
            start, some, words = token.end(), False, []
            continue
        some = True
        if kind == "word":
            words.append(token.group().upper())
            depth = _depth(depth, words)
    if some:
        yield _Statement(text=text[start:], words=words)


def _depth(depth: int, words: list[str]) -> int:
    """Return how deep in the body of a trigger, or of a function, the last word is."""
    word = words[-1]
    if depth:
        return depth + (word == "CASE") - (word == "END")
    if words[0] != "CREATE":
        return 0
    atomic = word == "ATOMIC" and words[-2] == "BEGIN"  # PostgreSQL: CREATE FUNCTION
    return int(atomic or (word == "BEGIN" and "TRIGGER" in words[1:3]))


def _the_one(call: _Call, statements: Iterator[_Statement]) -> _Statement:
    found = next(statements, None)
    if found is None:
        raise refused(f"{call.what}: there is no statement", "InvalidInput")
    if next(statements, None) is not None:
        raise refused(f"{call.what}: several statements are for sql.script", "InvalidInput")
    _check_transaction(call, found, "the statement")
    return found


def _check_transaction(call: _Call, statement: _Statement, which: str) -> None:
    """Refuse what would end the transaction that the call has begun."""
    first, rest = statement.words[:1], statement.words[1:3]
    if (
        first in (["BEGIN"], ["COMMIT"], ["END"], ["ABORT"])
        or (first in (["START"], ["PREPARE"]) and rest[:1] == ["TRANSACTION"])
        or (first == ["ROLLBACK"] and "TO" not in rest)
    ):
        raise refused(
            f"{call.what}: {which} is {first[0]}, but each call is one transaction of its own", "InvalidInput"
        )


def _literal(text: str, tokens: re.Pattern[str]) -> str:
    """Escape the colons that begin no parameter: those in quotes and comments, and casts."""
    pieces = (
        token.group().replace(":", r"\:") if token.lastgroup in {"quoted", "skip", "cast"} else token.group()
        for token in tokens.finditer(text)
    )
    return "".join(pieces)


# What the drivers hand over, and what they say.


def _json(value: Any) -> Any:
    """Return the value of a column as JSON data."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode()
    if isinstance(value, date | time):  # a datetime is a date too
        return value.isoformat()
    if isinstance(value, timedelta):
        seconds = f"{abs(value.total_seconds()):f}".rstrip("0").rstrip(".")
        return f"{'-' if value < timedelta(0) else ''}PT{seconds}S"
    if isinstance(value, list | tuple):
        return [_json(item) for item in value]
    if isinstance(value, dict):
        return {str(name): _json(item) for name, item in value.items()}
    return str(value)  # decimals, UUIDs, addresses, ranges


def _classified(error: "sqlalchemy.exc.DBAPIError") -> tuple[str, bool]:
    """Return the type of a database's error, and whether no retry changes it."""
    import sqlalchemy

    state = getattr(error.orig, "sqlstate", None) or ""
    code = getattr(error.orig, "sqlite_errorcode", None) or 0
    first = error.orig.args[0] if error.orig is not None and error.orig.args else None
    if error.connection_invalidated or state in {"57P01", "57P02", "57P03"} or state[:2] == "08":
        return "ConnectionLost", False
    if (
        state[:2] in {"40", "53"}  # deadlock and the like; no disk, no memory
        or state in {"55P03", "57014"}  # a lock, or time, that the database's settings limit
        or code & 0xFF in {5, 6, 10, 13}  # SQLite: busy, locked, an error of the disk, full
        or first in {1205, 1213}  # MySQL: a lock, a deadlock
    ):
        return "DatabaseBusy", False
    if isinstance(error, sqlalchemy.exc.IntegrityError):
        return "ConstraintViolated", True
    return "StatementFailed", True


def _reason(error: "sqlalchemy.exc.DBAPIError", *, known: bool, lost: bool) -> str:
    """Return what a database says of a statement, without the values that it may quote."""
    import sqlalchemy

    cause = error.orig
    text = str(getattr(getattr(cause, "diag", None), "message_primary", None) or cause)
    if lost:
        return text.strip().splitlines()[0]
    if not known:
        text = str(cause.args[-1]) if cause is not None and cause.args else type(cause).__name__
    if not known or isinstance(error, sqlalchemy.exc.DataError):
        text = re.sub(r"(['\"]).*\1", r"\1…\1", text, flags=re.DOTALL)
    return text


def _connect_reason(error: BaseException | None) -> str:
    """Return why there is no connection: the end of what libpq says in its first line."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    reason = re.sub(r"^.*failed: (?:[A-Z]+:\s+)?", "", line)
    return reason[:1].lower() + reason[1:]


def _has_ended(driver: Any) -> bool:
    """Tell whether the transaction is over that was begun; False too where it cannot be told."""
    if hasattr(driver, "in_transaction"):  # SQLite's
        return not driver.in_transaction
    status = getattr(getattr(driver, "info", None), "transaction_status", None)  # psycopg's
    return status is not None and status.name == "IDLE"


def _leave_transactions_alone(driver: Any, _: Any) -> None:
    """Keep Python's sqlite3 from committing on its own; SQLAlchemy's recipe, with _begin."""
    driver.isolation_level = None


def _begin(connection: "Connection") -> None:
    connection.exec_driver_sql("BEGIN")


def _driver_name(url: "URL") -> str:
    return f"{url.get_backend_name()}+{url.get_driver_name()}"


def _passwords(url: "URL") -> Iterator[str]:
    if url.password:
        yield str(url.password)
    for name, value in url.query.items():
        if any(word in name.lower() for word in ("pass", "pwd", "secret", "token", "key")):
            yield from [value] if isinstance(value, str) else value


def _by_length(values: set[str]) -> tuple[str, ...]:
    """Return how values may stand in a text, the longest first."""
    return tuple(sorted({form for value in values for form in forms(value)}, key=len, reverse=True))
