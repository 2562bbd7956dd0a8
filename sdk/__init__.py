"""llm-cache: a local-first caching reverse proxy for LLM APIs, and the pieces it is made of.

The public names are loaded when they are first used: `import llm_cache` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from llm_cache.errors import (
        LlmCacheError,
        NotRunningError,
        SettingsError,
        StoreError,
        StoreFormatError,
        UsageError,
    )
    from llm_cache.settings import Settings, load_settings
    from llm_cache.store import Limits, Store, open_store

_MODULES = {
    "LlmCacheError": "errors",
    "Limits": "store",
    "NotRunningError": "errors",
    "Settings": "settings",
    "SettingsError": "errors",
    "Store": "store",
    "StoreError": "errors",
    "StoreFormatError": "errors",
    "UsageError": "errors",
    "load_settings": "settings",
    "open_store": "store",
}

__all__ = [
    "Limits",
    "LlmCacheError",
    "NotRunningError",
    "Settings",
    "SettingsError",
    "Store",
    "StoreError",
    "StoreFormatError",
    "UsageError",
    "__version__",
    "load_settings",
    "open_store",
]


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
