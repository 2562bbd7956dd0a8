"""Bedrock's answers: when they are whole, in every form its models' makers gave them.

`converse` has one form for all models; its stream is complete after `messageStop` and `metadata`.
`invoke` has the maker's own form. Its stream carries that form's pieces in `chunk` events and is
complete when the inner format says so (Anthropic's `message_stop`), else with the piece that
brings `amazon-bedrock-invocationMetrics`, which is the last (Nova's must have said `messageStop`
before). A message that is no event (an exception, an error) makes any stream incomplete.
Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_Operations_Amazon_Bedrock_Runtime.html
and "Inference request parameters and response fields" of the user guide.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from base64 import b64decode
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from llm_cache.wire.answers import (
    Snippet,
    count,
    error_reason,
    member,
    objects,
    one_line,
    parsed,
)
from llm_cache.wire.folding import WRITTEN, Growing, block_place, close_input, merge
from llm_cache.wire.framing.eventstream import Message, MessageParser
from llm_cache.wire.provider import Answer, Json, Usage, Watcher
from llm_cache.wire.providers import anthropic

_METRICS: Final = "amazon-bedrock-invocationMetrics"

# Answers in one piece


def conversed(doc: Json, model: str | None) -> Answer:
    """The facts of a `converse` answer of the model that the path names."""
    if not isinstance(doc.get("stopReason"), str) or not member(member(doc, "output"), "message"):
        return Answer(complete=False, reason=_fault(doc) or "no stopReason")
    snippet = Snippet()
    _show(snippet, doc)
    return Answer(True, "", model, _usage(doc), snippet.line())


def invoked(doc: Json, model: str | None) -> Answer:
    """The facts of an `invoke` answer, whoever made the model."""
    if doc.get("type") in ("message", "error"):
        return _named(anthropic.message_answer(doc), model)
    if reason := _fault(doc) or _unfinished(doc):
        return Answer(complete=False, reason=reason)
    snippet = Snippet()
    _show(snippet, doc)
    line = snippet.line()
    if not line and ("embedding" in doc or "embeddings" in doc):
        line = "embeddings"
    return Answer(True, "", model, _usage(doc), line)


def counted(doc: Json, model: str | None) -> Answer:
    """The facts of a `count-tokens` answer."""
    if not isinstance(doc.get("inputTokens"), int):
        return Answer(complete=False, reason=_fault(doc) or "no inputTokens")
    return Answer(True, "", model, snippet=f"{count(doc, 'inputTokens')} input tokens")


def _named(answer: Answer, model: str | None) -> Answer:
    """The answer under the path's name for its model, unless that is a resource of the account."""
    if model is None or (answer.model is not None and "/" in model):
        return answer
    return replace(answer, model=model)


def _fault(doc: Json) -> str:
    """Why a document is no answer; "" when nothing in it says so."""
    if doc.get("error"):  # models for images send `"error": null` with every answer
        return error_reason("error", doc["error"])
    for holder in (doc, member(doc, "Output")):
        if isinstance(kind := holder.get("__type"), str):
            return f"error: {one_line(kind)}"
    return "" if doc else "an empty answer"


_STOPS: Final = ("completionReason", "finish_reason", "stopReason", "stop_reason")


def _unfinished(doc: Json) -> str:
    """Why a whole answer isn't finished: the maker's form has a reason to stop, and it is empty."""
    parts = [doc]
    for field in ("results", "outputs", "generations", "choices"):
        parts += objects(doc.get(field))
    for part in parts:
        told = [part[name] for name in _STOPS if name in part]
        if told and not any(told):
            return "no reason to stop"
    return ""


# Answers in event streams


