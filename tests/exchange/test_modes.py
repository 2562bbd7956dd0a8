"""What one request may do with the cache, in every spelling it can be said (SPEC 5.9).

The upstream numbers its answers, so which one a client got tells where it came from.
"""

from __future__ import annotations

import itertools
import json
import time

import pytest
from support import anthropic_wire as wire
from support.cache import Cache, CacheFactory, Received
from support.proxy import anthropic_headers
from support.replies import json_reply
from support.upstream import Upstream, wait_until

ASKED = wire.request()


@pytest.fixture
def numbered(upstream: Upstream) -> Upstream:
    """Its n-th answer says n."""
    count = itertools.count(1)
    upstream.default = lambda request: json_reply(wire.message(f"answer {next(count)}"))
    return upstream


def asked(one: Cache, body: bytes = ASKED, **headers: str) -> tuple[str | None, str]:
    """The label and the text of the answer; a name like `x_cache_mode` is a header."""
    response = one.ask(body, {name.replace("_", "-"): text for name, text in headers.items()})
    assert response.status == 200, response.body
    return response.header("x-cache"), json.loads(response.body)["content"][0]["text"]


def error_of(response: Received) -> tuple[int, str, str]:
    """Status, type and message of an error in Anthropic's shape."""
    document = json.loads(response.body)
    assert document.keys() == {"type", "error"}
    assert document["type"] == "error"
    assert response.header("content-type") == "application/json"
    return response.status, document["error"]["type"], document["error"]["message"]


def test_each_mode_does_what_it_says(numbered: Upstream, cache: CacheFactory) -> None:
    one = cache()
    assert asked(one, x_cache_mode="cache") == ("MISS", "answer 1")
    assert asked(one) == ("HIT", "answer 1")
    assert asked(one, x_cache_mode="fresh") == ("MISS", "answer 2")
    assert asked(one, x_cache_mode="cache") == ("HIT", "answer 2")
    assert asked(one, x_cache_mode="bypass") == ("BYPASS", "answer 3")
    assert asked(one, x_cache_mode="replay") == ("HIT", "answer 2")
    assert asked(one, x_cache_mode="Fresh") == ("MISS", "answer 4")
    assert asked(one, x_cache_mode="replay") == ("HIT", "answer 4")
    assert numbered.call_count == 4
    assert one.stats()["entries"] == 1


def test_cache_mode_is_the_mode_of_a_request_that_names_none(
    numbered: Upstream, cache: CacheFactory
) -> None:
    fresh = cache(CACHE_MODE="fresh")
    assert asked(fresh) == ("MISS", "answer 1")
    assert asked(fresh) == ("MISS", "answer 2")
    assert asked(fresh, x_cache_mode="cache") == ("HIT", "answer 2")
    fresh.stop()
    bypass = cache(CACHE_MODE="bypass")
    assert asked(bypass) == ("BYPASS", "answer 3")
    assert asked(bypass, x_cache_mode="cache") == ("HIT", "answer 2")
    bypass.stop()
    replay = cache(CACHE_MODE="replay")
    assert asked(replay) == ("HIT", "answer 2")
    assert replay.ask(wire.request("never asked")).status == 504
    assert asked(replay, wire.request("new"), x_cache_mode="cache") == ("MISS", "answer 4")
    assert asked(replay, wire.request("new")) == ("HIT", "answer 4")


FLAGGED = ASKED[:-1] + b',"_cache_bypass":true}'
SPELLINGS: list[tuple[dict[str, str], bytes, str]] = [
    ({"x_cache_bypass": "1"}, ASKED, "BYPASS"),
    ({"x_cache_bypass": "true"}, ASKED, "BYPASS"),
    ({"x_cache_bypass": "0"}, ASKED, "HIT"),
    ({"cache_control": "no-store"}, ASKED, "BYPASS"),
    ({"cache_control": "max-age=0, No-Store"}, ASKED, "BYPASS"),
    ({"cache_control": "no-cache"}, ASKED, "MISS"),
    ({"cache_control": "no-cache, no-store"}, ASKED, "BYPASS"),
    ({"cache_control": "only-if-cached"}, ASKED, "HIT"),
    ({"cache_control": "no-transform"}, ASKED, "HIT"),
    ({"x_stasis_mode": "fresh"}, ASKED, "MISS"),
    ({"x_stasis_mode": "bypass"}, ASKED, "BYPASS"),
    ({"x_stasis_mode": "replay"}, ASKED, "HIT"),
    ({}, FLAGGED, "BYPASS"),
    # Our own header wins over another system's, and both over plain cache-control.
    ({"x_cache_mode": "cache", "x_cache_bypass": "1"}, ASKED, "HIT"),
    ({"x_cache_mode": "cache", "x_stasis_mode": "fresh"}, ASKED, "HIT"),
    ({"x_cache_mode": "cache", "cache_control": "no-store"}, ASKED, "HIT"),
    ({"x_cache_mode": "fresh", "cache_control": "only-if-cached"}, ASKED, "MISS"),
    ({"x_cache_mode": "cache"}, FLAGGED, "HIT"),
    ({"x_stasis_mode": "cache", "x_cache_bypass": "1"}, ASKED, "HIT"),
    ({"x_stasis_mode": "cache", "cache_control": "no-cache"}, ASKED, "HIT"),
    ({"x_stasis_mode": "cache"}, FLAGGED, "HIT"),
    ({"x_cache_bypass": "1", "cache_control": "only-if-cached"}, ASKED, "BYPASS"),
    # Every header wins over the body's field: who forbids a call is not overruled.
    ({"cache_control": "no-cache"}, FLAGGED, "MISS"),
    ({"cache_control": "only-if-cached"}, FLAGGED, "HIT"),
]


