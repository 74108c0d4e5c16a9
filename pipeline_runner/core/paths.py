"""Paths: the names of steps in a run. Every path of the language is made and parsed here.

::

    path    = level {"/" level}             each level is a run; the next one is its child
    level   = ["undo:"] segment {"." segment}
    segment = name ["[" number "]"] ["#" attempt]

    checks.api.ping          a step in a branch (or in a block) of the step ``checks``
    copy[3]                  an item of a loop, or a repetition, counted from 0
    checks#2.api             in the second attempt of ``checks``; the first has no mark
    size.switch[1].grow      a step of the second arm of ``size``
    deploy.catch[0].tell     a step of the first handler of ``deploy``
    child/step               a step of the child that ``child`` runs
    undo:copy[3]             the undo of ``copy[3]``
    undo:child/step          the undo of a completed child's step, by the run that called the child;
                             or a step of the pipeline that undoes ``child``: no step has both
    child/undo:step          the undo of a child's step, by the child

Names are identifiers, so they contain none of these marks. No step has the id ``catch``, because its
items would look like handlers. Different steps of a run have different paths, because the names in a
scope are different. The path is the id of an activity, and part of the step's idempotency key.

A path is relative to a run. The engine's paths are relative to the run that it executes, those of a
reader to the run that is read.
"""

import re
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Self

CATCH = "catch"
"""The name of the handlers of a step. No step may have this id."""

SWITCH = "switch"
"""The name of the arms of a ``switch``."""

MAX_ID = 1000
"""The maximum number of bytes in an id of a workflow or an activity (``limit.maxIDLength``)."""

_UNDO = "undo:"
_NUMBER = r"(?:0|[1-9][0-9]{0,17})"
_SEGMENT = re.compile(rf"(?P<name>[^\[#]+)(?:\[(?P<number>{_NUMBER})\])?(?:#(?P<attempt>{_NUMBER}))?")


class PathError(ValueError):
    """A string is not a path."""


class Segment(NamedTuple):
    """A part between two dots: a step, a branch, an arm or a handler."""

    name: str
    number: int | None = None
    """Of a loop's item or repetition, an arm or a handler, counted from 0."""
    attempt: int = 1
    """Of a step that is retried as a whole, counted from 1."""

    def __str__(self) -> str:
        number = "" if self.number is None else f"[{self.number}]"
        attempt = "" if self.attempt == 1 else f"#{self.attempt}"
        return f"{self.name}{number}{attempt}"


class Level(NamedTuple):
    """The part of a path that belongs to one run."""

    segments: tuple[Segment, ...]
    undo: bool = False

    def __str__(self) -> str:
        return (_UNDO if self.undo else "") + ".".join(map(str, self.segments))


