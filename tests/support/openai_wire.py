"""Answers of the OpenAI API as bytes, as the real API writes them: chat, Responses, embeddings.

A stream is a list of blocks, one per event, so that a test can put a gate or a fault between any
two. The official client accepts each of them.
Source of the shapes: https://platform.openai.com/docs/api-reference.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

Json: TypeAlias = dict[str, Any]

MODEL = "gpt-4o-2024-08-06"
SSE = (("content-type", "text/event-stream; charset=utf-8"),)
JSON = (("content-type", "application/json"),)
RESPONSE_HEADERS = (
    ("x-request-id", "req_5a1b2c3d4e5f60718293a4b5c6d7e8f9"),
    ("openai-organization", "acme"),
    ("openai-processing-ms", "412"),
    ("openai-version", "2020-10-01"),
    ("x-ratelimit-remaining-requests", "9999"),
)
"""End-to-end headers as an answer of the real API has them; ready for `Reply.headers`."""

DONE = b"data: [DONE]\n\n"


def dump(document: object) -> bytes:
    """JSON without spaces, letters of all scripts as they are (UTF-8)."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def data(document: object) -> bytes:
    """An event without a name, as chat streams have them."""
    return b"data: %b\n\n" % dump(document)


def event(kind: str, **fields: Any) -> bytes:
    """An event with its kind as name and `type`, as Responses streams have them."""
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), dump({"type": kind, **fields}))


def error(
    kind: str = "invalid_request_error",
    text: str = "Missing required parameter: 'messages'.",
    code: str | None = None,
) -> bytes:
    """The body of an error answer."""
    return dump({"error": {"message": text, "type": kind, "param": None, "code": code}})


# Chat


def request(prompt: str = "Say hello.", *, stream: bool = False, **fields: Any) -> bytes:
    """The body of a `POST /v1/chat/completions`; `fields` are added as they are."""
    document: Json = {
        "model": "gpt-4o",
        "messages": [{"role": "user", "content": prompt}],
        **fields,
    }
    if stream:
        document["stream"] = True
    return dump(document)


def usage(asked: int = 11, answered: int = 7, cached: int = 0, reasoning: int = 0) -> Json:
    """A chat's `usage`."""
    return {
        "prompt_tokens": asked,
        "completion_tokens": answered,
        "total_tokens": asked + answered,
        "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": reasoning, "audio_tokens": 0},
    }


def tool_call(name: str, arguments: Json, call_id: str = "call_kL0PCQV7M2WMoVX8V8OtYSAL") -> Json:
    """A call of a function."""
    written = json.dumps(arguments)
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": written}}


def chat(
    *texts: str, calls: Sequence[Json] = (), tokens: Json | None = None, **message: Any
) -> bytes:
    """A `chat.completion` with a choice for each text, or one that calls tools."""
    said: list[Json] = [
        {"role": "assistant", "content": text, "refusal": None, **message} for text in texts
    ]
    if calls:
        said = [{"role": "assistant", "content": None, "tool_calls": list(calls), **message}]
    reason = "tool_calls" if calls else "stop"
    return dump(
        {
            "id": "chatcmpl-C7GRg2vXs2wpdpyTTmmgVXZP4SiAP",
            "object": "chat.completion",
            "created": 1755847548,
            "model": MODEL,
            "choices": [
                {"index": index, "message": one, "logprobs": None, "finish_reason": reason}
                for index, one in enumerate(said)
            ],
            "usage": tokens or usage(),
            "service_tier": "default",
            "system_fingerprint": "fp_46bff0e0c8",
        }
    )


def chunk(*choices: Json, **fields: Any) -> bytes:
    """A chunk of a chat stream."""
    return data(
        {
            "id": "chatcmpl-C1KMEUDb1vVwsROQUCZTgG6A6vtWo",
            "object": "chat.completion.chunk",
            "created": 1754432618,
            "model": MODEL,
            "system_fingerprint": "fp_ff25b2783a",
            "choices": list(choices),
            **fields,
        }
    )


def delta(index: int = 0, finish: str | None = None, **message: Any) -> Json:
    """A choice of a chunk."""
    return {"index": index, "delta": message, "logprobs": None, "finish_reason": finish}


