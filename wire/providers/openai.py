"""The OpenAI API, and Azure's edition of it: which requests are cached, and what decides them.

Cached are POSTs whose path ends in an operation of `_OPERATIONS`, behind any base path: `/v1`,
Azure's `/openai/deployments/{name}` and `/openai/v1`, a gateway's own. All else passes through:
files, batches, stored responses, images, audio, realtime.

The normalized key ignores `user`, `safety_identifier` and `prompt_cache_key`: they say who asks,
for abuse checks and for the placing of the provider's prompt cache, and never what is answered.
`metadata` and `store` stay in: they are kept with a stored answer.
How answers are read is in `wire.choices` (chat, completions) and `wire.responses`.
Source: https://platform.openai.com/docs/api-reference;
https://learn.microsoft.com/azure/ai-services/openai/reference.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Final

from llm_cache.wire.answers import (
    JsonWatcher,
    Refused,
    media_type,
    member,
    objects,
    refused_type,
    text_or_none,
)
from llm_cache.wire.provider import (
    Answer,
    ClientVariables,
    Endpoint,
    Json,
    KeyForm,
    Provider,
    Watcher,
)
from llm_cache.wire.providers import anthropic, openai_forms
from llm_cache.wire.providers.chat import is_repeatable, keep_last_messages, map_messages, map_texts
from llm_cache.wire.providers.choices import (
    ChatEnd,
    ChoicesWatcher,
    choices_answer,
    token_usage,
    told_error,
)
from llm_cache.wire.providers.guests import Guest, Host
from llm_cache.wire.providers.responses import (
    ResponseWatcher,
    keep_last_input,
    leans_on,
    map_response_texts,
    response_answer,
)

CHAT: Final = Endpoint("chat.completions")
COMPLETIONS: Final = Endpoint("completions")
RESPONSES: Final = Endpoint("responses")
INPUT_TOKENS: Final = Endpoint("responses.input_tokens")
EMBEDDINGS: Final = Endpoint("embeddings")
MODERATIONS: Final = Endpoint("moderations")
RERANK: Final = Endpoint("rerank")

_OPERATIONS: Final = {
    ("chat", "completions"): CHAT,
    ("responses", "input_tokens"): INPUT_TOKENS,
    ("completions",): COMPLETIONS,
    ("responses",): RESPONSES,
    ("embeddings",): EMBEDDINGS,
    ("moderations",): MODERATIONS,
    ("rerank",): RERANK,  # not OpenAI's own: many who speak its API have it
}
_ROOTS: Final = (
    *("assistants", "audio", "batches", "chat", "chatkit", "completions", "containers"),
    *("conversations", "embeddings", "evals", "files", "fine_tuning", "images", "models"),
    *("moderations", "organization", "realtime", "responses", "skills", "threads", "uploads"),
    *("vector_stores", "videos"),
)
_VOLATILE: Final = ("user", "safety_identifier", "prompt_cache_key")
_ANTHROPIC: Final = anthropic.Anthropic()
_VOLATILE_HEADERS: Final = frozenset({b"openai-safety-identifier"})


class OpenAI(Provider):
    """https://api.openai.com."""

    name = "openai"
    title = "OpenAI"
    base_url = "https://api.openai.com"
    key_setting = "OPENAI_API_KEY_REAL"
    credential_headers = frozenset({b"authorization", b"api-key"})
    own_domains: tuple[str, ...] = ("openai.com",)
    chat_end: ChatEnd = ChatEnd.DONE
    """What ends its chats and completions."""
    key_form: KeyForm | None = KeyForm(("sk-",), "/v1/models")
    clients: ClientVariables = ClientVariables(
        urls=(("OPENAI_BASE_URL", "/openai/v1"), ("OPENAI_API_BASE", "/openai/v1")),
        keys=("OPENAI_API_KEY",),
    )

    def claims(self, method: str, path: str, headers: Mapping[bytes, bytes]) -> bool:
        parts = path.split("/")[1:]
        if parts[:1] == ["v1"]:
            return len(parts) > 1 and parts[1] in _ROOTS
        # A base URL without /v1. Behind any other path stands a name nobody knows: a provider or
        # upstream misspelt, whose key OpenAI must not get.
        return parts[0] in _ROOTS and _operation(path) is not None

    def endpoint(self, method: str, path: str) -> Endpoint | None:
        return _operation(path) if method == "POST" else None

    def is_key_header(self, name: bytes) -> bool:
        return name.startswith(b"openai-") and name not in _VOLATILE_HEADERS

    def auth_header(self, key: str) -> tuple[bytes, bytes]:
        return b"authorization", b"Bearer " + key.encode()

    def watch(self, endpoint: Endpoint, status: int, content_type: str) -> Watcher:
        if status != 200:
            return Refused(f"status {status}")
        kind = media_type(content_type)
        if kind == "application/json":
            if endpoint in (CHAT, COMPLETIONS):
                return JsonWatcher(lambda doc: choices_answer(doc, self.chat_end))
            return JsonWatcher(_JUDGES[endpoint])
        if kind == "text/event-stream" and endpoint in (CHAT, COMPLETIONS):
            return ChoicesWatcher(self.chat_end)
        if kind == "text/event-stream" and endpoint == RESPONSES:
            return ResponseWatcher()
        return refused_type(content_type)

    def strip_volatile(self, endpoint: Endpoint, doc: Json) -> None:
        for field in _VOLATILE:
            doc.pop(field, None)

    def map_texts(
        self,
        endpoint: Endpoint,
        doc: Json,
        system: Callable[[str], str],
        message: Callable[[str], str],
    ) -> None:
        if endpoint in (RESPONSES, INPUT_TOKENS):
            map_response_texts(doc, system, message)
            return
        map_messages(doc, system, message)
        for field in ("prompt", "suffix", "input", "query", "documents"):
            map_texts(doc, field, message)

    def keep_last(self, endpoint: Endpoint, doc: Json, turns: int) -> bool:
        if endpoint == CHAT:
            return keep_last_messages(doc, turns)
        return endpoint == RESPONSES and keep_last_input(doc, turns)

    def request_model(self, endpoint: Endpoint, path: str, doc: Json) -> str | None:
        return text_or_none(doc.get("model"))

    def strip_form(self, endpoint: Endpoint, doc: Json) -> bool | None:
        stream = doc.pop("stream", None)
        doc.pop("stream_options", None)
        if endpoint != CHAT or not isinstance(stream, bool | None):
            return None
        return stream is True

    def leans_on(self, endpoint: Endpoint, doc: Json) -> str:
        return leans_on(doc) if endpoint == RESPONSES else ""

    def as_stream(self, endpoint: Endpoint, doc: Json, body: bytes) -> bytes | None:
        wanted = member(doc, "stream_options").get("include_usage") is True
        return openai_forms.as_stream(body, include_usage=wanted)

    def as_plain(self, endpoint: Endpoint, body: bytes) -> bytes | None:
        return openai_forms.as_plain(body)

    def is_deterministic(self, endpoint: Endpoint, doc: Json) -> bool:
        if endpoint in (EMBEDDINGS, RERANK):
            return True
        return (
            endpoint in (CHAT, COMPLETIONS)
            and not doc.get("web_search_options")
            and (is_repeatable(doc) or is_repeatable(doc, "random_seed"))  # the second: Mistral's
        )

    def error_body(self, status: int, kind: str, message: str) -> bytes:
        error = {"message": message, "type": kind, "param": None, "code": None}
        return json.dumps({"error": error}, separators=(",", ":")).encode()