@dataclass(frozen=True, slots=True)
class Path:
    """The path of a step, or of a scope. Its methods return the paths inside it."""

    levels: tuple[Level, ...]
    _string: str | None = field(default=None, init=False, repr=False, compare=False)
    """Made once: a step's path is asked for several times."""

    @classmethod
    def of(cls, step: str) -> Self:
        """Return the path of a step of a pipeline's own list, by its id."""
        return cls((Level((Segment(step),)),))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a path.

        Raises:
            PathError: It is not a path.
        """
        return cls(tuple(_level(part, text) for part in text.split("/")))

    @classmethod
    def of_id(cls, text: str) -> Self:
        """Return the path in an id of a history.

        If the id is not a path, because it was cut to the server's limit or because somebody else made
        it, it counts as the name of a step. The path's string is the id in any case.
        """
        try:
            return cls.parse(text)
        except PathError:
            return cls((Level((Segment(text.removeprefix(_UNDO)),), undo=text.startswith(_UNDO)),))

    def __str__(self) -> str:
        if self._string is None:
            object.__setattr__(self, "_string", "/".join(map(str, self.levels)))
        return self._string or ""

    def inner(self, name: str) -> Self:
        """Return the path of a step in this block, arm, handler or branch, or of a branch of this step."""
        return self._with(*self._segments, Segment(name))

    def item(self, index: int) -> Self:
        """Return the path of an item or a repetition of this step, counted from 0."""
        return self._with(*self._segments[:-1], self._segments[-1]._replace(number=index))

    def attempt(self, number: int) -> Self:
        """Return the path of an attempt of this step or item, counted from 1, which is this one."""
        last = self._segments[-1]
        return self._with(*self._segments[:-1], last._replace(attempt=last.attempt + number - 1))

    def arm(self, index: int) -> Self:
        """Return the path of an arm of this ``switch``, counted from 0."""
        return self._with(*self._segments, Segment(SWITCH, index))

    def handler(self, index: int) -> Self:
        """Return the path of a handler of this step, counted from 0."""
        return self._with(*self._segments, Segment(CATCH, index))

    def holds(self, path: Self | str) -> bool:
        """Tell whether a path is that of this step, of one of its turns, or of something inside it.

        The turns are its items, its repetitions and its attempts; the first attempt has no mark, and
        therefore holds the later ones.
        """
        # By their strings: they are compared with those of thousands of entries in the undo log.
        own, other, last = str(self), str(path), self._segments[-1]
        marks = "./" if last.attempt > 1 else "./#" if last.number is not None else "./#["
        return other.startswith(own) and (len(other) == len(own) or other[len(own)] in marks)

    def child(self, path: Self) -> Self:
        """Return the path of a step of this step's child, by its path in the child."""
        return replace(self, levels=self.levels + path.levels)

    def undo(self) -> Self:
        """Return the path of the undo of this step by the run that the path is relative to."""
        return replace(self, levels=(self.levels[0]._replace(undo=True), *self.levels[1:]))

    def titled(self, name: str) -> str:
        """Return the path with the step's name, if that is not its id, for what has no id in a history."""
        return str(self) if name == self.name else f"{self}: {name}"

    @classmethod
    def of_title(cls, text: str) -> tuple[Self, str]:
        """Read the path and the name from what :meth:`titled` made.

        Where it is no path, because a run of an older version wrote the name alone, that is taken for both.
        """
        head, _, name = text.partition(": ")
        try:
            path = cls.parse(head)
        except PathError:
            return cls.of_id(text), text
        return path, name or path.name

    @property
    def name(self) -> str:
        """The id of the step, or the name of the branch."""
        return self._segments[-1].name

    @property
    def is_undo(self) -> bool:
        """Whether this is an undo by the run that the path is relative to."""
        return self.levels[0].undo

    @property
    def undone(self) -> Self:
        """The path of the step that the undo with this path undoes."""
        return replace(self, levels=(self.levels[0]._replace(undo=False), *self.levels[1:]))

    @property
    def above(self) -> Self:
        """The path of the step whose child the innermost run is; ``ROOT``: that run is not a child."""
        return replace(self, levels=self.levels[:-1])

    @property
    def local(self) -> Self:
        """The path in the innermost run."""
        return replace(self, levels=self.levels[-1:])

    @property
    def head(self) -> str:
        """The id of the step of the pipeline's own list that the path is, or is in."""
        return self.levels[0].segments[0].name

    @property
    def depth(self) -> int:
        """How many runs there are above the innermost one."""
        return len(self.levels) - 1

    def workflow_id(self, parent: str) -> str:
        """Return the workflow id of this step's child, unless its author has chosen one."""
        return f"{parent}/{self}"

    @classmethod
    def of_workflow_id(cls, workflow_id: str, parent: str) -> Self:
        """Return the path from which the workflow id of a child was made. A chosen id is parsed by itself."""
        return cls.of_id(workflow_id.removeprefix(f"{parent}/"))

    @property
    def _segments(self) -> tuple[Segment, ...]:
        return self.levels[-1].segments

    def _with(self, *segments: Segment) -> Self:
        return replace(self, levels=(*self.levels[:-1], self.levels[-1]._replace(segments=segments)))


ROOT = Path(())
"""The path of a run itself: ``ROOT.child(path)`` is ``path``. No step has it."""


def _level(part: str, text: str) -> Level:
    undo = part.startswith(_UNDO)
    return Level(tuple(_segment(each, text) for each in part.removeprefix(_UNDO).split(".")), undo)


def _segment(part: str, text: str) -> Segment:
    found = _SEGMENT.fullmatch(part)
    if found is None or not found["name"].isidentifier() or found["attempt"] in ("0", "1"):
        raise PathError(
            f'"{text}" is not the path of a step, such as checks.api, copy[3], checks#2 or child/step'
        )
    name, number, attempt = found.group("name", "number", "attempt")
    return Segment(name, None if number is None else int(number), 1 if attempt is None else int(attempt))
