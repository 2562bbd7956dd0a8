"""What a store promises, and what may stand behind its memory tier. Protocols and nothing else.

- `Store` is what everybody outside names. The memory tier (memory.py) is the one that is one.
- `Backend` is what keeps the answers: a backend is one class with these methods and one line in
  opening.py. The contract test runs over every backend, bare and behind the memory tier.

All methods are synchronous, may be called from several threads at once, and raise StoreError and
nothing else (`ValueError` for arguments no store could take). Whoever has to wait for others raises
StoreBusy, a StoreError, once a bounded time is over. In a child of a fork a store is closed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from llm_cache.store.entry import Entry, Stored, Tally, Totals


class LedgerBackend(Protocol):
    """The durable record of calls: counters by scope and name."""

    def add(self, tallies: Mapping[str, Tally]) -> None:
        """Add amounts to counters; durable against a kill when it returns."""

    def read(self) -> dict[str, dict[str, int | float]]:
        """Return every counter by scope and name."""


class Draft(Protocol):
    """A body on its way into a store, with the slow part of keeping it done ahead."""

    @property
    def body(self) -> bytes:
        """The whole body: a backend that didn't make this draft keeps it all the same."""

    @property
    def digest(self) -> str:
        """XXH3-128 of the body, 32 hex digits."""

    def close(self) -> None:
        """Give up what is held for it. Closing twice, or after a `put` took it, is fine."""


class _Answers(Protocol):
    """What `Store` and `Backend` have in common."""

    @property
    def ledger(self) -> LedgerBackend:
        """The ledger kept with the answers; `clear` leaves it alone."""

    def get(
        self, key: bytes, *, max_age: float | None = None, stale: bool = False
    ) -> Stored | None:
        """Return what `key` points to, whole and verified, or None.

        None when there is nothing, when it is expired, damaged, or `max_age` seconds old or more.
        With `stale`, what became so less than the limit `stale_sec` ago is returned too; nothing
        else ever sees it.
        """

    def draft(self, body: bytes) -> Draft:
        """Do the slow part of keeping `body` ahead of its `put`. Whoever makes a draft that no
        `put` takes closes it."""

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
        """Store an answer under all its keys, all or nothing; the limits hold when it returns.

        Unless they didn't before, because they were lowered: then it removes a bounded number and
        no less than it adds, and `flush` removes the rest.

        A key that pointed elsewhere moves here; an entry without a key left goes. StoreError means
        that nothing was changed, tallies included. A negative ttl is a ValueError. `created` and
        `hits` are of an answer that was stored before (None: it is new); its age goes on.
        """

    def answer_body(self, entry: Entry) -> bytes | None:
        """Return the body of an entry without counting a use; None when it is gone or damaged."""

    def request_body(self, entry: Entry) -> bytes | None:
        """Return the request body kept with an entry, None when there is none (any more)."""

    def keys_of(self, entry: Entry) -> list[bytes]:
        """Return every key of an entry, the primary one first; none when it is gone."""

    def find(self, key_prefix_hex: str, limit: int) -> list[tuple[str, Entry]]:
        """Return up to `limit` entries with a key that starts so, each once, with that key."""

    def entries(self) -> Iterator[tuple[str, Entry]]:
        """Yield every entry with its primary key in hex, most recently used first."""

    def delete(self, key: bytes) -> bool:
        """Remove the entry any of whose keys this is; return whether there was one."""

    def clear(self) -> int:
        """Remove every entry; return how many there were."""

    def totals(self) -> Totals:
        """Return how much is stored, at a cost that doesn't grow."""

    def flush(self) -> None:
        """Do a bounded piece of the housekeeping; to be called every second or so."""

    def close(self) -> None:
        """Write what is pending and let go of everything. Closing twice is fine."""


class Backend(_Answers, Protocol):
    """What keeps the answers behind the memory tier. It needs no memory of its own."""

    def stamp(self) -> int:
        """Return a number that is another one whenever any key was taken away or moved, by
        whomever, since it was last asked for. It costs microseconds."""

    def points_to(self, key: bytes, entry: Entry) -> bool:
        """Tell whether `key` points to this very entry now; one look-up.

        Not by the id alone: a backend that was replaced under a running process (a folder made
        anew, a server restarted empty) counts its ids from the beginning again.
        """

    def touch(self, entry_id: int, now: float) -> None:
        """Count one use of an entry that was had from memory, at unix time `now`."""


class Store(_Answers, Protocol):
    """A store of answers by key, as everybody but its backends names it."""

    def get_in_memory(self, key: bytes, *, max_age: float | None = None) -> Stored | None:
        """Return the same as `get` when it takes microseconds; None may also mean: ask `get`."""
