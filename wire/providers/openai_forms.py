"""One chat completion in its two forms: as a JSON body, and as a stream of chunks.

What holds: `as_plain(as_stream(x))` is x, for what the API itself writes. A stream begins each
choice with its role, has each text and each call's arguments in one chunk, then the finish reasons,
the usage where it is asked for, and `[DONE]`. What isn't known here (audio, custom tools, a field
that another host adds) isn't converted, nor is a stream that didn't tell its usage: the answer is
None, never half of something. `ChatFolding` reads streams of any kind, for people as well, and
keeps what it couldn't place.
Source: https://platform.openai.com/docs/api-reference/chat/streaming.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from operator import itemgetter
from typing import Any, Final

from llm_cache.wire.answers import DONE, member, objects, parsed
from llm_cache.wire.folding import append, block_place, merge, settled
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
    folding = ChatFolding()
    try:
        *chunks, end = [event.data for event in parser.feed(body)]
        if parser.stray or parser.overflowed or parser.unfinished or end.strip() != DONE:
            return None
        for chunk in chunks:
            folding.take(parsed(chunk))
        doc = folding.document()
        return None if folding.unplaced else _written(_completion(doc))
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


class ChatFolding:
    """A chat completion in the making, from the chunks of its stream; old completions and other
    hosts' chunks as well. Never raises."""

    def __init__(self) -> None:
        self.unplaced: list[Json] = []
        """Chunks, or parts of them, that no completion says this way."""
        self._told: Json = {}  # all but the choices: what was said last, which isn't null
        self._choices: dict[object, Json] = {}

    def take(self, chunk: Json) -> None:
        """Add one chunk."""
        for name, value in chunk.items():
            if name == "choices":
                continue
            if name in (*_SHARED, "object") and value != self._told.get(name, value):
                self.unplaced.append({name: value})
            if value is not None or name not in self._told:
                self._told[name] = value
        parts = objects(chunk.get("choices"))
        if not isinstance(chunk.get("choices"), list) or len(parts) != len(chunk["choices"]):
            self.unplaced.append(chunk)
        for at, part in enumerate(parts):
            index = part.get("index", at)
            choice = self._choices.setdefault(block_place(index), {"index": index})
            if not _add_part(choice, part):
                self.unplaced.append(part)

    def document(self) -> Json:
        """The completion as far as it came."""
        choices = [settled(choice) for choice in self._choices.values()]
        for choice in choices:
            message = member(choice, "message")
            if isinstance(message.get("tool_calls"), dict):
                message["tool_calls"] = list(message["tool_calls"].values())
        return {**self._told, "choices": choices}


def _add_part(choice: Json, part: Json) -> bool:
    """Add a chunk's part to its choice; False when something of it found no place."""
    fits: bool = part.get("index") == choice["index"]
    for name, value in part.items():
        if name == "text":
            fits &= append(choice, name, value)
        elif name == "delta":
            message = choice.setdefault("message", {})
            fits &= isinstance(value, dict) and merge(message, member(part, name))
        elif name == "finish_reason":
            choice[name] = value or choice.get(name)
        elif name == "logprobs" and value is not None:
            try:
                choice[name] = _joined(choice.get(name), value)
            except _MISFITS:
                fits = False
        elif name != "index" and value is not None:
            fits = False
    return fits


def _completion(doc: Json) -> Json:
    """A folded completion as the API itself writes it. What else it says, or lacks, raises."""
    _only(doc, (*_SHARED, "object", "choices", "usage", "obfuscation"))
    if doc["object"] != "chat.completion.chunk" or not doc["choices"] or not doc.get("usage"):
        raise ValueError("not the chunks of a whole, or its usage isn't told")
    choices = sorted(doc["choices"], key=itemgetter("index"))
    if [choice["index"] for choice in choices] != list(range(len(choices))):
        raise ValueError("choices out of order")
    shared = {name: doc[name] for name in _SHARED if name in doc}
    return {
        "id": shared.pop("id"),
        "object": "chat.completion",
        "created": shared.pop("created"),
        "model": shared.pop("model"),
        "choices": [_choice(choice) for choice in choices],
        "usage": doc["usage"],
        **shared,
    }


def _choice(choice: Json) -> Json:
    """A choice. The API always tells `refusal` and `annotations` in a plain answer."""
    _only(choice, ("index", "message", "logprobs", "finish_reason"))
    said = choice["message"]
    _only(said, ("role", "content", "refusal", "annotations", "tool_calls"))
    if not choice["finish_reason"] or not said["role"]:
        raise ValueError("a choice isn't finished")
    content, refusal = (
        None if said.get(name) is None else _text(said[name]) for name in ("content", "refusal")
    )
    message: Json = {"role": said["role"], "content": content}
    if said.get("tool_calls"):
        message["tool_calls"] = [_call(call) for call in said["tool_calls"]]
    notes = said.get("annotations") or []
    if not isinstance(notes, list):
        raise ValueError("annotations are a list")
    message |= {"refusal": refusal, "annotations": notes}
    return {
        "index": choice["index"],
        "message": message,
        "logprobs": choice.get("logprobs"),
        "finish_reason": choice["finish_reason"],
    }


def _call(call: Json) -> Json:
    _only(call, ("id", "type", "function"))
    function = call["function"]
    _only(function, ("name", "arguments"))
    if call["type"] != "function":
        raise ValueError("only functions are known")
    told = {"name": _text(function["name"]), "arguments": _text(function.get("arguments", ""))}
    return {"id": call["id"], "type": call["type"], "function": told}


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
