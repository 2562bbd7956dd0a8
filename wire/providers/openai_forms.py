"""One chat completion in its two forms: as a JSON body, and as a stream of chunks.

What holds: `as_plain(as_stream(x))` is x, for what the API itself writes. A stream begins each
choice with its role, has each text and each call's arguments in one chunk, then the finish reasons,
the usage where it is asked for, and `[DONE]`. What isn't known here (audio, custom tools, a field
that another host adds) isn't converted, nor is a stream that didn't tell its usage: the answer is
None, never half of something.
Source: https://platform.openai.com/docs/api-reference/chat/streaming.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from llm_cache.wire.answers import DONE, parsed
from llm_cache.wire.framing import strict_json
from llm_cache.wire.framing.sse import EventParser
from llm_cache.wire.provider import Json

_SHARED: Final[tuple[str, ...]] = ("id", "created", "model", "service_tier", "system_fingerprint")
"""What every chunk repeats of the completion."""
_MISFITS: Final = (ValueError, LookupError, TypeError, AttributeError, RecursionError)
"""What reading something else than a known chat completion ends in."""


def as_stream(body: bytes, *, include_usage: bool) -> bytes | None:
    """The chunks of the chat completion in `body`, None when they can't be told."""
    try:
        doc = strict_json.parse(body)
        _only(doc, (*_SHARED, "object", "choices", "usage"))
        if doc["object"] != "chat.completion" or not doc["choices"]:
            raise ValueError("not a chat completion")
        if include_usage and not doc["usage"]:
            raise ValueError("it has no usage to tell")
        return b"".join([*_chunks(doc, include_usage), b"data: [DONE]\n\n"])
    except _MISFITS:
        return None


def as_plain(body: bytes) -> bytes | None:
    """The chat completion that the stream `body` tells, None when it isn't known how."""
    parser = EventParser()
    folded = _Folded()
    try:
        for event in parser.feed(body):
            folded.take(event.data)
        if parser.stray or parser.overflowed or parser.unfinished:
            return None
        return _written(folded.completion())
    except _MISFITS:
        return None


