"""What the errors of databases mean, and which part of them may be shown.

Messages of databases quote values. Only the parts without values are kept. Imports the library only
when there is an error.
"""

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlalchemy


def classified(error: "sqlalchemy.exc.DBAPIError") -> tuple[str, bool]:
    """Return the error type for a database's error, and whether it is never retried."""
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


def reason_of(error: "sqlalchemy.exc.DBAPIError", *, known: bool, lost: bool) -> str:
    """Return a database's message about a statement, without the values that it may quote."""
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


def connect_reason(error: BaseException | None) -> str:
    """Return why there is no connection: the end of the first line of libpq's message."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    reason = re.sub(r"^.*failed: (?:[A-Z]+:\s+)?", "", line)
    return reason[:1].lower() + reason[1:]
