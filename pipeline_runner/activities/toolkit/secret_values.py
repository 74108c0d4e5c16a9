"""The values of secrets on the worker: from its vault, an environment variable, or a mounted file."""

import base64
import functools
import html
import json
import logging
import os
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any
from urllib.parse import quote

FOLDER_VARIABLE = "PIPELINE_SECRETS_DIR"
FOLDER = "/run/secrets"
"""Where containers mount secrets. The variable sets another directory."""

in_use: ContextVar[tuple[str, ...]] = ContextVar("pipeline_runner_secrets_in_use", default=())
"""The strings to mask in all output of the current activity: the forms of its secrets, longest first."""

given: ContextVar[Mapping[str, str]] = ContextVar("pipeline_runner_secrets_given", default={})  # noqa: B039
"""Values that take precedence over all others: those of a unit test."""

Source = Callable[[str], str | None]
"""A vault: it returns the value of a secret, or None if it has no secret with that name."""

source: ContextVar[Source | None] = ContextVar("pipeline_runner_secret_source", default=None)
"""The vault of this worker, which takes precedence over the environment."""

MAX_BYTES = 64 * 1024
MASK = "***"
_LINE = 8
"""Lines of a secret with at least this many characters are masked on their own."""
_ENCODED = 6
"""The base64 and hexadecimal forms of a value are masked from this many bytes on, and numbers from this many
digits on."""
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(?::|%3a)(?:/|%2f){2}", re.IGNORECASE)
_CLIP_ENDS = ("\n", "\r", "…", "...", "'", '"', "\\")
"""What may follow the place where a string was cut, beside the end of the string."""


class SecretNotFoundError(LookupError):
    """This worker has no secret with that name. The message says where it looked."""


def secret_value(name: str) -> str:
    """Return the value of a secret: from the worker's vault, else the environment variable, else the file.

    A line end at the end of a file is not part of the value. A vault may block, so callers run in a
    thread if there is a vault.

    Raises:
        SecretNotFoundError: There is none, or the file cannot be read or is too large.
        TypeError: The vault returned something other than a string or None.
    """
    value = given.get().get(name)
    value = _from_vault(name) if value is None else value
    value = os.environ.get(name) if value is None else value
    if value is not None:
        return value
    path = Path(os.environ.get(FOLDER_VARIABLE, FOLDER)) / name
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise SecretNotFoundError(f"the secret file {path} is larger than {MAX_BYTES:,} bytes")
        return data.decode().removesuffix("\n").removesuffix("\r")
    except FileNotFoundError:
        reason = "there is no environment variable and no file"
    except (OSError, UnicodeDecodeError) as error:
        reason = f"the file cannot be read ({type(error).__name__})"
    raise SecretNotFoundError(f'the worker has no secret "{name}": {reason} {path}')


def _from_vault(name: str) -> str | None:
    vault = source.get()
    value = None if vault is None else vault(name)
    if value is not None and not isinstance(value, str):
        raise TypeError(f'the vault returned {type(value).__name__} for the secret "{name}", not a string')
    return value


def forms(value: str) -> set[str]:
    """Return the forms in which a secret may appear in text: unchanged, quoted, encoded, and line by line."""
    lines = {line.strip() for line in value.splitlines() if len(line.strip()) >= _LINE}
    found: set[str] = set()
    for text in {value, value.strip(), *lines}:
        found |= {text, *_quoted(text)}
    for data in {value.encode("utf-8", "replace"), value.strip().encode("utf-8", "replace")}:
        # The encoded form of a short value is short too, and would occur in unrelated text.
        if len(data) >= _ENCODED:
            found |= {data.hex(), data.hex().upper(), *_base64(data)}
    return (found | {form.replace("\\", "") for form in found}) - {""}


def all_forms(values: Iterable[str]) -> tuple[str, ...]:
    """Return the forms in which any of these values may appear in text."""
    # Longest first, so that a form that contains another is masked as a whole.
    return tuple(sorted({form for value in values for form in forms(value)}, key=len, reverse=True))


def mask(values: Iterable[str]) -> None:
    """Mask these values in all output of the current activity."""
    in_use.set(all_forms(values))


def _quoted(text: str) -> Iterator[str]:
    """Yield a string as programs and servers quote it."""
    yield repr(text)[1:-1]
    yield json.dumps(text)[1:-1]
    yield json.dumps(text, ensure_ascii=False)[1:-1]
    yield shlex.quote(text).removeprefix("'").removesuffix("'")
    yield text.replace("'", r"'\''")
    yield html.escape(text)
    yield html.escape(text, quote=False)
    for safe in ("", "/", "/:@!$&'()*+,;="):
        code = quote(text, safe=safe, errors="replace")
        yield from (code, code.replace("%20", "+"))
        yield re.sub("%..", lambda found: found.group().lower(), code)


