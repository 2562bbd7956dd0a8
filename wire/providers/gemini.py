"""The Gemini API: what its requests mean and when its answers are whole.

Source: https://ai.google.dev/api/generate-content, .../tokens and .../embeddings.
An answer is complete when it has candidates and each of them has a `finishReason`; a stream, when
each candidate it brought has one. A blocked prompt has no candidate, only a `promptFeedback`: it
isn't stored, since a filter may change its mind and nothing was spent. An `error` object anywhere
makes an answer incomplete. A stream comes as server-sent events (`alt=sse`) or as one JSON array.
Numbers that are 0 and empty lists are left out by this API.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from llm_cache.wire.answers import (
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
    parsed,
    refused_type,
    text_or_none,
    tier,
)
from llm_cache.wire.folding import Growing, append, block_place, last_said
from llm_cache.wire.framing.json_array import ArrayParser
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
from llm_cache.wire.providers.guests import Guest, Host
from llm_cache.wire.turns import last_turns

GENERATE: Final = "generate_content"
STREAM: Final = "stream_generate_content"
COUNT: Final = "count_tokens"
EMBED: Final = "embed_content"
BATCH_EMBED: Final = "batch_embed_contents"

OPERATIONS: Final = {
    "generateContent": GENERATE,
    "streamGenerateContent": STREAM,
    "countTokens": COUNT,
    "embedContent": EMBED,
    "batchEmbedContents": BATCH_EMBED,
}

_PATH: Final = re.compile(r"/v1(?:alpha|beta)?/(?:models|tunedModels)/([^/:]+):([A-Za-z]+)")
_ROOTS: Final = re.compile(r"(?:/upload|/download)?/v1(?:alpha|beta)(?:/|$)|/v1/tunedModels(?:/|$)")
_OPENAI_BASE: Final = "/v1beta/openai/"  # https://ai.google.dev/gemini-api/docs/openai

# Which client, of which version, called: nothing of it reaches the model.
_VOLATILE_HEADERS: Final = frozenset({b"x-goog-api-key", b"x-goog-api-client"})

_STATUS: Final = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    413: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    501: "UNIMPLEMENTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_TOOL_PARTS: Final = (
    "functionCall",
    "functionResponse",
    "executableCode",
    "codeExecutionResult",
    "toolCall",
    "toolResponse",
)


class Gemini(Host):
    """https://generativelanguage.googleapis.com."""

    name = "gemini"
    title = "Google Gemini"
    base_url = "https://generativelanguage.googleapis.com"
    key_setting = "GEMINI_API_KEY_REAL"
    credential_headers = frozenset({b"x-goog-api-key", b"authorization"})
    # Source: https://cloud.google.com/apis/docs/system-parameters
    key_parameters: Mapping[bytes, bytes] = {
        b"key": b"x-goog-api-key",
        b"access_token": b"",
        b"oauth_token": b"",
    }
    own_domains = ("googleapis.com",)
    key_form: KeyForm | None = KeyForm(("AIza", "AQ."), "/v1beta/models")
    clients: ClientVariables = ClientVariables(
        urls=(("GOOGLE_GEMINI_BASE_URL", "/gemini"),), keys=("GEMINI_API_KEY", "GOOGLE_API_KEY")
    )
    price_ids = ("google",)
    guests: Mapping[str, Guest] = {
        openai.CHAT.name: Guest(openai.OpenAI(), openai.CHAT),
        openai.EMBEDDINGS.name: Guest(openai.OpenAI(), openai.EMBEDDINGS),
    }

    def claims(self, method: str, path: str, headers: Mapping[bytes, bytes]) -> bool:
        if _ROOTS.match(path) or _PATH.fullmatch(path):
            return True
        return path.startswith("/v1/") and b"x-goog-api-key" in headers

    def endpoint(self, method: str, path: str) -> Endpoint | None:
        if path.startswith(_OPENAI_BASE):
            guest = openai.OpenAI().endpoint(method, path)
            return guest if guest is not None and guest.name in self.guests else None
        match = _PATH.fullmatch(path)
        if method != "POST" or match is None or match[2] not in OPERATIONS:
            return None
        return Endpoint(OPERATIONS[match[2]], match[1])

    def is_key_header(self, name: bytes) -> bool:
        return name.startswith(b"x-goog-") and name not in _VOLATILE_HEADERS

    def auth_header(self, key: str) -> tuple[bytes, bytes]:
        return b"x-goog-api-key", key.encode()

    def own_watch(self, endpoint: Endpoint, status: int, content_type: str) -> Watcher:
        if status != 200:
            return Refused(f"status {status}")
        kind = media_type(content_type)
        if endpoint.name == STREAM and kind == "text/event-stream":
            return _Chunks(endpoint.model)
        if kind != "application/json":
            return refused_type(content_type)
        if endpoint.name == STREAM:
            return _ChunkArray(endpoint.model)
        judge = _JUDGES[endpoint.name]
        return JsonWatcher(lambda doc: judge(doc, endpoint.model))

    def own_map_texts(
        self,
        endpoint: Endpoint,
        doc: Json,
        system: Callable[[str], str],
        message: Callable[[str], str],
    ) -> None:
        # Both spellings of a field are taken (https://protobuf.dev/programming-guides/json/).
        for name in ("systemInstruction", "system_instruction"):
            for content in _contents(doc, name):
                _map_parts(content, system)
        for name in ("contents", "content"):
            for content in _contents(doc, name):
                _map_parts(content, message)
        for inner in (*objects(doc.get("requests")), *_contents(doc, "generateContentRequest")):
            self.own_map_texts(endpoint, inner, system, message)

    def own_keep_last(self, endpoint: Endpoint, doc: Json, turns: int) -> bool:
        if endpoint.name not in (GENERATE, STREAM):
            return False  # a count and an embedding are of everything
        kept = last_turns(
            doc.get("contents"),
            turns,
            speakers=("user", "model", None),
            asker="model",
            text=_words,
            uses_tools=_uses_tools,
        )
        if kept is not None:
            doc["contents"] = kept
        return kept is not None

    def own_is_deterministic(self, endpoint: Endpoint, doc: Json) -> bool:
        if endpoint.name in (EMBED, BATCH_EMBED):
            return True
        config = member(doc, "generationConfig") or member(doc, "generation_config")
        return config.get("temperature") == 0 and isinstance(config.get("seed"), int)

    def error_body(self, status: int, kind: str, message: str) -> bytes:
        """Google's error object; `type` is ours, since `status` is one of a fixed set."""
        error = {
            "code": status,
            "message": message,
            "status": _STATUS.get(status, "INTERNAL" if status >= 500 else "FAILED_PRECONDITION"),
            "type": kind,
        }
        return json.dumps({"error": error}, separators=(",", ":")).encode()


