"""How activities say what went wrong: one place that turns causes into Temporal errors.

A mistake of the person who wrote the step is not retried; whatever may pass by itself is.
Messages name paths and programs, never contents, environments or headers. Imported by
implementations only: it imports temporalio.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from temporalio.exceptions import ApplicationError

from pipeline_runner.core.errors import UNCERTAIN

_TYPES = {
    errno.ENOENT: "FileNotFound",
    errno.EACCES: "PermissionDenied",
    errno.EPERM: "PermissionDenied",
    errno.EISDIR: "IsADirectory",
    errno.ENOTDIR: "NotADirectory",
    errno.EEXIST: "FileExists",
    errno.ENOTEMPTY: "DirectoryNotEmpty",
    errno.ENAMETOOLONG: "NameTooLong",
    errno.ELOOP: "TooManyLinks",
    errno.EROFS: "ReadOnlyFileSystem",
}
"""What no retry changes. Everything else (a full disk, a broken one) is retried."""


def refused(message: str, error_type: str, *details: Any) -> ApplicationError:
    """Return an error that is not retried, for a mistake in the step itself."""
    return ApplicationError(message, *details, type=error_type, non_retryable=True)


def uncertain(error: ApplicationError) -> ApplicationError:
    """Return the error with the mark that the outcome is not known."""
    if UNCERTAIN in error.details:
        return error
    details = [*error.details, UNCERTAIN]
    return ApplicationError(error.message, *details, type=error.type, non_retryable=error.non_retryable)


def from_os_error(error: OSError, doing: str) -> ApplicationError:
    """Return the error for a failed system call; ``doing`` is like ``write /etc/motd``."""
    reason = os.strerror(error.errno).lower() if error.errno else str(error)
    error_type = _TYPES.get(error.errno or 0)
    return ApplicationError(
        f"cannot {doing}: {reason}",
        type=error_type or "FileSystemError",
        non_retryable=error_type is not None,
    )


@contextmanager
def explain_errors(doing: str) -> Iterator[None]:
    """Turn the system's errors inside into errors for people."""
    try:
        yield
    except OSError as error:
        # From None: the message says it all, and the root of the chain names the error's type.
        raise from_os_error(error, doing) from None
    except UnicodeEncodeError:
        # Half of a surrogate pair, which JSON can say. From None: the error holds all the text.
        raise refused(f"cannot {doing}: the string is not valid Unicode", "InvalidInput") from None
