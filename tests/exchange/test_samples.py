"""`Samples`: the n-th equal request of a run is sample n, concurrent or not, on a rerun as well."""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_cache.exchange.samples import Samples

RUN, KEY = b"run-1", b"k" * 32


def test_equal_requests_of_a_run_are_numbered_from_one() -> None:
    samples = Samples()
    assert [samples.take(RUN, KEY) for _ in range(4)] == [1, 2, 3, 4]


def test_another_request_and_another_run_begin_at_one() -> None:
    samples = Samples()
    assert samples.take(RUN, KEY) == 1
    assert samples.take(RUN, b"other") == 1
    assert samples.take(b"run-2", KEY) == 1
    assert samples.take(b"", KEY) == 1
    assert samples.take(RUN, KEY) == 2


@given(st.lists(st.sampled_from([b"a", b"b", b"c"]), max_size=30), st.randoms())
def test_a_rerun_asks_for_the_same_samples_in_whatever_order(
    keys: list[bytes], dice: random.Random
) -> None:
    samples = Samples()
    first = Counter((key, samples.take(b"1", key)) for key in keys)
    again = list(keys)
    dice.shuffle(again)
    assert Counter((key, samples.take(b"2", key)) for key in again) == first
    assert set(first.values()) <= {1}


async def test_requests_at_once_get_a_number_each() -> None:
    samples = Samples()

    async def one() -> int:
        await asyncio.sleep(0)
        return samples.take(RUN, KEY)

    assert sorted(await asyncio.gather(*(one() for _ in range(200)))) == list(range(1, 201))


def test_threads_at_once_get_a_number_each() -> None:
    samples = Samples()
    taken: list[int] = []
    start = threading.Barrier(8)

    def work() -> None:
        start.wait()
        mine = [samples.take(RUN, KEY) for _ in range(500)]
        taken.extend(mine)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == list(range(1, 4001))


def test_a_number_that_came_to_nothing_is_the_next_one_s() -> None:
    samples = Samples()
    assert [samples.take(RUN, KEY) for _ in range(4)] == [1, 2, 3, 4]
    samples.give_back(RUN, KEY, 3)
    samples.give_back(RUN, KEY, 2)
    assert [samples.take(RUN, KEY) for _ in range(3)] == [2, 3, 5]


@pytest.mark.parametrize("number", [0, -1, 3, 99])
def test_a_number_that_is_not_out_can_not_be_given_back(number: int) -> None:
    samples = Samples()
    assert [samples.take(RUN, KEY) for _ in range(2)] == [1, 2]
    samples.give_back(RUN, KEY, number)
    samples.give_back(b"another", KEY, 1)
    samples.give_back(RUN, b"another", 1)
    assert samples.take(RUN, KEY) == 3


@given(st.lists(st.integers(0, 5), max_size=60))
def test_no_number_is_out_twice(steps: list[int]) -> None:
    """0 takes; anything else gives one of those that are out back, twice."""
    samples = Samples()
    out: list[int] = []
    for step in steps:
        if step == 0 or not out:
            number = samples.take(RUN, KEY)
            assert number not in out
            assert number == min(set(range(1, len(out) + 2)) - set(out))
            out.append(number)
        else:
            number = out.pop(step % len(out))
            samples.give_back(RUN, KEY, number)
            samples.give_back(RUN, KEY, number)


def test_a_finished_run_can_be_reset() -> None:
    samples = Samples()
    assert [samples.take(RUN, KEY), samples.take(RUN, KEY), samples.take(b"2", KEY)] == [1, 2, 1]
    samples.reset(RUN)
    samples.reset(b"never heard of")
    assert samples.take(RUN, KEY) == 1
    assert samples.take(b"2", KEY) == 2


def test_memory_is_bounded_and_the_run_silent_for_longest_is_forgotten_first() -> None:
    samples = Samples(limit=4)
    for run in (b"old", b"new"):
        assert [samples.take(run, key) for key in (b"a", b"b")] == [1, 1]
    assert samples.take(b"old", b"b") == 2  # heard of again: now `new` is the older
    assert samples.take(b"old", b"c") == 1
    assert repr(samples) == "<Samples of 4 requests in 2 runs>"
    assert [samples.take(b"old", key) for key in (b"a", b"b", b"c")] == [2, 3, 2]
    assert samples.take(b"new", b"b") == 2
    for at in range(100):
        assert samples.take(b"many", str(at).encode()) == 1
    assert repr(samples) == "<Samples of 4 requests in 1 runs>"