# Requests


def _contents(doc: Json, name: str) -> list[Json]:
    """The contents in `doc[name]`: one, or a list of them."""
    value = doc.get(name)
    return [value] if isinstance(value, dict) else objects(value)


def _map_parts(content: Json, change: Callable[[str], str]) -> None:
    for part in _contents(content, "parts"):
        if isinstance(part.get("text"), str):
            part["text"] = change(part["text"])
        for name in ("functionResponse", "function_response"):
            if isinstance(result := part.get(name), dict) and "response" in result:
                result["response"] = _mapped(result["response"], change)


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    """A tool's result, any JSON, with every string in it changed. Names of members stay."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_mapped(item, change) for item in value]
    if isinstance(value, dict):
        return {name: _mapped(item, change) for name, item in value.items()}
    return value


def _words(content: Json) -> str:
    texts = [part.get("text") for part in _contents(content, "parts")]
    return "\n".join(text for text in texts if isinstance(text, str))


def _uses_tools(content: Json) -> bool:
    names = {name.replace("_", "").lower() for part in _contents(content, "parts") for name in part}
    return not names.isdisjoint(name.lower() for name in _TOOL_PARTS)


# Answers


class _Chunks(EventWatcher):
    """Follows the chunks of a streamed answer until every candidate has finished.

    More may follow the last `finishReason`: chunks that bring usage or grounding.
    """

    last = "finishReason"

    def __init__(self, model: str | None) -> None:
        super().__init__()
        self._model = model
        self._usage: Json | None = None
        self._snippet = Snippet()
        self._finished: dict[object, bool] = {}
        self._blocked = False

    @property
    def done(self) -> bool:
        """Never: this API has no last event, and any chunk may have a `finishReason`."""
        return False

    @property
    def finished(self) -> bool:
        """True when it is whole, should nothing more follow."""
        return super().done

    def _unended(self) -> str:
        if self._blocked:
            return "the prompt was blocked"
        return "no finishReason" if self._finished else "no candidates"

    def _answer_model(self) -> str | None:
        return self._model

    def _answer_usage(self) -> Usage | None:
        return None if self._usage is None else _usage(self._usage)

    def _snippet_line(self) -> str:
        return self._snippet.line()

    def _take(self, event: Event) -> None:
        try:
            doc = parsed(event.data)
        except ValueError:
            doc = None
        if not isinstance(doc, dict):
            if not is_foreign(event, doc):
                self._reason = "an event is not a JSON object"
        elif doc.get("error") is not None:
            self._reason = error_reason("error in the stream", doc["error"])
        else:
            self._follow(doc)

    def _follow(self, doc: Json) -> None:
        self._model = _model_in(doc) or self._model
        if isinstance(usage := doc.get("usageMetadata"), dict):
            self._usage = cumulated(self._usage, usage)  # each chunk counts from the beginning
        self._blocked = self._blocked or "blockReason" in member(doc, "promptFeedback")
        for candidate in objects(doc.get("candidates")):
            index = candidate.get("index", 0)
            self._finished[index] = self._finished.get(index, False) or _has_finished(candidate)
            if index == 0:
                _show(self._snippet, candidate)
        self._stopped = bool(self._finished) and all(self._finished.values())


class _ChunkArray:
    """The same chunks as the elements of one JSON array."""

    def __init__(self, model: str | None) -> None:
        self._array = ArrayParser()
        self._chunks = _Chunks(model)

    @property
    def done(self) -> bool:
        return self._array.ended and not self._array.broken and self._chunks.finished

    @property
    def failed(self) -> bool:
        return bool(self._array.broken) or self._chunks.failed

    def feed(self, data: bytes) -> None:
        for element in self._array.feed(data):
            # A line end in JSON is white space: none is inside a string (RFC 8259, 7).
            line = element.replace(b"\r", b" ").replace(b"\n", b" ")
            self._chunks.feed(b"data: %b\n\n" % line)

    def close(self) -> Answer:
        answer = self._chunks.close()
        reason = self._array.broken or answer.reason
        if not reason and not self._array.ended:
            reason = "the array isn't closed"
        return replace(answer, complete=not reason, reason=reason)


def _generated(doc: Json, model: str | None) -> Answer:
    if doc.get("error") is not None:
        return Answer(complete=False, reason=error_reason("error", doc["error"]))
    model = _model_in(doc) or model
    candidates = objects(doc.get("candidates"))
    reason = ""
    if not candidates:
        blocked = "blockReason" in member(doc, "promptFeedback")
        reason = "the prompt was blocked" if blocked else "no candidates"
    elif not all(map(_has_finished, candidates)):
        reason = "no finishReason"
    snippet = Snippet()
    for candidate in candidates[:1]:
        _show(snippet, candidate)
    return Answer(not reason, reason, model, _usage_in(doc), snippet.line())


def _counted(doc: Json, model: str | None) -> Answer:
    if not isinstance(doc.get("totalTokens"), int):
        return _not("totalTokens", doc)
    return Answer(complete=True, model=model, snippet=f"{count(doc, 'totalTokens')} tokens")


def _embedded(doc: Json, model: str | None) -> Answer:
    if not member(doc, "embedding"):
        return _not("embedding", doc)
    return Answer(complete=True, model=model, usage=_usage_in(doc), snippet="1 embedding")


def _embedded_all(doc: Json, model: str | None) -> Answer:
    found = objects(doc.get("embeddings"))
    if not found:
        return _not("embeddings", doc)
    told = f"{len(found)} embedding" + "s" * (len(found) > 1)
    return Answer(complete=True, model=model, usage=_usage_in(doc), snippet=told)


_JUDGES: Final[Mapping[str, Callable[[Json, str | None], Answer]]] = {
    GENERATE: _generated,
    COUNT: _counted,
    EMBED: _embedded,
    BATCH_EMBED: _embedded_all,
}


def _not(field: str, doc: Json) -> Answer:
    error = doc.get("error")
    reason = f"no {field}" if error is None else error_reason("error", error)
    return Answer(complete=False, reason=reason)


def _model_in(doc: Json) -> str | None:
    """The model that answered; some answers call it `models/gemini-2.5-pro`."""
    told = text_or_none(doc.get("modelVersion"))
    return told.removeprefix("models/") if told else None


def _has_finished(candidate: Json) -> bool:
    return candidate.get("finishReason") not in (None, "", "FINISH_REASON_UNSPECIFIED")


def _show(snippet: Snippet, candidate: Json) -> None:
    for part in objects(member(candidate, "content").get("parts")):
        if part.get("thought") is True:
            snippet.add_thinking(part.get("text"))
        else:
            snippet.add_text(part.get("text"))
        snippet.add_tool(member(part, "functionCall").get("name"))


def _usage_in(doc: Json) -> Usage | None:
    usage = doc.get("usageMetadata")
    return _usage(usage) if isinstance(usage, dict) else None


def _usage(usage: Json) -> Usage:
    return Usage(
        input_tokens=count(usage, "promptTokenCount") + count(usage, "toolUsePromptTokenCount"),
        output_tokens=count(usage, "candidatesTokenCount") + count(usage, "thoughtsTokenCount"),
        cache_read_tokens=count(usage, "cachedContentTokenCount"),
        input_includes_cache=True,
        input_audio_tokens=_of("AUDIO", usage, *_ASKED),
        input_image_tokens=_of("IMAGE", usage, *_ASKED) + _of("DOCUMENT", usage, *_ASKED),
        input_video_tokens=_of("VIDEO", usage, *_ASKED),
        output_audio_tokens=_of("AUDIO", usage, "candidatesTokensDetails"),
        output_image_tokens=_of("IMAGE", usage, "candidatesTokensDetails"),
        output_video_tokens=_of("VIDEO", usage, "candidatesTokensDetails"),
        cache_audio_read_tokens=_of("AUDIO", usage, "cacheTokensDetails"),
        cache_image_read_tokens=_of("IMAGE", usage, "cacheTokensDetails")
        + _of("DOCUMENT", usage, "cacheTokensDetails"),
        cache_video_read_tokens=_of("VIDEO", usage, "cacheTokensDetails"),
        service_tier=_tier(usage),
    )


_ASKED: Final = ("promptTokensDetails", "toolUsePromptTokensDetails")


def _of(modality: str, usage: Json, *fields: str) -> int:
    """The tokens of one modality. https://ai.google.dev/api/generate-content#ModalityTokenCount."""
    return sum(
        count(part, "tokenCount")
        for field in fields
        for part in objects(usage.get(field))
        if part.get("modality") == modality
    )


