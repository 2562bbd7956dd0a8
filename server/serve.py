"""One running proxy: lock, sockets, Hypercorn, clock, signals, and a clean end.

`run` blocks until SIGTERM or SIGINT. Then nothing new is accepted, answers in flight may finish
within `GRACE_SEC`, and what is pending goes to the ledger. A second signal ends the grace.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import resource
import signal
import socket
import ssl
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from email.utils import formatdate
from pathlib import Path

import uvloop
from hypercorn.asyncio import serve
from hypercorn.config import Config, Sockets

from llm_cache import __version__
from llm_cache.errors import LlmCacheError, SettingsError, StoreError
from llm_cache.server import process
from llm_cache.server.app import App
from llm_cache.server.connection import Connection, use_own_connections
from llm_cache.server.exchange import Exchanges
from llm_cache.server.fastlane import FastLane
from llm_cache.server.guard import Guard
from llm_cache.server.journal import Journal
from llm_cache.server.logfile import Log
from llm_cache.server.notify import tell_manager
from llm_cache.server.own import OwnEndpoints
from llm_cache.server.routing import Router, load_rules, read_optional
from llm_cache.server.upstream import Caller
from llm_cache.settings import LOCALHOST, Settings
from llm_cache.store import Limits, Store
from llm_cache.wire.normalize import Rules
from llm_cache.wire.prices import Prices
from llm_cache.wire.provider import Usage
from llm_cache.wire.registry import PROVIDERS

GRACE_SEC = 30.0
"""Longest time answers in flight are waited for at a stop."""
UPKEEP_SEC = 1.0
"""How often access times are written and expired entries are pruned, and what the ledger couldn't
take is tried again."""
STORE_PATIENCE_SEC = 2.0
"""How long an answer waits for a store that others keep busy, before it goes out unstored."""
MAX_HEAD_BYTES = 64 << 10
BACKLOG = 1024
"""Connections the kernel holds for us until they are accepted."""
MOST_FILES = 10_240
"""How many files and connections may be open at once, if the system lets us; macOS has no more."""

_NO_PID = b" " * 11  # as long as a pid can be
_NO_PASSPHRASE = ""  # with None, OpenSSL would ask for one on the terminal


class _OwnSockets(Config):
    """Hypercorn's configuration with sockets that were bound before."""

    def __init__(self, sockets: Sequence[socket.socket]) -> None:
        super().__init__()
        self._sockets = list(sockets)

    def create_sockets(self) -> Sockets:
        if self.ssl_enabled:
            return Sockets(self._sockets, [], [])
        return Sockets([], self._sockets, [])


Ready = Callable[[str, Journal], None]
"""Hears the address, once clients may come, and gets what happens from then on."""


def _tell_ready(address: str, journal: Journal) -> None:
    tell_manager(f"READY=1\nSTATUS=listens on {address}")


def check_files(settings: Settings) -> tuple[Rules, Prices]:
    """The files of the home that a proxy reads at its start. Raises SettingsError."""
    check_certificate(settings)
    prices = Prices.load(read_optional(settings.prices_file), str(settings.prices_file))
    return load_rules(settings), prices


