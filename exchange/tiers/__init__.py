"""The tiers, the most exact first, and how a request goes through them.

Adding one is a file in this folder and a line in `TIERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from llm_cache.errors import StoreError
from llm_cache.exchange.asked import Asked
from llm_cache.exchange.calls import Label
from llm_cache.exchange.entries import is_readable
from llm_cache.exchange.tiers.either_form import EitherForm
from llm_cache.exchange.tiers.exact import Exact
from llm_cache.exchange.tiers.normalized import Normalized
from llm_cache.exchange.tiers.suffix import Suffix
from llm_cache.exchange.tiers.tier import Tier
from llm_cache.settings import Settings
from llm_cache.store import Entry, Store, Stored
from llm_cache.wire.normalize import NotNormal, Rules, normalize
from llm_cache.wire.provider import Json

TIERS: Final[tuple[type[Tier], ...]] = (
    Exact,
    Normalized,
    EitherForm,
    Suffix,
)

NORMALIZE_BUDGET_SEC = 0.25
"""Longest time spent on the patterns of `normalize.json` for one request."""


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one request, by the tiers that have one; `note` says why there are no more."""

    found: tuple[tuple[Tier, bytes], ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """An answer from the store, the label of the tier it was found by, and the key it has there."""

    stored: Stored
    label: Label
    key: bytes


class Tiers:
    """The active tiers of one exchange. Everything here may block: it is for worker threads."""

    def __init__(
        self, settings: Settings, rules: Rules, budget_sec: float = NORMALIZE_BUDGET_SEC
    ) -> None:
        tiers = [tier for kind in TIERS if (tier := kind.active(settings, rules)) is not None]
        self._at_hand = tuple(tier for tier in tiers if not tier.reads_body)
        self._reading = tuple(tier for tier in tiers if tier.reads_body)
        self._rules = rules
        self._budget_sec = budget_sec
        self.searches = rules.strips and bool(self._reading)
        """True when a key may take long: patterns have to search the request's texts."""

    def at_hand(self, asked: Asked) -> Keys:
        """The keys of the tiers that read no body."""
        return self._keys(self._at_hand, asked, {})

    def read(self, asked: Asked) -> Keys:
        """The keys of the tiers that read the body. Never raises; reads the request's facts too."""
        if not self._reading:
            return Keys()
        doc, endpoint = asked.take_doc(), asked.route.endpoint
        if doc is None or endpoint is None:
            return Keys(note=asked.why_unparsed)
        try:
            provider = asked.route.provider
            normalize(provider, endpoint, doc, asked.body, self._rules, self._budget_sec)
            return self._keys(self._reading, asked, doc)
        except (NotNormal, ValueError) as error:
            return Keys(note=str(error))

    def first(
        self,
        store: Store,
        asked: Asked,
        keys: Keys,
        report: Callable[[StoreError], object],
        *,
        stale: bool = False,
    ) -> Found | None:
        """The first answer that one of `keys` leads to. `report` hears of a store that fails, which
        finds nothing, and of an entry that can't be read, which is dropped."""
        try:
            for tier, key in keys.found:
                stored = tier.look_up(store, key, asked, stale=stale)
                if stored is None:
                    continue
                if is_readable(stored):
                    return Found(stored, tier.label, key)
                store.delete(key)
                report(StoreError(f"the entry {key.hex()} can't be read and is dropped"))
        except StoreError as error:
            report(error)
        return None

    def learn(self, store: Store, asked: Asked, keys: Keys, entry: Entry) -> None:
        """Tell every tier that an answer was stored. Raises StoreError."""
        for tier, key in keys.found:
            tier.learn(store, key, asked, entry)

    def _keys(self, tiers: Iterable[Tier], asked: Asked, doc: Json) -> Keys:
        endpoint = asked.route.endpoint
        if endpoint is None:
            return Keys()
        made = [(tier, tier.key(asked, endpoint, doc)) for tier in tiers]
        return Keys(tuple((tier, key) for tier, key in made if key is not None))
