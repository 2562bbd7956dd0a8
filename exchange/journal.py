"""What happened, counted: the ledger's figures, and whoever listens to calls.

A hit costs one list append on its way; everything else is done for a small batch at once. What
always holds: a miss is in the ledger before its last byte goes out (its tallies ride in the store's
own transaction); a hit is there within `FLUSH_SEC`. A store that fails or is busy holds nobody up:
what it can't take is counted here and written once it can.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Literal, TypeAlias

from llm_cache.errors import StoreBusy, StoreError
from llm_cache.exchange.calls import Call, add_tallies, read_ledger, tally
from llm_cache.store import LedgerBackend

FLUSH_SEC = 0.5
"""Longest time a hit is only in memory, in seconds."""

LAST_WAIT_SEC = 10.0
"""How long the last flush of a run waits for a store that is busy."""

BATCH = 32
"""Calls that are counted and told at once: enough to share a write, few enough that the calls after
them don't wait."""

Level = Literal["error", "info", "debug"]
Tallies: TypeAlias = Mapping[str, Mapping[str, int | float]]
"""Scope to counters, as the ledger has them."""


_watched = attrgetter("watched")


class Listener:
    """Hears what happens, on the event loop's thread; overrides what it wants to hear."""

    watched = False
    """True while somebody looks on, who wants to hear of each call at once."""

    def heard(self, calls: Sequence[Call], now: float) -> None:
        """Calls were answered, the last of them at `now` (unix seconds)."""

    def told(self, level: Level, text: str, now: float) -> None:
        """Something is to be said of the exchange itself."""

    def summed(self, all_time: Tallies) -> None:
        """The figures of all time, up to now."""


class Journal:
    """Takes calls and passes them on in batches: to counters, ledger and listeners.

    All methods run on the event loop's thread; what blocks is done in another.
    """

    def __init__(
        self,
        ledger: LedgerBackend,
        listeners: Iterable[Listener] = (),
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._ledger = ledger
        self._listeners = tuple(listeners)
        self._clock = clock
        self.session: dict[str, dict[str, int | float]] = {}
        """This run's tallies by scope, as the ledger has them for all time."""
        self.last_call: float | None = None
        self.store_failures = 0
        self._told: set[str] = set()  # failures of housekeeping, since it last went well
        self._pending: list[Call] = []
        self._unwritten: dict[str, dict[str, int | float]] = {}
        self._flush_at: asyncio.TimerHandle | None = None
        self._flushing: asyncio.Task[StoreError | None] | None = None
        self._writing = asyncio.Lock()

    def note(self, call: Call) -> None:
        """A call was answered; it isn't in the ledger yet."""
        pending = self._pending
        pending.append(call)
        if self._flush_at is None:
            loop = asyncio.get_running_loop()
            self._flush_at = loop.call_later(FLUSH_SEC / 2, self._flush_soon)
        if len(pending) >= BATCH or any(map(_watched, self._listeners)):
            self.drain()

    def noted_in_ledger(self, call: Call) -> None:
        """A call was answered whose tally is in the ledger already."""
        self.drain()
        add_tallies(self.session, tally(call))
        self._tell([call])

    async def record(self, call: Call) -> None:
        """A call is about to be answered: put it in the ledger first."""
        try:
            await asyncio.to_thread(self._ledger.add, tally(call))
        except StoreError as error:
            self.store_failed(error)
            self.note(call)
        else:
            self.noted_in_ledger(call)

    def store_failed(self, error: StoreError) -> None:
        """The store failed; the request goes on without it (SPEC 5.8). While it is busy, a line
        every few seconds is enough."""
        self.store_failures += 1
        if not isinstance(error, StoreBusy) or not error.repeated:
            self.problem(f"store: {error}")

    def housekeeping_failed(self, error: StoreError) -> None:
        """What is tried every second failed: one line until `housekeeping_done`, however long."""
        if str(error) in self._told:
            self.store_failures += 1
        else:
            self._told.add(str(error))
            self.store_failed(error)

    def housekeeping_done(self) -> None:
        """All of it went well: the next failure is news again."""
        self._told.clear()

    def problem(self, text: str) -> None:
        """Something the operator should see."""
        self._say("error", text)

    def internal_error(self, error: BaseException) -> None:
        """A fault of our own. Told are the kind and the innermost frames; no values, so nothing
        secret."""
        frames = traceback.extract_tb(error.__traceback__)[-3:]
        places = " < ".join(f"{frame.name}:{frame.lineno}" for frame in reversed(frames))
        self.problem(f"internal error: {type(error).__name__} at {places}")

    def info(self, text: str) -> None:
        """Something about the exchange itself."""
        self._say("info", text)

    def debug(self, text: str) -> None:
        """Something for who looks closely."""
        self._say("debug", text)

    def _say(self, level: Level, text: str) -> None:
        now = self._clock()
        for listener in self._listeners:
            listener.told(level, text, now)

    def _flush_soon(self) -> None:
        self._flush_at = None
        self._flushing = asyncio.ensure_future(self.flush())

    def drain(self) -> None:
        """Count and tell what is pending."""
        pending, self._pending = self._pending, []
        for call in pending:
            counted = tally(call)
            add_tallies(self.session, counted)
            add_tallies(self._unwritten, counted)
        if pending:
            self._tell(pending)

    def _tell(self, calls: Sequence[Call]) -> None:
        now = self._clock()
        self.last_call = now
        for listener in self._listeners:
            listener.heard(calls, now)

    async def flush(self) -> StoreError | None:
        """Bring the ledger up to date. A store that fails costs a log line and is returned; nothing
        is lost, the next flush tries again. To be called every second or so."""
        self.drain()
        # Whoever waits for it may be cancelled, a stop or a client that leaves; what is being
        # written then still has to come back here when it can't be.
        return await asyncio.shield(asyncio.ensure_future(self._write()))

    async def _write(self) -> StoreError | None:
        async with self._writing:
            unwritten, self._unwritten = self._unwritten, {}
            if not unwritten:
                return None
            try:
                await asyncio.to_thread(self._ledger.add, unwritten)
            except StoreError as error:
                add_tallies(self._unwritten, unwritten)
                self.housekeeping_failed(error)
                return error
        return None

    async def close(self) -> None:
        """The last flush of a run: a store that is busy gets some seconds, what it can't take then
        is lost and told."""
        deadline = time.monotonic() + LAST_WAIT_SEC
        while True:
            error = await self.flush()
            if not isinstance(error, StoreBusy) or time.monotonic() > deadline:
                break
            await asyncio.sleep(0.1)
        if error is not None:
            calls = sum(counters.get("calls", 0) for counters in self._unwritten.values())
            self.problem(f"store: {calls} calls are not in the ledger: {error}")

    async def all_time(self) -> Tallies:
        """The ledger's figures with everything up to now; this run's when it can't be read."""
        await self.flush()
        try:
            async with self._writing:  # or what is being written would be in neither of the two
                figures = await asyncio.to_thread(read_ledger, self._ledger)
        except StoreError as error:
            self.store_failed(error)
            return self.session
        add_tallies(figures, self._unwritten)
        for listener in self._listeners:
            listener.summed(figures)
        return figures
