"""What the store costs as it grows: get, put and prune at a thousand to a million entries.

    python bench/store.py [--sizes 1000 100000 1000000] [--turns 1000]

Prints a Markdown table of microseconds per operation and, in brackets, the ratio to the smallest
size. How it is measured: a store is filled through the real API with `3 * turns` answers of 1.4 KB
under two keys each, the oldest of which will be pruned and evicted; the rest up to the size are
rows inserted into the same tables in one transaction, with random keys and digests but without
their blob files (a million files would measure the file system's mkdir). Everything is warm; the
median of five rounds is given. Puts of a first round pay for new folders, so they aren't counted.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from llm_cache.store import Limits
from llm_cache.store.local import LocalStore

ROUNDS = 5
META = b'{"status":200,"headers":[["content-type","application/json"]],"model":"some-model"}' * 3


class Clock:
    """A clock that is told the time."""

    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def answer(rng: random.Random) -> bytes:
    """Return 1.4 KB that compress about as well as an answer does."""
    words = [rng.choice(("tea", "make", "sure", "delete", "prod", "token")) for _ in range(90)]
    return (" ".join(words).encode() + rng.randbytes(400).hex().encode())[:1_400]


def add_rows(store: LocalStore, count: int, clock: Clock) -> None:
    """Insert entries without files through the schema itself."""
    db = store._index.write
    db.execute("BEGIN IMMEDIATE")
    first, entries, size = db.execute("SELECT last_id, entries, bytes FROM totals").fetchone()
    step = 1_000 / max(count, 1)
    keys, blobs = [], []
    rows = []
    for number in range(1, count + 1):
        digest = os.urandom(16)
        when = clock.now + number * step
        rows.append((first + number, digest, None, when, when, 0, None, META))
        keys += [(os.urandom(32), first + number, rank) for rank in (0, 1)]
        blobs.append((digest, 1_400, 900, 1))
        if len(rows) == 50_000 or number == count:
            db.executemany("INSERT INTO entries VALUES(?, ?, ?, ?, ?, ?, ?, ?)", rows)
            # In key order: random inserts into a growing tree would take many times as long.
            db.executemany("INSERT INTO keys VALUES(?, ?, ?, 0)", sorted(keys))
            db.executemany("INSERT INTO blobs VALUES(?, ?, ?, ?)", sorted(blobs))
            rows, keys, blobs = [], [], []
    db.execute(
        "UPDATE totals SET last_id = ?, entries = ?, bytes = ?",
        (first + count, entries + count, size + count * 900),
    )
    db.execute("COMMIT")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def timed(work: Callable[[], int]) -> float:
    """Return microseconds per operation; `work` returns how many it did."""
    started = time.perf_counter()
    count = work()
    return (time.perf_counter() - started) / count * 1e6


def measure(size: int, turns: int) -> dict[str, float]:
    """Return microseconds per operation in a store of `size` entries."""
    rng = random.Random(size)
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store"
        endless = Limits(ttl_sec=1e9, max_entries=0, max_bytes=0)
        store = LocalStore.open(path, endless, clock=clock)

        def put(count: int, into: LocalStore, ttl: float | None = None) -> list[bytes]:
            made = []
            for _ in range(count):
                clock.now += 0.001
                keys = [rng.randbytes(32), rng.randbytes(32)]
                into.put(keys, META, answer(rng), ttl=ttl)
                made.append(keys[0])
            return made

        batch = max(turns // ROUNDS, 1)
        real = min(3 * turns, size)
        put(real - min(turns, real // 3), store)  # the oldest: victims with files
        add_rows(store, size - real, clock)
        clock.now += 2_000
        present = put(min(turns, real // 3), store)
        figures: dict[str, list[float]] = {}

        def note(name: str, work: Callable[[], int]) -> None:
            figures.setdefault(name, []).append(timed(work))

        def got(source: LocalStore, keys: list[bytes]) -> int:
            for key in keys:
                assert source.get(key) is not None
            return len(keys)

        disk = LocalStore.open(
            path, Limits(ttl_sec=1e9, max_entries=0, max_bytes=0, max_memory_bytes=0), clock=clock
        )
        got(store, present)
        got(disk, present)
        put(batch, store)
        entries = store.totals().entries
        full = LocalStore.open(
            path,
            Limits(ttl_sec=1e9, max_entries=entries + (ROUNDS + 1) * batch, max_bytes=0),
            clock=clock,
        )
        for _ in range(ROUNDS):
            got(store, present[:100])
            note("get, memory", lambda: got(store, present[:100] * 20))
            note("get, disk", lambda: got(disk, present))
            note("put", lambda: len(put(batch, store)))
        put(full.limits.max_entries - store.totals().entries, store)
        for _ in range(ROUNDS):
            note("put that evicts", lambda: len(put(batch, full)))
        for _ in range(ROUNDS):
            put(batch, store, ttl=10)
            clock.now += 10

            def prune() -> int:
                before = store.totals().entries
                while store.totals().entries > before - batch:
                    store.flush()
                return batch

            note("prune, per entry", prune)
            note("flush with nothing to do", lambda: [store.flush() for _ in range(50)].__len__())
        for opened in (store, disk, full):
            opened.close()
    return {name: statistics.median(times) for name, times in figures.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 100_000, 1_000_000])
    parser.add_argument("--turns", type=int, default=1_000)
    arguments = parser.parse_args()
    table = {size: measure(size, arguments.turns) for size in arguments.sizes}
    smallest = table[arguments.sizes[0]]
    print("| operation | " + " | ".join(f"{size:,} entries" for size in table) + " |")
    print("| --- " * (len(table) + 1) + "|")
    for name, base in smallest.items():
        cells = (f"{row[name]:.1f} µs ({row[name] / base:.2f})" for row in table.values())
        print(f"| {name} | {' | '.join(cells)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
