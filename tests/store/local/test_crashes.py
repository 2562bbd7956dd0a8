"""A writer killed at any step loses nothing it reported, and several processes share a store."""

from __future__ import annotations

import importlib.util
import multiprocessing
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from llm_cache.store import Limits, open_store
from llm_cache.store.local import LocalStore

KILLS = Path(__file__).parents[3] / "bench" / "store_kills.py"
spawn = multiprocessing.get_context("spawn")


@pytest.fixture(scope="module")
def kills() -> ModuleType:
    spec = importlib.util.spec_from_file_location("store_kills", KILLS)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["store_kills"] = module
    spec.loader.exec_module(module)
    return module


# Each of the twelve steps once, and four kills at no step in particular.
@pytest.mark.parametrize("seed", [*range(12), *range(24, 28)])
def test_a_killed_writer_loses_nothing_reported(
    kills: ModuleType, seed: int, tmp_path: Path
) -> None:
    assert kills.check(seed, tmp_path / "store")[1] == []


@pytest.mark.slow
def test_two_hundred_killed_writers_lose_nothing_reported(
    kills: ModuleType, tmp_path: Path
) -> None:
    wrong = {seed: kills.check(seed, tmp_path / str(seed))[1] for seed in range(100, 300)}
    assert {seed: lines for seed, lines in wrong.items() if lines} == {}


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


def run(work: Any, path: Path, count: int) -> list[str]:
    results = spawn.Queue()
    processes = [spawn.Process(target=work, args=(path, seed, results)) for seed in range(count)]
    for process in processes:
        process.start()
    wrong = [line for _ in processes for line in results.get(timeout=60)]
    for process in processes:
        process.join()
    results.close()
    results.join_thread()
    assert [process.exitcode for process in processes] == [0] * count
    return wrong


def test_processes_that_put_one_key_leave_one_of_their_answers(tmp_path: Path) -> None:
    path = tmp_path / "store"
    assert run(put_one_key, path, 3) == []
    store = LocalStore.open(path, Limits())
    stored = store.get(b"key")
    assert stored is not None
    assert stored.body == body_of(int(stored.entry.meta))
    assert store.ledger.read() == {"all": {"puts": 300}}
    assert store.integrity() == []
    store.close()


def test_eviction_racing_reads_and_writes_of_one_blob_serves_no_wrong_byte(
    tmp_path: Path,
) -> None:
    path = tmp_path / "store"
    assert run(churn_one_blob, path, 3) == []
    store = LocalStore.open(path, Limits())
    assert store.totals().entries <= 3
    assert store.integrity() == []
    store.close()


def test_processes_that_open_a_broken_index_together_set_it_aside_once(tmp_path: Path) -> None:
    path = tmp_path / "store"
    path.mkdir()
    (path / "index.sqlite").write_bytes(b"not a database " * 100)
    assert len(run(open_and_put, path, 3)) == 1
    store = LocalStore.open(path, Limits())
    assert [store.get(b"%d" % n) is not None for n in range(3)] == [True] * 3
    assert len(list(path.glob("*.broken-*"))) == 1
    store.close()