def _tier(usage: Json) -> str:
    """The service tier: of Gemini by its name, of Vertex AI in the kind of traffic
    (`ON_DEMAND_FLEX`)."""
    traffic = usage.get("trafficType")
    told = traffic.removeprefix("ON_DEMAND_") if isinstance(traffic, str) else None
    return tier(usage.get("serviceTier") or told)


# A streamed answer put together


def folded(docs: Iterable[Json]) -> Json:
    """Gemini: https://ai.google.dev/api/generate-content#method:-models.streamgeneratecontent."""
    docs = list(docs)
    candidates: dict[object, Json] = {}
    for doc in docs:
        for chunk in objects(doc.get("candidates")):
            candidate = candidates.setdefault(block_place(chunk.get("index", 0)), {})
            content = member(chunk, "content")
            parts = member(candidate, "content").get("parts", [])
            for part in objects(content.get("parts")):
                _add_part(parts, part)
            candidate |= chunk
            candidate["content"] = {**content, "parts": parts}
    return last_said(docs, {"candidates": list(candidates.values())})


def _add_part(parts: list[Json], part: Json) -> None:
    plain = {"text", "thought"}
    last = parts[-1] if parts else {}
    if (
        isinstance(part.get("text"), str)
        and isinstance(last.get("text"), str | Growing)
        and set(last) <= plain
        and bool(part.get("thought")) == bool(last.get("thought"))
    ):
        append(last, "text", part["text"])
        return
    parts.append(dict(part))
