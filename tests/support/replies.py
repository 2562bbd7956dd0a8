"""Scripts of an upstream's answers: what is sent, in which pieces, and where it goes wrong.

A `Reply` is a head and a sequence of steps, run in order: bytes to send, or something that happens
there (`Gate`, `Cut`, `Reset`, `Stall`, ...). Nothing here does I/O; `support.upstream` plays it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import Enum
from http import HTTPStatus
from typing import TypeAlias

DEADLINE = 10.0
"""Seconds that any wait of a test may take before it fails."""

Headers: TypeAlias = tuple[tuple[str, str], ...]


class Framing(Enum):
    """How a body's end is told (RFC 9112, section 6)."""

    LENGTH = "content-length"
    CHUNKED = "chunked"
    CLOSE = "close-delimited"
    NONE = "none"  # no head and no framing: only what `Raw` steps say


class Gate:
    """A point in a script where the upstream waits until the test lets it go on.

    A gate belongs to one place in one script. `hold()` closes it again for the next passer.
    """

    def __init__(self) -> None:
        self._reached = threading.Event()
        self._open = False
        self._lock = threading.Lock()
        self._wakers: list[Callable[[], None]] = []

    def wait_reached(self, timeout: float = DEADLINE) -> None:
        """Block until the upstream stands at the gate: everything before it has been sent."""
        if not self._reached.wait(timeout):
            raise TimeoutError("the upstream did not reach the gate")

    def release(self) -> None:
        """Let the upstream go on, now or when it gets here."""
        with self._lock:
            self._open = True
            wakers, self._wakers = self._wakers, []
        for wake in wakers:
            wake()

    def hold(self) -> None:
        """Close the gate again."""
        with self._lock:
            self._open = False
            self._reached.clear()

    async def passed(self) -> None:
        """What the upstream awaits."""
        loop = asyncio.get_running_loop()
        let_go = asyncio.Event()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the upstream has been stopped meanwhile
                loop.call_soon_threadsafe(let_go.set)

        with self._lock:
            if self._open:
                let_go.set()
            else:
                self._wakers.append(wake)
        self._reached.set()
        await let_go.wait()


@dataclass(frozen=True, slots=True)
class Raw:
    """Bytes sent as they are, outside of the framing: a bad chunk header, garbage after the end."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Made:
    """A piece of body made at the moment it is sent: a time stamp, say."""

    make: Callable[[], bytes]


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait for a time in seconds. For benchmarks, which pace a stream; tests use a `Gate`."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Cut:
    """Close the connection with FIN here, whatever was announced."""


@dataclass(frozen=True, slots=True)
class Reset:
    """Close the connection with RST here."""


@dataclass(frozen=True, slots=True)
class Stall:
    """Send nothing more and keep the connection open until the other side closes it."""


Step: TypeAlias = bytes | Raw | Made | Gate | Pause | Cut | Reset | Stall


@dataclass(frozen=True, slots=True)
class Reply:
    """One scripted answer.

    `before` runs ahead of the head (a gate for a slow first byte, `Stall()` for no answer at all,
    `Raw(...)` for an informational response or garbage). `announced` replaces the true
    content-length. With `keep_alive` False, and always with `Framing.CLOSE`, the connection is
    closed after the answer. `after` runs once the answer is complete.
    """

    status: int = 200
    headers: Headers = (("content-type", "application/json"),)
    body: tuple[Step, ...] = ()
    framing: Framing = Framing.LENGTH
    announced: int | None = None
    before: tuple[Step, ...] = ()
    after: tuple[Step, ...] = ()
    keep_alive: bool = True
    reason: str | None = None

    def head(self) -> bytes:
        """The status line and headers as sent."""
        reason = self.reason if self.reason is not None else _reason(self.status)
        lines = [f"HTTP/1.1 {self.status} {reason}", *(f"{k}: {v}" for k, v in self.headers)]
        if self.framing is Framing.LENGTH:
            length = self.announced
            if length is None:
                length = sum(len(step) for step in self.body if isinstance(step, bytes))
            lines.append(f"content-length: {length}")
        elif self.framing is Framing.CHUNKED:
            lines.append("transfer-encoding: chunked")
        if not self.keep_alive or self.framing is Framing.CLOSE:
            lines.append("connection: close")
        return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"

    def with_header(self, name: str, value: str) -> Reply:
        """The same answer with one more header."""
        return replace(self, headers=(*self.headers, (name, value)))


def wire_bytes(reply: Reply) -> bytes:
    """A faultless reply as the bytes on the wire, to be cut anywhere: `Reply.head` and all."""
    out = bytearray(reply.head())
    for step in reply.body:
        if not isinstance(step, bytes):
            raise TypeError(f"only plain pieces have wire bytes, not {step!r}")
        out += framed(step, reply.framing)
    if reply.framing is Framing.CHUNKED:
        out += b"0\r\n\r\n"
    return bytes(out)


def wire_reply(data: bytes, *then: Step) -> Reply:
    """An answer of exactly these bytes, head included, and then `then` (a `Cut()`, say)."""
    return Reply(framing=Framing.NONE, before=(Raw(data), *then))


def json_reply(body: bytes, status: int = 200, headers: Headers = ()) -> Reply:
    """A JSON answer with a content-length."""
    return Reply(
        status=status, headers=(("content-type", "application/json"), *headers), body=(body,)
    )


def sse_reply(pieces: Iterable[Step], status: int = 200, headers: Headers = ()) -> Reply:
    """A chunked event stream, one chunk per piece."""
    return Reply(
        status=status,
        headers=(("content-type", "text/event-stream; charset=utf-8"), *headers),
        body=tuple(pieces),
        framing=Framing.CHUNKED,
    )


def gzip_reply(reply: Reply) -> Reply:
    """The same answer with its whole body gzipped; pieces become one gzip member, cut in as many
    pieces as before."""
    plain = [step for step in reply.body if isinstance(step, bytes)]
    packed = gzip.compress(b"".join(plain), mtime=0)
    size = max(1, -(-len(packed) // max(1, len(plain))))
    pieces = tuple(packed[i : i + size] for i in range(0, len(packed), size))
    return replace(reply, body=pieces).with_header("content-encoding", "gzip")


def at_byte(pieces: Iterable[Step], count: int, *steps: Step) -> tuple[Step, ...]:
    """`pieces` with `steps` put in after exactly `count` bytes of body; a piece is split there.

    What follows is kept, so that the announced content-length stays that of the whole body. A
    `count` beyond the end puts the steps at the end.
    """
    out: list[Step] = []
    left = count
    placed = False
    for piece in pieces:
        if not placed and isinstance(piece, bytes) and len(piece) >= left:
            out += [piece[:left]] if left else []
            out += steps
            placed = True
            if piece[left:]:
                out.append(piece[left:])
            continue
        if not placed and isinstance(piece, bytes):
            left -= len(piece)
        out.append(piece)
    return tuple(out) if placed else (*out, *steps)


def framed(piece: bytes, framing: Framing) -> bytes:
    """A piece of body as it goes on the wire."""
    if framing is Framing.CHUNKED and piece:
        return b"%x\r\n%b\r\n" % (len(piece), piece)
    return piece


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
