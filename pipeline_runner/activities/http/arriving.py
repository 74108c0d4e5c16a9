"""Files that arrive over the network: kept apart until they are complete, and removed if they never will be.

A pipeline does not undo a step that failed, and a download may leave much behind. An attempt therefore
undoes itself when it is certain that no attempt follows, because the error is final or the step was
cancelled.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import BinaryIO

from temporalio import activity
from temporalio.exceptions import ApplicationError

from pipeline_runner.activities.files.copying import adopt
from pipeline_runner.activities.files.kept import Kept
from pipeline_runner.activities.toolkit.context import step_key


def keep(target: str, key: str | None) -> tuple[os.stat_result | None, Kept | None]:
    """Keep what is at the path. Return its file status and the record."""
    if key is None:
        return (os.stat(target) if os.path.exists(target) else None), None
    kept = Kept(target, key)
    record = kept.keep(lambda: None)
    return (os.stat(kept.original) if record.existed else None), kept


def seal(file: BinaryIO, old: os.stat_result | None) -> None:
    """Make a complete file ready to replace the old one."""
    file.flush()
    if old is not None:
        adopt(file.fileno(), old)
    os.fsync(file.fileno())


@asynccontextmanager
async def given_up_at_last(target: str) -> AsyncIterator[None]:
    """Remove what has arrived, and restore the original, if the last attempt fails inside."""
    try:
        yield
    except ApplicationError as error:
        if _is_final(error):
            _give_up(target)
        raise
    except asyncio.CancelledError:
        details = activity.cancellation_details()
        if details is not None and details.cancel_requested:
            _give_up(target)
        raise


def _is_final(error: ApplicationError) -> bool:
    """Tell whether no attempt follows this one."""
    info = activity.info()
    policy = info.retry_policy
    if error.non_retryable or policy is None:
        return error.non_retryable
    last = 0 < policy.maximum_attempts <= info.attempt
    return last or error.type in (policy.non_retryable_error_types or ()) or _too_late_for_another(error)


def _too_late_for_another(error: ApplicationError) -> bool:
    """Tell whether the next attempt would begin after ``schedule_to_close``, so that there is none."""
    info = activity.info()
    limit, policy = info.schedule_to_close_timeout, info.retry_policy
    if not limit or policy is None:
        return False
    pause = error.next_retry_delay
    if pause is None:
        longest = policy.maximum_interval or 100 * policy.initial_interval
        exponent = min(info.attempt - 1, 64)
        seconds = policy.initial_interval.total_seconds() * policy.backoff_coefficient**exponent
        pause = timedelta(seconds=min(seconds, longest.total_seconds()))
    return datetime.now(UTC) + pause >= info.scheduled_time + limit


def _give_up(target: str) -> None:
    """Remove what has arrived, and restore the original."""
    key = step_key()
    if key is not None:
        Kept(target, key).put_back()
