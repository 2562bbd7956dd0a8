"""How an upstream's answer comes in: passed on as it arrives, watched, and stored before its end.

The bytes go to the flight's followers untouched while the provider's watcher reads along. What
holds: the end of an answer is published only after it was stored (or found not storable) and is
in the ledger, so a repeat sent after the last byte is a hit and `kill -9` loses no counted miss.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from concurrent.futures import Executor, Future
from contextlib import suppress
from dataclasses import dataclass, replace

from llm_cache.errors import StoreError
from llm_cache.exchange.asked import Asked, printable_name
from llm_cache.exchange.calls import NANO, Call, Label, tally
from llm_cache.exchange.entries import (
    MOST_CHUNKS,
    AskedAs,
    Chunk,
    Credential,
    Meta,
    packed,
)
from llm_cache.exchange.flights import Flight, Flights
from llm_cache.exchange.heads import Headers
from llm_cache.exchange.journal import Journal
from llm_cache.exchange.tiers import Found, Keys, Tiers
from llm_cache.exchange.upstream import Response
from llm_cache.settings import Settings
from llm_cache.store import Draft, Entry, Store
from llm_cache.wire.framing.encoding import ContentDecoder, decoder
from llm_cache.wire.framing.headers import replayable
from llm_cache.wire.prices import Prices
from llm_cache.wire.provider import Answer, Endpoint, Watcher

END_WAIT_SEC = 0.25
"""How long the last bytes of an answer that is complete by its events wait for the upstream's end,
so that the answer is stored before they go out."""


@dataclass(frozen=True, slots=True)
class Means:
    """What every landing of an exchange works with."""

    settings: Settings
    store: Store
    prices: Prices
    journal: Journal
    tiers: Tiers
    flights: Flights[Found | Call]
    writers: Executor


class Landing:
    """Brings one answer in. `label` is what its call is counted as."""

    def __init__(
        self, means: Means, flight: Flight[Found | Call], asked: Asked, keys: Keys, *, storing: bool
    ) -> None:
        self._means = means
        self._flight = flight
        self._asked = asked
        self._keys = keys
        self._storing = storing
        self._max_bytes = means.settings.max_entry_bytes
        self._size = 0
        self._decoded_size = 0
        self._watcher: Watcher | None = None
        self._decoder: ContentDecoder | None = None
        self._request: Future[Draft] | None = None  # the request's body on its way into the store
        self._unread = ""  # why the answer can't be read along; "" = it can
        self._chunks: list[Chunk] = []
        self._first = self._last = 0.0  # when the first and the latest piece came (perf_counter)

    async def bring_in(self, response: Response, label: Label) -> None:
        """Publish the body of `response` to the flight's followers, store it, land the flight.

        Raises `UpstreamFailed` when the answer breaks off.
        """
        self._watch(response)
        try:
            await self._follow(response, label)
        finally:
            if self._request is not None:
                self._means.writers.submit(_give_up, self._request)

    async def _follow(self, response: Response, label: Label) -> None:
        flight = self._flight
        length = _content_length(response.headers)
        chunks = aiter(response.body)
        held = b""
        while True:
            if held and self._size != length:
                chunk, held = await self._await_end(chunks, held)
            else:  # what has the length it was announced with ends without another read
                chunk = await anext(chunks, b"")
            if not chunk:
                break
            if held:
                flight.publish(held)
                held = b""
            self._read(chunk)
            if self._size == length or (self._watcher is not None and self._watcher.done):
                held = chunk
            else:
                flight.publish(chunk)
                await flight.room()
                if self._request is None and self._storing:
                    self._draft_request(response.status)
        flight.whole = True
        call = await self._finish(response, label, held)
        if held:
            flight.publish(held)
        flight.land(call)

    def _draft_request(self, status: int) -> None:
        """Use the time until the answer's end, now that its beginning is on its way."""
        means = self._means
        if means.settings.store_requests and status == 200 and self._watcher is not None:
            self._request = means.writers.submit(means.store.draft, self._asked.body)

    async def _await_end(self, chunks: AsyncIterator[bytes], held: bytes) -> tuple[bytes, bytes]:
        """The next chunk and what is still held: nothing, if the upstream is slow to end. What is
        held is published as well when the upstream breaks off instead of ending."""
        coming = asyncio.ensure_future(anext(chunks, b""))
        try:
            done, _ = await asyncio.wait({coming}, timeout=END_WAIT_SEC)
            if not done or coming.exception() is not None:
                self._flight.publish(held)
                held = b""
            return await coming, held
        finally:
            coming.cancel()

    def _watch(self, response: Response) -> None:
        endpoint = self._asked.route.endpoint
        if endpoint is None:
            return
        fields = dict(response.headers)
        coding = fields.get(b"content-encoding", b"")
        self._decoder = decoder(coding)
        if self._decoder is None:
            self._unread = f"content-encoding {coding[:40]!r} can't be read"
            return
        content_type = fields.get(b"content-type", b"").decode("latin-1")
        self._watcher = self._asked.route.provider.watch(endpoint, response.status, content_type)

    def _read(self, chunk: bytes) -> None:
        self._size += len(chunk)
        if self._storing:
            self._time(chunk)
        if self._size > self._max_bytes:
            self._pass_only()
        if self._watcher is None or self._decoder is None:
            return
        try:
            data = self._decoder.feed(chunk)
        except ValueError as error:
            self._unread = f"broken content-encoding: {error}"
            self._watcher = None
            self._leave_to_itself()
            return
        self._decoded_size += len(data)
        if self._decoded_size > self._max_bytes:
            self._pass_only()
        else:
            self._watcher.feed(data)
            if self._watcher.failed:
                self._leave_to_itself()

    def _leave_to_itself(self) -> None:
        """Nothing good comes of this answer: whoever asks from now on, because they saw that or by
        chance, wants another one."""
        self._means.flights.close_to_joiners(self._flight)

    def _time(self, chunk: bytes) -> None:
        now = time.perf_counter()
        if not self._chunks:
            self._first = self._last = now
        since = int((now - self._last) * 1000)
        if len(self._chunks) < MOST_CHUNKS:
            self._chunks.append((len(chunk), since))
            self._last += since / 1000  # what rounding left out counts for the next
        else:
            size, before = self._chunks[-1]
            self._chunks[-1] = (size + len(chunk), before)

    def _pass_only(self) -> None:
        """Hold nothing of an answer too large to be stored, as sent or decoded: neither for joiners
        nor in the watcher, which may keep what it reads."""
        self._unread = f"larger than {self._max_bytes} bytes"
        self._watcher = None
        self._chunks.clear()
        if self._flight.keep:
            self._leave_to_itself()
            self._flight.stop_keeping()

    async def _finish(self, response: Response, label: Label, held: bytes) -> Call:
        """Store and count the answer whose last byte has arrived."""
        asked, journal = self._asked, self._means.journal
        if asked.route.endpoint is None:
            call = asked.call(label, response.status)
            journal.note(call)
            return call
        answer = self._facts()
        if answer.usage is None:
            told = asked.route.provider.header_usage(dict(response.headers))
            answer = replace(answer, usage=told)
        storing = self._storing
        storable = storing and response.status == 200 and answer.complete and self._flight.keep
        call = replace(
            asked.call(label, response.status),
            model=printable_name(answer.model),
            usage=answer.usage,
            snippet=answer.snippet,
            error=response.status >= 400,
            note="" if storable or not storing else answer.reason or f"status {response.status}",
        )
        run = asyncio.get_running_loop().run_in_executor
        call, failure = await run(self._means.writers, self._settle, call, response, held, storable)
        if failure is not None:
            journal.store_failed(failure)
            journal.note(call)
        else:
            journal.noted_in_ledger(call)
        return call

    def _facts(self) -> Answer:
        if self._watcher is None or self._decoder is None:
            return Answer(complete=False, reason=self._unread)
        answer = self._watcher.close()
        try:
            self._decoder.close()
        except ValueError as error:
            return replace(answer, complete=False, reason=f"broken content-encoding: {error}")
        return answer

    def _settle(
        self, call: Call, response: Response, held: bytes, storable: bool
    ) -> tuple[Call, StoreError | None]:
        """Price, store and count; in a thread. The ledger's part is in the store's transaction."""
        asked, means = self._asked, self._means
        endpoint = asked.route.endpoint
        assert endpoint is not None
        if call.model is None:
            named = asked.facts().model
            # Cohere's answers name none. A model nobody answered for isn't counted as one: anybody
            # can name any.
            call = replace(call, model=named if call.usage else None, asked_model=named)
        if call.usage is not None and call.model is not None:
            cost = means.prices.cost(call.provider, call.model, call.usage, endpoint.price_ids)
            if cost is not None:
                call = replace(call, nano_usd=round(cost * NANO))
        if storable and (leans_on := asked.facts().leans_on):
            call, storable = replace(call, note=leans_on), False
        try:
            if not storable:
                means.store.ledger.add(tally(call))
                return call, None
            entry = self._put(call, response, endpoint, held)
        except StoreError as error:
            return replace(call, note=f"not stored: {error}"), error
        try:
            means.tiers.learn(means.store, asked, self._keys, entry)
        except StoreError as error:
            return replace(call, stored=True, note=f"not learned: {error}"), None
        return replace(call, stored=True), None

    def _put(self, call: Call, response: Response, endpoint: Endpoint, held: bytes) -> Entry:
        asked, means = self._asked, self._means
        keeps = means.settings.store_requests
        draft, self._request = self._request, None  # `put` closes it
        request = asked.body if draft is None else draft.result()
        meta = Meta(
            status=call.status,
            reason=response.reason.decode("latin-1"),
            headers=replayable(response.headers),
            provider=call.provider,
            endpoint=endpoint.name,
            model=call.model,
            usage=call.usage,
            nano_usd=call.nano_usd,
            snippet=call.snippet,
            prompt=asked.facts().prompt if keeps else "",
            request=asked_as(asked, means.settings),
            first_ms=round((self._first - asked.started) * 1000) if self._chunks else None,
            packed_chunks=packed(self._chunks),
        )
        return means.store.put(
            [asked.key, *(key for _, key in self._keys.found if key != asked.key)],
            meta.encode(),
            self._flight.so_far() + held,
            request=request if keeps else None,
            ttl=self._ttl(asked),
            tallies=tally(call),
        )

    def _ttl(self, asked: Asked) -> float | None:
        """How long the answer is kept, in seconds; None: as long as the store keeps any."""
        seconds = self._means.settings.ttl_deterministic_sec
        if asked.control.ttl is not None or seconds is None:
            return asked.control.ttl
        return (seconds or math.inf) if asked.facts().deterministic else None


def asked_as(asked: Asked, settings: Settings) -> AskedAs:
    """What a request's entry says of it."""
    route = asked.route
    counting, withheld = route.counting(asked.headers)
    counted = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in counting]
    credential: Credential = "client"
    if route.real_key is not None:
        credential = "own"
    elif settings.scope == "shared":
        credential = "shared"
    return AskedAs(
        method=route.method,
        target=route.shown_target,
        upstream=route.upstream.base_url,
        headers=tuple(counted),
        withheld=tuple(name.decode("latin-1") for name in withheld),
        namespace=asked.control.namespace.decode("latin-1"),
        sample=asked.control.sample.decode("latin-1"),
        credential=credential,
    )


def _give_up(request: Future[Draft]) -> None:
    """Close what was drafted, if no `put` took it. What can't be removed now is swept later."""
    with suppress(StoreError, OSError):
        request.result().close()


def _content_length(headers: Headers) -> int | None:
    value = dict(headers).get(b"content-length", b"")
    return int(value) if value.isdigit() else None
