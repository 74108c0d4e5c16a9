"""Pipeline Runner: YAML pipelines on Temporal, undone in reverse order when they fail.

These names are all that a service needs to embed Pipeline Runner. Authors of activities use
:mod:`pipeline_runner.activity`, and their tests use :mod:`pipeline_runner.testing`. Everything else in this
package may change from one version to the next.

Each name is imported on first use: importing this package costs nothing, and loading a pipeline does not
import temporalio.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline_runner.api.pipelines import InvalidPipeline, Pipeline, load, load_directory, load_text
    from pipeline_runner.api.runs import Event, Run, RunCancelled, RunError, RunFailed, Runner
    from pipeline_runner.api.workers import PipelinePlugin, worker
    from pipeline_runner.core.errors import ErrorInfo
    from pipeline_runner.core.inputs import InvalidInputs, Problem
    from pipeline_runner.core.state import Report, UndoRecord
    from pipeline_runner.engine.client import ConflictError, TooLargeError, UnreachableError
    from pipeline_runner.engine.history.happenings import Connection, Ended, Progress, Unserved
    from pipeline_runner.engine.messages import RefusedError, UnansweredError
    from pipeline_runner.engine.workflow_ids import WorkflowIdError
    from pipeline_runner.language.diagnostics import Diagnostic
    from pipeline_runner.language.workspace import UsageError

__all__ = [
    "ConflictError",
    "Connection",
    "Diagnostic",
    "Ended",
    "ErrorInfo",
    "Event",
    "InvalidInputs",
    "InvalidPipeline",
    "Pipeline",
    "PipelinePlugin",
    "Problem",
    "Progress",
    "RefusedError",
    "Report",
    "Run",
    "RunCancelled",
    "RunError",
    "RunFailed",
    "Runner",
    "TooLargeError",
    "UnansweredError",
    "UndoRecord",
    "UnreachableError",
    "Unserved",
    "UsageError",
    "WorkflowIdError",
    "load",
    "load_directory",
    "load_text",
    "worker",
]

_HOMES = {
    "api.pipelines": ("InvalidPipeline", "Pipeline", "load", "load_directory", "load_text"),
    "api.runs": ("Event", "Run", "RunCancelled", "RunError", "RunFailed", "Runner"),
    "api.workers": ("PipelinePlugin", "worker"),
    "core.errors": ("ErrorInfo",),
    "core.inputs": ("InvalidInputs", "Problem"),
    "core.state": ("Report", "UndoRecord"),
    "engine.client": ("ConflictError", "TooLargeError", "UnreachableError"),
    "engine.history.happenings": ("Connection", "Ended", "Progress", "Unserved"),
    "engine.messages": ("RefusedError", "UnansweredError"),
    "engine.workflow_ids": ("WorkflowIdError",),
    "language.diagnostics": ("Diagnostic",),
    "language.workspace": ("UsageError",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


if not TYPE_CHECKING:  # a type checker would accept every name

    def __getattr__(name: str) -> Any:
        if name not in _HOME_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
