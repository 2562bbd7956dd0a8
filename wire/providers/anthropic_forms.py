"""One Message in its two forms: as a JSON body, and as the stream of events that tells the same.

What holds: `as_plain(as_stream(x))` is x. A stream has the events in the order of "Streaming
messages": message_start, a ping, each block's start, deltas and stop, message_delta, message_stop;
each block's text is one delta. What isn't known here (a kind of block or delta, an event) isn't
converted: the answer is None, never half of something.
Source: https://docs.anthropic.com/en/api/messages-streaming.
"""

from __future__ import annotations

import json
from typing import Any, Final

from llm_cache.wire.answers import member, parsed
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
    folded = _Folded()
    try:
        for event in parser.feed(body):
            folded.take(parsed(event.data))
        if parser.stray or parser.overflowed or parser.unfinished or not folded.stopped:
            return None
        return _written(folded.message)
    except _MISFITS:
        return None


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


class _Folded:
    """A Message in the making. What doesn't fit raises."""

    def __init__(self) -> None:
        self.message: Json = {}
        self.stopped = False
        self._written: list[str] | None = None  # the input of the tool call that is open
        self._open = False

    def take(self, event: Json) -> None:
        """Add one event."""
        kind = event["type"]
        if kind == "ping":
            return
        if self.stopped or (kind == "message_start") == bool(self.message):
            raise ValueError("events out of order")
        match kind:
            case "message_start":
                self.message = {**event["message"], "content": []}
            case "content_block_start":
                self._start(event)
            case "content_block_delta":
                self._add(self._block(event), event["delta"])
            case "content_block_stop":
                self._stop(self._block(event))
            case "message_delta":
                self._finish(event)
            case "message_stop" if not self._open and self.message["stop_reason"]:
                self.stopped = True
            case _:
                raise ValueError(f"it isn't known what a {kind} event adds here")

    def _start(self, event: Json) -> None:
        content = self.message["content"]
        if self._open or event["index"] != len(content):
            raise ValueError("blocks out of order")
        content.append(dict(event["content_block"]))
        self._open = True
        self._written = [] if content[-1]["type"] in _CALLS else None

    def _block(self, event: Json) -> Json:
        content = self.message["content"]
        if not self._open or event["index"] != len(content) - 1:
            raise ValueError("blocks out of order")
        block: Json = content[-1]
        return block

    def _add(self, block: Json, delta: Json) -> None:
        match delta["type"]:
            case "text_delta" if block["type"] == "text":
                block["text"] += delta["text"]
            case "citations_delta" if block["type"] == "text":
                block["citations"] = [*(block.get("citations") or ()), delta["citation"]]
            case "thinking_delta" if block["type"] == "thinking":
                block["thinking"] += delta["thinking"]
            case "signature_delta" if block["type"] == "thinking":
                block["signature"] = delta["signature"]
            case "input_json_delta" if self._written is not None:
                self._written.append(delta["partial_json"])
            case kind:
                raise ValueError(f"it isn't known what a {kind} adds to a {block['type']} block")

    def _stop(self, block: Json) -> None:
        self._open = False
        if self._written and (text := "".join(self._written)):
            block["input"] = _object(strict_json.parse(text.encode()))
        if block["type"] == "thinking" and not block["signature"]:
            raise ValueError("a thought without its signature")

    def _finish(self, event: Json) -> None:
        self.message.update(event["delta"])
        if event.get("context_management") is not None:
            self.message["context_management"] = event["context_management"]
        if not event.keys() <= {"type", "delta", "usage", "context_management"}:
            raise ValueError("it isn't known what this message_delta adds")
        # "The token counts shown in the usage field of message_delta are cumulative."
        sums = {name: value for name, value in member(event, "usage").items() if value is not None}
        self.message["usage"] = {**self.message["usage"], **sums}


def _object(value: Any) -> Json:
    if not isinstance(value, dict):
        raise ValueError("a tool's input is an object")
    return value
