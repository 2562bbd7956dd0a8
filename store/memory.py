"""The memory tier: the answers used last, kept whole in memory, least recently used out first.

It holds no truth of its own. A slot says how many removals the index had seen when the slot was
last known to be right; while the index still says the same number, nothing was taken away and the
slot is right. When the number has moved, the store looks the key up again and renews the slot.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from llm_cache.store.entry import Stored

_SLOT_OVERHEAD = 1_000  # bytes of Python objects per slot, roughly
_LARGEST_SHARE = 4  # an answer larger than this part of the tier would empty it: left to the disk


class Slot:
    """One answer in memory: `expires` in unix seconds, `removals` as of its last check."""

    __slots__ = ("cost", "expires", "removals", "stored")

    def __init__(self, stored: Stored, expires: float, removals: int) -> None:
        self.stored = stored
        self.expires = expires
        self.removals = removals
        # Twice the meta: the caller keeps what it made of it in `prepared`.
        self.cost = len(stored.body) + 2 * len(stored.entry.meta) + _SLOT_OVERHEAD


class MemoryTier:
    """Slots by key, within `limit` bytes. Thread-safe."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._slots: OrderedDict[bytes, Slot] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: bytes) -> Slot | None:
        """Return the slot of a key and make it the most recently used."""
        with self._lock:
            slot = self._slots.get(key)
            if slot is not None:
                self._slots.move_to_end(key)
            return slot

    def keep(self, key: bytes, slot: Slot) -> None:
        """Keep a slot, in place of an older one of that key, as long as there is room."""
        with self._lock:
            self._drop(key)
            if slot.cost * _LARGEST_SHARE > self._limit:
                return
            self._slots[key] = slot
            self._bytes += slot.cost
            while self._bytes > self._limit:
                self._drop(next(iter(self._slots)))

    def drop(self, key: bytes) -> None:
        """Forget a key."""
        with self._lock:
            self._drop(key)

    def _drop(self, key: bytes) -> None:
        slot = self._slots.pop(key, None)
        if slot is not None:
            self._bytes -= slot.cost

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._slots.clear()
            self._bytes = 0

    @property
    def bytes(self) -> int:
        """Bytes in use, overhead counted."""
        return self._bytes
