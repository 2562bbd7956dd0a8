"""The suffix tier: conversations that share their last messages (`suffix_only` in normalize.json).

It refuses where the ignored part could change the meaning of the rest; `wire.turns` has the rule.
"""

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


class Suffix(Tier):
    """Ignores all but the last `turns` messages."""

    label = Label.HIT_SUFFIX

    def __init__(self, turns: int) -> None:
        self._turns = turns

    @classmethod
    def active(cls, settings: Settings, rules: Rules) -> Self | None:
        return cls(rules.suffix_turns) if settings.normalize and rules.suffix_only else None

    def key(self, asked: Asked, endpoint: Endpoint, doc: Json) -> bytes | None:
        kept = dict(doc)
        if not asked.route.provider.keep_last(endpoint, kept, self._turns):
            return None
        return tier_key(f"suffix {self._turns}", asked.prefix, strict_json.canonical(kept))