def _base64(data: bytes) -> Iterator[str]:
    """Yield the part of a value's base64 form that does not depend on what precedes or follows the value.

    Basic authentication, for example, encodes ``user:SECRET`` as a whole.
    """
    for before in range(3):
        whole = base64.b64encode(bytes(before) + data).decode()
        core = whole[-(-before * 8 // 6) : (before + len(data)) * 8 // 6]
        yield from (core, core.replace("+", "-").replace("/", "_"))


def masked(value: Any, secrets: tuple[str, ...]) -> Any:
    """Return JSON data with ``***`` in place of secrets in every string, key and number."""
    if not secrets:
        return value
    if isinstance(value, str):
        return _masked_text(value, secrets)
    if isinstance(value, bytes):
        # Latin-1 has a character for each byte.
        as_bytes = tuple(secret.encode("utf-8", "replace").decode("latin-1") for secret in secrets)
        return _masked_text(value.decode("latin-1"), as_bytes).encode("latin-1")
    if isinstance(value, dict):
        return {masked(key, secrets): masked(item, secrets) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [masked(item, secrets) for item in value]
    if isinstance(value, int | float) and len(str(value)) >= _ENCODED and str(value) in secrets:
        return MASK
    return value


def _masked_text(text: str, secrets: tuple[str, ...]) -> str:
    spans = list(_spans(text, secrets))
    if "\\" in text:
        # JSON inside a JSON string has more backslashes; without them, it is the same.
        at = [index for index, character in enumerate(text) if character != "\\"]
        spans += [(at[start], at[end - 1] + 1) for start, end in _spans(text.replace("\\", ""), secrets)]
    # First find all forms, then mask: a form that matches a little must not hide one that matches more.
    found, done = "", 0
    for start, end in sorted(spans):
        if start > done or not found:
            found += text[done:start] + MASK
        done = max(done, end)
    return found + text[done:]


def _spans(text: str, secrets: tuple[str, ...]) -> Iterator[tuple[int, int]]:
    """Yield where secrets are, whole or cut off at one end. The places may overlap."""
    backwards, size = text[::-1], len(text)
    for secret in secrets:
        yield from _whole(text, secret)
        if len(secret) >= _LINE:
            yield from _beginnings(text, secret)
            yield from ((size - end, size - start) for start, end in _beginnings(backwards, secret[::-1]))


def _whole(text: str, secret: str) -> Iterator[tuple[int, int]]:
    start = text.find(secret)
    while start >= 0:
        yield start, start + len(secret)
        start = text.find(secret, start + len(secret))


def _beginnings(text: str, secret: str) -> Iterator[tuple[int, int]]:
    """Yield where the beginning of a secret is whose end was cut off.

    Half of a secret counts anywhere. Where the string was cut, a quarter is enough. Fewer characters
    occur in unrelated text.
    """
    least, half = max(4, len(secret) // 4), max(_LINE, len(secret) // 2)
    if scheme := _SCHEME.match(secret):
        # The scheme of a URL is not secret.
        least, half = max(least, scheme.end() + 4), max(half, scheme.end() + 4)
    start = text.find(secret[:least])
    while start >= 0:
        size = least
        while size < len(secret) and text.startswith(secret[size], start + size):
            size += 1
        end = start + size
        if size >= half or end == len(text) or text.startswith(_CLIP_ENDS, end):
            yield start, end
        start = text.find(secret[:least], start + 1)


@functools.cache
def mask_logs() -> None:
    """Mask the log records of activities from now on, whatever logger they use."""
    make = logging.getLogRecordFactory()

    def make_masked(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        secrets = in_use.get()
        if secrets:
            try:
                # Each argument first: on its own, it may begin or end with a part of a secret.
                record.args = _masked_arguments(record.args, secrets)
                message = record.getMessage()
            except Exception:  # noqa: BLE001 - whatever formatting raises; the values must not be shown
                message = f"a log record that cannot be formatted, at {record.pathname}:{record.lineno}"
            record.msg, record.args = masked(message, secrets), ()
            if record.exc_info:
                record.exc_text = masked(logging.Formatter().formatException(record.exc_info), secrets)
                record.exc_info = None
        return record

    logging.setLogRecordFactory(make_masked)


def _masked_arguments(arguments: Any, secrets: tuple[str, ...]) -> Any:
    if isinstance(arguments, tuple):
        return tuple(masked(argument, secrets) for argument in arguments)
    return masked(arguments, secrets)
