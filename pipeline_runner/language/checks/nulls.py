"""``maybe-null``: outputs of steps that may not have run, and values that may be null."""

from collections.abc import Iterator

from jinja2 import nodes as jinja

from pipeline_runner.core.scope import Place
from pipeline_runner.language.diagnostics import Diagnostic
from pipeline_runner.language.document import Document, Scope, Step, Use
from pipeline_runner.language.flow import arms, ends_in_failure, handlers, has_default, scopes_around
from pipeline_runner.language.types import ANY, NULL, Map, Plain, options, union
from pipeline_runner.language.typing.guards import Known, Look, expression_of, fact, looks
from pipeline_runner.language.typing.inference import Inference
from pipeline_runner.language.yaml.nodes import MappingNode, Node, Scalar, scalars

_FIRST = ("when", "until")
"""Keys that are judged whether or not the step's own ``when`` holds."""
_HELP = "use default(…) or a condition"
_ERROR = jinja.Name("error", "load")
_STATUS = jinja.Getattr(jinja.Name("run", "load"), "status", "load")
_COMPLETED = frozenset(
    [
        fact(jinja.Compare(_STATUS, [jinja.Operand("eq", jinja.Const("completed"))])),
        fact(jinja.Compare(_ERROR, [jinja.Operand("eq", jinja.Const(None))])),
        fact(jinja.Test(_ERROR, "none", [], [], None, None)),
        fact(_ERROR, holds=False),
    ]
)
"""In ``finally``, each of these conditions means that every earlier step has run, or was skipped."""


def check(document: Document, inferred: Inference) -> Iterator[Diagnostic]:
    """Yield uses of outputs and errors that may be null."""
    skipped = frozenset(
        step.id for step in document.steps if step.inner or "when" in step.node or "catch" in step.node
    )
    for use in document.uses:
        if use.tree is None or not _is_in_doubt(document, inferred, use, skipped):
            continue
        around = _conditions(document, use.step, own=use.key not in _FIRST)
        for look in looks(use.tree, lone=use.is_lone):
            if look.unset:
                yield _unset(document, use, look)
                continue
            known = around.joined(look.known)
            if _found(document, inferred, use, look, known) and (
                found := _found(document, inferred, use, look, known.joined(_passed(document, use)))
            ):
                depth, message = found
                span = use.span(document.source, look.reference, depth)
                yield document.source.diagnostic(span, "maybe-null", message, _HELP)


def _unset(document: Document, use: Use, look: Look) -> Diagnostic:
    span = use.span(document.source, look.reference)
    message = f'"{look.reference.path[0]}" is set under a condition only, and may not exist here'
    return document.source.diagnostic(span, "maybe-null", message, "set it before the condition, too")


def _is_in_doubt(document: Document, inferred: Inference, use: Use, skipped: frozenset[str]) -> bool:
    """Tell whether a template must be examined, which is rare."""
    if "{%" in use.text and "set" in use.text:
        return True
    for reference in use.references:
        path = reference.path
        if _may_be_null(use, path, skipped) or _nullable(document, inferred, use, path):
            return True
    return False


def _may_be_null(use: Use, path: tuple[str, ...], skipped: frozenset[str]) -> bool:
    root = path[0]
    if root == "steps" and len(path) > 1:
        return path[1] in skipped or path[2:3] == ("error",) or (use.step is not None and use.step.in_finally)
    if root == "step":
        return path[1:2] == ("error",)
    if root == "last":
        return True
    return root == "error" and use.place is Place.FINALLY


def _found(
    document: Document, inferred: Inference, use: Use, look: Look, known: Known
) -> tuple[int, str] | None:
    known = _with_those_of_steps(document, known)
    return _why(document, use, look, known) or _by_schema(document, inferred, use, look, known)


def _nullable(document: Document, inferred: Inference, use: Use, path: tuple[str, ...]) -> list[int]:
    """Return how many keys of a path lead to a value that its schema allows to be null.

    Values that the file computes are excluded: types do not show what their conditions have ruled out.
    """
    match path:
        case ("inputs", name, *_):
            kind, first = inferred.inputs.keys.get(name, ANY), 2
        case ("steps", name, "output", *_):
            step = document.ids.get(name)
            if step is None or step.kind != "activity" or not use.sees(step) or "for_each" in step.node:
                return []
            kind, first = inferred.single(step), 3
        case _:
            return []
    if isinstance(kind, Plain):  # as most are
        return []
    found = []
    for place, key in enumerate((*path[first:], ""), first):
        kinds = options(kind)
        if len(kinds) > 1 and NULL in kinds:
            found.append(place)
        maps = [one for one in kinds if isinstance(one, Map)]
        if not maps:
            break
        kind = union([one.keys.get(key, ANY) for one in maps])
    return found


def _by_schema(
    document: Document, inferred: Inference, use: Use, look: Look, known: Known
) -> tuple[int, str] | None:
    path = look.reference.path
    for place in _nullable(document, inferred, use, path):
        if len(path) + look.needed > place and not known.asks(*path[:place]):
            return place - 1, f'"{".".join(path[:place])}" may be null according to its schema'
    return None


def _passed(document: Document, use: Use) -> Known:
    """Return what is known because no earlier step has failed on purpose."""
    last = use.step is not None and use.step.in_finally
    fails = [step for step in use.visible if step.kind == "fail" and step.in_finally == last]
    certain = [step for step in fails if "for_each" not in step.node and "catch" not in step.node]
    known = Known()
    for condition in _whens(document, certain):
        known = known.also(condition, holds=False)
    return known


