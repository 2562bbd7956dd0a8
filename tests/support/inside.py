"""An exchange in the test's own process, in front of a real upstream on loopback.

async with inside(home, upstream.url) as cache:
    answer = await cache.ask(message())
    assert answer.label == "MISS"
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from llm_cache.exchange.asked import Head
from llm_cache.exchange.bodies import Body, Given
from llm_cache.exchange.calls import Call, Kind
from llm_cache.exchange.control import read_control
from llm_cache.exchange.exchange import Exchange
from llm_cache.exchange.figures import summary
from llm_cache.exchange.heads import merged_headers
from llm_cache.exchange.home import load_prices, load_rules, open_store
from llm_cache.exchange.journal import Level, Listener
from llm_cache.exchange.opening import open_exchange
from llm_cache.exchange.reply import Reply
from llm_cache.exchange.routing import Router
from llm_cache.settings import Settings, load_settings
from llm_cache.store import Store

Fields = Mapping[str, str]
BASE: Fields = {"content-type": "application/json", "x-api-key": "sk-ant-test-key"}

NONE: Fields = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client would have got."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes

    def header(self, name: str) -> str | None:
        """One header's value."""
        return next((v.decode() for n, v in self.headers if n == name.encode()), None)

    @property
    def label(self) -> str | None:
        """`x-cache`."""
        return self.header("x-cache")


class Heard(Listener):
    """All that the journal told."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.problems: list[str] = []

    def heard(self, calls: Sequence[Call], now: float) -> None:
        self.calls += calls

    def told(self, level: Level, text: str, now: float) -> None:
        if level == "error":
            self.problems.append(text)


@dataclass(slots=True)
class Inside:
    """A running exchange."""

    exchange: Exchange
    store: Store
    settings: Settings
    router: Router
    heard: Heard = field(default_factory=Heard)

    async def begin(
        self,
        body: bytes | Body,
        fields: Fields = NONE,
        *,
        path: str = "/v1/messages",
        method: str = "POST",
    ) -> Reply:
        """Ask; the reply as it is then, to be closed by who asked."""
        return await self.start(body, [*{**BASE, **fields}.items()], path, method)

    async def start(
        self,
        body: bytes | Body,
        fields: Sequence[tuple[str, str]],
        path: str = "/v1/messages",
        method: str = "POST",
    ) -> Reply:
        """Ask with exactly these headers."""
        headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in fields]
        merged = merged_headers(headers)
        route = self.router.route(method, path.encode(), merged)
        assert route is not None
        head = Head(route, headers, merged, read_control(merged))
        given = Given(body) if isinstance(body, bytes) else body
        return await self.exchange.answer(head, given)

    async def ask(self, body: bytes | Body, fields: Fields = NONE, **where: str) -> Answer:
        """Ask, and take the answer to its end."""
        return await taken(await self.begin(body, fields, **where))

    async def figures(self) -> dict[str, Any]:
        """The sums of this run, each call counted."""
        await self.exchange.journal.flush()
        return summary(self.exchange.journal.session)

    @property
    def kinds(self) -> list[Kind]:
        """What each call heard of so far counted as."""
        return [call.kind for call in self.heard.calls]


async def taken(reply: Reply) -> Answer:
    """The whole of a reply, which is closed."""
    try:
        await reply.begin()
        pieces = []
        while piece := await reply.next():
            pieces.append(piece)
        return Answer(reply.status, list(reply.headers), b"".join(pieces))
    finally:
        reply.close()


@asynccontextmanager
async def inside(home: Path, upstream_url: str, **settings: str) -> AsyncIterator[Inside]:
    """An exchange over a store of its own in `home`."""
    environ = {
        "LLM_CACHE_HOME": str(home),
        "CACHE_UPSTREAM_ANTHROPIC": upstream_url,
        "CACHE_UPSTREAM_OPENAI": upstream_url,
        **settings,
    }
    async with opened(load_settings(environ=environ)) as cache:
        yield cache


@asynccontextmanager
async def opened(settings: Settings, *listeners: Listener) -> AsyncIterator[Inside]:
    """An exchange as these settings make it, and who else listens to it."""
    settings.make_home()
    heard = Heard()
    store = await asyncio.to_thread(open_store, settings)
    try:
        rules, prices = load_rules(settings), load_prices(settings)
        async with open_exchange(settings, store, rules, prices, [heard, *listeners]) as exchange:
            router = Router(settings, ignored_headers=rules.ignored_headers)
            yield Inside(exchange, store, settings, router, heard)
    finally:
        await asyncio.to_thread(store.close)
