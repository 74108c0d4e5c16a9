"""The values of secrets, on the worker: an environment variable, else a mounted file."""

import json
import os
from contextvars import ContextVar
from pathlib import Path
from typing import Any

FOLDER_VARIABLE = "PIPELINE_SECRETS_DIR"
FOLDER = "/run/secrets"
"""Where containers mount secrets; the variable names another folder."""

in_use: ContextVar[tuple[str, ...]] = ContextVar("pipeline_runner_secrets_in_use", default=())
"""What is masked in all that the current activity tells: the forms of its secrets, the longest first."""

MAX_BYTES = 64 * 1024
MASK = "***"
_LINE = 8
"""Characters of a line of a secret that are masked for themselves."""


class SecretNotFoundError(LookupError):
    """This worker has no secret of that name. The message says where it was looked for."""


def secret_value(name: str) -> str:
    """Return the value of a secret: the environment variable of that name, else the file.

    A line end at the end of a file is not part of the value.

    Raises:
        SecretNotFoundError: There is neither, or the file cannot be read or is too large.
    """
    value = os.environ.get(name)
    if value is not None:
        return value
    path = Path(os.environ.get(FOLDER_VARIABLE, FOLDER)) / name
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise SecretNotFoundError(f"the secret file {path} is over {MAX_BYTES:,} bytes")
        return data.decode().removesuffix("\n").removesuffix("\r")
    except FileNotFoundError:
        reason = "there is no environment variable and no file"
    except (OSError, UnicodeDecodeError) as error:
        reason = f"the file cannot be read ({type(error).__name__})"
    raise SecretNotFoundError(f'the worker has no secret "{name}": {reason} {path}')


def forms(value: str) -> set[str]:
    """Return how a secret's value may stand in text: as it is, quoted, and line by line."""
    found = {value, value.strip(), repr(value)[1:-1], json.dumps(value)[1:-1]}
    found.add(json.dumps(value, ensure_ascii=False)[1:-1])
    found |= {line.strip() for line in value.splitlines() if len(line.strip()) >= _LINE}
    return found - {""}


def masked(value: Any, secrets: tuple[str, ...]) -> Any:
    """Return JSON data with the values of secrets replaced by ``***`` in every text and key."""
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, MASK)
        return value
    if isinstance(value, bytes):
        for secret in secrets:
            value = value.replace(secret.encode(), MASK.encode())
        return value
    if isinstance(value, dict):
        return {masked(key, secrets): masked(item, secrets) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [masked(item, secrets) for item in value]
    return value
