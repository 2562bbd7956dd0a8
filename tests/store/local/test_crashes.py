"""A writer killed at any step loses nothing it reported, and several processes share a store."""

from __future__ import annotations

import importlib.util
import multiprocessing
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from support.store_workers import body_of, churn_one_blob, open_and_put, put_one_key

from llm_cache.store import Limits
from llm_cache.store.local import LocalStore

pytestmark = pytest.mark.process

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
