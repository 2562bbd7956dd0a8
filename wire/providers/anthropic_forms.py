"""One Message in its two forms: as a JSON body, and as the stream of events that tells the same.

What holds: `as_plain(as_stream(x))` is x. A stream has the events in the order of "Streaming
messages": message_start, a ping, each block's start, deltas and stop, message_delta, message_stop;
each block's text is one delta. What isn't known here (a kind of block or delta, an event) isn't
converted: the answer is None, never half of something. `MessageFolding` reads streams of any kind,
for people as well, and keeps what it couldn't place.
Source: https://docs.anthropic.com/en/api/messages-streaming.
"""

from __future__ import annotations

import json
from typing import Any, Final

from llm_cache.wire.answers import member, parsed
from llm_cache.wire.folding import WRITTEN, Growing, append, block_place, close_input, settled
from llm_cache.wire.framing import strict_json
from llm_cache.wire.framing.sse import EventParser
from llm_cache.wire.provider import Json

_TOLD_AT_THE_START: Final = ("cache_creation", "service_tier", "inference_geo")
_COUNTED_AT_THE_START: Final = (
    "input_tokens",
    "cache_creation_input_tokens",
    "cache_read_input_tokens",
    "output_tokens",
)
_MISFITS: Final = (ValueError, LookupError, TypeError, AttributeError, RecursionError)
"""What reading something else than a known Message ends in."""
_PING: Final = b'event: ping\ndata: {"type": "ping"}\n\n'  # as the API spells it
_CALLS: Final = ("tool_use", "server_tool_use", "mcp_tool_use")


def as_stream(body: bytes) -> bytes | None:
    """The events of the Message in `body`, None when they can't be told."""
    try:
        message = strict_json.parse(body)
        return b"".join(_event(doc) for doc in _events(message))
    except _MISFITS:
        return None


def as_plain(body: bytes) -> bytes | None:
    """The Message that the event stream `body` tells, None when it isn't known how."""
    parser = EventParser()
    folding = MessageFolding()
    try:
        for event in parser.feed(body):
            folding.take(_object(parsed(event.data)))
        if parser.stray or parser.overflowed or parser.unfinished or not folding.stopped:
            return None
        message = folding.document()
        return None if folding.unplaced else _written(message)
    except _MISFITS:
        return None


def _object(value: Any) -> Json:
    if not isinstance(value, dict):
        raise ValueError("an event is an object")
    return value


