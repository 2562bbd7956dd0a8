"""The Anthropic Messages API: what its requests mean and when its answers are whole.

Source: the API reference and "Streaming messages" at https://docs.anthropic.com/en/api/.
A streamed answer is complete when a `message_stop` event was dispatched after a `message_start`,
no `error` event came, and nothing followed but pings and vLLM's `[DONE]`; a JSON answer when it
parses, is a `message` and has its `stop_reason`. What kind an event is comes from the `type` of its
JSON, never from text that happens to be in it; kinds that this API doesn't have decide nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from llm_cache.wire.answers import (
    DONE,
    EventWatcher,
    JsonWatcher,
    Refused,
    Snippet,
    count,
    cumulated,
    error_reason,
    is_foreign,
    media_type,
    member,
    objects,
    one_line,
    parsed,
    refused_type,
    text_or_none,
    tier,
)
from llm_cache.wire.framing.sse import Event
from llm_cache.wire.provider import (
    Answer,
    ClientVariables,
    Endpoint,
    Json,
    KeyForm,
    Provider,
    Usage,
    Watcher,
)
from llm_cache.wire.providers import anthropic_forms
from llm_cache.wire.turns import last_turns

_EVENTS: Final = ("message_", "content_block_", "ping")
"""How the names of this API's events begin, `error` aside."""

MESSAGES: Final = Endpoint("messages")
COUNT_TOKENS: Final = Endpoint("count_tokens")

_OPERATION: Final = re.compile(r"(?:/(?!\.{1,2}/)[^/]+)*/v1/messages(/count_tokens)?")

_OWN_PATHS: Final = ("/v1/messages", "/v1/complete", "/v1/organizations", "/v1/skills")
_OWN_PATHS_OF_CLAUDE_CODE: Final = (
    "/api/claude_cli",
    "/api/claude_code",
    "/api/event_logging",
    "/api/hello",
    "/api/oauth",
)
_SHARED_PATHS: Final = ("/v1/files", "/v1/models")  # other providers have these as well
_TELLING_HEADERS: Final = (b"anthropic-version", b"anthropic-beta")

# Claude Code puts a line like this at the head of its system prompt; its values differ from
# request to request ("x-anthropic-billing-header: cc_version=2.1.63.a43; cch=e2224;").
_BILLING: Final = "x-anthropic-billing-header:"
_BILLING_LINE: Final = re.compile(
    r"(?:\A|(?<=[\r\n]))x-anthropic-billing-header:[^\r\n]*(?:\r\n|\r|\n|\Z)"
)


class Anthropic(Provider):
    """https://api.anthropic.com, and whatever speaks its Messages API."""

    name = "anthropic"
    title = "Anthropic"
    base_url = "https://api.anthropic.com"
    key_setting = "ANTHROPIC_API_KEY_REAL"
    credential_headers = frozenset({b"x-api-key", b"authorization"})
    own_domains = ("anthropic.com",)
    key_form = KeyForm(("sk-ant-",), "/v1/models", ((b"anthropic-version", b"2023-06-01"),))
    clients = ClientVariables(
        urls=(("ANTHROPIC_BASE_URL", ""),), keys=("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN")
    )

    def claims(self, method: str, path: str, headers: Mapping[bytes, bytes]) -> bool:
        if any(name in headers for name in _TELLING_HEADERS):
            return True
        if _is_under(path, _OWN_PATHS) or _is_under(path, _OWN_PATHS_OF_CLAUDE_CODE):
            return True
        return _is_under(path, _SHARED_PATHS) and b"x-api-key" in headers

    def endpoint(self, method: str, path: str) -> Endpoint | None:
        """Behind any base path: other hosts serve this API under `/anthropic` and the like."""
        match = _OPERATION.fullmatch(path) if method == "POST" else None
        return None if match is None else COUNT_TOKENS if match[1] else MESSAGES

    def is_key_header(self, name: bytes) -> bool:
        return (
            name.startswith(b"anthropic-") and name != b"anthropic-dangerous-direct-browser-access"
        )

    def auth_header(self, key: str) -> tuple[bytes, bytes]:
        return b"x-api-key", key.encode()

    def watch(self, endpoint: Endpoint, status: int, content_type: str) -> Watcher:
        if status != 200:
            return Refused(f"status {status}")
        kind = media_type(content_type)
        if kind == "application/json":
            return JsonWatcher(_tokens_answer if endpoint == COUNT_TOKENS else message_answer)
        if kind == "text/event-stream" and endpoint == MESSAGES:
            return _StreamWatcher()
        return refused_type(content_type)

    def strip_volatile(self, endpoint: Endpoint, doc: Json) -> None:
        metadata = doc.get("metadata")
        if isinstance(metadata, dict) and "user_id" in metadata:
            del metadata["user_id"]
            if not metadata:
                del doc["metadata"]
        if "system" in doc:
            doc["system"] = _without_billing(doc["system"])
        for message in _messages(doc):
            if message.get("role") == "system" and "content" in message:
                message["content"] = _without_billing(message["content"])

    def map_texts(
        self,
        endpoint: Endpoint,
        doc: Json,
        system: Callable[[str], str],
        message: Callable[[str], str],
    ) -> None:
        _map_member(doc, "system", system)
        for turn in _messages(doc):
            _map_member(turn, "content", system if turn.get("role") == "system" else message)

    def keep_last(self, endpoint: Endpoint, doc: Json, turns: int) -> bool:
        if endpoint != MESSAGES:
            return False  # a count of tokens is of all messages
        kept = last_turns(
            doc.get("messages"),
            turns,
            speakers=("user", "assistant"),
            asker="assistant",
            text=_words,
            uses_tools=lambda message: any(map(_is_tool_block, _blocks(message))),
        )
        if kept is not None:
            doc["messages"] = kept
        return kept is not None

    def strip_form(self, endpoint: Endpoint, doc: Json) -> bool | None:
        stream = doc.pop("stream", False)
        return stream if endpoint == MESSAGES and isinstance(stream, bool) else None

    def as_stream(self, endpoint: Endpoint, doc: Json, body: bytes) -> bytes | None:
        return anthropic_forms.as_stream(body)

    def as_plain(self, endpoint: Endpoint, body: bytes) -> bytes | None:
        return anthropic_forms.as_plain(body)

    def leans_on(self, endpoint: Endpoint, doc: Json) -> str:
        """A container that is named by its id holds what earlier requests left there."""
        container = doc.get("container")
        named = container.get("id") if isinstance(container, dict) else container
        return "in a container that goes on" if endpoint == MESSAGES and named else ""

    def request_model(self, endpoint: Endpoint, path: str, doc: Json) -> str | None:
        model = doc.get("model")
        return model if isinstance(model, str) else None

    def error_body(self, status: int, kind: str, message: str) -> bytes:
        body = {"type": "error", "error": {"type": kind, "message": message}}
        return json.dumps(body, separators=(",", ":")).encode()


