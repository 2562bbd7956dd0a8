"""How an upstream's answer comes in: passed on as it arrives, watched, and stored before its end.

The bytes go to the flight's followers untouched while the provider's watcher reads along. What
holds: the end of an answer is published only after it was stored (or found not storable) and is
in the ledger, so a repeat sent after the last byte is a hit and `kill -9` loses no counted miss.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from concurrent.futures import Executor, Future
from contextlib import suppress
from dataclasses import replace

from llm_cache.errors import StoreError
from llm_cache.exchange.asked import Asked, printable_name
from llm_cache.exchange.calls import NANO, Call, tally
from llm_cache.exchange.entries import encode_meta
from llm_cache.exchange.flights import Flight, Flights
from llm_cache.exchange.heads import Headers
from llm_cache.exchange.journal import Journal
from llm_cache.exchange.upstream import Response
from llm_cache.store import Draft, Store
from llm_cache.wire.framing.encoding import ContentDecoder, decoder
from llm_cache.wire.normalize import FurtherKeys
from llm_cache.wire.prices import Prices
from llm_cache.wire.provider import Answer, Endpoint, Watcher
from llm_cache.wire.readable import reading as readable

END_WAIT_SEC = 0.25
"""How long the last bytes of an answer that is complete by its events wait for the upstream's end,
so that the answer is stored before they go out."""


class Landing:
    """Brings one answer in. `label` is what its call is counted as."""

    def __init__(
        self,
        *,
        flight: Flight,
        flights: Flights,
        asked: Asked,
        keys: FurtherKeys,
        store: Store,
        prices: Prices,
        journal: Journal,
        threads: Executor,
        max_entry_bytes: int,
        store_requests: bool,
        ttl_deterministic_sec: float | None,
    ) -> None:
        self._flight = flight
        self._flights = flights
        self._asked = asked
        self._keys = keys
        self._store = store
        self._prices = prices
        self._journal = journal
        self._threads = threads
        self._max_entry_bytes = max_entry_bytes
        self._store_requests = store_requests
        self._ttl_deterministic_sec = ttl_deterministic_sec
        self._size = 0
        self._decoded_size = 0
        self._watcher: Watcher | None = None
        self._decoder: ContentDecoder | None = None
        self._request: Future[Draft] | None = None  # the request's body on its way into the store
        self._unread = ""  # why the answer can't be read along; "" = it can

    async def bring_in(self, response: Response, label: str, *, may_store: bool) -> None:
        """Publish the body of `response` to the flight's followers, store it, land the flight.

        Raises `UpstreamFailed` when the answer breaks off.
        """
        self._watch(response)
        try:
            await self._follow(response, label, may_store)
        finally:
            if self._request is not None:
                self._threads.submit(_give_up, self._request)

    async def _follow(self, response: Response, label: str, may_store: bool) -> None:
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
                if self._request is None and may_store:
                    self._draft_request(response.status)
        flight.whole = True
        call = await self._finish(response, label, held, may_store)
        flight.outcome = call
        if held:
            flight.publish(held)
        flight.land()

    def _draft_request(self, status: int) -> None:
        """Use the time until the answer's end, now that its beginning is on its way."""
        if self._store_requests and status == 200 and self._watcher is not None:
            self._request = self._threads.submit(self._store.draft, self._asked.body)

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
        if self._size > self._max_entry_bytes:
            self._pass_only()
        if self._watcher is None or self._decoder is None:
            return
        try:
            data = self._decoder.feed(chunk)
        except ValueError as error:
            self._unread = f"broken content-encoding: {error}"
            self._watcher = None
            return
        self._decoded_size += len(data)
        if self._decoded_size > self._max_entry_bytes:
            self._pass_only()
        else:
            self._watcher.feed(data)
            if self._watcher.failed:  # who saw that and asks again wants another answer
                self._flights.close_to_joiners(self._flight)

    def _pass_only(self) -> None:
        """Hold nothing of an answer too large to be stored, as sent or decoded: neither for joiners
        nor in the watcher, which may keep what it reads."""
        self._unread = f"larger than {self._max_entry_bytes} bytes"
        self._watcher = None
        if self._flight.keep:
            self._flights.close_to_joiners(self._flight)
            self._flight.stop_keeping()

    async def _finish(self, response: Response, label: str, held: bytes, may_store: bool) -> Call:
        """Store and count the answer whose last byte has arrived."""
        asked = self._asked
        if asked.route.endpoint is None:
            call = asked.call(label, response.status)
            self._journal.note(call)
            return call
        answer = self._facts()
        if answer.usage is None:
            told = asked.route.provider.header_usage(dict(response.headers))
            answer = replace(answer, usage=told)
        storable = may_store and response.status == 200 and answer.complete and self._flight.keep
        call = replace(
            asked.call(label, response.status),
            model=printable_name(answer.model),
            usage=answer.usage,
            snippet=answer.snippet,
            error=response.status >= 400,
            note="" if storable or not may_store else answer.reason or f"status {response.status}",
        )
        run = asyncio.get_running_loop().run_in_executor
        call, failure = await run(self._threads, self._settle, call, response, held, storable)
        if failure is not None:
            self._journal.store_failed(failure)
            self._journal.note(call)
        else:
            self._journal.noted_in_ledger(call)
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
        asked = self._asked
        endpoint = asked.route.endpoint
        assert endpoint is not None
        if call.model is None:
            named = asked.model()
            # Cohere's answers name none. A model nobody answered for isn't counted as one: anybody
            # can name any.
            call = replace(call, model=named if call.usage else None, asked_model=named)
        if call.usage is not None and call.model is not None:
            cost = self._prices.cost(call.provider, call.model, call.usage, endpoint.price_ids)
            if cost is not None:
                call = replace(call, nano_usd=round(cost * NANO))
        try:
            if not storable:
                self._store.ledger.add(tally(call))
                return call, None
            prompt = ""
            if self._store_requests:
                prompt = readable.prompt(call.provider, endpoint.name, asked.body)
            meta = encode_meta(call, response.headers, endpoint.name, prompt)
            draft, self._request = self._request, None  # `put` closes it
            request = asked.body if draft is None else draft.result()
            further = self._keys
            keys = [asked.key, further.normalized, further.either_form, further.suffix]
            self._store.put(
                [key for key in keys if key is not None],
                meta,
                self._flight.so_far() + held,
                request=request if self._store_requests else None,
                ttl=self._ttl(asked, endpoint),
                tallies=tally(call),
            )
            return replace(call, stored=True), None
        except StoreError as error:
            return replace(call, note=f"not stored: {error}"), error

    def _ttl(self, asked: Asked, endpoint: Endpoint) -> float | None:
        """How long the answer is kept, in seconds; None: as long as the store keeps any."""
        seconds = self._ttl_deterministic_sec
        if asked.control.ttl is not None or seconds is None:
            return asked.control.ttl
        doc = asked.doc()
        if doc is None or not asked.route.provider.is_deterministic(endpoint, doc):
            return None
        return seconds or math.inf


def _give_up(request: Future[Draft]) -> None:
    """Close what was drafted, if no `put` took it. What can't be removed now is swept later."""
    with suppress(StoreError, OSError):
        request.result().close()


def _content_length(headers: Headers) -> int | None:
    value = dict(headers).get(b"content-length", b"")
    return int(value) if value.isdigit() else None
