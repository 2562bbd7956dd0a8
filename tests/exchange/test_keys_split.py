"""What makes two requests different ones, and what doesn't (SPEC 4); and what is never cached.

The upstream numbers its answers. A request that splits gets a number of its own.
"""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from support import anthropic_wire as wire
from support.cache import Cache, CacheFactory, Received
from support.replies import Reply, json_reply
from support.upstream import Request, Upstream

ASKED = wire.request()
Fields = list[tuple[str, str]]
BASE: Fields = [
    ("content-type", "application/json"),
    ("anthropic-version", "2023-06-01"),
    ("x-api-key", "sk-ant-test-key"),
]


@pytest.fixture
def numbered(upstream: Upstream) -> Upstream:
    """Its n-th answer says n, whatever was asked."""
    count = itertools.count(1)

    def reply(request: Request) -> Reply:
        if request.target.partition("?")[0].endswith("/count_tokens"):
            return json_reply(wire.count_tokens(next(count)))
        return json_reply(wire.message(f"answer {next(count)}"))

    upstream.default = reply
    return upstream


def post(
    one: Cache, target: str = "/v1/messages", fields: Fields = BASE, body: bytes = ASKED
) -> Received:
    response = one.send(body, fields, target)
    assert response.status == 200, response.body
    return response


def without(name: str) -> Fields:
    return [field for field in BASE if field[0] != name]


SPLITTING: list[tuple[str, Fields]] = [
    ("/v1/messages", BASE),
    ("/v1/messages/count_tokens", BASE),
    ("/v1/messages?beta=true", BASE),
    ("/v1/messages?beta=false", BASE),
    ("/v1/messages?beta=true&x=1", BASE),
    ("/v1/messages/count_tokens?beta=true", BASE),
    ("/v1/messages", [*without("anthropic-version"), ("anthropic-version", "2023-01-01")]),
    ("/v1/messages", without("anthropic-version")),
    ("/v1/messages", [*BASE, ("anthropic-beta", "a")]),
    ("/v1/messages", [*BASE, ("anthropic-beta", "b")]),
    ("/v1/messages", [*BASE, ("anthropic-beta", "a"), ("anthropic-beta", "b")]),
    ("/v1/messages", [*BASE, ("anthropic-beta", "b"), ("anthropic-beta", "a")]),
    ("/v1/messages", [*BASE, ("anthropic-beta", "a"), ("anthropic-beta", "a")]),
    ("/v1/messages", [*BASE, ("anthropic-unheard-of", "1")]),
    ("/v1/messages", [*without("x-api-key"), ("x-api-key", "sk-ant-other")]),
    ("/v1/messages", [*without("x-api-key"), ("authorization", "Bearer sk-ant-test-key")]),
    ("/v1/messages", [*BASE, ("authorization", "Bearer token")]),
    ("/v1/messages", without("x-api-key")),
]


def test_no_two_requests_that_may_be_answered_differently_share_an_entry(
    numbered: Upstream, cache: CacheFactory
) -> None:
    """BAR fault 2: path, query, `anthropic-beta` and `anthropic-version` aren't in the key."""
    one = cache()
    first = [post(one, target, fields) for target, fields in SPLITTING]
    assert [answer.header("x-cache") for answer in first] == ["MISS"] * len(SPLITTING)
    assert len({answer.header("x-cache-key") for answer in first}) == len(SPLITTING)
    again = [post(one, target, fields) for target, fields in SPLITTING]
    assert [answer.header("x-cache") for answer in again] == ["HIT"] * len(SPLITTING)
    assert [answer.body for answer in again] == [answer.body for answer in first]
    assert numbered.call_count == len(SPLITTING)
    # Nor do the further tiers mix them up.
    respelled = json.dumps(json.loads(ASKED), indent=1).encode()
    third = [post(one, target, fields, respelled) for target, fields in SPLITTING]
    assert [answer.header("x-cache") for answer in third] == ["HIT-NORM"] * len(SPLITTING)
    assert [answer.body for answer in third] == [answer.body for answer in first]


def test_every_byte_of_a_body_is_in_the_exact_key(numbered: Upstream, cache: CacheFactory) -> None:
    one = cache(CACHE_NORMALIZE="off")
    bodies = [ASKED, ASKED + b" ", ASKED.replace(b'"Say', b'"say'), ASKED[:-1], b""]
    keys = {post(one, body=body).header("x-cache-key") for body in bodies}
    assert len(keys) == len(bodies)
    assert numbered.call_count == len(bodies)


