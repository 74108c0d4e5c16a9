"""The errors of activities: one place that turns causes into Temporal errors.

Errors in the step itself are not retried; errors that may be temporary are. Messages name paths and
programs, never contents, environments or headers. Imports temporalio: for implementations only.
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
"""Errors that a retry does not change. All others, such as a full disk, are retried."""


def refused(message: str, error_type: str, *details: Any) -> ApplicationError:
    """Return an error that is not retried, for an error in the step itself."""
    return ApplicationError(message, *details, type=error_type, non_retryable=True)


def uncertain(error: ApplicationError) -> ApplicationError:
    """Return the error with the mark that the outcome is not known."""
    if UNCERTAIN in error.details:
        return error
    details = [*error.details, UNCERTAIN]
    return ApplicationError(error.message, *details, type=error.type, non_retryable=error.non_retryable)


def from_os_error(error: OSError, doing: str) -> ApplicationError:
    """Return the error for a failed system call. ``doing`` is a phrase such as ``write /etc/motd``."""
    reason = os.strerror(error.errno).lower() if error.errno else str(error)
    error_type = _TYPES.get(error.errno or 0)
    return ApplicationError(
        f"cannot {doing}: {reason}",
        type=error_type or "FileSystemError",
        non_retryable=error_type is not None,
    )


@contextmanager
def explain_errors(doing: str) -> Iterator[None]:
    """Turn system errors inside into errors for people."""
    try:
        yield
    except OSError as error:
        # From None: the message says everything, and the last error of the chain names the error's type.
        raise from_os_error(error, doing) from None
    except UnicodeEncodeError:
        # Half of a surrogate pair, which JSON can express. From None: the error contains the whole string.
        raise refused(f"cannot {doing}: the string is not valid Unicode", "InvalidInput") from None
