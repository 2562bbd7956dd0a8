"""What ends an answer at which host, each fed byte by byte: whole with its own end, and with no
other; what a host adds decides nothing; what isn't finished isn't whole."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support import openai_wire as gpt
from support.answers import read as read_as

from llm_cache.wire.provider import Answer
from llm_cache.wire.registry import by_name

SSE, JSON = "text/event-stream", "application/json"
MESSAGES, CHAT, RESPONSES = "/v1/messages", "/v1/chat/completions", "/v1/responses"
CLAUDE_AT_VERTEX = (
    "/v1/projects/p/locations/global/publishers/anthropic/models/claude-x:streamRawPredict"
)
GEMINI = "/v1beta/models/gemini-x:streamGenerateContent"
VERTEX_EVENT = b'event: vertex_event\ndata: {"type":"vertex_event","usage":{"trafficType":"x"}}\n\n'
OPAQUE_EVENT = b"event: gateway_note\ndata: not JSON\n\n"
ODD = (VERTEX_EVENT, OPAQUE_EVENT)


def events(*docs: dict[str, Any]) -> bytes:
    return b"".join(
        b"event: %b\ndata: %b\n\n" % (doc["type"].encode(), json.dumps(doc).encode())
        for doc in docs
    )


MESSAGE = events(
    {"type": "message_start", "message": {"model": "claude-x", "usage": {"input_tokens": 3}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}},
    {"type": "content_block_stop", "index": 0},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn"},
        "usage": {"output_tokens": 2},
    },
    {"type": "message_stop"},
)
COHERE = events(
    {"type": "message-start"},
    {"type": "content-delta", "delta": {"message": {"content": {"text": "Hi"}}}},
    {"type": "message-end", "delta": {"finish_reason": "COMPLETE"}},
)
PERPLEXITY = (
    gpt.chunk(gpt.delta(content="Hi"), usage=gpt.usage(3, 1)),
    gpt.chunk(gpt.delta(finish="stop"), usage=gpt.usage(3, 2)),
)
SNOWFLAKE = (gpt.chunk(gpt.delta(content="Hi")), gpt.chunk(usage=gpt.usage(3, 2)), gpt.DONE)
GEMINI_CHUNK = (
    b'data: {"candidates":[{"content":{"parts":[{"text":"Hi"}]},"finishReason":"STOP"}]}\r\n\r\n'
)


def read(name: str, path: str, body: bytes, kind: str = SSE) -> tuple[bool, Answer]:
    """The facts of a body that comes byte by byte."""
    return read_as(name, path, body, kind)


@pytest.mark.parametrize(
    ("name", "path", "body"),
    [
        ("vllm", MESSAGES, MESSAGE + gpt.DONE),
        ("anthropic", MESSAGES, MESSAGE + gpt.DONE),
        ("perplexity", CHAT, b"".join(PERPLEXITY)),
        ("perplexity", CHAT, b"".join(PERPLEXITY) + gpt.DONE),
        ("snowflake", "/api/v2/cortex/v1/chat/completions", b"".join(SNOWFLAKE)),
    ],
)
def test_a_stream_is_whole_with_its_hosts_own_end(name: str, path: str, body: bytes) -> None:
    done, answer = read(name, path, body)
    assert (answer.complete, answer.reason, answer.snippet, done) == (True, "", "Hi", True)
    assert answer.usage is not None
    assert answer.usage.output_tokens == 2


@pytest.mark.parametrize(
    ("name", "path", "body"),
    [
        ("perplexity", CHAT, b"".join(PERPLEXITY)),
        ("snowflake", CHAT, b"".join(SNOWFLAKE)),
        ("vllm", MESSAGES, MESSAGE),
    ],
)
def test_no_beginning_of_such_a_stream_is_whole(name: str, path: str, body: bytes) -> None:
    for length in range(len(body)):
        done, answer = read(name, path, body[:length])
        assert (done, answer.complete) == (False, False), body[:length]


@pytest.mark.parametrize(
    ("name", "path", "body", "reason"),
    [
        ("openai", CHAT, b"".join(PERPLEXITY), "no [DONE]"),
        ("groq", CHAT, b"".join(SNOWFLAKE), "[DONE] without a finish_reason"),
        ("perplexity", CHAT, b"".join(SNOWFLAKE), "[DONE] without a finish_reason"),
        ("perplexity", CHAT, PERPLEXITY[0], "no finish_reason and usage"),
        ("perplexity", CHAT, b"".join(PERPLEXITY) + PERPLEXITY[0], "data after"),
        ("perplexity", CHAT, gpt.chunk(gpt.delta(finish="stop")), "no finish_reason and usage"),
        ("snowflake", CHAT, gpt.DONE, "[DONE] without a finish_reason"),
        ("snowflake", CHAT, b"".join(SNOWFLAKE) + gpt.DONE, "data after"),
        ("vllm", MESSAGES, MESSAGE + gpt.DONE + gpt.DONE, "data after message_stop"),
        ("vllm", MESSAGES, gpt.DONE + MESSAGE, "not JSON"),
    ],
)
def test_another_hosts_end_is_none(name: str, path: str, body: bytes, reason: str) -> None:
    done, answer = read(name, path, body)
    assert (done, answer.complete) == (False, False)
    assert reason in answer.reason


@pytest.mark.parametrize("odd", ODD, ids=["JSON", "opaque"])
@pytest.mark.parametrize(
    ("name", "path", "body"),
    [
        ("vertex", CLAUDE_AT_VERTEX, MESSAGE),
        ("anthropic", MESSAGES, MESSAGE),
        ("openai", CHAT, b"".join(gpt.chat_stream("Hi"))),
        ("openai", RESPONSES, b"".join(gpt.response_stream("Hi"))),
        ("cohere", "/v2/chat", COHERE),
        ("gemini", GEMINI, GEMINI_CHUNK),
    ],
)
def test_an_event_that_a_host_adds_decides_nothing(
    name: str, path: str, body: bytes, odd: bytes
) -> None:
    whole = read(name, path, body)
    assert whole[1].complete
    end = b"\r\n\r\n" if b"\r" in body else b"\n\n"
    pieces = [piece + end for piece in body.split(end)[:-1]]
    for place in range(len(pieces) + 1):
        with_odd = b"".join([*pieces[:place], odd, *pieces[place:]])
        assert read(name, path, with_odd) == whole, place
    assert not read(name, path, odd)[1].complete


def test_an_error_under_a_hosts_own_name_is_an_error() -> None:
    error = b'event: vertex_error\ndata: {"error":{"code":503}}\n\n'
    for name, path, body in (
        ("vertex", CLAUDE_AT_VERTEX, MESSAGE),
        ("openai", CHAT, b"".join(gpt.chat_stream("Hi"))),
        ("openai", RESPONSES, b"".join(gpt.response_stream("Hi"))),
        ("cohere", "/v2/chat", COHERE),
        ("gemini", GEMINI, GEMINI_CHUNK),
    ):
        assert not read(name, path, error + body)[1].complete, name


CONVERSED = {"output": {"message": {"content": [{"text": "Hi"}]}}}
PLAIN: tuple[tuple[str, str, dict[str, Any], dict[str, Any]], ...] = (
    (
        *("openai", CHAT),
        {"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}]},
        {"choices": [{"message": {"content": "Hi"}, "finish_reason": None}]},
    ),
    (
        *("groq", CHAT),
        {"choices": [{"message": {"content": "Hi"}, "finish_reason": "length"}]},
        {"choices": [{"message": {"content": "Hi"}}]},
    ),
    (
        *("openai", "/v1/completions"),
        {"choices": [{"text": "Hi", "finish_reason": "stop"}]},
        {"choices": [{"text": "Hi", "finish_reason": "stop"}, {"text": "", "finish_reason": ""}]},
    ),
    (
        *("openai", RESPONSES),
        {"object": "response", "status": "completed"},
        {"object": "response", "status": None},
    ),
    (
        *("openai", RESPONSES),
        {"object": "response", "status": "completed"},
        {"object": "response", "status": "in_progress"},
    ),
    (
        *("anthropic", MESSAGES),
        {"type": "message", "content": [], "stop_reason": "max_tokens"},
        {"type": "message", "content": [], "stop_reason": None},
    ),
    (
        *("bedrock", "/model/claude/invoke"),
        {"type": "message", "content": [], "stop_reason": "end_turn"},
        {"type": "message", "content": []},
    ),
    (
        *("gemini", "/v1beta/models/g:generateContent"),
        {"candidates": [{"content": {}, "finishReason": "STOP"}]},
        {"candidates": [{"content": {}}]},
    ),
    (
        *("cohere", "/v2/chat"),
        {"message": {"content": []}, "finish_reason": "COMPLETE"},
        {"message": {"content": []}, "finish_reason": None},
    ),
    (
        *("ollama", "/api/chat"),
        {"message": {"content": "Hi"}, "done": True},
        {"message": {"content": "Hi"}, "done": False},
    ),
    ("bedrock", "/model/m/converse", {**CONVERSED, "stopReason": "end_turn"}, CONVERSED),
    (
        *("bedrock", "/model/nova/invoke"),
        {**CONVERSED, "stopReason": "end_turn"},
        {**CONVERSED, "stopReason": None},
    ),
    (
        *("bedrock", "/model/titan/invoke"),
        {"results": [{"outputText": "Hi", "completionReason": "FINISH"}]},
        {"results": [{"outputText": "Hi", "completionReason": None}]},
    ),
    (
        *("bedrock", "/model/gpt-oss/invoke"),
        {"choices": [{"message": {}, "finish_reason": "stop", "stop_reason": None}]},
        {"choices": [{"message": {}, "finish_reason": None, "stop_reason": None}]},
    ),
)


@pytest.mark.parametrize(("name", "path", "whole", "unfinished"), PLAIN)
def test_a_plain_answer_that_is_not_finished_is_not_whole(
    name: str, path: str, whole: dict[str, Any], unfinished: dict[str, Any]
) -> None:
    assert read(name, path, gpt.dump(whole), JSON)[1].complete
    answer = read(name, path, gpt.dump(unfinished), JSON)[1]
    assert not answer.complete
    assert answer.reason


def test_snowflakes_plain_answers_have_no_finish_reason() -> None:
    body = gpt.dump({"choices": [{"message": {"content": "Hi"}}], "usage": gpt.usage(3, 2)})
    assert read("snowflake", CHAT, body, JSON)[1].complete


INTERPRETER = {"type": "code_interpreter", "container": "cntr_1"}


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ({"tools": [INTERPRETER]}, False),
        ({"tools": [{"type": "web_search"}, INTERPRETER]}, False),
        ({"tools": [{"type": "code_interpreter", "container": {"type": "auto"}}]}, True),
        ({"conversation": {"id": "conv_1"}}, False),
        ({"previous_response_id": "resp_1"}, True),
    ],
)
def test_an_answer_that_leans_on_state_elsewhere_is_not_stored(
    fields: dict[str, Any], kept: bool
) -> None:
    body = gpt.dump(gpt.response_document(**fields))
    assert read("openai", RESPONSES, body, JSON)[1].complete == kept
    end = b'data: {"type":"response.completed","response":%b}\n\n' % body
    assert read("openai", RESPONSES, end)[1].complete == kept


@pytest.mark.parametrize(
    ("name", "path", "fields", "leans"),
    [
        ("openai", RESPONSES, {"tools": [INTERPRETER]}, True),
        ("azure", "/openai/v1/responses", {"conversation": "conv_1"}, True),
        ("openai", RESPONSES, {"previous_response_id": "resp_1"}, False),
        ("openai", CHAT, {"tools": [INTERPRETER]}, False),
        ("anthropic", MESSAGES, {"container": "container_1"}, True),
        ("vertex", CLAUDE_AT_VERTEX, {"container": {"id": "container_1"}}, True),
        ("zai", "/api/anthropic/v1/messages", {"container": "container_1"}, True),
        ("anthropic", MESSAGES, {"container": {"skills": [{"skill_id": "pdf"}]}}, False),
        ("anthropic", MESSAGES, {"container": None}, False),
        ("gemini", GEMINI, {"cachedContent": "cachedContents/1"}, False),
    ],
)
def test_a_request_says_what_it_leans_on(
    name: str, path: str, fields: dict[str, Any], leans: bool
) -> None:
    provider = by_name(name)
    assert provider is not None
    endpoint = provider.endpoint("POST", path)
    assert endpoint is not None
    assert bool(provider.leans_on(endpoint, fields)) == leans
