"""Payload codecs of a command: a Python object, or a codec server.

With a codec, everything of a run that a server stores is encoded: arguments, results, memos, the
messages and details of errors, and headers.
"""

import importlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from google.protobuf import json_format
from temporalio.api.common.v1 import Payload, Payloads
from temporalio.common import HeaderCodecBehavior
from temporalio.converter import (
    DataConverter,
    DefaultFailureConverterWithEncodedAttributes,
    PayloadCodec,
    SerializationContext,
    WithSerializationContext,
)

from pipeline_runner.activities.catalogue import providers

if TYPE_CHECKING:
    import httpx

_TIMEOUT = 10.0
"""Seconds within which a codec server must answer."""

_ANSWER = 64 * 1024 * 1024
"""The maximum number of bytes that are read of a response. Temporal accepts two MiB of payloads, but payloads
that a codec has compressed, or stores elsewhere, may be larger when decoded."""


class CodecChoiceError(ValueError):
    """No codec has this name."""


class CodecError(Exception):
    """A codec cannot encode or decode."""


def encoding(name: str, namespace: str) -> dict[str, Any]:
    """Return settings for ``Client.connect`` that encode everything with a codec.

    Args:
        name: ``MODULE:NAME`` or the URL of a codec server.
        namespace: The namespace to send to a codec server.

    Raises:
        CodecChoiceError: There is no such codec.
    """
    codec: PayloadCodec = _remote(name, namespace) if "://" in name else _import_codec(name)
    return {
        "data_converter": DataConverter(
            payload_codec=Told(codec, "codec server" if "://" in name else f"codec {name}"),
            failure_converter_class=DefaultFailureConverterWithEncodedAttributes,
        ),
        "header_codec_behavior": HeaderCodecBehavior.CODEC,
    }


class Told(PayloadCodec, WithSerializationContext):
    """A codec whose errors say that they come from a codec."""

    def __init__(self, codec: PayloadCodec, what: str) -> None:
        self._codec = codec
        self._what = what

    def with_context(self, context: SerializationContext) -> "Told":
        """Pass the context on to a codec that accepts it."""
        if not isinstance(self._codec, WithSerializationContext):
            return self
        return Told(self._codec.with_context(context), self._what)

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return await self._try("encode", self._codec.encode, payloads)

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return await self._try("decode", self._codec.decode, payloads)

    async def _try(
        self,
        verb: str,
        function: Callable[[Sequence[Payload]], Awaitable[list[Payload]]],
        payloads: Sequence[Payload],
    ) -> list[Payload]:
        try:
            return list(await function(payloads))
        except Exception as error:
            reason = str(error) if isinstance(error, CodecError) else _reason(error)
            raise CodecError(f"the {self._what} cannot {verb} payloads: {reason}") from error


def _reason(error: Exception) -> str:
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def _import_codec(name: str) -> PayloadCodec:
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute.isidentifier():
        raise CodecChoiceError(f'a codec must be MODULE:NAME or http://HOST:PORT/PATH, not "{name}"')
    try:
        module = providers.import_module(module_name)
    except providers.ProviderError as error:
        raise CodecChoiceError(f"--codec {name}: {error}") from None
    found = getattr(module, attribute, None)
    if found is None:
        raise CodecChoiceError(f'--codec {name}: the module "{module_name}" has no "{attribute}"')
    if callable(found) and not isinstance(found, PayloadCodec):
        try:
            found = found()
        except Exception as error:  # noqa: BLE001 - code of the user
            raise CodecChoiceError(f"--codec {name}: {attribute}() failed: {_reason(error)}") from None
    if not isinstance(found, PayloadCodec):
        raise CodecChoiceError(
            f"--codec {name}: {attribute} is neither a PayloadCodec of temporalio.converter nor a callable"
            f" that returns one, but {type(found).__name__}"
        )
    return found


def _remote(address: str, namespace: str) -> "Remote":
    httpx = importlib.import_module("httpx")
    try:
        url = httpx.URL(address)
    except httpx.InvalidURL as error:
        raise CodecChoiceError(f"the address of a codec server cannot be read: {error}") from None
    if url.scheme not in ("http", "https") or not url.host or url.query or url.fragment:
        raise CodecChoiceError(
            f'the URL of a codec server must be http://HOST:PORT/PATH, not "{url.copy_with(userinfo=b"")}"'
        )
    return Remote(url, namespace)


class Remote(PayloadCodec):
    """Temporal's HTTP protocol of remote codecs: ``POST /encode`` and ``POST /decode``."""

    def __init__(self, url: "httpx.URL", namespace: str) -> None:
        import httpx

        self._shown = str(url.copy_with(userinfo=b"")).rstrip("/")
        self._client = httpx.AsyncClient(
            timeout=_TIMEOUT,
            headers={"X-Namespace": namespace},
            auth=(url.username, url.password) if url.userinfo else None,
        )

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return await self._ask("encode", payloads)

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return await self._ask("decode", payloads)

    async def _ask(self, what: str, payloads: Sequence[Payload]) -> list[Payload]:
        import httpx

        if not payloads:
            return []
        body: Mapping[str, Any] = json_format.MessageToDict(Payloads(payloads=payloads))
        try:
            async with self._client.stream("POST", f"{self._shown}/{what}", json=body) as answer:
                if answer.status_code != httpx.codes.OK:
                    raise CodecError(
                        f"{self._shown}/{what} answered {answer.status_code} {answer.reason_phrase}"
                    )
                content = await self._content(answer, what)
        except httpx.HTTPError as error:
            raise CodecError(f"{self._shown} cannot be reached: {_reason(error)}") from None
        try:
            found = json_format.Parse(content, Payloads()).payloads
        except (json_format.ParseError, UnicodeDecodeError):
            raise CodecError(f"{self._shown}/{what} did not answer with payloads") from None
        if len(found) != len(payloads):
            raise CodecError(f"{self._shown}/{what} answered with {len(found)} payloads for {len(payloads)}")
        return list(found)

    async def _content(self, answer: "httpx.Response", what: str) -> bytes:
        content = bytearray()
        async for part in answer.aiter_bytes():
            content += part
            if len(content) > _ANSWER:
                raise CodecError(f"{self._shown}/{what} answered with more than {_ANSWER:,} bytes")
        return bytes(content)
