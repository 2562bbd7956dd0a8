"""From an answer's bytes to dollars: everything that the installed price data has a rate for."""

from __future__ import annotations

from typing import Any

import pytest
from support import openai_wire as gpt
from support.answers import read

from llm_cache.wire.prices import Prices
from llm_cache.wire.provider import Usage

PRICES = Prices.load(None, "prices.json")
JSON, SSE = "application/json", "text/event-stream"
MESSAGES, CHAT, RESPONSES = "/v1/messages", "/v1/chat/completions", "/v1/responses"
GEMINI = "/v1beta/models/{}:generateContent"
M = 1_000_000


def cost(name: str, path: str, body: bytes) -> float | None:
    """What a plain answer cost in US dollars."""
    _, answer = read(name, path, body, JSON)
    assert answer.complete, answer.reason
    assert answer.usage is not None
    assert answer.model is not None
    return PRICES.cost(name, answer.model, answer.usage)


def message(model: str = "claude-sonnet-4-5", **usage: Any) -> bytes:
    return gpt.dump(
        {
            "type": "message",
            "model": model,
            "content": [],
            "stop_reason": "end_turn",
            "usage": {"input_tokens": 0, "output_tokens": 0, **usage},
        }
    )


def chat(model: str, usage: dict[str, Any], **fields: Any) -> bytes:
    choice = {"message": {"content": "Hi"}, "finish_reason": "stop"}
    return gpt.dump({"model": model, "choices": [choice], "usage": usage, **fields})


def response(model: str, usage: dict[str, Any], **fields: Any) -> bytes:
    return gpt.dump(gpt.response_document(model=model, usage=usage, **fields))


def generated(**usage: Any) -> bytes:
    candidate = {"content": {"parts": [{"text": "Hi"}]}, "finishReason": "STOP"}
    return gpt.dump({"candidates": [candidate], "usageMetadata": usage})


def of(modality: str, tokens: int) -> list[dict[str, Any]]:
    return [{"modality": modality, "tokenCount": tokens}]


ASKED = {"prompt_tokens": M, "completion_tokens": 0, "total_tokens": M}
SEARCH = {"type": "web_search_call", "action": {"type": "search"}}
OPEN = {"type": "web_search_call", "action": {"type": "open_page"}}


