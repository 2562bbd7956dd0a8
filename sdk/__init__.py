"""llm-cache: a local-first caching reverse proxy for LLM APIs, and the pieces it is made of.

The public names are loaded when they are first used: `import llm_cache` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_cache.lazy import lazy

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
else:
    __getattr__, __dir__ = lazy(
        __name__,
        {
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
        },
    )

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
