"""The proxy of a home in this very process, and what others hear of it: a service manager, and a
later restart."""

from __future__ import annotations

import os

from llm_cache.host import record, starting
from llm_cache.host.notify import tell_manager
from llm_cache.server import Feed, serve
from llm_cache.settings import Review, Settings


def check_files(settings: Settings) -> None:
    """See whether the files of the home that a start would read can be used. Raises
    SettingsError."""
    serve.check_files(settings)


def run(review: Review) -> int:
    """Serve by these settings until told to stop; 0 is a clean end. Raises LlmCacheError when it
    can't start."""

    def ready(address: str, _feed: Feed) -> None:
        record.write(review)
        starting.forget_failure(review.settings.home)
        tell_manager(f"READY=1\nSTATUS=listens on {address}")

    code = serve.run(review.settings, ready=ready)
    record.forget(review.settings.home, os.getpid())
    return code
