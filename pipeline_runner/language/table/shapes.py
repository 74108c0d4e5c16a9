"""The shapes of values: each checks a tree, and has a JSON Schema.

The table in :mod:`fields` consists of these, and of the lists and mappings in :mod:`collections`. A
shape knows three things about a value: what is wrong with it (``check``), its JSON Schema (``schema``),
and which of its strings are templates or expressions (``templates``). ``what`` names the value in
messages: ``"retry"``, ``a step``.
"""

import json
import re
import unicodedata
from collections.abc import Iterable
from enum import Enum
from typing import Any

import msgspec

from pipeline_runner.core import durations
from pipeline_runner.core.suggest import did_you_mean
from pipeline_runner.language.diagnostics import Diagnostic
from pipeline_runner.language.yaml.nodes import MappingNode, Node, Scalar, SequenceNode, Source, kind_of

Schema = dict[str, Any]
Found = Iterable[Diagnostic]
Texts = Iterable[tuple["Scalar", "Mode"]]


class Mode(Enum):
    """How a string is interpreted."""

    LITERAL = "literal"
    """Literally. A template in it is an error."""
    PROSE = "prose"
    """Literally, whatever it contains."""
    TEMPLATE = "template"
    EXPRESSION = "expression"
    """A bare expression, without braces."""


class Shape(msgspec.Struct, frozen=True):
    """Any value. The other shapes are narrower."""

    def check(self, node: Node, source: Source, what: str) -> Found:
        """Return the errors of a value."""
        return ()

    def schema(self, defs: Schema) -> Schema:
        """Return the JSON Schema of the value; ``defs`` collects named parts."""
        return {}

    def templates(self, node: Node) -> Texts:
        """Return the strings that are templates or expressions."""
        return ()

    def is_templated(self) -> bool:
        """Tell whether there can be any."""
        return False


class Single(Shape, frozen=True):
    """A single value, with at most one error."""

    def check(self, node: Node, source: Source, what: str) -> Found:
        """Return the errors of a value."""
        found = self.mistake(node, source, what)
        return () if found is None else (found,)

    def mistake(self, node: Node, source: Source, what: str) -> Diagnostic | None:
        """Return the error of a value; None: there is none."""
        raise NotImplementedError


class Text(Single, frozen=True, kw_only=True):
    """A string that is not empty."""

    mode: Mode = Mode.LITERAL
    pattern: str | None = None
    means: str = ""
    """The pattern in words."""
    reserved: frozenset[str] = frozenset()

    def mistake(self, node: Node, source: Source, what: str) -> Diagnostic | None:
        value = node.value if isinstance(node, Scalar) else None
        if not isinstance(value, str):
            if isinstance(value, bool) and self.mode is Mode.EXPRESSION:
                return None
            help_ = "put it in quotes" if isinstance(node, Scalar) and value is not None else None
            return wrong_type(node, source, what, "a string", help_)
        if not value.strip():
            return source.diagnostic(node.span, "empty-text", f"{what} must not be empty")
        if "{{" in value and self.mode is Mode.LITERAL:
            message = f"{what} is used literally: a template is not allowed here"
            return source.diagnostic(node.span, "literal-text", message)
        if value in self.reserved:
            message = f'{what} cannot be "{value}", which is a reserved word'
            return source.diagnostic(node.span, "bad-identifier", message)
        if self.fits(value):
            return None
        wrong = f'start with "{value[0]}"' if self.fits("_" + value[1:]) else f'be "{value}"'
        message = f"{what} cannot {wrong}"  # "_" is allowed anywhere
        return source.diagnostic(node.span, "bad-identifier", message, f"use {self.means}")

    def fits(self, value: str) -> bool:
        """Tell whether a string has the characters that are allowed."""
        return self.pattern is None or re.fullmatch(self.pattern, value) is not None

    def schema(self, defs: Schema) -> Schema:
        kind: Any = ["string", "boolean"] if self.mode is Mode.EXPRESSION else "string"
        schema: Schema = {"type": kind, "minLength": 1}
        if self.pattern:
            schema["pattern"] = self.pattern
        if self.reserved:
            schema["not"] = {"enum": sorted(self.reserved)}
        return schema

    def templates(self, node: Node) -> Texts:
        return ((node, self.mode),) if self.is_templated() and isinstance(node, Scalar) else ()

    def is_templated(self) -> bool:
        return self.mode in (Mode.TEMPLATE, Mode.EXPRESSION)


