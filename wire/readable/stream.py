"""Puts a streamed answer together: pieces in, the document that the API would have sent unstreamed.

Which form it is shows in the pieces themselves, so that gateways and Bedrock's chunks need nothing
of their own. Only for people to read: nothing here decides whether an answer is complete. Bytes of
any kind give a document or None, and never an exception.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final

from llm_cache.wire.answers import member, objects
from llm_cache.wire.provider import Json
from llm_cache.wire.readable.frames import Piece

_CONVERSE: Final = (
    *("messageStart", "contentBlockStart", "contentBlockDelta", "contentBlockStop"),
    *("messageStop", "metadata"),
)
_TEXTS: Final = ("generation", "outputText", "text")  # Llama, Titan, Cohere behind Bedrock


def assembled(pieces: Sequence[Piece]) -> Json | None:
    """The answer that the pieces are a stream of, or None when their form isn't known."""
    answer = _answer(pieces)
    return None if answer is None else _settled(answer)


def _answer(pieces: Sequence[Piece]) -> Json | None:
    named = [(piece.name, piece.doc) for piece in pieces if piece.doc is not None]
    docs = [doc for _, doc in named]
    kinds = {str(doc.get("type")) for doc in docs}
    if "message_start" in kinds:
        return _messages(docs)
    if any(kind.startswith("response.") for kind in kinds):
        newest = [doc["response"] for doc in docs if isinstance(doc.get("response"), dict)]
        return newest[-1] if newest else None
    if any("choices" in doc for doc in docs):
        return _choices(docs)
    if any("candidates" in doc or "promptFeedback" in doc for doc in docs):
        return _candidates(docs)
    if "message-start" in kinds:
        return _cohere(docs)
    steps = [step for name, doc in named for step in _converse_steps(name, doc)]
    if steps:
        return _converse(steps)
    if any("done" in doc and ("message" in doc or "response" in doc) for doc in docs):
        return _lines(docs)
    for field in _TEXTS:
        if any(isinstance(doc.get(field), str) for doc in docs):
            return _folded(docs, {field: _joined(doc.get(field) for doc in docs)})
    return None


def _messages(docs: Iterable[Json]) -> Json:
    """Anthropic: https://docs.anthropic.com/en/api/messages-streaming."""
    message: Json = {}
    blocks: dict[object, Json] = {}
    for doc in docs:
        match doc.get("type"):
            case "message_start":
                message = dict(member(doc, "message"))
            case "content_block_start":
                blocks[_place(doc.get("index"))] = dict(member(doc, "content_block"))
            case "content_block_delta":
                block = blocks.setdefault(_place(doc.get("index")), {"type": "text"})
                _add_delta(block, member(doc, "delta"))
            case "message_delta":
                message |= member(doc, "delta")
                message["usage"] = member(message, "usage") | member(doc, "usage")
            case "error":
                message["error"] = doc.get("error")
    for block in blocks.values():
        _close_input(block, "input")
    return message | {"content": list(blocks.values())}


def _add_delta(block: Json, delta: Json) -> None:
    match delta.get("type"):
        case "text_delta":
            _append(block, "text", delta.get("text"))
        case "thinking_delta":
            _append(block, "thinking", delta.get("thinking"))
        case "input_json_delta":
            _append(block, _WRITTEN, delta.get("partial_json"))
        case "signature_delta":
            block["signature"] = delta.get("signature")
        case "citations_delta":
            block.setdefault("citations", []).append(delta.get("citation"))


def _choices(docs: Iterable[Json]) -> Json:
    """OpenAI chat and completions: https://platform.openai.com/docs/api-reference/chat-streaming."""
    docs = list(docs)
    choices: dict[object, Json] = {}
    for doc in docs:
        for place, chunk in enumerate(objects(doc.get("choices"))):
            choice = choices.setdefault(_place(chunk.get("index", place)), {})
            if "text" in chunk:
                _append(choice, "text", chunk["text"])
            message = choice.setdefault("message", {}) if "delta" in chunk else {}
            _merge_message(message, member(chunk, "delta"))
            if chunk.get("finish_reason"):
                choice["finish_reason"] = chunk["finish_reason"]
    for choice in choices.values():
        message = member(choice, "message")
        if isinstance(message.get("tool_calls"), dict):
            message["tool_calls"] = list(message["tool_calls"].values())
    return _folded(docs, {"choices": list(choices.values())})


def _merge_message(message: Json, delta: Json) -> None:
    for name, value in delta.items():
        if name == "tool_calls":
            calls = message.setdefault("tool_calls", {})
            for place, part in enumerate(objects(value)):
                call = calls.setdefault(_place(part.get("index", place)), {})
                _merge_message(call, {key: part[key] for key in part if key != "index"})
        elif name in ("role", "id", "type"):
            message[name] = value or message.get(name)
        elif isinstance(value, str):
            _append(message, name, value)
        elif isinstance(value, dict):
            inner = message.setdefault(name, {})
            if isinstance(inner, dict):
                _merge_message(inner, value)
        elif isinstance(value, list):
            held = message.setdefault(name, [])
            if isinstance(held, list):
                held.extend(value)
        elif value is not None:
            message[name] = value


