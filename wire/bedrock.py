"""Amazon Bedrock: models of many makers behind AWS's own paths, and when their answers are whole.

Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_Operations_Amazon_Bedrock_Runtime.html
and "Inference request parameters and response fields" of the user guide.
`converse` has one form for all models; its stream is complete after `messageStop` and `metadata`.
`invoke` has the maker's own form. Its stream carries that form's pieces in `chunk` events and is
complete when the inner format says so (Anthropic's `message_stop`), else with the piece that
brings `amazon-bedrock-invocationMetrics`, which is the last (Nova's must have said `messageStop`
before). A message that is no event (an exception, an error) makes any stream incomplete.

The model is in the path: an id, often with a region's prefix, or an ARN, its `:` and `/` encoded or
not. Requests are signed for their host, so the proxy signs them anew; an API key
(`Authorization: Bearer`) is a credential like any other and passes through.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from base64 import b64decode
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final
from urllib.parse import unquote

from llm_cache.wire import anthropic, openai
from llm_cache.wire.answers import (
    JsonWatcher,
    Refused,
    Snippet,
    count,
    error_reason,
    media_type,
    member,
    objects,
    one_line,
    parsed,
    refused_type,
)
from llm_cache.wire.eventstream import Message, MessageParser
from llm_cache.wire.guests import Guest, Host
from llm_cache.wire.provider import Answer, Endpoint, Json, Usage, Watcher
from llm_cache.wire.turns import last_turns

INVOKE: Final = "invoke"
INVOKE_STREAM: Final = "invoke_stream"
CONVERSE: Final = "converse"
CONVERSE_STREAM: Final = "converse_stream"
COUNT_TOKENS: Final = "count_tokens"

_OPERATIONS: Final = {
    "invoke": INVOKE,
    "invoke-with-response-stream": INVOKE_STREAM,
    "converse": CONVERSE,
    "converse-stream": CONVERSE_STREAM,
    "count-tokens": COUNT_TOKENS,
}
_PATH: Final = re.compile(rf"/model/([^?#]+)/({'|'.join(_OPERATIONS)})")
_ROOTS: Final = ("/model/", "/async-invoke", "/guardrail/")
_REGION: Final = re.compile(r"[a-z]{2,4}(?:-[a-z]+)+-[0-9]{1,2}")
_NAMING_RESOURCES: Final = ("foundation-model", "inference-profile")
_METRICS: Final = "amazon-bedrock-invocationMetrics"
_EVENT_STREAM: Final = "application/vnd.amazon.eventstream"

_ANTHROPIC: Final = anthropic.Anthropic()
_OPENAI: Final = openai.OpenAI()
_CLAUDE: Final = Guest(_ANTHROPIC, anthropic.MESSAGES)


class Aws(Host):
    """What Bedrock's APIs have in common: signatures, regions, errors."""

    signed = True
    own_domains = ("amazonaws.com", "amazonaws.com.cn", "api.aws")

    def home(self, path: str, environ: Mapping[str, str]) -> str:
        region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or ""
        return self.base_url.replace("us-east-1", region) if is_region(region) else self.base_url

    def auth_header(self, key: str) -> tuple[bytes, bytes]:
        return b"authorization", b"Bearer " + key.encode()

    def credentials(
        self, target: bytes, fields: Mapping[bytes, bytes]
    ) -> tuple[bytes, list[bytes]]:
        told = [fields.get(b"authorization", b""), fields.get(b"x-api-key", b"")]
        if told[0][:7].lower() != b"bearer ":
            told[0] = b""  # a signature
        return target, told if any(told) else []

    def error_body(self, status: int, kind: str, message: str) -> bytes:
        """An error of AWS's restJson1 protocol; boto3 takes the `__type` for its code."""
        return json.dumps({"message": message, "__type": kind}, separators=(",", ":")).encode()


