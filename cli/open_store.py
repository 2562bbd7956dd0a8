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
    from llm_cache.exchange import open_store

    store = open_store(settings, memory=False)
    try:
        yield store
    finally:
        store.close()
