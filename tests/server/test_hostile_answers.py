"""What an upstream or a client makes up costs no answer, no figure and no other's money."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.anthropic_wire import message, request
from support.proxy import Proxy, anthropic_headers
from support.raw import exchange
from support.replies import json_reply
from support.upstream import Upstream

from llm_cache.store import Limits, open_store


def answer_with(**changes: object) -> bytes:
    return json.dumps({**json.loads(message("fine")), **changes}).encode()


@pytest.mark.parametrize("count", [18446744073709551615, 10**400, -1, 1.5, True])
def test_a_count_of_tokens_that_is_none_costs_neither_the_answer_nor_the_ledger(
    proxy: Callable[..., Proxy], upstream: Upstream, count: object
) -> None:
    body = answer_with(usage={"input_tokens": count, "output_tokens": 7})
    upstream.default = json_reply(body)
    one = proxy()
    for label in ("MISS", "HIT", "HIT"):
        answer = one.ask(request("count"))
        assert answer.read_all() == body
        assert answer.header("x-cache") == label
    one.stop()
    figures = proxy().stats()
    assert (figures["misses"], figures["hits"], figures["store_failures"]) == (1, 2, 0)


def test_a_model_name_of_half_characters_breaks_neither_answers_nor_figures(
    proxy: Callable[..., Proxy], upstream: Upstream
) -> None:
    upstream.default = json_reply(answer_with(model="claude-\ud800\x1b[2J"))
    one = proxy()
    with one.connect() as monitor:
        monitor.request("GET", "/monitor").read_until(b"connected")
        for label in ("MISS", "HIT"):
            answer = one.ask(request("surrogate"))
            answer.read_all()
            assert (answer.complete, answer.header("x-cache")) == (True, label)
        asked = json.dumps({"model": "\ud800", "messages": []}).encode()
        assert one.ask(asked, {"x-cache-mode": "replay"}).status == 504
    assert one.get("/metrics").status_code == 200
    assert one.stats()["by_model"]
    assert "\x1b" not in one.log()


def test_whose_request_it_is_never_depends_on_what_was_asked_before(
    proxy: Callable[..., Proxy], upstream: Upstream
) -> None:
    with Upstream(json_reply(b'{"object": "none"}')) as openai:
        one = proxy(CACHE_UPSTREAM_OPENAI=openai.url)
        upstream.default = json_reply(b"{}")
        body = b'{"model": "m", "messages": []}'
        target = "/v1/chat/completions"
        plain = [("content-type", "application/json"), ("authorization", "Bearer sk-openai")]
        for _ in range(2):
            assert exchange(one.port, "POST", target, plain, body).header("x-cache") == "MISS"
        assert exchange(one.port, "POST", target, anthropic_headers(), body).status == 200
        assert len(openai.calls) == 2
        assert all(call.request.header("x-api-key") is None for call in openai.calls)
        assert upstream.calls[-1].request.header("x-api-key") == "sk-ant-test-key"


def test_a_clients_other_keys_and_our_token_stay_here_when_the_real_key_goes_up(
    proxy: Callable[..., Proxy], upstream: Upstream
) -> None:
    upstream.default = json_reply(message("fine"))
    one = proxy(ANTHROPIC_API_KEY_REAL="sk-ant-real", CACHE_AUTH_TOKEN="cache-token-1")
    headers = {
        "x-cache-auth": "cache-token-1",
        "x-mine": "cache-token-1",
        "api-key": "AIza-client",
        "authorization": "Bearer cache-token-1",
    }
    assert one.ask(request("keys"), headers).status == 200
    sent = upstream.calls[-1].request.headers
    assert [value for name, value in sent if name == "x-api-key"] == ["sk-ant-real"]
    assert not [name for name, value in sent if "cache-token" in value or "AIza" in value]


@pytest.mark.parametrize(
    "name",
    ["x-portkey-provider", "x-portkey-api-key", "cf-aig-authorization", "x-bt-endpoint-name"],
)
def test_what_a_gateway_is_told_in_headers_of_its_own_splits_the_cache(
    proxy: Callable[..., Proxy], upstream: Upstream, name: str
) -> None:
    upstream.default = json_reply(message("fine"))
    one = proxy()
    labels = [
        one.ask(request("gateway"), {name: value}).header("x-cache") for value in ("a", "b", "a")
    ]
    assert labels == ["MISS", "MISS", "HIT"]


@pytest.mark.parametrize(
    ("change", "labels"),
    [
        (lambda meta: meta["usage"].update(of_a_newer_version=1), ["HIT", "HIT"]),
        (lambda meta: meta.pop("headers"), ["MISS", "HIT"]),
        (lambda meta: meta.update(status="what"), ["MISS", "HIT"]),
    ],
    ids=["newer", "incomplete", "wrong"],
)
def test_an_entry_of_another_version_is_replayed_or_a_miss_but_never_an_error(
    proxy: Callable[..., Proxy],
    upstream: Upstream,
    home: Path,
    change: Callable[[dict[str, Any]], object],
    labels: list[str],
) -> None:
    upstream.default = json_reply(message("fine"))
    one = proxy(CACHE_NORMALIZE="off")
    key = bytes.fromhex(one.ask(request("old")).header("x-cache-key") or "")
    one.stop()
    store = open_store("local", home / "store", Limits())
    stored = store.get(key)
    assert stored is not None
    meta = json.loads(stored.entry.meta)
    change(meta)
    store.put([key], json.dumps(meta).encode(), stored.body)
    store.close()
    again = proxy(CACHE_NORMALIZE="off")
    for label in labels:
        answer = again.ask(request("old"))
        assert answer.read_all() == message("fine")
        assert answer.header("x-cache") == label


def test_a_head_request_to_monitor_ends(proxy: Callable[..., Proxy]) -> None:
    one = proxy()
    with one.connect() as connection:
        assert connection.request("HEAD", "/monitor").status == 405
    assert one.healthy()
