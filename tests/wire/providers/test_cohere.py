"""Cohere: which requests are cached, and when an answer of chat, embed and rerank is whole."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import cohere_wire as wire
from support import openai_wire as gpt
from support.keys import further_keys
from support.openai_wire import event, tool_call

from llm_cache.wire.normalize import Rules
from llm_cache.wire.provider import Answer, Endpoint, Usage
from llm_cache.wire.providers.cohere import CHAT, EMBED, RERANK, Cohere

PROVIDER = Cohere()
SSE = "text/event-stream"
JSON = "application/json"
USED = Usage(5, 9, input_includes_cache=True)  # what is billed, not what was read
END = b"".join(wire.chat_stream()[-2:])
WHOLE = b"".join(wire.chat_stream("Hello, wörld"))


def watch(
    *pieces: bytes, kind: str = SSE, endpoint: Endpoint = CHAT, status: int = 200
) -> tuple[bool, Answer]:
    watcher = PROVIDER.watch(endpoint, status, kind)
    for piece in pieces:
        watcher.feed(piece)
    return watcher.done, watcher.close()


@pytest.mark.parametrize("stream", [WHOLE, WHOLE.removesuffix(wire.DONE)])
def test_a_whole_stream_is_complete_and_says_what_it_used(stream: bytes) -> None:
    assert watch(stream) == (True, Answer(complete=True, usage=USED, snippet="Hello, wörld"))


def test_a_stream_cut_at_any_byte_is_not_complete() -> None:
    ended = WHOLE.removesuffix(wire.DONE)
    for length in range(len(ended)):
        done, answer = watch(ended[:length])
        assert not done, length
        assert not answer.complete, length
        assert answer.reason in ("no message-start", "no message-end")


@given(st.lists(st.integers(0, len(WHOLE)), max_size=8))
def test_how_a_stream_is_split_changes_no_fact(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(WHOLE)]
    assert watch(*(WHOLE[start:end] for start, end in pairwise(edges))) == watch(WHOLE)


@pytest.mark.parametrize(
    ("pieces", "reason"),
    [
        (wire.chat_stream(finish="ERROR"), "finish_reason ERROR"),
        (wire.chat_stream(finish="TIMEOUT"), "finish_reason TIMEOUT"),
        ([event("message-end", delta={})], "message-end before message-start"),
        ([event("message-start"), event("message-end", delta={})], "finish_reason None"),
        (
            [event("message-start"), event("message-end", delta={"error": {"code": 500}})],
            "error: 500",
        ),
        ([event("message-start"), b"event: error\ndata: gone\n\n"], "error event"),
        ([event("message-start"), wire.DONE], "an event is not JSON"),
        ([WHOLE, wire.DONE], "data after message-end"),
        ([WHOLE, event("content-delta")], "data after message-end"),
        ([b"<html>\n\n"], "not an event stream"),
    ],
)
def test_what_is_not_whole_is_not_stored(pieces: list[bytes], reason: str) -> None:
    done, answer = watch(*pieces)
    assert (answer.complete, done) == (False, False)
    assert reason in answer.reason


def test_a_stream_that_calls_a_tool_shows_it() -> None:
    assert watch(*wire.tool_stream())[1].snippet == "[tool] get_weather"


@pytest.mark.parametrize(
    ("endpoint", "body", "expected"),
    [
        (CHAT, wire.chat("Hello!"), Answer(True, usage=USED, snippet="Hello!")),
        (
            CHAT,
            wire.chat(calls=[tool_call("get_weather", {})]),
            Answer(True, usage=USED, snippet="[tool] get_weather"),
        ),
        (CHAT, wire.chat(finish_reason="MAX_TOKENS"), Answer(True, usage=USED, snippet="Hello!")),
        (
            EMBED,
            wire.embed([0.1], [0.2]),
            Answer(True, usage=Usage(4, 0, input_includes_cache=True), snippet="2 embeddings"),
        ),
        (
            RERANK,
            wire.rerank(0.9, 0.1),
            Answer(True, usage=Usage(input_includes_cache=True), snippet="2 results"),
        ),
    ],
)
def test_a_json_answer_is_complete_when_it_has_its_form(
    endpoint: Endpoint, body: bytes, expected: Answer
) -> None:
    assert watch(body, kind=JSON, endpoint=endpoint) == (False, expected)
    for wrong in (body[:-1], b"{}", b'{"id":"1","message":"model not found"}', b"[]"):
        assert not watch(wrong, kind=JSON, endpoint=endpoint)[1].complete
    assert watch(body, kind=JSON, endpoint=endpoint, status=404)[1].reason == "status 404"


@pytest.mark.parametrize("reason", ["ERROR", "TIMEOUT", "ERROR_TOXIC", None])
def test_an_answer_that_was_broken_off_is_not_stored(reason: str | None) -> None:
    answer = watch(wire.chat(finish_reason=reason), kind=JSON)[1]
    assert (answer.complete, answer.reason) == (False, f"finish_reason {reason}")


@pytest.mark.parametrize(
    ("path", "endpoint"),
    [
        ("/v2/chat", CHAT),
        ("/v2/embed", EMBED),
        ("/v2/rerank", RERANK),
        ("/v1/embed", EMBED),
        ("/v1/rerank", RERANK),
        ("/v1/chat", None),
        ("/v2/chat/", None),
        ("/v2/chats", None),
        ("/v1/models", None),
        ("/v1/tokenize", None),
        ("/compatibility/v1/chat/completions", Endpoint("chat.completions")),
        ("/compatibility/v1/embeddings", Endpoint("embeddings")),
        ("/compatibility/v1/files", None),
    ],
)
def test_only_what_asks_a_model_is_cacheable(path: str, endpoint: Endpoint | None) -> None:
    assert PROVIDER.endpoint("POST", path) == endpoint
    assert PROVIDER.endpoint("GET", path) is None


@pytest.mark.parametrize(
    ("path", "claimed"),
    [("/v2/chat", True), ("/v1/rerank", True), ("/v1/chat/completions", False), ("/v2", False)],
)
def test_its_paths_are_claimed(path: str, claimed: bool) -> None:
    assert PROVIDER.claims("POST", path, {}) is claimed


@pytest.mark.parametrize(
    ("endpoint", "form"),
    [
        (CHAT, {"messages": [{"role": "system", "content": "sys-%d"}]}),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "text", "text": "run-%d"}]}]}),
        (
            CHAT,
            {
                "messages": [
                    {
                        "role": "tool",
                        "tool_call_id": "c",
                        "content": [{"type": "document", "document": {"data": "run-%d"}}],
                    }
                ]
            },
        ),
        (
            CHAT,
            {
                "messages": [
                    {
                        "role": "tool",
                        "content": [{"type": "document", "document": {"data": {"t": "run-%d"}}}],
                    }
                ]
            },
        ),
        (CHAT, {"documents": ["run-%d"]}),
        (EMBED, {"texts": ["run-%d"]}),
        (EMBED, {"inputs": [{"content": [{"type": "text", "text": "run-%d"}]}]}),
        (RERANK, {"query": "run-%d", "documents": ["a"]}),
    ],
)
def test_rules_reach_text_in_every_form(endpoint: Endpoint, form: dict[str, Any]) -> None:
    def key(number: int, rules: Rules) -> bytes | None:
        body = json.dumps(form).replace("%d", str(number)).encode()
        return further_keys(PROVIDER, endpoint, b"", body, rules, 1.0).normalized

    strip = Rules(system_strip=("sys-\\d",), message_strip=("run-\\d",))
    assert key(1, strip) == key(2, strip) is not None
    assert key(1, Rules()) != key(2, Rules())


def test_the_suffix_is_of_chat_without_tools() -> None:
    talk = [{"role": "user", "content": text} for text in ("a", "b", "c")]
    doc = {"messages": talk}
    assert PROVIDER.keep_last(CHAT, doc, 1)
    assert doc["messages"] == talk[-1:]
    planned = {"messages": [{"role": "assistant", "tool_plan": "I will look."}, *talk]}
    assert not PROVIDER.keep_last(CHAT, planned, 1)
    assert not PROVIDER.keep_last(RERANK, {"query": "a"}, 1)


def test_its_errors_keys_and_determinism() -> None:
    assert json.loads(PROVIDER.error_body(504, "cache_miss", "none")) == {
        "message": "none",
        "type": "cache_miss",
    }
    assert PROVIDER.auth_header("k") == (b"authorization", b"Bearer k")
    assert not PROVIDER.is_key_header(b"x-client-name")
    assert PROVIDER.request_model(CHAT, "/v2/chat", {"model": wire.MODEL}) == wire.MODEL
    assert PROVIDER.is_deterministic(EMBED, {})
    assert PROVIDER.is_deterministic(CHAT, {"temperature": 0, "seed": 1})
    assert not PROVIDER.is_deterministic(CHAT, {"temperature": 0})


def test_openais_chat_at_cohere_is_read_as_openais_own() -> None:
    endpoint = PROVIDER.endpoint("POST", "/compatibility/v1/chat/completions")
    assert endpoint is not None
    body = b"".join(gpt.chat_stream("Good day", tokens=gpt.usage(11, 7)))
    assert watch(body, endpoint=endpoint)[1].snippet == "Good day"
    assert watch(body[:-14], endpoint=endpoint)[1].complete is False
    doc = {"model": "m", "user": "u", "messages": [{"role": "user", "content": "hi"}]}
    PROVIDER.strip_volatile(endpoint, doc)
    PROVIDER.map_texts(endpoint, doc, str.upper, str.upper)
    assert doc == {"model": "m", "messages": [{"role": "user", "content": "HI"}]}
