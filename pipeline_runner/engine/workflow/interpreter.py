"""The only workflow: it runs any pipeline, with the pipeline's name as its type.

Arguments: the pipeline's inputs, then the bundle, then :class:`Options`. A client in any SDK may pass
the inputs alone: the bundle is then fetched by name, from the worker that took the run, in a local
activity, which records it in the history.

Not sandboxed: authors of pipelines write no Python that runs here, and without the sandbox an instance
starts in a fraction of the time. The import contract of ``core``, and the recorded histories that the
tests replay, protect what the sandbox would protect.
"""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import msgspec
from temporalio import workflow
from temporalio.common import RawValue, RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError

from pipeline_runner.core import errors, model
from pipeline_runner.core.expressions.values import kind_of
from pipeline_runner.core.inputs import InvalidInputs, validate_inputs
from pipeline_runner.core.state import Options, Report
from pipeline_runner.engine.workflow import signatures
from pipeline_runner.engine.workflow.approvals import APPROVE, REJECT
from pipeline_runner.engine.workflow.asking import DECIDE
from pipeline_runner.engine.workflow.calls import INSTALLED
from pipeline_runner.engine.workflow.cancel import CancelScope, Interrupted
from pipeline_runner.engine.workflow.ending import refused
from pipeline_runner.engine.workflow.events import KEPT
from pipeline_runner.engine.workflow.payloads import EncodedArgumentsError, is_plain
from pipeline_runner.engine.workflow.program import Program, UnsupportedBundleError, program_of
from pipeline_runner.engine.workflow.run import CHILD_UNDONE, Run

MISSING = (
    "this worker or replayer lacks the interceptor that pipelines need: add"
    " pipeline_runner.PipelinePlugin() to its plugins"
)

NOT_BEGUN = "NotBegun"
"""The type of the error with which the sender of an update learns that the run has ended at its start."""

LOAD = "pipeline_runner.load"
"""The activity that returns a worker's bundle by name."""


