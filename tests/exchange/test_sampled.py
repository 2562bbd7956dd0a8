"""`x-cache-sample: auto`: an eval that asks k times gets k answers, and the same k on a rerun."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping
from pathlib import Path

import pytest
from support import anthropic_wire as wire
from support.inside import Answer, Inside, inside
from support.replies import Reply, json_reply
from support.upstream import Request, Upstream

ASKED = wire.request("hello")
AUTO = {"x-cache-sample": "auto"}


@pytest.fixture
def numbered(upstream: Upstream) -> Upstream:
    """Its n-th answer says n."""
    count = itertools.count(1)

    def reply(request: Request) -> Reply:
        return json_reply(wire.message(f"answer {next(count)}"))

    upstream.default = reply
    return upstream


async def asked(
    cache: Inside, times: int, fields: Mapping[str, str] = AUTO, *, run: str = ""
) -> list[Answer]:
    """The answers to this many equal requests at once."""
    sent = {**fields, "x-cache-run": run} if run else fields
    return await asyncio.gather(*[cache.ask(ASKED, sent) for _ in range(times)])


async def test_each_of_k_equal_requests_gets_an_answer_of_its_own_and_a_rerun_the_same_ones(
    home: Path, numbered: Upstream
) -> None:
    async with inside(home, numbered.url) as cache:
        first = await asked(cache, 4)
        assert [answer.label for answer in first] == ["MISS"] * 4
        assert len({answer.body for answer in first}) == 4
    async with inside(home, numbered.url) as cache:  # another run: the count begins anew
        again = await asked(cache, 5)
        assert sorted(answer.label or "" for answer in again) == ["HIT"] * 4 + ["MISS"]
        assert {answer.body for answer in first} < {answer.body for answer in again}
    assert numbered.call_count == 5


async def test_a_run_by_name_begins_to_count_anew(home: Path, numbered: Upstream) -> None:
    async with inside(home, numbered.url) as cache:
        one = await asked(cache, 2, run="one")
        two = await asked(cache, 2, run="two")
        assert [answer.label for answer in two] == ["HIT", "HIT"]
        assert {answer.body for answer in one} == {answer.body for answer in two}
        plain = await cache.ask(ASKED)
        assert plain.label == "MISS"  # no sample is another question than the first one
        named = await cache.ask(ASKED, {"x-cache-sample": "2"})
        assert named.label == "HIT"


async def test_the_setting_counts_for_who_names_no_sample(home: Path, numbered: Upstream) -> None:
    async with inside(home, numbered.url, CACHE_SAMPLE="auto") as cache:
        answers = await asked(cache, 3, {})
        assert len({answer.body for answer in answers}) == 3
        assert (await cache.ask(ASKED, {"x-cache-sample": "1"})).label == "HIT"


async def test_a_try_that_failed_leaves_its_number_to_the_next(
    home: Path, upstream: Upstream
) -> None:
    upstream.script(json_reply(wire.error(), 529), json_reply(wire.message("first")))
    async with inside(home, upstream.url) as cache:
        assert (await cache.ask(ASKED, AUTO)).status == 529
        assert (await cache.ask(ASKED, AUTO)).label == "MISS"
        assert (await cache.ask(ASKED, {"x-cache-sample": "1"})).label == "HIT"


async def test_a_bypass_takes_no_number(home: Path, numbered: Upstream) -> None:
    async with inside(home, numbered.url) as cache:
        assert (await cache.ask(ASKED, {**AUTO, "x-cache-mode": "bypass"})).label == "BYPASS"
        await cache.ask(ASKED, AUTO)
        assert (await cache.ask(ASKED, {"x-cache-sample": "1"})).label == "HIT"


async def test_normalized_keys_are_counted_apart_as_well(home: Path, numbered: Upstream) -> None:
    async with inside(home, numbered.url) as cache:
        await asked(cache, 2)
        respelled = ASKED.replace(b":", b": ")
        answers = [await cache.ask(respelled, AUTO) for _ in range(2)]
        assert [answer.label for answer in answers] == ["HIT-NORM", "HIT-NORM"]
        assert len({answer.body for answer in answers}) == 2
