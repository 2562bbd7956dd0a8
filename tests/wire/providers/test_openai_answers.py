"""OpenAI's answers: what is whole, what isn't and why, and what a whole one used."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import openai_wire as wire

from llm_cache.wire.provider import Answer, Endpoint, Usage
from llm_cache.wire.providers.openai import (
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    INPUT_TOKENS,
    MODERATIONS,
    RERANK,
    RESPONSES,
    OpenAI,
)

PROVIDER = OpenAI()
SSE = "text/event-stream; charset=utf-8"
JSON = "application/json"

TWO = b"".join(wire.chat_stream("Hello, wörld", "Good day", tokens=wire.usage(11, 7, 4, 3)))
PLAIN = b"".join(wire.chat_stream("Hello, wörld"))
STREAM = b"".join(wire.response_stream("Hello, wörld"))


def watch(
    *pieces: bytes, status: int = 200, kind: str = SSE, endpoint: Endpoint = CHAT
) -> tuple[bool, Answer]:
    watcher = PROVIDER.watch(endpoint, status, kind)
    for piece in pieces:
        watcher.feed(piece)
    return watcher.done, watcher.close()


def judged(body: bytes, endpoint: Endpoint = CHAT) -> Answer:
    done, answer = watch(body, kind=JSON, endpoint=endpoint)
    assert not done
    return answer


def assert_incomplete(reason: str, *pieces: bytes, endpoint: Endpoint = CHAT) -> None:
    done, answer = watch(*pieces, endpoint=endpoint)
    assert not answer.complete
    assert reason in answer.reason
    assert not done


def altered(body: bytes, **fields: Any) -> bytes:
    return wire.dump({**json.loads(body), **fields})


# Chat streams


def test_a_whole_stream_with_usage_is_complete_and_says_what_it_used() -> None:
    assert watch(TWO) == (
        True,
        Answer(
            complete=True,
            model=wire.MODEL,
            usage=Usage(11, 7, cache_read_tokens=4, input_includes_cache=True),
            snippet="Hello, wörld",
        ),
    )


def test_a_whole_stream_without_usage_is_complete_and_has_none() -> None:
    expected = Answer(complete=True, model=wire.MODEL, snippet="Hello, wörld")
    assert watch(PLAIN) == (True, expected)


@pytest.mark.parametrize("stream", [TWO, PLAIN])
def test_a_stream_cut_at_any_byte_is_not_complete(stream: bytes) -> None:
    for length in range(len(stream)):
        done, answer = watch(stream[:length])
        assert not done, length
        assert not answer.complete, length
        assert answer.reason == "no [DONE]"


@pytest.mark.parametrize(("stream", "endpoint"), [(TWO, CHAT), (STREAM, RESPONSES)])
def test_done_turns_true_with_the_last_byte_and_not_before(
    stream: bytes, endpoint: Endpoint
) -> None:
    watcher = PROVIDER.watch(endpoint, 200, SSE)
    for at in range(len(stream)):
        assert not watcher.done
        watcher.feed(stream[at : at + 1])
    assert watcher.done
    assert watcher.close().complete


@given(st.lists(st.integers(0, len(TWO)), max_size=8))
def test_how_a_stream_is_split_changes_no_fact(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(TWO)]
    assert watch(*(TWO[start:end] for start, end in pairwise(edges))) == watch(TWO)


@given(st.binary(max_size=200))
def test_no_bytes_raise_or_make_a_complete_answer(garbage: bytes) -> None:
    for endpoint in (CHAT, RESPONSES):
        for kind in (SSE, JSON):
            assert not watch(garbage, kind=kind, endpoint=endpoint)[1].complete


def test_every_choice_that_began_must_finish() -> None:
    end = wire.chunk(wire.delta(0, "stop")) + wire.DONE
    began = wire.chunk(wire.delta(0, content="a")) + wire.chunk(wire.delta(1, content="b"))
    assert_incomplete("without a finish_reason", began, end)
    assert_incomplete("without a finish_reason", wire.DONE)
    assert_incomplete("without a finish_reason", wire.chunk(usage=wire.usage()), wire.DONE)
    assert_incomplete("without a finish_reason", wire.chunk(wire.delta(content="a")), wire.DONE)
    assert watch(began, wire.chunk(wire.delta(1, "length")), end)[1].complete


def test_words_in_a_text_do_not_end_a_stream() -> None:
    words = 'data: [DONE]\n\ndata: {"finish_reason":"stop"}'
    talk = wire.chunk(wire.delta(content=words))
    assert_incomplete("no [DONE]", talk)
    assert_incomplete("without a finish_reason", talk, wire.DONE)
    named = b'data: "[DONE]"\n\n'
    assert_incomplete("not JSON", talk, wire.chunk(wire.delta(finish="stop")), named)


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize(
    "error",
    [
        wire.data({"error": {"type": "server_error", "message": "[DONE]"}}),
        wire.data({"error": "overloaded"}),
        wire.data({"object": "error", "message": "CUDA error", "code": 500}),
        b'event: error\ndata: {"message":"gone"}\n\n',
        b"event: error\ndata: gone\n\n",
        wire.chunk(error={"code": 502, "message": "Provider disconnected"}),
        wire.chunk(wire.delta(finish="error")),
        wire.chunk({**wire.delta(), "error": {"code": 502, "message": "x"}}),
        wire.chunk(wire.delta(finish="insufficient_system_resource")),
        wire.chunk(x_groq={"id": "req_1", "error": "over capacity"}),
        b'error: {"code":500}\n\n',
    ],
)
def test_an_error_anywhere_in_a_200_makes_a_stream_incomplete(place: int, error: bytes) -> None:
    parts = [
        wire.chunk(wire.delta(content="a")),
        wire.chunk(wire.delta(finish="stop")),
        wire.DONE,
    ]
    parts.insert(place, error)
    done, answer = watch(*parts)
    assert not answer.complete
    assert answer.reason
    assert not done


def test_what_the_log_says_of_an_error_never_quotes_its_message() -> None:
    error = wire.data({"error": {"type": "server_error", "message": "your key sk-secret"}})
    assert watch(error)[1].reason == "error: server_error"
    assert watch(wire.data({"error": "your key sk-secret"}))[1].reason == "error"


def test_nothing_may_follow_done() -> None:
    assert_incomplete("data after [DONE]", PLAIN, wire.DONE)
    assert_incomplete("data after [DONE]", PLAIN, wire.chunk(wire.delta(content="more")))
    assert_incomplete("data after [DONE]", PLAIN, b"data: ")
    assert watch(PLAIN, b": a comment\n\n")[1].complete


def test_what_servers_add_to_a_stream_is_not_in_the_way() -> None:
    filtered = wire.chunk(prompt_filter_results=[{"prompt_index": 0}])  # Azure's first
    after = wire.chunk({"index": 0, "content_filter_offsets": {"start_offset": 1}})  # and last
    keep_alive = b": OPENROUTER PROCESSING\n\n"
    pieces = wire.chat_stream("Hi")
    whole = b"".join([keep_alive, filtered, *pieces[:-1], after, keep_alive, pieces[-1]])
    assert watch(whole)[1].complete


def test_usage_is_found_where_groq_puts_it_and_the_last_count_counts() -> None:
    pieces = wire.chat_stream("Hi")
    groq = wire.chunk(x_groq={"id": "req_1", "usage": wire.usage(5, 6)})
    growing = wire.chunk(usage=wire.usage(5, 1))
    answer = watch(pieces[0], growing, *pieces[1:-1], groq, pieces[-1])[1]
    assert answer.complete
    assert answer.usage == Usage(5, 6, input_includes_cache=True)


def test_a_stream_of_completions_is_read_alike() -> None:
    parts = [
        wire.data({"object": "text_completion", "choices": [{"index": 0, "text": "Once "}]}),
        wire.data({"choices": [{"index": 0, "text": "upon", "finish_reason": "length"}]}),
    ]
    done, answer = watch(*parts, wire.DONE, endpoint=COMPLETIONS)
    assert (done, answer.complete, answer.snippet) == (True, True, "Once upon")
    assert_incomplete("no [DONE]", *parts, endpoint=COMPLETIONS)


@pytest.mark.parametrize(
    ("message", "snippet"),
    [
        ({"content": "Hello"}, "Hello"),
        ({"content": [{"type": "text", "text": "Hello"}]}, "Hello"),
        ({"content": None, "refusal": "I can't."}, "I can't."),
        ({"content": None, "audio": {"id": "a", "transcript": "Spoken"}}, "Spoken"),
        ({"content": "", "tool_calls": [wire.tool_call("get_weather", {})]}, "[tool] get_weather"),
        ({"tool_calls": [{"type": "custom", "custom": {"name": "run"}}]}, "[tool] run"),
        ({"function_call": {"name": "old"}}, "[tool] old"),
        ({"content": None, "reasoning_content": "Let me see"}, "[thinking] Let me see"),
        ({"content": None, "reasoning": "Let me see"}, "[thinking] Let me see"),
        (
            {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]}]},
            "[thinking] Hm",
        ),
    ],
)
def test_the_snippet_shows_text_or_tool_or_thinking_streamed_or_not(
    message: dict[str, Any], snippet: str
) -> None:
    whole = wire.dump({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})
    assert judged(whole).snippet == snippet
    parts = [wire.chunk(wire.delta(**message)), wire.chunk(wire.delta(finish="stop")), wire.DONE]
    assert watch(*parts)[1].snippet == snippet


# Responses streams


def test_a_whole_response_stream_is_complete_and_says_what_it_used() -> None:
    expected = Answer(
        complete=True,
        model=wire.MODEL,
        usage=Usage(36, 10, cache_read_tokens=8, input_includes_cache=True),
        snippet="Hello, wörld",
    )
    assert watch(STREAM, endpoint=RESPONSES) == (True, expected)
    assert watch(STREAM, wire.DONE, endpoint=RESPONSES) == (True, expected)
    assert_incomplete(
        "data after response.completed", STREAM, wire.DONE, wire.DONE, endpoint=RESPONSES
    )


def test_a_response_stream_cut_at_any_byte_is_not_complete() -> None:
    for length in range(0, len(STREAM), 7):
        assert_incomplete("no response.completed", STREAM[:length], endpoint=RESPONSES)
    assert_incomplete("no response.completed", STREAM[:-1], endpoint=RESPONSES)


@pytest.mark.parametrize(
    ("kind", "fields", "reason"),
    [
        (
            "response.incomplete",
            {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}},
            "status incomplete: max_output_tokens",
        ),
        (
            "response.failed",
            {"status": "failed", "error": {"code": "server_error", "message": "x"}},
            "error: server_error",
        ),
        ("response.cancelled", {"status": "cancelled"}, "status cancelled"),
        ("response.completed", {"object": "list"}, "not a response"),
        (
            "response.completed",
            {"conversation": {"id": "conv_1"}},
            "part of a conversation that goes on",
        ),
    ],
)
def test_a_response_that_ends_otherwise_is_not_stored(
    kind: str, fields: dict[str, Any], reason: str
) -> None:
    start = b"".join(wire.response_stream()[:-1])
    end = wire.event(kind, response=wire.response_document(**fields))
    assert_incomplete(reason, start, end, endpoint=RESPONSES)


def test_an_error_event_makes_a_response_stream_incomplete() -> None:
    error = wire.event("error", code="rate_limit_exceeded", message="response.completed")
    start, end = wire.response_stream()[:-1], wire.response_stream()[-1]
    told = "error event: rate_limit_exceeded"
    assert_incomplete(told, *start, error, endpoint=RESPONSES)
    assert_incomplete(told, *start, error, end, endpoint=RESPONSES)
    assert_incomplete(told, *start, end, error, endpoint=RESPONSES)


def test_words_in_a_delta_do_not_complete_a_response() -> None:
    words = 'event: response.completed\ndata: {"type":"response.completed"}\n\n'
    talk = b"".join(wire.response_stream(words)[:-1])
    assert_incomplete("no response.completed", talk, endpoint=RESPONSES)


# JSON


def test_a_chat_completion_is_complete_and_says_what_it_used() -> None:
    body = wire.chat("Hello", "Good day", tokens=wire.usage(300, 17, 256, 5))
    assert judged(body) == Answer(
        complete=True,
        model=wire.MODEL,
        usage=Usage(300, 17, cache_read_tokens=256, input_includes_cache=True),
        snippet="Hello",
    )


def test_a_json_answer_cut_at_any_byte_is_not_complete() -> None:
    for body, endpoint in [
        (wire.chat("Hello"), CHAT),
        (wire.dump(wire.response_document()), RESPONSES),
        (wire.embeddings([0.5, -1.0]), EMBEDDINGS),
    ]:
        assert judged(body, endpoint).complete
        assert not any(judged(body[:length], endpoint).complete for length in range(len(body)))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (wire.error("server_error"), "error: server_error"),
        (altered(wire.chat("a"), error={"code": 502}), "error: 502"),
        (altered(wire.chat("a"), choices=[]), "no choices"),
        (altered(wire.chat("a"), choices=[{"index": 0}]), "a choice is not a message"),
        (
            wire.chat("a").replace(b'"finish_reason":"stop"', b'"finish_reason":"error"'),
            "finish_reason error",
        ),
        (wire.dump({"object": "error", "code": 400, "message": "x"}), "error: 400"),
        (wire.dump({"detail": "Not Found"}), "no choices"),
        (b"[]", "not a JSON object"),
        (b"", "not JSON"),
    ],
)
def test_a_200_without_an_answer_is_not_stored(body: bytes, reason: str) -> None:
    answer = judged(body)
    assert not answer.complete
    assert reason in answer.reason


@pytest.mark.parametrize("status", ["queued", "in_progress", "incomplete", "failed", "cancelled"])
def test_a_response_that_is_not_completed_is_not_stored(status: str) -> None:
    answer = judged(wire.dump(wire.response_document(status=status)), RESPONSES)
    assert not answer.complete
    assert f"status {status}" in answer.reason


def test_a_completed_response_is_stored_unless_its_conversation_goes_on() -> None:
    calls = [wire.tool_call("get_capital", {"country": "France"})]
    answer = judged(wire.dump(wire.response_document(calls=calls)), RESPONSES)
    assert (answer.complete, answer.snippet) == (True, "[tool] get_capital")
    assert answer.usage == Usage(36, 10, cache_read_tokens=8, input_includes_cache=True)
    chained = wire.response_document(previous_response_id="resp_1")
    assert judged(wire.dump(chained), RESPONSES).complete
    talking = wire.response_document(conversation={"id": "conv_1"})
    assert not judged(wire.dump(talking), RESPONSES).complete


@pytest.mark.parametrize(
    ("endpoint", "body", "snippet"),
    [
        (EMBEDDINGS, wire.embeddings([0.1], [0.2]), "2 embeddings"),
        (EMBEDDINGS, wire.embeddings("AAAAPw=="), "1 embeddings"),
        (INPUT_TOKENS, b'{"object":"response.input_tokens","input_tokens":18}', "18 input tokens"),
        (MODERATIONS, b'{"model":"m","results":[{"flagged":true}]}', "1 results, 1 flagged"),
        (RERANK, b'{"results":[{"index":0,"relevance_score":0.9}]}', "1 results"),
    ],
)
def test_lists_and_counts_are_complete_when_they_have_their_form(
    endpoint: Endpoint, body: bytes, snippet: str
) -> None:
    answer = judged(body, endpoint)
    assert (answer.complete, answer.snippet) == (True, snippet)
    assert not judged(wire.error(), endpoint).complete
    assert not judged(b"{}", endpoint).complete
    assert not watch(body, endpoint=endpoint)[1].complete  # not as an event stream


def test_a_status_or_content_type_that_is_no_answer_is_refused() -> None:
    assert watch(TWO, status=206)[1].reason == "status 206"
    assert watch(wire.error(), status=429, kind=JSON)[1].reason == "status 429"
    assert watch(TWO, kind="text/html")[1].reason == "content type text/html"
    assert watch(TWO, kind="")[1].reason == "content type missing"


# Usage


@pytest.mark.parametrize(
    ("told", "usage"),
    [
        ({"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}, Usage(9, 3)),
        ({"total_tokens": 10}, Usage(10, 0)),  # Voyage's embeddings
        ({"input_tokens": 9, "output_tokens": 3}, Usage(9, 3)),
        (wire.usage(20, 30, 15, 25), Usage(20, 30, 15)),
        (
            {
                "input_tokens": 90,
                "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 80},
            },
            Usage(90, 0, 4, 80),
        ),
        ({"prompt_tokens": 90, "prompt_cache_hit_tokens": 64}, Usage(90, 0, 64)),  # DeepSeek
        (  # xAI counts reasoning beside the completion
            {**wire.usage(20, 30, 0, 25), "total_tokens": 75},
            Usage(20, 55),
        ),
        ({"prompt_tokens": "many", "completion_tokens": True}, Usage()),
        (None, None),
        ([], None),
    ],
)
def test_usage_is_what_the_body_says(told: Any, usage: Usage | None) -> None:
    found = judged(altered(wire.chat("a"), usage=told)).usage
    if usage is None:
        assert found is None
    else:
        assert found is not None
        assert found.input_includes_cache
        assert (found.input_tokens, found.output_tokens) == (
            usage.input_tokens,
            usage.output_tokens,
        )
        assert (found.cache_read_tokens, found.cache_write_tokens) == (
            usage.cache_read_tokens,
            usage.cache_write_tokens,
        )
