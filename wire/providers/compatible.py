"""The hosts and servers that speak OpenAI's API, each under a name of its own: `/groq/...`.

What differs from OpenAI is a line in the table below. The base URL is the host alone: a client
keeps the path it would use there (`https://api.groq.com/openai/v1` becomes
`http://127.0.0.1:4000/groq/openai/v1`). None of them claims a path without its name: `/v1/...`
is OpenAI's. Several of them serve Anthropic's Messages API too, whose bodies are read as such.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from llm_cache.wire.provider import Endpoint, Json
from llm_cache.wire.providers.openai import OpenAIHost

ANYONES_PRICE: Final = (None,)


class Compatible(OpenAIHost):
    """One such host. `price_ids` are the names of its price list, `(None,)` the prices of whoever
    made the model, for a gateway that passes them on."""

    def __init__(self, name: str, base_url: str, price_ids: tuple[str | None, ...] = ()) -> None:
        self.name = name
        self.base_url = base_url
        self.key_setting = f"{name.upper()}_API_KEY_REAL"
        self.price_ids = price_ids
        self._own_headers = f"{name}-".encode()

    def claims(self, method: str, path: str, headers: Mapping[bytes, bytes]) -> bool:
        return False

    def strip_form(self, endpoint: Endpoint, doc: Json) -> bool | None:
        return None  # each has fields and chunks of its own

    def is_key_header(self, name: bytes) -> bool:
        # `groq-model-version`, OpenRouter's `x-anthropic-beta`
        return (
            super().is_key_header(name)
            or name.startswith(self._own_headers)
            or name.endswith(b"-beta")
        )


class HuggingFace(Compatible):
    """https://router.huggingface.co: a partner in front of the path (`/nebius/v1/...`) serves it
    and sets its price, to which nothing is added; so a model that Hugging Face's list lacks costs
    what the partner's own list says. Without a partner the router chooses, and the price isn't
    known. Source: https://huggingface.co/docs/inference-providers/pricing."""

    _partners = MappingProxyType(
        {name: name for name in ("cerebras", "cohere", "groq", "novita", "ovhcloud", "together")}
        | {"fireworks-ai": "fireworks"}
    )
    """Those the price data has a list of their own for."""

    def endpoint(self, method: str, path: str) -> Endpoint | None:
        partner = path.split("/")[1]
        endpoint = super().endpoint(method, path)
        if endpoint is None or partner == "v1":
            return endpoint
        own = self._partners.get(partner)
        return replace(
            endpoint, price_ids=(f"huggingface_{partner}", *([own] if own is not None else []))
        )


class Mistral(Compatible):
    """https://api.mistral.ai, whose errors are flat. Source: https://docs.mistral.ai/api."""

    def error_body(self, status: int, kind: str, message: str) -> bytes:
        error = {"object": "error", "message": message, "type": kind, "param": None, "code": None}
        return json.dumps(error, separators=(",", ":")).encode()


HOSTS: Final = (
    Mistral("mistral", "https://api.mistral.ai"),
    Compatible("groq", "https://api.groq.com"),
    Compatible("deepseek", "https://api.deepseek.com"),
    Compatible("openrouter", "https://openrouter.ai"),
    Compatible("cerebras", "https://api.cerebras.ai"),
    Compatible("together", "https://api.together.xyz"),
    Compatible("xai", "https://api.x.ai", ("x-ai",)),
    Compatible("fireworks", "https://api.fireworks.ai"),
    HuggingFace("huggingface", "https://router.huggingface.co"),
    Compatible("perplexity", "https://api.perplexity.ai"),
    Compatible("moonshot", "https://api.moonshot.ai", ("moonshotai",)),
    Compatible("zai", "https://api.z.ai"),
    Compatible("crusoe", "https://api.inference.crusoecloud.com"),
    Compatible("voyage", "https://api.voyageai.com", ("voyageai",)),
    Compatible("vllm", "http://127.0.0.1:8000"),
    Compatible("llamacpp", "http://127.0.0.1:8080"),
    Compatible("lmstudio", "http://127.0.0.1:1234"),
    Compatible("compatible", "https://cache-upstream-compatible-is-not-set.invalid", ANYONES_PRICE),
)
"""In the order of the documentation. A local server's answers have no price."""
