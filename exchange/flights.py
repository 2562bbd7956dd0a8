"""Upstream calls in progress, and who follows them.

A `Flight` is one question being answered: by the store or by one upstream call. It runs in a task
of its own, so it belongs to no client: everyone who asked the same thing follows it, the one who
asked first included. What an answer is, and what it costs, is nothing to a flight: it carries a
`result` for whoever started it. What holds always:

- At most one flight per request key is in the table; a flight leaves the table when it ends.
- A follower gets every byte from the beginning, then what comes, live.
- When the last follower leaves before the answer is whole, the flight is cancelled, which closes
  the upstream connection. Nobody leaving harms anybody else.
- What was published is never changed. A flight ends exactly once: landed or failed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from llm_cache.exchange.heads import Headers

WINDOW_BYTES = 1 << 20
"""How far a flight that isn't kept may run ahead of its slowest follower."""

T = TypeVar("T")


class FlightFailed(Exception):
    """The answer broke off after its head was sent: the client must see a cut, not an end."""


class Flight(Generic[T]):
    """One answer on its way to its followers."""

    def __init__(self, key: bytes | None) -> None:
        self.key = key
        self.status = 0
        self.reason = b""
        self.headers: Headers = ()
        self.result: T | None = None
        """What the answer turned out to be; known before the flight lands."""
        self.began = False
        self.whole = False
        """True once every byte of the answer has arrived; then nobody can cancel it any more."""
        self.abandoned = False
        """True once everybody left it; it is being given up and can't be joined."""
        self.keep = True
        """True while all bytes are kept for storing and for later joiners."""
        self._landed = False
        self._failure: str | None = None
        self._chunks: deque[bytes] = deque()
        self._first = 0  # index of _chunks[0] among all chunks published
        self._bytes = 0  # in _chunks
        self._followers: set[Follower[T]] = set()
        self._room: asyncio.Future[None] | None = None
        self.task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        state = "failed" if self._failure else "landed" if self._landed else "flying"
        return (
            f"<Flight {state} status={self.status} chunks={self._first + len(self._chunks)} "
            f"followers={len(self._followers)}>"
        )

    # What the flight's own task calls.

    def begin(self, status: int, headers: Headers, reason: bytes = b"") -> None:
        """The answer's head is known; `reason` is its status line's."""
        self.status, self.headers, self.reason = status, headers, reason
        self.began = True
        self._wake_followers()

    def publish(self, chunk: bytes) -> None:
        """The next bytes of the answer."""
        self._chunks.append(chunk)
        self._bytes += len(chunk)
        self._wake_followers()

    def land(self, result: T | None = None) -> None:
        """The answer is at its end. It may do so without having begun: then `result` is all that
        the followers get."""
        self.result = result
        self.whole = self._landed = True
        self._wake_followers()

    def fail(self, reason: str) -> None:
        """The answer broke off. No effect on a flight that has ended."""
        if not self._landed and self._failure is None:
            self._failure = reason
            self._wake_followers()

    def stop_keeping(self) -> None:
        """Keep no bytes that every follower has: the answer won't be stored or joined any more."""
        self.keep = False
        self._trim()

    def so_far(self) -> bytes:
        """Every byte published. Only while `keep`."""
        assert self.keep, "the beginning is gone"
        return b"".join(self._chunks)

    async def room(self) -> None:
        """Wait until the slowest follower of a flight that isn't kept is within the window."""
        while not self.keep and self._bytes > WINDOW_BYTES and self._followers:
            self._room = asyncio.get_running_loop().create_future()
            await self._room

    # What followers cause.

    @property
    def ended(self) -> bool:
        """Landed or failed."""
        return self._landed or self._failure is not None

    def follow(self) -> Follower[T]:
        """A new follower, from the first byte. Only while `keep` or before anything was trimmed."""
        assert self._first == 0, "the beginning is gone"
        follower = Follower(self)
        self._followers.add(follower)
        return follower

    def _leave(self, follower: Follower[T]) -> None:
        self._followers.discard(follower)
        self._trim()
        if not self._followers and not self.whole and not self.ended and self.task is not None:
            self.abandoned = True
            self.task.cancel()

    def _trim(self) -> None:
        if self.keep:
            return
        wanted = min((f.position for f in self._followers), default=self._first + len(self._chunks))
        while self._first < wanted and self._chunks:
            self._bytes -= len(self._chunks.popleft())
            self._first += 1
        if self._room is not None and not self._room.done() and self._bytes <= WINDOW_BYTES:
            self._room.set_result(None)

    def _wake_followers(self) -> None:
        for follower in self._followers:
            follower.wake()

    def _take(self, position: int) -> tuple[bytes, int]:
        """All bytes from chunk `position` on that are there, as one piece, and the next position.

        Pieces are at most a window long, so that a late joiner of a large answer doesn't double it.
        """
        pieces: list[bytes] = []
        size = 0
        index = position - self._first
        while index < len(self._chunks) and size < WINDOW_BYTES:
            chunk = self._chunks[index]
            pieces.append(chunk)
            size += len(chunk)
            index += 1
        return (pieces[0] if len(pieces) == 1 else b"".join(pieces)), self._first + index


