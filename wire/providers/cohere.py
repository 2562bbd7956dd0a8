"""Cohere's API: chat (v2), embed and rerank; OpenAI's API under `/compatibility/v1`.

A streamed answer is complete with the event `message-end`, whose `finish_reason` isn't an error;
a JSON answer when it parses, has its form and, for chat, a finish reason that isn't an error. The
answers don't name their model. `/v1/chat`, the old form, passes through uncached.
Source: https://docs.cohere.com/reference/chat, .../chat-stream, .../embed, .../rerank.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from llm_cache.wire.answers import (
    DONE,
    EventWatcher,
    JsonWatcher,
    Refused,
    Snippet,
    count,
    error_reason,
    is_foreign,
    media_type,
    member,
    objects,
    one_line,
    parsed,
    refused_type,
)
from llm_cache.wire.folding import append, block_place, merge
from llm_cache.wire.framing.sse import Event
from llm_cache.wire.provider import (
    Answer,
    ClientVariables,
    Endpoint,
    Json,
    KeyForm,
    Usage,
    Watcher,
)
from llm_cache.wire.providers import openai
from llm_cache.wire.providers.chat import is_repeatable, keep_last_messages, map_messages, map_texts
from llm_cache.wire.providers.guests import Guest, Host

CHAT: Final = Endpoint("chat")
EMBED: Final = Endpoint("embed")
RERANK: Final = Endpoint("rerank")

_ENDPOINTS: Final = {
    "/v2/chat": CHAT,
    "/v2/embed": EMBED,
    "/v2/rerank": RERANK,
    "/v1/embed": EMBED,
    "/v1/rerank": RERANK,
}
_ROOTS: Final = (
    *("chat", "embed", "rerank", "parse", "classify", "tokenize", "detokenize"),
    *("embed-jobs", "datasets", "connectors"),
)
_OPENAI_BASE: Final = "/compatibility/v1/"  # https://docs.cohere.com/docs/compatibility-api
_EVENTS: Final = ("message-", "content-", "tool-", "citation-", "debug")
"""How the names of its events begin, `error` aside."""
_BROKEN_OFF: Final = ("ERROR", "ERROR_TOXIC", "ERROR_LIMIT", "USER_CANCEL", "TIMEOUT")


class Cohere(Host):
    """https://api.cohere.com."""

    name = "cohere"
    title = "Cohere"
    base_url = "https://api.cohere.com"
    key_setting = "COHERE_API_KEY_REAL"
    credential_headers = frozenset({b"authorization"})
    key_form = KeyForm(free_path="/v1/models")
    clients = ClientVariables(urls=(("CO_API_URL", "/cohere"),), keys=("CO_API_KEY",))
    guests: Mapping[str, Guest] = {
        endpoint.name: Guest(openai.OpenAI(), endpoint)
        for endpoint in (openai.CHAT, openai.EMBEDDINGS)
    }

    def claims(self, method: str, path: str, headers: Mapping[bytes, bytes]) -> bool:
        parts = path.split("/")[1:]
        if parts[:1] == ["v1"]:
            return len(parts) == 2 and parts[1] in _ROOTS
        return parts[:1] == ["v2"] and len(parts) > 1 and parts[1] in _ROOTS

    def endpoint(self, method: str, path: str) -> Endpoint | None:
        if path.startswith(_OPENAI_BASE):
            guest = openai.OpenAI().endpoint(method, path)
            return guest if guest is not None and guest.name in self.guests else None
        return _ENDPOINTS.get(path) if method == "POST" else None

    def is_key_header(self, name: bytes) -> bool:
        return name.startswith(b"cohere-")

    def auth_header(self, key: str) -> tuple[bytes, bytes]:
        return b"authorization", b"Bearer " + key.encode()

    def own_watch(self, endpoint: Endpoint, status: int, content_type: str) -> Watcher:
        if status != 200:
            return Refused(f"status {status}")
        kind = media_type(content_type)
        if kind == "application/json":
            return JsonWatcher(_JUDGES[endpoint])
        if kind == "text/event-stream" and endpoint == CHAT:
            return _ChatWatcher()
        return refused_type(content_type)

    def own_map_texts(
        self,
        endpoint: Endpoint,
        doc: Json,
        system: Callable[[str], str],
        message: Callable[[str], str],
    ) -> None:
        map_messages(doc, system, message)
        for field in ("documents", "texts", "query"):
            map_texts(doc, field, message)
        for item in objects(doc.get("inputs")):
            map_texts(item, "content", message)

    def own_keep_last(self, endpoint: Endpoint, doc: Json, turns: int) -> bool:
        return endpoint == CHAT and keep_last_messages(doc, turns)

    def own_is_deterministic(self, endpoint: Endpoint, doc: Json) -> bool:
        return endpoint != CHAT or is_repeatable(doc)

    def error_body(self, status: int, kind: str, message: str) -> bytes:
        return json.dumps({"message": message, "type": kind}, separators=(",", ":")).encode()


