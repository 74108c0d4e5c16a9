"""A call of the ``sql`` family: a connection and a transaction, in their own thread.

It can be ended from outside: the database stops the statement, nothing is committed any more, and the
transaction is rolled back.
"""

import asyncio
import functools
import logging
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from temporalio.exceptions import ApplicationError

from pipeline_runner.activities.catalogue import extras
from pipeline_runner.activities.sql.errors import classified, connect_reason, reason_of
from pipeline_runner.activities.sql.text import TOKENS
from pipeline_runner.activities.toolkit.context import absolute
from pipeline_runner.activities.toolkit.errors import refused
from pipeline_runner.activities.toolkit.heartbeat import time_left
from pipeline_runner.activities.toolkit.secret_values import (
    MASK,
    SecretNotFoundError,
    all_forms,
    masked,
    secret_value,
)
from pipeline_runner.activities.toolkit.sizes import one_line
from pipeline_runner.activities.toolkit.threads import in_thread
from pipeline_runner.core import errors
from pipeline_runner.core.errors import UNCERTAIN

if TYPE_CHECKING:
    import sqlalchemy
    from sqlalchemy import URL, Connection, Engine

EXTRA = "sql"
CONNECT_TIMEOUT = 10
"""Whole seconds for a connection to PostgreSQL or MySQL."""
BUSY_TIMEOUT = 5.0
"""Seconds that SQLite waits for others to release the database."""
STOP_TIMEOUT = 0.8
"""Seconds that a cancelled step waits for the rollback, which may also come later."""
COMMIT_TIMEOUT = 5.0
"""Seconds that a cancelled step waits for a commit that has begun: it must not come after the undo."""

_DRIVERS = {"postgres": "postgresql+psycopg", "postgresql": "postgresql+psycopg"}
"""The drivers for URLs that name none."""
_SETTINGS: dict[str, Callable[[], dict[str, Any]]] = {
    "postgresql+psycopg": lambda: {
        "connect_timeout": CONNECT_TIMEOUT,
        "fallback_application_name": "pipeline-runner",
        "prepare_threshold": None,  # prepared statements do not work with connection poolers
    },
    "postgresql+psycopg2": lambda: {"connect_timeout": CONNECT_TIMEOUT},
    "mysql+pymysql": lambda: {"connect_timeout": CONNECT_TIMEOUT},
    "mysql+mysqldb": lambda: {"connect_timeout": CONNECT_TIMEOUT},
    "sqlite+pysqlite": lambda: {"timeout": BUSY_TIMEOUT},
}
"""Options of the drivers, unless the URL sets them."""

T = TypeVar("T")

_log = logging.getLogger(__name__)


class Stopped(Exception):
    """Nobody waits for this call any more."""


