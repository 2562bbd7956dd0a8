"""Vertex AI: Gemini's and other publishers' models under a project and a region of Google Cloud.

Source: https://cloud.google.com/vertex-ai/generative-ai/docs/reference/rest.
Gemini's operations are those of `wire.gemini`; `:predict` is how Vertex asks embedding and image
models, complete when it has predictions. Claude is asked by `:rawPredict` and `:streamRawPredict`
and answers in Anthropic's own form; so are other publishers' models (Mistral's), in the form of
OpenAI's chat, which `/endpoints/{id}/chat/completions` has too. A region has a host of its own,
which the path names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

from llm_cache.wire.answers import JsonWatcher, Refused, error_reason, media_type, member, objects
from llm_cache.wire.provider import Answer, ClientVariables, Endpoint, Json, Usage, Watcher
from llm_cache.wire.providers import anthropic, openai
from llm_cache.wire.providers.gemini import OPERATIONS, Gemini
from llm_cache.wire.providers.guests import Guest

PREDICT: Final = "predict"
CLAUDE: Final = "anthropic.messages"
CLAUDE_COUNT_TOKENS: Final = "anthropic.count_tokens"

_ROOTS: Final = re.compile(r"/v1beta1(?:/|$)|/v1/(?:projects|publishers|reasoningEngines)(?:/|$)")
_PATH: Final = re.compile(
    r"/v1(?:beta1)?/(?:projects/[^/]+/locations/[^/]+/)?"
    r"(?:publishers/([^/]+)/models|endpoints)/([^/:]+):([A-Za-z]+)"
)
_CHAT_PATH: Final = re.compile(
    r"/v1(?:beta1)?/projects/[^/]+/locations/[^/]+/endpoints/[^/:]+/chat/completions"
)
_LOCATION: Final = re.compile(r"/[^/]+/projects/[^/]+/locations/([a-z0-9-]{2,40})(?:/|$)")
_RAW: Final = ("rawPredict", "streamRawPredict")
_CLAUDE_COUNTER: Final = "count-tokens"  # stands where the model's name would; the body names it


class Vertex(Gemini):
    """https://{region}-aiplatform.googleapis.com. The client's OAuth token passes through."""

    name = "vertex"
    title = "Google Vertex AI"
    base_url = "https://aiplatform.googleapis.com"
    key_setting = "VERTEX_API_KEY_REAL"
    price_ids = ("google",)
    key_form = None  # an OAuth token, which lives an hour
    clients = ClientVariables(
        urls=(("GOOGLE_VERTEX_BASE_URL", "/vertex"), ("ANTHROPIC_VERTEX_BASE_URL", "/vertex/v1"))
    )
    guests: Mapping[str, Guest] = {
        CLAUDE: Guest(anthropic.Anthropic(), anthropic.MESSAGES),
        CLAUDE_COUNT_TOKENS: Guest(anthropic.Anthropic(), anthropic.COUNT_TOKENS),
        openai.CHAT.name: Guest(openai.OpenAI(), openai.CHAT),
    }

    def home(self, path: str, environ: Mapping[str, str]) -> str:
        match = _LOCATION.match(path)
        location = match[1] if match else "global"
        if location == "global":
            return self.base_url
        if location in ("us", "eu"):  # multi-regions
            return f"https://aiplatform.{location}.rep.googleapis.com"
        return f"https://{location}-aiplatform.googleapis.com"

    def claims(self, method: str, path: str, headers: Mapping[bytes, bytes]) -> bool:
        return _ROOTS.match(path) is not None

    def endpoint(self, method: str, path: str) -> Endpoint | None:
        if method == "POST" and _CHAT_PATH.fullmatch(path):
            return openai.CHAT
        match = _PATH.fullmatch(path)
        if method != "POST" or match is None:
            return None
        publisher, model, operation = match.groups()
        if publisher == "anthropic":
            if operation not in _RAW:
                return None
            if model == _CLAUDE_COUNTER:
                return Endpoint(CLAUDE_COUNT_TOKENS)
            return Endpoint(CLAUDE, model)
        if publisher not in (None, "google") and operation in _RAW:
            return Endpoint(openai.CHAT.name, model)
        if operation == "predict":
            return Endpoint(PREDICT, model)
        return Endpoint(OPERATIONS[operation], model) if operation in OPERATIONS else None

    def is_key_header(self, name: bytes) -> bool:
        return (
            super().is_key_header(name)
            or name.startswith(b"x-vertex-")
            or anthropic.Anthropic().is_key_header(name)
        )

    def own_watch(self, endpoint: Endpoint, status: int, content_type: str) -> Watcher:
        if endpoint.name != PREDICT:
            return super().own_watch(endpoint, status, content_type)
        if status != 200 or media_type(content_type) != "application/json":
            return Refused(f"status {status}, content type {content_type[:40] or 'missing'}")
        return JsonWatcher(lambda doc: _predicted(doc, endpoint.model))

    def own_map_texts(
        self,
        endpoint: Endpoint,
        doc: Json,
        system: Callable[[str], str],
        message: Callable[[str], str],
    ) -> None:
        super().own_map_texts(endpoint, doc, system, message)
        for instance in objects(doc.get("instances")):
            for name in ("content", "prompt"):
                if isinstance(instance.get(name), str):
                    instance[name] = message(instance[name])

    def own_is_deterministic(self, endpoint: Endpoint, doc: Json) -> bool:
        if endpoint.name == PREDICT:
            return "embedding" in (endpoint.model or "")
        return super().own_is_deterministic(endpoint, doc)


def _predicted(doc: Json, model: str | None) -> Answer:
    predictions = doc.get("predictions")
    if doc.get("error") is not None:
        return Answer(complete=False, reason=error_reason("error", doc["error"]))
    if not isinstance(predictions, list) or not predictions:
        return Answer(complete=False, reason="no predictions")
    tokens = 0
    for prediction in objects(predictions):
        told = member(member(prediction, "embeddings"), "statistics").get("token_count")
        tokens += int(told) if isinstance(told, int | float) else 0  # a double in this API
    told_count = f"{len(predictions)} prediction" + "s" * (len(predictions) > 1)
    usage = Usage(input_tokens=tokens, input_includes_cache=True) if tokens else None
    return Answer(complete=True, model=model, usage=usage, snippet=told_count)
