"""Ollama: OpenAI's API under `/v1`, and its own under `/api`.

Its own answers stream by default, as JSON objects of a line each (`application/x-ndjson`); the
last, and no other, has `done: true`, and so has an answer in one piece. An answer that only
loaded or unloaded a model (`done_reason`) did something and said nothing: it isn't complete.
Source: https://docs.ollama.com/api.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from llm_cache.wire.answers import (
    JsonWatcher,
    Refused,
    Snippet,
    count,
    media_type,
    member,
    objects,
    parsed,
    refused_type,
    text_or_none,
)
from llm_cache.wire.folding import append, joined, last_said
from llm_cache.wire.provider import Answer, Endpoint, Json, Usage, Watcher
from llm_cache.wire.providers.chat import is_repeatable, keep_last_messages, map_messages, map_texts
from llm_cache.wire.providers.compatible import Compatible

OWN_CHAT: Final = Endpoint("ollama.chat")
OWN_GENERATE: Final = Endpoint("ollama.generate")
OWN_EMBED: Final = Endpoint("ollama.embed")

_OWN: Final = {
    "/api/chat": OWN_CHAT,
    "/api/generate": OWN_GENERATE,
    "/api/embed": OWN_EMBED,
    "/api/embeddings": OWN_EMBED,
}
_OWN_PATHS: Final = frozenset(
    {*_OWN, "/api/tags", "/api/show", "/api/ps", "/api/pull", "/api/version"}
)
_MAX_LINE_BYTES: Final = 32 << 20


class Ollama(Compatible):
    """http://127.0.0.1:11434, and https://ollama.com when `CACHE_UPSTREAM_OLLAMA` says so."""

    def __init__(self) -> None:
        super().__init__("ollama", "Ollama", "http://127.0.0.1:11434", key_form=None)

    def claims(self, method: str, path: str, headers: Mapping[bytes, bytes]) -> bool:
        return path in _OWN_PATHS

    def endpoint(self, method: str, path: str) -> Endpoint | None:
        own = _OWN.get(path) if method == "POST" else None
        return own or super().endpoint(method, path)

    def watch(self, endpoint: Endpoint, status: int, content_type: str) -> Watcher:
        if endpoint not in _OWN.values():
            return super().watch(endpoint, status, content_type)
        if status != 200:
            return Refused(f"status {status}")
        kind = media_type(content_type)
        if kind == "application/json":
            return JsonWatcher(_embed_answer if endpoint == OWN_EMBED else _whole_answer)
        if kind == "application/x-ndjson" and endpoint != OWN_EMBED:
            return _LineWatcher()
        return refused_type(content_type)

    def map_texts(
        self,
        endpoint: Endpoint,
        doc: Json,
        system: Callable[[str], str],
        message: Callable[[str], str],
    ) -> None:
        if endpoint not in _OWN.values():
            super().map_texts(endpoint, doc, system, message)
            return
        map_messages(doc, system, message)
        map_texts(doc, "system", system)
        for field in ("prompt", "suffix", "input"):
            map_texts(doc, field, message)

    def keep_last(self, endpoint: Endpoint, doc: Json, turns: int) -> bool:
        if endpoint == OWN_CHAT:
            return keep_last_messages(doc, turns)
        return super().keep_last(endpoint, doc, turns)

    def is_deterministic(self, endpoint: Endpoint, doc: Json) -> bool:
        if endpoint in (OWN_CHAT, OWN_GENERATE):
            return is_repeatable(member(doc, "options"))
        return endpoint == OWN_EMBED or super().is_deterministic(endpoint, doc)


class _LineWatcher:
    """Follows a stream of lines up to the one that is done."""

    def __init__(self) -> None:
        self._rest = b""
        self._reason = ""
        self._last: Json | None = None
        self._model: str | None = None
        self._snippet = Snippet()

    @property
    def done(self) -> bool:
        return self._last is not None and not self._reason and not self._rest

    @property
    def failed(self) -> bool:
        return bool(self._reason)

    def feed(self, data: bytes) -> None:
        if self._reason:
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._take(line)
        if len(self._rest) > _MAX_LINE_BYTES:
            self._reason, self._rest = "a line is too large", b""

    def close(self) -> Answer:
        if self._rest:
            self._take(self._rest)  # the last line may end with the body
        if not self._reason and self._last is None:
            self._reason = "no line is done"
        return Answer(
            complete=not self._reason,
            reason=self._reason,
            model=self._model,
            usage=None if self._last is None else _usage(self._last),
            snippet=self._snippet.line(),
        )

    def _take(self, line: bytes) -> None:
        if self._reason or not line.strip():
            return
        try:
            doc = parsed(line)
        except ValueError:
            doc = None
        if not isinstance(doc, dict):
            self._reason = "a line is not a JSON object"
        elif self._last is not None:
            self._reason = "data after the line that is done"
        else:
            self._model = text_or_none(doc.get("model")) or self._model
            _add_part(self._snippet, doc)
            if doc.get("done") is True:
                self._last = doc
                self._reason = _unfit(doc)
            elif "error" in doc:
                self._reason = "error in a line"


def _whole_answer(doc: Json) -> Answer:
    reason = _unfit(doc)
    snippet = Snippet()
    _add_part(snippet, doc)
    return Answer(
        complete=not reason,
        reason=reason,
        model=text_or_none(doc.get("model")),
        usage=_usage(doc),
        snippet=snippet.line(),
    )


def _embed_answer(doc: Json) -> Answer:
    vectors: Any = doc.get("embeddings") or doc.get("embedding")
    if "error" in doc or not isinstance(vectors, list) or not vectors:
        return Answer(complete=False, reason="no embeddings")
    number = len(vectors) if isinstance(vectors[0], list) else 1
    return Answer(
        complete=True,
        model=text_or_none(doc.get("model")),
        usage=_usage(doc),
        snippet=f"{number} embeddings",
    )


def _unfit(doc: Json) -> str:
    if "error" in doc:
        return "error"
    if doc.get("done") is not True:
        return "not done"
    reason = doc.get("done_reason")
    return f"done_reason {reason}" if reason in ("load", "unload") else ""


def _add_part(snippet: Snippet, doc: Json) -> None:
    message = member(doc, "message")
    snippet.add_text(message.get("content"))
    snippet.add_text(doc.get("response"))
    snippet.add_thinking(message.get("thinking"))
    snippet.add_thinking(doc.get("thinking"))
    for call in objects(message.get("tool_calls")):
        snippet.add_tool(member(call, "function").get("name"))


def _usage(doc: Json) -> Usage | None:
    """None when nothing was counted: `prompt_eval_count` is left out for a prompt in its cache."""
    asked, answered = count(doc, "prompt_eval_count"), count(doc, "eval_count")
    if not asked and not answered:
        return None
    return Usage(input_tokens=asked, output_tokens=answered, input_includes_cache=True)


# A streamed answer put together


def folded(docs: Iterable[Json]) -> Json:
    """Ollama: https://github.com/ollama/ollama/blob/main/docs/api.md."""
    docs = list(docs)
    message: Json = {}
    for doc in docs:
        _merge_part(message, member(doc, "message"))
    told: Json = {"message": message} if message else {}
    for name in ("response", "thinking"):
        if any(isinstance(doc.get(name), str) for doc in docs):
            told[name] = joined(doc.get(name) for doc in docs)
    return last_said(docs, told)


def _merge_part(message: Json, part: Json) -> None:
    for name, value in part.items():
        if name in ("content", "thinking"):
            append(message, name, value)
        elif isinstance(value, list):
            message.setdefault(name, []).extend(value)
        else:
            message[name] = value
