"""A whole cache in the test's own process, asked from the test's thread: what `support.proxy` has
of a proxy, without a server, a socket of ours or a process.

    one = cache()
    assert one.ask(body).header("x-cache") == "MISS"

What always holds here:
- The exchange runs on a loop of its own in a thread, so that a test may block at a gate.
- Whoever has called `begin` has been taken in: its request has a flight, or its answer.
- Log and figures are whole when they are read: what is under way to them is taken in first.
- What nobody may see (a traceback, a task's lost error) is in `trouble`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from llm_cache.errors import StoreError
from llm_cache.exchange import figures
from llm_cache.exchange.calls import Call
from llm_cache.exchange.flights import FlightFailed
from llm_cache.exchange.reply import Reply
from llm_cache.server.calllog import CallLog
from llm_cache.server.logfile import Log
from llm_cache.settings import load_settings
from support.inside import Inside, opened
from support.proxy import TROUBLE, anthropic_headers, clean_environment, read_text

DEADLINE = 30.0
"""Seconds anything asked of the loop may take."""

Fields = Sequence[tuple[str, str]]
T = TypeVar("T")


class Received:
    """An answer that is read as far as the test asks. `body` is what was read so far."""

    def __init__(self, cache: Cache, reply: Reply) -> None:
        self._cache = cache
        self._reply = reply
        self._began = False
        self.body = b""
        self.ended = False
        self.complete = False
        """True once the body has come to its end; False when it broke off."""

    @property
    def status(self) -> int:
        """The status, once there is a head."""
        self._begin()
        return self._reply.status

    @property
    def headers(self) -> list[tuple[str, str]]:
        """The headers, in order, once there is a head."""
        self._begin()
        return [(name.decode(), value.decode("latin-1")) for name, value in self._reply.headers]

    def header(self, name: str) -> str | None:
        """The values of one header joined by ", ", or None when it isn't there."""
        values = [value for key, value in self.headers if key == name.lower()]
        return ", ".join(values) if values else None

    def read(self, count: int) -> bytes:
        """Read until `body` holds at least `count` bytes or has ended; all of it so far."""
        while not self.ended and len(self.body) < count:
            self._step()
        return self.body

    def read_until(self, mark: bytes) -> bytes:
        """Read until `mark` is in `body` or it has ended; all of it so far."""
        while not self.ended and mark not in self.body:
            self._step()
        return self.body

    def read_all(self) -> bytes:
        """Read to the end, however it ends; the whole body."""
        while not self.ended:
            self._step()
        return self.body

    def close(self) -> None:
        """Leave, wherever the answer is. Twice is fine."""
        self.ended = True
        self._cache.call(_closed(self._reply))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _begin(self) -> None:
        if not self._began:
            self._cache.call(self._reply.begin())
            self._began = True

    def _step(self) -> None:
        self._begin()
        try:
            piece = self._cache.call(self._reply.next())
        except FlightFailed:
            self.close()
            return
        self.body += piece
        if not piece:
            self.complete = True
            self.close()


class Cache:
    """One run of a cache over the store in `home`. `settings` are environment variables."""

    def __init__(self, home: Path, settings: Mapping[str, str] | None = None) -> None:
        self.home = home
        self.settings = dict(settings or {})
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._held = AsyncExitStack()
        self._inside: Inside | None = None
        self._log: CallLog | None = None
        self._lost: list[str] = []

    # Life

    def start(self) -> Self:
        """Open store and exchange."""
        assert self._loop is None, "already started"
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(self._note_lost)
        self._thread = threading.Thread(target=self._loop.run_forever, name="cache")
        self._thread.start()
        try:
            self.call(self._open())
        except BaseException:
            self._end()
            raise
        return self

    async def _open(self) -> None:
        settings = load_settings(environ=clean_environment(self.home, self.settings))
        self._log = CallLog(Log(self.home / "proxy.log", settings.log_level, stdout=False))
        self._inside = await self._held.enter_async_context(opened(settings, self._log))
        await self._inside.exchange.journal.all_time()  # which the log's sums go on from

    def stop(self) -> None:
        """Give up what is in flight, count everything, and close the store."""
        if self._loop is None:
            return
        try:
            self.call(self._held.aclose())
        finally:
            self._end()

    def _end(self) -> None:
        assert self._loop is not None
        assert self._thread is not None
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(DEADLINE)
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()
        self._loop = self._inside = None

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something on the loop, and wait for what comes of it."""
        assert self._loop is not None, "not started"
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(DEADLINE)

    def _note_lost(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self._lost.append(f"{context.get('message')}: {context.get('exception')!r}")

    # Requests

    def begin(
        self,
        body: bytes,
        fields: Fields | None = None,
        path: str = "/v1/messages",
        method: str = "POST",
    ) -> Received:
        """Ask with exactly these headers; return when the request has been taken in."""
        headers = anthropic_headers() if fields is None else list(fields)
        return Received(self, self.call(self.inside.start(body, headers, path, method)))

    def send(
        self,
        body: bytes,
        fields: Fields | None = None,
        path: str = "/v1/messages",
        method: str = "POST",
    ) -> Received:
        """Ask with exactly these headers, and read the answer to its end."""
        received = self.begin(body, fields, path, method)
        received.read_all()
        return received

    def ask(self, body: bytes, headers: Mapping[str, str] | None = None) -> Received:
        """`POST /v1/messages` as a client with an API key; the answer, read to its end."""
        return self.send(body, [*anthropic_headers(), *(headers or {}).items()])

    # What it says

    @property
    def inside(self) -> Inside:
        """What runs."""
        assert self._inside is not None, "not started"
        return self._inside

    @property
    def calls(self) -> list[Call]:
        """The calls of this run, each counted."""
        self.call(self._drained())
        return self.inside.heard.calls

    def stats(self) -> dict[str, Any]:
        """The figures by the names they have in `/stats`."""
        return self.call(self._figures())

    def log(self) -> str:
        """The log so far."""
        if self._loop is not None:
            self.call(self._drained())
        return read_text(self.home / "proxy.log")

    def trouble(self) -> list[str]:
        """What no run may have: tracebacks in the log, errors of forgotten tasks."""
        lines = read_text(self.home / "proxy.log").splitlines()
        return [
            *(line for line in lines if any(mark in line for mark in TROUBLE)),
            *self._lost,
        ]

    async def _drained(self) -> None:
        self.inside.exchange.journal.drain()

    async def _figures(self) -> dict[str, Any]:
        journal, exchange = self.inside.exchange.journal, self.inside.exchange
        all_time = await journal.all_time()
        entries = None
        with suppress(StoreError):
            entries = (await asyncio.to_thread(self.inside.store.totals)).entries
        assert self._log is not None
        return {
            **figures.summary(all_time),
            "entries": entries,
            "session": figures.summary(journal.session),
            "by_provider": figures.by_provider(all_time),
            "by_model": figures.by_model(all_time),
            "store_failures": journal.store_failures,
            "in_flight": len(exchange.flights),
            "recent_errors": list(self._log.errors),
        }


class CacheFactory(Protocol):
    """Opens a cache in the test's home; keyword arguments are settings."""

    def __call__(self, **settings: str) -> Cache: ...


@contextmanager
def running_cache(home: Path, settings: Mapping[str, str] | None = None) -> Iterator[Cache]:
    """A cache that was closed, and went wrong nowhere, when the block is left."""
    cache = Cache(home, settings).start()
    try:
        yield cache
    finally:
        cache.stop()
    assert not cache.trouble(), f"{cache.trouble()}\n{cache.log()}"


async def _closed(reply: Reply) -> None:
    reply.close()
