"""Anthropic answers: what is whole, what isn't and why, and what a whole one used."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_cache.wire.provider import Answer, Endpoint, Usage
from llm_cache.wire.providers.anthropic import COUNT_TOKENS, MESSAGES, Anthropic

PROVIDER = Anthropic()
SSE = "text/event-stream; charset=utf-8"


def event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


def delta(kind: str, index: int = 0, **fields: str) -> bytes:
    """Spelled as the API spells it: compact, with padding at the end."""
    doc = {"type": "content_block_delta", "index": index, "delta": {"type": kind, **fields}}
    data = json.dumps(doc, separators=(",", ":"), ensure_ascii=False)
    return f"event: content_block_delta\ndata: {data}      \n\n".encode()


def block(index: int, kind: str, **fields: Any) -> bytes:
    return event("content_block_start", index=index, content_block={"type": kind, **fields})


START = event(
    "message_start",
    message={
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-5-20250929",
        "content": [],
        "usage": {
            "input_tokens": 11,
            "cache_read_input_tokens": 7,
            "cache_creation_input_tokens": 5,
            "cache_creation": {"ephemeral_5m_input_tokens": 3, "ephemeral_1h_input_tokens": 2},
            "output_tokens": 1,
            "service_tier": "standard",
        },
    },
)
PING = b'event: ping\ndata: {"type": "ping"}\n\n'
STOP = b'event: message_stop\ndata: {"type":"message_stop"         }\n\n'
END = event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 42})
TEXT = block(0, "text", text="") + delta("text_delta", text="Hello,\n  wörld")
WHOLE = START + PING + TEXT + event("content_block_stop", index=0) + END + STOP


def watch(
    *pieces: bytes, status: int = 200, kind: str = SSE, endpoint: Endpoint = MESSAGES
) -> tuple[bool, Answer]:
    watcher = PROVIDER.watch(endpoint, status, kind)
    for piece in pieces:
        watcher.feed(piece)
    return watcher.done, watcher.close()


def assert_incomplete(reason: str, *pieces: bytes) -> None:
    done, answer = watch(*pieces)
    assert not answer.complete
    assert reason in answer.reason
    assert not done


def test_a_whole_stream_is_complete_and_says_what_it_used() -> None:
    assert watch(WHOLE) == (
        True,
        Answer(
            complete=True,
            model="claude-sonnet-4-5-20250929",
            usage=Usage(
                input_tokens=11,
                output_tokens=42,
                cache_read_tokens=7,
                cache_write_tokens=5,
                cache_write_1h_tokens=2,
                input_includes_cache=False,
            ),
            snippet="Hello, wörld",
        ),
    )


def test_a_stream_cut_at_any_byte_is_not_complete() -> None:
    # The last byte is the second half of the blank line that dispatches message_stop.
    for length in range(len(WHOLE)):
        done, answer = watch(WHOLE[:length])
        assert not done, length
        assert not answer.complete, length
        assert answer.reason in ("no message_start", "no message_stop")


def test_done_turns_true_with_the_last_byte_and_not_before() -> None:
    watcher = PROVIDER.watch(MESSAGES, 200, SSE)
    for at in range(len(WHOLE)):
        assert not watcher.done
        watcher.feed(WHOLE[at : at + 1])
    assert watcher.done
    assert watcher.close().complete


@given(st.lists(st.integers(0, len(WHOLE)), max_size=8))
def test_how_a_stream_is_split_changes_no_fact(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(WHOLE)]
    pieces = [WHOLE[start:end] for start, end in pairwise(edges)]
    assert watch(*pieces) == watch(WHOLE)


@pytest.mark.parametrize("end", [b"\r\n", b"\r"])
def test_other_line_endings_are_the_same_stream(end: bytes) -> None:
    assert watch(WHOLE.replace(b"\n", end))[1] == watch(WHOLE)[1]


@pytest.mark.parametrize("name", ["text_delta", "input_json_delta", "unknown_delta"])
def test_words_in_a_text_do_not_end_a_stream(name: str) -> None:
    words = 'event: message_stop\ndata: {"type":"message_stop"}\n\n'
    talk = START + block(0, "text", text=words) + delta(name, text=words, partial_json=words)
    assert_incomplete("no message_stop", talk)
    assert_incomplete("no message_stop", talk, delta("text_delta", text="x" * 500) * 3)
    assert watch(talk + STOP)[1].complete


def test_a_delta_is_judged_by_its_structure_even_when_the_snippet_is_full() -> None:
    full = START + TEXT + delta("text_delta", text="x" * 500)
    error = 'data: {"type":"content_block_delta","type":"error","error":{"type":"api_error"}}\n\n'
    assert_incomplete("error event: api_error", full, error.encode(), STOP)
    misnamed = delta("text_delta", text="y").replace(b"event: content_block_delta", b"event: error")
    assert_incomplete("error event", full, misnamed, STOP)
    assert_incomplete("not JSON", full, b'data: {"type":"content_block_delta"', b"\n\n", STOP)
    cut = delta("text_delta", text="y").rstrip(b"} \n") + b"\n\n"
    assert_incomplete("not JSON", full, cut, STOP)
    assert_incomplete("not JSON", full, delta("text_delta", text="y?").replace(b"?", b"\xff"), STOP)


@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_an_error_event_anywhere_makes_a_stream_incomplete(place: int) -> None:
    error = event("error", error={"type": "overloaded_error", "message": "message_stop"})
    parts = [START, TEXT, END, STOP]
    parts.insert(place + 1, error)
    assert_incomplete("error event: overloaded_error", *parts)
    assert_incomplete("error event: overloaded_error", error, *parts)


@pytest.mark.parametrize(
    "tail",
    [
        b"data: x\n\n",
        b"data: [DONE]\n\ndata: [DONE]\n\n",
        b"data: x",
        b"d",
        b"<html>\n",
        b"\xff\xfe",
        TEXT,
        STOP,
        START,
        event("message_delta", delta={}, usage={"output_tokens": 1}),
    ],
)
def test_data_after_message_stop_makes_a_stream_incomplete(tail: bytes) -> None:
    assert_incomplete("data after message_stop", WHOLE + tail)
    assert_incomplete("data after message_stop", WHOLE, tail)


@pytest.mark.parametrize("tail", [b"\n", b"\r\n\r\n", b": bye\n\n", PING, b": cut comm"])
def test_white_space_comments_and_pings_may_follow(tail: bytes) -> None:
    done, answer = watch(WHOLE, tail)
    assert done
    assert answer.complete


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        (b"", "no message_start"),
        (PING, "no message_start"),
        (STOP, "message_stop before message_start"),
        (TEXT + STOP, "before message_start"),
        (START + START + STOP, "second message_start"),
        (event("message_start") + STOP, "no message in the start"),
        (START + b"data: not JSON\n\n" + STOP, "not JSON"),
        (START + b"data: [1]\n\n" + STOP, "not JSON"),
        (START + b'data: {"kind":"x"}\n\n' + STOP, "not JSON"),
        (START + b'data: {"type":"\xff"}\n\n' + STOP, "not JSON"),
        (START + b"data: " + b"[" * 100_000 + b"\n\n" + STOP, "not JSON"),
        (b"<html><body>message_stop</body></html>\n\n", "not an event stream"),
        (START + b"stray line\n" + STOP, "not an event stream"),
        (b"\x1f\x8b\x08\x00" * 50, "no message_start"),
        (b'{"type":"message"}', "no message_start"),
    ],
)
def test_what_is_not_such_a_stream_is_incomplete(stream: bytes, reason: str) -> None:
    assert_incomplete(reason, stream)


@given(st.lists(st.binary(max_size=30) | st.sampled_from([b"data: ", b"\n\n", PING]), max_size=10))
def test_no_bytes_raise_or_complete(pieces: list[bytes]) -> None:
    done, answer = watch(*pieces)
    assert not done
    assert not answer.complete


def test_an_unknown_event_is_no_fault() -> None:
    assert watch(START, event("something_new", x=1), STOP)[1].complete


def test_final_usage_wins_and_what_it_leaves_out_stays() -> None:
    final = {"input_tokens": 100, "output_tokens": 9, "cache_read_input_tokens": None}
    last = {**final, "output_tokens": 30, "server_tool_use": {"web_search_requests": 2}}
    stream = START + event("message_delta", usage=final) + event("message_delta", usage=last) + STOP
    assert watch(stream)[1].usage == Usage(100, 30, 7, 5, 2, web_searches=2)


def test_a_stream_without_usage_has_none() -> None:
    start = event("message_start", message={"model": "m"})
    assert watch(start, STOP)[1] == Answer(complete=True, model="m")


def test_nonsense_in_usage_counts_as_nothing() -> None:
    usage = {"input_tokens": -4, "output_tokens": "9", "cache_read_input_tokens": True}
    start = event("message_start", message={"model": 5, "usage": {**usage, "cache_creation": 3}})
    assert watch(start, STOP)[1] == Answer(complete=True, usage=Usage())


SNIPPETS = [
    ([block(0, "text", text=""), delta("text_delta", text="a " * 500)], ("a " * 40)),
    ([block(0, "text", text="Hi"), block(1, "text", text="there")], "Hi there"),
    ([block(0, "text", text=""), delta("text_delta", text=" \n\t x\x1b[31m\x00y")], "x [31m y"),
    (
        [block(0, "thinking", thinking=""), delta("thinking_delta", thinking="hm " * 90),
         block(1, "text", text=""), delta("text_delta", 1, text="Answer")],
        "Answer",
    ),
    (
        [block(0, "thinking", thinking=""), delta("thinking_delta", thinking="hm"),
         delta("signature_delta", signature="xyz")],
        "[thinking] hm",
    ),
    (
        [block(0, "thinking", thinking="hm"), block(1, "tool_use", name="get_weather", input={}),
         delta("input_json_delta", 1, partial_json='{"a'), block(2, "tool_use", name="other")],
        "[tool] get_weather",
    ),
    ([], ""),
]  # fmt: skip


@pytest.mark.parametrize(("parts", "line"), SNIPPETS)
def test_the_snippet_is_the_first_80_characters_on_one_line(parts: list[bytes], line: str) -> None:
    answer = watch(START, *parts, STOP)[1]
    assert answer.complete
    assert answer.snippet == line[:80]


def test_many_small_deltas_make_the_same_snippet_as_one() -> None:
    words = "one  two\nthree " * 30
    pieces = [delta("text_delta", text=char) for char in words]
    streamed = watch(START, block(0, "text", text=""), *pieces, STOP)[1].snippet
    assert streamed == " ".join(words.split())[:80]
    body = {**MESSAGE, "content": [{"type": "text", "text": words}]}
    assert watch(json.dumps(body).encode(), kind="application/json")[1].snippet == streamed


# JSON

MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-haiku-4-5",
    "content": [{"type": "thinking", "thinking": "x"}, {"type": "text", "text": "Hi\nyou"}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 3, "output_tokens": 4, "cache_read_input_tokens": 5},
}
BODY = json.dumps(MESSAGE).encode()


def test_a_json_message_is_complete_only_as_a_whole() -> None:
    done, answer = watch(BODY, kind="application/json")
    assert not done  # more could follow: only the end tells
    assert answer == Answer(
        complete=True, model="claude-haiku-4-5", usage=Usage(3, 4, 5), snippet="Hi you"
    )
    for length in range(len(BODY)):
        assert not watch(BODY[:length], kind="application/json")[1].complete
    pieces = [BODY[at : at + 1] for at in range(len(BODY))]
    assert watch(*pieces, kind="Application/JSON; charset=utf-8")[1] == answer


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not JSON"),
        (BODY + BODY, "not JSON"),
        (b"[]", "not a JSON object"),
        (b"{}", "not a message"),
        (b'{"type":"error","error":{"type":"overloaded_error"}}', "error: overloaded_error"),
        (b'{"type":"error"}', "error"),
        (b'{"type":"file"}', "not a message"),
        (b'{"type":"message","x":"\xff"}', "not JSON"),
        (b"\xef\xbb\xbf" + BODY, "not JSON"),
        (BODY.decode().encode("utf-16"), "not JSON"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_other_json_is_incomplete(body: bytes, reason: str) -> None:
    answer = watch(body, kind="application/json")[1]
    assert not answer.complete
    assert answer.reason.startswith(reason)


def test_a_token_count_needs_its_number() -> None:
    def count(body: bytes, kind: str = "application/json") -> Answer:
        return watch(body, kind=kind, endpoint=COUNT_TOKENS)[1]

    assert count(b'{"input_tokens":12}') == Answer(complete=True, snippet="12 input tokens")
    for body in (b"{}", b'{"input_tokens":"12"}', b'{"input_tokens":true}', b"12", BODY):
        assert not count(body).complete
    assert not count(b'{"type":"error","input_tokens":1}').complete
    assert not count(WHOLE, SSE).complete


@pytest.mark.parametrize("status", [199, 201, 204, 206, 301, 400, 401, 429, 500, 529])
def test_only_status_200_is_complete(status: int) -> None:
    for body, kind in ((WHOLE, SSE), (BODY, "application/json")):
        done, answer = watch(body, kind=kind, status=status)
        assert not done
        assert answer == Answer(complete=False, reason=f"status {status}")


@pytest.mark.parametrize("kind", ["text/html", "", "text/plain", "application/jsonl"])
def test_another_content_type_is_incomplete(kind: str) -> None:
    for body in (WHOLE, BODY):
        done, answer = watch(body, kind=kind)
        assert not done
        assert not answer.complete
        assert answer.reason.startswith("content type")


def test_a_body_is_judged_by_its_content_type() -> None:
    assert not watch(BODY, kind=SSE)[1].complete
    assert not watch(WHOLE, kind="application/json")[1].complete
