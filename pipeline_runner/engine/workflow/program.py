"""A bundle that is ready to run, cached per process by its content.

Starting another instance of a known bundle costs one lookup.
"""

from functools import cached_property, lru_cache
from typing import Any

import msgspec
from temporalio.api.common.v1 import Payload

from pipeline_runner.core import model
from pipeline_runner.core.model import Approval, Bundle, ChildCall, Event, Pipeline, Step
from pipeline_runner.core.scope import STEP_KEYS
from pipeline_runner.core.state import ScopeLog
from pipeline_runner.engine.workflow.liveness import Liveness, heads

_JSON = {"encoding": b"json/plain"}


class UnsupportedBundleError(Exception):
    """Another version of this package wrote the bundle."""


class Program:
    """A decoded bundle, with everything that is computed from it once."""

    def __init__(self, bundle: Bundle, data: bytes) -> None:
        self.bundle = bundle
        self.data = data
        self._children: dict[str, Payload] = {}
        self._liveness = {key: Liveness(pipeline) for key, pipeline in bundle.pipelines.items()}

    @property
    def root(self) -> Pipeline:
        """The pipeline to run."""
        return self.bundle.pipelines[self.bundle.root]

    @cached_property
    def payload(self) -> Payload:
        """The encoded bundle."""
        return Payload(metadata=_JSON, data=self.data)

    @cached_property
    def hash(self) -> str:
        """The bundle's content hash."""
        return model.bundle_hash(self.data)

    @cached_property
    def _steps(self) -> dict[tuple[str, str], Step]:
        return {
            (key, step.id): step
            for key, pipeline in self.bundle.pipelines.items()
            for step in model.steps_of(pipeline)
        }

    def step(self, pipeline: str, step_id: str) -> Step:
        """Return a step, by the key of its pipeline and its id."""
        return self._steps[pipeline, step_id]

    def liveness(self, pipeline: str) -> Liveness:
        """Return what is read of the results of a pipeline's steps, by the key of the pipeline."""
        return self._liveness[pipeline]

    @cached_property
    def events(self) -> dict[str, list[Any]]:
        """The events that the root pipeline waits for, with the schemas that their payloads must fit."""
        found: dict[str, list[Any]] = {}
        for step in model.steps_of(self.root):
            if isinstance(step.action, Event):
                schemas = found.setdefault(step.action.name, [])
                if step.action.payload_schema is not None and step.action.payload_schema not in schemas:
                    schemas.append(step.action.payload_schema)
        return found

    @cached_property
    def asks_for_starter(self) -> bool:
        """Whether an approval must not be given by whoever started the run, here or in a child."""
        return any(
            isinstance(step.action, Approval) and step.action.not_by_starter
            for pipeline in self.bundle.pipelines.values()
            for step in model.steps_of(pipeline)
        )

    def child_payload(self, key: str) -> Payload:
        """Return the encoded bundle of a child: that pipeline and everything that it can reach."""
        payload = self._children.get(key)
        if payload is None:
            reached = self._reached(key)
            bundle = Bundle(root=key, pipelines={k: self.bundle.pipelines[k] for k in reached})
            payload = self._children[key] = Payload(metadata=_JSON, data=model.encode(bundle))
        return payload

    def _reached(self, key: str) -> list[str]:
        found = [key]
        for known in found:
            found += [k for k in _children(self.bundle.pipelines[known]) if k not in found]
        return found

    @cached_property
    def _undoable(self) -> frozenset[str]:
        """Keys of the pipelines whose runs may have something to undo."""
        found: set[str] = set()
        pipelines = self.bundle.pipelines.items()
        while more := {k for k, p in pipelines if k not in found and self._has_undo(p, found)}:
            found |= more
        return frozenset(found)

    @staticmethod
    def _has_undo(pipeline: Pipeline, undoable: set[str]) -> bool:
        return any(
            isinstance(step.compensate, model.Compensation)
            or (
                step.compensate is None
                and isinstance(step.action, ChildCall)
                and step.action.parent_close_policy != "abandon"
                and step.action.pipeline in undoable
            )
            for step in model.walk(pipeline.steps)
        )

    def undoable(self, key: str) -> bool:
        """Tell whether a run of that pipeline may leave something to undo."""
        return key in self._undoable

    @cached_property
    def _undo_references(self) -> dict[str, dict[str, frozenset[tuple[str, ...]]]]:
        """By pipeline and step: the first two names of every reference in its undo templates."""
        return {
            key: {
                step.id: _references(step.compensate.action)
                for step in model.walk(pipeline.steps)
                if isinstance(step.compensate, model.Compensation)
            }
            for key, pipeline in self.bundle.pipelines.items()
        }

    def undo_uses(self, pipeline: str, step_id: str) -> frozenset[str]:
        """Return which of ``step.input``, ``step.output``, … the undo of a step reads."""
        found = self._undo_references[pipeline].get(step_id, frozenset())
        if ("step",) in found:
            return frozenset(STEP_KEYS)
        return frozenset(path[1] for path in found if path[0] == "step")

    def undo_names(self, pipeline: str, step_id: str, names: dict[str, Any]) -> dict[str, Any]:
        """Return the current values of the names that the undo of a step reads."""
        found = self._undo_references[pipeline].get(step_id, frozenset())
        read = {path[0]: names[path[0]] for path in found if path[0] in ("item", "index", "last")}
        steps = names["steps"]
        if ("steps",) not in found:
            steps = {path[1]: steps[path[1]] for path in found if path[0] == "steps" and path[1] in steps}
        return {**read, "steps": steps} if steps else read

    def undo_view(self, log: ScopeLog) -> ScopeLog:
        """Return a log with only what its undo templates read, for a parent."""
        needs = frozenset[tuple[str, ...]]().union(*self._undo_references[log.pipeline].values())
        all_steps = ("steps",) in needs
        return ScopeLog(
            pipeline=log.pipeline,
            task_queue=log.task_queue,
            directory=log.directory,
            inputs=log.inputs if any(path[0] == "inputs" for path in needs) else {},
            steps={k: v for k, v in log.steps.items() if all_steps or ("steps", k) in needs},
            run=log.run,
            entries=log.entries,
            pivot=log.pivot,
        )


def _children(pipeline: Pipeline) -> list[str]:
    return [call.pipeline for call in model.calls_of(pipeline) if isinstance(call, ChildCall)]


def _references(action: model.ActivityCall | ChildCall) -> frozenset[tuple[str, ...]]:
    return frozenset(head[:2] for head in heads(action))


@lru_cache(maxsize=64)
def program_of(data: bytes) -> Program:
    """Return the program of an encoded bundle.

    Raises:
        UnsupportedBundleError: The bytes are not a bundle of this version.
    """
    try:
        version = msgspec.json.decode(data, type=_Versioned).format
        if version != model.FORMAT:
            raise UnsupportedBundleError(
                f"this run was started in format {version}, but this worker supports format"
                f" {model.FORMAT}: use the same version of pipeline-runner on both sides"
            )
        return Program(model.decode(data), data)
    except msgspec.DecodeError as error:
        raise UnsupportedBundleError(
            f"this worker cannot read the run's bundle ({error}): use the same version of"
            " pipeline-runner on both sides"
        ) from None


class _Versioned(msgspec.Struct):
    format: int
