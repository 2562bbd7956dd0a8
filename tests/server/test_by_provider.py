"""Figures of one proxy that serves several providers, each apart and all together."""

from __future__ import annotations

from typing import Any

from support import anthropic_wire as claude
from support import openai_wire as gpt
from support.proxy import Proxy, anthropic_headers
from support.raw import exchange
from support.replies import json_reply
from support.upstream import Request, Upstream

BEARER = [("content-type", "application/json"), ("authorization", "Bearer sk")]


def answered(request: Request) -> Any:
    if request.target == "/v1/messages":
        tokens = claude.usage(10, 20, cache_read=1000, cache_write_5m=500)
        return json_reply(claude.message("Hello", tokens=tokens))
    if request.target == "/v1/chat/completions":
        return json_reply(gpt.chat("Hello", tokens=gpt.usage(300, 40, cached=256)))
    return json_reply(b'{"data":[]}')


def test_stats_and_metrics_tell_the_providers_apart(upstream: Upstream, proxy: Any) -> None:
    upstream.default = answered
    one: Proxy = proxy(CACHE_UPSTREAM=upstream.url)

    def ask(path: str, body: bytes, count: int, method: str = "POST") -> None:
        headers = anthropic_headers() if "messages" in path else BEARER
        for _ in range(count):
            assert exchange(one.port, method, path, headers, body).status == 200

    ask("/v1/messages", claude.request(), 3)
    ask("/v1/messages", claude.request(model="claude-haiku-4-5"), 1)
    ask("/v1/chat/completions", gpt.request(), 2)
    ask("/groq/v1/chat/completions", gpt.request("other"), 1)
    ask("/v1/files", b"", 1, "GET")

    figures = one.stats()
    rows = {row["provider"]: row for row in figures["by_provider"]}
    assert [row["provider"] for row in figures["by_provider"]] == ["anthropic", "openai", "groq"]
    told = {
        name: [row[field] for field in ("calls", "hits", "misses", "passed", "tokens_saved")]
        for name, row in rows.items()
    }
    assert told == {
        "anthropic": [4, 2, 2, 0, 60],
        "openai": [2, 1, 1, 1, 340],
        "groq": [1, 0, 1, 0, 0],
    }
    # What a provider's own prompt cache did is apart, and counted where the provider was asked.
    assert rows["anthropic"]["prompt_cache_read_tokens"] == 2000
    assert rows["anthropic"]["prompt_cache_write_tokens"] == 1000
    assert rows["openai"]["prompt_cache_read_tokens"] == 256
    assert rows["groq"]["prompt_cache_read_tokens"] == 256
    for field in ("calls", "hits", "misses", "tokens_saved", "tokens_spent", "passed"):
        assert sum(row[field] for row in rows.values()) == figures[field]
    assert len([row for row in figures["by_model"] if row["provider"] == "anthropic"]) == 1

    metrics = one.get("/metrics").text
    for line in (
        'llm_cache_hits_total{model="claude-sonnet-5",provider="anthropic"} 2.0',
        'llm_cache_misses_total{model="gpt-4o-2024-08-06",provider="openai"} 1.0',
        'llm_cache_prompt_cache_read_tokens_total{model="gpt-4o-2024-08-06",provider="groq"} 256.0',
    ):
        assert line in metrics
