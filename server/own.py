"""The proxy's own endpoints: `/health`, `/stats`, `/metrics`, `/monitor`, `/cache/*` (SPEC 5a); and
`/`, when a browser opens it."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from llm_cache import __version__
from llm_cache.errors import StoreError
from llm_cache.exchange import Exchange, Headers, Journal, Refusal, Refused, figures
from llm_cache.server import home_page
from llm_cache.server.bodies import ClientBody, Receive, Send
from llm_cache.server.calllog import CallLog
from llm_cache.server.feed import Feed
from llm_cache.server.latencies import Latencies
from llm_cache.settings import Settings, configured_upstreams
from llm_cache.store import Store

_SMALL_BODY = 64 << 10
_MONITOR = b"/monitor"

Answer = tuple[int, bytes, bytes]
"""Status, content type, body."""

JSON_TYPE = b"application/json"


@dataclass(frozen=True, slots=True)
class Heard:
    """Who listens to the journal, and has figures of its own to show."""

    log: CallLog
    latencies: Latencies
    feed: Feed


class OwnEndpoints:
    """Answers what isn't forwarded. `handles` tells which paths those are, exactly."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        journal: Journal,
        exchange: Exchange,
        heard: Heard,
        *,
        address: str,
    ) -> None:
        self._heard = heard
        self._settings = settings
        self._store = store
        self._journal = journal
        self._exchange = exchange
        self._address = address
        self._started = time.time()
        self._routes: dict[bytes, dict[str, Callable[[bytes, bytes], Awaitable[Answer]]]] = {
            b"/health": {"GET": self._health},
            b"/stats": {"GET": self._stats},
            b"/metrics": {"GET": self._metrics},
            b"/cache/stats": {"GET": self._cache_stats},
            b"/cache/clear": {"POST": self._clear},
            b"/cache/entry": {"DELETE": self._delete_entry},
            b"/cache/mode": {"POST": self._set_mode},
        }

    def handles(self, method: str, path: bytes, fields: Mapping[bytes, bytes]) -> bool:
        """True when the path, compared byte for byte, is our own; `/` only for a browser."""
        return (
            path in self._routes
            or path == _MONITOR
            or path.startswith(b"/cache/")
            or home_page.is_asked(method, path, fields)
        )

    async def answer(
        self,
        method: str,
        path: bytes,
        query: bytes,
        fields: Mapping[bytes, bytes],
        receive: Receive,
        send: Send,
    ) -> None:
        """Answer a request to an own endpoint. Raises `Refused` and `ClientGone`."""
        asked = "GET" if method == "HEAD" else method
        incoming = ClientBody(receive, fields, self._settings.client_timeout_sec)
        body = await incoming.whole(_SMALL_BODY)
        if path == _MONITOR and method == "GET":
            await self._monitor(incoming, send)
            return
        if path == home_page.PATH:
            await self._send(self._page(fields), send, home_page.HEADERS)
            return
        methods = self._routes.get(path, {})
        if asked not in methods:
            name = path.decode("ascii")
            allowed = ("GET",) if path == _MONITOR else tuple(methods)
            if not allowed:
                raise Refused(Refusal(404, "not_found", f"there is no {name} here"))
            what = f"{name} takes {' or '.join(allowed)} only"
            if "GET" in methods:
                allowed += ("HEAD",)
            raise Refused(Refusal(405, "method_not_allowed", what, allowed))
        await self._send(await methods[asked](query, body), send)

    async def _send(self, answer: Answer, send: Send, headers: Headers = ()) -> None:
        status, content_type, data = answer
        await send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [
                    (b"content-type", content_type),
                    (b"content-length", b"%d" % len(data)),
                    (b"cache-control", b"no-store"),
                    (b"date", self._exchange.date(time.time())),
                    *headers,
                ],
            }
        )
        await send({"type": "http.response.body", "body": data})

    def _page(self, fields: Mapping[bytes, bytes]) -> Answer:
        scheme = self._address.partition("://")[0]
        host = fields[b"host"].decode("ascii")  # a name the guard knows
        return 200, b"text/html; charset=utf-8", home_page.page(f"{scheme}://{host}")

    async def _health(self, query: bytes, body: bytes) -> Answer:
        return _json(
            {
                "status": "ok",
                "version": __version__,
                "pid": os.getpid(),
                "cache": self._on_off(),
                "uptime_s": int(time.time() - self._started),
            }
        )

    async def _stats(self, query: bytes, body: bytes) -> Answer:
        return _json(await self._figures())

    async def _figures(self) -> dict[str, Any]:
        all_time = await self._journal.all_time()
        last = self._journal.last_call
        return {
            **figures.summary(all_time),
            "uptime_s": int(time.time() - self._started),
            "cache": self._on_off(),
            **await self._sizes(),
            "session": figures.summary(self._journal.session),
            "by_provider": figures.by_provider(all_time),
            "by_model": figures.by_model(all_time),
            "store_failures": self._journal.store_failures,
            "fast_hits": self._exchange.fast_hits,
            "in_flight": len(self._exchange.flights),
            "last_call_s": None if last is None else round(max(0.0, time.time() - last), 3),
            "recent_errors": list(self._heard.log.errors),
            "address": self._address,
            "started": round(self._started, 3),
            "mode": self._settings.mode,
            "upstreams": configured_upstreams(self._settings),
        }

    async def _metrics(self, query: bytes, body: bytes) -> Answer:
        all_time = await self._journal.all_time()
        sizes = await self._sizes()

        def render() -> bytes:
            from llm_cache.server import metrics  # imports prometheus_client

            return metrics.render(all_time, self._heard.latencies.by_name, sizes)

        data = await asyncio.to_thread(render)
        return 200, b"text/plain; version=0.0.4; charset=utf-8", data

    async def _cache_stats(self, query: bytes, body: bytes) -> Answer:
        sums = figures.summary(await self._journal.all_time())
        names = ("hits", "misses", "hit_rate_pct")
        return _json(
            {
                **await self._sizes(),
                **{name: sums[name] for name in names},
                "max_entries": self._settings.max_entries,
                "max_bytes": self._settings.max_bytes,
                "ttl_sec": self._settings.ttl_sec,
            }
        )

    async def _clear(self, query: bytes, body: bytes) -> Answer:
        removed = await self._store_call(self._store.clear)
        self._journal.info(f"cache cleared: {removed} entries")
        return _json({"status": "success", "removed": removed})

    async def _delete_entry(self, query: bytes, body: bytes) -> Answer:
        text = parse_qs(query.decode("latin-1")).get("key", [""])[-1].lower()
        try:
            key = bytes.fromhex(text)
        except ValueError:
            key = b""
        if len(key) != 32 or len(text) != 64:
            raise Refused(Refusal(400, "invalid_request", "key must be 64 hexadecimal digits"))
        if not await self._store_call(lambda: self._store.delete(key)):
            raise Refused(Refusal(404, "not_found", f"no entry has the key {text}"))
        return _json({"status": "success", "key": text})

    async def _set_mode(self, query: bytes, body: bytes) -> Answer:
        try:
            wanted = json.loads(body)["cache"]
        except (ValueError, KeyError, TypeError, RecursionError):
            wanted = None
        if wanted not in ("on", "off"):
            raise Refused(Refusal(400, "invalid_request", 'the body must be {"cache": "on"|"off"}'))
        self._exchange.off = wanted == "off"
        self._journal.info(f"cache switched {wanted}")
        return _json({"cache": wanted})

    async def _monitor(self, body: ClientBody, send: Send) -> None:
        feed = self._heard.feed
        listener = feed.listen()
        gone = asyncio.ensure_future(_close_when_gone(body, listener.close))
        try:
            await send(
                {
                    "type": "http.response.start",
                    "status": 200,
                    "headers": [
                        (b"content-type", b"text/event-stream"),
                        (b"cache-control", b"no-cache"),
                        (b"date", self._exchange.date(time.time())),
                    ],
                }
            )
            while data := await listener.next():
                await send({"type": "http.response.body", "body": data, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            feed.leave(listener)
            gone.cancel()

    def _on_off(self) -> str:
        return "off" if self._exchange.off else "on"

    async def _sizes(self) -> dict[str, int]:
        try:
            totals = await asyncio.to_thread(self._store.totals)
        except StoreError as error:
            self._journal.store_failed(error)
            return {"entries": 0, "bytes": 0}
        return {"entries": totals.entries, "bytes": totals.bytes}

    async def _store_call(self, function: Callable[[], Any]) -> Any:
        try:
            return await asyncio.to_thread(function)
        except StoreError as error:
            self._journal.store_failed(error)
            raise Refused(Refusal(500, "store_error", str(error))) from None


def _json(value: object) -> Answer:
    return 200, JSON_TYPE, json.dumps(value, indent=2).encode() + b"\n"


async def _close_when_gone(body: ClientBody, close: Callable[[], None]) -> None:
    await body.until_gone()
    close()