class Follower(Generic[T]):
    """One client's place in a flight. Used as a context manager: leaving ends the following."""

    def __init__(self, flight: Flight[T]) -> None:
        self.flight = flight
        self.position = 0
        self._wake: asyncio.Future[None] | None = None

    def __enter__(self) -> Follower[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def leave(self) -> None:
        """Follow no more. A second time it has no effect."""
        self.flight._leave(self)

    def wake(self) -> None:
        """Something changed in the flight."""
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def _changed(self) -> None:
        self._wake = asyncio.get_running_loop().create_future()
        try:
            await self._wake
        finally:
            self._wake = None

    async def head(self) -> None:
        """Wait until the flight has an answer's head, or has landed without one. Raises
        `FlightFailed` when it failed before."""
        while not self.flight.began and not self.flight._landed:
            if self.flight._failure is not None:
                raise FlightFailed(self.flight._failure)
            await self._changed()

    async def next(self) -> bytes:
        """The next bytes, b"" at the end. Raises `FlightFailed` when the answer broke off."""
        flight = self.flight
        while True:
            data, position = flight._take(self.position)
            if data:
                self.position = position
                flight._trim()
                return data
            if flight._failure is not None:
                raise FlightFailed(flight._failure)
            if flight._landed:
                return b""
            await self._changed()


class Flights(Generic[T]):
    """The table of flights by request key, and all flights under way. `report` hears of an error
    that nothing here expects."""

    def __init__(self, report: Callable[[BaseException], None]) -> None:
        self._report = report
        self._by_key: dict[bytes, Flight[T]] = {}
        self._all: set[Flight[T]] = set()

    def __len__(self) -> int:
        return len(self._all)

    def joinable(self, key: bytes) -> Flight[T] | None:
        """The flight that answers `key` right now and can still be followed from its beginning.

        None once it has ended, if only just now: what it brought is in the store, or isn't to be
        given to anybody who asks again.
        """
        flight = self._by_key.get(key)
        return None if flight is None or flight.abandoned or flight.ended else flight

    def start(
        self,
        key: bytes | None,
        run: Callable[[Flight[T]], Coroutine[Any, Any, None]],
    ) -> Flight[T]:
        """Start a flight whose task runs `run(flight)`; with a key, others can join it. Whatever
        happens in there, the flight ends."""
        flight: Flight[T] = Flight(key)
        self._all.add(flight)
        if key is not None:
            self._by_key[key] = flight
        flight.task = asyncio.ensure_future(run(flight))
        # A callback, not try/finally: a task cancelled before its first step runs no line at all.
        flight.task.add_done_callback(lambda task: self._ended(flight, task))
        return flight

    def _ended(self, flight: Flight[T], task: asyncio.Task[None]) -> None:
        self.close_to_joiners(flight)
        self._all.discard(flight)
        if task.cancelled():
            flight.fail("given up: nobody waited for it")
        elif error := task.exception():
            self._report(error)
            flight.fail(f"internal error: {type(error).__name__}")
        else:
            flight.fail("the answer ended without an end")

    def close_to_joiners(self, flight: Flight[T]) -> None:
        """Let nobody new follow `flight`."""
        if flight.key is not None and self._by_key.get(flight.key) is flight:
            del self._by_key[flight.key]

    async def cancel_all(self) -> None:
        """Give up every flight, for a shutdown that can't wait any longer. One whose answer is
        whole is waited for: it is being stored and counted."""
        for flight in self._all:
            if flight.task is not None and not flight.whole:
                flight.task.cancel()
        tasks = [flight.task for flight in self._all if flight.task is not None]
        await asyncio.gather(*tasks, return_exceptions=True)
