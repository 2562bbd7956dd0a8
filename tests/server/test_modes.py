"""Modes as clients meet them: refusals in the provider's shape, official clients, `/cache/mode`.

What each mode does is in `tests/exchange/test_modes.py`. The upstream numbers its answers, so which
one a client got tells where it came from.
"""

from __future__ import annotations

import itertools
import json
from typing import Any

import anthropic
import openai
import pytest
from support import anthropic_wire as wire
from support.proxy import Proxy, anthropic_headers
from support.raw import Response, request_bytes
from support.replies import Gate, json_reply, sse_reply
from support.upstream import Upstream

ASKED = wire.request()


@pytest.fixture
def numbered(upstream: Upstream) -> Upstream:
    """Its n-th answer says n."""
    count = itertools.count(1)
    upstream.default = lambda request: json_reply(wire.message(f"answer {next(count)}"))
    return upstream


def asked(proxy: Proxy, body: bytes = ASKED, **headers: str) -> tuple[str | None, str]:
    """The label and the text of the answer; a name like `x_cache_mode` is a header."""
    response = proxy.ask(body, {name.replace("_", "-"): text for name, text in headers.items()})
    assert response.status == 200, response.body
    return response.header("x-cache"), json.loads(response.body)["content"][0]["text"]


def error_of(response: Response) -> tuple[int, str, str]:
    """Status, type and message of an error in Anthropic's shape."""
    document = json.loads(response.body)
    assert document.keys() == {"type", "error"}
    assert document["type"] == "error"
    assert response.header("content-type") == "application/json"
    return response.status, document["error"]["type"], document["error"]["message"]


@pytest.mark.parametrize("header", ["x-cache-mode", "x-stasis-mode"])
def test_an_unknown_mode_is_400_in_the_providers_error_shape(
    upstream: Upstream, proxy: Any, header: str
) -> None:
    one: Proxy = proxy()
    for value in ("turbo", "", "cache,fresh", "no-cache"):
        status, kind, message = error_of(one.ask(ASKED, {header: value}))
        assert (status, kind) == (400, "invalid_request")
        assert header in message
        assert "cache, fresh, bypass, replay" in message
    assert upstream.call_count == 0


def test_official_clients_do_not_ask_again_for_what_replay_does_not_have(proxy: Any) -> None:
    """They ask several times after other errors from 500 on, with pauses."""
    one: Proxy = proxy(CACHE_MODE="replay")
    claude = anthropic.Anthropic(base_url=one.url, api_key="k")
    gpt = openai.OpenAI(base_url=f"{one.url}/v1", api_key="k")
    with claude, gpt:
        with pytest.raises(anthropic.InternalServerError, match="cache_miss"):
            claude.messages.create(model="m", max_tokens=9, messages=[])
        with pytest.raises(openai.InternalServerError, match="not in the cache"):
            gpt.chat.completions.create(model="m", messages=[])
    assert one.stats()["misses"] == 2


def test_a_wrong_ttl_is_400(upstream: Upstream, proxy: Any) -> None:
    one: Proxy = proxy()
    for value in ("-1", "1.5", "ten", "", "1e3", "99999999999", "0x10", "1 2"):
        status, kind, message = error_of(one.ask(ASKED, {"x-cache-ttl": value}))
        assert (status, kind) == (400, "invalid_request"), value
        assert "x-cache-ttl" in message
    assert upstream.call_count == 0


def switch(proxy: Proxy, cache: str) -> Any:
    response = proxy.post("/cache/mode", json.dumps({"cache": cache}).encode())
    assert response.status_code == 200
    return response.json()


def test_off_forwards_everything_stores_nothing_and_on_takes_up_again(
    numbered: Upstream, proxy: Any
) -> None:
    one: Proxy = proxy(CACHE_OFF="1")
    assert asked(one) == ("BYPASS", "answer 1")
    assert asked(one, x_cache_mode="cache") == ("BYPASS", "answer 2")
    assert asked(one, x_cache_mode="fresh") == ("BYPASS", "answer 3")
    assert one.ask(ASKED, {"x-cache-mode": "replay"}).status == 504
    assert one.stats()["entries"] == 0
    assert (one.stats()["cache"], one.get("/health").json()["cache"]) == ("off", "off")
    assert switch(one, "on") == {"cache": "on"}
    assert asked(one) == ("MISS", "answer 4")
    assert asked(one) == ("HIT", "answer 4")
    assert switch(one, "off") == {"cache": "off"}
    assert asked(one) == ("BYPASS", "answer 5")
    assert asked(one, x_cache_mode="replay") == ("HIT", "answer 4")
    assert (one.stats()["cache"], one.get("/health").json()["cache"]) == ("off", "off")


def test_switching_drops_no_request_in_flight(upstream: Upstream, proxy: Any) -> None:
    one: Proxy = proxy()
    pieces = wire.stream("a stream that goes on while the switch is thrown")
    gates = [Gate(), Gate(), Gate()]
    upstream.script(
        sse_reply([*pieces[:3], gates[0], *pieces[3:]]),
        sse_reply([*pieces[:5], gates[1], *pieces[5:]]),
    )
    body = wire.request(stream=True)
    request = request_bytes("POST", "/v1/messages", "localhost", anthropic_headers(), body)
    with one.connect() as first, one.connect() as second:
        first.send(request)
        gates[0].wait_reached()
        switch(one, "off")
        second.send(request)  # with the cache off nobody joins: a call of its own
        gates[1].wait_reached()
        switch(one, "on")
        for gate in gates:
            gate.release()
        answers = [connection.response("POST") for connection in (first, second)]
        assert [answer.read_all() for answer in answers] == [b"".join(pieces)] * 2
        assert [answer.header("x-cache") for answer in answers] == ["MISS", "BYPASS"]
    assert one.ask(body).header("x-cache") == "HIT"


def test_a_wrong_switch_is_refused_and_changes_nothing(upstream: Upstream, proxy: Any) -> None:
    one: Proxy = proxy()
    for body in (b"", b"{}", b'{"cache":"maybe"}', b'{"cache":true}', b"[]", b'"off"', b"off"):
        response = one.post("/cache/mode", body)
        assert response.status_code == 400, body
    assert one.get("/cache/mode").status_code == 405
    assert one.stats()["cache"] == "on"