@pytest.mark.parametrize(
    ("name", "path", "body", "dollars"),
    [
        # server tools: https://docs.anthropic.com/en/docs/about-claude/pricing
        (
            *("anthropic", MESSAGES),
            message(server_tool_use={"web_search_requests": 3}),
            0.03,
        ),
        (
            *("openai", RESPONSES),
            response("gpt-5", {"input_tokens": 0}, output=[SEARCH, OPEN, SEARCH]),
            0.02,
        ),
        (
            *("openai", RESPONSES),
            response("gpt-5", {"input_tokens": 0}, output=[{"type": "file_search_call"}] * 4),
            0.01,
        ),
        (
            *("perplexity", CHAT),
            chat("sonar", {"prompt_tokens": 1000, "completion_tokens": 1000}),
            0.001 + 0.001 + 0.012,  # a price a request
        ),
        (
            *("perplexity", CHAT),
            chat(
                "sonar-deep-research",
                {
                    "prompt_tokens": M,
                    "completion_tokens": M,
                    "citation_tokens": M,
                    "reasoning_tokens": M,
                    "num_search_queries": 1000,
                },
            ),
            2 + 8 + 2 + 3 + 5,
        ),
        # service tiers
        ("openai", CHAT, chat("gpt-5", ASKED), 1.25),
        ("openai", CHAT, chat("gpt-5", ASKED, service_tier="default"), 1.25),
        ("openai", CHAT, chat("gpt-5", ASKED, service_tier="flex"), 0.625),
        ("openai", CHAT, chat("gpt-5", ASKED, service_tier="priority"), 2.5),
        ("openai", CHAT, chat("gpt-5", ASKED, service_tier="unheard of"), 1.25),
        (
            *("openai", RESPONSES),
            response("gpt-5", {"input_tokens": M, "output_tokens": M}, service_tier="flex"),
            0.625 + 5,
        ),
        ("anthropic", MESSAGES, message(input_tokens=100_000, service_tier="standard"), 0.3),
        ("anthropic", MESSAGES, message(input_tokens=100_000, service_tier="batch"), 0.15),
        (
            *("gemini", GEMINI.format("gemini-2.5-flash")),
            generated(promptTokenCount=M, serviceTier="FLEX"),
            0.15,
        ),
        (
            *("vertex", "/v1/publishers/google/models/gemini-2.5-flash:generateContent"),
            generated(promptTokenCount=M, trafficType="ON_DEMAND_FLEX"),
            0.15,
        ),
        (
            *("vertex", "/v1/publishers/google/models/gemini-2.5-flash:generateContent"),
            generated(promptTokenCount=M, trafficType="ON_DEMAND"),
            0.30,
        ),
        # the provider's cache, by how long it is kept
        (
            *("anthropic", MESSAGES),
            message(
                cache_creation_input_tokens=100_000,
                cache_creation={
                    "ephemeral_5m_input_tokens": 40_000,
                    "ephemeral_1h_input_tokens": 60_000,
                },
                cache_read_input_tokens=50_000,
            ),
            0.04 * 3.75 + 0.06 * 6 + 0.05 * 0.3,
        ),
        # a tier for long prompts
        ("anthropic", MESSAGES, message(input_tokens=300_000), 0.3 * 6),
        # modalities
        (
            *("gemini", GEMINI.format("gemini-2.5-flash")),
            generated(promptTokenCount=M, promptTokensDetails=of("AUDIO", M)),
            1.0,
        ),
        (
            *("gemini", GEMINI.format("gemini-2.5-flash")),
            generated(
                promptTokenCount=M,
                promptTokensDetails=of("AUDIO", M),
                cachedContentTokenCount=M,
                cacheTokensDetails=of("AUDIO", M),
            ),
            0.1,
        ),
        (
            *("gemini", GEMINI.format("gemini-2.5-flash-image")),
            generated(candidatesTokenCount=M, candidatesTokensDetails=of("IMAGE", M)),
            30.0,
        ),
        (
            *("openai", CHAT),
            chat(
                "gpt-realtime-mini",
                {
                    **ASKED,
                    "completion_tokens": M,
                    "prompt_tokens_details": {"audio_tokens": M},
                    "completion_tokens_details": {"audio_tokens": M},
                },
            ),
            10 + 20,
        ),
        (  # whether what was cached was audio isn't told: all of it costs as text
            *("openai", CHAT),
            chat(
                "gpt-realtime-mini",
                {**ASKED, "prompt_tokens_details": {"audio_tokens": M // 2, "cached_tokens": M}},
            ),
            0.06,
        ),
    ],
)
def test_an_answer_costs_what_the_price_data_says(
    name: str, path: str, body: bytes, dollars: float
) -> None:
    assert cost(name, path, body) == pytest.approx(dollars)


def event(kind: str, **fields: Any) -> bytes:
    return b"event: %b\n%b" % (kind.encode(), gpt.data({"type": kind, **fields}))


def candidate(usage: dict[str, Any], finish: str | None = None) -> bytes:
    doc = {"candidates": [{"content": {}, "finishReason": finish}], "usageMetadata": usage}
    return gpt.data(doc)


TALK = gpt.chunk(gpt.delta(content="Hi"))
END = gpt.delta(finish="stop")


@pytest.mark.parametrize(
    ("name", "path", "body", "usage"),
    [
        (  # Moonshot counts in the last choice
            *("moonshot", CHAT),
            TALK + gpt.chunk({**END, "usage": gpt.usage(11, 7, 4)}) + gpt.DONE,
            Usage(11, 7, 4, input_includes_cache=True),
        ),
        (
            *("openai", CHAT),
            gpt.chunk(gpt.delta(content="Hi"), usage=gpt.usage(11, 5))
            + gpt.chunk(END, usage={"prompt_tokens": 0, "completion_tokens": 7})
            + gpt.chunk(usage=None)
            + gpt.DONE,
            Usage(11, 7, input_includes_cache=True),
        ),
        (
            *("anthropic", MESSAGES),
            event(
                "message_start",
                message={
                    "usage": {
                        "input_tokens": 11,
                        "cache_creation_input_tokens": 5,
                        "cache_creation": {"ephemeral_1h_input_tokens": 5},
                        "output_tokens": 1,
                    }
                },
            )
            + event(
                "message_delta",
                delta={"stop_reason": "end_turn"},
                usage={
                    "input_tokens": 0,
                    "cache_creation_input_tokens": 0,
                    "cache_creation": {"ephemeral_1h_input_tokens": 0},
                    "output_tokens": 7,
                    "server_tool_use": {"web_search_requests": 2},
                },
            )
            + event("message_stop"),
            Usage(11, 7, 0, 5, 5, web_searches=2),
        ),
        (
            *("gemini", "/v1beta/models/g:streamGenerateContent"),
            candidate({"promptTokenCount": 11, "candidatesTokenCount": 3})
            + candidate({"promptTokenCount": 0, "candidatesTokenCount": 7}, "STOP"),
            Usage(11, 7, input_includes_cache=True),
        ),
    ],
)
def test_a_later_count_of_nothing_takes_nothing_back(
    name: str, path: str, body: bytes, usage: Usage
) -> None:
    _, answer = read(name, path, body, SSE)
    assert answer.complete, answer.reason
    assert answer.usage == usage