def test_every_spelling_means_one_mode_and_the_more_exact_one_wins(
    numbered: Upstream, cache: CacheFactory
) -> None:
    one = cache()
    asked(one)
    for headers, body, label in SPELLINGS:
        before = numbered.call_count
        got, _ = asked(one, body, **headers)
        assert got == label, (headers, body[-30:])
        assert (numbered.call_count > before) == (label != "HIT"), headers
        assert asked(one)[0] == "HIT"


def test_replay_never_calls_upstream_and_names_the_key_it_misses(
    numbered: Upstream, cache: CacheFactory
) -> None:
    one = cache()
    fields = [*anthropic_headers(), ("x-cache-mode", "replay")]
    routes = [
        ("POST", "/v1/messages", ASKED, "MISS"),
        ("POST", "/v1/messages", wire.request(stream=True), "MISS"),
        ("POST", "/v1/messages/count_tokens", ASKED, "MISS"),
        ("GET", "/v1/models", b"", "PASS"),  # never cached, so nothing is missing
        ("POST", "/v1/messages/batches", ASKED, "PASS"),
        ("DELETE", "/v1/files/file_1", b"", "PASS"),
    ]
    for method, path, body, label in routes:
        response = one.send(body, fields, path, method)
        status, kind, message = error_of(response)
        assert (status, kind) == (504, "cache_miss")
        key = response.header("x-cache-key") or ""
        assert len(key) == 64
        assert key in message
        assert f"{method} {path}" in message
        assert response.header("x-cache") == label
    assert numbered.call_count == 0
    missed = one.ask(ASKED, {"x-cache-mode": "replay"})
    asked(one)
    found = one.ask(ASKED, {"x-cache-mode": "replay"})
    assert (found.status, found.header("x-cache")) == (200, "HIT")
    assert found.header("x-cache-key") == missed.header("x-cache-key")
    stats = one.stats()
    assert [stats[name] for name in ("calls", "hits", "misses", "passed")] == [6, 1, 5, 3]


def test_replay_answers_from_every_tier_without_upstream(
    numbered: Upstream, cache: CacheFactory
) -> None:
    one = cache()
    asked(one)
    respelled = json.dumps(json.loads(ASKED), indent=2, sort_keys=True).encode()
    assert asked(one, respelled, x_cache_mode="replay") == ("HIT-NORM", "answer 1")
    one.stop()
    again = cache()  # nothing is in memory: found on disk
    assert asked(again, respelled, x_cache_mode="replay") == ("HIT-NORM", "answer 1")
    assert asked(again, x_cache_mode="replay") == ("HIT", "answer 1")
    assert numbered.call_count == 1


BODY_FIELDS = [
    (b'{"_cache_bypass":true,"a":1}', b'{"a":1}', True),
    (b'{"a":1,"_cache_bypass":true}', b'{"a":1}', True),
    (
        b'{ "a" : 1 ,\n "_cache_bypass" : true , "b":[1.0, 2] }',
        b'{ "a" : 1 ,\n "b":[1.0, 2] }',
        True,
    ),
    (b'{"a":1,"_cache_bypass":false}', b'{"a":1}', False),
    (b'{"_cache_bypass":true}', b"{}", True),
    # Not ours: in a string, deeper down, of another type, in what isn't JSON.
    (b'{"a":"\\"_cache_bypass\\":true"}', b'{"a":"\\"_cache_bypass\\":true"}', False),
    (b'{"a":{"_cache_bypass":true}}', b'{"a":{"_cache_bypass":true}}', False),
    (b'{"_cache_bypass":"yes"}', b'{"_cache_bypass":"yes"}', False),
    (b'{"_cache_bypass":true', b'{"_cache_bypass":true', False),
]


