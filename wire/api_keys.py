"""What a provider's API keys look like, and how to ask for nothing with one.

The forms are what the providers give out today; a key for another host than the provider's own (a
gateway, a local server) can look like anything, and isn't judged by them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class KeyForm:
    """How a provider's keys begin, and the path of an operation that needs a key and costs nothing.

    `prefixes` (): they have no form of their own. `free_path` is without the provider prefix, None
    when there is no such operation; `headers` are what it needs besides the key.
    """

    prefixes: tuple[str, ...] = ()
    free_path: str | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()


FORMS: Final[Mapping[str, KeyForm]] = {
    "anthropic": KeyForm(("sk-ant-",), "/v1/models", ((b"anthropic-version", b"2023-06-01"),)),
    "openai": KeyForm(("sk-",), "/v1/models"),
    "gemini": KeyForm(("AIza", "AQ."), "/v1beta/models"),
    "bedrock": KeyForm(("ABSK", "bedrock-api-key-")),
    "mantle": KeyForm(("ABSK", "bedrock-api-key-")),
    "cohere": KeyForm((), "/v1/models"),
    "mistral": KeyForm((), "/v1/models"),
    "groq": KeyForm(("gsk_",), "/openai/v1/models"),
    "deepseek": KeyForm(("sk-",), "/models"),
    "openrouter": KeyForm(("sk-or-",), "/api/v1/key"),  # its list of models needs no key
    "cerebras": KeyForm(("csk-",), "/v1/models"),
    "together": KeyForm((), "/v1/models"),
    "xai": KeyForm(("xai-",), "/v1/models"),
    "fireworks": KeyForm(("fw_",), "/inference/v1/models"),
    "huggingface": KeyForm(("hf_",)),
    "perplexity": KeyForm(("pplx-",)),
    "moonshot": KeyForm(("sk-",), "/v1/models"),
}
"""By provider name. Source: each provider's API reference, "Authentication" and "List models"."""

_NOT_FOR_CALLS: Final = {
    "sk-ant-oat": "it is a subscription's token, which only Claude Code itself may send",
    "sk-ant-admin": "it is an admin key, which can't ask models",
}


def wrong_form(provider: str, key: str) -> str | None:
    """Why `key` can't be one of this provider's API keys, or None. Never holds the key itself."""
    if key.endswith("..."):
        return "it is a placeholder, not a key"
    form = FORMS.get(provider)
    if form is None or not form.prefixes:
        return None
    for prefix, why in _NOT_FOR_CALLS.items():
        if key.startswith(prefix):
            return why
    begins = " or ".join(form.prefixes)
    owner = _owner(key)
    if owner is not None and owner not in form.prefixes:
        return f"it must begin with {begins}; this one, with {owner}, is another provider's"
    if not key.startswith(form.prefixes) or key in form.prefixes:
        return f"it must begin with {begins}"
    return None


def _owner(key: str) -> str | None:
    """The longest beginning of a provider's keys that `key` has."""
    prefixes = {prefix for form in FORMS.values() for prefix in form.prefixes}
    return max((prefix for prefix in prefixes if key.startswith(prefix)), key=len, default=None)
