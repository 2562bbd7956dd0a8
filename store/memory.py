"""The memory tier: the answers used last, kept whole in memory before any backend.

It is the `Store` that everybody has, and holds no truth of its own. What always holds:
- A slot carries the backend's stamp as it was before the slot's answer was read or put. While the
  backend says the same number, no key was taken away and the slot is right; when the number has
  moved, `points_to` decides, and a slot that is still right takes the new stamp.
- The way of a hit is `get_in_memory`, top to bottom. No file is opened, nothing is awaited.
- The slots' lock is held for no call to the backend.
- A child of a fork begins with no slots (forks.py says why a store is closed there).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence

from llm_cache.errors import StoreError
from llm_cache.store import forks
from llm_cache.store.contract import Backend, Draft, LedgerBackend
from llm_cache.store.entry import Entry, Stored, Tally, Totals
from llm_cache.store.limits import Limits

_SLOT_OVERHEAD = 1_000  # bytes of Python objects per slot, roughly
_LARGEST_SHARE = (
    4  # an answer larger than this part of the tier would empty it: left to the backend
)


class Slot:
    """One answer in memory: `expires` in unix seconds, `stamp` as of its last check."""

    __slots__ = ("cost", "expires", "stamp", "stored")

    def __init__(self, stored: Stored, expires: float, stamp: int) -> None:
        self.stored = stored
        self.expires = expires
        self.stamp = stamp
        # Twice the meta: the caller keeps what it made of it in `prepared`.
        self.cost = len(stored.body) + 2 * len(stored.entry.meta) + _SLOT_OVERHEAD


class Slots:
    """Slots by key within `limit` bytes, the least recently used out first. Thread-safe."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._slots: OrderedDict[bytes, Slot] = OrderedDict()
        self._bytes = 0
        self.lock = threading.Lock()

    def get(self, key: bytes) -> Slot | None:
        """Return the slot of a key and make it the most recently used."""
        with self.lock:
            slot = self._slots.get(key)
            if slot is not None:
                self._slots.move_to_end(key)
            return slot

    def keep(self, key: bytes, slot: Slot) -> None:
        """Keep a slot, in place of an older one of that key, as long as there is room."""
        with self.lock:
            self._drop(key)
            if slot.cost * _LARGEST_SHARE > self._limit:
                return
            self._slots[key] = slot
            self._bytes += slot.cost
            while self._bytes > self._limit:
                self._drop(next(iter(self._slots)))

    def drop(self, key: bytes) -> None:
        """Forget a key."""
        with self.lock:
            self._drop(key)

    def _drop(self, key: bytes) -> None:
        slot = self._slots.pop(key, None)
        if slot is not None:
            self._bytes -= slot.cost

    def clear(self) -> None:
        """Forget everything."""
        with self.lock:
            self._slots.clear()
            self._bytes = 0

    @property
    def bytes(self) -> int:
        """Bytes in use, overhead counted."""
        return self._bytes