def test_the_body_field_is_cut_out_and_every_other_byte_forwarded(
    numbered: Upstream, cache: CacheFactory
) -> None:
    one = cache()
    for sent, expected, bypassed in BODY_FIELDS:
        mode = {} if bypassed else {"x_cache_mode": "fresh"}
        label, _ = asked(one, sent, **mode)
        assert label == ("BYPASS" if bypassed else "MISS"), sent
        assert numbered.calls[-1].request.body == expected


def test_a_body_field_that_is_false_leaves_the_key_as_without_it(
    numbered: Upstream, cache: CacheFactory
) -> None:
    one = cache()
    asked(one)
    unflagged = ASKED[:-1] + b',"_cache_bypass":false}'
    assert asked(one, unflagged) == ("HIT", "answer 1")
    assert asked(one, FLAGGED, x_cache_mode="replay") == ("HIT", "answer 1")


def wait_for_clock(moment: float) -> None:
    wait_until(lambda: time.time() > moment, "the clock")


def test_x_cache_ttl_limits_an_answers_life_and_its_age_on_reading(
    numbered: Upstream, cache: CacheFactory
) -> None:
    one = cache()
    short, plain, other = (wire.request(name) for name in ("short", "plain", "other"))
    assert asked(one, short, x_cache_ttl="1") == ("MISS", "answer 1")
    assert asked(one, plain) == ("MISS", "answer 2")
    assert asked(one, other) == ("MISS", "answer 3")
    stored = time.time()
    assert asked(one, short)[0] == "HIT"
    assert asked(one, plain, x_cache_ttl="60")[0] == "HIT"
    wait_for_clock(stored + 1.05)
    assert asked(one, plain, x_cache_ttl="1") == ("MISS", "answer 4")
    assert asked(one, other, x_cache_ttl="0") == ("HIT", "answer 3")
    assert asked(one, other, x_cache_ttl="60") == ("HIT", "answer 3")
    assert asked(one, other) == ("HIT", "answer 3")  # a reader's limit takes nothing from others
    assert asked(one, short) == ("MISS", "answer 5")
    too_old = one.ask(other, {"x-cache-ttl": "1", "x-cache-mode": "replay"})
    assert error_of(too_old)[:2] == (504, "cache_miss")


def test_x_cache_ttl_zero_stores_without_limit(numbered: Upstream, cache: CacheFactory) -> None:
    one = cache(CACHE_TTL_SEC="1")
    ever, plain = wire.request("ever"), wire.request("plain")
    asked(one, ever, x_cache_ttl="0")
    asked(one, plain)
    stored = time.time()
    wait_for_clock(stored + 1.05)
    assert asked(one, ever) == ("HIT", "answer 1")
    assert asked(one, plain) == ("MISS", "answer 3")


def test_nothing_meant_for_the_proxy_is_forwarded(numbered: Upstream, cache: CacheFactory) -> None:
    one = cache()
    ours = {
        "x-cache-mode": "fresh",
        "x-cache-ttl": "9",
        "x-cache-namespace": "suite",
        "x-cache-sample": "1",
        "x-cache-bypass": "0",
        "x-cache-auth": "secret",
        "X-Cache-Anything": "else",
        "x-cache": "HIT",
        "x-cache-key": "ab",
        "x-stasis-mode": "cache",
    }
    one.ask(ASKED, {**ours, "x-cachet": "theirs"})
    one.send(b"", [*anthropic_headers(), *ours.items()], "/v1/models", "GET")
    for call in numbered.calls:
        names = {name for name, _ in call.request.headers}
        assert not [name for name in names if name.startswith(("x-cache-", "x-stasis-"))]
        assert "x-cache" not in names
    assert numbered.calls[0].request.header("x-cachet") == "theirs"


def test_namespace_and_sample_split_the_cache_and_are_found_again(
    numbered: Upstream, cache: CacheFactory
) -> None:
    one = cache()
    places: list[dict[str, str]] = [
        {},
        {"x_cache_sample": "1"},
        {"x_cache_sample": "2"},
        {"x_cache_namespace": "1"},
        {"x_cache_namespace": "1", "x_cache_sample": "1"},
        {"x_cache_namespace": "11"},
        {"x_cache_namespace": "caf\xe9 \t/;"},
    ]
    found = [asked(one, **place) for place in places]
    assert found == [("MISS", f"answer {n}") for n in range(1, len(places) + 1)]
    found = [asked(one, **place) for place in places]
    assert found == [("HIT", f"answer {n}") for n in range(1, len(places) + 1)]
    respelled = json.dumps(json.loads(ASKED), indent=1).encode()
    found = [asked(one, respelled, **place) for place in places]
    assert found == [("HIT-NORM", f"answer {n}") for n in range(1, len(places) + 1)]
