"""What every backend promises, bare and behind the memory tier, and what the tier adds to it.

A backend is added by adding its opener to `BACKENDS`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from llm_cache.errors import StoreError
from llm_cache.store import Backend, Limits, Totals
from llm_cache.store.local import LocalStore
from llm_cache.store.memory import MemoryTier

KEY, OTHER, THIRD = b"k" * 32, b"o" * 32, b"t" * 32


def open_local(path: Path, limits: Limits, clock: Callable[[], float]) -> Backend:
    return LocalStore.open(path / "store", limits, clock=clock)


BACKENDS = {"local": open_local}


@pytest.fixture(params=BACKENDS)
def bare(request: pytest.FixtureRequest, tmp_path: Path, clock: Any) -> Iterator[Any]:
    """Opens a backend with no memory tier; every one is closed at the end of the test."""
    backends: list[Backend] = []

    def open_backend(**limits: float) -> Backend:
        backend = BACKENDS[request.param](tmp_path, Limits(**limits), clock)  # type: ignore[arg-type]
        backends.append(backend)
        return backend

    yield open_backend
    for backend in backends:
        backend.close()


@pytest.fixture
def remembering(bare: Any, clock: Any) -> Any:
    """Opens a backend behind a memory tier of 1 MiB, unless told otherwise."""

    def open_tier(*, max_memory_bytes: int = 1 << 20, **limits: float) -> MemoryTier:
        within = Limits(max_memory_bytes=max_memory_bytes, **limits)  # type: ignore[arg-type]
        return MemoryTier(bare(**limits), within, clock)

    return open_tier


@pytest.fixture(params=["bare", "behind memory", "behind no memory"])
def opened(request: pytest.FixtureRequest, bare: Any, remembering: Any) -> Any:
    """Opens a backend, bare or behind a memory tier: what is promised of both."""
    if request.param == "bare":
        return bare
    if request.param == "behind memory":
        return remembering
    return partial(remembering, max_memory_bytes=0)


@pytest.mark.parametrize("body", [b"", b"x", b"\0" * 100_000, bytes(range(256)) * 9])
def test_what_was_put_is_got_from_every_key(opened: Any, body: bytes) -> None:
    store = opened()
    entry = store.put([KEY, OTHER], b"meta", body, request=b"asked", ttl=50)
    for key in (KEY, OTHER):
        stored = store.get(key)
        assert (stored.body, stored.entry) == (body, entry)
    assert store.request_body(entry) == b"asked"
    assert (entry.meta, entry.size, entry.hits, entry.ttl) == (b"meta", len(body), 0, 50)
    assert store.get(THIRD) is None


def test_an_entry_outlives_its_process(opened: Any) -> None:
    store = opened()
    entry = store.put([KEY], b"meta", b"body")
    store.close()
    again = opened()
    assert [found for _, found in again.entries()] == [entry]
    assert again.get(KEY).body == b"body"


def test_a_key_that_pointed_elsewhere_moves_and_the_keyless_entry_goes(opened: Any) -> None:
    store = opened()
    store.put([KEY, OTHER], b"", b"first")
    store.put([OTHER, THIRD], b"", b"second")
    assert [store.get(key).body for key in (KEY, OTHER, THIRD)] == [b"first", b"second", b"second"]
    store.put([KEY], b"", b"third")
    assert store.totals().entries == 2
    assert store.get(KEY).body == b"third"


def test_a_deleted_entry_is_gone_for_every_key_and_every_open_store(opened: Any) -> None:
    one, two = opened(), opened()
    one.put([KEY, OTHER], b"", b"body")
    assert two.get(KEY) is not None
    assert two.delete(OTHER) is True
    assert [store.get(key) for store in (one, two) for key in (KEY, OTHER)] == [None] * 4
    assert one.delete(KEY) is False
    assert one.totals() == Totals(0, 0)


def test_a_replaced_answer_is_not_served_from_another_stores_memory(opened: Any) -> None:
    one, two = opened(), opened()
    one.put([KEY], b"", b"old")
    assert two.get(KEY).body == b"old"
    one.put([KEY], b"", b"new")
    assert two.get(KEY).body == b"new"


def test_what_was_put_or_got_is_in_memory_until_any_store_deletes_it(remembering: Any) -> None:
    one, two = remembering(), remembering()
    one.put([KEY, OTHER], b"", b"body")
    assert one.get_in_memory(KEY).body == b"body"
    assert two.get_in_memory(KEY) is None
    assert two.get(KEY) is not None
    assert two.get_in_memory(KEY).body == b"body"
    assert two.delete(OTHER) is True
    assert one.get_in_memory(KEY) is None
    assert two.get_in_memory(KEY) is None


def test_no_memory_keeps_nothing(remembering: Any) -> None:
    store = remembering(max_memory_bytes=0)
    store.put([KEY], b"", b"body")
    assert store.get(KEY).body == b"body"
    assert store.get_in_memory(KEY) is None


def test_memory_keeps_the_answers_used_last_within_its_bytes(remembering: Any) -> None:
    store = remembering(max_memory_bytes=20_000)
    for number in range(10):
        store.put([b"%d" % number], b"", b"b" * 2_000)
        store.get_in_memory(b"0")
    kept = [number for number in range(10) if store.get_in_memory(b"%d" % number)]
    assert kept == [0, 5, 6, 7, 8, 9]
    store.put([KEY], b"", b"b" * 6_000)  # too large a share
    assert store.get_in_memory(KEY) is None
    assert [number for number in range(10) if store.get_in_memory(b"%d" % number)] == kept


def test_a_use_from_memory_is_counted_as_one_from_the_backend(remembering: Any, clock: Any) -> None:
    store = remembering()
    store.put([KEY], b"", b"body")
    clock.now += 5
    for _ in range(3):
        assert store.get_in_memory(KEY) is not None
    store.flush()
    [(_, entry)] = remembering().entries()
    assert (entry.hits, entry.accessed) == (3, clock.now)


def test_a_moved_key_is_not_in_memory_and_the_others_stay(remembering: Any) -> None:
    one, two = remembering(), remembering()
    one.put([KEY], b"", b"old")
    one.put([OTHER], b"", b"stays")
    two.put([KEY], b"", b"new")
    assert one.get_in_memory(KEY) is None
    assert one.get_in_memory(OTHER).body == b"stays"
    assert one.get(KEY).body == b"new"
    assert one.get_in_memory(KEY).body == b"new"
    assert one.clear() == 2
    assert [two.get_in_memory(KEY), one.get_in_memory(OTHER)] == [None, None]


def test_the_stamp_moves_when_a_key_was_taken_away_or_moved_by_whomever(bare: Any) -> None:
    one, two = bare(), bare()
    entry = one.put([KEY], b"", b"body")
    other = one.put([OTHER, THIRD], b"", b"other")
    seen = {one.stamp()}
    for change in (
        lambda: two.put([KEY], b"", b"moved"),
        lambda: two.put([THIRD], b"", b"one of two keys moved"),
        lambda: one.delete(KEY),
        lambda: two.clear(),
    ):
        change()
        assert one.stamp() not in seen
        seen.add(one.stamp())
    assert not one.points_to(KEY, entry)
    assert not two.points_to(OTHER, other)


def test_points_to_knows_the_very_entry(bare: Any) -> None:
    one, two = bare(), bare()
    first = one.put([KEY, OTHER], b"meta", b"body")
    second = two.put([OTHER], b"meta", b"body")
    assert [two.points_to(key, first) for key in (KEY, OTHER, THIRD)] == [True, False, False]
    assert [one.points_to(key, second) for key in (KEY, OTHER)] == [False, True]


def test_memory_survives_puts_and_flushes_of_other_keys(remembering: Any) -> None:
    one, two = remembering(), remembering()
    one.put([KEY], b"", b"body")
    kept = one.get(KEY)
    kept.prepared = "made of meta"
    for number in range(5):
        two.put([bytes([number])], b"", b"other")
        two.get(bytes([number]))
        two.flush()
    assert one.get_in_memory(KEY).prepared == "made of meta"


def test_clear_takes_every_entry_and_leaves_the_ledger(opened: Any) -> None:
    store = opened()
    for number in range(7):
        store.put([bytes([number])], b"", b"%d" % number, tallies={"s": {"calls": 1}})
    assert store.clear() == 7
    assert store.totals() == Totals(0, 0)
    assert store.get(b"\0") is None
    assert store.ledger.read() == {"s": {"calls": 7}}
    store.put([KEY], b"", b"again")
    assert store.get(KEY).body == b"again"


def test_ledger_adds_ints_exactly_and_floats(opened: Any) -> None:
    store = opened()
    store.ledger.add({"a": {"calls": 1, "usd": 0.5}, "b": {"calls": 2**53 + 1}})
    store.ledger.add({"a": {"calls": 2, "usd": 0.25}, "b": {"calls": 2}, "": {"x": 0}})
    expected = {"a": {"calls": 3, "usd": 0.75}, "b": {"calls": 2**53 + 3}, "": {"x": 0}}
    assert opened().ledger.read() == expected


@pytest.mark.parametrize("amount", [float("nan"), 2**70])
def test_a_ledger_amount_that_is_no_number_adds_nothing(opened: Any, amount: float) -> None:
    store = opened()
    with pytest.raises(StoreError):
        store.ledger.add({"a": {"fine": 1, "bad": amount}})
    with pytest.raises(StoreError):
        store.put([KEY], b"", b"body", tallies={"a": {"fine": 1, "bad": amount}})
    assert store.ledger.read() == {}
    assert store.get(KEY) is None
    assert store.totals() == Totals(0, 0)


def test_find_goes_by_key_prefix_in_hex(opened: Any) -> None:
    store = opened()
    for number in range(32):
        store.put([bytes([number, 1]), bytes([number, 2])], b"", b"%d" % number)
    assert [key for key, _ in store.find("1f0", 9)] == ["1f01"]
    assert [key for key, _ in store.find("1F", 9)] == ["1f01"]
    assert [key for key, _ in store.find("1", 3)] == ["1001", "1101", "1201"]
    assert len(store.find("", 99)) == 32
    assert store.find("ff", 9) == store.find("xyz", 9) == store.find("", 0) == []


def test_entries_come_most_recently_used_first(opened: Any, clock: Any) -> None:
    store = opened()
    for number in range(450):
        clock.now += 1 if number % 50 else 0
        store.put([b"%03d" % number], b"", b"body")
    clock.now += 1
    store.get(b"007")
    listed = [bytes.fromhex(key) for key, _ in store.entries()]
    assert listed[0] == b"007"
    assert len(listed) == len(set(listed)) == 450
    assert listed[1:] == [b"%03d" % n for n in reversed(range(450)) if n != 7]


def test_an_entry_expires_when_its_age_reaches_the_ttl(opened: Any, clock: Any) -> None:
    store = opened(ttl_sec=10)
    start = clock.now
    store.put([KEY], b"", b"by the store's limit")
    store.put([OTHER], b"", b"by its own", ttl=20.5)
    for later, left in ((9.999, 2), (10, 1), (20.499, 1), (20.5, 0)):
        clock.now = start + later
        assert [store.get(key) is not None for key in (OTHER, KEY)].count(True) == left
    assert store.totals() == Totals(0, 0)


def test_an_expired_entry_is_kept_for_who_asks_for_a_stale_one(opened: Any, clock: Any) -> None:
    store = opened(ttl_sec=10, stale_sec=5)
    store.put([KEY], b"meta", b"body")
    store.put([OTHER], b"", b"by its own", ttl=20)
    assert store.get(KEY, stale=True).body == b"body"
    clock.now += 14.75
    store.flush()
    assert store.get(KEY) is None
    stale = store.get(KEY, stale=True)
    assert (stale.body, stale.entry.meta) == (b"body", b"meta")
    assert store.get(KEY) is None
    assert store.get(OTHER).body == b"by its own"
    assert [entry.size for _, entry in store.entries()] == [len(b"by its own")]
    assert store.find(KEY.hex(), 9) == []
    assert store.totals().entries == 2
    clock.now += 0.25
    assert store.get(KEY, stale=True) is None
    assert store.totals().entries == 1
    clock.now += 10
    store.flush()
    assert store.totals().entries == 0


def test_a_stale_entry_may_be_as_much_older_than_asked(opened: Any, clock: Any) -> None:
    store = opened(ttl_sec=0, stale_sec=5)
    store.put([KEY], b"", b"body")
    clock.now += 12
    assert store.get(KEY, max_age=8) is None
    assert store.get(KEY, max_age=8, stale=True).body == b"body"
    assert store.get(KEY, max_age=7, stale=True) is None
    assert store.get(KEY).body == b"body"


def test_a_new_answer_takes_the_place_of_a_stale_one(opened: Any, clock: Any) -> None:
    store = opened(ttl_sec=10, stale_sec=100)
    store.put([KEY], b"", b"old")
    clock.now += 50
    assert store.get(KEY, stale=True).body == b"old"
    store.put([KEY], b"", b"new")
    assert store.get(KEY, stale=True).body == b"new"
    assert store.totals().entries == 1


def test_a_ttl_of_zero_is_over_at_once_and_no_ttl_never_ends(opened: Any, clock: Any) -> None:
    store = opened(ttl_sec=0)
    store.put([KEY], b"", b"body", ttl=0)
    store.put([OTHER], b"", b"body")
    assert store.get(KEY) is None
    clock.now += 1e9
    assert store.get(OTHER) is not None
    with pytest.raises(ValueError, match="ttl"):
        store.put([KEY], b"", b"body", ttl=-1)


def test_max_age_refuses_the_old_and_keeps_them(opened: Any, clock: Any) -> None:
    store = opened()
    store.put([KEY], b"", b"body")
    assert store.get(KEY, max_age=0) is None
    clock.now += 5
    assert store.get(KEY, max_age=5) is None
    assert store.get(KEY, max_age=5.001) is not None
    assert store.get(KEY) is not None


def test_flush_prunes_the_expired_and_counts_hits(opened: Any, clock: Any) -> None:
    store = opened(ttl_sec=10)
    for number in range(9):
        store.put([bytes([number])], b"", b"body", ttl=5 if number < 4 else None)
    clock.now += 5
    for _ in range(3):
        store.get(b"\x08")
    store.flush()
    assert store.totals().entries == 5
    hits = {key: (entry.hits, entry.accessed) for key, entry in opened(ttl_sec=10).entries()}
    assert hits["08"] == (3, clock.now)
    clock.now += 5
    store.flush()
    assert store.totals() == Totals(0, 0)


def test_count_limit_drops_the_least_recently_used(opened: Any, clock: Any) -> None:
    store = opened(max_entries=3)
    for number in range(10):
        clock.now += 1
        store.put([b"%d" % number], b"", b"body %d" % number)
        assert store.totals().entries == min(number + 1, 3)
        if number >= 1:
            clock.now += 1
            assert store.get(b"1") is not None  # noted in memory only, and still counts
    assert [key for key in range(10) if store.get(b"%d" % key)] == [1, 8, 9]


def test_byte_limit_is_exact(opened: Any, clock: Any) -> None:
    bodies = [bytes((n * 7 + i * i) % 251 for i in range(300 + n * 13)) for n in range(30)]
    unlimited = opened()
    sizes = [unlimited.put([b"%d" % n], b"", body).disk_size for n, body in enumerate(bodies)]
    unlimited.clear()
    store = opened(max_bytes=2_000)
    for number, body in enumerate(bodies):
        clock.now += 1
        store.put([b"%d" % number], b"", body)
        kept = [n for n in range(number + 1) if store.get(b"%d" % n, max_age=1e9)]
        expected: list[int] = []
        for n in range(number, -1, -1):
            if sum(sizes[m] for m in expected) + sizes[n] > 2_000:
                break
            expected.insert(0, n)
        assert kept == expected
        assert store.totals() == Totals(len(kept), sum(sizes[n] for n in kept))
        store.flush()


def test_request_bodies_go_before_answers(opened: Any, clock: Any) -> None:
    noise = [bytes((n * 31 + i * i * 7) % 253 for i in range(200)) for n in range(12)]
    probe = opened()
    room = sum(probe.put([bytes([n])], b"", noise[n]).disk_size for n in range(6))
    probe.clear()
    store = opened(max_bytes=room)
    for number in range(6):
        clock.now += 1
        store.put([bytes([number])], b"", noise[number], request=noise[6 + number])
    entries = [store.get(bytes([number])).entry for number in range(6)]
    assert store.totals().entries == 6
    assert store.totals().bytes <= room
    assert not any(store.request_body(entry) for entry in entries)


def test_the_oldest_request_bodies_go_first(opened: Any, clock: Any) -> None:
    noise = [bytes((n * 31 + i * i * 7) % 253 for i in range(200)) for n in range(12)]
    probe = opened()
    sizes = [probe.put([bytes([n])], b"", noise[n]).disk_size for n in range(12)]
    probe.clear()
    store = opened(max_bytes=sum(sizes) - 1)
    for number in range(6):
        clock.now += 1
        store.put([bytes([number])], b"", noise[number], request=noise[6 + number])
    kept = [store.request_body(store.get(bytes([n])).entry) for n in range(6)]
    assert kept == [None, *noise[7:]]


def test_an_answer_larger_than_the_store_changes_nothing(opened: Any) -> None:
    store = opened(max_bytes=500)
    store.put([KEY], b"", b"small")
    before = store.totals()
    large = bytes((i * i * 31 + i) % 251 for i in range(5_000)) + bytes(range(256)) * 3
    with pytest.raises(StoreError, match="larger"):
        store.put([KEY], b"", large, tallies={"s": {"calls": 1}})
    assert store.get(KEY).body == b"small"
    assert store.totals() == before
    assert store.ledger.read() == {}


@pytest.mark.parametrize("limit", ["max_entries", "max_bytes"])
def test_a_put_removes_a_part_of_what_lowered_limits_leave_over_and_flush_the_rest(
    opened: Any, clock: Any, limit: str
) -> None:
    wide = opened()
    for number in range(600):
        clock.now += 1
        size = wide.put([b"%d" % number], b"", b"body %05d" % number).disk_size
    wide.close()
    narrow = opened(**{limit: 10 if limit == "max_entries" else 10 * size})
    narrow.put([KEY], b"", b"body 99999")
    assert 10 < narrow.totals().entries < 600
    while narrow.totals().entries > 10:
        narrow.flush()
    assert narrow.totals().entries == 10
    narrow.put([OTHER], b"", b"body 88888")
    assert narrow.totals().entries == 10
    assert narrow.get(b"599") is not None
    assert narrow.get(b"590") is None


def test_a_shared_body_is_counted_once_and_leaves_with_the_last(opened: Any) -> None:
    store = opened()
    size = store.put([KEY], b"", b"shared " * 50).disk_size
    store.put([OTHER], b"", b"shared " * 50, request=b"shared " * 50)
    assert store.totals() == Totals(2, size)
    store.delete(KEY)
    assert store.get(OTHER).body == b"shared " * 50
    store.delete(OTHER)
    assert store.totals() == Totals(0, 0)


def test_an_entry_from_the_future_lives_no_longer_than_its_ttl(opened: Any, clock: Any) -> None:
    store = opened(ttl_sec=10)
    right = clock.now
    clock.now += 1e6
    store.put([KEY], b"", b"body")
    store.put([OTHER], b"", b"body", ttl=20)
    store.get(KEY)
    clock.now = right
    assert store.get(KEY).entry.created == right
    store.flush()
    assert all(entry.created <= right >= entry.accessed for _, entry in store.entries())
    clock.now = right + 10
    assert store.get(KEY) is None
    clock.now = right + 20
    store.flush()
    assert store.totals().entries == 0


def test_a_clock_set_back_does_not_evict_the_newest(opened: Any, clock: Any) -> None:
    store = opened(max_entries=2)
    store.put([KEY], b"", b"1")
    store.put([OTHER], b"", b"2")
    clock.now -= 1e6
    store.put([THIRD], b"", b"3")
    assert store.get(THIRD).body == b"3"
    assert store.totals().entries == 2


def test_many_threads_share_one_store(opened: Any) -> None:
    store = opened(max_entries=20)
    wrong: list[object] = []

    def work(seed: int) -> None:
        try:
            for turn in range(60):
                number = (turn * 7 + seed * 3) % 30
                stored = store.get(b"%d" % number)
                if stored is not None and stored.body != b"body %d" % number:
                    wrong.append(stored)
                store.put([b"%d" % number, b"n%d" % number], b"", b"body %d" % number)
                if turn % 10 == 0:
                    store.flush()
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert store.totals().entries == 20


def test_a_closed_store_says_so(opened: Any) -> None:
    store = opened()
    store.put([KEY], b"", b"body")
    store.close()
    store.close()
    for call in (lambda: store.get(KEY), lambda: store.put([KEY], b"", b""), store.totals):
        with pytest.raises(StoreError, match="closed"):
            call()


def test_a_look_at_an_answer_is_no_use_of_it(opened: Any) -> None:
    store = opened()
    entry = store.put([KEY], b"meta", b"body")
    assert store.answer_body(entry) == b"body"
    store.flush()
    [(_, seen)] = store.entries()
    assert (seen.hits, seen.accessed) == (0, entry.accessed)
    store.delete(KEY)
    assert store.answer_body(entry) is None


def test_an_entry_tells_all_its_keys_the_primary_one_first(opened: Any) -> None:
    store = opened()
    entry = store.put([THIRD, KEY, OTHER], b"", b"body")
    assert store.keys_of(entry) == [THIRD, KEY, OTHER]
    store.put([KEY], b"", b"newer")
    assert store.keys_of(entry) == [THIRD, OTHER]
    store.delete(THIRD)
    assert store.keys_of(entry) == []


def test_a_draft_of_another_store_is_kept_all_the_same(opened: Any, bare: Any) -> None:
    class Foreign:
        body, digest, closed = b"asked", "", False

        def close(self) -> None:
            self.closed = True

    draft = Foreign()
    store = opened()
    entry = store.put([KEY], b"", b"body", request=draft)
    assert store.request_body(entry) == b"asked"
    assert draft.closed


def test_a_request_may_be_drafted_before_its_answer_is_there(opened: Any) -> None:
    store = opened()
    for key in (KEY, OTHER):  # the second finds the blob of the first in place
        entry = store.put([key], b"", key, request=store.draft(b"asked"))
        assert store.request_body(entry) == b"asked"
    assert store.totals().entries == 2
    one, two = store.draft(b"given up"), store.draft(b"asked")
    store.clear()  # takes the blob the second draft found in place
    entry = store.put([KEY], b"", b"body", request=two)
    for _ in range(2):
        one.close()
        two.close()
    assert store.request_body(entry) == b"asked"


def test_an_answer_brought_back_is_as_old_and_as_used_as_it_was(opened: Any, clock: Any) -> None:
    store = opened(ttl_sec=100)
    entry = store.put([KEY, OTHER], b"meta", b"body", request=b"asked")
    store.get(KEY)
    clock.now += 60
    [(_, entry)] = store.entries()
    store.delete(KEY)
    store.put(
        *([KEY, OTHER], entry.meta, b"body"),
        request=b"asked",
        created=entry.created,
        hits=entry.hits,
    )
    back = opened(ttl_sec=100).get(OTHER).entry
    assert (back.created, back.hits, back.accessed) == (entry.created, 1, clock.now)
    clock.now += 40
    assert store.get(KEY) is None
    future = store.put([KEY], b"", b"body", created=clock.now + 1000)
    assert future.created == clock.now
