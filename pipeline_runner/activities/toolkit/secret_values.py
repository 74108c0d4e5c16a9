"""The values of secrets, on the worker: an environment variable, else a mounted file."""

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
"""Where containers mount secrets; the variable names another folder."""

in_use: ContextVar[tuple[str, ...]] = ContextVar("pipeline_runner_secrets_in_use", default=())
"""What is masked in all that the current activity tells: the forms of its secrets, the longest first."""

given: ContextVar[Mapping[str, str]] = ContextVar("pipeline_runner_secrets_given", default={})  # noqa: B039
"""Values that come before all others: those of a unit test."""

Source = Callable[[str], str | None]
"""A vault: it returns the value of a secret, or None if it has none of that name."""

source: ContextVar[Source | None] = ContextVar("pipeline_runner_secret_source", default=None)
"""What is asked before the environment: the vault of this worker."""

MAX_BYTES = 64 * 1024
MASK = "***"
_LINE = 8
"""Characters of a line of a secret that are masked for themselves, and of a value whose parts are."""
_ENCODED = 6
"""Bytes of a value whose base64 and hexadecimal codes are masked, and digits of a number that is."""
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(?::|%3a)(?:/|%2f){2}", re.IGNORECASE)
_CLIP_ENDS = ("\n", "\r", "…", "...", "'", '"', "\\")
"""What may stand where a text was cut, beside the end of the text itself."""


class SecretNotFoundError(LookupError):
    """This worker has no secret of that name. The message says where it was looked for."""


def secret_value(name: str) -> str:
    """Return the value of a secret: the worker's vault, else the environment variable, else the file.

    A line end at the end of a file is not part of the value. A vault may block: the caller is in a thread
    where there is one.

    Raises:
        SecretNotFoundError: There is none, or the file cannot be read or is too large.
        TypeError: The vault returned something else than a string or None.
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
    """Return how a secret's value may stand in text: as it is, quoted, encoded, and line by line."""
    lines = {line.strip() for line in value.splitlines() if len(line.strip()) >= _LINE}
    found: set[str] = set()
    for text in {value, value.strip(), *lines}:
        found |= {text, *_quoted(text)}
    for data in {value.encode("utf-8", "replace"), value.strip().encode("utf-8", "replace")}:
        # The code of a short value is short too, and would be found in texts that have nothing to do with it.
        if len(data) >= _ENCODED:
            found |= {data.hex(), data.hex().upper(), *_base64(data)}
    return (found | {form.replace("\\", "") for form in found}) - {""}


def all_forms(values: Iterable[str]) -> tuple[str, ...]:
    """Return how any of these values may stand in text."""
    # The longest first, so that one that contains another is masked whole.
    return tuple(sorted({form for value in values for form in forms(value)}, key=len, reverse=True))


def mask(values: Iterable[str]) -> None:
    """Have these values masked in what the current activity tells."""
    in_use.set(all_forms(values))


def _quoted(text: str) -> Iterator[str]:
    """Yield a text as programs and servers quote it in what they write."""
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
    """Yield what of a value's base64 depends neither on what stands before it nor on what follows.

    ``user:SECRET`` is encoded as a whole by basic authentication, for one.
    """
    for before in range(3):
        whole = base64.b64encode(bytes(before) + data).decode()
        core = whole[-(-before * 8 // 6) : (before + len(data)) * 8 // 6]
        yield from (core, core.replace("+", "-").replace("/", "_"))


def masked(value: Any, secrets: tuple[str, ...]) -> Any:
    """Return JSON data with the values of secrets replaced by ``***`` in every string, key and number."""
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
        # JSON in a string of JSON has more backslashes; without them, it is the same.
        at = [index for index, character in enumerate(text) if character != "\\"]
        spans += [(at[start], at[end - 1] + 1) for start, end in _spans(text.replace("\\", ""), secrets)]
    # All forms first, then the mask: a form that fits a little must not hide one that fits better.
    found, done = "", 0
    for start, end in sorted(spans):
        if start > done or not found:
            found += text[done:start] + MASK
        done = max(done, end)
    return found + text[done:]


def _spans(text: str, secrets: tuple[str, ...]) -> Iterator[tuple[int, int]]:
    """Yield where secrets stand, whole or cut off at one end; they may overlap."""
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
    """Yield where a secret begins whose end is missing: some limit has cut it off.

    Half of it counts anywhere. Where the text was cut, a quarter is enough. Fewer characters
    stand in texts that have nothing to do with the secret.
    """
    least, half = max(4, len(secret) // 4), max(_LINE, len(secret) // 2)
    if scheme := _SCHEME.match(secret):
        # What kind of URL it is, is no secret.
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
    """Have every log record that an activity writes, through whatever logger, masked from now on."""
    make = logging.getLogRecordFactory()

    def make_masked(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        secrets = in_use.get()
        if secrets:
            try:
                # Each argument first: as a text of its own it may begin or end with a part of a secret.
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
