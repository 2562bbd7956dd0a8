"""The body of a request, read from its client within bounds of size and time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from llm_cache.exchange import ClientGone, Refusal, Refused

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

BODY_BYTES_PER_SEC = 16 << 10
"""The slowest a large request body may come."""

AHEAD_BYTES = 256 << 10
"""How much of a request that is passed on as it comes may wait here for its upstream."""


class Side:
    """What a connection and the request on it tell each other beside ASGI: how much of the request
    waits to be read, so that no more is taken from the client; the answer's reason phrase; and what
    the short way of hits has to know of the request's head."""

    __slots__ = ("_room", "head", "place", "reason", "waiting")

    def __init__(self, head: bytes | None = None, place: object = None) -> None:
        self.head = head
        self.place = place
        self.reason = b""
        self.waiting = 0
        self._room = asyncio.Event()

    def came(self, size: int) -> None:
        """Bytes of the body came in."""
        self.waiting += size

    def taken(self, size: int) -> None:
        """Bytes of the body were read."""
        self.waiting -= size
        if self.waiting <= AHEAD_BYTES:
            self._room.set()

    def release(self) -> None:
        """Nobody will read any more of it."""
        self.waiting = -(1 << 62)
        self._room.set()

    async def room(self) -> None:
        """Wait until what waits is little."""
        while self.waiting > AHEAD_BYTES:
            self._room.clear()
            await self._room.wait()


class ClientBody:
    """A request's body, as ASGI hands it over. A client has `patience_sec`, and more for every byte
    it sends, so that neither a silent nor a dripping one stays for ever."""

    def __init__(
        self,
        receive: Receive,
        fields: Mapping[bytes, bytes],
        patience_sec: float,
        side: Side | None = None,
    ) -> None:
        value = fields.get(b"content-length")
        self.length = int(value) if value is not None else None  # h11 checked that it is a number
        self._receive = receive
        self._patience_sec = patience_sec
        self._side = side
        self._ended = asyncio.Event()  # nobody reads it any more
        self._gone = False

    async def whole(self, limit: int) -> bytes:
        """All of it, at most `limit` bytes. Raises `Refused` (413, 408) or `ClientGone`."""
        if self.length is not None and self.length > limit:
            raise _too_large(limit)
        first = b""
        more = bytearray()  # one buffer: a body in the smallest of pieces takes no more than one
        try:
            async with asyncio.timeout(self._patience_sec) as patience:
                while True:
                    piece, is_last = await self._next()
                    if piece:
                        if not first:
                            first = piece
                        else:
                            more += piece
                            deadline = patience.when()
                            assert deadline is not None
                            patience.reschedule(deadline + len(piece) / BODY_BYTES_PER_SEC)
                        if len(first) + len(more) > limit:
                            raise _too_large(limit)
                    if is_last:
                        return first + more if more else first
        except TimeoutError:
            raise _too_slow() from None
        finally:
            self._ended.set()

    async def pieces(self) -> AsyncIterator[bytes]:
        """It, as it comes. Raises `Refused` (408) or `ClientGone`."""
        left = self._patience_sec
        loop = asyncio.get_running_loop()
        try:
            while True:
                since = loop.time()  # what the upstream takes its time for isn't the client's fault
                try:
                    async with asyncio.timeout(left):
                        piece, is_last = await self._next()
                except TimeoutError:
                    raise _too_slow() from None
                left += len(piece) / BODY_BYTES_PER_SEC - (loop.time() - since)
                left = min(max(left, 0.0), self._patience_sec)
                if piece:
                    yield piece
                if is_last:
                    return
        finally:
            self._ended.set()

    async def until_gone(self) -> None:
        """Return when the client has closed its connection. It isn't looked at while somebody reads
        the body, who would see it first."""
        await self._ended.wait()
        while not self._gone:
            try:
                await self._next()
            except ClientGone:
                return

    def give_up(self) -> None:
        """Nobody will read it: what still comes is dropped."""
        self._ended.set()

    async def _next(self) -> tuple[bytes, bool]:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._gone = True
            raise ClientGone
        piece: bytes = message.get("body", b"")
        if self._side is not None:
            self._side.taken(len(piece))
        return piece, not message.get("more_body", False)


def _too_large(limit: int) -> Refused:
    return Refused(
        Refusal(
            413,
            "request_too_large",
            f"the request body is larger than {limit} bytes (CACHE_MAX_REQUEST_BYTES)",
        )
    )


def _too_slow() -> Refused:
    return Refused(Refusal(408, "request_timeout", "the request body came too slowly"))
