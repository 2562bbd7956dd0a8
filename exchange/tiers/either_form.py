"""The tier of answers in either form: a plain one as a stream, or the other way round.

Only with `CACHE_CROSS_STREAM`. Its key is the normalized one without what says in which form the
request is answered, so a hit may be in the form that was asked for: then the normalized tier has
it, and this one nothing.
"""

from __future__ import annotations

from typing import Self

from llm_cache.exchange.asked import Asked
from llm_cache.exchange.calls import Label
from llm_cache.exchange.entries import is_readable
from llm_cache.exchange.forms import in_asked_form
from llm_cache.exchange.tiers.tier import Tier
from llm_cache.settings import Settings
from llm_cache.store import Store, Stored
from llm_cache.wire.framing import strict_json
from llm_cache.wire.keys import tier_key
from llm_cache.wire.normalize import Rules
from llm_cache.wire.provider import Endpoint, Json


class EitherForm(Tier):
    """Ignores, besides, whether a stream is asked for."""

    label = Label.HIT_NORM

    @classmethod
    def active(cls, settings: Settings, rules: Rules) -> Self | None:
        return cls() if settings.normalize and settings.cross_stream else None

    def key(self, asked: Asked, endpoint: Endpoint, doc: Json) -> bytes | None:
        formless = dict(doc)
        if asked.route.provider.strip_form(endpoint, formless) is None:
            return None
        return tier_key("either form", asked.prefix, strict_json.canonical(formless))

    def look_up(self, store: Store, key: bytes, asked: Asked, *, stale: bool) -> Stored | None:
        stored = super().look_up(store, key, asked, stale=stale)
        if stored is None or not is_readable(stored):
            return stored
        return in_asked_form(stored, asked)
