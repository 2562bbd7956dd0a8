"""Answers of Cohere's API (v2) as bytes; a stream is a list of events.

Source of the shapes: https://docs.cohere.com/reference/chat and .../chat-stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from support.openai_wire import Json, dump, event, tool_call

MODEL = "command-r7b-12-2024"
DONE = b"data: [DONE]\n\n"
USAGE: Json = {
    "billed_units": {"input_tokens": 5, "output_tokens": 9},
    "tokens": {"input_tokens": 496, "output_tokens": 11},
}


def request(prompt: str = "hello", *, stream: bool = False, **fields: Any) -> bytes:
    """The body of a `POST /v2/chat`."""
    talk = [{"role": "user", "content": prompt}]
    return dump({"model": MODEL, "messages": talk, "stream": stream, **fields})


def chat(text: str = "Hello!", *, calls: Sequence[Json] = (), **fields: Any) -> bytes:
    """The body of an answer of `/v2/chat`."""
    message: Json = {"role": "assistant", "content": [{"type": "text", "text": text}]}
    if calls:
        message = {"role": "assistant", "tool_plan": "I will look.", "tool_calls": list(calls)}
    return dump(
        {
            "id": "f17a5f6c-1734-4098-bd0d-733ef000ac7b",
            "message": message,
            "finish_reason": "TOOL_CALL" if calls else "COMPLETE",
            "usage": USAGE,
            **fields,
        }
    )


def chat_stream(text: str = "Hello, how are you?", finish: str = "COMPLETE") -> list[bytes]:
    """A whole streamed chat."""
    pieces = [text[at : at + 6] for at in range(0, len(text), 6)]
    return [
        event(
            "message-start",
            id="29f14a5a",
            delta={"message": {"role": "assistant", "content": [], "tool_calls": []}},
        ),
        event(
            "content-start",
            index=0,
            delta={"message": {"content": {"type": "text", "text": ""}}},
        ),
        *(
            event("content-delta", index=0, delta={"message": {"content": {"text": piece}}})
            for piece in pieces
        ),
        event("content-end", index=0),
        event("message-end", id="29f14a5a", delta={"finish_reason": finish, "usage": USAGE}),
        DONE,
    ]


def tool_stream(name: str = "get_weather", arguments: str = '{"city": "Rome"}') -> list[bytes]:
    """A whole streamed chat that calls a tool."""
    call = tool_call(name, {})
    call["function"]["arguments"] = ""
    return [
        event("message-start", id="1", delta={"message": {"role": "assistant"}}),
        event("tool-plan-delta", delta={"message": {"tool_plan": "I will look."}}),
        event("tool-call-start", index=0, delta={"message": {"tool_calls": call}}),
        event(
            "tool-call-delta",
            index=0,
            delta={"message": {"tool_calls": {"function": {"arguments": arguments}}}},
        ),
        event("tool-call-end", index=0),
        event("message-end", id="1", delta={"finish_reason": "TOOL_CALL", "usage": USAGE}),
        DONE,
    ]


def embed(*vectors: Sequence[float]) -> bytes:
    """The body of an answer of `/v2/embed`."""
    return dump(
        {
            "id": "5807ee2e-0cda-445a-9ec8-864c60a06606",
            "embeddings": {"float": list(vectors)},
            "texts": ["hello"] * len(vectors),
            "meta": {"api_version": {"version": "2"}, "billed_units": {"input_tokens": 4}},
            "response_type": "embeddings_by_type",
        }
    )


def rerank(*scores: float) -> bytes:
    """The body of an answer of `/v2/rerank`."""
    results = [{"index": index, "relevance_score": score} for index, score in enumerate(scores)]
    return dump({"id": "r", "results": results, "meta": {"billed_units": {"search_units": 1}}})