def run(
    settings: Settings, *, stdout: bool = True, alone: bool = True, ready: Ready = _tell_ready
) -> int:
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
            if alone and (pid := process.holder(settings.pid_file)) is not None:
                raise _running_already(pid) from None  # on this port, most likely
            raise
        held.enter_context(lock)
        limits = Limits(
            ttl_sec=settings.ttl_sec,
            max_entries=settings.max_entries,
            max_bytes=settings.max_bytes,
            stale_sec=settings.stale_if_error_sec,
        )
        store = Store.open(
            settings.store_dir,
            limits,
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
    journal = Journal(store, log)
    caller = Caller(silence_sec=settings.upstream_timeout_sec)
    exchanges = Exchanges(settings, store, journal, caller, rules, prices)
    own = OwnEndpoints(settings, store, journal, exchanges, address=address)
    guard = Guard(
        host=settings.host,
        token=settings.auth_token,
        allow_origins=settings.allow_origins,
        allow_hosts=settings.allow_hosts,
    )
    lane = FastLane(exchanges, max_body_bytes=settings.max_request_bytes)
    app = App(
        guard,
        Router(settings),
        exchanges,
        own,
        journal,
        lane,
        has_real_key=any(provider.name in settings.real_keys for provider in PROVIDERS)
        or any(named.key for named in settings.named_upstreams.values()),
    )
    await journal.start()
    journal.info(
        f"llm-cache {__version__} listens on {address} "
        f"(cache {'off' if settings.off else 'on'}, pid {os.getpid()})"
    )
    connections: set[Connection] = set()
    use_own_connections(connections, lane)
    stopping = _Stopping(app, connections, journal)
    stopping.listen()
    ready(address, journal)
    background = [
        asyncio.ensure_future(_tick(exchanges)),
        asyncio.ensure_future(_upkeep(store, journal)),
        asyncio.ensure_future(asyncio.to_thread(_warm, prices)),
    ]
    try:
        await serve(app, _configured(settings, sockets), shutdown_trigger=stopping.asked.wait)  # type: ignore[arg-type]
    finally:
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        await exchanges.close()
        await caller.close()
        await journal.close()
        journal.info("stopped")


class _Stopping:
    """From the first signal to the last answer."""

    def __init__(self, app: App, connections: Collection[Connection], journal: Journal) -> None:
        self.asked = asyncio.Event()
        self._app = app
        self._connections = connections
        self._journal = journal

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
        self._journal.feed.close()  # an open /monitor never ends by itself
        for connection in list(self._connections):
            connection.end_when_idle()
        asyncio.get_running_loop().call_later(GRACE_SEC, self._give_up)

    def _give_up(self) -> None:
        for task in self._app.active:
            task.cancel()
        for connection in list(self._connections):
            connection.abort()


def _configured(settings: Settings, sockets: Sequence[socket.socket]) -> Config:
    config = _OwnSockets(sockets)
    config.errorlog = None  # the app logs its own errors
    config.include_server_header = False
    config.include_date_header = False  # the app sends the upstream's date, or its own on a hit
    config.alpn_protocols = ["http/1.1"]
    config.backlog = BACKLOG
    config.keep_alive_timeout = settings.client_timeout_sec  # for a request head, and between two
    config.ssl_handshake_timeout = settings.client_timeout_sec
    config.keep_alive_max_requests = 1 << 30
    config.h11_max_incomplete_size = MAX_HEAD_BYTES
    config.graceful_timeout = GRACE_SEC + 5
    # A queue without bound: its one reader, the app, refuses a body that is too large; a full
    # queue would leave Hypercorn's own reader waiting for an app that has answered already.
    config.max_app_queue_size = 0
    if settings.tls_certfile is not None:
        config.certfile = str(settings.tls_certfile)
        config.keyfile = str(settings.tls_keyfile)
        config.keyfile_password = _NO_PASSPHRASE
    return config


def _warm(prices: Prices) -> None:
    """Load the price list now, so that the first answer doesn't wait for it."""
    prices.cost("anthropic", "claude-sonnet-4-5", Usage())


async def _tick(exchanges: Exchanges) -> None:
    """Keep the HTTP date (RFC 9110 5.6.7) right to the second, off the hot path."""
    while True:
        exchanges.date = formatdate(usegmt=True).encode()
        await asyncio.sleep(1.0 - time.time() % 1.0)


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


def check_certificate(settings: Settings) -> None:
    """Raises SettingsError when the TLS files can't be used, before anything listens."""
    if settings.tls_certfile is None or settings.tls_keyfile is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
            settings.tls_certfile, settings.tls_keyfile, password=_NO_PASSPHRASE
        )
    except OSError as error:  # ssl.SSLError is one
        problem = "must be a certificate and its key without a passphrase, both in PEM form"
        if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
            problem = "the key is not this certificate's"
        raise SettingsError(
            f"CACHE_TLS_CERTFILE={settings.tls_certfile}, "
            f"CACHE_TLS_KEYFILE={settings.tls_keyfile}: {problem}"
        ) from None


