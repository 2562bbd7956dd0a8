"""Cuts a stored body into the documents it is made of, whatever carries them.

Server-sent events, AWS event streams (with the base64 chunks of Bedrock's `invoke`), one JSON
array, lines of JSON, or one JSON document: each becomes a list of pieces. Nothing raises: what
can't be read is a piece without a document, or what is left of the body as one.
"""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as Base64Error
from dataclasses import dataclass
from typing import Any, Final

from llm_cache.wire.answers import media_type, parsed
from llm_cache.wire.framing.eventstream import MessageParser
from llm_cache.wire.framing.sse import EventParser
from llm_cache.wire.provider import Json

_LINES: Final = ("application/x-ndjson", "application/jsonl", "application/x-jsonlines")
_EVENT_STREAM: Final = "application/vnd.amazon.eventstream"


@dataclass(frozen=True, slots=True)
class Piece:
    """One event, message, element or document. `doc` is None when `data` isn't a JSON object."""

    name: str  # of the event, "" when it has none
    data: bytes
    doc: Json | None


@dataclass(frozen=True, slots=True)
class Frames:
    """The pieces of a body. `streamed`: they are parts of one answer, not the answer itself."""

    pieces: tuple[Piece, ...]
    streamed: bool


def frames(content_type: str, body: bytes) -> Frames:
    """The pieces of a body (content coding undone)."""
    match media_type(content_type):
        case "text/event-stream":
            return Frames(tuple(_events(body)), streamed=True)
        case kind if kind == _EVENT_STREAM:
            return Frames(tuple(_messages(body)), streamed=True)
        case kind if kind in _LINES:
            lines = tuple(_piece("", line) for line in body.splitlines() if line.strip())
            return Frames(lines, streamed=True)
    value = _value(body)
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        return Frames(tuple(Piece("", b"", item) for item in value), streamed=True)
    return Frames((Piece("", body, value if isinstance(value, dict) else None),), streamed=False)


def _events(body: bytes) -> list[Piece]:
    parser = EventParser()
    # The blank line ends an event that the body's end cut off.
    events = parser.feed(body) + parser.feed(b"\n\n")
    return [_piece(event.name.decode("utf-8", "replace"), event.data) for event in events]


def _messages(body: bytes) -> list[Piece]:
    found = []
    for message in MessageParser().feed(body):
        piece = _piece(message.name or message.kind, message.payload)
        chunk = (piece.doc or {}).get("bytes")
        if isinstance(chunk, str):  # a piece of the model maker's own format
            try:
                piece = _piece(piece.name, b64decode(chunk, validate=True))
            except Base64Error:
                piece = _piece(piece.name, message.payload)
        found.append(piece)
    return found


def _piece(name: str, data: bytes) -> Piece:
    value = _value(data)
    return Piece(name, data, value if isinstance(value, dict) else None)


def _value(data: bytes) -> Any:
    try:
        return parsed(data)
    except ValueError:
        return None
