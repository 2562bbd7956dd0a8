"""The body of a request, read from its client within bounds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from llm_cache.exchange.heads import Refusal, Refused

Receive = Callable[[], Awaitable[dict[str, Any]]]

BODY_BYTES_PER_SEC = 16 << 10
"""The slowest a large request body may come."""


class ClientGone(Exception):
    """The client closed its connection: nobody is there to answer."""


def declared_length(fields: Mapping[bytes, bytes]) -> int | None:
    """The `content-length` of the request in bytes; h11 has checked that it is one number."""
    value = fields.get(b"content-length")
    return int(value) if value is not None else None


def too_large(limit: int) -> Refused:
    """The refusal of a body above `limit` bytes."""
    return Refused(
        Refusal(
            413,
            "request_too_large",
            f"the request body is larger than {limit} bytes (CACHE_MAX_REQUEST_BYTES)",
        )
    )


async def read_body(
    receive: Receive, fields: Mapping[bytes, bytes], limit: int, patience_sec: float
) -> bytes:
    """The whole request body, at most `limit` bytes. Raises `Refused` (413, 408) or `ClientGone`.

    A client has `patience_sec`, and more for every byte it sends, so that neither a silent
    nor a dripping one stays for ever.
    """
    length = declared_length(fields)
    if length is not None and length > limit:
        raise too_large(limit)
    first = b""
    more = (
        bytearray()
    )  # one buffer, so that a body in the smallest of pieces takes no more than one
    try:
        async with asyncio.timeout(patience_sec) as patience:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                if piece := message.get("body", b""):
                    if not first:
                        first = piece
                    else:
                        more += piece
                        deadline = patience.when()
                        assert deadline is not None
                        patience.reschedule(deadline + len(piece) / BODY_BYTES_PER_SEC)
                    if len(first) + len(more) > limit:
                        raise too_large(limit)
                if not message.get("more_body", False):
                    return first + more if more else first
    except TimeoutError:
        raise Refused(Refusal(408, "request_timeout", "the request body came too slowly")) from None