def _allow_many_files() -> None:
    """Raise the soft limit, by habit 1024 or 256, so that idle clients don't lock others out."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(MOST_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@contextmanager
def locked(pid_file: Path) -> Iterator[None]:
    """Hold the home's lock with our pid in the file. Raises LlmCacheError when somebody has it."""
    try:
        fd = os.open(pid_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise LlmCacheError(f"{pid_file}: can't be opened: {error.strerror}") from None
    try:
        deadline = time.monotonic() + 1.0
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                # A command that looks who holds the lock takes it for a moment itself.
                if time.monotonic() > deadline:
                    pid = os.pread(fd, 16, 0).decode("ascii", "replace").strip()
                    raise _running_already(pid or "unknown") from None
                time.sleep(0.02)
        # Overwritten in place, never emptied: on a full disk there is no room for it a second time.
        try:
            os.pwrite(fd, _NO_PID, 0)
            os.ftruncate(fd, os.pwrite(fd, b"%d\n" % os.getpid(), 0))
        except OSError as error:
            raise LlmCacheError(f"{pid_file}: can't be written: {error.strerror}") from None
        yield
        os.pwrite(fd, _NO_PID, 0)
    finally:
        os.close(fd)


def _running_already(pid: int | str) -> LlmCacheError:
    return LlmCacheError(f"a proxy of this home is running already (pid {pid})")


@contextmanager
def bound_sockets(settings: Settings) -> Iterator[list[socket.socket]]:
    """Listening sockets of the address; for loopback on IPv4 and IPv6, since `localhost` may be
    either. Raises LlmCacheError when the port is taken or the address isn't ours."""
    names = [settings.host]
    if settings.host.lower() in LOCALHOST:
        names = ["127.0.0.1", "::1"]
    sockets: list[socket.socket] = []
    port = settings.port
    try:
        for name in names:
            try:
                sockets.append(_listen(name, port, settings.client_timeout_sec))
            except OSError as error:
                optional = len(names) > 1 and error.errno in (
                    errno.EADDRNOTAVAIL,
                    errno.EAFNOSUPPORT,
                )
                if optional and (sockets or name != names[-1]):
                    continue  # this machine has only one of the two
                raise LlmCacheError(_bind_problem(name, port, error)) from None
            port = sockets[0].getsockname()[1]
        yield sockets
    finally:
        for bound in sockets:
            bound.close()


def _listen(name: str, port: int, unread_sec: float) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(
        name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if sys.platform == "linux":
            # Accepted connections inherit it: a client that stops reading is cut off by the
            # kernel, at no cost to those that read.
            milliseconds = max(1, int(unread_sec * 1000))
            bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, name != "::")
        bound.bind(address)
        bound.listen(BACKLOG)  # two sockets may be bound to one port, but only one may listen
        bound.setblocking(False)
    except BaseException:
        bound.close()
        raise
    return bound


def _bind_problem(name: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {port} on {name} is taken by another program; stop it or set CACHE_PORT "
            "to another port"
        )
    if error.errno == errno.EACCES:
        return f"port {port} may not be used by this user; set CACHE_PORT to one above 1023"
    return f"can't listen on {name}, port {port}: {error.strerror or error}"


def base_url(settings: Settings, sockets: Sequence[socket.socket]) -> str:
    """The base URL of the proxy on this machine."""
    port = sockets[0].getsockname()[1]
    host = settings.host
    if host in ("127.0.0.1", "::1", "0.0.0.0", "::"):  # noqa: S104  # compared, not bound
        host = "localhost"
    name = f"[{host}]" if ":" in host else host
    return f"{'https' if settings.tls else 'http'}://{name}:{port}"