class Bedrock(Aws):
    """https://bedrock-runtime.{region}.amazonaws.com. The region is that of `AWS_REGION`, else
    us-east-1, unless `CACHE_UPSTREAM_BEDROCK` names a host."""

    name = "bedrock"
    service = "bedrock"
    base_url = "https://bedrock-runtime.us-east-1.amazonaws.com"
    key_setting = "BEDROCK_API_KEY_REAL"
    credential_headers = frozenset(
        {b"authorization", b"x-amz-date", b"x-amz-security-token", b"x-amz-content-sha256"}
    )
    price_ids = ("aws",)
    guests: Mapping[str, Guest] = {
        openai.CHAT.name: Guest(_OPENAI, openai.CHAT),
        openai.RESPONSES.name: Guest(_OPENAI, openai.RESPONSES),
    }

    def claims(self, method: str, path: str, headers: Mapping[bytes, bytes]) -> bool:
        return path.startswith(_ROOTS)

    def endpoint(self, method: str, path: str) -> Endpoint | None:
        if method != "POST":
            return None
        if (match := _PATH.fullmatch(path)) is not None:
            return Endpoint(_OPERATIONS[match[2]], _model(unquote(match[1])))
        guest = _OPENAI.endpoint(method, path) if path.startswith("/openai/v1/") else None
        return guest if guest is not None and guest.name in self.guests else None

    def is_key_header(self, name: bytes) -> bool:
        # Guardrails, latency and service tier; the form of the answer.
        return name.startswith(b"x-amzn-bedrock-") or name == b"accept"

    def guest(self, endpoint: Endpoint, doc: Json) -> Guest | None:
        if endpoint.name in (INVOKE, INVOKE_STREAM):
            return _CLAUDE if "anthropic_version" in doc else None
        return super().guest(endpoint, doc)

    def own_watch(self, endpoint: Endpoint, status: int, content_type: str) -> Watcher:
        if status != 200:
            return Refused(f"status {status}")
        judge = _JUDGES.get(endpoint.name)
        kind = media_type(content_type)
        if kind == "application/json" and judge is not None:
            return JsonWatcher(lambda doc: judge(doc, endpoint.model))
        if kind == _EVENT_STREAM and endpoint.name == CONVERSE_STREAM:
            return _Conversation(endpoint.model)
        if kind == _EVENT_STREAM and endpoint.name == INVOKE_STREAM:
            return _Invocation(endpoint.model)
        return refused_type(content_type)

    def own_map_texts(
        self,
        endpoint: Endpoint,
        doc: Json,
        system: Callable[[str], str],
        message: Callable[[str], str],
    ) -> None:
        if endpoint.name == COUNT_TOKENS:
            doc = member(member(doc, "input"), "converse")
        _map_texts(doc, "system", system)
        for turn in objects(doc.get("messages")):
            _map_texts(turn, "content", system if turn.get("role") == "system" else message)
        for field in ("prompt", "inputText", "message", "texts"):
            _map_texts(doc, field, message)

    def own_keep_last(self, endpoint: Endpoint, doc: Json, turns: int) -> bool:
        if endpoint.name == COUNT_TOKENS:
            return False  # a count is of all messages
        kept = last_turns(
            doc.get("messages"),
            turns,
            speakers=("user", "assistant"),
            asker="assistant",
            text=_words,
            uses_tools=_uses_tools,
        )
        if kept is not None:
            doc["messages"] = kept
        return kept is not None

    def own_is_deterministic(self, endpoint: Endpoint, doc: Json) -> bool:
        if endpoint.name == INVOKE and "embed" in (endpoint.model or ""):
            return True
        config = member(doc, "inferenceConfig") or doc
        more = member(doc, "additionalModelRequestFields") or doc
        return config.get("temperature") == 0 and isinstance(more.get("seed"), int)

    def header_usage(self, fields: Mapping[bytes, bytes]) -> Usage | None:
        if b"x-amzn-bedrock-input-token-count" not in fields:
            return None
        told = {
            name: int(value)
            for name, value in fields.items()
            if name.startswith(b"x-amzn-bedrock-") and value.isdigit()
        }
        return Usage(
            input_tokens=told.get(b"x-amzn-bedrock-input-token-count", 0),
            output_tokens=told.get(b"x-amzn-bedrock-output-token-count", 0),
            cache_read_tokens=told.get(b"x-amzn-bedrock-cache-read-input-token-count", 0),
            cache_write_tokens=told.get(b"x-amzn-bedrock-cache-write-input-token-count", 0),
        )


class Mantle(Aws):
    """https://bedrock-mantle.{region}.api.aws: OpenAI's and Anthropic's APIs, served by Bedrock.
    Reached by its name only, since its paths are theirs."""

    name = "mantle"
    service = "bedrock-mantle"
    base_url = "https://bedrock-mantle.us-east-1.api.aws"
    key_setting = "MANTLE_API_KEY_REAL"
    credential_headers = Bedrock.credential_headers | {b"x-api-key"}
    price_ids = ("aws", "openai")
    guests: Mapping[str, Guest] = {
        endpoint.name: Guest(provider, endpoint)
        for provider, endpoint in (
            (_OPENAI, openai.CHAT),
            (_OPENAI, openai.RESPONSES),
            (_OPENAI, openai.INPUT_TOKENS),
            (_ANTHROPIC, anthropic.MESSAGES),
            (_ANTHROPIC, anthropic.COUNT_TOKENS),
        )
    }

    def claims(self, method: str, path: str, headers: Mapping[bytes, bytes]) -> bool:
        return False

    def endpoint(self, method: str, path: str) -> Endpoint | None:
        if path.startswith("/anthropic/"):
            return _ANTHROPIC.endpoint(method, path.removeprefix("/anthropic"))
        guest = _OPENAI.endpoint(method, path)
        return guest if guest is not None and guest.name in self.guests else None

    def is_key_header(self, name: bytes) -> bool:
        return _OPENAI.is_key_header(name) or _ANTHROPIC.is_key_header(name)


