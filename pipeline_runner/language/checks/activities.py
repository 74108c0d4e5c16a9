"""``unknown-activity``: an activity is in the catalogue, or the step names its task queue.

``undeclared-activity``: the step names a task queue, and the catalogue has no such activity. A warning,
because the worker of that queue may well have it.

``missing-extra``: a built-in activity needs a package that is not installed here. A warning, because
the worker may be elsewhere.
"""

from collections.abc import Iterator
from functools import cache

from pipeline_runner.activities.catalogue import extras
from pipeline_runner.core.suggest import did_you_mean
from pipeline_runner.language.diagnostics import Diagnostic
from pipeline_runner.language.document import Document

_HELP = "declare it in activities.yaml, or name the task_queue of its worker"


def check(document: Document) -> Iterator[Diagnostic]:
    """Yield unknown activities, but none while the file that may declare them has errors."""
    if not document.complete:
        return
    installed = cache(extras.installed)  # which searches the disk
    for call in document.calls:
        if call.kind != "activity" or not call.name or not call.name.strip() or "{{" in call.name:
            continue
        if known := call.activity:
            if known.extra and not installed(known.extra):
                message = extras.missing(call.name, known.extra)
                help_ = f"on the worker: {extras.remedy(known.extra)}"
                yield document.source.diagnostic(call.span, "missing-extra", message, help_)
            continue
        message = f'there is no activity "{call.name}" in the catalogue'
        near = did_you_mean(call.name, document.catalogue)
        if "task_queue" in call.node:
            yield document.source.diagnostic(call.span, "undeclared-activity", message, near or _DECLARE)
        else:
            yield document.source.diagnostic(call.span, "unknown-activity", message, near or _HELP)


_DECLARE = "declare it in activities.yaml to have its parameters checked"