class Identifier(Text, frozen=True, kw_only=True):
    """A name that expressions and paths can use: letters of any script, digits and ``_``."""

    # Not \\p{L}: Python's regular expressions do not have it. Beyond ASCII, editors accept what the
    # checker then looks at.
    pattern: str | None = r"^[^\x00-@\[-^`{-\x7f][^\x00-/:-@\[-^`{-\x7f]*$"
    means: str = 'letters, digits and "_", not starting with a digit'

    def mistake(self, node: Node, source: Source, what: str) -> Diagnostic | None:
        if (found := super().mistake(node, source, what)) or not isinstance(node, Scalar):
            return found
        composed = unicodedata.normalize("NFC", node.text)
        if composed == node.text:
            return None
        # Two spellings that look the same would be two names.
        message = f'{what} cannot be "{node.text}" in decomposed characters'
        help_ = f'write it in composed characters (Unicode NFC): "{composed}"'
        return source.diagnostic(node.span, "bad-identifier", message, help_)

    def fits(self, value: str) -> bool:
        return value.isidentifier()


class Choice(Single, frozen=True, kw_only=True):
    """One of a few words."""

    values: tuple[str, ...]
    expected: str | None = None
    """The allowed values in words, if they are more than these."""
    later: frozenset[str] = frozenset()
    """Those that this version does not run yet."""
    hint: str | None = None
    """Help if no word is similar."""

    def mistake(self, node: Node, source: Source, what: str) -> Diagnostic | None:
        value = node.value if isinstance(node, Scalar) else None
        if value not in self.values:
            shown = f'"{value}"' if isinstance(value, str) else kind_of(node)
            message = f"{what} must be {self.expected or _either(self.values)}, not {shown}"
            help_ = did_you_mean(value, self.values) if isinstance(value, str) else None
            return source.diagnostic(node.span, "bad-value", message, help_ or self.hint)
        if isinstance(node, Scalar) and value in self.later:
            return not_yet(source, node, f'{what[:-1]}: {value}"')
        return None

    def schema(self, defs: Schema) -> Schema:
        return {"enum": list(self.values)}


class Duration(Single, frozen=True, kw_only=True):
    """A duration such as ``30s``."""

    positive: bool = True
    template: bool = False

    def mistake(self, node: Node, source: Source, what: str) -> Diagnostic | None:
        if not isinstance(node, Scalar) or node.value is None or isinstance(node.value, bool):
            return wrong_type(node, source, what, 'a duration such as "30s"')
        if not isinstance(node.value, str):
            message = f"{node.text} is not a duration"
            return source.diagnostic(node.span, "bad-duration", message, durations.suggestion(node.text))
        if self.template and "{{" in node.value:
            return None
        try:
            seconds = durations.parse(node.value)
        except durations.DurationError as error:
            help_ = durations.suggestion(node.value)
            message = str(error)
            plain = message.removesuffix(f", {help_}")
            return source.diagnostic(node.span, "bad-duration", plain, help_ if plain != message else None)
        if self.positive and seconds == 0:
            return source.diagnostic(node.span, "bad-duration", f"{what} must be longer than 0s")
        return None

    def schema(self, defs: Schema) -> Schema:
        schema: Schema = {"type": "string", "pattern": durations.PATTERN}
        return {"anyOf": [schema, {"type": "string", "pattern": r"\{\{"}]} if self.template else schema

    def templates(self, node: Node) -> Texts:
        return ((node, Mode.TEMPLATE),) if self.template and isinstance(node, Scalar) else ()

    def is_templated(self) -> bool:
        return self.template


