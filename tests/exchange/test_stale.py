"""An expired answer in place of a failed upstream's (CACHE_STALE_IF_ERROR_SEC; RFC 5861, 4)."""

from __future__ import annotations

import json
import threading

import pytest
from support import anthropic_wire as wire
from support.aging import age
from support.cache import Cache, CacheFactory, Received
from support.replies import Cut, Gate, Reply, json_reply, sse_reply
from support.upstream import Upstream, wait_until

HOUR = 3600
ASKED = wire.request("What is the capital of France?")
SETTINGS = {"CACHE_TTL_SEC": str(HOUR), "CACHE_STALE_IF_ERROR_SEC": str(HOUR)}


def told(response: Received) -> tuple[int, str | None, str]:
    document = json.loads(response.body)
    text = document["content"][0]["text"] if "content" in document else document["error"]["type"]
    return response.status, response.header("x-cache"), text


@pytest.fixture
def expired(upstream: Upstream, cache: CacheFactory) -> Cache:
    """A cache with an answer to `ASKED` that expired half an hour ago."""
    one = cache(**SETTINGS)
    upstream.script(json_reply(wire.message("Paris"), headers=wire.RESPONSE_HEADERS))
    assert told(one.ask(ASKED)) == (200, "MISS", "Paris")
    age(one, HOUR * 3 // 2)
    return one


def test_an_upstream_that_answers_is_asked_and_its_answer_replaces_the_expired_one(
    upstream: Upstream, expired: Cache
) -> None:
    upstream.script(json_reply(wire.message("Still Paris")))
    assert told(expired.ask(ASKED)) == (200, "MISS", "Still Paris")
    assert told(expired.ask(ASKED)) == (200, "HIT", "Still Paris")
    assert expired.stats()["entries"] == 1


def test_refusals_and_limits_pass_through_untouched(upstream: Upstream, expired: Cache) -> None:
    for status, kind in ((429, "rate_limit_error"), (400, "invalid_request_error"), (401, "x")):
        upstream.script(json_reply(wire.error(kind), status, (("retry-after", "30"),)))
        answer = expired.ask(ASKED)
        assert told(answer) == (status, "MISS", kind)
        assert answer.header("retry-after") == "30"


def test_who_wants_a_fresh_answer_or_none_of_the_cache_gets_the_failure(
    upstream: Upstream, expired: Cache
) -> None:
    upstream.default = json_reply(wire.error("api_error"), 500)
    for headers, label in (
        ({"x-cache-mode": "fresh"}, "MISS"),
        ({"cache-control": "no-cache"}, "MISS"),
        ({"x-cache-mode": "bypass"}, "BYPASS"),
        ({"x-cache-sample": "2"}, "MISS"),
    ):
        assert told(expired.ask(ASKED, headers)) == (500, label, "api_error")
    assert told(expired.ask(wire.request("Another question?"))) == (500, "MISS", "api_error")
    calls = upstream.call_count
    assert told(expired.ask(ASKED, {"x-cache-mode": "replay"})) == (504, "MISS", "cache_miss")
    assert upstream.call_count == calls


def test_another_spelling_of_the_request_gets_the_expired_answer_too(
    upstream: Upstream, expired: Cache
) -> None:
    upstream.script(json_reply(b"", 503))
    respelled = json.dumps(json.loads(ASKED), indent=2).encode()
    assert told(expired.ask(respelled)) == (200, "HIT-STALE", "Paris")


def test_an_answer_that_expired_too_long_ago_is_gone(upstream: Upstream, expired: Cache) -> None:
    upstream.default = json_reply(wire.error("api_error"), 500)
    age(expired, HOUR)
    assert told(expired.ask(ASKED)) == (500, "MISS", "api_error")
    wait_until(lambda: expired.stats()["entries"] == 0, "the entry to be pruned")


def test_by_default_nothing_expired_answers(upstream: Upstream, cache: CacheFactory) -> None:
    one = cache(CACHE_TTL_SEC=str(HOUR))
    upstream.script(json_reply(wire.message("Paris")))
    one.ask(ASKED)
    age(one, HOUR)
    upstream.script(json_reply(wire.error("api_error"), 500))
    assert told(one.ask(ASKED)) == (500, "MISS", "api_error")
    upstream.refuse()
    upstream.drop_connections()
    assert told(one.ask(ASKED)) == (502, "ERROR", "upstream_error")


def test_an_answer_too_old_for_this_client_alone_helps_it_too(
    upstream: Upstream, cache: CacheFactory
) -> None:
    one = cache(CACHE_STALE_IF_ERROR_SEC="600")
    upstream.script(json_reply(wire.message("Paris")))
    one.ask(ASKED)
    age(one, 300)
    upstream.default = json_reply(wire.error("api_error"), 500)
    assert told(one.ask(ASKED, {"x-cache-ttl": "60"})) == (200, "HIT-STALE", "Paris")
    assert told(one.ask(ASKED)) == (200, "HIT", "Paris")
    age(one, 400)
    assert told(one.ask(ASKED, {"x-cache-ttl": "60"})) == (500, "MISS", "api_error")


def test_a_stream_that_breaks_off_after_it_began_is_cut_as_always(
    upstream: Upstream, expired: Cache
) -> None:
    upstream.script(sse_reply([*wire.stream()[:3], Cut()]))
    answer = expired.ask(ASKED)
    assert (answer.status, answer.complete) == (200, False)
    assert answer.header("x-cache") == "MISS"


def test_joiners_of_a_failing_call_get_the_expired_answer_as_well(
    upstream: Upstream, expired: Cache
) -> None:
    gate = Gate()
    upstream.script(Reply(before=(gate, Cut())))
    answers: list[tuple[int, str | None, str]] = []

    def ask() -> None:
        answers.append(told(expired.ask(ASKED)))

    askers = [threading.Thread(target=ask) for _ in range(4)]
    askers[0].start()
    gate.wait_reached()
    for asker in askers[1:]:
        asker.start()
    for _ in range(3):  # later requests that were answered: those before have joined
        upstream.script(json_reply(wire.message("other")))
        expired.ask(wire.request("other"), {"x-cache-mode": "fresh"})
    gate.release()
    for asker in askers:
        asker.join()
    assert answers == [(200, "HIT-STALE", "Paris")] * 4