@workflow.defn(dynamic=True, sandboxed=False)
class Interpreter:
    """Runs a pipeline. :class:`Run` does the work; this class supervises it."""

    @workflow.init
    def __init__(self, args: Sequence[RawValue]) -> None:
        """Take the arguments. The run decodes them, because errors are reported there."""
        if INSTALLED not in workflow.extern_functions():
            # Fails the task, but not the run: a worker that has it may take the run.
            raise RuntimeError(MISSING)
        self._cancel = CancelScope()
        self._run: Run | None = None
        self._over = False
        self._early: list[tuple[str, Sequence[RawValue]]] = []
        """Signals that arrived before the run had its pipeline."""
        self._readable = all(is_plain(arg.payload) for arg in args)

    @workflow.dynamic_config
    def config(self) -> workflow.DynamicWorkflowConfig:
        """Make an error in this class fail the run, instead of a task that is retried for ever.

        Only a run whose arguments this worker cannot decode waits for a worker that can: its arguments
        may be those of a continued run, and contain what must be undone.
        """
        return workflow.DynamicWorkflowConfig(failure_exception_types=[Exception] if self._readable else [])

    @workflow.run
    async def run(self, args: Sequence[RawValue]) -> Any:
        """Run the pipeline, and turn a cancellation into an orderly end of its work."""
        work = asyncio.create_task(self._work(args))
        while True:
            try:
                return await asyncio.shield(work)
            except asyncio.CancelledError:
                if work.done():
                    # It ended in the activation that brought the cancellation: its end counts.
                    return work.result()
                # Only the SDK cancels the work itself, when it evicts the instance.
                if work.cancelling():
                    raise
            await self._cancel.request(Interrupted("cancelled", _cancelled()))

    async def _work(self, args: Sequence[RawValue]) -> Any:
        if not self._readable:
            raise EncodedArgumentsError
        # No ``finally``: an instance that is evicted does nothing.
        try:
            output = await self._begun(args)
        except Exception:
            await self._answer_all()
            raise
        await self._answer_all()
        return output

    async def _answer_all(self) -> None:
        """Before the run ends, answer whoever has sent it an update."""
        self._over = True
        if not workflow.all_handlers_finished():
            await workflow.wait_condition(workflow.all_handlers_finished)

    async def _begun(self, args: Sequence[RawValue]) -> Any:
        try:
            inputs, program, options = await _read(args)
            if options.continued is None:
                inputs = _validated(program, inputs)
                workflow.logger.info("started: %s", program.root.name)
            run = Run(program, inputs, options, self._cancel)
        except Exception as error:  # noqa: BLE001 - every error ends the run with its report
            raise refused(error) from None
        for name, arguments in self._early:
            run.events.signalled(name, arguments)
        self._run = run
        return await run.execute()

    @property
    def running(self) -> Run | None:
        """The run, for readers of a history; None before it began."""
        return self._run

    @workflow.signal(name=CHILD_UNDONE)
    def child_undone(self, *args: Any) -> None:
        """Receive the report of a child that was cancelled and has undone itself.

        Anybody can send a signal, and an error in a handler would fail the run without its undo.
        """
        try:
            workflow_id, report = msgspec.convert(args, tuple[str, Report])
        except msgspec.ValidationError as error:
            workflow.logger.warning("ignored a signal that is not a child's report: %s", error)
            return
        if self._run is not None:
            self._run.child_undone(workflow_id, report)

    @workflow.signal(dynamic=True)
    def event(self, name: str, arguments: Sequence[RawValue]) -> None:
        """Take an event. One that nobody waits for, or that does not fit, is ignored; the log says why."""
        if self._run is None:
            if len(self._early) < KEPT:
                self._early.append((name, arguments))
            return
        self._run.events.signalled(name, arguments)

    @workflow.update(dynamic=True)
    async def send(self, name: str, arguments: Sequence[RawValue]) -> None:
        """Take an event whose sender wants to know whether it was taken."""
        (await self._ready()).events.sent(name, arguments)

    @send.validator
    def check_event(self, name: str, arguments: Sequence[RawValue]) -> None:
        """Refuse an event that nobody waits for, or that does not fit."""
        if self._run is not None:
            self._run.events.checked(name, arguments)

    @workflow.update(name=APPROVE)
    async def approve(self, given: Any) -> dict[str, Any]:
        """Take an approval of a step that waits for it."""
        return (await self._ready()).approvals.approve(given)

    @approve.validator
    def check_approval(self, given: Any) -> None:
        """Refuse an approval that is not waited for, or that does not fit."""
        if self._run is not None:
            self._run.approvals.checked(given, rejects=False)

    @workflow.update(name=REJECT)
    async def reject(self, given: Any) -> dict[str, Any]:
        """Take a rejection of a step that waits for approval."""
        return (await self._ready()).approvals.reject(given)

    @reject.validator
    def check_rejection(self, given: Any) -> None:
        """Refuse a rejection that is not waited for."""
        if self._run is not None:
            self._run.approvals.checked(given, rejects=True)

    @workflow.update(name=DECIDE)
    async def decide(self, given: Any) -> str:
        """Take a decision about the step that has failed, and return its path."""
        return (await self._ready()).asking.decide(given)

    @decide.validator
    def check_decision(self, given: Any) -> None:
        """Refuse a decision that is not asked for."""
        if self._run is not None:
            self._run.asking.check(given)

    async def _ready(self) -> Run:
        """Return the run when it has its pipeline; until then, an update waits."""
        if self._run is None:
            await workflow.wait_condition(lambda: self._run is not None or self._over)
        if self._run is None:
            raise _refused(NOT_BEGUN, "the run could not begin")
        return self._run

    @workflow.query
    def report(self) -> Any:
        """Return the run's current :class:`Report` as JSON data; null before it began."""
        return None if self._run is None else msgspec.to_builtins(self._run.report())


