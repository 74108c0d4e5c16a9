"""References to secrets: the value of ``secrets.NAME`` in an expression, and how it travels.

A secret's value never appears here. A reference is an object of its own class, so no string from a user
or an activity can become one. Before data leaves the workflow, :func:`seal` removes the references and
lists their positions. The list travels apart from the data (see ``engine/interceptor.py``), and the
worker inserts the values.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

_HELP = 'a secret can only be put into a string unchanged, for example "Bearer {{ secrets.NAME }}"'


class SecretMisuse(TypeError):
    """An expression did more with a secret than to put it into a string."""


class SecretText:
    """A string with references to secrets: literal strings and :class:`Secret` parts."""

    __slots__ = ("parts",)

    def __init__(self, parts: tuple["str | Secret", ...]) -> None:
        self.parts = parts

    def refuse(self, *_: object) -> NoReturn:
        """Raise :class:`SecretMisuse`."""
        raise SecretMisuse(_HELP)

    # Operations that would let an expression look at a secret's reference as if it were the value.
    __str__ = __eq__ = __bool__ = __len__ = __iter__ = __getitem__ = __contains__ = refuse
    __add__ = __radd__ = __mod__ = __mul__ = __lt__ = __le__ = __gt__ = __ge__ = __html__ = refuse
    __hash__ = refuse

    def __repr__(self) -> str:
        return f"SecretText{self.parts!r}"


class Secret:
    """A reference to a secret."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"Secret({self.name})"


class Secrets(Mapping[str, SecretText]):
    """The name ``secrets`` in an expression: a mapping from declared names to references."""

    def __init__(self, declared: tuple[str, ...]) -> None:
        self._declared = declared

    def __getitem__(self, name: str) -> SecretText:
        if name not in self._declared:
            raise KeyError(name)
        return SecretText((Secret(name),))

    def __iter__(self) -> Iterator[str]:
        return iter(self._declared)

    def __len__(self) -> int:
        return len(self._declared)


SecretSpans = list[tuple[list[str | int], list[tuple[int, int, str]]]]
"""The positions of secrets in sealed data: pairs of a path (keys and indexes) and, in the string there, the
start, end and name of every placeholder. Plain JSON without data, because it travels in a header, which a
codec does not encrypt."""


def seal(value: Any) -> tuple[Any, SecretSpans]:
    """Split data into plain JSON with placeholders, and the positions of secrets."""
    places: SecretSpans = []
    return _seal(value, [], places), places


def _seal(value: Any, path: list[str | int], places: SecretSpans) -> Any:
    if isinstance(value, SecretText):
        text, spans = "", []
        for part in value.parts:
            if isinstance(part, Secret):
                shown = f"<secret {part.name}>"
                spans.append((len(text), len(text) + len(shown), part.name))
                text += shown
            else:
                text += part
        places.append((path, spans))
        return text
    if isinstance(value, dict):
        return {key: _seal(item, [*path, key], places) for key, item in value.items()}
    if isinstance(value, list):
        return [_seal(item, [*path, index], places) for index, item in enumerate(value)]
    return value


def unseal(plain: Any, places: SecretSpans) -> Any:
    """Put the references back into data that :func:`seal` split."""
    for path, spans in places:
        plain = replaced(plain, path, SecretText(tuple(_parts(at(plain, path), spans))))
    return plain


def _parts(text: str, spans: list[tuple[int, int, str]]) -> Iterator[str | Secret]:
    end = 0
    for start, stop, name in spans:
        if start > end:
            yield text[end:start]
        yield Secret(name)
        end = stop
    if end < len(text):
        yield text[end:]


def filled(text: str, spans: list[tuple[int, int, str]], value_of: Callable[[str], str]) -> str:
    """Return a sealed string with the values of its secrets. Errors of ``value_of`` are not caught."""
    return "".join(p if isinstance(p, str) else value_of(p.name) for p in _parts(text, spans))


def at(data: Any, path: list[str | int]) -> Any:
    """Return the value at a path of keys and indexes."""
    for key in path:
        data = data[key]
    return data


def replaced(data: Any, path: list[str | int], value: Any) -> Any:
    """Return a copy of JSON data with another value at ``path``.

    Raises:
        LookupError: There is nothing at that path.
    """
    if not path:
        return value
    copy = data.copy()
    copy[path[0]] = replaced(data[path[0]], path[1:], value)
    return copy
