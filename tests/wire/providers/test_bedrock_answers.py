"""Bedrock answers: what is whole, what isn't and why, and what a whole one used."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import anthropic_wire
from support import bedrock_wire as wire

from llm_cache.wire.provider import Answer, Endpoint, Usage
from llm_cache.wire.providers.bedrock import Bedrock

PROVIDER = Bedrock()
JSON = "application/json"
EVENTS = "application/vnd.amazon.eventstream"
CONVERSE = Endpoint("converse", wire.NOVA)
CONVERSE_STREAM = Endpoint("converse_stream", wire.NOVA)
INVOKE = Endpoint("invoke", "some-model")
INVOKE_STREAM = Endpoint("invoke_stream", "some-model")
COUNT = Endpoint("count_tokens", wire.CLAUDE)

BLOCKS = [{"text": "Hello,\n  wörld"}, wire.tool_use("get_weather", {"city": "Zürich"})]
TOKENS = wire.tokens(11, 7, read=5, written=3)
USED = Usage(input_tokens=11, output_tokens=7, cache_read_tokens=5, cache_write_tokens=3)
WHOLE = Answer(complete=True, model=wire.NOVA, usage=USED, snippet="Hello, wörld")
CONVERSATION = wire.conversation(BLOCKS, TOKENS)
CLAUDE = wire.chunks_of(anthropic_wire.stream([anthropic_wire.text_block("Hello,\n  wörld")]))
NOVA = [
    wire.chunk({"messageStart": {"role": "assistant"}}),
    wire.chunk({"contentBlockDelta": {"delta": {"text": "Hello, "}, "contentBlockIndex": 0}}),
    wire.chunk({"contentBlockDelta": {"delta": {"text": " wörld"}, "contentBlockIndex": 0}}),
    wire.chunk({"messageStop": {"stopReason": "end_turn"}}),
    wire.chunk({"metadata": {"usage": wire.tokens()}, **wire.metrics(11, 7)}),
]
LLAMA = [
    wire.chunk({"generation": "Hello, ", "prompt_token_count": 11, "stop_reason": None}),
    wire.chunk({"generation": "wörld", "stop_reason": "stop", **wire.metrics(11, 7)}),
]
MISTRAL = [
    wire.chunk({"outputs": [{"text": "Hello, ", "stop_reason": None}]}),
    wire.chunk({"outputs": [{"text": "wörld", "stop_reason": "stop"}], **wire.metrics(11, 7)}),
]
TITAN = [wire.chunk({"outputText": "Hello, wörld", "index": 0, **wire.metrics(11, 7)})]
GPT = [
    wire.chunk({"choices": [{"index": 0, "delta": {"content": "Hello, wörld"}}]}),
    wire.chunk({"choices": [{"delta": {}, "finish_reason": "stop"}], **wire.metrics(11, 7)}),
]
STREAMS = {
    "converse": (CONVERSE_STREAM, CONVERSATION),
    "claude": (INVOKE_STREAM, CLAUDE),
    "nova": (INVOKE_STREAM, NOVA),
    "llama": (INVOKE_STREAM, LLAMA),
    "mistral": (INVOKE_STREAM, MISTRAL),
    "titan": (INVOKE_STREAM, TITAN),
    "gpt-oss": (INVOKE_STREAM, GPT),
}
streams = pytest.mark.parametrize(("endpoint", "messages"), STREAMS.values(), ids=STREAMS.keys())


def watch(
    endpoint: Endpoint, *pieces: bytes, kind: str = EVENTS, status: int = 200
) -> tuple[bool, Answer]:
    watcher = PROVIDER.watch(endpoint, status, kind)
    for piece in pieces:
        watcher.feed(piece)
    return watcher.done, watcher.close()


def reason(endpoint: Endpoint, *pieces: bytes, kind: str = EVENTS) -> str:
    done, answer = watch(endpoint, *pieces, kind=kind)
    assert not answer.complete
    assert not done
    return answer.reason


# Streams


def test_a_whole_conversation_is_complete_and_says_what_it_used() -> None:
    assert watch(CONVERSE_STREAM, *CONVERSATION) == (True, WHOLE)


@streams
def test_every_makers_stream_is_complete_with_its_end(
    endpoint: Endpoint, messages: list[bytes]
) -> None:
    done, answer = watch(endpoint, *messages)
    assert (done, answer.complete, answer.reason) == (True, True, "")
    assert (answer.model, answer.snippet) == (endpoint.model, "Hello, wörld")
    assert answer.usage is not None
    if messages is not CLAUDE:
        assert (answer.usage.input_tokens, answer.usage.output_tokens) == (11, 7)


def test_claudes_usage_is_that_of_its_own_events() -> None:
    used = anthropic_wire.usage(3, 9, cache_read=4, cache_write_5m=2, cache_write_1h=1)
    _, answer = watch(INVOKE_STREAM, *wire.chunks_of(anthropic_wire.stream("Hi", tokens=used)))
    assert answer.usage == Usage(
        3, 9, cache_read_tokens=4, cache_write_tokens=3, cache_write_1h_tokens=1
    )


@streams
def test_a_stream_cut_at_any_byte_is_not_complete(
    endpoint: Endpoint, messages: list[bytes]
) -> None:
    whole = b"".join(messages)
    for length in range(len(whole)):
        assert reason(endpoint, whole[:length]), length


@streams
@given(data=st.data())
def test_how_a_stream_is_split_changes_no_fact(
    endpoint: Endpoint, messages: list[bytes], data: st.DataObject
) -> None:
    whole = b"".join(messages)
    edges = [0, *sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8))), len(whole)]
    assert watch(endpoint, *(whole[a:b] for a, b in pairwise(edges))) == watch(endpoint, whole)


@streams
def test_a_flipped_bit_is_not_complete(endpoint: Endpoint, messages: list[bytes]) -> None:
    whole = b"".join(messages)
    for at in range(0, len(whole), 7):
        altered = bytearray(whole)
        altered[at] ^= 0x10
        assert reason(endpoint, bytes(altered)), at


@streams
@pytest.mark.parametrize("at", [0, 1, -1, None])
def test_an_exception_anywhere_is_not_complete(
    endpoint: Endpoint, messages: list[bytes], at: int | None
) -> None:
    place = len(messages) if at is None else at % len(messages)
    altered = [*messages[:place], wire.exception(), *messages[place:]]
    assert reason(endpoint, *altered) == "exception: throttlingException"


def test_an_error_message_and_a_nameless_one_are_not_complete() -> None:
    told = wire.framed({":message-type": "error", ":error-code": "InternalFailure"}, b"")
    assert reason(CONVERSE_STREAM, *CONVERSATION[:-1], told) == "error: InternalFailure"
    assert reason(CONVERSE_STREAM, wire.framed({}, b"{}")) == "unnamed: "


@pytest.mark.parametrize("missing", ["messageStop", "metadata"])
def test_a_conversation_needs_both_its_stop_and_its_metadata(missing: str) -> None:
    kept = [one for one in CONVERSATION if missing.encode() not in one]
    assert reason(CONVERSE_STREAM, *kept) == "no messageStop and metadata"


def test_words_in_the_text_are_no_end() -> None:
    told = "messageStop metadata message_stop amazon-bedrock-invocationMetrics"
    assert reason(CONVERSE_STREAM, *wire.conversation(told)[:-2])
    assert (
        reason(INVOKE_STREAM, *wire.chunks_of(anthropic_wire.stream(told))[:-1])
        == "no message_stop"
    )
    assert reason(INVOKE_STREAM, wire.chunk({"generation": told}))


@streams
def test_nothing_may_follow_the_end(endpoint: Endpoint, messages: list[bytes]) -> None:
    assert reason(endpoint, *messages, messages[0]).startswith("data after")
    assert reason(endpoint, *messages, b"\x00") == "a message is cut short"


@pytest.mark.parametrize(
    ("messages", "why"),
    [
        ([wire.event("chunk", bytes="!")], "a chunk is not a JSON object"),
        ([wire.event("chunk", bytes=7)], "a chunk is not a JSON object"),
        ([wire.event("chunk")], "a chunk is not a JSON object"),
        ([wire.framed({":message-type": "event"}, b"[]")], "an event is not a JSON object"),
        ([wire.chunk({"error": {"code": "x"}, **wire.metrics()})], "error: x"),
        ([NOVA[0], NOVA[-1]], "no messageStop"),
        (
            [*CLAUDE[:3], wire.chunk({"type": "error", "error": {"type": "overloaded_error"}})],
            "error event: overloaded_error",
        ),
        ([], "no end of the model's answer"),
    ],
)
def test_what_is_no_whole_stream_says_why(messages: list[bytes], why: str) -> None:
    assert reason(INVOKE_STREAM, *messages) == why


# Answers in one piece


def test_a_whole_converse_answer_is_complete_and_says_what_it_used() -> None:
    assert watch(CONVERSE, wire.conversed(BLOCKS, TOKENS), kind=JSON) == (False, WHOLE)


def test_an_hours_cache_is_told_apart() -> None:
    details = {"cacheDetails": [{"ttl": "1h", "inputTokens": 2}, {"ttl": "5m", "inputTokens": 1}]}
    _, answer = watch(CONVERSE, wire.conversed("Hi", TOKENS | details), kind=JSON)
    assert answer.usage is not None
    assert (answer.usage.cache_write_tokens, answer.usage.cache_write_1h_tokens) == (3, 2)


@pytest.mark.parametrize(
    ("document", "usage", "line"),
    [
        (anthropic_wire.message_document("Hi"), Usage(12, 34), "Hi"),
        (json.loads(wire.conversed("Hi")), Usage(5, 7), "Hi"),
        (
            {"inputTextTokenCount": 4, "results": [{"tokenCount": 2, "outputText": "Hi"}]},
            Usage(4, 2),
            "Hi",
        ),
        ({"embedding": [0.1], "inputTextTokenCount": 4}, Usage(4), "embeddings"),
        ({"embeddings": [[0.1]], "id": "1"}, None, "embeddings"),
        (
            {"generation": "Hi", "prompt_token_count": 4, "generation_token_count": 2},
            Usage(4, 2),
            "Hi",
        ),
        ({"outputs": [{"text": "Hi", "stop_reason": "stop"}]}, None, "Hi"),
        ({"generations": [{"text": "Hi"}]}, None, "Hi"),
        (
            {
                "choices": [{"message": {"content": "Hi"}}],
                "usage": {"prompt_tokens": 4, "completion_tokens": 2},
            },
            Usage(4, 2),
            "Hi",
        ),
        ({"images": ["iVBORw0KGgo="], "error": None}, None, ""),
    ],
    ids=[
        "claude",
        "nova",
        "titan",
        "titan embed",
        "cohere embed",
        "llama",
        "mistral",
        "cohere",
        "gpt-oss",
        "image",
    ],
)
def test_every_makers_answer_is_complete(document: Any, usage: Usage | None, line: str) -> None:
    _, answer = watch(INVOKE, wire.dump(document), kind=JSON)
    assert answer == Answer(complete=True, model="some-model", usage=usage, snippet=line)


def test_the_answer_names_the_model_when_the_path_names_a_resource() -> None:
    opaque = Endpoint("invoke", "application-inference-profile/abc")
    _, answer = watch(opaque, anthropic_wire.message("Hi"), kind=JSON)
    assert answer.model == anthropic_wire.MODEL
    _, answer = watch(Endpoint("converse", opaque.model), wire.conversed("Hi"), kind=JSON)
    assert answer.model == opaque.model


@pytest.mark.parametrize(
    ("endpoint", "body", "why"),
    [
        (CONVERSE, b"{}", "an empty answer"),
        (CONVERSE, wire.dump({"output": {"message": {"content": []}}}), "no stopReason"),
        (CONVERSE, wire.dump({"stopReason": "end_turn"}), "no stopReason"),
        (CONVERSE, wire.conversed()[:-1], "not JSON, or cut short"),
        (INVOKE, b"{}", "an empty answer"),
        (INVOKE, wire.dump({"error": "content filtered", "images": []}), "error"),
        (INVOKE, wire.dump({"Output": {"__type": "UnknownOperation"}}), "error: UnknownOperation"),
        (INVOKE, anthropic_wire.error("overloaded_error", "x"), "error: overloaded_error"),
        (COUNT, wire.dump({"message": "x"}), "no inputTokens"),
    ],
)
def test_what_is_no_whole_answer_says_why(endpoint: Endpoint, body: bytes, why: str) -> None:
    assert reason(endpoint, body, kind=JSON) == why


def test_counted_tokens_are_an_answer() -> None:
    _, answer = watch(COUNT, wire.dump({"inputTokens": 11}), kind=JSON)
    assert answer == Answer(complete=True, model=wire.CLAUDE, snippet="11 input tokens")


def test_other_statuses_and_content_types_are_refused() -> None:
    assert watch(CONVERSE, wire.conversed(), kind=JSON, status=429)[1].reason == "status 429"
    assert reason(CONVERSE, *CONVERSATION) == f"content type {EVENTS}"
    assert reason(INVOKE, b"{}", kind="image/png") == "content type image/png"


def test_headers_tell_the_usage_of_a_body_that_does_not() -> None:
    fields = {
        b"x-amzn-bedrock-input-token-count": b"8",
        b"x-amzn-bedrock-output-token-count": b"3",
        b"x-amzn-bedrock-cache-read-input-token-count": b"2",
        b"x-amzn-bedrock-invocation-latency": b"417",
    }
    assert PROVIDER.header_usage(fields) == Usage(8, 3, cache_read_tokens=2)
    assert PROVIDER.header_usage({b"x-amzn-bedrock-invocation-latency": b"417"}) is None