def _is_under(path: str, roots: tuple[str, ...]) -> bool:
    return any(path == root or path.startswith(root + "/") for root in roots)


# Requests


def _messages(doc: Json) -> list[Json]:
    return objects(doc.get("messages"))


def _blocks(message: Json) -> list[Json]:
    return objects(message.get("content"))


def _words(message: Json) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    texts = [block.get("text") for block in _blocks(message)]
    return "\n".join(text for text in texts if isinstance(text, str))


def _without_billing(texts: Any) -> Any:
    """A system prompt, string or blocks, without billing lines; a block of nothing else goes."""
    if isinstance(texts, str):
        return _BILLING_LINE.sub("", texts) if _BILLING in texts else texts
    if not isinstance(texts, list):
        return texts
    kept = []
    for block in texts:
        text = block.get("text") if isinstance(block, dict) else None
        if isinstance(text, str) and _BILLING in text and block.get("type") == "text":
            block["text"] = _BILLING_LINE.sub("", text)
            if not block["text"].strip() and text.strip():
                continue
        kept.append(block)
    return kept


def _map_member(holder: Json, name: str, change: Callable[[str], str]) -> None:
    """Replace the text in `holder[name]`, which is a string or a list of content blocks."""
    value = holder.get(name)
    if isinstance(value, str):
        holder[name] = change(value)
    elif isinstance(value, list):
        for block in value:
            if isinstance(block, dict):
                _map_block(block, change)


def _map_block(block: Json, change: Callable[[str], str]) -> None:
    kind = block.get("type")
    if kind == "text":
        if isinstance(block.get("text"), str):
            block["text"] = change(block["text"])
    elif kind == "search_result" or (isinstance(kind, str) and kind.endswith("tool_result")):
        _map_member(block, "content", change)
    elif kind == "document":
        source = block.get("source")
        if isinstance(source, dict) and source.get("type") == "text":
            _map_member(source, "data", change)
        elif isinstance(source, dict) and source.get("type") == "content":
            _map_member(source, "content", change)


def _is_tool_block(block: Json) -> bool:
    """tool_use, server_tool_use, mcp_tool_use, tool_result, web_search_tool_result, ..."""
    kind = block.get("type")
    return isinstance(kind, str) and kind.endswith(("tool_use", "tool_result"))


# Answers


def message_answer(doc: Json) -> Answer:
    """The facts of a Message, or of an error in its place."""
    if doc.get("type") == "error":
        return Answer(complete=False, reason=error_reason("error", doc.get("error")))
    if doc.get("type") != "message":
        return Answer(complete=False, reason="not a message")
    if not doc.get("stop_reason"):  # "In non-streaming mode this value is always non-null."
        return Answer(complete=False, reason="no stop_reason")
    snippet = _BlockSnippet()
    for block in _blocks(doc):
        snippet.begin_block(block)
    usage = doc.get("usage")
    return Answer(
        complete=True,
        model=text_or_none(doc.get("model")),
        usage=_usage(usage) if isinstance(usage, dict) else None,
        snippet=snippet.line(),
    )


def _tokens_answer(doc: Json) -> Answer:
    if doc.get("type") == "error":
        return Answer(complete=False, reason=error_reason("error", doc.get("error")))
    tokens = doc.get("input_tokens")
    if not isinstance(tokens, int) or isinstance(tokens, bool):
        return Answer(complete=False, reason="no input_tokens")
    return Answer(complete=True, snippet=f"{tokens} input tokens")


