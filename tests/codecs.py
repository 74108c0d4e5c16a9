"""A payload codec that stands for encryption: what is not decoded cannot be read."""

from collections.abc import Sequence

from temporalio.api.common.v1 import Payload
from temporalio.converter import PayloadCodec

ENCODING = b"binary/upside-down"


class UpsideDown(PayloadCodec):
    """Turns the bytes of a payload around; each time it also gives others, as encryption does."""

    def __init__(self) -> None:
        self.count = 0

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Turn payloads upside down."""
        self.count += 1
        return [
            Payload(
                metadata={"encoding": ENCODING, "salt": str(self.count).encode()},
                data=payload.SerializeToString()[::-1],
            )
            for payload in payloads
        ]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Turn them back; leave others alone."""
        return [
            Payload.FromString(payload.data[::-1])
            if payload.metadata.get("encoding") == ENCODING
            else payload
            for payload in payloads
        ]


codec = UpsideDown()
