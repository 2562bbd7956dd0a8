"""The sockets a proxy listens on, and what Hypercorn is told about them and about time."""

from __future__ import annotations

import errno
import socket
import ssl
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hypercorn.config import Config, Sockets

from llm_cache.errors import LlmCacheError, SettingsError
from llm_cache.settings import LOCALHOST, Settings

GRACE_SEC = 30.0
"""Longest time answers in flight are waited for at a stop."""
MAX_HEAD_BYTES = 64 << 10
BACKLOG = 1024
"""Connections the kernel holds for us until they are accepted."""

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


def configured(settings: Settings, sockets: Sequence[socket.socket]) -> Config:
    """Hypercorn's configuration for these settings and sockets."""
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
                raise _bind_error(name, port, error) from None
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


def _bind_error(name: str, port: int, error: OSError) -> LlmCacheError:
    if error.errno == errno.EADDRINUSE:
        taken = LlmCacheError(
            f"port {port} on {name} is taken by another program; stop it or set CACHE_PORT "
            "to another port"
        )
        taken.kind, taken.port = "port_taken", port
        return taken
    if error.errno == errno.EACCES:
        return LlmCacheError(
            f"port {port} may not be used by this user; set CACHE_PORT to one above 1023"
        )
    return LlmCacheError(f"can't listen on {name}, port {port}: {error.strerror or error}")


def base_url(settings: Settings, sockets: Sequence[socket.socket]) -> str:
    """The base URL of the proxy on this machine."""
    port = sockets[0].getsockname()[1]
    host = settings.host
    if host in ("127.0.0.1", "::1", "0.0.0.0", "::"):  # noqa: S104  # compared, not bound
        host = "localhost"
    name = f"[{host}]" if ":" in host else host
    return f"{'https' if settings.tls else 'http'}://{name}:{port}"