class _StreamWatcher(EventWatcher):
    """Follows a stream of events up to its `message_stop`."""

    last = "message_stop"

    # The head of a delta event as the API writes it. What begins like this and goes by this
    # event name is such a delta, whatever its text holds, and need not be parsed.
    _DELTA: Final = re.compile(
        rb'\{"type": ?"content_block_delta", ?"index": ?\d+, ?"delta": ?\{"type": ?"(\w+)"[,}]'
    )

    def __init__(self) -> None:
        super().__init__()
        self._model: str | None = None
        self._usage: Json | None = None
        self._snippet = _BlockSnippet()
        self._closed = False

    def _unended(self) -> str:
        return "no message_stop" if self._started else "no message_start"

    def _answer_model(self) -> str | None:
        return self._model

    def _answer_usage(self) -> Usage | None:
        return None if self._usage is None else _usage(self._usage)

    def _snippet_line(self) -> str:
        return self._snippet.line()

    def _take(self, event: Event) -> None:
        if self._started and not self._stopped and self._is_dull(event):
            return
        if event.data.strip() == DONE and self._stopped and not self._closed:
            self._closed = True  # vLLM ends this stream as it ends a chat's
            return
        try:
            doc = parsed(event.data)
        except ValueError:
            doc = None
        kind = doc.get("type") if isinstance(doc, dict) else None
        if event.name == b"error" or kind == "error":
            error = doc.get("error") if isinstance(doc, dict) else None
            self._reason = error_reason("error event", error)
        elif is_foreign(event, doc, *_EVENTS):
            pass
        elif not isinstance(kind, str) or not isinstance(doc, dict):
            self._reason = self._after_last if self._stopped else "an event is not JSON"
        elif kind == "ping":
            pass
        elif self._stopped:
            self._reason = self._after_last
        elif kind == "message_start":
            self._start(doc)
        elif not self._started:
            self._reason = f"{one_line(kind)} before message_start"
        else:
            self._follow(kind, doc)

    def _is_dull(self, event: Event) -> bool:
        """True for a delta that can tell nothing more, recognized without parsing it."""
        head = self._DELTA.match(event.data)
        return (
            head is not None
            and event.name in (b"content_block_delta", b"")
            and not self._snippet.needs(head[1])
            and event.data.rstrip().endswith(b"}}")
            and _is_utf8(event.data)
        )

    def _start(self, doc: Json) -> None:
        message = doc.get("message")
        if self._started or not isinstance(message, dict):
            self._reason = "a second message_start" if self._started else "no message in the start"
            return
        self._started = True
        self._model = text_or_none(message.get("model"))
        if isinstance(usage := message.get("usage"), dict):
            self._usage = usage

    def _follow(self, kind: str, doc: Json) -> None:
        match kind:
            case "message_stop":
                self._stopped = True
            case "message_delta" if isinstance(usage := doc.get("usage"), dict):
                # "The token counts shown in the usage field of message_delta are cumulative."
                self._usage = cumulated(self._usage, usage)
            case "content_block_start" if isinstance(block := doc.get("content_block"), dict):
                self._snippet.begin_block(block)
            case "content_block_delta" if isinstance(delta := doc.get("delta"), dict):
                self._snippet.add_delta(delta)


class _BlockSnippet(Snippet):
    """The first characters of content blocks."""

    def needs(self, delta_type: bytes) -> bool:
        """True when a delta of this type could still change the line."""
        if delta_type == b"text_delta":
            return self.wants_text
        return delta_type == b"thinking_delta" and self.wants_thinking

    def begin_block(self, block: Json) -> None:
        """Take a content block: a whole one, or the start of a streamed one."""
        kind = block.get("type")
        if kind == "text":
            self.add_text(" ")
            self.add_text(block.get("text"))
        elif kind == "thinking":
            self.add_thinking(block.get("thinking"))
        elif _is_tool_block(block):
            self.add_tool(block.get("name"))

    def add_delta(self, delta: Json) -> None:
        """Take the next part of a streamed block."""
        if delta.get("type") == "text_delta":
            self.add_text(delta.get("text"))
        elif delta.get("type") == "thinking_delta":
            self.add_thinking(delta.get("thinking"))


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _usage(usage: Json) -> Usage:
    written = count(usage, "cache_creation_input_tokens")
    lifetimes = usage.get("cache_creation")
    one_hour = 0
    if isinstance(lifetimes, dict):
        one_hour = count(lifetimes, "ephemeral_1h_input_tokens")
    return Usage(
        input_tokens=count(usage, "input_tokens"),
        output_tokens=count(usage, "output_tokens"),
        cache_read_tokens=count(usage, "cache_read_input_tokens"),
        cache_write_tokens=written,
        cache_write_1h_tokens=min(one_hour, written),
        web_searches=count(member(usage, "server_tool_use"), "web_search_requests"),
        service_tier=tier(usage.get("service_tier")),
        speed=tier(usage.get("speed")),
    )
