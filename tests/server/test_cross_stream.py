"""One stored answer for a request and its streamed twin (CACHE_CROSS_STREAM), read by the official
clients: they make equal messages of both."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from support import anthropic_wire as claude
from support import openai_wire as gpt
from support.clients import Heard
from support.proxy import Proxy
from support.replies import Framing, Reply, json_reply, sse_reply
from support.upstream import Upstream

CLAUDE_STREAM = (
    ("content-type", "text/event-stream; charset=utf-8"),
    ("cache-control", "no-cache"),
    *claude.RESPONSE_HEADERS,
)
CONTENT = [
    claude.thinking_block("The user is in Zürich."),
    claude.text_block("Let me look: 世界."),
    claude.tool_use_block("weather", {"city": "Zürich", "days": [1, 2.5, None]}),
    claude.tool_use_block("now", {}, "toolu_02"),
]
TOKENS = claude.usage(120, 34, cache_read=1000, cache_write_5m=20)
ASKED: dict[str, Any] = {
    "model": claude.MODEL,
    "max_tokens": 2000,
    "messages": [{"role": "user", "content": "What is the weather?"}],
}
CALLS = [gpt.tool_call("weather", {"city": "Zürich"}), gpt.tool_call("now", {}, "call_2")]
CHAT: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}]}
ON = {"CACHE_CROSS_STREAM": "1"}


def streamed(events: list[bytes]) -> Reply:
    return Reply(headers=CLAUDE_STREAM, body=tuple(events), framing=Framing.CHUNKED)


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def transport(heard: Heard) -> Iterator[httpx2.Client]:
    with httpx2.Client(event_hooks=heard.hooks, trust_env=False) as client:
        yield client


def at_anthropic(proxy: Proxy, transport: httpx2.Client) -> anthropic.Anthropic:
    return anthropic.Anthropic(
        base_url=proxy.url, api_key="sk-ant", max_retries=0, http_client=transport
    )


def at_openai(proxy: Proxy, transport: httpx2.Client) -> openai.OpenAI:
    return openai.OpenAI(
        base_url=f"{proxy.url}/v1", api_key="sk", max_retries=0, http_client=transport
    )


def test_a_stored_message_is_streamed(
    upstream: Upstream, proxy: Any, heard: Heard, transport: httpx2.Client
) -> None:
    client = at_anthropic(proxy(**ON), transport)
    body = claude.message(CONTENT, tokens=TOKENS, stop_reason="tool_use")
    upstream.script(json_reply(body, headers=claude.RESPONSE_HEADERS))
    plain = client.messages.create(**ASKED)
    with client.messages.stream(**ASKED) as events:
        final = events.get_final_message()
    assert final.to_dict(exclude_none=True) == plain.to_dict(exclude_none=True)
    raw = client.messages.create(**ASKED, stream=True)
    kinds = [event.type for event in raw]
    assert (kinds[0], kinds[-2:]) == ("message_start", ["message_delta", "message_stop"])
    assert heard.labels == ["MISS", "HIT-NORM", "HIT-NORM"]
    assert upstream.call_count == 1
    status, headers = heard.responses[1]
    fields = dict(headers)
    assert (status, fields["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert fields["request-id"] == dict(claude.RESPONSE_HEADERS)["request-id"]
    assert "content-length" not in fields
    assert int(fields["age"]) >= 0


def test_a_stored_stream_is_given_whole(
    upstream: Upstream, proxy: Any, heard: Heard, transport: httpx2.Client
) -> None:
    client = at_anthropic(proxy(**ON), transport)
    upstream.script(streamed(claude.stream(CONTENT, tokens=TOKENS)))
    with client.messages.stream(**ASKED) as events:
        final = events.get_final_message()
    plain = client.messages.create(**ASKED)
    assert plain.to_dict(exclude_none=True) == final.to_dict(exclude_none=True)
    assert plain.to_dict() == claude.message_document(CONTENT, tokens=TOKENS)
    assert heard.labels == ["MISS", "HIT-NORM"]
    _, headers = heard.responses[1]
    fields = dict(headers)
    assert fields["content-type"] == "application/json"
    assert "cache-control" not in fields
    assert int(fields["content-length"]) > 0


@pytest.mark.parametrize("said", [{"texts": ("Grüezi 世界", "Ciao")}, {"calls": CALLS}])
@pytest.mark.parametrize("stream_first", [True, False])
def test_a_chat_is_given_in_the_other_form(
    upstream: Upstream,
    proxy: Any,
    heard: Heard,
    transport: httpx2.Client,
    said: dict[str, Any],
    stream_first: bool,
) -> None:
    client = at_openai(proxy(CACHE_UPSTREAM_OPENAI=upstream.url, **ON), transport)
    texts, calls = said.get("texts", ()), said.get("calls", ())
    tokens = gpt.usage(11, 7, cached=5)
    asked = {**CHAT, "n": max(1, len(texts))}
    if stream_first:
        upstream.script(sse_reply(gpt.chat_stream(*texts, calls=calls, tokens=tokens)))
    else:
        upstream.script(json_reply(gpt.chat(*texts, calls=calls, tokens=tokens, annotations=[])))

    def whole() -> Any:
        return client.chat.completions.create(**asked)

    def folded() -> Any:
        with client.chat.completions.stream(
            **asked, stream_options={"include_usage": True}
        ) as events:
            return events.get_final_completion()

    first, second = (folded, whole) if stream_first else (whole, folded)
    one, two = first(), second()
    assert heard.labels == ["MISS", "HIT-NORM"]
    assert upstream.call_count == 1
    assert facts(two) == facts(one)


def facts(completion: Any) -> Any:
    """All a client knows of a completion. What only one of its two ways of asking fills in, of
    nothing that came over the wire, is left out."""
    doc = completion.to_dict(exclude_none=True)
    for choice in doc["choices"]:
        message = choice["message"]
        if not message.get("annotations"):
            message.pop("annotations", None)
        for call in message.get("tool_calls", ()):
            call.pop("index", None)
            call["function"].pop("parsed_arguments", None)
    return doc


def test_usage_is_streamed_only_to_who_asked_for_it_and_never_made_up(
    upstream: Upstream, proxy: Any, heard: Heard, transport: httpx2.Client
) -> None:
    client = at_openai(proxy(CACHE_UPSTREAM_OPENAI=upstream.url, **ON), transport)
    upstream.script(json_reply(gpt.chat("Hello")))
    client.chat.completions.create(**CHAT)
    chunks = list(client.chat.completions.create(**CHAT, stream=True))
    assert [chunk.usage for chunk in chunks] == [None] * len(chunks)
    assert all(chunk.choices for chunk in chunks)
    other = {**CHAT, "messages": [{"role": "user", "content": "other"}]}
    upstream.script(sse_reply(gpt.chat_stream("Hello")), json_reply(gpt.chat("Hello")))
    list(client.chat.completions.create(**other, stream=True))
    answer = client.chat.completions.create(**other)
    assert answer.usage is not None
    assert heard.labels == ["MISS", "HIT-NORM", "MISS", "MISS"]


def test_it_needs_the_normalized_tier(proxy: Any) -> None:
    one: Proxy = proxy(start=False, CACHE_NORMALIZE="off", **ON).start(wait=False)
    assert one.wait_exit() == 2
    assert "CACHE_CROSS_STREAM=1 (environment): must be 0 with CACHE_NORMALIZE=off" in one.output()
