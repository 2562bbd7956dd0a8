"""Requests and answers as a person reads them, in every provider's form and from any bytes."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import anthropic_wire as wire
from support import bedrock_wire, cohere_wire

from llm_cache.wire import readable
from llm_cache.wire.provider import Endpoint
from llm_cache.wire.providers.anthropic import Anthropic
from llm_cache.wire.readable import Part
from llm_cache.wire.registry import PROVIDERS, by_name

TYPES = (
    *("text/event-stream", "application/json", "application/x-ndjson"),
    *("application/vnd.amazon.eventstream", ""),
)


def shown(parts: list[Part], *, facts: bool = False) -> list[tuple[str, str, str]]:
    """Kind, title and text of each part; without the facts unless they are asked for."""
    return [(p.kind, p.title, p.text) for p in parts if facts or p.kind != "facts"]


def events(*docs: Any, end: bytes = b"") -> bytes:
    return b"".join(b"data: " + wire.dump(doc) + b"\n\n" for doc in docs) + end


CALL_TEXT = json.dumps({"city": "Paris", "days": [1, 2]}, indent=2)


@pytest.mark.parametrize("streamed", [False, True])
def test_a_streamed_message_reads_like_the_whole_one(streamed: bool) -> None:
    blocks = [
        wire.thinking_block("I should look."),
        wire.text_block("Let me see."),
        wire.tool_use_block("get_weather", {"city": "Paris", "days": [1, 2]}, "toolu_1"),
    ]
    if streamed:
        parts = readable.answer("text/event-stream", b"".join(wire.stream(blocks)))
    else:
        parts = readable.answer("application/json", wire.message(blocks))
    assert shown(parts) == [
        ("thinking", "thinking", "I should look."),
        ("assistant", "assistant", "Let me see."),
        ("call", "calls get_weather  (toolu_1)", CALL_TEXT),
    ]
    assert "stop_reason: tool_use" in parts[-1].text
    assert "\n  output_tokens: 34" in parts[-1].text


def test_a_request_shows_settings_tools_system_and_the_talk_in_order() -> None:
    body = wire.dump(
        {
            "model": "m",
            "max_tokens": 9,
            "tools": [{"name": "look", "description": "Looks.\nMore.", "input_schema": {}}],
            "system": [{"type": "text", "text": "Be brief."}],
            "messages": [
                {"role": "user", "content": "Hi"},
                {"role": "assistant", "content": [wire.tool_use_block("look", {}, "t1")]},
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "tool_result",
                            "tool_use_id": "t1",
                            "is_error": True,
                            "content": [wire.text_block("nothing")],
                        },
                        wire.text_block("And now?"),
                    ],
                },
            ],
        }
    )
    assert shown(readable.request(body), facts=True) == [
        ("facts", "request", "model: m\nmax_tokens: 9"),
        ("tools", "tools (1)", "look: Looks."),
        ("system", "system", "Be brief."),
        ("user", "user", "Hi"),
        ("call", "calls look  (t1)", "{}"),
        ("result", "result of t1 (error)", "nothing"),
        ("user", "user", "And now?"),
    ]


PNG = "iVBORw0KGgo" + "A" * 2989  # 3,000 characters


@pytest.mark.parametrize(
    "block",
    [
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
        {"type": "input_image", "image_url": f"data:image/png;base64,{PNG}"},
    ],
)
def test_an_image_is_a_placeholder_with_its_type_and_size(block: Any) -> None:
    body = wire.dump({"messages": [{"role": "user", "content": [block]}]})
    assert shown(readable.request(body)) == [("user", "user", "[image: image/png, 2,250 bytes]")]


def test_inline_data_of_gemini_is_a_placeholder() -> None:
    part = {"inlineData": {"mimeType": "image/png", "data": PNG}}
    body = wire.dump({"contents": [{"parts": [part, {"text": "What is it?"}]}]})
    assert shown(readable.request(body)) == [
        ("user", "user", "[data: image/png, 2,250 bytes]\nWhat is it?")
    ]


def test_a_linked_image_shows_where_it_is() -> None:
    block = {"type": "image", "source": {"type": "url", "url": "https://a.example/b.png"}}
    body = wire.dump({"messages": [{"role": "user", "content": [block]}]})
    assert shown(readable.request(body))[0][2] == "[image: https://a.example/b.png]"


def test_chat_chunks_are_put_together_tool_arguments_parsed() -> None:
    def chunk(finish: str | None = None, **delta: Any) -> Any:
        return {"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}

    def call(arguments: str, **fields: Any) -> Any:
        return [{"index": 0, **fields, "function": {"arguments": arguments, **fields}}]

    body = events(
        chunk(role="assistant", reasoning_content="Hm"),
        chunk(reasoning_content="m."),
        chunk(content="Hel"),
        chunk(content="lo"),
        chunk(tool_calls=[{"index": 0, "id": "c1", "function": {"name": "f", "arguments": ""}}]),
        chunk(tool_calls=[{"index": 0, "function": {"arguments": '{"city": "Paris",'}}]),
        chunk(tool_calls=[{"index": 0, "function": {"arguments": '"days": [1, 2]}'}}]),
        chunk("tool_calls"),
        {"choices": [], "usage": {"total_tokens": 3}},
        end=b"data: [DONE]\n\n",
    )
    parts = readable.answer("text/event-stream", body)
    assert shown(parts) == [
        ("thinking", "thinking", "Hmm."),
        ("assistant", "assistant", "Hello"),
        ("call", "calls f  (c1)", CALL_TEXT),
    ]
    assert "usage:\n  total_tokens: 3" in parts[-1].text


def test_a_response_is_read_from_its_last_event() -> None:
    done = {
        "object": "response",
        "output": [
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]},
            {"type": "message", "content": [{"type": "output_text", "text": "Hello"}]},
            {
                "type": "function_call",
                "name": "f",
                "call_id": "c1",
                "arguments": '{"city":"Paris","days":[1,2]}',
            },
        ],
    }
    body = events(
        {"type": "response.created", "response": {"output": []}},
        {"type": "response.output_text.delta", "delta": "Hel"},
        {"type": "response.completed", "response": done},
    )
    expected = [
        ("thinking", "thinking", "Hm."),
        ("message", "Hello"),
        ("call", "calls f  (c1)", CALL_TEXT),
    ]
    read = shown(readable.answer("text/event-stream", body))
    assert [read[0], read[1][1:], read[2]] == expected
    assert shown(readable.answer("application/json", wire.dump(done))) == read


GEMINI = (
    {"candidates": [{"content": {"parts": [{"text": "H", "thought": True}], "role": "model"}}]},
    {"candidates": [{"content": {"parts": [{"text": "m", "thought": True}], "role": "model"}}]},
    {"candidates": [{"content": {"parts": [{"text": "Hel"}], "role": "model"}}]},
    {
        "candidates": [
            {
                "content": {
                    "parts": [
                        {"text": "lo"},
                        {"functionCall": {"name": "f", "args": {"city": "Paris", "days": [1, 2]}}},
                    ],
                    "role": "model",
                },
                "finishReason": "STOP",
            }
        ],
        "modelVersion": "gemini-3",
    },
)


@pytest.mark.parametrize("form", ["sse", "array"])
def test_chunks_of_gemini_are_put_together(form: str) -> None:
    if form == "sse":
        parts = readable.answer("text/event-stream", events(*GEMINI))
    else:
        parts = readable.answer("application/json", wire.dump(list(GEMINI)))
    assert shown(parts) == [
        ("thinking", "thinking", "Hm"),
        ("assistant", "model", "Hello"),
        ("call", "calls f", CALL_TEXT),
    ]
    assert "modelVersion: gemini-3" in parts[-1].text


def test_lines_of_ollama_are_put_together() -> None:
    lines = [
        {"model": "q", "message": {"role": "assistant", "content": "Hel"}, "done": False},
        {"model": "q", "message": {"role": "assistant", "content": "lo"}, "done": True},
    ]
    body = b"".join(wire.dump(line) + b"\n" for line in lines)
    assert shown(readable.answer("application/x-ndjson", body)) == [
        ("assistant", "assistant", "Hello")
    ]


def test_events_of_cohere_are_put_together() -> None:
    said = readable.answer("text/event-stream", b"".join(cohere_wire.chat_stream("Hello, you")))
    assert shown(said) == [("assistant", "assistant", "Hello, you")]
    assert "finish_reason: COMPLETE" in said[-1].text
    called = readable.answer("text/event-stream", b"".join(cohere_wire.tool_stream("f")))
    [call] = [part for part in called if part.kind == "call"]
    assert call.title.startswith("calls f")
    assert json.loads(call.text) == {"city": "Rome"}


def test_a_conversation_of_bedrock_reads_like_the_whole_one() -> None:
    blocks = [{"text": "Let me see."}, bedrock_wire.tool_use("f", {"city": "Paris"})]
    kind = "application/vnd.amazon.eventstream"
    streamed = readable.answer(kind, b"".join(bedrock_wire.conversation(blocks)))
    whole = readable.answer("application/json", bedrock_wire.conversed(blocks))
    assert shown(streamed) == shown(whole)
    said, call = shown(whole)
    assert said == ("assistant", "assistant", "Let me see.")
    assert call[1].startswith("calls f")
    assert json.loads(call[2]) == {"city": "Paris"}


def test_claudes_events_inside_bedrocks_chunks_are_put_together() -> None:
    body = b"".join(bedrock_wire.chunks_of(wire.stream("Hello, you")))
    parts = readable.answer("application/vnd.amazon.eventstream", body)
    assert shown(parts) == [("assistant", "assistant", "Hello, you")]


def test_an_embedding_is_not_a_wall_of_numbers() -> None:
    doc = {"object": "list", "data": [{"index": 0, "embedding": [0.25] * 1536}], "model": "e"}
    [part] = readable.answer("application/json", wire.dump(doc))
    assert "[0.25, 0.25, 0.25, 0.25, … 1,536 numbers]" in part.text


def test_a_stream_of_unknown_form_is_shown_event_by_event() -> None:
    parts = readable.answer("text/event-stream", b'event: tick\ndata: {"n":1}\n\ndata: plain\n\n')
    assert shown(parts) == [("other", "tick", '{\n  "n": 1\n}'), ("other", "2", "plain")]


def test_pretty_leaves_nothing_out_and_raw_is_the_bytes() -> None:
    body = b"".join(wire.stream("Hello"))
    parts = readable.pretty("text/event-stream", body)
    assert [part.title for part in parts][:2] == ["message_start", "content_block_start"]
    assert len(parts) == body.count(b"event:")
    assert readable.raw(b"a\xff\x1b[2J")[0].text == "a\ufffd\x1b[2J"
    [part] = readable.pretty("application/json", b'{"a":[1,{"b":null}]}')
    assert json.loads(part.text) == {"a": [1, {"b": None}]}


@pytest.mark.parametrize(
    ("provider", "endpoint", "doc", "words"),
    [
        ("anthropic", "messages", {"messages": [{"role": "user", "content": "A  b\nc"}]}, "A b c"),
        ("openai", "chat", {"messages": [{"role": "system", "content": "no"}, {"role": "user", "content": "yes"}]}, "yes"),  # noqa: E501
        ("gemini", "generate_content", {"contents": [{"parts": [{"text": "Hallo"}]}]}, "Hallo"),
        ("openai", "responses", {"instructions": "no", "input": "yes"}, "yes"),
        ("openai", "embeddings", {"input": ["one", "two"]}, "one"),
        ("anthropic", "messages", {"messages": 3}, ""),
        ("anthropic", "messages", {"messages": [{"role": "user", "content": "\x1b[2Jx"}]}, " [2Jx"),
        ("anthropic", "messages", {"messages": [{"role": "user", "content": "w" * 99}]}, "w" * 80),
    ],
)  # fmt: skip
def test_the_first_words_are_the_persons(
    provider: str, endpoint: str, doc: Any, words: str
) -> None:
    known = by_name(provider)
    assert known is not None
    assert readable.prompt(known, Endpoint(endpoint), doc) == words


def test_what_an_agent_puts_before_the_prompt_is_not_the_prompt() -> None:
    blocks = [
        wire.text_block("<system-reminder>\nToday is Monday.\n</system-reminder>"),
        wire.text_block("Fix the bug."),
    ]
    doc = {"messages": [{"role": "user", "content": blocks}]}
    assert readable.prompt(Anthropic(), Endpoint("messages"), doc) == "Fix the bug."


def test_reading_a_stream_costs_what_its_length_says() -> None:
    """Ten times the stream takes some ten times as long, not a hundred; the best of three."""

    def seconds(words: int) -> float:
        body = b"".join(wire.stream("word " * words, piece=2))
        times = []
        for _ in range(3):
            began = time.perf_counter()
            readable.answer("text/event-stream", body)
            times.append(time.perf_counter() - began)
        return min(times)

    assert seconds(20_000) < 40 * seconds(2_000)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    *(
                        "type",
                        "content",
                        "role",
                        "delta",
                        "index",
                        "choices",
                        "message",
                        "messages",
                    ),
                    *("candidates", "parts", "text", "tool_calls", "function", "output", "input"),
                    *("content_block", "usage", "thinking", "system", "tools", "done", "response"),
                    *("contentBlockDelta", "contentBlockIndex", "image", "inlineData", "summary"),
                ]
            ),
            inner
            | st.sampled_from(
                [
                    "message_start",
                    "content_block_delta",
                    "message-start",
                    "content-delta",
                    "reasoning",
                ]
            ),
            max_size=5,
        )
    ),
    max_leaves=20,
)


@given(st.lists(JSON, max_size=4), st.sampled_from(TYPES))
def test_json_of_any_form_has_something_to_show(docs: list[Any], content_type: str) -> None:
    for doc in docs:
        for provider in PROVIDERS if isinstance(doc, dict) else ():
            assert len(readable.prompt(provider, Endpoint("messages"), doc)) <= 80
    for body in (events(*docs), wire.dump(docs), *map(wire.dump, docs)):
        for parts in (
            readable.answer(content_type, body),
            readable.pretty(content_type, body),
            readable.request(body),
        ):
            assert all(isinstance(part.text, str) for part in parts)


@given(st.binary(max_size=200), st.sampled_from(TYPES))
def test_bytes_of_any_kind_never_raise(body: bytes, content_type: str) -> None:
    readable.answer(content_type, body)
    readable.pretty(content_type, body)
    readable.request(body)


def test_json_nested_too_deeply_is_shown_as_it_is() -> None:
    body = b'{"content":' + b"[" * 100_000
    assert readable.answer("application/json", body)[0].text.startswith('{"content":[[')
    assert readable.request(body)[0].text.startswith('{"content":[[')
