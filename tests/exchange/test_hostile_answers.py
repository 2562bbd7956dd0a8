"""What an upstream or a client makes up costs no answer, no figure and no other's money."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.anthropic_wire import message, request
from support.cache import CacheFactory
from support.proxy import anthropic_headers
from support.replies import json_reply
from support.upstream import Upstream

from llm_cache.store import Limits, open_store


def answer_with(**changes: object) -> bytes:
    return json.dumps({**json.loads(message("fine")), **changes}).encode()


@pytest.mark.parametrize("count", [18446744073709551615, 10**400, -1, 1.5, True])
def test_a_count_of_tokens_that_is_none_costs_neither_the_answer_nor_the_ledger(
    cache: CacheFactory, upstream: Upstream, count: object
) -> None:
    body = answer_with(usage={"input_tokens": count, "output_tokens": 7})
    upstream.default = json_reply(body)
    one = cache()
    for label in ("MISS", "HIT", "HIT"):
        answer = one.ask(request("count"))
        assert answer.read_all() == body
        assert answer.header("x-cache") == label
    one.stop()
    figures = cache().stats()
    assert (figures["misses"], figures["hits"], figures["store_failures"]) == (1, 2, 0)


def test_whose_request_it_is_never_depends_on_what_was_asked_before(
    cache: CacheFactory, upstream: Upstream
) -> None:
    with Upstream(json_reply(b'{"object": "none"}')) as openai:
        one = cache(CACHE_UPSTREAM_OPENAI=openai.url)
        upstream.default = json_reply(b"{}")
        body = b'{"model": "m", "messages": []}'
        target = "/v1/chat/completions"
        plain = [("content-type", "application/json"), ("authorization", "Bearer sk-openai")]
        for _ in range(2):
            assert one.send(body, plain, target).header("x-cache") == "MISS"
        assert one.send(body, anthropic_headers(), target).status == 200
        assert len(openai.calls) == 2
        assert all(call.request.header("x-api-key") is None for call in openai.calls)
        assert upstream.calls[-1].request.header("x-api-key") == "sk-ant-test-key"


@pytest.mark.parametrize(
    "name",
    ["x-portkey-provider", "x-portkey-api-key", "cf-aig-authorization", "x-bt-endpoint-name"],
)
def test_what_a_gateway_is_told_in_headers_of_its_own_splits_the_cache(
    cache: CacheFactory, upstream: Upstream, name: str
) -> None:
    upstream.default = json_reply(message("fine"))
    one = cache()
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
    cache: CacheFactory,
    upstream: Upstream,
    home: Path,
    change: Callable[[dict[str, Any]], object],
    labels: list[str],
) -> None:
    upstream.default = json_reply(message("fine"))
    one = cache(CACHE_NORMALIZE="off")
    key = bytes.fromhex(one.ask(request("old")).header("x-cache-key") or "")
    one.stop()
    store = open_store("local", home / "store", Limits())
    stored = store.get(key)
    assert stored is not None
    meta = json.loads(stored.entry.meta)
    change(meta)
    store.put([key], json.dumps(meta).encode(), stored.body)
    store.close()
    again = cache(CACHE_NORMALIZE="off")
    for label in labels:
        answer = again.ask(request("old"))
        assert answer.read_all() == message("fine")
        assert answer.header("x-cache") == label
