"""Answers of the Anthropic Messages API as bytes, built as the real API writes them.

Everything here is plain data: dicts are turned into JSON without spaces, events into
`event:`/`data:` blocks, and a stream is a list of such blocks, one per event, so that a test can
put a gate or a fault between any two. The official client accepts each of them.
Source of the shapes: https://docs.anthropic.com/en/api/messages and .../messages-streaming.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

Json: TypeAlias = dict[str, Any]

MODEL = "claude-sonnet-5"
RESPONSE_HEADERS = (
    ("request-id", "req_011CSHoEeqs5C35K2UUqR7Fy"),
    ("anthropic-organization-id", "5e7c1f0a-3a52-4c8e-9a54-0f7a9d1f2b11"),
    ("anthropic-ratelimit-requests-remaining", "3999"),
    ("cf-cache-status", "DYNAMIC"),
    ("server", "cloudflare"),
)
"""End-to-end headers as an answer of the real API has them; ready for `Reply.headers`."""


def dump(document: object) -> bytes:
    """JSON without spaces, letters of all scripts as they are (UTF-8), as the API writes it."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


# Requests


def request(
    prompt: str = "Say hello.",
    *,
    stream: bool = False,
    model: str = MODEL,
    max_tokens: int = 1024,
    **fields: Any,
) -> bytes:
    """The body of a `POST /v1/messages`; `fields` are added as they are."""
    document: Json = {
        "model": model,
        "max_tokens": max_tokens,
        "messages": [{"role": "user", "content": prompt}],
        **fields,
    }
    if stream:
        document["stream"] = True
    return dump(document)


# Content blocks


def text_block(text: str) -> Json:
    """A `text` block."""
    return {"type": "text", "text": text}


def tool_use_block(
    name: str, arguments: Json, block_id: str = "toolu_01A09q90qw90lq917835lq9"
) -> Json:
    """A `tool_use` block."""
    return {"type": "tool_use", "id": block_id, "name": name, "input": arguments}


def thinking_block(
    thinking: str, signature: str = "EqQBCgIYAhIM1gbcDa9GJwZA2b3hGgxBdjrkzLoky3dl1pk"
) -> Json:
    """A `thinking` block with its signature."""
    return {"type": "thinking", "thinking": thinking, "signature": signature}


def usage(
    input_tokens: int = 12,
    output_tokens: int = 34,
    cache_read: int = 0,
    cache_write_5m: int = 0,
    cache_write_1h: int = 0,
) -> Json:
    """A `usage` object; `cache_*` are the provider's own prompt cache."""
    return {
        "input_tokens": input_tokens,
        "cache_creation_input_tokens": cache_write_5m + cache_write_1h,
        "cache_read_input_tokens": cache_read,
        "cache_creation": {
            "ephemeral_5m_input_tokens": cache_write_5m,
            "ephemeral_1h_input_tokens": cache_write_1h,
        },
        "output_tokens": output_tokens,
        "service_tier": "standard",
    }


# Whole answers


def message_document(
    blocks: Sequence[Json] | str = "Hello!",
    *,
    tokens: Json | None = None,
    model: str = MODEL,
    message_id: str = "msg_01XFDUDYJgAACzvnptvVoYEL",
    stop_reason: str | None = None,
) -> Json:
    """A Message. `blocks` may be a plain text; the stop reason follows from the last block."""
    content = [text_block(blocks)] if isinstance(blocks, str) else list(blocks)
    return {
        "model": model,
        "id": message_id,
        "type": "message",
        "role": "assistant",
        "content": content,
        "stop_reason": stop_reason or _stop_reason(content),
        "stop_sequence": None,
        "usage": tokens or usage(),
    }


def message(blocks: Sequence[Json] | str = "Hello!", **fields: Any) -> bytes:
    """The JSON body of a Message; arguments as for `message_document`."""
    return dump(message_document(blocks, **fields))


