"""The proxy's own endpoints (SPEC 5a): exact paths, managing the store, `/monitor`'s manners."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from support import anthropic_wire as wire
from support.proxy import MonitorFeed, Proxy
from support.raw import Ending, Response, exchange
from support.replies import gzip_reply, json_reply, sse_reply
from support.upstream import Upstream, wait_until

from llm_cache import __version__
from llm_cache.exchange.calls import Call
from llm_cache.server.feed import BACKLOG, Feed
from llm_cache.store import Limits, open_store


def test_health_says_who_answers_and_never_needs_the_token(upstream: Upstream, proxy: Any) -> None:
    one: Proxy = proxy(CACHE_AUTH_TOKEN="token")
    answer = one.get("/health")
    health = answer.json()
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    assert health.pop("uptime_s") in range(60)
    expected = {"status": "ok", "version": __version__, "pid": one.pid, "cache": "on"}
    assert health == expected
    assert one.get("/health?x=1").status_code == 200


def test_own_paths_are_compared_byte_for_byte(upstream: Upstream, proxy: Any) -> None:
    """BAR fault 12: `/healthANYTHING` answers as `/health`."""
    one: Proxy = proxy()
    for path in (
        "/healthANYTHING",
        "/health/",
        "/health/x",
        "/Health",
        "/healt%68",
        "/health%3f",
        "/stats/",
        "/statsx",
        "/metrics/x",
        "/monitor/",
        "/cache",
        "/cache/",
        "/cache/clear/",
        "/cache/unheard-of",
    ):
        for method in ("GET", "POST"):
            answer = exchange(one.port, method, path)
            assert answer.status == 404, (method, path)
            assert json.loads(answer.body)["error"]["type"] == "not_found"
    assert upstream.call_count == 0


OWN = {
    "/health": "GET",
    "/stats": "GET",
    "/metrics": "GET",
    "/monitor": "GET",
    "/cache/stats": "GET",
    "/cache/clear": "POST",
    "/cache/entry": "DELETE",
    "/cache/mode": "POST",
}


def test_each_own_path_takes_its_method_only(upstream: Upstream, proxy: Any) -> None:
    one: Proxy = proxy()
    for path, right in OWN.items():
        for method in {"GET", "POST", "PUT", "DELETE", "PATCH"} - {right}:
            answer = exchange(one.port, method, path)
            assert answer.status == 405, (method, path)
            assert right in json.loads(answer.body)["error"]["message"]
            has_head = right == "GET" and path != "/monitor"
            assert answer.header("allow") == ("GET, HEAD" if has_head else right)
    assert upstream.call_count == 0
    for path in ("/health", "/stats", "/metrics", "/cache/stats"):
        head, get = (exchange(one.port, method, path) for method in ("HEAD", "GET"))
        assert (head.status, head.body, get.status) == (200, b"", 200)
        assert int(head.header("content-length") or 0) > 0


def test_with_a_token_every_own_path_but_health_needs_it(upstream: Upstream, proxy: Any) -> None:
    one: Proxy = proxy(CACHE_AUTH_TOKEN="the-token")
    upstream.default = json_reply(wire.message())
    with_token = [("x-cache-auth", "the-token")]
    fields = dict(with_token)
    assert one.ask(wire.request(), fields).header("x-cache") == "MISS"
    for path, method in OWN.items():
        if path == "/health":
            continue
        for wrong in ([], [("x-cache-auth", "the-tokem")], [("x-api-key", "the-token")]):
            answer = exchange(one.port, method, path, wrong)
            assert answer.status == 401, path
            assert json.loads(answer.body)["error"]["type"] == "authentication_error"
    assert one.ask(wire.request(), fields).header("x-cache") == "HIT"  # nothing was cleared
    assert exchange(one.port, "POST", "/cache/clear", with_token).status == 200
    assert one.ask(wire.request(), fields).header("x-cache") == "MISS"


def test_entries_are_counted_deleted_and_cleared(upstream: Upstream, proxy: Any) -> None:
    one: Proxy = proxy()
    upstream.default = json_reply(wire.message())
    keys = [one.ask(wire.request(name)).header("x-cache-key") or "" for name in "abc"]
    assert one.ask(wire.request("a")).header("x-cache") == "HIT"
    stats = one.get("/cache/stats").json()
    assert (stats["entries"], stats["hits"], stats["misses"]) == (3, 1, 3)
    assert stats["bytes"] == one.stats()["bytes"] > 0
    assert one._client.delete(f"/cache/entry?key={keys[0].upper()}").json() == {
        "status": "success",
        "key": keys[0],
    }
    assert one.get("/cache/stats").json()["entries"] == 2
    assert one.ask(wire.request("a"), {"x-cache-mode": "replay"}).status == 504
    assert one.ask(wire.request("b")).header("x-cache") == "HIT"
    assert one.post("/cache/clear").json() == {"status": "success", "removed": 2}
    assert one.post("/cache/clear").json() == {"status": "success", "removed": 0}
    stats = one.get("/cache/stats").json()
    assert (stats["entries"], stats["bytes"]) == (0, 0)
    assert not list((one.home / "store" / "blobs").glob("*/*.zst"))
    for name in "bc":
        assert one.ask(wire.request(name)).header("x-cache") == "MISS"
    assert one.stats()["misses"] == 3 + 1 + 2  # figures are not entries: clearing keeps them


def test_deleting_what_is_not_there_is_404_and_what_is_no_key_400(
    upstream: Upstream, proxy: Any
) -> None:
    one: Proxy = proxy()
    upstream.default = json_reply(wire.message())
    key = one.ask(wire.request()).header("x-cache-key") or ""

    def deleted(query: str) -> tuple[int, str]:
        answer = exchange(one.port, "DELETE", f"/cache/entry{query}")
        return answer.status, json.loads(answer.body)["error"]["type"]

    assert deleted("?key=" + "0" * 64) == (404, "not_found")
    for query in (
        "",
        "?",
        "?key=",
        "?key=abc",
        f"?key={key[:-1]}",
        f"?key={key}0",
        f"?key={key[:-1]}g",
        f"?key={key[:32]}%20{key[33:]}",
        f"?kez={key}",
    ):
        assert deleted(query) == (400, "invalid_request"), query
    assert one.ask(wire.request()).header("x-cache") == "HIT"
    assert exchange(one.port, "DELETE", f"/cache/entry?key={key}").status == 200
    assert deleted(f"?key={key}") == (404, "not_found")


def test_an_entry_is_deleted_by_any_of_its_keys_and_gone_for_all_of_them(
    upstream: Upstream, proxy: Any, home: Path
) -> None:
    one: Proxy = proxy()
    upstream.default = json_reply(wire.message())
    respelled = wire.request() + b" "
    for asked in (wire.request(), respelled):  # a hit names the key its answer has in the store
        one.ask(wire.request())
        key = one.ask(asked).header("x-cache-key")
        assert exchange(one.port, "DELETE", f"/cache/entry?key={key}").status == 200
        assert one.ask(respelled, {"x-cache-mode": "replay"}).status == 504
        assert one.ask(wire.request(), {"x-cache-mode": "replay"}).status == 504


def test_an_error_is_shown_with_the_model_that_was_asked_for_and_counted_for_none(
    upstream: Upstream, proxy: Any
) -> None:
    one: Proxy = proxy()
    upstream.default = json_reply(wire.error("rate_limit_error", "slow down"), status=429)
    assert one.ask(wire.request()).status == 429
    assert one.ask(wire.request(), {"x-cache-mode": "replay"}).status == 504
    lines = [line for line in one.log().splitlines() if " MISS " in line]
    assert len(lines) == 2
    assert all(f"MISS {wire.MODEL}  " in line for line in lines)
    assert [row["model"] for row in one.stats()["by_model"]] == [None]


def test_a_provider_without_an_upstream_says_which_setting_is_missing(proxy: Any) -> None:
    one: Proxy = proxy()
    answer = one.post("/azure/openai/deployments/x/chat/completions?api-version=1", b"{}")
    assert answer.status_code == 502
    assert "set CACHE_UPSTREAM_AZURE" in answer.text


def test_what_another_process_deletes_is_gone_on_the_next_request(
    upstream: Upstream, proxy: Any, home: Path, tmp_path: Path
) -> None:
    one: Proxy = proxy()
    upstream.default = json_reply(wire.message())
    key = one.ask(wire.request()).header("x-cache-key") or ""
    assert one.ask(wire.request()).header("x-cache") == "HIT"
    store = open_store("local", home / "store", Limits())
    assert store.delete(bytes.fromhex(key))
    store.close()
    assert one.ask(wire.request()).header("x-cache") == "MISS"


def end_to_end(answer: Response) -> dict[str, str]:
    own = {"x-cache", "x-cache-key", "age", "date", "transfer-encoding", "content-length"}
    return {name: value for name, value in answer.headers if name not in own}


@pytest.mark.parametrize("kind", ["plain", "streamed", "gzip"])
def test_a_hit_has_every_end_to_end_header_of_its_miss(
    upstream: Upstream, proxy: Any, kind: str
) -> None:
    """BAR fault 12: hits lose `request-id` and every other header."""
    one: Proxy = proxy()
    extra = (
        *wire.RESPONSE_HEADERS,
        ("set-cookie", "a=b"),
        ("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ("x-cache", "HIT from elsewhere"),
    )
    streamed = kind == "streamed"
    reply = (
        sse_reply(wire.stream(), headers=extra)
        if streamed
        else json_reply(wire.message(), headers=extra)
    )
    upstream.default = gzip_reply(reply) if kind == "gzip" else reply
    fields = {"accept-encoding": "gzip"}
    miss, hit = (one.ask(wire.request(stream=streamed), fields) for _ in range(2))
    assert (miss.header("x-cache"), hit.header("x-cache")) == ("MISS", "HIT")
    assert hit.body == miss.body
    expected = end_to_end(miss)
    assert expected.pop("set-cookie") == "a=b"
    assert end_to_end(hit) == expected
    for name, value in wire.RESPONSE_HEADERS:
        assert (miss.header(name), hit.header(name)) == (value, value)
    assert hit.header("x-cache-key") == miss.header("x-cache-key")
    assert (miss.header("age"), hit.header("age")) == (None, "0")
    assert miss.header("date") == "Sun, 06 Nov 1994 08:49:37 GMT"
    assert hit.header("date") != miss.header("date")
    for name in ("content-length", "transfer-encoding"):
        assert hit.header(name) == miss.header(name)


# /monitor


def test_monitor_is_an_event_stream_that_ends_with_the_proxy(
    upstream: Upstream, proxy: Any
) -> None:
    one: Proxy = proxy()
    upstream.default = json_reply(wire.message())
    with one.connect(deadline=30) as connection:
        feed = connection.request("GET", "/monitor")
        assert feed.header("content-type") == "text/event-stream"
        feed.read_until(b"\n\n")
        assert feed.body == b'data: {"type":"connected"}\n\n'
        one.ask(wire.request(), {"x-cache-namespace": "n"})
        feed.read_until(b'"seq": 1')
        assert one.stop() == 0
        feed.read_all()
        assert feed.ending is Ending.COMPLETE


def test_monitors_come_and_go_without_a_trace(upstream: Upstream, proxy: Any) -> None:
    one: Proxy = proxy()
    upstream.default = json_reply(wire.message())
    descriptors = Path(f"/proc/{one.pid}/fd")
    one.ask(wire.request())
    feeds = [MonitorFeed(one.port, deadline=20) for _ in range(20)]
    one.ask(wire.request())
    assert {feed.next()["seq"] for feed in feeds} == {2}
    for feed in feeds:
        feed.close()
    one.ask(wire.request())
    if descriptors.exists():
        wait_until(lambda: len(list(descriptors.iterdir())) < 60, "connections are closed")
    assert one.stats()["calls"] == 3


async def test_a_listener_that_falls_behind_loses_the_oldest_events_and_is_told() -> None:
    feed = Feed()
    listener = feed.listen()
    assert await listener.next() == b'data: {"type":"connected"}\n\n'
    call = Call(type="HIT", provider="anthropic", model="m", status=200, seconds=0.1)
    for _ in range(BACKLOG + 7):
        feed.publish(call, 1.5)
    events = [json.loads(line[6:]) for line in (await listener.next()).split(b"\n\n") if line]
    assert events[0] == {"type": "dropped", "count": 7}
    assert [event["seq"] for event in events[1:]] == list(range(8, BACKLOG + 8))
    waiting = asyncio.create_task(listener.next())
    await asyncio.sleep(0)
    feed.publish(call, 1.5)
    assert b'"seq": %d' % (BACKLOG + 8) in await waiting
    feed.leave(listener)
    assert not feed.watched
    feed.publish(call, 1.5)  # counted on, though nobody listens
    late = feed.listen()
    feed.publish(call, 1.5)
    assert b'"seq": %d' % (BACKLOG + 10) in await late.next()
    late.close()
    assert await late.next() == b""


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 60_000,
        b'{"cache":' * 7_000,
        b'{"cache": ' + b"1" * 60_000 + b"}",
        b"\xff\xfe",
        b"",
        b"null",
        b'{"cache": ["on"]}',
        b'{"cache": NaN}',
    ],
)
def test_odd_json_is_refused_and_is_no_fault_of_ours(proxy: Any, body: bytes) -> None:
    one: Proxy = proxy()
    answer = exchange(one.port, "POST", "/cache/mode", [("content-type", "application/json")], body)
    assert answer.status == 400
    assert json.loads(answer.body)["error"]["type"] == "invalid_request"
    assert "internal error" not in one.log()
