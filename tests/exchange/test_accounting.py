"""Every call costs what the price list says (SPEC 5a), and figures go on across restarts.

Figures are exact: each test knows every token of every answer. Prices are compared with those of
genai-prices itself.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import genai_prices
import pytest
from support import anthropic_wire as wire
from support.cache import CacheFactory
from support.replies import Framing, Reply, json_reply, sse_reply
from support.upstream import Upstream

FIGURES = {
    "calls": int,
    "hits": int,
    "coalesced": int,
    "misses": int,
    "errors": int,
    "hit_rate_pct": float,
    "tokens_saved": int,
    "tokens_saved_in": int,
    "tokens_saved_out": int,
    "usd_saved": float,
    "tokens_spent": int,
    "usd_spent": float,
    "savings_pct": float,
}
"""The names of SPEC 5a and their types, for all time and for the session."""


def price(model: str, tokens: wire.Json) -> float:
    """What genai-prices says an answer with this `usage` costs. It counts cached tokens as input
    tokens too; Anthropic doesn't."""
    read = tokens["cache_read_input_tokens"]
    written = tokens["cache_creation_input_tokens"]
    usage = genai_prices.Usage(
        input_tokens=tokens["input_tokens"] + read + written,
        output_tokens=tokens["output_tokens"],
        cache_read_tokens=read,
        cache_write_tokens=written,
    )
    return float(genai_prices.calc_price(usage, model, provider_id="anthropic").total_price)


def about(usd: float) -> Any:
    """/stats rounds to a millionth of a dollar."""
    return pytest.approx(usd, abs=6e-7)


TOKENS = wire.usage(3, 500)


def test_all_time_goes_on_across_restarts_and_the_session_begins_anew(
    upstream: Upstream, cache: CacheFactory
) -> None:
    one = cache()
    upstream.default = json_reply(wire.message(tokens=TOKENS))
    for _ in range(3):
        one.ask(wire.request())
    before = one.stats()
    assert before["session"]["calls"] == 3
    one.stop()
    again = cache()
    after = again.stats()
    assert {name: after[name] for name in FIGURES} == {name: before[name] for name in FIGURES}
    assert {after["session"][name] for name in FIGURES} == {0}
    again.ask(wire.request())
    assert "saved $0.0150 / 1509tok  hit-rate 75.0%" in again.log()
    stats = again.stats()
    assert (stats["calls"], stats["hits"]) == (4, 3)
    assert (stats["session"]["calls"], stats["session"]["hits"]) == (1, 1)


@pytest.mark.parametrize("streamed", [False, True])
def test_a_providers_prompt_cache_is_priced_as_such_and_counted_apart(
    upstream: Upstream, cache: CacheFactory, streamed: bool
) -> None:
    """BAR fault 11: usage ignores cache-read and cache-creation tokens."""
    one = cache()
    tokens = wire.usage(7, 11, cache_read=100_000, cache_write_5m=20_000)
    answer = (
        sse_reply(wire.stream(tokens=tokens))
        if streamed
        else json_reply(wire.message(tokens=tokens))
    )
    upstream.default = answer
    for _ in range(3):
        one.ask(wire.request(stream=streamed))
    stats = one.stats()
    assert (stats["tokens_spent"], stats["tokens_saved"]) == (18, 36)
    assert stats["prompt_cache_read_tokens"] == 100_000  # of the one call that was made
    assert stats["prompt_cache_write_tokens"] == 20_000
    costs = price(wire.MODEL, tokens)
    assert costs > 10 * price(wire.MODEL, wire.usage(7, 11))
    assert stats["usd_spent"] == about(costs)
    assert stats["usd_saved"] == about(2 * costs)


def test_usage_is_read_as_json_whatever_its_spelling(
    upstream: Upstream, cache: CacheFactory
) -> None:
    """BAR fault 11: `"input_tokens": 3` with a space isn't found."""
    one = cache()
    spaced = json.dumps(wire.message_document(tokens=wire.usage(3, 4)), indent=2).encode()
    upstream.default = json_reply(spaced)
    one.ask(wire.request())
    assert one.stats()["tokens_spent"] == 7


@pytest.mark.parametrize(
    ("prices", "costs"),
    [
        ({"sonnet": [1e-3, 2e-3]}, 5e-3 + 14e-3 + 60e-3),
        (
            {
                "claude-sonnet": {
                    "input": 1e-3,
                    "output": 2e-3,
                    "cache_read": 1e-4,
                    "cache_write": 5e-3,
                },
                "sonnet": [9, 9],
            },
            5e-3 + 14e-3 + 2e-3 + 200e-3,
        ),
        ({"CLAUDE-SONNET-5": [0, 0]}, 0.0),
    ],
)
def test_prices_json_overrides_the_price_list(
    upstream: Upstream, cache: CacheFactory, home: Path, prices: Any, costs: float
) -> None:
    home.mkdir(mode=0o700)
    (home / "prices.json").write_text(json.dumps(prices))
    one = cache()
    tokens = wire.usage(5, 7, cache_read=20, cache_write_5m=40)
    upstream.default = json_reply(wire.message(tokens=tokens))
    for _ in range(2):
        one.ask(wire.request())
    stats = one.stats()
    assert (stats["usd_spent"], stats["usd_saved"]) == (about(costs), about(costs))
    assert stats["unpriced_calls"] == 0


def test_what_was_not_stored_says_why(upstream: Upstream, cache: CacheFactory) -> None:
    one = cache()
    upstream.script(
        sse_reply([*wire.stream()[:-1], wire.error_event()]),
        Reply(headers=(("content-type", "text/html"),), body=(b"<p>",), framing=Framing.LENGTH),
    )
    one.ask(wire.request("a", stream=True))
    one.ask(wire.request("b"))
    log = one.log()
    assert "[error event: overloaded_error" in log
    assert "[content type text/html]" in log