def message_of_size(size: int, **fields: Any) -> bytes:
    """A Message whose body has exactly `size` bytes (at least some 450)."""
    empty = len(message("", **fields))
    if size < empty:
        raise ValueError(f"a message has at least {empty} bytes")
    words = "The quick brown fox jumps over the lazy dog, again and again. "
    text = (words * (size // len(words) + 1))[: size - empty]
    return message(text, **fields)


def count_tokens(input_tokens: int = 14) -> bytes:
    """The body of a `count_tokens` answer."""
    return dump({"input_tokens": input_tokens})


def error(
    kind: str = "invalid_request_error",
    text: str = "max_tokens: field required",
    request_id: str = "req_011CSHoEeqs5C35K2UUqR7Fy",
) -> bytes:
    """The body of an error answer."""
    return dump(
        {"type": "error", "error": {"type": kind, "message": text}, "request_id": request_id}
    )


# Streams


def event(name: str, data: object) -> bytes:
    """One server-sent event."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), dump(data))


PING = b'event: ping\ndata: {"type": "ping"}\n\n'


def error_event(kind: str = "overloaded_error", text: str = "Overloaded") -> bytes:
    """An error in the middle of a stream."""
    return event("error", {"type": "error", "error": {"type": kind, "message": text}})


def stream(
    blocks: Sequence[Json] | str = "Hello, how are you?",
    *,
    piece: int = 6,
    tokens: Json | None = None,
    model: str = MODEL,
    message_id: str = "msg_01XFDUDYJgAACzvnptvVoYEL",
    stop_reason: str | None = None,
    ping: bool = True,
) -> list[bytes]:
    """A complete streamed Message, one item per event; deltas hold `piece` characters each."""
    content = [text_block(blocks)] if isinstance(blocks, str) else list(blocks)
    tokens = tokens or usage()
    start: Json = {
        "model": model,
        "id": message_id,
        "type": "message",
        "role": "assistant",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {**tokens, "output_tokens": 1},
    }
    events = [event("message_start", {"type": "message_start", "message": start})]
    for index, block in enumerate(content):
        events += _block_events(index, block, piece)
        if ping and index == 0:
            events.insert(2, PING)
    stop = {"stop_reason": stop_reason or _stop_reason(content), "stop_sequence": None}
    counts = {key: value for key, value in tokens.items() if key.endswith("_tokens")}
    events.append(event("message_delta", {"type": "message_delta", "delta": stop, "usage": counts}))
    events.append(event("message_stop", {"type": "message_stop"}))
    return events


def _block_events(index: int, block: Json, piece: int) -> list[bytes]:
    deltas: list[Json]
    empty: Json
    match block["type"]:
        case "text":
            empty = {"type": "text", "text": ""}
            deltas = [{"type": "text_delta", "text": part} for part in _cut(block["text"], piece)]
        case "thinking":
            empty = {"type": "thinking", "thinking": "", "signature": ""}
            deltas = [
                {"type": "thinking_delta", "thinking": part}
                for part in _cut(block["thinking"], piece)
            ]
            deltas.append({"type": "signature_delta", "signature": block["signature"]})
        case "tool_use":
            empty = {**block, "input": {}}
            written = json.dumps(block["input"], ensure_ascii=False)
            deltas = [
                {"type": "input_json_delta", "partial_json": part}
                for part in ["", *_cut(written, piece)]
            ]
        case kind:
            raise ValueError(f"no stream is known for a {kind} block")
    return [
        event(
            "content_block_start",
            {"type": "content_block_start", "index": index, "content_block": empty},
        ),
        *(
            event(
                "content_block_delta",
                {"type": "content_block_delta", "index": index, "delta": delta},
            )
            for delta in deltas
        ),
        event("content_block_stop", {"type": "content_block_stop", "index": index}),
    ]


def _cut(text: str, piece: int) -> Iterable[str]:
    return (text[i : i + piece] for i in range(0, len(text), piece))


def _stop_reason(content: Sequence[Json]) -> str:
    return "tool_use" if content and content[-1]["type"] == "tool_use" else "end_turn"
