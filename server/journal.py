"""What happened: one `Call` per request, from which counters, ledger, log and `/monitor` are made.

A hit costs one list append on its way; everything else is done for a small batch at once. What
always holds: a miss is in the ledger before its last byte goes out (its tallies ride in the store's
own transaction); a hit is there within `FLUSH_SEC`. A store that fails or is busy (store/lock.py)
holds nobody up: what it can't take is counted here and written once it can.
"""

from __future__ import annotations

import asyncio
import json
import time
import traceback
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache

from llm_cache.errors import StoreBusy, StoreError
from llm_cache.server.feed import Feed
from llm_cache.server.logfile import Log
from llm_cache.store import LedgerBackend, Store
from llm_cache.wire.provider import Usage

FLUSH_SEC = 0.5
"""Longest time a hit is only in memory, in seconds."""

LAST_WAIT_SEC = 10.0
"""How long the last flush of a run waits for a store that is busy."""

BATCH = 32
"""Calls that are counted and logged at once: enough to share a write, few enough that the calls
after them don't wait."""

BUCKETS = (
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.05,
    0.1,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
    300.0,
)
"""Upper bounds of the latency histograms, in seconds."""

HITS = frozenset(("HIT", "HIT-NORM", "HIT-SUFFIX", "HIT-SEMANTIC", "HIT-COALESCED", "HIT-STALE"))
NANO = 1_000_000_000

_NO_USAGE = Usage()


@dataclass(slots=True)  # not frozen: that makes a new one, on the way of every hit, twice as dear
class Call:
    """One request and how it was answered; not changed once made. `nano_usd` is the price of its
    answer in 1e-9 US dollars: saved when it came from the cache, spent otherwise; None when the
    price is unknown.
    """

    type: str
    provider: str
    model: str | None
    status: int
    seconds: float
    key: str = ""
    usage: Usage | None = None
    nano_usd: int | None = None
    stored: bool = False
    snippet: str = ""
    note: str = ""
    error: bool = False
    asked_model: str | None = (
        None  # what the request names, where no answer does: shown, not counted
    )

    @property
    def from_cache(self) -> bool:
        """True when it was answered, and no upstream call was made for it."""
        return self.type in HITS and not self.error


def tally(call: Call) -> dict[str, dict[str, int | float]]:
    """The ledger entry of one call: scope to counters (SPEC 1: the ledger)."""
    usage = call.usage or _NO_USAGE
    scope = _scope(call.provider, call.model or "", "ERROR" if call.error else call.type)
    counters: dict[str, int | float] = {"calls": 1}
    if call.usage is not None:
        counters["tokens_in"] = usage.input_tokens
        counters["tokens_out"] = usage.output_tokens
        counters["cache_read"] = usage.cache_read_tokens
        counters["cache_write"] = usage.cache_write_tokens
        if call.nano_usd is None:
            counters["unpriced"] = 1
        else:
            counters["nano_usd"] = call.nano_usd
    return {scope: {name: value for name, value in counters.items() if value}}


@lru_cache(1024)
def _scope(provider: str, model: str, kind: str) -> str:
    return json.dumps([provider, model, kind])


def read_ledger(ledger: LedgerBackend) -> dict[str, dict[str, int | float]]:
    """Every call of all time by scope. What isn't a scope of ours (an altered byte, a later
    version's) is passed over: figures are no reason for anything to fail. Raises StoreError."""
    return {scope: counters for scope, counters in ledger.read().items() if _is_scope(scope)}


@lru_cache(1024)
def _is_scope(scope: object) -> bool:
    try:
        parts = json.loads(scope) if isinstance(scope, str) else None
    except (ValueError, RecursionError):
        return False
    return isinstance(parts, list) and list(map(type, parts)) == [str, str, str]


def add_tallies(
    into: dict[str, dict[str, int | float]], more: Mapping[str, Mapping[str, int | float]]
) -> None:
    """Add counters up, scope by scope, in place."""
    for scope, counters in more.items():
        sums = into.setdefault(scope, {})
        for name, value in counters.items():
            sums[name] = sums.get(name, 0) + value


