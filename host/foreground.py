"""The proxy of a home in this very process, and what a service manager hears of it."""

from __future__ import annotations

from llm_cache.errors import LlmCacheError
from llm_cache.host.notify import tell_manager
from llm_cache.server import serve
from llm_cache.server.feed import Feed
from llm_cache.settings import Settings


def run(settings: Settings) -> int:
    """Serve until told to stop; 0 is a clean end. Raises LlmCacheError when it can't start."""
    try:
        return serve.run(settings, ready=_tell_ready)
    except LlmCacheError as error:
        tell_failure(error)
        raise


def tell_failure(error: LlmCacheError) -> None:
    """Let the manager show why there is no proxy."""
    tell_manager(f"STATUS={' '.join(str(error).split())}")


def _tell_ready(address: str, feed: Feed) -> None:
    tell_manager(f"READY=1\nSTATUS=listens on {address}")