# Answers


def _chat_answer(doc: Json) -> Answer:
    message = doc.get("message")
    if not isinstance(message, dict):  # an error's message is a string
        return Answer(complete=False, reason="not a chat answer")
    reason = _broken_off(doc)
    snippet = Snippet()
    _add_message(snippet, message)
    return Answer(
        complete=not reason, reason=reason, usage=_usage(doc.get("usage")), snippet=snippet.line()
    )


def _embed_answer(doc: Json) -> Answer:
    vectors = doc.get("embeddings")
    if not isinstance(vectors, list | dict) or not vectors:
        return Answer(complete=False, reason="no embeddings")
    lists = list(vectors.values()) if isinstance(vectors, dict) else [vectors]
    number = max((len(item) for item in lists if isinstance(item, list)), default=0)
    return Answer(complete=True, usage=_usage(doc.get("meta")), snippet=f"{number} embeddings")


def _rerank_answer(doc: Json) -> Answer:
    results = doc.get("results")
    if not isinstance(results, list):
        return Answer(complete=False, reason="no results")
    return Answer(complete=True, usage=_usage(doc.get("meta")), snippet=f"{len(results)} results")


_JUDGES: Final = {CHAT: _chat_answer, EMBED: _embed_answer, RERANK: _rerank_answer}


class _ChatWatcher(EventWatcher):
    """Follows a stream of events from `message-start` to `message-end`."""

    last = "message-end"

    def __init__(self) -> None:
        super().__init__()
        self._closed = False
        self._usage: Usage | None = None
        self._snippet = Snippet()

    def _unended(self) -> str:
        return "no message-end" if self._started else "no message-start"

    def _take(self, event: Event) -> None:
        if event.data.strip() == DONE and self._stopped and not self._closed:
            self._closed = True
            return
        try:
            doc = parsed(event.data)
        except ValueError:
            doc = None
        kind = doc.get("type") if isinstance(doc, dict) else None
        if event.name == b"error" or kind == "error":
            self._reason = "error event"
        elif is_foreign(event, doc, *_EVENTS):
            pass
        elif self._stopped:
            self._reason = self._after_last
        elif not isinstance(doc, dict) or not isinstance(kind, str):
            self._reason = "an event is not JSON"
        elif kind == "message-start":
            self._started = True
        elif not self._started:
            self._reason = f"{one_line(kind)} before message-start"
        elif kind == "message-end":
            delta = member(doc, "delta")
            self._usage = _usage(delta.get("usage"))
            self._reason = _broken_off(delta)
            self._stopped = True
        else:
            _add_message(self._snippet, member(member(doc, "delta"), "message"))

    def _answer_model(self) -> str | None:
        return None

    def _answer_usage(self) -> Usage | None:
        return self._usage

    def _snippet_line(self) -> str:
        return self._snippet.line()


def _broken_off(doc: Json) -> str:
    if doc.get("error"):
        return error_reason("error", doc["error"])
    reason = doc.get("finish_reason")
    return f"finish_reason {reason}" if not reason or reason in _BROKEN_OFF else ""


def _add_message(snippet: Snippet, message: Json) -> None:
    """Take a message, or the streamed part of one, whose lists come as single objects."""
    content: Any = message.get("content")
    for part in [content] if isinstance(content, dict) else objects(content):
        snippet.add_text(part.get("text"))
        snippet.add_thinking(part.get("thinking"))
    snippet.add_thinking(message.get("tool_plan"))
    calls: Any = message.get("tool_calls")
    for call in [calls] if isinstance(calls, dict) else objects(calls):
        snippet.add_tool(member(call, "function").get("name"))


def _usage(told: object) -> Usage | None:
    """Billed units where they are given, since prices are for those; else the tokens seen."""
    if not isinstance(told, dict):
        return None
    units = member(told, "billed_units") or member(told, "tokens")
    return Usage(
        input_tokens=count(units, "input_tokens") + count(units, "image_tokens"),
        output_tokens=count(units, "output_tokens"),
        input_includes_cache=True,
    )


# A streamed answer put together


def folded(docs: Iterable[Json]) -> Json:
    """Cohere: https://docs.cohere.com/v2/reference/chat-stream."""
    message: Json = {}
    texts: dict[object, Json] = {}
    calls: dict[object, Json] = {}
    end: Json = {}
    for doc in docs:
        place = block_place(doc.get("index"))
        told = member(member(doc, "delta"), "message")
        if doc.get("type") == "message-end":
            end = member(doc, "delta")
            continue
        for name, value in told.items():
            if name == "content" and isinstance(value, dict):
                merge(texts.setdefault(place, {}), value)
            elif name == "tool_calls" and isinstance(value, dict):
                merge(calls.setdefault(place, {}), value)
            elif isinstance(value, str):
                append(message, name, value)
    message["content"] = list(texts.values())
    if calls:
        message["tool_calls"] = list(calls.values())
    return {"message": message, **end}
