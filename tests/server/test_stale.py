"""An expired answer in place of a failed upstream's, in every figure of the running proxy
(CACHE_STALE_IF_ERROR_SEC; RFC 5861, 4). Who gets one is in `tests/exchange/test_stale.py`."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support import anthropic_wire as wire
from support.aging import age
from support.proxy import Proxy
from support.raw import Response
from support.replies import Cut, Raw, Reply, Reset, json_reply
from support.upstream import Upstream

HOUR = 3600
ASKED = wire.request("What is the capital of France?")
SETTINGS = {"CACHE_TTL_SEC": str(HOUR), "CACHE_STALE_IF_ERROR_SEC": str(HOUR)}


def told(response: Response) -> tuple[int, str | None, str]:
    document = json.loads(response.body)
    text = document["content"][0]["text"] if "content" in document else document["error"]["type"]
    return response.status, response.header("x-cache"), text


@pytest.fixture
def expired(upstream: Upstream, proxy: Any) -> Proxy:
    """A proxy with an answer to `ASKED` that expired half an hour ago."""
    one: Proxy = proxy(**SETTINGS)
    upstream.script(json_reply(wire.message("Paris"), headers=wire.RESPONSE_HEADERS))
    assert told(one.ask(ASKED)) == (200, "MISS", "Paris")
    age(one, HOUR * 3 // 2)
    return one


FAILURES = [
    json_reply(wire.error("api_error", "Internal"), 500),
    json_reply(wire.error("overloaded_error", "Overloaded"), 529),
    json_reply(b"<html>bad gateway</html>", 502),
    json_reply(b"", 503, (("retry-after", "7"),)),
    json_reply(b"", 504),
    Reply(before=(Cut(),)),
    Reply(before=(Reset(),)),
    Reply(before=(Raw(b"HTTP/1.1 200 OK\r\ncontent-ty"), Cut())),
]


def test_every_failure_of_the_upstream_is_answered_with_the_expired_one(
    upstream: Upstream, expired: Proxy
) -> None:
    for failure in FAILURES:
        upstream.script(failure)
        answer = expired.ask(ASKED)
        assert told(answer) == (200, "HIT-STALE", "Paris"), failure
        assert answer.header("request-id") == dict(wire.RESPONSE_HEADERS)["request-id"]
        assert HOUR * 3 // 2 <= int(answer.header("age") or "0") < HOUR * 2
        assert answer.header("retry-after") is None
    assert upstream.call_count == 1 + len(FAILURES)
    upstream.refuse()
    upstream.drop_connections()
    assert told(expired.ask(ASKED)) == (200, "HIT-STALE", "Paris")
    figures = expired.stats()
    assert (figures["hits"], figures["misses"], figures["errors"]) == (len(FAILURES) + 1, 1, 0)
    assert figures["tokens_saved"] == (len(FAILURES) + 1) * 46
    assert "answered 529; an expired answer went out in its place" in expired.log()
    assert any("can't be reached" in line for line in figures["recent_errors"])
    assert 'llm_cache_hits_total{model="claude-sonnet-5",provider="anthropic"} 9' in (
        expired.get("/metrics").text
    )
