"""A disk without space: the store makes room by itself and is a cache again."""

from __future__ import annotations

import errno
import os
import random
import subprocess
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from llm_cache.errors import StoreError
from llm_cache.store import Limits
from llm_cache.store.local import LocalStore

pytestmark = pytest.mark.process

KEY = b"k" * 32
META = b"m" * 300
SIZE = 4 << 20


def body(number: int, size: int = 3_000) -> bytes:
    return random.Random(number).randbytes(size)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 4 MiB."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a disk of 4 MiB")
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no disk of 4 MiB may be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> None:
    """Leave no space on the disk of a folder."""
    with (folder / "filler").open("ab", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


def test_a_small_disk_holds_a_cache_that_goes_on(small: Path) -> None:
    with closing(LocalStore.open(small / "store", Limits())) as store:
        for number in range(1_500):
            store.put([b"%d" % number], META, body(number), tallies={"all": {"puts": 1}})
            assert store.get(b"%d" % number) is not None
            if number % 100 == 0:
                store.flush()
        assert (small / "store" / "index.sqlite-wal").stat().st_size < SIZE / 8
        assert store.totals().entries > 200
        assert store.ledger.read() == {"all": {"puts": 1_500}}
        assert store.integrity() == []
        there = store.totals().entries
        assert store.delete(b"1499")
        assert store.clear() == there - 1
        store.put([KEY], META, body(1))
    with closing(LocalStore.open(small / "store", Limits())) as store:
        assert store.get(KEY) is not None


@pytest.mark.parametrize("restarted", [False, True])
def test_a_disk_that_others_filled_takes_deletes_and_is_a_cache_again(
    small: Path, restarted: bool, clock: Any
) -> None:
    store = LocalStore.open(small / "store", Limits(ttl_sec=100), clock=clock)
    for number in range(200):
        store.put([b"%d" % number], META, body(number), ttl=10 if number < 20 else None)
    if restarted:
        store.close()
        fill(small)
        store = LocalStore.open(small / "store", Limits(ttl_sec=100), clock=clock)
    fill(small)
    with closing(store):
        assert store.delete(b"150")
        assert store.get(b"150") is None
        fill(small)
        clock.now += 10
        store.flush()
        assert store.totals().entries <= 179
        fill(small)
        store.put([KEY], META, body(7))
        assert store.get(KEY) is not None
        assert store.get(b"199") is not None
        fill(small)
        assert store.clear() > 0
        assert store.totals().entries == 0
        for number in range(20):
            store.put([b"%d" % number], META, body(number))
            assert store.get(b"%d" % number) is not None
        assert store.integrity() == []


def test_a_disk_without_any_space_is_a_store_that_opens_later(small: Path) -> None:
    fill(small)
    log: list[str] = []
    os.truncate(small / "filler", SIZE // 2)
    (small / "store").mkdir()
    fill(small)
    with closing(
        LocalStore.open(small / "store", Limits(), log=log.append, at_once=False)
    ) as store:
        with pytest.raises(StoreError):
            store.put([KEY], META, body(1))
        with pytest.raises(StoreError):
            store.get(KEY)
        (small / "filler").unlink()
        store.flush()
        store.put([KEY], META, body(1))
        assert store.get(KEY) is not None
    assert any("can't be opened yet" in line for line in log)


class Full:
    """A disk that is full at one step of a write, until so many turns were taken."""

    def __init__(self) -> None:
        self.at = ""
        self.turns = 0

    def __call__(self, name: str) -> None:
        if name == self.at and self.turns > 0:
            self.turns -= 1
            raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("turns", [1, 2, 3])
@pytest.mark.parametrize(
    "step",
    ["draft-created", "draft-half-written", "blob-renamed", "keys-pointed", "totals-written"],
)
def test_a_put_on_a_full_disk_drives_out_what_was_used_longest_ago(
    opened: Any, clock: Any, step: str, turns: int
) -> None:
    full = Full()
    store = opened(Limits(max_bytes=0, max_entries=0), step=full)
    for number in range(400):
        clock.now += 1
        store.put([b"%d" % number], META, body(number))
    full.at, full.turns = step, turns
    store.put([KEY], META, body(1_000), request=b"asked", tallies={"all": {"puts": 1}})
    assert full.turns == 0
    assert store.get(KEY).body == body(1_000)
    assert store.get(b"399") is not None
    assert store.get(b"0") is None or turns == 1
    assert store.ledger.read() == {"all": {"puts": 1}}
    store.flush()  # removes the rows that there was no room to remove
    assert store.integrity() == []


@pytest.mark.parametrize("step", ["entry-removed", "totals-written"])
def test_a_delete_on_a_full_disk_uses_the_reserve_and_drives_nothing_out(
    opened: Any, step: str
) -> None:
    full = Full()
    store = opened(step=full)
    for number in range(5):
        store.put([b"%d" % number], META, body(number))
    reserve = store.path / "reserve"
    assert reserve.exists()
    full.at, full.turns = step, 2
    assert store.delete(b"3")
    assert not reserve.exists()
    assert store.totals().entries == 4
    store.flush()
    assert reserve.exists()


def test_an_answer_that_would_not_fit_anyway_drives_nothing_out(opened: Any) -> None:
    full = Full()
    store = opened(step=full)
    for number in range(5):
        store.put([b"%d" % number], META, body(number))
    full.at, full.turns = "draft-written", 99
    with pytest.raises(StoreError, match="No space"):
        store.put([KEY], META, body(1_000, 1 << 20))
    assert store.totals().entries == 5
    assert store.integrity() == []


def test_the_wal_stays_in_proportion_to_what_the_store_may_hold(opened: Any) -> None:
    store = opened(Limits(max_bytes=1 << 20))
    wal = store.path / "index.sqlite-wal"
    largest = 0
    for number in range(600):
        store.put([b"%d" % number], META, body(number, 500))
        largest = max(largest, wal.stat().st_size)
    assert largest < 512 << 10
