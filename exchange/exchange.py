"""One request's way: answered from memory, joined to a call in progress, or asked upstream.

`Exchanges.answer` is the hot path, top to bottom: key over the raw body, memory, out. Everything
that isn't a hit in memory becomes a flight (see `flights`), whose task looks in the store, tries
the other tiers and calls upstream; the client only follows. What always holds here:

- What is forwarded is the client's own body, but for a local upstream's billing lines (SPEC 4a);
  the key is made of the client's own body, always.
- An answer is stored only when it is whole by its framing and complete by its provider's format,
  and it is stored before its end goes out (see `landing`).
- An answer that broke off is cut for the client too, never ended as if it were whole.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, TypeVar

from llm_cache.errors import StoreError
from llm_cache.exchange.asked import Asked
from llm_cache.exchange.calls import Call, Label
from llm_cache.exchange.control import Control, in_namespace
from llm_cache.exchange.entries import (
    Replay,
    in_identity,
    in_no_coding,
    is_readable,
    readable_by,
    reads,
    replay_of,
)
from llm_cache.exchange.flights import Flight, FlightFailed, Flights, Follower, Found
from llm_cache.exchange.forms import in_asked_form
from llm_cache.exchange.heads import HeaderList, Headers, Refusal, Refused
from llm_cache.exchange.journal import Journal
from llm_cache.exchange.landing import Landing
from llm_cache.exchange.outgoing import outgoing
from llm_cache.exchange.routing import NORMALIZE_BUDGET_SEC, Route
from llm_cache.exchange.signing import Signer
from llm_cache.exchange.upstream import Caller, UpstreamFailed
from llm_cache.server.bodies import ClientGone, Receive, read_body
from llm_cache.settings import Settings
from llm_cache.store import Store, Stored
from llm_cache.wire.billing import BILLING, rewrite_billing
from llm_cache.wire.framing.encoding import ContentDecoder, decoder
from llm_cache.wire.framing.headers import end_to_end
from llm_cache.wire.keys import exact_key
from llm_cache.wire.normalize import FurtherKeys, Rules, further_keys
from llm_cache.wire.prices import Prices
from llm_cache.wire.request_fields import cache_bypass

Send = Callable[[dict[str, Any]], Awaitable[None]]

DECODED_LIMIT = 1 << 30
"""Most bytes a stored answer may have once its content coding is undone."""

NORMALIZE_PATIENCE_SEC = 2.0
"""How long a request waits for its further keys when others keep the threads busy."""

_EITHER_FORM = "either form"
"""The tier of answers that may have to be turned into a stream, or a stream into them."""
_NO_KEYS = FurtherKeys(None, None, "")

Result = TypeVar("Result")


class Exchanges:
    """Answers requests to providers. One per running proxy."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        journal: Journal,
        caller: Caller,
        rules: Rules,
        prices: Prices,
    ) -> None:
        self._settings = settings
        self._store = store
        self._journal = journal
        self._caller = caller
        self._rules = rules
        self._prices = prices
        self._shared = settings.scope == "shared"
        self._namespace = settings.namespace.encode()
        self._token = (settings.auth_token or "").encode()
        self._signer = Signer()
        self._loop = asyncio.get_running_loop()
        self._readers = ThreadPoolExecutor(4, "llm-cache-read")
        self._writers = ThreadPoolExecutor(4, "llm-cache-write")  # those may wait for a lock
        self._strippers = ThreadPoolExecutor(4, "llm-cache-normalize")
        self.flights = Flights(journal.internal_error)
        self.off = settings.off
        """True: forward everything, store nothing. Switched by `POST /cache/mode`."""
        self.fast_hits = 0
        """Hits of this run that took the short way (see `fastlane`)."""
        self.date = b""
        """The current HTTP date, kept up by the server."""

    async def close(self) -> None:
        """Give up what is in flight and let the threads end."""
        await self.flights.cancel_all()
        self._readers.shutdown(wait=True)
        self._writers.shutdown(wait=True)
        self._strippers.shutdown(wait=True, cancel_futures=True)

    # The hot path.

    async def answer(
        self,
        route: Route,
        headers: Headers,
        fields: Mapping[bytes, bytes],
        control: Control,
        receive: Receive,
        send: Send,
    ) -> None:
        """Answer a request to a provider. Raises `Refused` and `ClientGone`."""
        started = time.perf_counter()
        settings = self._settings
        body = await read_body(
            receive, fields, settings.max_request_bytes, settings.client_timeout_sec
        )
        mode = control.mode
        if b'"_cache_bypass"' in body:
            bypass, body = await self._in_thread(cache_bypass, body)
            if bypass and mode is None:
                mode = "bypass"
        prefix = self.key_prefix(route, headers, fields, control)
        key = exact_key(prefix, body)
        if route.endpoint is not None and self.may_recall(mode):
            stored = self.recall(key, control.ttl)
            if stored is not None:
                await self._replay(stored, "HIT", key, fields, send, started)
                return
        if mode is None:
            mode = self._settings.mode
        if self.off and mode != "replay":
            mode = "bypass"
        asked = Asked(route, headers, fields, control, mode, body, key, prefix, started)
        await self._answer_from_flight(asked, receive, send)

    def key_prefix(
        self, route: Route, headers: Headers, fields: Mapping[bytes, bytes], control: Control
    ) -> bytes:
        """All of a request's key but the body."""
        control = in_namespace(control, self._namespace)
        return route.key_prefix(headers, fields, control, shared=self._shared)

    def may_recall(self, mode: str | None) -> bool:
        """True when a request that asks for `mode` (None: for nothing) may be answered from the
        store."""
        mode = mode or self._settings.mode
        return mode == "replay" or (mode == "cache" and not self.off)

    def recall(self, key: bytes, ttl: float | None) -> Stored | None:
        """The answer, if memory has it. A store that fails has none."""
        try:
            stored = self._store.get_in_memory(key, max_age=ttl)
        except StoreError as error:
            self._journal.store_failed(error)
            return None
        return stored if stored is None or is_readable(stored) else None

    def note_hit(self, replay: Replay, label: str, hex_key: str, started: float) -> None:
        """Count a replay, begun at `started` (perf_counter seconds)."""
        self._journal.note(
            Call(
                type=Label(label),
                provider=replay.provider,
                model=replay.model,
                status=replay.status,
                seconds=time.perf_counter() - started,
                key=hex_key,
                usage=replay.usage,
                nano_usd=replay.nano_usd,
                snippet=replay.snippet,
            )
        )

    async def _replay(
        self,
        stored: Stored,
        label: str,
        key: bytes,
        fields: Mapping[bytes, bytes],
        send: Send,
        started: float,
    ) -> None:
        replay = replay_of(stored)
        headers, body = replay.headers, stored.body
        if not readable_by(replay, fields.get(b"accept-encoding")):
            headers, body = in_identity(replay, body, DECODED_LIMIT)
        hex_key = key.hex()
        age = max(0, int(time.time() - stored.entry.created))
        await send(
            {
                "type": "http.response.start",
                "status": replay.status,
                "headers": [
                    *headers,
                    (b"x-cache", label.encode()),
                    (b"x-cache-key", hex_key.encode()),
                    (b"age", b"%d" % age),
                    (b"date", self.date),
                ],
            }
        )
        await send({"type": "http.response.body", "body": body})
        self.note_hit(replay, label, hex_key, started)

    # Everything else: a flight and its followers.

    async def _answer_from_flight(self, asked: Asked, receive: Receive, send: Send) -> None:
        flight = None
        if asked.mode == "cache" and asked.route.endpoint is not None:
            flight = self.flights.joinable(asked.key)
        led = flight is None
        if flight is None:
            flight = self._start(asked)
        async with _cancelled_when_gone(receive):
            with flight.follow() as follower:
                suits = await self._relay(follower, asked, led, send)
            if not suits:  # having left it, so that nobody waits for this one there
                await self._relay_alone(asked, send)

    def _start(self, asked: Asked) -> Flight:
        if asked.mode == "replay":
            return self.flights.start(None, lambda flight: self._only_find(flight, asked))
        if asked.mode == "cache" and asked.route.endpoint is not None:
            return self.flights.start(asked.key, lambda flight: self._find_or_ask(flight, asked))
        return self.flights.start(None, lambda flight: self._ask(flight, asked))

    async def _relay(self, follower: Follower, asked: Asked, led: bool, send: Send) -> bool:
        """Pass the flight's answer on; False, with nothing sent, when it suits this client not."""
        flight = follower.flight
        try:
            await follower.head()
        except FlightFailed as failure:
            raise Refused(Refusal(502, "upstream_error", str(failure))) from None
        if flight.found is not None:
            found = flight.found
            if led or self._fresh_enough(found, asked):
                await self._replay(
                    found.stored, found.label, found.key, asked.fields, send, asked.started
                )
                return True
            return False  # joined somebody who takes older answers than this client does
        headers: Headers = flight.headers
        if not led:  # a cookie is meant for the client that was answered first
            headers = [h for h in headers if h[0] not in (b"set-cookie", b"set-cookie2")]
        plain: ContentDecoder | None = None
        coding = dict(headers).get(b"content-encoding", b"")
        if not reads(asked.fields.get(b"accept-encoding"), coding):
            plain = decoder(coding) if _may_be_stored(asked) else None
            if plain is not None:
                headers = in_no_coding(headers)
            elif not led:
                return False
        label = _label(flight, asked, led)
        await send(
            {
                "type": "http.response.start",
                "status": flight.status,
                "headers": [
                    *headers,
                    (b"x-cache", label.encode()),
                    (b"x-cache-key", asked.key.hex().encode()),
                ],
            }
        )
        try:
            await _pass_on(follower, plain, send)
        finally:
            if not led and flight.ended:
                self._journal.note(_joined(flight, asked, label))
        await send({"type": "http.response.body", "body": b""})
        return True

    def _fresh_enough(self, found: Found, asked: Asked) -> bool:
        ttl = asked.control.ttl
        patience = self._settings.stale_if_error_sec if found.label == "HIT-STALE" else 0
        return ttl is None or time.time() - found.stored.entry.created < ttl + patience

    async def _relay_alone(self, asked: Asked, send: Send) -> None:
        """Ask upstream for a joiner whom the answer of the flight it joined doesn't suit."""
        flight = self.flights.start(None, lambda flight: self._ask(flight, asked))
        with flight.follow() as own:
            await self._relay(own, asked, True, send)

    # What a flight does.

    async def _find_or_ask(self, flight: Flight, asked: Asked) -> None:
        found, keys = await self._find(asked)
        if found is not None:
            flight.answer_found(found)
        else:
            await self._ask(flight, asked, keys)

    async def _only_find(self, flight: Flight, asked: Asked) -> None:
        if asked.route.endpoint is not None:
            found, _ = await self._find(asked)
            if found is not None:
                flight.answer_found(found)
                return
        note = "not in the cache, and mode replay never asks upstream"
        model = await self._in_thread(asked.model)
        call = replace(asked.call("MISS", 504), note=note, asked_model=model)
        await self._journal.record(call)
        what = f"{asked.route.method} {asked.route.path}"
        self._answer_here(flight, asked, 504, "cache_miss", f"{asked.key.hex()} ({what}): {note}")

    async def _find(self, asked: Asked) -> tuple[Found | None, FurtherKeys]:
        """Look in the store by every active tier. Never raises: a failing store finds nothing."""
        if not self._rules.strips:
            return await self._in_thread(self._look_up, asked)  # all of it: a thread once
        found = await self._in_thread(self._first_of, asked, ((asked.key, "HIT"),))
        if found is not None:
            return found, _NO_KEYS
        keys = await self._further_keys(asked)
        return await self._in_thread(self._first_of, asked, _further(keys)), keys

    def _look_up(self, asked: Asked) -> tuple[Found | None, FurtherKeys]:
        found = self._first_of(asked, ((asked.key, "HIT"),))
        if found is not None:
            return found, _NO_KEYS
        keys = self._make_further_keys(asked)
        return self._first_of(asked, _further(keys)), keys

    def _first_of(
        self, asked: Asked, keys: Iterable[tuple[bytes, str]], stale: bool = False
    ) -> Found | None:
        try:
            for key, label in keys:
                stored = self._store.get(key, max_age=asked.control.ttl, stale=stale)
                if stored is not None and not is_readable(stored):
                    self._store.delete(key)
                    damage = StoreError(f"the entry {key.hex()} can't be read and is dropped")
                    self._loop.call_soon_threadsafe(self._journal.store_failed, damage)
                    continue
                if stored is not None and label == _EITHER_FORM:
                    stored = in_asked_form(stored, asked, DECODED_LIMIT)
                    label = "HIT-NORM"
                if stored is not None:
                    return Found(stored, label, key)
        except StoreError as error:
            self._loop.call_soon_threadsafe(self._journal.store_failed, error)
        return None

    async def _further_keys(self, asked: Asked) -> FurtherKeys:
        """The keys of the tiers after exact, within a bounded time: patterns that strip have
        threads of their own, and a request that finds them busy goes on without these keys."""
        if not self._rules.strips:
            return await self._in_thread(self._make_further_keys, asked)
        making = self._loop.run_in_executor(self._strippers, self._make_further_keys, asked)
        try:
            return await asyncio.wait_for(making, NORMALIZE_PATIENCE_SEC)
        except TimeoutError:
            return FurtherKeys(None, None, "the patterns of normalize.json keep every thread busy")

    def _make_further_keys(self, asked: Asked) -> FurtherKeys:
        endpoint = asked.route.endpoint
        if not self._settings.normalize or asked.mode == "bypass" or endpoint is None:
            return _NO_KEYS
        keys = further_keys(
            asked.route.provider,
            endpoint,
            asked.prefix,
            asked.body,
            self._rules,
            NORMALIZE_BUDGET_SEC,
            cross_stream=self._settings.cross_stream,
        )
        if keys.note:
            note = f"no further keys: {keys.note}"
            self._loop.call_soon_threadsafe(self._journal.debug, note)
        return keys

    async def _in_thread(self, function: Callable[..., Result], *arguments: object) -> Result:
        return await self._loop.run_in_executor(self._readers, function, *arguments)

    async def _ask(self, flight: Flight, asked: Asked, keys: FurtherKeys | None = None) -> None:
        if keys is None:
            keys = await self._further_keys(asked)
        storing = _may_be_stored(asked)
        if not storing:
            flight.stop_keeping()
        route = asked.route
        head = outgoing(route, asked.headers, self._token)
        body = await self._forwarded_body(asked)
        try:
            if head.unsigned:
                head.headers.extend(
                    await self._signer.signature(
                        route.provider.service,
                        route.upstream,
                        route.method,
                        head.target,
                        head.headers,
                        body,
                    )
                )
            async with self._caller.call(
                route.upstream, route.method, head.target, head.headers, body
            ) as response:
                if response.status >= 500:
                    reason = f"upstream {route.upstream.base_url} answered {response.status}"
                    if await self._answer_stale(flight, asked, keys, reason):
                        return
                if response.ends_with_head:
                    self.flights.close_to_joiners(flight)  # clients can't tell it isn't over yet
                flight.begin(response.status, self._client_headers(response.headers))
                landing = Landing(
                    flight=flight,
                    flights=self.flights,
                    asked=asked,
                    keys=keys,
                    store=self._store,
                    prices=self._prices,
                    journal=self._journal,
                    threads=self._writers,
                    max_entry_bytes=self._settings.max_entry_bytes,
                    store_requests=self._settings.store_requests,
                    ttl_deterministic_sec=self._settings.ttl_deterministic_sec,
                )
                label = _label(flight, asked, led=True)
                await landing.bring_in(response, label, may_store=storing)
        except UpstreamFailed as error:
            if flight.began or not await self._answer_stale(flight, asked, keys, str(error)):
                await self._upstream_failed(flight, asked, str(error))
        except asyncio.CancelledError:
            label = _label(flight, asked, led=True)
            gone = replace(asked.call(label, 499), note="given up: nobody waited for it any more")
            self._journal.note(gone)
            raise

    async def _forwarded_body(self, asked: Asked) -> bytes:
        """The client's bytes, but for what a local upstream's rule changes (SPEC 4a)."""
        body, fixed = asked.body, 0
        if asked.route.fixes_billing and BILLING in body:
            body, fixed = await self._in_thread(rewrite_billing, body)
        if asked.body:
            route = asked.route
            change = f", {fixed} billing header values fixed: {len(body)} bytes" if fixed else ""
            self._journal.debug(
                f"{route.method} {route.path} to {route.upstream.base_url}: "
                f"body of {len(asked.body)} bytes{change}"
            )
        return body

    async def _answer_stale(
        self, flight: Flight, asked: Asked, keys: FurtherKeys, reason: str
    ) -> bool:
        """Land with an expired answer in place of an upstream's failure (RFC 5861, 4); False when
        there is none, or nobody may get it. A 429 is no failure: it says when to come back."""
        if (
            not self._settings.stale_if_error_sec
            or asked.mode != "cache"
            or asked.route.endpoint is None
        ):
            return False
        tiers = [(asked.key, "HIT"), *_further(keys)]
        found = await self._in_thread(self._first_of, asked, tiers, True)
        if found is None:
            return False
        self._journal.problem(f"{reason}; an expired answer went out in its place")
        flight.answer_found(Found(found.stored, "HIT-STALE", found.key))
        return True

    async def _upstream_failed(self, flight: Flight, asked: Asked, reason: str) -> None:
        status = flight.status if flight.began else 502
        model = await self._in_thread(asked.model)
        call = replace(asked.call("ERROR", status), note=reason, error=True, asked_model=model)
        await self._journal.record(call)
        if flight.began:
            flight.fail(reason)
        else:
            self._answer_here(flight, asked, 502, "upstream_error", reason)

    def _answer_here(
        self, flight: Flight, asked: Asked, status: int, kind: str, message: str
    ) -> None:
        shape, endpoint = asked.route.provider, asked.route.endpoint
        if endpoint is not None:
            shape = shape.error_shape(endpoint)
        body = shape.error_body(status, kind, message)
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"date", self.date),
        ]
        if kind == "cache_miss":  # the SDKs would ask again, several times, and in vain
            headers.append((b"x-should-retry", b"false"))
        flight.made_here = True
        flight.begin(status, headers)
        flight.publish(body)
        flight.land()

    def _client_headers(self, headers: Headers) -> HeaderList:
        """An upstream's answer head for the client: end-to-end, without an `x-cache` not ours."""
        out = [h for h in end_to_end(headers) if not h[0].startswith(b"x-cache")]
        if all(name != b"date" for name, _ in out):
            out.append((b"date", self.date))  # RFC 9110 6.6.1
        return out


