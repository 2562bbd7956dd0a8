"""One request's way: answered from memory, joined to a call in progress, or asked upstream.

`Exchange.answer` is the hot path, top to bottom: key over the raw body, memory, out. Everything
that isn't a hit in memory becomes a flight (see `flights`), whose task looks through the tiers and
calls upstream; whoever asked only follows. What always holds here:

- Nothing is known of servers and processes: a `Head` and a `Body` come in, a `Reply` goes out.
- What is forwarded is the client's own body but for `edits.BEFORE_FORWARDING`, and the key is made
  of the client's own but for `edits.BEFORE_KEY`.
- What is never cached is neither held nor hashed: its body goes up as it comes.
- An answer is stored only when it is whole by its framing and complete by its provider's format,
  and it is stored before its end goes out (see `landing`).
- An answer that broke off is cut for the client too, never ended as if it were whole.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from email.utils import formatdate
from functools import partial
from http import HTTPStatus
from typing import TypeVar

import xxhash

from llm_cache.errors import StoreError
from llm_cache.exchange import edits
from llm_cache.exchange.asked import Asked, Head
from llm_cache.exchange.bodies import Body, ClientGone
from llm_cache.exchange.calls import Call, Label
from llm_cache.exchange.control import AUTO, Control, by_default
from llm_cache.exchange.entries import (
    Replay,
    but_for_credentials,
    is_readable,
)
from llm_cache.exchange.flights import Flight, Flights
from llm_cache.exchange.heads import HeaderList, Headers, Refused
from llm_cache.exchange.journal import Journal
from llm_cache.exchange.landing import Landing, Means, asked_as
from llm_cache.exchange.outgoing import outgoing
from llm_cache.exchange.reply import X_CACHE, Followed, Landed, Recalled, Reply
from llm_cache.exchange.routing import Route
from llm_cache.exchange.samples import Samples
from llm_cache.exchange.signing import Signer
from llm_cache.exchange.tiers import Found, Keys, Tiers
from llm_cache.exchange.upstream import Caller, Response, UpstreamFailed
from llm_cache.settings import Settings
from llm_cache.store import Store, Stored
from llm_cache.wire.framing.encoding import decode_all
from llm_cache.wire.framing.headers import end_to_end
from llm_cache.wire.keys import exact_key
from llm_cache.wire.normalize import Rules
from llm_cache.wire.prices import Prices

NORMALIZE_PATIENCE_SEC = 2.0
"""How long a request waits for its further keys when others keep the threads busy."""

Result = TypeVar("Result")


class Exchange:
    """Answers requests to providers. One per open cache, used on one event loop."""

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
        self.journal = journal
        self._caller = caller
        self._shared = settings.scope == "shared"
        self._namespace = settings.namespace.encode()
        self._sample = settings.sample.encode()
        self._samples = Samples()
        self._max_request_bytes = settings.max_request_bytes
        self._token = (settings.auth_token or "").encode()
        self._signer = Signer()
        self._loop = asyncio.get_running_loop()
        self._readers = ThreadPoolExecutor(4, "llm-cache-read")
        self._writers = ThreadPoolExecutor(4, "llm-cache-write")  # those may wait for a lock
        self._searchers = ThreadPoolExecutor(4, "llm-cache-normalize")
        self._tiers = Tiers(settings, rules)
        self.flights: Flights[Landed] = Flights(journal.internal_error)
        self._means = Means(
            settings, store, prices, journal, self._tiers, self.flights, self._writers
        )
        self.off = settings.off
        """True: forward everything, store nothing."""
        self.fast_hits = 0
        """Hits that took a server's short way, past `answer`."""
        self._date = b""
        self._date_until = 0.0

    async def close(self) -> None:
        """Give up what is in flight and let the threads end."""
        await self.flights.cancel_all()
        self._readers.shutdown(wait=True)
        self._writers.shutdown(wait=True)
        self._searchers.shutdown(wait=True, cancel_futures=True)

    # The hot path.

    async def answer(self, head: Head, body: Body) -> Reply:
        """The answer to a request to a provider. Raises `Refused`, and `ClientGone` when the client
        leaves before all of its request is there."""
        started = time.perf_counter()
        route = head.route
        if route.endpoint is None and not route.provider.signed:
            mode = self._mode(head.control.mode)
            if mode != "replay":
                asked = Asked(head, mode, started=started, upload=body)
                return Followed(self, asked, *self._flight_for(asked))
        data = await body.whole(self._max_request_bytes)
        asked = await self._read(head, data, started)
        if route.endpoint is not None and asked.mode in ("cache", "replay"):
            stored = self.recall(asked.key, asked.control.ttl)
            if stored is not None:
                return Recalled(self, Found(stored, Label.HIT, asked.key), head.fields, started)
        return Followed(self, asked, *self._flight_for(asked))

    async def _read(self, head: Head, data: bytes, started: float) -> Asked:
        """The request with all that is to be known before it is looked up."""
        route, control = head.route, self._by_default(head.control)
        mode, coded = control.mode, None
        coding = head.fields.get(b"content-encoding", b"")
        if coding:
            coded = data
            plain = await self._in_thread(decode_all, coding, data, self._max_request_bytes)
            if plain is not None:  # else it can't be undone within the limit for requests
                data, coding = plain, b""
        if edits.wanted(edits.BEFORE_KEY, route, data):
            edited = await self._in_thread(edits.edited, edits.BEFORE_KEY, route, data)
            if edited.body != data:
                data, coded = edited.body, None
            mode = mode or edited.mode
        mode = self._mode(mode)
        give_back = None
        if control.sample == AUTO:
            control, give_back = self._counted(head, control, mode, coding, data)
        prefix = route.key_prefix(head.headers, control, shared=self._shared, coding=coding)
        return Asked(
            head,
            mode,
            started=started,
            control=control,
            body=data,
            coded=coded,
            key=exact_key(prefix, data),
            prefix=prefix,
            give_back=give_back,
        )

    def _counted(
        self, head: Head, control: Control, mode: str, coding: bytes, data: bytes
    ) -> tuple[Control, Callable[[], None] | None]:
        """`control` with the number of the sample that this request is in its run, and what gives
        the number back when nothing comes of it."""
        control = replace(control, sample=b"")
        if mode == "bypass" or head.route.endpoint is None:
            return control, None
        route, shared = head.route, self._shared
        prefix = route.key_prefix(head.headers, control, shared=shared, coding=coding)
        key = exact_key(prefix, data)
        number = self._samples.take(control.run, key)
        give_back = partial(self._samples.give_back, control.run, key, number)
        return replace(control, sample=b"%d" % number), give_back

    def key_prefix(self, route: Route, headers: Headers, control: Control) -> bytes | None:
        """All of a request's key but the body; None where that isn't the same for every body."""
        control = self._by_default(control)
        if control.sample == AUTO:
            return None
        return route.key_prefix(headers, control, shared=self._shared)

    def _by_default(self, control: Control) -> Control:
        return by_default(control, self._namespace, self._sample)

    def may_recall(self, mode: str | None) -> bool:
        """True when a request that asks for `mode` (None: for nothing) may be answered from the
        store."""
        return self._mode(mode) in ("cache", "replay")

    def recall(self, key: bytes, ttl: float | None) -> Stored | None:
        """The answer, if memory has it. A store that fails has none."""
        try:
            stored = self._store.get_in_memory(key, max_age=ttl)
        except StoreError as error:
            self.journal.store_failed(error)
            return None
        return stored if stored is None or is_readable(stored) else None

    def date(self, now: float) -> bytes:
        """The HTTP date (RFC 9110, 5.6.7) of the second that `now` (unix seconds) is in."""
        if not self._date_until - 1 <= now < self._date_until:
            self._date_until = now // 1 + 1
            self._date = formatdate(now, usegmt=True).encode()
        return self._date

    def note_hit(self, replay: Replay, label: Label, hex_key: str, started: float) -> None:
        """Count a replay, begun at `started` (perf_counter seconds)."""
        meta = replay.meta
        self.journal.note(
            Call(
                type=label,
                provider=meta.provider,
                model=meta.model,
                status=replay.status,
                seconds=time.perf_counter() - started,
                key=hex_key,
                usage=meta.usage,
                nano_usd=meta.nano_usd,
                snippet=meta.snippet,
            )
        )

    # Everything else: a flight and its followers.

    def _mode(self, asked: str | None) -> str:
        mode = asked or self._settings.mode
        return "bypass" if self.off and mode != "replay" else mode

    def _flight_for(self, asked: Asked) -> tuple[Flight[Landed], bool]:
        """The flight that answers, and whether it was started for this request."""
        shares = asked.mode == "cache" and asked.route.endpoint is not None
        if shares and (flight := self.flights.joinable(asked.key)) is not None:
            return flight, False
        if asked.mode == "replay":
            return self.flights.start(None, lambda flight: self._only_find(flight, asked)), True
        if shares:
            key = asked.key
            return self.flights.start(key, lambda flight: self._find_or_ask(flight, asked)), True
        return self.alone(asked), True

    def alone(self, asked: Asked) -> Flight[Landed]:
        """A flight that asks upstream and is nobody else's."""
        return self.flights.start(None, lambda flight: self._ask(flight, asked))

    def fresh_enough(self, found: Found, asked: Asked) -> bool:
        """Whether an answer found for another request is young enough for this one."""
        ttl = asked.control.ttl
        patience = self._settings.stale_if_error_sec if found.label is Label.HIT_STALE else 0
        return ttl is None or time.time() - found.stored.entry.created < ttl + patience

    def note_joined(self, flight: Flight[Landed], asked: Asked, label: Label) -> None:
        """Count a request that followed another's flight to its end."""
        call = asked.call(label, flight.status)
        landed = flight.result if isinstance(flight.result, Call) else None
        if landed is None:
            call = replace(call, error=True)
        elif label is not Label.HIT_COALESCED:
            call = replace(call, model=landed.model, error=True)
        else:
            call = replace(
                call,
                model=landed.model,
                usage=landed.usage,
                nano_usd=landed.nano_usd,
                snippet=landed.snippet,
            )
        self.journal.note(call)

    # What a flight does.

    async def _find_or_ask(self, flight: Flight[Landed], asked: Asked) -> None:
        found, keys = await self._find(asked)
        if found is not None:
            flight.land(found)
        else:
            await self._ask(flight, asked, keys)

    async def _only_find(self, flight: Flight[Landed], asked: Asked) -> None:
        if asked.route.endpoint is not None:
            found, _ = await self._find(asked)
            if found is not None:
                flight.land(found)
                return
        label, note = Label.MISS, "not in the cache, and mode replay never asks upstream"
        if asked.route.endpoint is None:  # a list of models, a HEAD: nobody could have recorded it
            label, note = Label.PASS, "it is never cached, and mode replay never asks upstream"
        model = (await self._in_thread(asked.facts)).model
        call = replace(asked.call(label, 504), note=note, asked_model=model)
        if label is Label.MISS:
            body = await self._in_thread(xxhash.xxh3_128_hexdigest, asked.body)
            alike = but_for_credentials(asked_as(asked, self._settings), body)
            call = replace(call, but_for_credentials=alike)
        await self.journal.record(call)
        what = f"{asked.route.method} {asked.route.path}"
        self._answer_here(flight, asked, call, "cache_miss", f"{asked.key.hex()} ({what}): {note}")

    async def _find(self, asked: Asked) -> tuple[Found | None, Keys]:
        """Look in the store by every active tier. Never raises: a failing store finds nothing."""
        if not self._tiers.searches:
            return await self._in_thread(self._look_up, asked)  # all of it: a thread once
        keys = self._tiers.at_hand(asked)
        found = await self._in_thread(self._first_of, asked, keys)
        if found is not None:
            return found, keys
        further = await self._further_keys(asked)
        found = await self._in_thread(self._first_of, asked, further)
        return found, Keys(keys.found + further.found)

    def _look_up(self, asked: Asked) -> tuple[Found | None, Keys]:
        keys = self._tiers.at_hand(asked)
        found = self._first_of(asked, keys)
        if found is not None:
            return found, keys
        further = self._read_keys(asked)
        return self._first_of(asked, further), Keys(keys.found + further.found)

    def _first_of(self, asked: Asked, keys: Keys, stale: bool = False) -> Found | None:
        return self._tiers.first(self._store, asked, keys, self._report, stale=stale)

    def _report(self, error: StoreError) -> None:
        """From a worker thread: the store failed."""
        self._loop.call_soon_threadsafe(self.journal.store_failed, error)

    async def _further_keys(self, asked: Asked) -> Keys:
        """The keys of the tiers that read the body, within a bounded time: patterns have threads of
        their own, and a request that finds them busy goes on without these keys."""
        if not self._tiers.searches:
            return await self._in_thread(self._read_keys, asked)
        making = self._loop.run_in_executor(self._searchers, self._read_keys, asked)
        try:
            return await asyncio.wait_for(making, NORMALIZE_PATIENCE_SEC)
        except TimeoutError:
            return Keys(note="the patterns of normalize.json keep every thread busy")

    def _read_keys(self, asked: Asked) -> Keys:
        keys = self._tiers.read(asked)
        if keys.note:
            note = f"no further keys: {keys.note}"
            self._loop.call_soon_threadsafe(self.journal.debug, note)
        return keys

    async def _in_thread(self, function: Callable[..., Result], *arguments: object) -> Result:
        return await self._loop.run_in_executor(self._readers, function, *arguments)

    async def _ask(self, flight: Flight[Landed], asked: Asked, keys: Keys | None = None) -> None:
        storing = asked.may_be_stored
        if not storing:
            flight.stop_keeping()
            keys = Keys()
        elif keys is None:
            further = await self._further_keys(asked)
            keys = Keys(self._tiers.at_hand(asked).found + further.found)
        label = asked.label
        try:
            await self._bring_in(flight, asked, keys, label, storing=storing)
        except UpstreamFailed as error:
            if flight.began or not await self._answer_stale(flight, asked, keys, str(error)):
                await self._upstream_failed(flight, asked, str(error))
        except (ClientGone, Refused) as error:  # while its body was on the way up
            self._note_given_up(flight, asked, label)
            flight.fail(str(error) or "the client left before its request was whole")
        except asyncio.CancelledError:
            self._note_given_up(flight, asked, label)
            raise

    async def _bring_in(
        self, flight: Flight[Landed], asked: Asked, keys: Keys, label: Label, *, storing: bool
    ) -> None:
        route = asked.route
        head = outgoing(route, asked.headers, self._token)
        content: bytes | AsyncIterator[bytes]
        if asked.upload is not None:
            content = asked.upload.pieces()
            if asked.upload.length is not None:
                head.headers.append((b"content-length", b"%d" % asked.upload.length))
        else:
            content = await self._forwarded_body(asked)
            if content is not asked.coded:  # what goes up has no content coding (any more)
                head.headers[:] = [h for h in head.headers if h[0] != b"content-encoding"]
            if head.unsigned:
                head.headers.extend(
                    await self._signer.signature(
                        route.provider.service,
                        route.upstream,
                        route.method,
                        head.target,
                        head.headers,
                        content,
                    )
                )
        async with self._caller.call(
            route.upstream, route.method, head.target, head.headers, content
        ) as response:
            if response.status >= 500:
                reason = f"upstream {route.upstream.base_url} answered {response.status}"
                if await self._answer_stale(flight, asked, keys, reason):
                    return
            if response.ends_with_head:
                self.flights.close_to_joiners(flight)  # clients can't tell it isn't over yet
            flight.begin(response.status, self._client_headers(response), response.reason)
            landing = Landing(self._means, flight, asked, keys, storing=storing)
            await landing.bring_in(response, label)

    async def _forwarded_body(self, asked: Asked) -> bytes:
        """The client's bytes, but for the edits that are to be made before forwarding."""
        route, note = asked.route, ""
        body = asked.body if asked.coded is None else asked.coded
        if edits.wanted(edits.BEFORE_FORWARDING, route, asked.body):
            edited = await self._in_thread(edits.edited, edits.BEFORE_FORWARDING, route, asked.body)
            if edited.body != asked.body:
                body, note = edited.body, edited.note and f", {edited.note}"
        if asked.body:
            self.journal.debug(
                f"{route.method} {route.path} to {route.upstream.base_url}: "
                f"body of {len(asked.body)} bytes{note}"
            )
        return body

    async def _answer_stale(
        self, flight: Flight[Landed], asked: Asked, keys: Keys, reason: str
    ) -> bool:
        """Land with an expired answer in place of an upstream's failure (RFC 5861, 4); False when
        there is none, or nobody may get it. A 429 is no failure: it says when to come back."""
        if (
            not self._settings.stale_if_error_sec
            or asked.mode != "cache"
            or asked.route.endpoint is None
        ):
            return False
        found = await self._in_thread(self._first_of, asked, keys, True)
        if found is None:
            return False
        self.journal.problem(f"{reason}; an expired answer went out in its place")
        flight.land(Found(found.stored, Label.HIT_STALE, found.key))
        return True

    async def _upstream_failed(self, flight: Flight[Landed], asked: Asked, reason: str) -> None:
        status = flight.status if flight.began else 502
        model = (await self._in_thread(asked.facts)).model
        call = asked.call(Label.ERROR, status)
        call = replace(call, note=reason, error=True, asked_model=model)
        await self.journal.record(call)
        if flight.began:
            flight.fail(reason)
        else:
            self._answer_here(flight, asked, call, "upstream_error", reason)

    def _note_given_up(self, flight: Flight[Landed], asked: Asked, label: Label) -> None:
        """Count a call that nobody waited for any more; one that was refused already, as that: the
        SDKs drop the body of a 429 before they ask again."""
        if flight.status >= 400:
            call = replace(asked.call(label, flight.status), error=True)
            self.journal.note(replace(call, note=f"status {flight.status}, given up by its client"))
        else:
            note = "given up: nobody waited for it any more"
            self.journal.note(replace(asked.call(label, 499), note=note))

    def _answer_here(
        self, flight: Flight[Landed], asked: Asked, call: Call, kind: str, message: str
    ) -> None:
        """Land with an answer of our own, counted as `call`, in the form that the client knows."""
        shape, endpoint = asked.route.provider, asked.route.endpoint
        if endpoint is not None:
            shape = shape.error_shape(endpoint)
        body = shape.error_body(call.status, kind, message)
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"date", self.date(time.time())),
            (X_CACHE, call.type.wire),
        ]
        if kind == "cache_miss":  # the SDKs would ask again, several times, and in vain
            headers.append((b"x-should-retry", b"false"))
        flight.begin(call.status, headers, HTTPStatus(call.status).phrase.encode())
        flight.publish(body)
        flight.land(call)

    def _client_headers(self, response: Response) -> HeaderList:
        """An upstream's answer head for the client: end-to-end, without an `x-cache` not ours."""
        out = [h for h in end_to_end(response.headers) if not h[0].startswith(X_CACHE)]
        if all(name != b"date" for name, _ in out):
            out.append((b"date", self.date(time.time())))  # RFC 9110 6.6.1
        return out
