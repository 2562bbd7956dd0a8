"""The normalized tier: another spelling of the same JSON, and what makes no difference left out."""

from __future__ import annotations

from typing import Self

from llm_cache.exchange.asked import Asked
from llm_cache.exchange.calls import Label
from llm_cache.exchange.tiers.tier import Tier
from llm_cache.settings import Settings
from llm_cache.wire.framing import strict_json
from llm_cache.wire.keys import tier_key
from llm_cache.wire.normalize import Rules
from llm_cache.wire.provider import Endpoint, Json


class Normalized(Tier):
    """Ignores the order of members, white space, and what `wire.normalize` takes out."""

    label = Label.HIT_NORM

    @classmethod
    def active(cls, settings: Settings, rules: Rules) -> Self | None:
        return cls() if settings.normalize else None

    def key(self, asked: Asked, endpoint: Endpoint, doc: Json) -> bytes:
        return tier_key("normalized", asked.prefix, strict_json.canonical(doc))
