"""Gemini answers: what is whole, what isn't and why, and what a whole one used."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import gemini_wire as wire
from support import openai_wire as gpt

from llm_cache.wire.provider import Answer, Endpoint, Usage
from llm_cache.wire.providers.gemini import Gemini
from llm_cache.wire.providers.vertex import Vertex

PROVIDER = Gemini()
JSON = "application/json; charset=UTF-8"
SSE = "text/event-stream"
GENERATE = Endpoint("generate_content", "asked-for")
STREAM = Endpoint("stream_generate_content", "asked-for")

PARTS = [wire.thought("Hm. "), wire.text("Hello,\n  wörld"), wire.call("get", city="Zürich")]
TOKENS = wire.usage(prompt=11, candidates=3, thoughts=4, cached=7, tools=2)
USED = Usage(input_tokens=13, output_tokens=7, cache_read_tokens=7, input_includes_cache=True)
WHOLE = Answer(complete=True, model=wire.MODEL, usage=USED, snippet="Hello, wörld")
DOCUMENTS = wire.chunks(PARTS, tokens=TOKENS)
AS_SSE = b"".join(wire.sse(DOCUMENTS))
AS_ARRAY = b"".join(wire.array(DOCUMENTS))
FRAMINGS = [pytest.param(AS_SSE, SSE, id="sse"), pytest.param(AS_ARRAY, JSON, id="array")]


def watch(
    *pieces: bytes, kind: str = JSON, endpoint: Endpoint = GENERATE, status: int = 200
) -> tuple[bool, Answer]:
    watcher = PROVIDER.watch(endpoint, status, kind)
    for piece in pieces:
        watcher.feed(piece)
    return watcher.done, watcher.close()


def reason(*pieces: bytes, kind: str = JSON, endpoint: Endpoint = GENERATE) -> str:
    done, answer = watch(*pieces, kind=kind, endpoint=endpoint)
    assert not answer.complete
    assert not done
    return answer.reason


# Streams


@pytest.mark.parametrize(("stream", "kind"), FRAMINGS)
def test_a_whole_stream_is_complete_and_says_what_it_used(stream: bytes, kind: str) -> None:
    # Server-sent events have no last one here; an array is closed.
    assert watch(stream, kind=kind, endpoint=STREAM) == (kind == JSON, WHOLE)


@pytest.mark.parametrize(("stream", "kind"), FRAMINGS)
def test_a_stream_cut_at_any_byte_is_not_complete(stream: bytes, kind: str) -> None:
    end = len(stream.rstrip(b"\n")) if kind == JSON else len(stream) - 1  # CRLF CR ends an event
    for length in range(end):
        assert reason(stream[:length], kind=kind, endpoint=STREAM), length


@pytest.mark.parametrize(("stream", "kind"), FRAMINGS)
@given(data=st.data())
def test_how_a_stream_is_split_changes_no_fact(
    stream: bytes, kind: str, data: st.DataObject
) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=8))
    edges = [0, *sorted(cuts), len(stream)]
    pieces = [stream[a:b] for a, b in pairwise(edges)]
    assert watch(*pieces, kind=kind, endpoint=STREAM) == (kind == JSON, WHOLE)


def test_every_candidate_must_have_finished() -> None:
    def chunk(*candidates: wire.Json) -> wire.Json:
        return wire.document(candidates)

    first = chunk(
        wire.candidate([wire.text("a")]), wire.candidate([wire.text("b")], finish=None, index=1)
    )
    second = chunk(wire.candidate([wire.text("c")], index=1))
    open_ = b"".join(wire.sse([first]))
    assert reason(open_, kind=SSE, endpoint=STREAM) == "no finishReason"
    _, answer = watch(*wire.sse([first, second]), kind=SSE, endpoint=STREAM)
    assert (answer.complete, answer.snippet) == (True, "a")
    assert reason(wire.dump(first)) == "no finishReason"


def test_chunks_may_follow_the_finish_reason() -> None:
    usage = {"usageMetadata": wire.usage(prompt=50), "modelVersion": wire.MODEL}
    pieces = wire.sse([*DOCUMENTS, usage])
    done, answer = watch(*pieces, kind=SSE, endpoint=STREAM)
    assert (done, answer.complete) == (False, True)
    assert answer.usage is not None
    assert answer.usage.input_tokens == 52
    late = wire.document([wire.candidate([wire.text("!")], finish=None, index=1)])
    assert reason(*wire.sse([*DOCUMENTS, late]), kind=SSE, endpoint=STREAM) == "no finishReason"


@pytest.mark.parametrize("where", ["alone", "with a candidate", "before the end"])
def test_an_error_object_anywhere_in_a_stream_is_not_complete(where: str) -> None:
    told = {"error": {"code": 503, "message": "finishReason STOP", "status": "UNAVAILABLE"}}
    documents = {
        "alone": [*DOCUMENTS[:-1], told],
        "with a candidate": [*DOCUMENTS[:-1], DOCUMENTS[-1] | told],
        "before the end": [told, *DOCUMENTS],
    }[where]
    why = "error in the stream: 503"
    assert reason(*wire.sse(documents), kind=SSE, endpoint=STREAM) == why
    assert reason(*wire.array(documents), endpoint=STREAM) == why


def test_words_in_the_text_are_not_a_finish_reason() -> None:
    told = wire.text('"finishReason": "STOP"}],"usageMetadata":{}}\r\n\r\ndata: [DONE]')
    documents = [wire.document([wire.candidate([told], finish=None)])]
    assert reason(*wire.sse(documents), kind=SSE, endpoint=STREAM) == "no finishReason"
    assert reason(*wire.array(documents), endpoint=STREAM) == "no finishReason"


@pytest.mark.parametrize(
    ("body", "kind", "why"),
    [
        (b"", SSE, "no candidates"),
        (b"", JSON, "no candidates"),
        (b"[]", JSON, "no candidates"),
        (b'data: "x"\n\n', SSE, "an event is not a JSON object"),
        (b"[1]", JSON, "an event is not a JSON object"),
        (b"data: {\n\n", SSE, "an event is not a JSON object"),
        (b"<html>502</html>\n", SSE, "not an event stream"),
        (AS_SSE + b"oops\n", SSE, "data after finishReason"),
        (AS_SSE + b"data: {", SSE, "data after finishReason"),
        (AS_ARRAY + b"oops", JSON, "data after the array"),
        (AS_ARRAY.rstrip()[:-1] + b",", JSON, "the array isn't closed"),
        (wire.answer(), JSON, "not an array"),
        (wire.sse([json.loads(wire.blocked())])[0], SSE, "the prompt was blocked"),
    ],
)
def test_what_is_no_whole_stream_says_why(body: bytes, kind: str, why: str) -> None:
    assert reason(body, kind=kind, endpoint=STREAM) == why


# Answers in one piece


def test_a_whole_answer_is_complete_and_says_what_it_used() -> None:
    assert watch(wire.answer(PARTS, tokens=TOKENS)) == (False, WHOLE)


def test_an_answer_without_a_version_goes_by_the_model_asked_for() -> None:
    document = json.loads(wire.answer())
    del document["modelVersion"]
    assert watch(wire.dump(document))[1].model == "asked-for"
    document["modelVersion"] = "models/gemini-2.5-pro"
    assert watch(wire.dump(document))[1].model == "gemini-2.5-pro"


@pytest.mark.parametrize(
    ("parts", "line"),
    [
        ([wire.call("find_city", query="x")], "[tool] find_city"),
        ([wire.thought("Let me see.")], "[thinking] Let me see."),
        ([wire.text("a" * 100)], "a" * 80),
        ([{"inlineData": {"mimeType": "image/png", "data": "aGk="}}], ""),
    ],
)
def test_the_snippet_is_text_else_tool_else_thinking(parts: list[wire.Json], line: str) -> None:
    assert watch(wire.answer(parts))[1].snippet == line
    assert watch(*wire.sse(wire.chunks(parts)), kind=SSE, endpoint=STREAM)[1].snippet == line


@pytest.mark.parametrize(
    "finish", ["MAX_TOKENS", "SAFETY", "RECITATION", "MALFORMED_FUNCTION_CALL"]
)
def test_any_reason_to_finish_is_one(finish: str) -> None:
    assert watch(wire.dump(wire.document([wire.candidate([], finish=finish)])))[1].complete


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (wire.error(), "error: 400"),
        (wire.dump({"error": {}, **json.loads(wire.answer())}), "error"),
        (wire.blocked(), "the prompt was blocked"),
        (b"{}", "no candidates"),
        (wire.dump({"candidates": []}), "no candidates"),
        (wire.dump({"candidates": [{"finishReason": ""}]}), "no finishReason"),
        (
            wire.dump({"candidates": [{"finishReason": "FINISH_REASON_UNSPECIFIED"}]}),
            "no finishReason",
        ),
        (wire.answer()[:-1], "not JSON, or cut short"),
        (b"[" + wire.answer() + b"]", "not a JSON object"),
    ],
)
def test_what_is_no_whole_answer_says_why(body: bytes, why: str) -> None:
    assert reason(body) == why


def test_other_statuses_and_content_types_are_refused() -> None:
    assert watch(wire.answer(), status=429)[1].reason == "status 429"
    assert reason(wire.answer(), kind="text/html") == "content type text/html"
    assert reason(AS_SSE, kind=SSE) == "content type text/event-stream"


# Counts and embeddings


@pytest.mark.parametrize(
    ("name", "document", "usage", "line"),
    [
        ("count_tokens", {"totalTokens": 12}, None, "12 tokens"),
        ("embed_content", {"embedding": {"values": [0.1, -0.2]}}, None, "1 embedding"),
        (
            "batch_embed_contents",
            {
                "embeddings": [{"values": [1]}, {"values": [2]}],
                "usageMetadata": {"promptTokenCount": 4},
            },
            Usage(input_tokens=4, input_includes_cache=True),
            "2 embeddings",
        ),
    ],
)
def test_counts_and_embeddings_are_complete_with_what_was_asked_for(
    name: str, document: wire.Json, usage: Usage | None, line: str
) -> None:
    endpoint = Endpoint(name, "some-model")
    whole = Answer(complete=True, model="some-model", usage=usage, snippet=line)
    assert watch(wire.dump(document), endpoint=endpoint)[1] == whole
    assert reason(b"{}", endpoint=endpoint).startswith("no ")
    assert reason(wire.error(500, "x", "INTERNAL"), endpoint=endpoint) == "error: 500"


def predicted(document: Any) -> Answer:
    watcher = Vertex().watch(Endpoint("predict", "text-embedding-005"), 200, JSON)
    watcher.feed(wire.dump(document))
    return watcher.close()


def test_predictions_of_vertex_count_their_tokens() -> None:
    statistics = {"statistics": {"token_count": 4.0, "truncated": False}}
    document = {"predictions": [{"embeddings": {"values": [0.5], **statistics}}] * 2}
    assert predicted(document) == Answer(
        complete=True,
        model="text-embedding-005",
        usage=Usage(input_tokens=8, input_includes_cache=True),
        snippet="2 predictions",
    )
    assert predicted({"predictions": []}).reason == "no predictions"
    assert predicted({"error": {"code": 500}, "predictions": [1]}).reason == "error: 500"


def test_other_publishers_chats_at_vertex_are_whole_with_their_done() -> None:
    vertex = Vertex()
    path = "/v1/projects/p/locations/l/publishers/mistralai/models/mistral-small-2503"
    endpoint = vertex.endpoint("POST", f"{path}:streamRawPredict")
    assert endpoint is not None
    body = b"".join(gpt.chat_stream("Good day", tokens=gpt.usage(11, 7)))
    for data, whole in ((body, True), (body[: body.index(b"data: [DONE]")], False)):
        watcher = vertex.watch(endpoint, 200, "text/event-stream")
        watcher.feed(data)
        answer = watcher.close()
        assert answer.complete is whole
        assert answer.model == "mistral-small-2503"
        assert answer.snippet == "Good day"