def _why(document: Document, use: Use, look: Look, known: Known) -> tuple[int, str] | None:
    """Return the depth of the name that may be null, and why; None: it may not, or that does no harm."""
    path = look.reference.path
    match path[0]:
        case "error":
            if use.place is not Place.FINALLY or len(path) + look.needed < 2:
                return None
            told = known.asks("error") or known.asks("run", "status")
            return None if told else (0, '"error" is null when the run completed')
        case "step":
            if path[1:2] != ("error",) or len(path) + look.needed < 3 or known.asks("step"):
                return None
            return 1, '"step.error" is null when the step completed'
        case "last":
            return _of_last(document, use, look, known)
    return _of_result(document, use, look, known)


def _of_result(document: Document, use: Use, look: Look, known: Known) -> tuple[int, str] | None:
    path = look.reference.path
    # A value that is handed on as it is may well be null; a key of null, or null in a text, fails.
    if path[2:3] not in (("output",), ("error",)) or len(path) + look.needed < 4:
        return None
    step = document.ids.get(path[1])
    if step is None or not use.sees(step) or known.asks("steps", step.id):
        return None
    if path[2] == "error":
        return 2, f'"steps.{step.id}.error" is null unless the step failed'
    last = use.step is not None and use.step.in_finally
    if last and not step.in_finally and not known.facts & _COMPLETED:
        return 1, f'the output of step "{step.id}" is null if the step did not run before "finally"'
    if reason := _null_if(document, step, known):
        return 1, f'the output of step "{step.id}" is null if {reason}'
    if step.kind == "parallel" and (reason := _of_branch(document, step, look, known)):
        return 3, f'"{".".join(path[:4])}" is null if {reason}'
    return None


def _null_if(document: Document, step: Step, known: Known, inside: str = "") -> str | None:
    """Return when the output of a step is null though the run goes on; ``inside``: where the step is."""
    if "for_each" in step.node:
        return None  # a loop that skips elements has null in its list, which is there all the same
    name = f'step "{step.id}"{inside}' if inside else "the step"
    if not all(map(known.implies, _whens(document, [step]))):
        return f"{name} was skipped"
    if any("output" not in handler and not ends_in_failure(scope) for handler, scope in handlers(step)):
        return f"an error of {name} was caught"
    there = f' in "{step.id}"'
    match step.kind:
        case "steps" if "output" not in step.node:
            return _null_end(document, step.body("block")[0], known, there)
        case "switch":
            conditions = [_condition(document, arm.get("when"), step) for arm in arms(step)]
            if not has_default(step) and not any(
                one is not None and known.implies(one) for one in conditions
            ):
                return f"no arm of {name if inside else 'it'} ran"
            ends = (scope for scope in step.body("arm") if not ends_in_failure(scope))
            return next((why for end in ends if (why := _null_end(document, end, known, there))), None)
    return None


def _null_end(document: Document, scope: Scope, known: Known, inside: str) -> str | None:
    return _null_if(document, scope.steps[-1], known, inside) if scope.steps else None


def _of_branch(document: Document, step: Step, look: Look, known: Known) -> str | None:
    path = look.reference.path
    if len(path) + look.needed < 5 or "for_each" in step.node:
        return None
    ends = (scope for scope in step.body("branch") if scope.name == path[3])
    return next((_null_end(document, end, known, f' in "{step.id}"') for end in ends), None)


def _of_last(document: Document, use: Use, look: Look, known: Known) -> tuple[int, str] | None:
    path = look.reference.path
    loop = next((loop for loop in use.loops if "until" in loop.node), None)
    if loop is None or len(path) + look.needed < 2 or known.asks("last"):
        return None
    if use.step is not loop or use.key != "until":
        return None if known.asks("index") else (0, '"last" is null in the first repetition')
    reason = _null_if(document, loop, known)
    return (0, f'"last" is null if {reason}') if reason and "caught" not in reason else None


def _whens(document: Document, steps: list[Step]) -> list[jinja.Node]:
    """Return the conditions of steps, as far as they can be parsed."""
    found = []
    for step in steps:
        node = step.node.get("when")
        if condition := _condition(document, node, step):
            found.append(condition)
    return found


def _condition(document: Document, node: Node | None, step: Step) -> jinja.Node | None:
    """Return the expression of a condition of a step, None if it cannot be read."""
    use = document.use_at(node, step) if isinstance(node, Scalar) else None
    return expression_of(use.tree) if use and use.tree else None


def _conditions(document: Document, step: Step | None, *, own: bool) -> Known:
    """Return what is known where a step runs."""
    known = Known()
    if step:
        for condition in _whens(document, [*([step] if own else []), *step.around]):
            known = known.also(condition, holds=True)
        for scope in scopes_around(step):
            if scope.kind == "arm" and scope.owner:
                known = _of_arm(document, scope.owner, int(scope.name), known)
    return known


def _of_arm(document: Document, step: Step, number: int, known: Known) -> Known:
    """Add that an arm's condition holds, and none of those before it."""
    for place, arm in enumerate(step.node.items("switch")[: number + 1]):
        node = arm.get("when") if isinstance(arm, MappingNode) else None
        if condition := _condition(document, node, step):
            known = known.also(condition, holds=place == number)
    return known


def _with_those_of_steps(document: Document, known: Known) -> Known:
    """Add the conditions of steps that are known to have run, and the conditions in ``set`` steps."""
    names = {path[1] for path in known.asked if path[0] == "steps" and len(path) > 1}
    ran = [step for name in sorted(names) if (step := document.ids.get(name))]
    for condition in _whens(document, ran):
        known = known.joined(Known(known.also(condition, holds=True).facts))
    asked = {
        reference.path
        for step in ran
        if step.kind == "set"
        for scalar in scalars(step.node.get("set"))
        if (use := document.use_at(scalar, step))
        for reference in use.references
    }
    return known.joined(Known(asked=frozenset(asked)))