class Call:
    """A connection and a transaction in a thread, which can be ended from outside."""

    def __init__(self, activity_name: str, secret: str, unshown: tuple[str, ...] = ()) -> None:
        """Keep the name of the call for messages, and the strings that these must not contain."""
        self.what = secret
        self._activity = activity_name
        self._unshown = unshown
        self._private: tuple[str, ...] = ()
        self._lock = threading.Lock()
        self._stopped = self._committing = False
        self._known = True
        """Whether it is known how the database parses statements, and that it rolls everything back."""
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
        """Prevent any commit from now on, and stop the statement.

        This is repeated, because the thread may have been about to start the statement.
        """
        with self._lock:
            self._stopped = True
            committing = self._committing
        try:
            async with asyncio.timeout(time_left(COMMIT_TIMEOUT if committing else STOP_TIMEOUT)):
                while self._open and not task.done():
                    await in_thread(self._interrupt)
                    await asyncio.wait({task}, timeout=0.02)
        except TimeoutError:
            if committing or not self._known:
                message = f"{self.what}: the database is still running it, and may complete it"
                raise refused(message, "StatementLeftRunning", UNCERTAIN) from None
            _log.warning("%s: it goes on for a while after its cancellation, to roll back", self.what)
        finally:
            task.cancel()

    def _interrupt(self) -> None:
        driver = self._driver
        for way in ("interrupt", "cancel_safe", "cancel"):  # of SQLite, of psycopg, of some others
            if hasattr(driver, way):
                try:
                    getattr(driver, way)()
                except Exception as error:  # noqa: BLE001 - it has ended, or cannot be reached
                    _log.info("%s: cannot be interrupted: %s", self.what, type(error).__name__)
                return

    def check(self) -> None:
        """End the call here if it was stopped."""
        with self._lock:
            if self._stopped:
                raise Stopped

    def _transact(self, work: Callable[["Connection"], T]) -> T:
        url = self._url()
        engine = self._engine(url)
        self._known = engine.dialect.name in TOKENS
        self.check()
        with self._connect(engine, url) as connection:
            self._open = True
            try:
                with self._explained(), connection.begin() as transaction:
                    result = self._work(connection, work)
                    transaction.commit()
            finally:
                self._open = False
        return result

    def _work(self, connection: "Connection", work: Callable[["Connection"], T]) -> T:
        """Do the work, and return when it may be committed."""
        self._driver = connection.connection.driver_connection
        try:
            self.check()
            result = work(connection)
            if _has_ended(self._driver):
                raise refused(
                    f"{self.what}: a statement ended the transaction; the changes made before that stay",
                    "StatementFailed",
                    UNCERTAIN,
                )
        finally:
            self._driver = None
        with self._lock:
            if self._stopped:
                raise Stopped
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
        self._private = all_forms({text, *_passwords(url)})
        return _in_directory(url.set(drivername=_DRIVERS.get(url.drivername, url.drivername)))

    def _bad_url(self, reason: str) -> ApplicationError:
        return refused(f'the secret "{self.what}" {reason}', "InvalidInput")

    def _engine(self, url: "URL") -> "Engine":
        import sqlalchemy

        try:
            engine = _shared_engine(url.render_as_string(hide_password=False))
        except sqlalchemy.exc.NoSuchModuleError:
            raise self._no_driver(f'no installed package supports "{url.drivername}"') from None
        except ImportError as error:
            needed = (
                f'the Python package "{error.name}"' if error.name else "a component that is not installed"
            )
            raise self._no_driver(f'"{url.drivername}" needs {needed}') from None
        except (sqlalchemy.exc.ArgumentError, TypeError, ValueError):
            raise self._bad_url("has an option that its driver does not support") from None
        if engine is None:
            raise self._bad_url(f'names an asynchronous driver, "{url.drivername}"')
        return engine

    def _no_driver(self, reason: str) -> ApplicationError:
        return refused(f"{self.what}: {self._shown(reason)}", "MissingDriver")

    def _connect(self, engine: "Engine", url: "URL") -> "Connection":
        import sqlalchemy

        try:
            return engine.connect()
        except (sqlalchemy.exc.ProgrammingError, TypeError, ValueError):
            raise self._bad_url("has an option that its driver does not support") from None
        except sqlalchemy.exc.DBAPIError as error:
            # Less than elsewhere is shown: these messages contain all parts of the URL.
            reason = connect_reason(error.orig)
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
            raise self._failure(error) from None
        except sqlalchemy.exc.SQLAlchemyError as error:
            raise refused(
                f"{self.what}: the statement cannot be run ({type(error).__name__})", "StatementFailed"
            ) from None
        except (OverflowError, TypeError, ValueError):
            # From None: these are the driver's errors about a value, and may show it.
            raise refused(
                f"{self.what}: the database does not accept one of the values or strings", "InvalidInput"
            ) from None

    def _failure(self, error: "sqlalchemy.exc.DBAPIError") -> ApplicationError:
        """Return the activity's error for an error of the database."""
        kind, final = classified(error)
        lost = kind == "ConnectionLost"
        # Other databases commit at each definition, such as CREATE TABLE.
        uncertain = (lost and self._committing) or (
            not self._known and (lost or self._activity == "sql.script")
        )
        return ApplicationError(
            f"{self.what}: {self._shown(reason_of(error, known=self._known, lost=lost))}",
            *([UNCERTAIN] if uncertain else []),
            type=kind,
            non_retryable=final,
        )

    def _shown(self, text: str) -> str:
        return one_line(masked(text, all_forms({*self._private, *self._unshown})), 300)


@functools.lru_cache(maxsize=64)
def _shared_engine(text: str) -> "Engine | None":
    """Return the engine for a URL; None: its driver is asynchronous.

    An engine is created once, and asks the database once what it supports. It keeps no connections,
    which would carry the settings of one step over into another: each call has its own connection.
    """
    import sqlalchemy

    url = sqlalchemy.make_url(text)
    settings = _SETTINGS.get(_driver_name(url), dict)()
    engine = sqlalchemy.create_engine(
        url,
        connect_args={name: value for name, value in settings.items() if name not in url.query},
        poolclass=sqlalchemy.NullPool,
        hide_parameters=True,
    )
    if engine.dialect.is_async:
        return None
    if engine.dialect.driver == "pysqlite":
        sqlalchemy.event.listen(engine, "connect", _leave_transactions_alone)
        sqlalchemy.event.listen(engine, "begin", _begin)
    return engine


def _has_ended(driver: Any) -> bool:
    """Tell whether the transaction has ended. False also if that cannot be known."""
    if hasattr(driver, "in_transaction"):  # SQLite
        return not driver.in_transaction
    status = getattr(getattr(driver, "info", None), "transaction_status", None)  # psycopg
    return status is not None and status.name == "IDLE"


def _leave_transactions_alone(driver: Any, _: Any) -> None:
    """Keep Python's sqlite3 from committing by itself; SQLAlchemy's recipe, with _begin."""
    driver.isolation_level = None


def _begin(connection: "Connection") -> None:
    connection.exec_driver_sql("BEGIN")


def _in_directory(url: "URL") -> "URL":
    """Return the URL with the path of an SQLite database resolved in the run's directory."""
    name = url.database
    if url.get_backend_name() != "sqlite" or not name or name == ":memory:":
        return url
    if name.startswith("file:"):
        path = name.removeprefix("file:")
        return url if path.startswith(("/", ":memory:")) else url.set(database=f"file:{absolute(path)}")
    return url.set(database=absolute(name))


def _driver_name(url: "URL") -> str:
    return f"{url.get_backend_name()}+{url.get_driver_name()}"


def _passwords(url: "URL") -> Iterator[str]:
    if url.password:
        yield str(url.password)
    for name, value in url.query.items():
        if any(word in name.lower() for word in ("pass", "pwd", "secret", "token", "key")):
            yield from [value] if isinstance(value, str) else value
