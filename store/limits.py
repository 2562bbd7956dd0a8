"""The limits of a store, and when an entry is too old.

An entry's age is `now - created`, never less than zero; it is expired when its age has reached
its own `ttl`, or the store's `ttl_sec` when it has none. It is kept for `stale_sec` more, for who
asks for a stale answer, and then it goes. The comparison is written as `created + ttl <= then` here
and in every SQL statement, `then` being now or `Limits.gone_at(now)`, so that all agree to the last
bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isnan

from llm_cache.store.entry import Entry


@dataclass(frozen=True, slots=True)
class Limits:
    """What a store may hold. 0 is no limit; for `max_memory_bytes` it is no memory tier, for
    `stale_sec` that nothing expired is kept."""

    ttl_sec: float = 604_800
    max_entries: int = 5_000
    max_bytes: int = 2 << 30  # on disk
    max_memory_bytes: int = 32 << 20
    stale_sec: float = 0

    def __post_init__(self) -> None:
        for name in ("ttl_sec", "max_entries", "max_bytes", "max_memory_bytes", "stale_sec"):
            value = getattr(self, name)
            if isnan(value) or value < 0:
                raise ValueError(f"{name} is {value}: it must be 0 or more")

    def expires(self, entry: Entry) -> float:
        """Return the unix time at which `entry` expires; infinity when it never does."""
        if entry.ttl is not None:
            return entry.created + entry.ttl
        return entry.created + self.ttl_sec if self.ttl_sec else inf

    def gone_at(self, now: float) -> float:
        """Return the unix time by which an entry must have expired to be kept no more."""
        return now - self.stale_sec