class Number(Single, frozen=True, kw_only=True):
    """A number in a range."""

    minimum: int
    maximum: int | None = None
    whole: bool = True

    def mistake(self, node: Node, source: Source, what: str) -> Diagnostic | None:
        value = node.value if isinstance(node, Scalar) else None
        kinds = (int,) if self.whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds):
            return wrong_type(node, source, what, "an integer" if self.whole else "a number")
        if value < self.minimum:
            limit = f"{self.minimum} or more"
        elif self.maximum is not None and value > self.maximum:
            limit = f"{self.maximum} or less"
        else:
            return None
        limit = f"{self.minimum}" if self.maximum == self.minimum else limit
        return source.diagnostic(node.span, "bad-value", f"{what} must be {limit}, not {value}")

    def schema(self, defs: Schema) -> Schema:
        if self.maximum == self.minimum:
            return {"const": self.minimum}
        schema: Schema = {"type": "integer" if self.whole else "number", "minimum": self.minimum}
        return schema if self.maximum is None else {**schema, "maximum": self.maximum}


class Boolean(Single, frozen=True, kw_only=True):
    """true or false."""

    def mistake(self, node: Node, source: Source, what: str) -> Diagnostic | None:
        if isinstance(node, Scalar) and isinstance(node.value, bool):
            return None
        return wrong_type(node, source, what, "true or false", boolean_help(node))

    def schema(self, defs: Schema) -> Schema:
        return {"type": "boolean"}


class AnyValue(Shape, frozen=True, kw_only=True):
    """Any data. With ``template``, every string in it is a template. Keys are literal."""

    template: bool = False

    def templates(self, node: Node) -> Texts:
        found: list[tuple[Scalar, Mode]] = []
        if self.template:
            _add_texts(node, found)
        return found

    def is_templated(self) -> bool:
        return self.template


def _add_texts(node: Node, found: list[tuple[Scalar, Mode]]) -> None:
    if isinstance(node, Scalar):
        if isinstance(node.value, str):
            found.append((node, Mode.TEMPLATE))
    elif isinstance(node, SequenceNode):
        for item in node.items:
            _add_texts(item, found)
    else:
        for entry in node:
            _add_texts(entry.value, found)


class JsonSchema(Single, frozen=True, kw_only=True):
    """A JSON Schema. A separate check, which may use the library, validates it."""

    boolean: bool = True

    def mistake(self, node: Node, source: Source, what: str) -> Diagnostic | None:
        if isinstance(node, MappingNode):
            return None
        if isinstance(node, Scalar) and isinstance(node.value, bool) and self.boolean:
            return None
        help_ = "write for example {type: string}"
        if isinstance(node, Scalar) and node.value in _JSON_TYPES:
            help_ = f"write {{type: {node.value}}}"
        return wrong_type(node, source, what, "a JSON Schema mapping", help_)

    def schema(self, defs: Schema) -> Schema:
        return {"$ref": "https://json-schema.org/draft/2020-12/schema"}


_PLAIN = re.compile(r"[A-Za-z_][\w./-]*|\d+(?:ms|[smhd])")
_SHOWN = 60
_JSON_TYPES = ("string", "integer", "number", "boolean", "object", "array", "null")


def boolean_help(node: Node) -> str | None:
    """Return the help for a string that means true or false in other tools."""
    word = node.text.lower() if isinstance(node, Scalar) else ""
    if word in ("yes", "on", "y", "true"):
        return "write true"
    return "write false" if word in ("no", "off", "n", "false") else None


def wrong_type(node: Node, source: Source, what: str, expected: str, help_: str | None = None) -> Diagnostic:
    """Return the diagnostic of a value with a wrong type."""
    return source.diagnostic(
        node.span, "wrong-type", f"{what} must be {expected}, not {kind_of(node)}", help_
    )


def spelt(node: Scalar) -> str:
    """Return a value as it can be written in a list or mapping on one line."""
    if not isinstance(node.value, str):
        return node.text
    plain = _PLAIN.fullmatch(node.value) and node.value.lower() not in ("null", "true", "false")
    text = node.value if plain else json.dumps(node.value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else "…"


def not_yet(source: Source, node: Scalar, what: str) -> Diagnostic:
    """Return the diagnostic of a value that this version reads but does not run."""
    message = f"{what} is not supported by this version yet"
    return source.diagnostic(node.span, "not-supported-yet", message)


def _either(words: tuple[str, ...]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
