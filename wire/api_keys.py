"""Whether an API key can be one of a provider's, as far as its form tells.

A key for another host than the provider's own (a gateway, a local server) can look like anything,
and isn't judged by it.
"""

from __future__ import annotations

from typing import Final

from llm_cache.wire.provider import Provider
from llm_cache.wire.registry import PROVIDERS

_NOT_FOR_CALLS: Final = {
    "sk-ant-oat": "it is a subscription's token, which only Claude Code itself may send",
    "sk-ant-admin": "it is an admin key, which can't ask models",
}
_PREFIXES: Final = {
    prefix for one in PROVIDERS if one.key_form is not None for prefix in one.key_form.prefixes
}


def wrong_form(provider: Provider, key: str) -> str | None:
    """Why `key` can't be one of this provider's API keys, or None. Never holds the key itself."""
    if key.endswith("..."):
        return "it is a placeholder, not a key"
    form = provider.key_form
    if form is None or not form.prefixes:
        return None
    for prefix, why in _NOT_FOR_CALLS.items():
        if key.startswith(prefix):
            return why
    begins = " or ".join(form.prefixes)
    owner = max((prefix for prefix in _PREFIXES if key.startswith(prefix)), key=len, default=None)
    if owner is not None and owner not in form.prefixes:
        return f"it must begin with {begins}; this one, with {owner}, is another provider's"
    if not key.startswith(form.prefixes) or key in form.prefixes:
        return f"it must begin with {begins}"
    return None
