"""A plain answer becomes a stream and a stream a plain answer, and nothing is lost or made up."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import anthropic_wire as claude
from support import openai_wire as gpt

from llm_cache.wire.provider import Endpoint, Provider, Watcher
from llm_cache.wire.providers import anthropic, anthropic_forms, openai, openai_forms
from llm_cache.wire.readable import reading as readable

SSE = "text/event-stream; charset=utf-8"

# Anthropic

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
some = st.text("abcdefgh_0123", min_size=1, max_size=12)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
)
inputs = st.dictionaries(texts, values, max_size=3)


def built(kind: str | st.SearchStrategy[str], **fields: Any) -> st.SearchStrategy[dict[str, Any]]:
    kinds = st.just(kind) if isinstance(kind, str) else kind
    return st.fixed_dictionaries({"type": kinds, **fields})


citations = st.lists(
    st.fixed_dictionaries({"type": st.just("char_location"), "cited_text": texts}), min_size=1
)
blocks = st.one_of(
    built("text", text=texts),
    built("text", text=texts, citations=st.none() | citations),
    built("thinking", thinking=texts, signature=some),
    built("redacted_thinking", data=some),
    built(st.sampled_from(["tool_use", "server_tool_use"]), id=some, name=some, input=inputs),
    built("tool_use", id=some, name=some, input=inputs, caller=st.just({"type": "direct"})),
    built("mcp_tool_use", id=some, name=some, server_name=some, input=inputs),
    built("web_search_tool_result", tool_use_id=some, content=st.lists(inputs)),
    built("mcp_tool_result", tool_use_id=some, is_error=st.booleans(), content=texts),
)
counts = st.integers(0, 10**7)
usages = st.fixed_dictionaries(
    {"input_tokens": counts, "output_tokens": counts},
    optional={
        "cache_creation_input_tokens": counts,
        "cache_read_input_tokens": counts | st.none(),
        "cache_creation": st.just({"ephemeral_5m_input_tokens": 1}),
        "output_tokens_details": st.just({"thinking_tokens": 3}),
        "server_tool_use": st.none() | st.just({"web_search_requests": 1}),
        "service_tier": st.just("standard"),
        "inference_geo": st.just("us"),
    },
)
messages: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "model": some,
        "id": some,
        "type": st.just("message"),
        "role": st.just("assistant"),
        "content": st.lists(blocks, max_size=5),
        "stop_reason": st.sampled_from(["end_turn", "tool_use", "max_tokens", "stop_sequence"]),
        "stop_sequence": st.none() | texts,
        "usage": usages,
    },
    optional={
        "stop_details": st.none() | st.just({"type": "refusal", "category": "cyber"}),
        "container": st.none() | st.just({"id": "c", "expires_at": "2026"}),
        "context_management": st.just({"applied_edits": []}),
    },
)


@given(messages)
def test_a_message_survives_being_a_stream(message: dict[str, Any]) -> None:
    stream = anthropic_forms.as_stream(claude.dump(message))
    assert stream is not None
    back = anthropic_forms.as_plain(stream)
    assert back is not None
    assert json.loads(back) == message


@given(messages)
def test_a_made_stream_is_whole_and_tells_the_same_facts(message: dict[str, Any]) -> None:
    body = claude.dump(message)
    stream = anthropic_forms.as_stream(body)
    assert stream is not None
    provider = anthropic.Anthropic()
    plain = facts(provider, anthropic.MESSAGES, "application/json", body)
    assert facts(provider, anthropic.MESSAGES, SSE, stream) == plain
    assert plain.complete


def facts(provider: Provider, endpoint: Endpoint, kind: str, body: bytes) -> Any:
    watcher: Watcher = provider.watch(endpoint, 200, kind)
    watcher.feed(body)
    return watcher.close()


CONTENT = [
    claude.thinking_block("Hm, the Zürich weather."),
    claude.text_block("Let me look."),
    claude.tool_use_block("weather", {"city": "Zürich", "days": 3}),
    claude.tool_use_block("now", {}),
]


def test_a_made_stream_has_the_events_of_a_real_one() -> None:
    blocks = CONTENT[:3]
    stream = anthropic_forms.as_stream(claude.message(blocks))
    assert stream == b"".join(claude.stream(blocks, piece=10**6))


@pytest.mark.parametrize("piece", [1, 5, 10**6])
def test_a_stream_becomes_the_message_it_tells_however_it_was_cut(piece: int) -> None:
    tokens = claude.usage(10, 20, cache_read=7, cache_write_1h=3)
    stream = b"".join(claude.stream(CONTENT, piece=piece, tokens=tokens))
    plain = anthropic_forms.as_plain(stream)
    assert plain is not None
    assert json.loads(plain) == claude.message_document(CONTENT, tokens=tokens)


WHOLE = b"".join(claude.stream(CONTENT))
NOT_PLAIN = {
    "no end": WHOLE.replace(b"event: message_stop", b"event: ping").replace(
        b'"message_stop"', b'"ping"'
    ),
    "an unknown event": WHOLE.replace(b'{"type": "ping"}', b'{"type": "pong"}'),
    "an unknown delta": WHOLE.replace(b'"text_delta"', b'"song_delta"'),
    "a delta of another block": WHOLE.replace(b'"text_delta"', b'"thinking_delta"'),
    "a half input": WHOLE.replace(b"days", b'\\"'),
    "an unknown member": WHOLE.replace(b'"message_delta",', b'"message_delta","x":1,'),
    "no stop reason": WHOLE.replace(b'"stop_reason":"tool_use"', b'"stop_reason":null'),
    "an error": WHOLE + claude.error_event(),
    "no signature": WHOLE.replace(b'"signature":"Eq', b'"unsigned":"Eq'),
    "JSON": claude.message(CONTENT),
    "nothing": b"",
    "garbage": b"data: [1]\n\n",
}


@pytest.mark.parametrize("name", NOT_PLAIN)
def test_a_stream_that_is_not_understood_stays_one(name: str) -> None:
    assert NOT_PLAIN[name] != WHOLE
    assert anthropic_forms.as_plain(NOT_PLAIN[name]) is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        claude.error(),
        claude.count_tokens(),
        claude.message([{"type": "poem", "text": "x"}]),
        claude.message([{"type": "thinking", "thinking": "x"}]),
        claude.message([{"type": "tool_use", "id": "i", "name": "n", "input": "text"}]),
        claude.message("x").replace(b'"usage"', b'"usages"'),
        claude.message("x").replace(b'"x"', b'"\\ud800"'),
        claude.message("x").replace(b'"output_tokens":34', b'"output_tokens":1e999'),
    ],
)
def test_a_plain_answer_that_is_not_understood_stays_one(body: bytes) -> None:
    assert anthropic_forms.as_stream(body) is None


# OpenAI

calls = st.fixed_dictionaries(
    {
        "id": some,
        "type": st.just("function"),
        "function": st.fixed_dictionaries({"name": some, "arguments": texts}),
    }
)
logprobs = st.none() | st.just(
    {
        "content": [{"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}],
        "refusal": None,
    }
)
spoken = st.fixed_dictionaries(
    {
        "role": st.just("assistant"),
        "content": texts,
        "refusal": st.none(),
        "annotations": st.just([])
        | st.lists(built("url_citation", url_citation=inputs), min_size=1, max_size=2),
    }
)
calling = st.fixed_dictionaries(
    {
        "role": st.just("assistant"),
        "content": st.none() | texts,
        "tool_calls": st.lists(calls, min_size=1, max_size=3),
        "refusal": st.none(),
        "annotations": st.just([]),
    }
)
refusing: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "role": st.just("assistant"),
        "content": st.none(),
        "refusal": texts.filter(bool),
        "annotations": st.just([]),
    }
)


@st.composite
def completions(draw: st.DrawFn) -> dict[str, Any]:
    choices = []
    for index in range(draw(st.integers(1, 3))):
        message = draw(spoken | calling | refusing)
        said = message["content"] or message["refusal"]
        choices.append(
            {
                "index": index,
                "message": message,
                "logprobs": draw(logprobs) if said else None,
                "finish_reason": draw(st.sampled_from(["stop", "length", "tool_calls"])),
            }
        )
    doc: dict[str, Any] = {
        "id": draw(some),
        "object": "chat.completion",
        "created": draw(counts),
        "model": draw(some),
        "choices": choices,
        "usage": gpt.usage(draw(counts), draw(counts)),
    }
    for name in ("service_tier", "system_fingerprint"):
        if draw(st.booleans()):
            doc[name] = draw(st.none() | some)
    return doc


@given(completions())
def test_a_chat_completion_survives_being_a_stream(doc: dict[str, Any]) -> None:
    stream = openai_forms.as_stream(gpt.dump(doc), include_usage=True)
    assert stream is not None
    back = openai_forms.as_plain(stream)
    assert back is not None
    assert json.loads(back) == doc


@given(completions(), st.booleans())
def test_a_made_chat_stream_is_whole_and_tells_the_same_facts(
    doc: dict[str, Any], include_usage: bool
) -> None:
    body = gpt.dump(doc)
    stream = openai_forms.as_stream(body, include_usage=include_usage)
    assert stream is not None
    provider = openai.OpenAI()
    streamed = facts(provider, openai.CHAT, SSE, stream)
    plain = facts(provider, openai.CHAT, "application/json", body)
    assert streamed.complete
    assert (streamed.model, streamed.snippet) == (plain.model, plain.snippet)
    assert streamed.usage == (plain.usage if include_usage else None)
    assert stream.endswith(b"\n\ndata: [DONE]\n\n")


TOKENS = gpt.usage(11, 7)
CALLS = [gpt.tool_call("weather", {"city": "Zürich"}), gpt.tool_call("now", {}, "call_2")]
TALK = b"".join(gpt.chat_stream("Hello, wörld", "Good day", tokens=TOKENS))


@pytest.mark.parametrize("piece", [1, 6, 10**6])
@pytest.mark.parametrize("said", [{"texts": ("Hello, wörld", "Good day")}, {"calls": CALLS}])
def test_a_chat_stream_becomes_the_completion_it_tells(piece: int, said: dict[str, Any]) -> None:
    texts, calls = said.get("texts", ()), said.get("calls", ())
    stream = b"".join(gpt.chat_stream(*texts, calls=calls, tokens=TOKENS, piece=piece))
    plain = openai_forms.as_plain(stream)
    assert plain is not None
    got, wanted = json.loads(plain), json.loads(gpt.chat(*texts, calls=calls, tokens=TOKENS))
    for choice in wanted["choices"]:
        choice["message"] = {"refusal": None, "annotations": [], **choice["message"]}
    assert (got["choices"], got["usage"]) == (wanted["choices"], TOKENS)
    assert got["object"] == "chat.completion"


NO_COMPLETION = {
    "no usage": b"".join(gpt.chat_stream("Hello")),
    "no end": TALK.replace(gpt.DONE, b""),
    "more after the end": TALK + TALK,
    "another field": TALK.replace(b'"content":"Hello,"', b'"reasoning":"Hello,"'),
    "audio": TALK.replace(b'"content":"Hello,"', b'"audio":{"data":"x"}'),
    "another id": TALK.replace(b"chatcmpl-C1KMEUDb1vVwsROQUCZTgG6A6vtWo", b"other", 1),
    "another object": TALK.replace(b"chat.completion.chunk", b"chunk", 1),
    "content in parts": TALK.replace(b'"content":"Hello,"', b'"content":[{"text":"x"}]'),
    "unfinished": TALK.replace(b'"finish_reason":"stop"', b'"finish_reason":null', 1),
    "an error": TALK.replace(gpt.DONE, gpt.data({"error": {"message": "x"}}) + gpt.DONE),
    "a call out of order": b"".join(gpt.chat_stream(calls=CALLS, tokens=TOKENS)).replace(
        b'"index":0,"function"', b'"index":-1,"function"'
    ),
    "JSON": gpt.chat("Hello"),
    "nothing": b"",
}


@pytest.mark.parametrize("name", NO_COMPLETION)
def test_a_chat_stream_that_is_not_understood_stays_one(name: str) -> None:
    assert NO_COMPLETION[name] != TALK
    assert openai_forms.as_plain(NO_COMPLETION[name]) is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        gpt.error(),
        gpt.chat("x", audio={"id": "a"}),
        gpt.chat("x", reasoning_content="hm"),
        gpt.chat("x", function_call={"name": "f", "arguments": ""}),
        gpt.chat(calls=[{"id": "i", "type": "custom", "custom": {"name": "n", "input": ""}}]),
        gpt.chat("x").replace(b'"logprobs":null', b'"content_filter_results":{}'),
        gpt.chat("x").replace(b'"stop"', b"null"),
        gpt.chat("x").replace(b'"usage"', b'"used"'),
    ],
)
def test_a_completion_that_is_not_understood_stays_one(body: bytes) -> None:
    assert openai_forms.as_stream(body, include_usage=True) is None


def test_azures_filter_results_and_other_hosts_fields_are_not_lost_but_refused() -> None:
    body = gpt.chat("x").replace(b'"object"', b'"prompt_filter_results":[],"object"')
    assert openai_forms.as_stream(body, include_usage=False) is None


# One folding for people and for clients

TOOLS = b"".join(gpt.chat_stream(calls=CALLS, tokens=TOKENS))
ONLY_FOR_PEOPLE: dict[str, tuple[bytes, str]] = {
    "a Message that was cut": (WHOLE[: WHOLE.index(b"event: message_delta")], "Let me look."),
    "a delta of a block that never began": (
        WHOLE.replace(b'"index":1,"delta"', b'"index":9,"delta"', 1),
        "Hm, the Z",
    ),
    "a block that begins twice": (
        WHOLE.replace(b'"index":1,"content_block"', b'"index":0,"content_block"'),
        "Let me look.",
    ),
    "a chat that was cut": (TALK[: TALK.rindex(b"data: ", 0, -20)], "Hello, w"),
    "a chat of another host": (
        TALK.replace(b'"content":"Hello,"', b'"content":"Hello,","reasoning":"Hm"'),
        "Hello, w",
    ),
    "a text completion": (TALK.replace(b'"delta":{"content":"Hello,"}', b'"text":"Hi"'), "Hi"),
    "a tool's name in every part": (
        TOOLS.replace(b'"function":{"arguments"', b'"function":{"name":"x","arguments"'),
        "weather",
    ),
    "an index that is none": (
        WHOLE.replace(b'"index":0,"delta"', b'"index":[],"delta"', 1),
        "Let me look.",
    ),
}


@pytest.mark.parametrize("name", ONLY_FOR_PEOPLE)
def test_what_a_folding_cant_place_is_shown_to_people_and_refused_to_clients(name: str) -> None:
    stream, words = ONLY_FOR_PEOPLE[name]
    assert stream not in (WHOLE, TALK, TOOLS)
    shown = "".join(f"{part.title} {part.text}" for part in readable.answer(SSE, stream))
    assert words in shown
    assert anthropic_forms.as_plain(stream) is None
    assert openai_forms.as_plain(stream) is None


documents = st.dictionaries(
    st.sampled_from(["type", "index", "delta", "choices", "message", "content_block", "usage"])
    | some,
    st.sampled_from(
        ["message_start", "content_block_start", "content_block_delta", "message_delta"]
    )
    | values,
    max_size=6,
)


@given(st.lists(documents, max_size=6))
def test_a_folding_takes_any_document(docs: list[dict[str, Any]]) -> None:
    for folding in (anthropic_forms.MessageFolding(), openai_forms.ChatFolding()):
        for doc in docs:
            folding.take(doc)
        assert isinstance(folding.document(), dict)
