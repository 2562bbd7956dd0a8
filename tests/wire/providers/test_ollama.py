"""Ollama's own API: lines of JSON, the last of which is done."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.keys import further_keys

from llm_cache.wire.normalize import Rules
from llm_cache.wire.provider import Answer, Endpoint, Usage
from llm_cache.wire.providers.ollama import OWN_CHAT, OWN_EMBED, OWN_GENERATE, Ollama
from llm_cache.wire.providers.openai import CHAT

PROVIDER = Ollama()
LINES = "application/x-ndjson"


def line(**fields: Any) -> bytes:
    return json.dumps({"model": "llama3.2", **fields}, ensure_ascii=False).encode() + b"\n"


def said(text: str, **fields: Any) -> bytes:
    return line(message={"role": "assistant", "content": text}, done=False, **fields)


END = line(
    message={"role": "assistant", "content": ""},
    done=True,
    done_reason="stop",
    prompt_eval_count=26,
    eval_count=9,
)
WHOLE = said("Hello, ") + said("wörld") + END


def watch(
    *pieces: bytes, kind: str = LINES, endpoint: Endpoint = OWN_CHAT, status: int = 200
) -> tuple[bool, Answer]:
    watcher = PROVIDER.watch(endpoint, status, kind)
    for piece in pieces:
        watcher.feed(piece)
    return watcher.done, watcher.close()


def test_a_whole_stream_is_complete_and_says_what_it_used() -> None:
    expected = Answer(
        complete=True,
        model="llama3.2",
        usage=Usage(26, 9, input_includes_cache=True),
        snippet="Hello, wörld",
    )
    assert watch(WHOLE) == (True, expected)
    assert watch(WHOLE[:-1]) == (False, expected)  # the last line may end with the body


def test_a_stream_cut_at_any_byte_is_not_complete() -> None:
    for length in range(len(WHOLE) - 1):
        done, answer = watch(WHOLE[:length])
        assert not done, length
        assert not answer.complete, length
        assert answer.reason in ("no line is done", "a line is not a JSON object")


@given(st.lists(st.integers(0, len(WHOLE)), max_size=8))
def test_how_a_stream_is_split_changes_no_fact(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(WHOLE)]
    assert watch(*(WHOLE[start:end] for start, end in pairwise(edges))) == watch(WHOLE)


@pytest.mark.parametrize(
    ("pieces", "reason"),
    [
        ([said("a"), line(error="out of memory")], "error in a line"),
        ([said("a"), line(error="x", done=True)], "error"),
        ([said('{"done":true}')], "no line is done"),
        ([line(done="true")], "no line is done"),
        ([line(done=True, done_reason="load")], "done_reason load"),
        ([line(done=True, done_reason="unload")], "done_reason unload"),
        ([WHOLE, said("more")], "data after the line that is done"),
        ([b"[]\n"], "a line is not a JSON object"),
        ([b""], "no line is done"),
    ],
)
def test_what_is_not_whole_is_not_stored(pieces: list[bytes], reason: str) -> None:
    done, answer = watch(*pieces)
    assert (answer.complete, answer.reason, done) == (False, reason, False)


def test_an_answer_in_one_piece_is_complete_when_done() -> None:
    body = line(response="Hello", done=True, done_reason="length", eval_count=3)
    done, answer = watch(body, kind="application/json", endpoint=OWN_GENERATE)
    assert (done, answer.complete, answer.snippet) == (False, True, "Hello")
    assert answer.usage == Usage(0, 3, input_includes_cache=True)
    for wrong in (line(response="Hello"), b'{"error":"no such model"}', body[:-3]):
        assert not watch(wrong, kind="application/json", endpoint=OWN_GENERATE)[1].complete


@pytest.mark.parametrize(
    ("body", "snippet"),
    [
        (line(embeddings=[[0.1], [0.2]], prompt_eval_count=4), "2 embeddings"),
        (line(embedding=[0.1, 0.2]), "1 embeddings"),
        (line(embeddings=[]), None),
        (line(error="no such model"), None),
    ],
)
def test_embeddings_are_complete_when_there_are_any(body: bytes, snippet: str | None) -> None:
    answer = watch(body, kind="application/json", endpoint=OWN_EMBED)[1]
    assert (answer.complete, answer.snippet) == (snippet is not None, snippet or "")


def test_tools_and_thinking_are_shown_when_there_is_no_text() -> None:
    call = {"function": {"name": "get_weather", "arguments": {}}}
    tool = line(message={"content": "", "tool_calls": [call]}, done=True)
    assert watch(tool)[1].snippet == "[tool] get_weather"
    assert watch(line(message={"thinking": "Hm"}, done=True))[1].snippet == "[thinking] Hm"


def test_its_own_paths_are_its_own_and_v1_is_read_as_openais() -> None:
    assert PROVIDER.endpoint("POST", "/api/chat") == OWN_CHAT
    assert PROVIDER.endpoint("POST", "/api/generate") == OWN_GENERATE
    assert PROVIDER.endpoint("POST", "/api/embed") == OWN_EMBED
    assert PROVIDER.endpoint("POST", "/v1/chat/completions") == CHAT
    assert PROVIDER.endpoint("POST", "/api/pull") is None
    assert PROVIDER.endpoint("GET", "/api/chat") is None
    assert PROVIDER.claims("GET", "/api/tags", {})
    assert not PROVIDER.claims("POST", "/v1/chat/completions", {})
    assert watch(WHOLE, status=404)[1].reason == "status 404"
    assert watch(WHOLE, kind="text/plain")[1].reason == "content type text/plain"
    assert PROVIDER.watch(CHAT, 200, "text/event-stream").close().reason == "no [DONE]"


def test_rules_reach_its_texts() -> None:
    rules = Rules(system_strip=("sys-\\d",), message_strip=("run-\\d",))

    def key(number: int) -> bytes | None:
        body = json.dumps({"model": "m", "system": f"sys-{number}", "prompt": f"run-{number}"})
        return further_keys(PROVIDER, OWN_GENERATE, b"", body.encode(), rules, 1.0).normalized

    assert key(1) == key(2) is not None


def test_deterministic_by_its_options() -> None:
    fixed = {"options": {"temperature": 0, "seed": 1}}
    assert PROVIDER.is_deterministic(OWN_CHAT, fixed)
    assert not PROVIDER.is_deterministic(OWN_CHAT, {"temperature": 0, "seed": 1})
    assert PROVIDER.is_deterministic(OWN_EMBED, {})
    assert PROVIDER.is_deterministic(CHAT, {"temperature": 0, "seed": 1})


def test_the_suffix_of_its_chat_keeps_the_last_turns() -> None:
    talk = [{"role": "user", "content": text} for text in ("a", "b", "c")]
    doc = {"messages": talk}
    assert PROVIDER.keep_last(OWN_CHAT, doc, 1)
    assert doc["messages"] == talk[-1:]
    assert not PROVIDER.keep_last(OWN_GENERATE, {"prompt": "a"}, 1)
