"""A store that others keep to themselves: a writer waits a little, once, and reads go on.

Others are a process that holds the write lock (one that was stopped in the middle of a write), and
a program that knows nothing of it and holds SQLite's own.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.busy import write_lock

from llm_cache.errors import StoreBusy
from llm_cache.store import Limits
from llm_cache.store.local.lock import AFTER_BUSY_SEC

KEY = b"k" * 32
PATIENCE = 1.0


@contextmanager
def sqlite_lock(store: Path) -> Iterator[None]:
    db = sqlite3.connect(store / "index.sqlite", isolation_level=None)
    try:
        db.execute("BEGIN IMMEDIATE")
        yield
    finally:
        db.close()


@pytest.fixture(params=[write_lock, sqlite_lock])
def kept_busy(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_only_the_first_waits_for_a_busy_store_and_says_so(opened: Any, kept_busy: Any) -> None:
    store = opened(patience=PATIENCE)
    store.put([KEY], b"", b"kept")
    said: list[bool] = []
    many = 40
    with kept_busy(store.path):
        began = time.monotonic()
        for number in range(many):
            with pytest.raises(StoreBusy, match="others keep the store busy") as busy:
                store.put([b"%d" % number], b"", b"new", tallies={"all": {"puts": 1}})
            said.append(busy.value.repeated)
        took = time.monotonic() - began
    assert not said[0]
    assert said.count(False) <= 1 + took / AFTER_BUSY_SEC
    assert took < PATIENCE * many / 2
    assert store.totals().entries == 1
    assert store.ledger.read() == {}


def test_a_busy_store_is_read_all_the_same(opened: Any, clock: Any, kept_busy: Any) -> None:
    store = opened(Limits(ttl_sec=100), patience=0)
    store.put([KEY], b"", b"kept")
    store.put([b"over"], b"", b"over", ttl=10)
    store.ledger.add({"all": {"puts": 2}})
    clock.now += 20
    with kept_busy(store.path):
        assert store.get(KEY).body == b"kept"
        assert store.get(b"over") is None
        assert store.ledger.read() == {"all": {"puts": 2}}
        with pytest.raises(StoreBusy):
            store.flush()
    assert store.totals().entries == 2
    store.flush()
    assert store.totals().entries == 1


def test_a_store_that_is_free_again_takes_the_next_write(opened: Any, kept_busy: Any) -> None:
    store = opened(patience=0)
    for turn in range(3):
        with kept_busy(store.path), pytest.raises(StoreBusy) as busy:
            store.put([KEY], b"", b"body %d" % turn)
        assert not busy.value.repeated
        store.put([KEY], b"", b"body %d" % turn)
        assert store.get(KEY).body == b"body %d" % turn
    assert store.integrity() == []


def test_the_check_of_a_whole_store_needs_no_lock(opened: Any, kept_busy: Any) -> None:
    store = opened()
    for number in range(10):
        store.put([b"%d" % number], b"", b"body %d" % number)
    with kept_busy(store.path):
        assert store.integrity() == []


def test_the_check_of_a_whole_store_finds_nothing_wrong_in_what_others_write_meanwhile(
    opened: Any,
) -> None:
    limits = Limits(max_entries=20)
    writer, checker = opened(limits), opened(limits)
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            writer.put([b"%d" % number], b"", b"body %d" % (number // 2), request=b"%d" % number)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        found = [checker.integrity() for _ in range(20)]
    finally:
        stop.set()
        thread.join()
    assert found == [[]] * 20
