"""The providers llm-cache knows. Adding one is a file in `providers/` and a line here."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from llm_cache.wire.provider import Provider
from llm_cache.wire.providers.anthropic import Anthropic
from llm_cache.wire.providers.bedrock import Bedrock, Mantle
from llm_cache.wire.providers.cohere import Cohere
from llm_cache.wire.providers.compatible import HOSTS
from llm_cache.wire.providers.gemini import Gemini
from llm_cache.wire.providers.ollama import Ollama
from llm_cache.wire.providers.openai import Azure, OpenAI
from llm_cache.wire.providers.vertex import Vertex

PROVIDERS: Final[tuple[Provider, ...]] = (
    Vertex(),  # before Anthropic, whose headers requests for Claude have at Google and AWS too
    Bedrock(),
    Gemini(),
    Anthropic(),
    Cohere(),
    Ollama(),
    Azure(),
    OpenAI(),
    *HOSTS,
    Mantle(),
)
"""In the order their `claims` are asked."""

DEFAULT: Final[Provider] = Anthropic()
"""Whose error form is used, and whose upstream is asked, for a path that no provider knows."""

ALL_CREDENTIALS: Final[frozenset[bytes]] = frozenset().union(
    *(provider.credential_headers for provider in PROVIDERS)
)
"""Lower-case request headers that carry credentials for any of them."""

KEYED_CREDENTIALS: Final = ALL_CREDENTIALS - {b"x-amz-date", b"x-amz-content-sha256"}
"""Those of them that tell who asks. At every provider: what isn't its own goes upstream as well."""

_BY_NAME: Final = {provider.name: provider for provider in PROVIDERS}

_BY_HOST: Final = {
    host: provider
    for provider in PROVIDERS
    if (host := urlsplit(provider.base_url).hostname) and host != "127.0.0.1"
}

ANY_COMPATIBLE: Final = _BY_NAME["compatible"]
"""Who reads the bytes of a named upstream that no other provider's path or name tells of."""

_OWN_DOMAINS: Final = tuple(
    f".{domain}"
    for domain in {*_BY_HOST, *(one for provider in PROVIDERS for one in provider.own_domains)}
)


def by_name(name: str) -> Provider | None:
    """The provider with this name (`anthropic`), or None."""
    return _BY_NAME.get(name)


def by_host(base_url: str) -> Provider | None:
    """The provider whose own host `base_url` leads to, or None: a host of nobody's, this machine,
    or one that says too little (a region of Google's or Amazon's)."""
    host = (urlsplit(base_url).hostname or "").rstrip(".")
    if (known := _BY_HOST.get(host)) is not None:
        return known
    owners = [
        provider
        for provider in PROVIDERS
        if any(f".{host}".endswith(f".{domain}") for domain in provider.own_domains)
    ]
    return owners[0] if len(owners) == 1 else None


def is_providers_own(base_url: str) -> bool:
    """True when `base_url` leads to a host of one of the providers, not to a local model server or
    a gateway."""
    host = (urlsplit(base_url).hostname or "").rstrip(".")
    return f".{host}".endswith(_OWN_DOMAINS)