class _Messages(ABC):
    """Follows the messages of an event stream, each of which must be an event with JSON in it."""

    last: str

    def __init__(self, model: str | None) -> None:
        self._parser = MessageParser()
        self._reason = ""
        self._ended = False
        self._usage: Usage | None = None
        self._snippet = Snippet()
        self._model = model

    @property
    def done(self) -> bool:
        return self._ended and not self._reason and not self._parser.unfinished

    @property
    def failed(self) -> bool:
        return bool(self._reason)

    def feed(self, data: bytes) -> None:
        if self._reason:
            return
        for message in self._parser.feed(data):
            self._take(message)
            if self._reason:
                return
        self._reason = self._parser.broken

    def close(self) -> Answer:
        if not self._reason and self._parser.unfinished:
            self._reason = "a message is cut short"
        if not self._reason and not self._ended:
            self._reason = f"no {self.last}"
        return Answer(
            not self._reason, self._reason, self._model, self._usage, self._snippet.line()
        )

    def _take(self, message: Message) -> None:
        if message.kind != "event":
            self._reason = f"{one_line(message.kind) or 'unnamed'}: {one_line(message.name)}"
        elif self._ended:
            self._reason = f"data after {self.last}"
        else:
            try:
                doc = parsed(message.payload)
            except ValueError:
                doc = None
            if isinstance(doc, dict):
                self._follow(message.name, doc)
            else:
                self._reason = "an event is not a JSON object"

    @abstractmethod
    def _follow(self, name: str, doc: Json) -> None:
        """Read one event."""


class Conversation(_Messages):
    """A streamed `converse`, up to its `metadata`."""

    last = "messageStop and metadata"

    def __init__(self, model: str | None) -> None:
        super().__init__(model)
        self._missing = {"messageStop", "metadata"}

    def _follow(self, name: str, doc: Json) -> None:
        _show(self._snippet, {name: doc})
        if name == "metadata":
            self._usage = _usage(doc)
        self._missing.discard(name)
        self._ended = not self._missing


class Invocation(_Messages):
    """A streamed `invoke`: pieces of the model's own format, base64 in `chunk` events."""

    last = "end of the model's answer"

    def __init__(self, model: str | None) -> None:
        super().__init__(model)
        self._claude: Watcher | None = None
        self._open = False  # Nova's message began and hasn't stopped

    @property
    def failed(self) -> bool:
        return super().failed or (self._claude is not None and self._claude.failed)

    def close(self) -> Answer:
        if self._claude is None:
            return super().close()
        broken = self._reason
        inner, outer = self._claude.close(), super().close()
        reason = broken or inner.reason or outer.reason
        return _named(replace(inner, complete=not reason, reason=reason), self._model)

    def _follow(self, name: str, doc: Json) -> None:
        if name != "chunk":
            return
        try:
            data = b64decode(doc.get("bytes", ""), validate=True)
            piece = parsed(data)
        except (ValueError, TypeError):
            piece = None
        if not isinstance(piece, dict):
            self._reason = "a chunk is not a JSON object"
            return
        if piece.get("type") == "message_start" and self._claude is None:
            self._claude = anthropic.Anthropic().watch(anthropic.MESSAGES, 200, "text/event-stream")
        if self._claude is not None:
            # A line end in JSON is white space: none is inside a string (RFC 8259, 7).
            line = data.replace(b"\r", b" ").replace(b"\n", b" ")
            self._claude.feed(b"data: %b\n\n" % line)
            self._ended = self._claude.done
        else:
            self._read(piece)

    def _read(self, piece: Json) -> None:
        if reason := _fault(piece):
            self._reason = reason
            return
        _show(self._snippet, piece)
        self._usage = _usage(piece) or self._usage
        self._open = (self._open or "messageStart" in piece) and "messageStop" not in piece
        if _METRICS in piece:
            if self._open:
                self._reason = "no messageStop"
            self._ended = True


# What the makers' forms have in them


