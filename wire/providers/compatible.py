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

from llm_cache.wire.provider import ClientVariables, Endpoint, Json, KeyForm
from llm_cache.wire.providers.choices import ChatEnd
from llm_cache.wire.providers.openai import OpenAIHost

ANYONES_PRICE: Final = (None,)
_OWN_KEYS: Final = KeyForm()
_NO_VARIABLES: Final = ClientVariables()


class Compatible(OpenAIHost):
    """One such host. `key_form` None: it takes no key of its own. `price_ids` are the names of its
    price list, `(None,)` the prices of whoever made the model, for a gateway that passes them on.
    """

    def __init__(
        self,
        name: str,
        title: str,
        base_url: str,
        *,
        key_form: KeyForm | None = _OWN_KEYS,
        clients: ClientVariables = _NO_VARIABLES,
        price_ids: tuple[str | None, ...] = (),
        own_domains: tuple[str, ...] = (),
        chat_end: ChatEnd = ChatEnd.DONE,
    ) -> None:
        self.name = name
        self.title = title
        self.base_url = base_url
        self.key_setting = f"{name.upper()}_API_KEY_REAL"
        self.key_form = key_form
        self.clients = clients
        self.price_ids = price_ids
        self.own_domains = own_domains
        self.chat_end = chat_end
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
    Mistral(
        "mistral", "Mistral AI", "https://api.mistral.ai", key_form=KeyForm(free_path="/v1/models")
    ),
    Compatible(
        *("groq", "Groq", "https://api.groq.com"),
        key_form=KeyForm(("gsk_",), "/openai/v1/models"),
        clients=ClientVariables((("GROQ_BASE_URL", "/groq"),), ("GROQ_API_KEY",)),
    ),
    Compatible(
        *("deepseek", "DeepSeek", "https://api.deepseek.com"),
        key_form=KeyForm(("sk-",), "/models"),
    ),
    Compatible(
        *("openrouter", "OpenRouter", "https://openrouter.ai"),
        key_form=KeyForm(("sk-or-",), "/api/v1/key"),  # its list of models needs no key
    ),
    Compatible(
        *("cerebras", "Cerebras", "https://api.cerebras.ai"),
        key_form=KeyForm(("csk-",), "/v1/models"),
        clients=ClientVariables((("CEREBRAS_BASE_URL", "/cerebras"),), ("CEREBRAS_API_KEY",)),
    ),
    Compatible(
        *("together", "Together AI", "https://api.together.xyz"),
        key_form=KeyForm(free_path="/v1/models"),
        clients=ClientVariables((("TOGETHER_BASE_URL", "/together"),), ("TOGETHER_API_KEY",)),
    ),
    Compatible(
        *("xai", "xAI", "https://api.x.ai"),
        key_form=KeyForm(("xai-",), "/v1/models"),
        price_ids=("x-ai",),
    ),
    Compatible(
        *("fireworks", "Fireworks AI", "https://api.fireworks.ai"),
        key_form=KeyForm(("fw_",), "/inference/v1/models"),
    ),
    HuggingFace(
        *("huggingface", "Hugging Face", "https://router.huggingface.co"),
        key_form=KeyForm(("hf_",)),
    ),
    Compatible(
        *("perplexity", "Perplexity", "https://api.perplexity.ai"),
        key_form=KeyForm(("pplx-",)),
        chat_end=ChatEnd.LAST_CHUNK,  # https://docs.perplexity.ai/guides/streaming-responses
    ),
    Compatible(
        *("moonshot", "Moonshot AI", "https://api.moonshot.ai"),
        key_form=KeyForm(("sk-",), "/v1/models"),
        price_ids=("moonshotai",),
    ),
    Compatible("zai", "Z.ai", "https://api.z.ai"),
    Compatible("crusoe", "Crusoe", "https://api.inference.crusoecloud.com"),
    Compatible("voyage", "Voyage AI", "https://api.voyageai.com", price_ids=("voyageai",)),
    Compatible(
        *("snowflake", "Snowflake Cortex", ""),  # each account has a host of its own
        own_domains=("snowflakecomputing.com",),
        chat_end=ChatEnd.DONE_ALONE,
    ),
    Compatible("vllm", "vLLM", "http://127.0.0.1:8000", key_form=None),
    Compatible("llamacpp", "llama.cpp", "http://127.0.0.1:8080", key_form=None),
    Compatible("lmstudio", "LM Studio", "http://127.0.0.1:1234", key_form=None),
    Compatible(*("compatible", "OpenAI-compatible", ""), key_form=None, price_ids=ANYONES_PRICE),
)
"""In the order of the documentation. A local server's answers have no price."""
