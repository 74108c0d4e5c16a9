"""How the catalogue declares an activity's undo: once, for every step that declares none."""

from typing import Any, Literal

import msgspec

from pipeline_runner.core.model import Retry, Struct, Timeouts
from pipeline_runner.core.scope import Place, roots
from pipeline_runner.core.suggest import listed


class Undo(Struct, frozen=True):
    """How the steps that call an activity are undone, unless they declare something else.

    Strings in ``input`` and ``args`` are templates. They see ``step`` (``input``, ``output``,
    ``outcome``, ``error``, ``key``), ``run`` and ``error``.
    """

    activity: str
    """The registered name of the activity that undoes the step."""
    input: dict[str, Any] | None = msgspec.field(default=None, name="with")
    """Its one argument."""
    args: list[Any] | None = None
    """Its positional arguments, instead of ``input``."""
    after: Literal["completed", "uncertain", "started"] = "uncertain"
    """Undo only if the step completed; also if its outcome is not known; also if it failed."""
    task_queue: str | None = None
    """Where it runs; None: on the task queue of its own entry, else on that of the step."""
    timeouts: Timeouts = Timeouts()
    """In seconds. They override those of its own entry."""
    retry: Retry = Retry()
    """It overrides that of its own entry."""
    given: str | None = None
    """A parameter without which a step leaves nothing to undo; None: it always does."""


def check(undo: Undo, *, effect_free: bool) -> None:
    """Refuse an undo in code that cannot work for any step.

    Raises:
        ValueError: The message gives the reason.
    """
    from pipeline_runner.core.expressions.parsing import ExpressionError, references, strings_in

    told = f'the undo by "{undo.activity}"'
    if effect_free:
        raise ValueError(f"{told}: an activity that is effect-free has none")
    if undo.input is not None and undo.args is not None:
        raise ValueError(f'{told}: "input" and "args" are two ways to give the input, use one')
    known = roots(Place.CATALOGUE)
    for text in strings_in([undo.input, undo.args]):
        try:
            names = [reference.path[0] for reference in references(text)]
        except ExpressionError as error:
            raise ValueError(f"{told}: {error.message}") from None
        for name in names:
            if name not in known:
                raise ValueError(f'{told}: there is no "{name}", there are {listed(known)}')