async def _pass_on(follower: Follower, plain: ContentDecoder | None, send: Send) -> None:
    """Send what is followed, decoded by `plain` if given, to its end; not the end itself."""
    while data := await follower.next():
        if plain is None:
            await send({"type": "http.response.body", "body": data, "more_body": True})
            continue
        try:
            for piece in plain.pieces(data):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        except ValueError as error:
            raise FlightFailed(f"broken content-encoding: {error}") from None
    if plain is not None:
        try:
            plain.close()
        except ValueError as error:
            raise FlightFailed(f"broken content-encoding: {error}") from None


def _may_be_stored(asked: Asked) -> bool:
    """False for what passes through untouched."""
    return asked.mode != "bypass" and asked.route.endpoint is not None


def _further(keys: FurtherKeys) -> Iterator[tuple[bytes, str]]:
    """The further keys there are, with the label of a hit by each, the most exact first."""
    if keys.normalized is not None:
        yield keys.normalized, "HIT-NORM"
    if keys.either_form is not None:
        yield keys.either_form, _EITHER_FORM
    if keys.suffix is not None:
        yield keys.suffix, "HIT-SUFFIX"


def _label(flight: Flight, asked: Asked, led: bool) -> str:
    if not led:
        return "HIT-COALESCED" if flight.status == 200 else "MISS-COALESCED"
    if flight.made_here:
        return "MISS" if flight.status == 504 else "ERROR"
    if asked.mode == "bypass":
        return "BYPASS"
    return "MISS" if asked.route.endpoint is not None else "PASS"


def _joined(flight: Flight, asked: Asked, label: str) -> Call:
    """The record of a request that followed another's flight."""
    call = asked.call(label, flight.status)
    landed = flight.outcome
    if landed is None:
        return replace(call, error=True)
    if label != "HIT-COALESCED":
        return replace(call, model=landed.model, error=True)
    return replace(
        call,
        model=landed.model,
        usage=landed.usage,
        nano_usd=landed.nano_usd,
        snippet=landed.snippet,
    )


@asynccontextmanager
async def _cancelled_when_gone(receive: Receive) -> AsyncIterator[None]:
    """Leave the block as soon as the client closes its connection. Raises `ClientGone` then."""
    task = asyncio.current_task()
    assert task is not None
    inside = True
    left = False

    def leave(watch: asyncio.Future[None]) -> None:
        nonlocal left
        if inside and not watch.cancelled():
            left = True
            task.cancel()

    watch = asyncio.ensure_future(_until_gone(receive))
    watch.add_done_callback(leave)
    try:
        yield
    except asyncio.CancelledError:
        if not left:
            raise  # the server is stopping
        task.uncancel()
        raise ClientGone from None
    finally:
        inside = False
        watch.cancel()


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
