"""What a tier is: a way to find an answer to a request that was answered in other bytes before.

A tier is one file in this folder with one subclass of `Tier`, and one line in `__init__`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self

from llm_cache.exchange.asked import Asked
from llm_cache.exchange.calls import Label
from llm_cache.settings import Settings
from llm_cache.store import Entry, Store, Stored
from llm_cache.wire.normalize import Rules
from llm_cache.wire.provider import Endpoint, Json


class Tier(ABC):
    """One way to make a key, to look it up, and to learn from an answer that landed. Its methods
    run in worker threads, several at a time."""

    label: Label
    """What a hit by this tier is called."""
    reads_body = True
    """False when its key is at hand before the body is parsed."""

    @classmethod
    @abstractmethod
    def active(cls, settings: Settings, rules: Rules) -> Self | None:
        """The tier as these settings want it, None when they don't."""

    @abstractmethod
    def key(self, asked: Asked, endpoint: Endpoint, doc: Json) -> bytes | None:
        """The key (32 bytes) of the request, whose normalized form is `doc`; None: the tier has
        nothing to say of this one. `doc` is not changed, but for its own top level.
        """

    def look_up(self, store: Store, key: bytes, asked: Asked, *, stale: bool) -> Stored | None:
        """The answer that `key` leads to, if it suits the request. Raises StoreError."""
        return store.get(key, max_age=asked.control.ttl, stale=stale)

    def learn(  # noqa: B027  # most have nothing to learn
        self, store: Store, key: bytes, asked: Asked, entry: Entry
    ) -> None:
        """An answer to the request landed and was stored as `entry`, under every tier's key. Raises
        StoreError."""
