"""The exact tier: the same bytes, asked in the same way."""

from __future__ import annotations

from typing import Self

from llm_cache.exchange.asked import Asked
from llm_cache.exchange.calls import Label
from llm_cache.exchange.tiers.tier import Tier
from llm_cache.settings import Settings
from llm_cache.wire.normalize import Rules
from llm_cache.wire.provider import Endpoint, Json


class Exact(Tier):
    """Ignores nothing. Its key was made when the request was read."""

    label = Label.HIT
    reads_body = False

    @classmethod
    def active(cls, settings: Settings, rules: Rules) -> Self:
        return cls()

    def key(self, asked: Asked, endpoint: Endpoint, doc: Json) -> bytes:
        return asked.key
