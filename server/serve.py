"""One running proxy: lock, sockets, Hypercorn, clock, signals, and a clean end.

`run` blocks until SIGTERM or SIGINT. Then nothing new is accepted, answers in flight may finish
within `GRACE_SEC`, and what is pending goes to the ledger. A second signal ends the grace.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack, nullcontext, suppress

import uvloop
from hypercorn.asyncio import serve

from llm_cache import __version__
from llm_cache.errors import LlmCacheError
from llm_cache.exchange import Exchange, Router, load_prices, load_rules, open_exchange, open_store
from llm_cache.server.app import App
from llm_cache.server.calllog import CallLog
from llm_cache.server.certificate import names_of
from llm_cache.server.feed import Feed
from llm_cache.server.guard import Guard
from llm_cache.server.hypercorn.connection import Connection, use_own_connections
from llm_cache.server.hypercorn.fastlane import FastLane
from llm_cache.server.hypercorn.sockets import (
    GRACE_SEC,
    base_url,
    bound_sockets,
    check_certificate,
    configured,
)
from llm_cache.server.latencies import Latencies
from llm_cache.server.logfile import Log
from llm_cache.server.own import Heard, OwnEndpoints
from llm_cache.server.pidfile import holder, locked, running_already
from llm_cache.settings import Settings
from llm_cache.store import Store
from llm_cache.wire.normalize import Rules
from llm_cache.wire.prices import Prices
from llm_cache.wire.registry import PROVIDERS

STORE_PATIENCE_SEC = 2.0
"""How long an answer waits for a store that others keep busy, before it goes out unstored."""
MOST_FILES = 10_240
"""How many files and connections may be open at once, if the system lets us; macOS has no more."""


Ready = Callable[[str, Feed], None]
"""Hears the address, once clients may come, and gets what happens from then on."""


def check_files(settings: Settings) -> tuple[Rules, Prices]:
    """The files of the home that a proxy reads at its start. Raises SettingsError."""
    check_certificate(settings)
    prices = load_prices(settings)
    return load_rules(settings), prices


def run(settings: Settings, *, stdout: bool = True, alone: bool = True, ready: Ready) -> int:
    """Serve until told to stop; 0 is a clean end. Raises LlmCacheError when it can't start.

    `stdout`: whether log lines go there besides the log file. `alone`: whether this is the proxy
    of its home, of which there is one, or one more on the same store.
    """
    os.umask(0o077)
    _allow_many_files()
    settings.make_home()
    settings.keep_secrets_private()
    rules, prices = check_files(settings)
    log = Log(settings.log_file, "silent" if settings.quiet else settings.log_level, stdout=stdout)
    log.check()
    lock = locked(settings.pid_file) if alone else nullcontext()
    with ExitStack() as held:
        held.callback(log.close)
        try:
            sockets = held.enter_context(bound_sockets(settings))
        except LlmCacheError:
            if alone and (pid := holder(settings.pid_file)) is not None:
                raise running_already(pid) from None  # on this port, most likely
            raise
        held.enter_context(lock)
        store = open_store(
            settings,
            log=lambda line: log.write("error", [line]),
            patience=STORE_PATIENCE_SEC,
            at_once=False,
        )
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(_serve(settings, store, log, rules, prices, sockets, ready))
        finally:
            store.close()
    return 0


async def _serve(
    settings: Settings,
    store: Store,
    log: Log,
    rules: Rules,
    prices: Prices,
    sockets: Sequence[socket.socket],
    ready: Ready,
) -> None:
    address = base_url(settings, sockets)
    heard = Heard(CallLog(log), Latencies(), Feed())
    listeners = (heard.log, heard.latencies, heard.feed)
    async with open_exchange(settings, store, rules, prices, listeners) as exchange:
        lane = FastLane(exchange, max_body_bytes=settings.max_request_bytes)
        app = _app(settings, store, rules, exchange, heard, lane, address)
        await exchange.journal.all_time()  # which the log's sums go on from
        exchange.journal.info(
            f"llm-cache {__version__} listens on {address} "
            f"(cache {'off' if settings.off else 'on'}, pid {os.getpid()})"
        )
        connections: set[Connection] = set()
        use_own_connections(connections, lane)
        stopping = _Stopping(app, connections, heard.feed)
        stopping.listen()
        ready(address, heard.feed)
        await serve(app, configured(settings, sockets), shutdown_trigger=stopping.asked.wait)  # type: ignore[arg-type]
    heard.log.told("info", "stopped", time.time())


def _app(
    settings: Settings,
    store: Store,
    rules: Rules,
    exchange: Exchange,
    heard: Heard,
    lane: FastLane,
    address: str,
) -> App:
    own_names = names_of(settings.tls_certfile) if settings.tls_certfile is not None else ()
    guard = Guard(
        host=settings.host,
        token=settings.auth_token,
        allow_origins=settings.allow_origins,
        allow_hosts=(*settings.allow_hosts, *own_names),
    )
    own = OwnEndpoints(settings, store, exchange.journal, exchange, heard, address=address)
    return App(
        guard,
        Router(settings, ignored_headers=rules.ignored_headers),
        exchange,
        own,
        exchange.journal,
        lane,
        client_timeout_sec=settings.client_timeout_sec,
        keep_alive_sec=settings.sse_keepalive_sec,
        has_real_key=any(provider.name in settings.real_keys for provider in PROVIDERS)
        or any(named.key for named in settings.named_upstreams.values()),
    )


class _Stopping:
    """From the first signal to the last answer."""

    def __init__(self, app: App, connections: Collection[Connection], feed: Feed) -> None:
        self.asked = asyncio.Event()
        self._app = app
        self._connections = connections
        self._feed = feed

    def listen(self) -> None:
        """Take SIGTERM and SIGINT."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled)

    def _signalled(self) -> None:
        if self.asked.is_set():
            self._give_up()
            return
        self.asked.set()
        self._feed.close()  # an open /monitor never ends by itself
        for connection in list(self._connections):
            connection.end_when_idle()
        asyncio.get_running_loop().call_later(GRACE_SEC, self._give_up)

    def _give_up(self) -> None:
        for task in self._app.active:
            task.cancel()
        for connection in list(self._connections):
            connection.abort()


def _allow_many_files() -> None:
    """Raise the soft limit, by habit 1024 or 256, so that idle clients don't lock others out."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(MOST_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
