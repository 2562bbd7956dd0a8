"""The store as commands open it: directly on disk, with the settings' limits and no memory tier.

Looking makes nothing: where there is no store yet, there is nothing to open.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from llm_cache.settings import Settings

if TYPE_CHECKING:
    from llm_cache.store import Store


@contextmanager
def opened_store(settings: Settings) -> Iterator[Store | None]:
    """The store of this home until the block ends, or None. Safe beside a running proxy."""
    if not settings.store_dir.is_dir():
        yield None
        return
    from llm_cache.store import Limits, Store

    limits = Limits(
        ttl_sec=settings.ttl_sec,
        max_entries=settings.max_entries,
        max_bytes=settings.max_bytes,
        max_memory_bytes=0,
        stale_sec=settings.stale_if_error_sec,
    )
    store = Store.open(settings.store_dir, limits)
    try:
        yield store
    finally:
        store.close()
