"""Answers that are meant to be the same each time are kept for a time of their own."""

from __future__ import annotations

import json

import pytest
from support import openai_wire as wire
from support.aging import age
from support.cache import Cache, CacheFactory
from support.replies import json_reply
from support.upstream import Upstream

HOUR, YEAR = 3600, 365 * 86400
HEADERS = [("content-type", "application/json"), ("authorization", "Bearer sk")]
EMBEDDING = json.dumps(
    {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.25, -0.5]}],
        "model": "text-embedding-3-small",
        "usage": {"prompt_tokens": 2, "total_tokens": 2},
    }
).encode()

CHAT = "/v1/chat/completions"
REPEATABLE = [
    (CHAT, wire.request(temperature=0, seed=7)),
    (CHAT, wire.request(temperature=0.0, seed=0)),
    ("/v1/embeddings", wire.dump({"model": "text-embedding-3-small", "input": "tea"})),
]
OTHERS = [
    (CHAT, wire.request()),
    (CHAT, wire.request(temperature=0)),
    (CHAT, wire.request(seed=7)),
    (CHAT, wire.request(temperature=0.1, seed=7)),
    (CHAT, wire.request(temperature=False, seed=7)),
    (CHAT, wire.request(temperature=0, seed=7, web_search_options={"x": 1})),
]


@pytest.fixture
def answering(upstream: Upstream) -> Upstream:
    upstream.default = lambda request: json_reply(
        EMBEDDING if request.target.endswith("/embeddings") else wire.chat("42")
    )
    return upstream


def started(cache: CacheFactory, upstream: Upstream, **settings: str) -> Cache:
    return cache(CACHE_UPSTREAM_OPENAI=upstream.url, **settings)


def labels(
    one: Cache, requests: list[tuple[str, bytes]], **headers: str
) -> set[tuple[int, str | None]]:
    fields = [*HEADERS, *((name.replace("_", "-"), text) for name, text in headers.items())]
    answers = [one.send(body, fields, path) for path, body in requests]
    return {(answer.status, answer.header("x-cache")) for answer in answers}


def test_repeatable_answers_are_kept_without_end_and_others_are_not(
    answering: Upstream, cache: CacheFactory
) -> None:
    one = started(cache, answering, CACHE_TTL_SEC=str(HOUR), CACHE_TTL_DETERMINISTIC_SEC="0")
    assert labels(one, REPEATABLE + OTHERS) == {(200, "MISS")}
    assert labels(one, REPEATABLE + OTHERS) == {(200, "HIT")}
    age(one, 10 * YEAR)
    assert labels(one, REPEATABLE) == {(200, "HIT")}
    assert labels(one, OTHERS) == {(200, "MISS")}


def test_or_for_as_long_as_the_setting_says(answering: Upstream, cache: CacheFactory) -> None:
    one = started(
        cache, answering, CACHE_TTL_SEC=str(HOUR), CACHE_TTL_DETERMINISTIC_SEC=str(3 * HOUR)
    )
    labels(one, REPEATABLE + OTHERS)
    age(one, 2 * HOUR)
    assert labels(one, REPEATABLE) == {(200, "HIT")}
    assert labels(one, OTHERS) == {(200, "MISS")}
    age(one, HOUR)
    assert labels(one, REPEATABLE) == {(200, "MISS")}


def test_or_shorter(answering: Upstream, cache: CacheFactory) -> None:
    one = started(cache, answering, CACHE_TTL_SEC="0", CACHE_TTL_DETERMINISTIC_SEC=str(HOUR))
    labels(one, REPEATABLE + OTHERS)
    age(one, YEAR)
    assert labels(one, REPEATABLE) == {(200, "MISS")}
    assert labels(one, OTHERS) == {(200, "HIT")}


def test_unset_they_are_kept_like_all_others(answering: Upstream, cache: CacheFactory) -> None:
    one = started(cache, answering, CACHE_TTL_SEC=str(HOUR))
    labels(one, REPEATABLE)
    age(one, 2 * HOUR)
    assert labels(one, REPEATABLE) == {(200, "MISS")}


def test_the_requests_own_ttl_wins(answering: Upstream, cache: CacheFactory) -> None:
    one = started(cache, answering, CACHE_TTL_DETERMINISTIC_SEC="0")
    labels(one, REPEATABLE, x_cache_ttl=str(HOUR))
    age(one, 2 * HOUR)
    assert labels(one, REPEATABLE) == {(200, "MISS")}