CHANGES: list[dict[str, Any]] = [
    {"system": "be nice"},
    {"system": "be evil"},
    {"tools": [{"name": "t", "input_schema": {"type": "object"}}]},
    {"thinking": {"type": "enabled", "budget_tokens": 1024}},
    {"stop_sequences": ["x"]},
    {"temperature": 0.5},
    {"temperature": 0.5, "top_k": 1},
    {"max_tokens": 1025},
    {"model": "claude-opus-5"},
    {"stream": False},
    {"metadata": {"user_id": "u", "other": 1}},
    {"a parameter nobody has heard of yet": None},
]


def test_every_parameter_splits_every_tier(numbered: Upstream, cache: CacheFactory) -> None:
    one = cache()
    post(one)
    for change in CHANGES:
        changed = wire.dump({**json.loads(ASKED), **change})
        assert post(one, body=changed).header("x-cache") == "MISS", change
    assert numbered.call_count == len(CHANGES) + 1


def test_what_says_nothing_about_the_answer_does_not_split(
    numbered: Upstream, cache: CacheFactory
) -> None:
    one = cache()
    first = post(one, fields=[*BASE, ("anthropic-beta", "a"), ("anthropic-feature", "b")])
    same: list[Fields] = [
        [*BASE, ("anthropic-feature", "b"), ("anthropic-beta", "a")],
        [("anthropic-beta", "a"), ("anthropic-feature", "b"), *reversed(BASE)],
        [*BASE, ("Anthropic-Beta", "a"), ("ANTHROPIC-FEATURE", "b")],
    ]
    noise = [
        ("user-agent", "Anthropic/Python 1.2.3"),
        ("accept", "application/json"),
        ("accept", "text/event-stream"),
        ("accept-language", "de"),
        ("accept-encoding", "gzip, zstd"),
        ("x-stainless-retry-count", "2"),
        ("x-stainless-lang", "python"),
        ("x-stainless-timeout", "600"),
        ("idempotency-key", "abc"),
        ("x-request-id", "123"),
        ("x-app", "cli"),
        ("cookie", "a=b"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("anthropic-dangerous-direct-browser-access", "true"),
        ("connection", "close"),
        ("te", "trailers"),
        ("cache-control", "max-age=60"),
        ("x-cache-mode", "cache"),
    ]
    beta = [("anthropic-beta", "a"), ("anthropic-feature", "b")]
    same += [[*BASE, *beta, one_more] for one_more in noise]
    same.append([*noise, *beta, *BASE])
    for fields in same:
        answer = post(one, fields=fields)
        assert (answer.header("x-cache"), answer.body) == ("HIT", first.body), fields
        assert answer.header("x-cache-key") == first.header("x-cache-key")
    assert numbered.call_count == 1


def test_a_shared_scope_ignores_whose_credentials_they_are(
    numbered: Upstream, cache: CacheFactory
) -> None:
    one = cache(CACHE_SCOPE="shared")
    post(one)
    for fields in (
        [*without("x-api-key"), ("x-api-key", "sk-ant-other")],
        [*without("x-api-key"), ("authorization", "Bearer of the next hour")],
        without("x-api-key"),
    ):
        assert post(one, fields=fields).header("x-cache") == "HIT"
    assert post(one, "/v1/messages?beta=true").header("x-cache") == "MISS"


def test_with_a_real_key_the_clients_own_one_is_neither_in_the_key_nor_forwarded(
    numbered: Upstream, cache: CacheFactory
) -> None:
    one = cache(ANTHROPIC_API_KEY_REAL="sk-ant-real")
    post(one)
    assert post(one, fields=without("x-api-key")).header("x-cache") == "HIT"
    fields = [*without("x-api-key"), ("authorization", "Bearer anything")]
    assert post(one, fields=fields).header("x-cache") == "HIT"
    post(one, fields=[*fields, ("x-cache-mode", "fresh")])
    for call in numbered.calls:
        assert call.request.header("x-api-key") == "sk-ant-real"
        assert call.request.header("authorization") is None


def test_another_upstream_has_other_entries(numbered: Upstream, cache: CacheFactory) -> None:
    first = cache()
    post(first)
    first.stop()
    moved = cache(CACHE_UPSTREAM_ANTHROPIC=f"{numbered.url}/gateway/")
    assert post(moved).header("x-cache") == "MISS"
    assert numbered.calls[-1].request.target == "/gateway/v1/messages"
    assert post(moved).header("x-cache") == "HIT"


def test_the_provider_prefix_is_another_way_to_the_same_entry(
    numbered: Upstream, cache: CacheFactory
) -> None:
    one = cache()
    prefixed = post(one, "/anthropic/v1/messages?beta=true")
    assert numbered.calls[-1].request.target == "/v1/messages?beta=true"
    plain = post(one, "/v1/messages?beta=true")
    assert (plain.header("x-cache"), plain.body) == ("HIT", prefixed.body)
    assert plain.header("x-cache-key") == prefixed.header("x-cache-key")