@dataclass(slots=True)
class Histogram:
    """Latencies of one kind: counts per bucket of `BUCKETS`, and the last for what is above."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    seconds: float = 0.0

    def note(self, seconds: float) -> None:
        """Count one latency."""
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.seconds += seconds


class Journal:
    """Takes calls and passes them on in batches: to counters, ledger, log and feed.

    All methods run on the event loop's thread; what blocks is done in another.
    """

    def __init__(self, store: Store, log: Log, *, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._log = log
        self._clock = clock
        self.feed = Feed()
        self.session: dict[str, dict[str, int | float]] = {}
        """This run's tallies by scope, as the ledger has them for all time."""
        self.latencies: dict[tuple[str, str, str], Histogram] = {}
        """By (`hit` or `upstream`, provider, model)."""
        self.errors: deque[str] = deque(maxlen=20)
        self.last_call: float | None = None
        self.store_failures = 0
        self._told: set[str] = set()  # failures of housekeeping, since it last went well
        self._pending: list[Call] = []
        self._unwritten: dict[str, dict[str, int | float]] = {}
        self._flush_at: asyncio.TimerHandle | None = None
        self._flushing: asyncio.Task[StoreError | None] | None = None
        self._writing = asyncio.Lock()
        self._saved = [0, 0]  # nano-USD and tokens, for the log line
        self._spent = 0
        self._calls = 0
        self._hits = 0

    async def start(self) -> None:
        """Take over the all-time figures, which the log lines go on from."""
        await self.all_time()

    def note(self, call: Call) -> None:
        """A call was answered; it isn't in the ledger yet."""
        pending = self._pending
        pending.append(call)
        if self._flush_at is None:
            loop = asyncio.get_running_loop()
            self._flush_at = loop.call_later(FLUSH_SEC / 2, self._flush_soon)
        if len(pending) >= BATCH or self.feed.watched:
            self.drain()

    def noted_in_ledger(self, call: Call) -> None:
        """A call was answered whose tally is in the ledger already."""
        self.drain()
        add_tallies(self.session, tally(call))
        self._tell(call)

    async def record(self, call: Call) -> None:
        """A call is about to be answered: put it in the ledger first."""
        try:
            await asyncio.to_thread(self._store.ledger.add, tally(call))
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
        """Something the operator should see: a line in the log and in `status`."""
        line = f"{_stamp(self._clock())} ERR  {text}"
        self.errors.append(line)
        self._log.write("error", [line])

    def internal_error(self, error: BaseException) -> None:
        """A fault of our own. Told are the kind and the innermost frames; no values, so nothing
        secret."""
        frames = traceback.extract_tb(error.__traceback__)[-3:]
        places = " < ".join(f"{frame.name}:{frame.lineno}" for frame in reversed(frames))
        self.problem(f"internal error: {type(error).__name__} at {places}")

    def debug(self, text: str) -> None:
        """A line for who looks closely."""
        if self._log.shows("debug"):
            self._log.write("debug", [f"{_stamp(self._clock())} DEBUG {text}"])

    def info(self, text: str) -> None:
        """A line about the proxy itself."""
        self._log.write("info", [f"{_stamp(self._clock())} {text}"])

    def _flush_soon(self) -> None:
        self._flush_at = None
        self._flushing = asyncio.ensure_future(self.flush())

    def drain(self) -> None:
        """Count, log and tell what is pending."""
        pending, self._pending = self._pending, []
        for call in pending:
            counted = tally(call)
            add_tallies(self.session, counted)
            add_tallies(self._unwritten, counted)
        if pending:
            self._tell(*pending)

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
                await asyncio.to_thread(self._store.ledger.add, unwritten)
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

    async def all_time(self) -> dict[str, dict[str, int | float]]:
        """The ledger's figures with everything up to now; this run's when it can't be read."""
        await self.flush()
        try:
            async with self._writing:  # or what is being written would be in neither of the two
                figures = await asyncio.to_thread(read_ledger, self._store.ledger)
        except StoreError as error:
            self.store_failed(error)
            return self.session
        add_tallies(figures, self._unwritten)
        self._take_over(figures)
        return figures

    def _take_over(self, figures: Mapping[str, Mapping[str, int | float]]) -> None:
        self._saved = [0, 0]
        self._spent = self._calls = self._hits = 0
        for scope, counters in figures.items():
            kind = json.loads(scope)[2]
            if kind == "PASS":
                continue
            calls, nano = int(counters.get("calls", 0)), int(counters.get("nano_usd", 0))
            self._calls += calls
            if kind in HITS:
                self._hits += calls
                self._saved[0] += nano
                self._saved[1] += int(counters.get("tokens_in", 0) + counters.get("tokens_out", 0))
            else:
                self._spent += nano

    def _tell(self, *calls: Call) -> None:
        now = self._clock()
        self.last_call = now
        stamp = _stamp(now)
        lines: list[str] = []
        for call in calls:
            self._count_latency(call)
            line = self._line(call, stamp)
            if call.error:
                self.errors.append(line)
            if self._log.shows("error" if call.error else "info"):
                lines.append(line)
            self.feed.publish(call, now)
        if lines:
            self._log.write("error", lines)

    def _count_latency(self, call: Call) -> None:
        if call.type == "PASS" or call.status >= 400 or call.error:
            return  # also what no upstream was asked for, and what nobody waited for
        kind = "hit" if call.from_cache else "upstream"
        name = (kind, call.provider, call.model or "")
        histogram = self.latencies.get(name)
        if histogram is None:
            histogram = self.latencies[name] = Histogram()
        histogram.note(call.seconds)

    def _line(self, call: Call, stamp: str) -> str:
        """The log line of a call, in the form of llm-cache-proxy's, after a time stamp."""
        usage = call.usage or _NO_USAGE
        tokens = usage.input_tokens + usage.output_tokens
        nano = call.nano_usd or 0
        price = "$?" if call.usage and call.nano_usd is None else f"${nano / NANO:.5f}"
        head = f"{stamp} {call.type:<4} {call.model or call.asked_model or '?'}"
        if call.type != "PASS":
            self._calls += 1
        if call.from_cache:
            self._hits += 1
            self._saved[0] += nano
            self._saved[1] += tokens
            rate = 100 * self._hits / self._calls
            return (
                f"{head}  +{tokens}tok {price}  | saved ${self._saved[0] / NANO:.4f} / "
                f"{self._saved[1]}tok  hit-rate {rate:.1f}%"
            )
        self._spent += nano
        stored = " [cached]" if call.stored else f" [{call.note}]" if call.note else ""
        return (
            f"{head}  {call.status}  {tokens}tok {price}  {call.seconds * 1000:.0f}ms{stored}  "
            f"| spend ${self._spent / NANO:.4f}"
        )


def _stamp(now: float) -> str:
    return _stamp_of_second(int(now))


@lru_cache(2)
def _stamp_of_second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