class OpenAIHost(Host, OpenAI):
    """A host of OpenAI's API, which may serve Anthropic's Messages API beside it, under a path that
    ends as there: `/v1/messages`, `/api/anthropic/v1/messages`."""

    credential_headers = frozenset({b"authorization", b"api-key", b"x-api-key"})
    guests: Mapping[str, Guest] = {
        endpoint.name: Guest(_ANTHROPIC, endpoint)
        for endpoint in (anthropic.MESSAGES, anthropic.COUNT_TOKENS)
    }

    def endpoint(self, method: str, path: str) -> Endpoint | None:
        return OpenAI.endpoint(self, method, path) or _ANTHROPIC.endpoint(method, path)

    def error_shape(self, endpoint: Endpoint) -> Provider:
        guest = self.guests.get(endpoint.name)
        return self if guest is None else guest.provider

    def is_key_header(self, name: bytes) -> bool:
        return OpenAI.is_key_header(self, name) or _ANTHROPIC.is_key_header(name)

    def strip_volatile(self, endpoint: Endpoint, doc: Json) -> None:
        if endpoint.name in self.guests:
            super().strip_volatile(endpoint, doc)
        else:
            OpenAI.strip_volatile(self, endpoint, doc)

    def own_watch(self, endpoint: Endpoint, status: int, content_type: str) -> Watcher:
        return OpenAI.watch(self, endpoint, status, content_type)

    def own_map_texts(
        self,
        endpoint: Endpoint,
        doc: Json,
        system: Callable[[str], str],
        message: Callable[[str], str],
    ) -> None:
        OpenAI.map_texts(self, endpoint, doc, system, message)

    def leans_on(self, endpoint: Endpoint, doc: Json) -> str:
        if endpoint.name in self.guests:
            return super().leans_on(endpoint, doc)
        return OpenAI.leans_on(self, endpoint, doc)

    def own_keep_last(self, endpoint: Endpoint, doc: Json, turns: int) -> bool:
        return OpenAI.keep_last(self, endpoint, doc, turns)

    def own_is_deterministic(self, endpoint: Endpoint, doc: Json) -> bool:
        return OpenAI.is_deterministic(self, endpoint, doc)