def _show(snippet: Snippet, doc: Json) -> None:
    """Show what a whole answer, or a piece of one, says in any of the forms."""
    message = member(member(doc, "output"), "message")  # converse, Nova
    start = member(member(doc, "contentBlockStart"), "start")
    delta = member(member(doc, "contentBlockDelta"), "delta")
    for block in (*objects(message.get("content")), start, delta):
        snippet.add_text(block.get("text"))
        snippet.add_tool(member(block, "toolUse").get("name"))
        reasoning = member(block, "reasoningContent")
        snippet.add_thinking(reasoning.get("text"))
        snippet.add_thinking(member(reasoning, "reasoningText").get("text"))
    snippet.add_text(doc.get("outputText"))  # Titan, streamed
    snippet.add_text(doc.get("generation"))  # Llama
    snippet.add_text(doc.get("text"))  # Cohere
    for field, text in (("results", "outputText"), ("outputs", "text"), ("generations", "text")):
        for result in objects(doc.get(field))[:1]:  # Titan, Mistral, Cohere
            snippet.add_text(result.get(text))
    for choice in objects(doc.get("choices"))[:1]:  # Mistral, DeepSeek, gpt-oss
        snippet.add_text(choice.get("text"))
        snippet.add_text(member(choice, "message").get("content"))
        snippet.add_text(member(choice, "delta").get("content"))


def _usage(doc: Json) -> Usage | None:
    """What a whole answer, or a piece of one, says was used in any of the forms."""
    if isinstance(metrics := doc.get(_METRICS), dict):
        return Usage(
            input_tokens=count(metrics, "inputTokenCount"),
            output_tokens=count(metrics, "outputTokenCount"),
            cache_read_tokens=count(metrics, "cacheReadInputTokenCount"),
            cache_write_tokens=count(metrics, "cacheWriteInputTokenCount"),
        )
    usage = doc.get("usage")
    if isinstance(usage, dict) and "inputTokens" in usage:
        return _token_usage(usage)
    if isinstance(usage, dict) and "prompt_tokens" in usage:
        return Usage(count(usage, "prompt_tokens"), count(usage, "completion_tokens"))
    if "inputTextTokenCount" in doc:
        results = objects(doc.get("results"))
        written = sum(count(result, "tokenCount") for result in results)
        return Usage(
            count(doc, "inputTextTokenCount"), written or count(doc, "totalOutputTextTokenCount")
        )
    if "prompt_token_count" in doc and doc["prompt_token_count"] is not None:
        return Usage(count(doc, "prompt_token_count"), count(doc, "generation_token_count"))
    return None


def _token_usage(usage: Json) -> Usage:
    """`TokenUsage` of converse; `inputTokens` are those that no cache was read or written for."""
    written = count(usage, "cacheWriteInputTokens") or count(usage, "cacheWriteInputTokenCount")
    one_hour = sum(
        count(detail, "inputTokens")
        for detail in objects(usage.get("cacheDetails"))
        if detail.get("ttl") == "1h"
    )
    return Usage(
        input_tokens=count(usage, "inputTokens"),
        output_tokens=count(usage, "outputTokens"),
        cache_read_tokens=count(usage, "cacheReadInputTokens")
        or count(usage, "cacheReadInputTokenCount"),
        cache_write_tokens=written,
        cache_write_1h_tokens=min(one_hour, written),
    )


# A streamed answer put together


_STEPS: Final = (
    *("messageStart", "contentBlockStart", "contentBlockDelta", "contentBlockStop"),
    *("messageStop", "metadata"),
)


def converse_steps(name: str, doc: Json) -> list[tuple[str, Json]]:
    """The steps in one message: named by its event type, or, with Nova's chunks, by its members."""
    if name in _STEPS:
        return [(name, {key: doc[key] for key in doc if key != "p"})]  # "p" is padding
    return [(key, doc[key]) for key in _STEPS if isinstance(doc.get(key), dict)]


def folded(steps: Iterable[tuple[str, Json]]) -> Json:
    """Bedrock: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html."""
    message: Json = {}
    blocks: dict[object, Json] = {}
    rest: Json = {}
    for name, doc in steps:
        place = block_place(doc.get("contentBlockIndex"))
        match name:
            case "messageStart":
                message |= doc
            case "contentBlockStart":
                merge(blocks.setdefault(place, {}), member(doc, "start"))
            case "contentBlockDelta":
                merge(blocks.setdefault(place, {}), member(doc, "delta"))
            case "messageStop" | "metadata":
                rest |= doc
    for block in blocks.values():
        call = member(block, "toolUse")
        if isinstance(call.get("input"), Growing):
            call[WRITTEN] = call.pop("input")
            close_input(call, "input")
    message["content"] = list(blocks.values())
    return {"output": {"message": message}, **rest}
