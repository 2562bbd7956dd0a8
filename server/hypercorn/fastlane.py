"""The short way of a hit: from the socket's bytes to the answer's, past the HTTP parser.

On a kept-alive connection a client sends the same request head again and again. A head that went
the long way once is remembered, byte for byte, with what was decided about it there: the guard let
it in, it leads to a cacheable route, these are its control headers and its key prefix. The same
bytes are decided the same way again, so nothing is parsed here and nothing is accepted here that
h11 and the guard didn't accept before. What holds:

- Taken is only a remembered head followed by exactly the body it announces, and only when the
  answer is in memory. Everything else goes the long way, untouched.
- The answer is the one the long way would have sent, byte for byte but for `age` and `date`.
- A look-up compares hashes that are keyed per process, then whole heads: nothing about a token or
  key in a remembered head can be told from the time it takes.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from llm_cache.exchange import Exchange, Head, Label, edits, readable_by, replay_of
from llm_cache.wire.keys import exact_key

MAX_HEADS = 256
"""Heads remembered per listening address; the oldest goes."""
MAX_HEAD_BYTES = 8 << 10
MAX_BODY_BYTES = 1 << 20
"""A larger body goes the long way: it isn't gathered here."""

_END = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Known:
    """What was decided about a head. `size` and `length` are those of head and body, in bytes."""

    size: int
    length: int
    asked: Head
    prefix: bytes


def head_of(data: bytes) -> bytes | None:
    """The request head at the beginning of `data`, or None: not whole, or not plainly delimited.

    h11 also ends a head at bare line feeds; with none in it, both agree on where it ends.
    """
    end = data.find(_END, 0, MAX_HEAD_BYTES)
    if end < 0 or not data.startswith(b"POST "):
        return None
    head = data[: end + len(_END)]
    plain = head.count(b"\n") == head.count(b"\r\n")
    return head if plain and head.partition(b"\r\n")[0].endswith(b" HTTP/1.1") else None


class FastLane:
    """The remembered heads. `place` is what a decision hangs on besides the head: the scheme and
    the address the client connected to."""

    def __init__(self, exchange: Exchange, *, max_body_bytes: int) -> None:
        self._exchange = exchange
        self._max_body_bytes = min(max_body_bytes, MAX_BODY_BYTES)
        self._known: dict[tuple[object, bytes], Known] = {}

    def __len__(self) -> int:
        return len(self._known)

    def known(self, place: object, data: bytes) -> Known | None:
        """What is remembered about the head `data` begins with."""
        end = data.find(_END, 0, MAX_HEAD_BYTES)
        return self._known.get((place, data[: end + len(_END)])) if end >= 0 else None

    def remember(self, place: object, head: bytes, asked: Head) -> None:
        """The long way answered a request with this head, which it had to itself."""
        route, fields = asked.route, asked.fields
        length = fields.get(b"content-length", b"")
        if (
            not length.isdigit()
            or int(length) > self._max_body_bytes
            or route.endpoint is None
            or not _UNUSUAL.isdisjoint(fields)
            or fields.get(b"connection", b"keep-alive").lower() != b"keep-alive"
        ):
            return
        prefix = self._exchange.key_prefix(route, asked.headers, asked.control)
        if prefix is None:
            return
        if len(self._known) >= MAX_HEADS:
            del self._known[next(iter(self._known))]
        self._known[place, head] = Known(
            len(head),
            int(length),
            asked,
            prefix,
        )

    def answer(self, known: Known, body: bytes) -> Sequence[bytes] | None:
        """The whole answer as it goes to the socket, or None: it has to go the long way."""
        started = time.perf_counter()
        exchange, control = self._exchange, known.asked.control
        if not exchange.may_recall(control.mode) or edits.wanted(
            edits.BEFORE_KEY, known.asked.route, body
        ):
            return None
        key = exact_key(known.prefix, body)
        stored = exchange.recall(key, control.ttl)
        if stored is None:
            return None
        replay = replay_of(stored)
        if not readable_by(replay, known.asked.fields.get(b"accept-encoding")):
            return None
        hex_key = key.hex()
        now = time.time()
        end = (
            f"x-cache: HIT\r\nx-cache-key: {hex_key}\r\n"
            f"age: {max(0, int(now - stored.entry.created))}\r\ndate: "
        ).encode() + exchange.date(now)
        exchange.fast_hits += 1
        exchange.note_hit(replay, Label.HIT, hex_key, started)
        if replay.sized:
            return replay.head, end, _END, stored.body
        # RFC 9112, 7.1: one chunk and the last one, as h11 frames a body of unknown length.
        return (
            replay.head,
            end,
            b"\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % len(stored.body),
            stored.body,
            b"\r\n0\r\n\r\n",
        )


# With any of these the long way does more than the short way can repeat.
_UNUSUAL = frozenset(
    (
        *(b"expect", b"upgrade", b"transfer-encoding", b"content-encoding"),
        *(b"origin", b"sec-fetch-site"),
    )
)
