"""Answers of the Gemini API as bytes, as the real API writes them; Vertex AI's are the same.

A stream is a list of pieces, one per chunk of the answer, so that a test can put a gate or a fault
between any two; `sse` and `array` are its two framings.
Source of the shapes: https://ai.google.dev/api/generate-content.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, TypeAlias

Json: TypeAlias = dict[str, Any]

MODEL = "gemini-2.5-flash"
PATH = f"/v1beta/models/{MODEL}"
JSON_HEADERS = (("content-type", "application/json; charset=UTF-8"),)
SSE_HEADERS = (("content-type", "text/event-stream"),)
RESPONSE_HEADERS = (
    ("server", "scaffolding on HTTPServer2"),
    ("x-xss-protection", "0"),
    ("x-content-type-options", "nosniff"),
    ("server-timing", "gfet4t7; dur=417"),
)
"""End-to-end headers as an answer of the real API has them; ready for `Reply.headers`."""


def dump(document: object) -> bytes:
    """JSON as the API writes it: UTF-8, indented."""
    return json.dumps(document, ensure_ascii=False, indent=2).encode()


def request(prompt: str = "Say hello.", **fields: Any) -> bytes:
    """The body of a `:generateContent`; `fields` are added as they are."""
    contents = [{"role": "user", "parts": [{"text": prompt}]}]
    return json.dumps({"contents": contents, **fields}).encode()


def text(words: str) -> Json:
    """A part of text."""
    return {"text": words}


def thought(words: str) -> Json:
    """A part of thinking."""
    return {"text": words, "thought": True}


def call(name: str, **arguments: Any) -> Json:
    """A part that calls a function."""
    return {
        "functionCall": {"name": name, "args": arguments},
        "thoughtSignature": "EpwICpkIAXLI2g==",
    }


def usage(
    prompt: int = 5, candidates: int = 7, thoughts: int = 0, cached: int = 0, tools: int = 0
) -> Json:
    """A `usageMetadata`; as the API does it, what is 0 is left out."""
    counts = {
        "promptTokenCount": prompt,
        "candidatesTokenCount": candidates,
        "totalTokenCount": prompt + candidates + thoughts + tools,
        "cachedContentTokenCount": cached,
        "toolUsePromptTokenCount": tools,
        "thoughtsTokenCount": thoughts,
    }
    return {name: count for name, count in counts.items() if count}


def candidate(parts: Sequence[Json], *, finish: str | None = "STOP", index: int = 0) -> Json:
    """One candidate, or a chunk of it."""
    found: Json = {"content": {"parts": list(parts), "role": "model"}, "index": index}
    return found | ({"finishReason": finish} if finish else {})


def document(
    candidates: Sequence[Json], *, tokens: Json | None = None, model: str = MODEL, **fields: Any
) -> Json:
    """A `GenerateContentResponse`."""
    return {
        "candidates": list(candidates),
        "usageMetadata": tokens or usage(),
        "modelVersion": model,
        "responseId": "REVVabaiCdq4qtsPnZu96Qo",
        **fields,
    }


def answer(parts: Sequence[Json] | str = "Hello!", **fields: Any) -> bytes:
    """The body of a whole answer with one candidate."""
    parts = [text(parts)] if isinstance(parts, str) else parts
    return dump(document([candidate(parts)], **fields))


def chunks(parts: Sequence[Json] | str = "Hello, how are you?", **fields: Any) -> list[Json]:
    """The documents of a streamed answer: text in pieces, the last with the finish reason."""
    parts = [text(parts)] if isinstance(parts, str) else parts
    pieces: list[Json] = []
    for part in parts:
        words = part.get("text", "")
        pieces += [{**part, "text": words[i : i + 6]} for i in range(0, len(words), 6)]
        pieces += [] if words else [part]
    held = [document([candidate([piece], finish=None)], **fields) for piece in pieces]
    return [*held, document([candidate([text("")])], **fields)]


def sse(documents: Sequence[Json]) -> list[bytes]:
    """A stream as `alt=sse` frames it."""
    return [b"data: %b\r\n\r\n" % json.dumps(one, ensure_ascii=False).encode() for one in documents]


def array(documents: Sequence[Json]) -> list[bytes]:
    """A stream as a JSON array, the form without `alt=sse`."""
    pieces = [(b"[" if not at else b",\r\n") + dump(one) for at, one in enumerate(documents)]
    return [*pieces, b"\n]\n"]


def blocked(reason: str = "SAFETY") -> bytes:
    """The body of an answer to a prompt that was blocked."""
    return dump(
        {
            "promptFeedback": {"blockReason": reason},
            "usageMetadata": {"promptTokenCount": 5, "totalTokenCount": 5},
            "modelVersion": MODEL,
        }
    )


def error(code: int = 400, text: str = "Invalid value.", status: str = "INVALID_ARGUMENT") -> bytes:
    """The body of an error answer."""
    return dump({"error": {"code": code, "message": text, "status": status}})
