"""One client's answer, whoever carries it to the client.

`begin` it, send its head, take its bytes to their end, and `close` it, whatever happened. A reply
whose `whole` is set needs no `begin`: all of it is at hand.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Final, Protocol

from llm_cache.exchange.asked import Asked
from llm_cache.exchange.calls import Call, Label
from llm_cache.exchange.entries import (
    Replay,
    in_identity,
    in_no_coding,
    readable_by,
    reads,
    replay_of,
)
from llm_cache.exchange.flights import Flight, FlightFailed, Follower
from llm_cache.exchange.heads import HeaderList, Headers, Refusal, Refused
from llm_cache.exchange.tiers import Found
from llm_cache.wire.framing.encoding import ContentDecoder, decoder

Landed = Found | Call
"""What a flight comes to: an answer from the store, or the record of an upstream's."""

X_CACHE: Final = b"x-cache"


class Reply(ABC):
    """An answer on its way. `status`, `reason` (of the status line, b"" when there was none) and
    `headers` are known once it has begun."""

    __slots__ = ("headers", "reason", "status", "whole")

    def __init__(self) -> None:
        self.status = 0
        self.reason = b""
        self.headers: HeaderList = []
        self.whole: bytes | None = None
        """The whole body, when it is at hand."""

    @abstractmethod
    async def begin(self) -> None:
        """Wait for the answer's head. Raises `Refused` when there will be none."""

    @abstractmethod
    async def next(self) -> bytes:
        """The next bytes, b"" at the end. Raises `FlightFailed` when the answer broke off: the
        client must see a cut, not an end."""

    @abstractmethod
    def close(self) -> None:
        """It was sent, or nobody waits for it any more. Closing twice is fine."""


class Source(Protocol):
    """What a reply asks of the exchange that gave it."""

    def date(self, now: float) -> bytes:
        """The HTTP date of a moment."""

    def note_hit(self, replay: Replay, label: Label, hex_key: str, started: float) -> None:
        """Count a hit."""

    def note_joined(self, flight: Flight[Landed], asked: Asked, label: Label) -> None:
        """Count a request that followed another's flight to its end."""

    def fresh_enough(self, found: Found, asked: Asked) -> bool:
        """Whether an answer found for another request is young enough for this one."""

    def alone(self, asked: Asked) -> Flight[Landed]:
        """A flight that asks upstream and is nobody else's."""


class Recalled(Reply):
    """An answer from the store."""

    __slots__ = ("_exchange", "_hex_key", "_label", "_open", "_replay", "_started", "_taken")

    def __init__(
        self, exchange: Source, found: Found, fields: Mapping[bytes, bytes], started: float
    ) -> None:
        stored = found.stored
        replay = replay_of(stored)
        headers, body = replay.headers, stored.body
        if not readable_by(replay, fields.get(b"accept-encoding")):
            headers, body = in_identity(replay, body)
        now = time.time()
        self._hex_key = found.key.hex()
        self.status = replay.status
        self.reason = replay.reason
        self.headers = [
            *headers,
            (X_CACHE, found.label.wire),
            (b"x-cache-key", self._hex_key.encode()),
            (b"age", b"%d" % max(0, int(now - stored.entry.created))),
            (b"date", exchange.date(now)),
        ]
        self.whole = body
        self._exchange = exchange
        self._replay = replay
        self._label = found.label
        self._started = started
        self._taken = False
        self._open = True

    async def begin(self) -> None:
        pass

    async def next(self) -> bytes:
        if self._taken:
            return b""
        self._taken = True
        return self.whole or b""

    def close(self) -> None:
        if self._open:
            self._open = False
            self._exchange.note_hit(self._replay, self._label, self._hex_key, self._started)


class Followed(Reply):
    """An answer on its way: to whoever asked first (`led`), or to who joined."""

    __slots__ = (
        *("_asked", "_exchange", "_flight", "_follower", "_found", "_label", "_led"),
        *("_pieces", "_plain"),
    )

    def __init__(self, exchange: Source, asked: Asked, flight: Flight[Landed], led: bool) -> None:
        super().__init__()
        self._exchange = exchange
        self._asked = asked
        self._flight = flight
        self._led = led
        self._follower: Follower[Landed] | None = flight.follow()
        self._found: Recalled | None = None  # what the store had, when it answers
        self._label: Label | None = None  # once there is a head to send
        self._plain: ContentDecoder | None = None
        self._pieces: Iterator[bytes] = iter(())

    async def begin(self) -> None:
        flight, asked, exchange = self._flight, self._asked, self._exchange
        assert self._follower is not None
        try:
            await self._follower.head()
        except FlightFailed as failure:
            raise Refused(Refusal(502, "upstream_error", str(failure))) from None
        if not flight.began:
            found = flight.result
            assert isinstance(found, Found)
            if self._led or exchange.fresh_enough(found, asked):
                self._recall(found)
            else:  # joined somebody who takes older answers than this client does
                await self._start_over()
            return
        headers: Headers = flight.headers
        if not self._led:  # a cookie is meant for the client that was answered first
            headers = [h for h in headers if h[0] not in (b"set-cookie", b"set-cookie2", X_CACHE)]
        coding = dict(headers).get(b"content-encoding", b"")
        if not reads(asked.fields.get(b"accept-encoding"), coding):
            self._plain = decoder(coding) if asked.may_be_stored else None
            if self._plain is not None:
                headers = in_no_coding(headers)
            elif not self._led:
                await self._start_over()
                return
        self._label = label = asked.label if self._led else _joined_label(flight.status)
        self.status, self.reason = flight.status, flight.reason
        self.headers = [*headers]
        if all(name != X_CACHE for name, _ in headers):  # an answer of our own says it itself
            self.headers.append((X_CACHE, label.wire))
        if asked.key:
            self.headers.append((b"x-cache-key", asked.key.hex().encode()))

    def _recall(self, found: Found) -> None:
        recalled = Recalled(self._exchange, found, self._asked.fields, self._asked.started)
        self.status, self.reason = recalled.status, recalled.reason
        self.headers, self.whole = recalled.headers, recalled.whole
        self._found = recalled

    async def _start_over(self) -> None:
        """Ask upstream alone, having left the flight first, so that nobody waits for this one
        there."""
        self._leave()
        self._flight, self._led = self._exchange.alone(self._asked), True
        self._follower = self._flight.follow()
        await self.begin()

    async def next(self) -> bytes:
        if self._found is not None:
            return await self._found.next()
        assert self._follower is not None
        while True:
            try:
                if (piece := next(self._pieces, None)) is not None:
                    return piece
                data = await self._follower.next()
                if self._plain is None:
                    return data
                if not data:
                    self._plain.close()
                    return b""
            except ValueError as error:
                raise FlightFailed(f"broken content-encoding: {error}") from None
            self._pieces = iter(self._plain.pieces(data))

    def close(self) -> None:
        if self._follower is None:
            return
        result = self._flight.result
        if self._asked.give_back is not None and not (
            isinstance(result, Found) or (result is not None and result.stored)
        ):
            self._asked.give_back()
        if self._found is not None:
            self._found.close()
        elif not self._led and self._label is not None and self._flight.ended:
            self._exchange.note_joined(self._flight, self._asked, self._label)
        self._leave()

    def _leave(self) -> None:
        if self._follower is not None:
            self._follower.leave()
            self._follower = None


def _joined_label(status: int) -> Label:
    return Label.HIT_COALESCED if status == 200 else Label.MISS_COALESCED