def _candidates(docs: Iterable[Json]) -> Json:
    """Gemini: https://ai.google.dev/api/generate-content#method:-models.streamgeneratecontent."""
    docs = list(docs)
    candidates: dict[object, Json] = {}
    for doc in docs:
        for chunk in objects(doc.get("candidates")):
            candidate = candidates.setdefault(_place(chunk.get("index", 0)), {})
            content = member(chunk, "content")
            parts = member(candidate, "content").get("parts", [])
            for part in objects(content.get("parts")):
                _add_gemini_part(parts, part)
            candidate |= chunk
            candidate["content"] = {**content, "parts": parts}
    return _folded(docs, {"candidates": list(candidates.values())})


def _add_gemini_part(parts: list[Json], part: Json) -> None:
    plain = {"text", "thought"}
    last = parts[-1] if parts else {}
    if (
        isinstance(part.get("text"), str)
        and isinstance(last.get("text"), str | _Growing)
        and set(last) <= plain
        and bool(part.get("thought")) == bool(last.get("thought"))
    ):
        _append(last, "text", part["text"])
        return
    parts.append(dict(part))


def _cohere(docs: Iterable[Json]) -> Json:
    """Cohere: https://docs.cohere.com/v2/reference/chat-stream."""
    message: Json = {}
    texts: dict[object, Json] = {}
    calls: dict[object, Json] = {}
    end: Json = {}
    for doc in docs:
        place = _place(doc.get("index"))
        told = member(member(doc, "delta"), "message")
        if doc.get("type") == "message-end":
            end = member(doc, "delta")
            continue
        for name, value in told.items():
            if name == "content" and isinstance(value, dict):
                _merge_message(texts.setdefault(place, {}), value)
            elif name == "tool_calls" and isinstance(value, dict):
                _merge_message(calls.setdefault(place, {}), value)
            elif isinstance(value, str):
                _append(message, name, value)
    message["content"] = list(texts.values())
    if calls:
        message["tool_calls"] = list(calls.values())
    return {"message": message, **end}


def _converse_steps(name: str, doc: Json) -> list[tuple[str, Json]]:
    """The steps in one message: named by its event type, or, with Nova's chunks, by its members."""
    if name in _CONVERSE:
        return [(name, {key: doc[key] for key in doc if key != "p"})]  # "p" is padding
    return [(key, doc[key]) for key in _CONVERSE if isinstance(doc.get(key), dict)]


def _converse(steps: Iterable[tuple[str, Json]]) -> Json:
    """Bedrock: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html."""
    message: Json = {}
    blocks: dict[object, Json] = {}
    rest: Json = {}
    for name, doc in steps:
        place = _place(doc.get("contentBlockIndex"))
        match name:
            case "messageStart":
                message |= doc
            case "contentBlockStart":
                _merge_message(blocks.setdefault(place, {}), member(doc, "start"))
            case "contentBlockDelta":
                _merge_message(blocks.setdefault(place, {}), member(doc, "delta"))
            case "messageStop" | "metadata":
                rest |= doc
    for block in blocks.values():
        call = member(block, "toolUse")
        if isinstance(call.get("input"), _Growing):
            call[_WRITTEN] = call.pop("input")
            _close_input(call, "input")
    message["content"] = list(blocks.values())
    return {"output": {"message": message}, **rest}


def _lines(docs: Iterable[Json]) -> Json:
    """Ollama: https://github.com/ollama/ollama/blob/main/docs/api.md."""
    docs = list(docs)
    message: Json = {}
    for doc in docs:
        _merge_ollama(message, member(doc, "message"))
    told: Json = {"message": message} if message else {}
    for name in ("response", "thinking"):
        if any(isinstance(doc.get(name), str) for doc in docs):
            told[name] = _joined(doc.get(name) for doc in docs)
    return _folded(docs, told)


def _merge_ollama(message: Json, part: Json) -> None:
    for name, value in part.items():
        if name in ("content", "thinking"):
            _append(message, name, value)
        elif isinstance(value, list):
            message.setdefault(name, []).extend(value)
        else:
            message[name] = value


def _folded(docs: Iterable[Json], told: Json) -> Json:
    """`told`, and of every other field what was said last."""
    last: Json = {}
    for doc in docs:
        last |= {name: value for name, value in doc.items() if value is not None}
    return last | told


_WRITTEN: Final = "\0written"  # where a call's input is collected; no API has a field of this name


def _close_input(block: Json, field: str) -> None:
    """What was streamed as text becomes the input it spells, or stays text when it spells none."""
    written = block.pop(_WRITTEN, None)
    if isinstance(written, _Growing) and (text := "".join(written.parts)):
        block[field] = parsed_or_text(text)


def parsed_or_text(text: str) -> Any:
    """The JSON value of `text`, or `text`."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


class _Growing:
    """A text that comes in parts: joined once, so that many parts cost no more than few."""

    __slots__ = ("parts",)

    def __init__(self, first: str) -> None:
        self.parts = [first]


def _append(holder: Json, name: str, text: object) -> None:
    if not isinstance(text, str):
        return
    held = holder.get(name)
    if not isinstance(held, _Growing):
        held = holder[name] = _Growing(held if isinstance(held, str) else "")
    held.parts.append(text)


def _settled(value: Any) -> Any:
    """`value` with every text joined."""
    if isinstance(value, _Growing):
        return "".join(value.parts)
    if isinstance(value, dict):
        return {name: _settled(item) for name, item in value.items()}
    return [_settled(item) for item in value] if isinstance(value, list) else value


def _joined(texts: Iterable[object]) -> str:
    return "".join(text for text in texts if isinstance(text, str))


def _place(index: object) -> object:
    """Something to find a block by; what can't be one is taken for the first."""
    return index if isinstance(index, int | str) else 0
