"""The log of a command: lines on standard error, for people, without secrets.

Everything that the SDK, its core and activities log arrives here. While a command follows a run, the
live view shows what happens, and only the log of activities is written. A worker logs every run that it
serves.
"""

import logging
import time
import traceback

from pipeline_runner.activities.toolkit.secret_values import in_use, masked
from pipeline_runner.cli import console

_LONGEST = 1_000
_ACTIVITY_FAILURE = "__temporal_error_identifier"
"""An attribute of the SDK's record of an attempt that failed."""


def follow(*, verbose: bool) -> None:
    """Log for a command that follows a run. ``verbose``: also the activities' INFO records."""
    _forward("ERROR")
    _listen(_Lines(serves=False, verbose=verbose))
    logging.getLogger("temporalio").setLevel(logging.ERROR)
    logging.getLogger("temporalio.activity").setLevel(logging.INFO if verbose else logging.WARNING)


def serve(*, verbose: bool) -> None:
    """Log for a worker. ``verbose``: with the tracebacks of activities."""
    _forward("WARN")
    _listen(_Lines(serves=True, verbose=verbose))
    for name in ("temporalio.activity", "temporalio.workflow"):
        logging.getLogger(name).setLevel(logging.INFO)


def _forward(level: str) -> None:
    """Send the log of the SDK's core, which has its own format, through Python's logging."""
    from temporalio.runtime import (
        LogForwardingConfig,
        LoggingConfig,
        Runtime,
        TelemetryConfig,
        TelemetryFilter,
    )

    forwarding = LogForwardingConfig(
        logger=logging.getLogger("temporalio.core"),
        append_target_to_name=False,
        prepend_target_on_message=False,
    )
    chosen = LoggingConfig(
        filter=TelemetryFilter(core_level=level, other_level="ERROR"), forwarding=forwarding
    )
    Runtime.set_default(Runtime(telemetry=TelemetryConfig(logging=chosen)))


def _listen(handler: logging.Handler) -> None:
    from temporalio import activity, workflow

    activity.logger.activity_info_on_message = False
    workflow.logger.workflow_info_on_message = False
    logging.getLogger().addHandler(handler)


class _Lines(logging.Handler):
    """Writes each record as one line. Further lines of a record are indented."""

    def __init__(self, *, serves: bool, verbose: bool) -> None:
        super().__init__()
        self._serves = serves
        self._verbose = verbose

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self._text(record)
        except Exception:  # noqa: BLE001 - like the library, whatever the caller has passed
            self.handleError(record)
            return
        if text is not None:
            console.tell(masked(text, in_use.get()).rstrip().replace("\n", "\n    "))

    def _text(self, record: logging.LogRecord) -> str | None:
        about = getattr(record, "temporal_activity", None)
        if hasattr(record, _ACTIVITY_FAILURE) and isinstance(about, dict):
            message = self._attempt(record, about)
        elif isinstance(about, dict) and not self._serves:
            message = f"{about['activity_id']}: {self._message(record)}"
        elif isinstance(about, dict):
            message = f"{about['workflow_id']}: {about['activity_id']}: {self._message(record)}"
        else:
            run = getattr(record, "temporal_workflow", None)
            message = f"{run['workflow_id']}: {self._message(record)}" if run else self._message(record)
        if message is None or not self._serves:
            return message
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created))
        return f"{moment} {record.levelname.lower():<7} {message}"

    def _attempt(self, record: logging.LogRecord, about: dict[str, object]) -> str | None:
        """Log a failed attempt, unless the live view or the end of the run reports it."""
        from pipeline_runner.engine.workflow.interpreter import LOAD

        error = record.exc_info[1] if record.exc_info else None
        if not self._serves or about["activity_type"] == LOAD or error is None:
            return None
        message = getattr(error, "message", None) or str(error)
        kind = getattr(error, "type", None) or type(error).__name__
        told = f"{about['workflow_id']}: {about['activity_id']}: attempt {about['attempt']} failed"
        told = f"{told}: {_short(message)} [{kind}]"
        return f"{told}\n{_traceback(error)}" if self._verbose else told

    def _message(self, record: logging.LogRecord) -> str:
        """Return the message with its error: on one line, or with its location if it is an internal error."""
        message = record.getMessage()
        core = getattr(record, "temporal_log", None)
        if core is not None:
            return f"Temporal's SDK: {_short(message)}"
        error = record.exc_info[1] if record.exc_info else None
        if error is None:
            return message
        if record.levelno >= logging.ERROR or self._verbose:
            return f"{message}\n{_traceback(error)}"
        return f"{message}: {type(error).__name__}: {_short(str(error))}"


def _traceback(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)).rstrip()


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= _LONGEST else flat[: _LONGEST - 1] + "…"
