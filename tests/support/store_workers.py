"""What several processes do to one store at the same time. They are spawned and import this by its
name, which the parent's path, sent along, lets them find.

Each worker puts a list of what it saw go wrong into `results`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llm_cache.store import Limits, open_store
from llm_cache.store.local import LocalStore


def body_of(number: int) -> bytes:
    return b"body %d " % number * 40


def put_one_key(path: Path, seed: int, results: Any) -> None:
    store = open_store("local", path, Limits())
    wrong = []
    for turn in range(100):
        number = seed * 1_000 + turn
        store.put(
            [b"key", b"own %d" % seed],
            b"%d" % number,
            body_of(number),
            tallies={"all": {"puts": 1}},
        )
        stored = store.get(b"key")
        if stored is None or stored.body != body_of(int(stored.entry.meta)):
            wrong.append(f"{number}: {stored}")
    store.close()
    results.put(wrong)


def churn_one_blob(path: Path, seed: int, results: Any) -> None:
    """Put, read, evict and delete entries that share very few blobs."""
    store = LocalStore.open(path, Limits(max_entries=3))
    wrong = []
    for turn in range(150):
        number = (turn * 7 + seed) % 4
        key = b"%d %d" % (seed, turn % 5)
        store.put([key], b"%d" % number, body_of(number))
        for other in range(3):
            stored = store.get(b"%d %d" % (other, turn % 5))
            if stored is not None and stored.body != body_of(int(stored.entry.meta)):
                wrong.append(f"{turn}: {stored}")
        if turn % 11 == 0:
            store.delete(key)
        if turn % 17 == 0:
            store.sweep()
        if store.totals().entries > 3:
            wrong.append(f"{turn}: {store.totals()}")
    store.close()
    results.put(wrong)


def open_and_put(path: Path, seed: int, results: Any) -> None:
    lines: list[str] = []
    store = LocalStore.open(path, Limits(), log=lines.append)
    store.put([b"%d" % seed], b"", body_of(seed))
    store.close()
    results.put([line for line in lines if "set aside" in line])
