"""The memory tier before a local store that is replaced, forked, or not to be had.

What it promises before any backend is in test_store_contract.py.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_cache.errors import StoreError
from llm_cache.store import Limits, Store, open_store

KEY, OTHER = b"k" * 32, b"o" * 32


@pytest.fixture
def store(tmp_path: Path, clock: Any) -> Iterator[Store]:
    one = open_store("local", tmp_path / "store", Limits(), clock=clock)
    yield one
    one.close()


def test_an_index_begun_anew_is_not_answered_for_from_memory(
    store: Store, tmp_path: Path, clock: Any
) -> None:
    """The new index counts its ids from one again: the id alone would say that nothing changed."""
    old = store.put([KEY], b"", b"old")
    kept = store.put([OTHER], b"", b"same")
    shutil.rmtree(tmp_path / "store")
    other = open_store("local", tmp_path / "store", Limits(), clock=clock)
    new = other.put([KEY], b"", b"new")
    assert other.put([OTHER], b"", b"same").id == kept.id
    assert new.id == old.id
    store.flush()  # it sees then that the index is another one
    assert store.get_in_memory(KEY) is None
    stored = store.get(KEY)
    assert stored is not None
    assert stored.body == b"new"
    other.close()


@pytest.mark.process
def test_what_is_in_memory_is_gone_in_a_forked_child_and_stays_in_the_parent(store: Store) -> None:
    store.put([KEY], b"", b"body")
    stop = threading.Event()

    def use() -> None:
        while not stop.is_set():
            store.get_in_memory(KEY)

    thread = threading.Thread(target=use)
    thread.start()
    try:
        for _ in range(5):
            child = os.fork()
            if not child:
                try:
                    nothing = store.get_in_memory(KEY) is None
                    with pytest.raises(StoreError, match="before a fork"):
                        store.get(KEY)
                    os._exit(0 if nothing else 1)
                except BaseException:
                    os._exit(2)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        stop.set()
        thread.join()
    assert store.get_in_memory(KEY) is not None


def test_a_kind_of_store_that_there_is_not_says_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"'ftp': there are local$"):
        open_store("ftp://user:secret@host/", tmp_path / "store", Limits())
    assert list(tmp_path.iterdir()) == []