def chat_stream(
    *texts: str, calls: Sequence[Json] = (), tokens: Json | None = None, piece: int = 6
) -> list[bytes]:
    """A whole streamed chat, choices interleaved. `tokens`: what `include_usage` adds."""
    begun: Json = {"role": "assistant", "content": None if calls else ""}
    numbers = range(1 if calls else len(texts))
    chunks = [chunk(delta(index, **begun)) for index in numbers]
    for place, call in enumerate(calls):
        function = call["function"]
        head = {**call, "index": place, "function": {**function, "arguments": ""}}
        chunks.append(chunk(delta(tool_calls=[head])))
        for part in _cut(function["arguments"], piece):
            more = {"index": place, "function": {"arguments": part}}
            chunks.append(chunk(delta(tool_calls=[more])))
    if not calls:
        pieces = [list(_cut(text, piece)) for text in texts]
        for step in range(max(map(len, pieces))):
            chunks += [
                chunk(delta(index, content=parts[step]))
                for index, parts in enumerate(pieces)
                if step < len(parts)
            ]
    chunks += [chunk(delta(index, "tool_calls" if calls else "stop")) for index in numbers]
    if tokens is not None:
        chunks.append(chunk(usage=tokens))
    return [*chunks, DONE]


# Responses


def response_document(
    text: str = "Hello!",
    *,
    calls: Sequence[Json] = (),
    response_id: str = "resp_67e554a155508191900ee113293c4c830794405d35281ae2",
    **fields: Any,
) -> Json:
    """A completed `response` with a message, or with calls of functions."""
    output: list[Json] = [
        {
            "id": "msg_67e554a1de488191af0831d35cbe082e",
            "type": "message",
            "status": "completed",
            "role": "assistant",
            "content": [{"type": "output_text", "annotations": [], "logprobs": [], "text": text}],
        }
    ]
    if calls:
        output = [
            {
                "id": f"fc_{place}",
                "type": "function_call",
                "status": "completed",
                "call_id": call["id"],
                "name": call["function"]["name"],
                "arguments": call["function"]["arguments"],
            }
            for place, call in enumerate(calls)
        ]
    return {
        "id": response_id,
        "object": "response",
        "created_at": 1743082657,
        "status": "completed",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "model": MODEL,
        "output": output,
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "store": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": {
            "input_tokens": 36,
            "input_tokens_details": {"cached_tokens": 8},
            "output_tokens": 10,
            "output_tokens_details": {"reasoning_tokens": 4},
            "total_tokens": 46,
        },
        "metadata": {},
        **fields,
    }


def response_stream(text: str = "Hello, how are you?", piece: int = 6) -> list[bytes]:
    """A whole streamed response with one message."""
    whole = response_document(text)
    item = whole["output"][0]
    part = item["content"][0]
    begun = {**whole, "status": "in_progress", "output": [], "usage": None}
    place = {"item_id": item["id"], "output_index": 0, "content_index": 0}
    kinds: list[tuple[str, Json]] = [
        ("response.created", {"response": begun}),
        ("response.in_progress", {"response": begun}),
        (
            "response.output_item.added",
            {"output_index": 0, "item": {**item, "status": "in_progress", "content": []}},
        ),
        ("response.content_part.added", {**place, "part": {**part, "text": ""}}),
        *(
            ("response.output_text.delta", {**place, "delta": piece, "logprobs": []})
            for piece in _cut(text, piece)
        ),
        ("response.output_text.done", {**place, "text": text, "logprobs": []}),
        ("response.content_part.done", {**place, "part": part}),
        ("response.output_item.done", {"output_index": 0, "item": item}),
        ("response.completed", {"response": whole}),
    ]
    return [event(kind, **fields, sequence_number=n) for n, (kind, fields) in enumerate(kinds)]


# Embeddings


def embeddings(*vectors: Sequence[float] | str) -> bytes:
    """The body of an answer of `/v1/embeddings`."""
    items = [
        {"object": "embedding", "index": index, "embedding": vector}
        for index, vector in enumerate(vectors)
    ]
    told = {"prompt_tokens": 4, "total_tokens": 4}
    return dump({"object": "list", "data": items, "model": "text-embedding-3-small", "usage": told})


def _cut(text: str, piece: int) -> Iterable[str]:
    return (text[at : at + piece] for at in range(0, len(text), piece))