def is_region(name: str) -> bool:
    """True for what looks like a region of AWS: `eu-central-1`, `us-gov-west-1`."""
    return _REGION.fullmatch(name) is not None


def _model(model_id: str) -> str:
    """What a model goes by: its id; of an ARN the id in it, or the resource when it names none
    (`application-inference-profile/abc`)."""
    if not model_id.startswith("arn:"):
        return model_id
    resource = model_id.split(":", 5)[-1]
    kind, _, name = resource.partition("/")
    return name if kind in _NAMING_RESOURCES else resource


def _named(answer: Answer, model: str | None) -> Answer:
    """The answer under the path's name for its model, unless that is a resource of the account."""
    if model is None or (answer.model is not None and "/" in model):
        return answer
    return replace(answer, model=model)


# Requests


def _map_texts(holder: Json, field: str, change: Callable[[str], str]) -> None:
    """Change the text in `holder[field]`: a string, or a list of strings and content blocks."""
    value = holder.get(field)
    if isinstance(value, str):
        holder[field] = change(value)
    elif isinstance(value, list):
        for at, item in enumerate(value):
            if isinstance(item, str):
                value[at] = change(item)
            elif isinstance(item, dict):
                _map_texts(item, "text", change)
                _map_texts(member(item, "toolResult"), "content", change)


def _words(message: Json) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    texts = [block.get("text") for block in objects(content)]
    return "\n".join(text for text in texts if isinstance(text, str))


def _uses_tools(message: Json) -> bool:
    if {"tool_calls", "tool_call_id"} & message.keys():
        return True
    return any(
        {"toolUse", "toolResult"} & block.keys() for block in objects(message.get("content"))
    )


# Answers in one piece


def _conversed(doc: Json, model: str | None) -> Answer:
    if not isinstance(doc.get("stopReason"), str) or not member(member(doc, "output"), "message"):
        return Answer(complete=False, reason=_fault(doc) or "no stopReason")
    snippet = Snippet()
    _show(snippet, doc)
    return Answer(True, "", model, _usage(doc), snippet.line())


def _invoked(doc: Json, model: str | None) -> Answer:
    if doc.get("type") in ("message", "error"):
        return _named(anthropic.message_answer(doc), model)
    if reason := _fault(doc):
        return Answer(complete=False, reason=reason)
    snippet = Snippet()
    _show(snippet, doc)
    line = snippet.line()
    if not line and ("embedding" in doc or "embeddings" in doc):
        line = "embeddings"
    return Answer(True, "", model, _usage(doc), line)


def _counted(doc: Json, model: str | None) -> Answer:
    if not isinstance(doc.get("inputTokens"), int):
        return Answer(complete=False, reason=_fault(doc) or "no inputTokens")
    return Answer(True, "", model, snippet=f"{count(doc, 'inputTokens')} input tokens")


_JUDGES: Final[Mapping[str, Callable[[Json, str | None], Answer]]] = {
    CONVERSE: _conversed,
    INVOKE: _invoked,
    COUNT_TOKENS: _counted,
}


def _fault(doc: Json) -> str:
    """Why a document is no answer; "" when nothing in it says so."""
    if doc.get("error"):  # models for images send `"error": null` with every answer
        return error_reason("error", doc["error"])
    for holder in (doc, member(doc, "Output")):
        if isinstance(kind := holder.get("__type"), str):
            return f"error: {one_line(kind)}"
    return "" if doc else "an empty answer"


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


class _Conversation(_Messages):
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


class _Invocation(_Messages):
    """A streamed `invoke`: pieces of the model's own format, base64 in `chunk` events."""

    last = "end of the model's answer"

    def __init__(self, model: str | None) -> None:
        super().__init__(model)
        self._claude: Watcher | None = None
        self._open = False  # Nova's message began and hasn't stopped

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
            self._claude = _ANTHROPIC.watch(anthropic.MESSAGES, 200, "text/event-stream")
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
