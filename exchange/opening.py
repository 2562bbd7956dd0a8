"""From settings to what an exchange is made of, and to keys as it would make them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from llm_cache.errors import StoreError
from llm_cache.exchange import edits
from llm_cache.exchange.asked import Asked, Head
from llm_cache.exchange.calls import Label
from llm_cache.exchange.control import by_default, read_control
from llm_cache.exchange.exchange import Exchange
from llm_cache.exchange.heads import Headers, merged_headers
from llm_cache.exchange.home import load_rules
from llm_cache.exchange.journal import Journal, Listener
from llm_cache.exchange.routing import Router
from llm_cache.exchange.tiers import Tiers
from llm_cache.exchange.upstream import Caller
from llm_cache.settings import Settings
from llm_cache.store import Store
from llm_cache.wire.keys import exact_key
from llm_cache.wire.normalize import Rules
from llm_cache.wire.prices import Prices
from llm_cache.wire.provider import Usage

UPKEEP_SEC = 1.0
"""How often access times are written and expired entries are pruned, and what the ledger couldn't
take is tried again."""


@asynccontextmanager
async def open_exchange(
    settings: Settings,
    store: Store,
    rules: Rules,
    prices: Prices,
    listeners: Iterable[Listener] = (),
) -> AsyncIterator[Exchange]:
    """An exchange over `store` for as long as the block runs. When it is left, what is in flight is
    given up and everything is counted; the store stays open."""
    journal = Journal(store.ledger, listeners)
    caller = Caller(silence_sec=settings.upstream_timeout_sec)
    exchange = Exchange(settings, store, journal, caller, rules, prices)
    background = [
        asyncio.ensure_future(_upkeep(store, journal)),
        asyncio.ensure_future(asyncio.to_thread(_warm, prices)),
    ]
    try:
        yield exchange
    finally:
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        await exchange.close()
        await caller.close()
        await journal.close()


def _warm(prices: Prices) -> None:
    """Load the price list now, so that the first answer doesn't wait for it."""
    prices.cost("anthropic", "claude-sonnet-4-5", Usage())


async def _upkeep(store: Store, journal: Journal) -> None:
    while True:
        await asyncio.sleep(UPKEEP_SEC)
        failed = await journal.flush()
        try:
            await asyncio.to_thread(store.flush)
        except StoreError as error:
            failed = error
            journal.housekeeping_failed(error)
        if failed is None:
            journal.housekeeping_done()


def request_keys(
    settings: Settings, method: str, target: str, headers: Headers, body: bytes
) -> tuple[dict[Label, str], str]:
    """The keys (hex) the proxy would use for a request with these settings, by what a hit by each
    is called, and why there are no more. Raises SettingsError, Refused for a wrong header, and
    ValueError for a path that isn't cacheable."""
    fields = merged_headers(headers)
    rules = load_rules(settings)
    router = Router(settings, ignored_headers=rules.ignored_headers)
    route = router.route(method, target.encode("ascii"), fields)
    if route is None or route.endpoint is None:
        raise ValueError(f"{method} {target} is not a request that is cached")
    control = by_default(
        read_control(fields), settings.namespace.encode(), settings.sample.encode()
    )
    prefix = route.key_prefix(headers, control, shared=settings.scope == "shared")
    bare = edits.edited(edits.BEFORE_KEY, route, body).body
    asked = Asked(
        Head(route, headers, fields, control),
        "cache",
        started=0.0,
        body=bare,
        key=exact_key(prefix, bare),
        prefix=prefix,
    )
    tiers = Tiers(settings, rules)
    further = tiers.read(asked)
    keys = {Label.HIT: asked.key.hex()}
    for tier, key in further.found:  # the more exact one of two with one label
        keys.setdefault(tier.label, key.hex())
    return keys, further.note