class Azure(OpenAIHost):
    """Azure OpenAI. Every resource has a host of its own, so `CACHE_UPSTREAM_AZURE` must name it;
    the version of the API is in the query, and so in the key."""

    name = "azure"
    title = "Azure OpenAI"
    base_url = ""
    key_setting = "AZURE_API_KEY_REAL"
    own_domains = ("azure.com", "azure.us", "azure.cn")
    own_paths = ("/openai/deployments/",)  # how Azure's client asks, at any base URL
    price_ids = ("azure", "openai")
    key_form = KeyForm()
    clients = ClientVariables(
        urls=(("AZURE_OPENAI_ENDPOINT", "/azure"),), keys=("AZURE_OPENAI_API_KEY",)
    )

    def claims(self, method: str, path: str, headers: Mapping[bytes, bytes]) -> bool:
        return path.startswith(self.own_paths)

    def is_key_header(self, name: bytes) -> bool:
        return super().is_key_header(name) or name in (
            b"azureml-model-deployment",
            b"extra-parameters",
        )

    def auth_header(self, key: str) -> tuple[bytes, bytes]:
        return b"api-key", key.encode()

    def request_model(self, endpoint: Endpoint, path: str, doc: Json) -> str | None:
        if (model := text_or_none(doc.get("model"))) is not None:
            return model
        _, found, rest = path.partition("/deployments/")
        return rest.partition("/")[0] if found else None


def _operation(path: str) -> Endpoint | None:
    """The operation a path ends in. The longest name wins, an empty segment is none's."""
    parts = path.split("/")
    if parts[0] or "" in parts[1:]:
        return None
    return _OPERATIONS.get(tuple(parts[-2:])) or _OPERATIONS.get((parts[-1],))


# Answers


def _counted_answer(doc: Json) -> Answer:
    tokens = doc.get("input_tokens")
    if not isinstance(tokens, int) or isinstance(tokens, bool):
        return Answer(complete=False, reason=told_error(doc) or "no input_tokens")
    return Answer(complete=True, snippet=f"{tokens} input tokens")


def _embeddings_answer(doc: Json) -> Answer:
    vectors = objects(doc.get("data"))
    if not vectors or any(not isinstance(item.get("embedding"), list | str) for item in vectors):
        return Answer(complete=False, reason=told_error(doc) or "no embeddings")
    return _list_answer(doc, f"{len(vectors)} embeddings")


def _results_answer(doc: Json) -> Answer:
    results = objects(doc.get("results")) or objects(doc.get("data"))  # the second: Voyage's rerank
    if not results:
        return Answer(complete=False, reason=told_error(doc) or "no results")
    flagged = sum(1 for result in results if result.get("flagged") is True)
    return _list_answer(
        doc, f"{len(results)} results, {flagged} flagged" if flagged else f"{len(results)} results"
    )


def _list_answer(doc: Json, snippet: str) -> Answer:
    if reason := told_error(doc):
        return Answer(complete=False, reason=reason)
    return Answer(
        complete=True,
        model=text_or_none(doc.get("model")),
        usage=token_usage(doc.get("usage")),
        snippet=snippet,
    )


_JUDGES: Final = {
    RESPONSES: response_answer,
    INPUT_TOKENS: _counted_answer,
    EMBEDDINGS: _embeddings_answer,
    MODERATIONS: _results_answer,
    RERANK: _results_answer,
}