class MemoryTier:
    """The memory tier before `backend`; with `max_memory_bytes` 0 it keeps nothing."""

    def __init__(self, backend: Backend, limits: Limits, clock: Callable[[], float]) -> None:
        """`clock` gives unix seconds, as the backend's does."""
        self._backend = backend
        self._limits = limits
        self._clock = clock
        self._slots = Slots(limits.max_memory_bytes)
        forks.register(self)

    def __repr__(self) -> str:
        return f"<MemoryTier of {self._slots.bytes} bytes before {self._backend!r}>"

    @property
    def ledger(self) -> LedgerBackend:
        """The backend's ledger."""
        return self._backend.ledger

    # -- what memory changes

    def get_in_memory(self, key: bytes, *, max_age: float | None = None) -> Stored | None:
        """Return what `key` points to if it is in memory: microseconds, no file opened.

        None may also mean that `get` would find it. Raises StoreError when the backend can't be
        asked whether it is still so.
        """
        slot = self._slots.get(key)
        if slot is None:
            return None
        stored = slot.stored
        entry = stored.entry
        now = self._clock()
        if not entry.created <= now < slot.expires:
            self._slots.drop(key)
            return None
        if max_age is not None and now - entry.created >= max_age:
            return None
        stamp = self._backend.stamp()
        if slot.stamp != stamp:
            if not self._backend.points_to(key, entry):
                self._slots.drop(key)
                return None
            slot.stamp = stamp
        self._backend.touch(entry.id, now)
        return stored

    def get(
        self, key: bytes, *, max_age: float | None = None, stale: bool = False
    ) -> Stored | None:
        """Return what `key` points to, from memory or from the backend, which memory then has too
        unless it is expired. Raises StoreError."""
        stored = self.get_in_memory(key, max_age=max_age)
        if stored is not None:
            return stored
        stamp = self._backend.stamp()
        stored = self._backend.get(key, max_age=max_age, stale=stale)
        if stored is not None:
            expires = self._limits.expires(stored.entry)
            if self._clock() < expires:
                self._slots.keep(key, Slot(stored, expires, stamp))
        return stored

    def put(
        self,
        keys: Sequence[bytes],
        meta: bytes,
        body: bytes,
        *,
        request: Draft | bytes | None = None,
        ttl: float | None = None,
        tallies: Mapping[str, Tally] | None = None,
        created: float | None = None,
        hits: int = 0,
    ) -> Entry:
        """Store an answer under all its keys, and keep it in memory for the primary one."""
        # From before the put: what another process takes away right after it is seen. What the put
        # itself displaces costs the slot one look-up.
        stamp = self._stamp_if_readable()
        entry = self._backend.put(
            keys,
            meta,
            body,
            request=request,
            ttl=ttl,
            tallies=tallies,
            created=created,
            hits=hits,
        )
        if stamp is not None:
            slot = Slot(Stored(entry, body), self._limits.expires(entry), stamp)
            self._slots.keep(keys[0], slot)
        return entry

    def _stamp_if_readable(self) -> int | None:
        """A backend that can't be read may be one that can be written: a put mends some."""
        try:
            return self._backend.stamp()
        except StoreError:
            return None

    def delete(self, key: bytes) -> bool:
        """Remove the entry any of whose keys this is; return whether there was one."""
        there = self._backend.delete(key)
        self._slots.drop(key)
        return there

    def clear(self) -> int:
        """Remove every entry; return how many there were."""
        removed = self._backend.clear()
        self._slots.clear()
        return removed

    def close(self) -> None:
        """Close the backend and forget everything."""
        forks.unregister(self)
        self._backend.close()
        self._slots.clear()

    # -- what it passes on

    def draft(self, body: bytes) -> Draft:
        """Do the slow part of keeping `body` ahead of its `put`."""
        return self._backend.draft(body)

    def answer_body(self, entry: Entry) -> bytes | None:
        """Return the body of an entry without counting a use."""
        return self._backend.answer_body(entry)

    def request_body(self, entry: Entry) -> bytes | None:
        """Return the request body kept with an entry."""
        return self._backend.request_body(entry)

    def keys_of(self, entry: Entry) -> list[bytes]:
        """Return every key of an entry, the primary one first."""
        return self._backend.keys_of(entry)

    def find(self, key_prefix_hex: str, limit: int) -> list[tuple[str, Entry]]:
        """Return up to `limit` entries with a key that starts so."""
        return self._backend.find(key_prefix_hex, limit)

    def entries(self) -> Iterator[tuple[str, Entry]]:
        """Yield every entry with its primary key in hex, most recently used first."""
        return self._backend.entries()

    def totals(self) -> Totals:
        """Return how much is stored."""
        return self._backend.totals()

    def flush(self) -> None:
        """Have the backend do a bounded piece of its housekeeping."""
        self._backend.flush()

    # -- forks (forks.py)

    def before_fork(self) -> None:
        """Wait for whoever is at the slots."""
        self._slots.lock.acquire()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._slots.lock.release()

    def after_fork_in_child(self) -> None:
        """Keep nothing more: the backend is closed here."""
        self._slots = Slots(0)