def _cancelled() -> str:
    reason = workflow.cancellation_reason()
    return f"cancelled: {reason}" if reason else "cancelled"


async def _read(args: Sequence[RawValue]) -> tuple[Any, Program, Options]:
    try:
        inputs = msgspec.json.decode(args[0].payload.data) if args and args[0].payload.data else {}
        options = msgspec.json.decode(args[2].payload.data, type=Options) if len(args) > 2 else Options()
    except msgspec.DecodeError as error:
        raise _refused(errors.INVALID_INPUTS, f"the arguments of the run cannot be read: {error}") from None
    if len(args) > 1:
        data = args[1].payload.data
    else:
        data, directory = await _load_bundle(workflow.info().workflow_type)
        options = Options(directory=directory)
    try:
        return inputs, program_of(data), options
    except UnsupportedBundleError as error:
        raise _refused(errors.UNSUPPORTED_BUNDLE, str(error)) from None


async def _load_bundle(name: str) -> tuple[bytes, str | None]:
    """Fetch a pipeline by its name from this worker, or else from another one.

    Returns:
        Its bundle, and the directory to which its paths are relative.
    """
    try:
        raw = await workflow.execute_local_activity(
            LOAD,
            name,
            result_type=RawValue,
            start_to_close_timeout=timedelta(seconds=30),
            retry_policy=RetryPolicy(maximum_attempts=3),
        )
    except (ActivityError, ApplicationError) as error:
        # A local activity that failed in the task that started it has no ActivityError around its error.
        cause = error.cause if isinstance(error, ActivityError) else error
        if not isinstance(cause, ApplicationError):
            raise
        if cause.type != errors.UNKNOWN_PIPELINE:
            raise _refused(cause.type or errors.UNKNOWN_PIPELINE, cause.message) from error
        raw = await _loaded_elsewhere(name)
    try:
        served = msgspec.json.decode(raw.payload.data, type=_Served)
    except msgspec.ValidationError:
        # Workers of older versions returned only the bundle.
        served = _Served(bundle=msgspec.Raw(raw.payload.data))
    # Canonical again, so that the bundle has the same hash however it arrived here.
    bundle = model.canonical(bytes(served.bundle))
    _check_signature(name, bundle, served)
    return bundle, served.directory


class _Served(msgspec.Struct):
    """The result of :data:`LOAD`."""

    bundle: msgspec.Raw
    directory: str | None = None
    signature: str | None = None


def _check_signature(name: str, bundle: bytes, served: _Served) -> None:
    signer = signatures.current()
    if signer is None:
        return
    expected = signer.bundle(workflow.info().workflow_id, name, bundle, served.directory)
    if not signatures.same(served.signature, expected):
        raise signatures.not_signed(
            f'the pipeline "{name}" does not come from a worker of the same user as the worker of the run'
        )


async def _loaded_elsewhere(name: str) -> RawValue:
    """Ask any worker of the task queue, which may serve other directories than this one."""
    try:
        raw: RawValue = await workflow.execute_activity(
            LOAD,
            name,
            result_type=RawValue,
            start_to_close_timeout=timedelta(seconds=30),
            retry_policy=RetryPolicy(
                initial_interval=timedelta(milliseconds=200), backoff_coefficient=1.0, maximum_attempts=20
            ),
        )
    except ActivityError as error:
        if isinstance(error.cause, ApplicationError):
            raise _refused(error.cause.type or errors.UNKNOWN_PIPELINE, error.cause.message) from error
        raise
    return raw


def _validated(program: Program, inputs: Any) -> dict[str, Any]:
    if not isinstance(inputs, dict):
        raise _refused(errors.INVALID_INPUTS, f"the inputs must be a mapping, not {kind_of(inputs)}")
    try:
        return validate_inputs(program.root.inputs, inputs)
    except InvalidInputs as error:
        raise _refused(errors.INVALID_INPUTS, str(error)) from None


def _refused(kind: str, message: str) -> ApplicationError:
    return ApplicationError(message, type=kind, non_retryable=True)