def _written(doc: Json) -> bytes:
    return json.dumps(doc, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def _only(doc: Mapping[str, Any], known: tuple[str, ...]) -> None:
    """Raise ValueError when `doc` says something that isn't known. Null says nothing."""
    for name, value in doc.items():
        if value is not None and name not in known:
            raise ValueError(f"{name} isn't known")


def _chunks(doc: Json, include_usage: bool) -> Iterator[bytes]:
    shared = {name: doc[name] for name in _SHARED if name in doc}

    def chunk(choices: list[Json], usage: Json | None = None) -> bytes:
        told: Json = {"usage": usage} if include_usage else {}
        head = {"id": shared["id"], "object": "chat.completion.chunk"}
        return b"data: %b\n\n" % _written({**head, **shared, "choices": choices, **told})

    for place, choice in enumerate(doc["choices"]):
        _only(choice, ("index", "message", "logprobs", "finish_reason"))
        if choice["index"] != place:
            raise ValueError("choices out of order")
        for delta, logprobs in _deltas(choice["message"], choice.get("logprobs")):
            yield chunk(
                [{"index": place, "delta": delta, "logprobs": logprobs, "finish_reason": None}]
            )
    for choice in doc["choices"]:
        if not choice["finish_reason"]:
            raise ValueError("a choice isn't finished")
        end = {"delta": {}, "logprobs": None, "finish_reason": choice["finish_reason"]}
        yield chunk([{"index": choice["index"], **end}])
    if include_usage:
        yield chunk([], doc["usage"])


def _deltas(message: Json, logprobs: Json | None) -> Iterator[tuple[Json, Json | None]]:
    """What is added, step by step, and the logprobs of each step."""
    _only(message, ("role", "content", "refusal", "annotations", "tool_calls"))
    content, refusal = message.get("content"), message.get("refusal")
    begun: Json = {"role": message["role"], "content": None if content is None else ""}
    yield {**begun, "refusal": None}, None
    for name, text in (("content", content), ("refusal", refusal)):
        if text:
            yield {name: _text(text)}, logprobs
            logprobs = None
    if logprobs is not None:
        raise ValueError("logprobs of nothing")
    for place, call in enumerate(message.get("tool_calls") or ()):
        _only(call, ("id", "type", "function"))
        function = call["function"]
        _only(function, ("name", "arguments"))
        if call["type"] != "function":
            raise ValueError("only functions are known")
        head = {"index": place, **call, "function": {"name": function["name"], "arguments": ""}}
        yield {"tool_calls": [head]}, None
        more = {"index": place, "function": {"arguments": _text(function["arguments"])}}
        yield {"tool_calls": [more]}, None
    if message.get("annotations"):
        yield {"annotations": message["annotations"]}, None


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("not a text")
    return value


class _Folded:
    """A chat completion in the making. What doesn't fit raises."""

    def __init__(self) -> None:
        self._shared: Json = {}
        self._choices: dict[int, _Choice] = {}
        self._usage: Json | None = None
        self._done = False

    def take(self, data: bytes) -> None:
        """Add one event."""
        if self._done:
            raise ValueError("more after the end")
        if data.strip() == DONE:
            self._done = True
            return
        chunk = parsed(data)
        _only(chunk, (*_SHARED, "object", "choices", "usage", "obfuscation"))
        if chunk["object"] != "chat.completion.chunk":
            raise ValueError("not a chunk")
        for name in chunk.keys() & _SHARED:
            if chunk[name] != self._shared.setdefault(name, chunk[name]):
                raise ValueError(f"{name} changes")
        self._usage = chunk.get("usage") or self._usage
        for choice in chunk["choices"]:
            self._choices.setdefault(choice["index"], _Choice()).take(choice)

    def completion(self) -> Json:
        """The whole."""
        if not self._done or not self._choices or self._usage is None:
            raise ValueError("not whole, or its usage isn't told")
        shared = {name: self._shared[name] for name in _SHARED if name in self._shared}
        return {
            "id": shared.pop("id"),
            "object": "chat.completion",
            "created": shared.pop("created"),
            "model": shared.pop("model"),
            "choices": [self._choices[index].whole(index) for index in range(len(self._choices))],
            "usage": self._usage,
            **shared,
        }


class _Choice:
    """One choice in the making."""

    def __init__(self) -> None:
        self._role: str | None = None
        self._texts: dict[str, str | None] = {"content": None, "refusal": None}
        self._calls: list[Json] = []
        self._annotations: list[Any] = []
        self._logprobs: Json | None = None
        self._reason: str | None = None

    def take(self, choice: Json) -> None:
        """Add one chunk's part."""
        _only(choice, ("index", "delta", "logprobs", "finish_reason"))
        delta = choice["delta"]
        _only(delta, ("role", "content", "refusal", "annotations", "tool_calls"))
        self._role = delta.get("role") or self._role
        for name, so_far in self._texts.items():
            if delta.get(name) is not None:
                self._texts[name] = (so_far or "") + delta[name]
        for call in delta.get("tool_calls") or ():
            self._call(call)
        self._annotations += delta.get("annotations") or ()
        if (logprobs := choice.get("logprobs")) is not None:
            self._logprobs = _joined(self._logprobs, logprobs)
        self._reason = choice.get("finish_reason") or self._reason

    def _call(self, call: Json) -> None:
        _only(call, ("index", "id", "type", "function"))
        _only(call["function"], ("name", "arguments"))
        if not 0 <= call["index"] <= len(self._calls):
            raise ValueError("calls out of order")
        if call["index"] == len(self._calls):
            function = {"name": call["function"]["name"], "arguments": ""}
            self._calls.append({"id": call["id"], "type": call["type"], "function": function})
        if self._calls[call["index"]]["type"] != "function":
            raise ValueError("only functions are known")
        self._calls[call["index"]]["function"]["arguments"] += call["function"].get("arguments", "")

    def whole(self, index: int) -> Json:
        """The choice. The API always tells `refusal` and `annotations` in a plain answer."""
        if not self._reason or not self._role:
            raise ValueError("a choice isn't finished")
        message: Json = {"role": self._role, "content": self._texts["content"]}
        if self._calls:
            message["tool_calls"] = self._calls
        message |= {"refusal": self._texts["refusal"], "annotations": self._annotations}
        return {
            "index": index,
            "message": message,
            "logprobs": self._logprobs,
            "finish_reason": self._reason,
        }


def _joined(so_far: Json | None, more: Json) -> Json:
    _only(more, ("content", "refusal"))
    if so_far is None:
        return dict(more)
    return {
        name: (so_far.get(name) or []) + (more.get(name) or [])
        if so_far.get(name) or more.get(name)
        else None
        for name in so_far | more
    }