def _written(doc: Json) -> bytes:
    return json.dumps(doc, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def _event(doc: Json) -> bytes:
    if doc["type"] == "ping":
        return _PING
    return b"event: %b\ndata: %b\n\n" % (doc["type"].encode(), _written(doc))


def _events(message: Json) -> list[Json]:
    if message["type"] != "message":
        raise ValueError("not a message")
    start = {**message, "content": [], "stop_reason": None, "stop_sequence": None}
    end: Json = {name: message[name] for name in ("stop_reason", "stop_sequence")}
    if "stop_details" in message:
        start["stop_details"] = None
        end["stop_details"] = message["stop_details"]
    if message.get("container") is not None:
        end["container"] = start.pop("container")
    last: Json = {"type": "message_delta", "delta": end}
    if message.get("context_management") is not None:
        last["context_management"] = start.pop("context_management")
    start["usage"], last["usage"] = _usages(message["usage"])
    events: list[Json] = [{"type": "message_start", "message": start}]
    for index, block in enumerate(message["content"]):
        empty, deltas = _deltas(block)
        events.append({"type": "content_block_start", "index": index, "content_block": empty})
        if index == 0:
            events.append({"type": "ping"})
        events += [
            {"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas
        ]
        events.append({"type": "content_block_stop", "index": index})
    return [*events, last, {"type": "message_stop"}]


def _usages(usage: Json) -> tuple[Json, Json]:
    """What is known of the usage at the start, and the sums at the end. Of the output tokens, one
    is known at the start."""
    start = {
        name: value
        for name, value in usage.items()
        if value is None or name in _TOLD_AT_THE_START or name in _COUNTED_AT_THE_START
    }
    end = {
        name: value
        for name, value in usage.items()
        if value is not None and name not in _TOLD_AT_THE_START
    }
    start["output_tokens"] = min(1, usage["output_tokens"])
    return start, end


def _deltas(block: Json) -> tuple[Json, list[Json]]:
    """A block as it starts, and what is added to it."""
    kind = block["type"]
    if kind == "text":
        deltas = [{"type": "text_delta", "text": block["text"]}] if block["text"] else []
        empty = {**block, "text": ""}
        if block.get("citations"):
            empty["citations"] = []
            deltas += [{"type": "citations_delta", "citation": one} for one in block["citations"]]
        return empty, deltas
    if kind == "thinking":
        thought, signature = block["thinking"], block["signature"]
        deltas = [{"type": "thinking_delta", "thinking": thought}] if thought else []
        deltas.append({"type": "signature_delta", "signature": signature})
        return {**block, "thinking": "", "signature": ""}, deltas
    if kind in _CALLS:
        if not isinstance(block["input"], dict):
            raise ValueError("a tool's input is an object")
        written = json.dumps(block["input"], ensure_ascii=False, allow_nan=False)
        parts = ["", written] if block["input"] else [""]
        return {**block, "input": {}}, [
            {"type": "input_json_delta", "partial_json": part} for part in parts
        ]
    if kind == "redacted_thinking" or kind.endswith("_tool_result"):
        return block, []
    raise ValueError(f"it isn't known how a {kind} block is streamed")


class MessageFolding:
    """A Message in the making, from the events of its stream. Never raises."""

    def __init__(self) -> None:
        self.unplaced: list[Json] = []
        """Events, or what became of them, that no Message says this way."""
        self.stopped = False
        self._message: Json = {}
        self._blocks: dict[object, Json] = {}
        self._open: object = None  # the place of the block that has begun and not ended

    def take(self, event: Json) -> None:
        """Add one event."""
        kind = event.get("type")
        if kind == "ping":
            return
        fits = not self.stopped and (kind == "message_start") != bool(self._message)
        match kind:
            case "message_start":
                message = member(event, "message")
                fits &= bool(message) and not message.get("content")
                self._message = {**message, "content": []}
            case "content_block_start":
                fits &= self._start(event)
            case "content_block_delta":
                at = block_place(event.get("index"))
                fits &= event.get("index") == self._open and at in self._blocks
                block = self._blocks.setdefault(at, {"type": "text"})
                fits &= _add(block, member(event, "delta"))
            case "content_block_stop":
                fits &= self._open is not None and event.get("index") == self._open
                self._open = None
            case "message_delta":
                fits &= self._finish(event)
            case "message_stop":
                fits &= self._open is None and bool(self._message.get("stop_reason"))
                self.stopped = True
            case _:
                fits = False
                if kind == "error":
                    self._message["error"] = event.get("error")
        if not fits:
            self.unplaced.append(event)

    def document(self) -> Json:
        """The Message as far as it came. Call once, at the end."""
        for block in self._blocks.values():
            if not _close(block):
                self.unplaced.append(block)
        whole: Json = settled({**self._message, "content": list(self._blocks.values())})
        return whole

    def _start(self, event: Json) -> bool:
        index, block = event.get("index"), dict(member(event, "content_block"))
        fits = self._open is None and index == len(self._blocks)
        self._open = block_place(index)
        self._blocks[self._open] = block
        return fits and isinstance(block.get("type"), str)

    def _finish(self, event: Json) -> bool:
        fits = event.keys() <= {"type", "delta", "usage", "context_management"}
        fits &= isinstance(event.get("delta"), dict) and "usage" in self._message
        self._message |= member(event, "delta")
        if event.get("context_management") is not None:
            self._message["context_management"] = event["context_management"]
        # "The token counts shown in the usage field of message_delta are cumulative."
        sums = {name: value for name, value in member(event, "usage").items() if value is not None}
        self._message["usage"] = {**member(self._message, "usage"), **sums}
        return fits


_GROWS: Final = {"text_delta": ("text", "text"), "thinking_delta": ("thinking", "thinking")}
"""By the kind of delta: the kind of block it belongs to, and the field that grows."""


def _add(block: Json, delta: Json) -> bool:
    """Add a delta to its block; False when the block has no place for it."""
    kind, owner = delta.get("type"), block.get("type")
    if isinstance(kind, str) and kind in _GROWS:
        wanted, field = _GROWS[kind]
        fits = owner == wanted and field in block
        return append(block, field, delta.get(field)) and fits
    if kind == "input_json_delta":
        return append(block, WRITTEN, delta.get("partial_json")) and owner in _CALLS
    if kind == "signature_delta":
        block["signature"] = delta.get("signature")
        return owner == "thinking"
    if kind == "citations_delta":
        cited = block.get("citations") or []
        if isinstance(cited, list):
            block["citations"] = [*cited, delta.get("citation")]
        return isinstance(cited, list) and owner == "text" and "citation" in delta
    return False


def _close(block: Json) -> bool:
    """End a block; False when it isn't whole."""
    written = block.get(WRITTEN)
    text = "".join(written.parts) if isinstance(written, Growing) else ""
    close_input(block, "input")
    if block.get("type") == "thinking":
        return bool(block.get("signature"))
    if not text:
        return True
    try:
        told = strict_json.parse(text.encode())
    except ValueError:
        return False
    return isinstance(told, dict) and told == block["input"]
