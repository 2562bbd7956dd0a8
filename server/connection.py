"""One client connection: Hypercorn's, held to HTTP/1.1 and sure to end.

What holds here, and doesn't in Hypercorn itself:

- An `upgrade` is not taken up (RFC 9110, 7.8). Hypercorn switches to HTTP/2 in the clear or to a
  WebSocket when a client asks; both bring rules of their own about time and memory, and a handshake
  that fails leaves the connection open for ever. So every request is a plain one the guard sees.
- An answer sent before the whole request has arrived (a refusal) reaches the client: the connection
  isn't closed while the client is still sending, within `LINGER_SEC`.
- A connection the kernel gave up (the client left its answer unread) is closed like any other.
- Every open connection is in a set, so that a stop which can't wait any longer can end it.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import Any

import h11
import hypercorn.asyncio.run
import hypercorn.protocol
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.events import Closed, Event
from hypercorn.protocol.events import Request
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol
from hypercorn.protocol.http_stream import HTTPStream

LINGER_SEC = 2.0
"""Longest time a client may go on sending a request that was answered already."""


class Http1Protocol(H11Protocol):
    """HTTP/1.1 that stays HTTP/1.1."""

    _sent: asyncio.Event | None = None  # set once a client we linger for has sent all

    async def handle(self, event: Event) -> None:
        await super().handle(event)
        if self._sent is not None and (
            isinstance(event, Closed) or self.connection.their_state is not h11.SEND_BODY
        ):
            self._sent.set()

    async def _check_protocol(self, event: h11.Request) -> None:
        pass  # the inherited one begins HTTP/2 here

    async def _create_stream(self, request: h11.Request) -> None:
        self.stream = HTTPStream(
            self.app,
            self.config,
            self.context,
            self.task_group,
            self.ssl,
            self.client,
            self.server,
            self.stream_send,
            STREAM_ID,
        )
        await self.stream.handle(
            Request(
                stream_id=STREAM_ID,
                headers=list(request.headers),
                http_version=request.http_version.decode(),
                method=request.method.decode("ascii").upper(),
                raw_path=request.target,
                state=self.connection_state,
            )
        )
        self.keep_alive_requests += 1
        await self.context.mark_request()

    async def _maybe_recycle(self) -> None:
        if self.connection.their_state is not h11.SEND_BODY:
            await super()._maybe_recycle()
            return
        # RFC 9112, 9.6: closed with bytes unread, the connection is reset, and a reset can
        # overtake the answer.
        await self._close_stream()
        self._sent = asyncio.Event()
        self.task_group.spawn(self._linger, self._sent)

    async def _linger(self, sent: asyncio.Event) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SEC):
                await sent.wait()
        await self.send(Closed())


class Connection(TCPServer):
    """The socket's side. `connections` holds it while it is open."""

    def __init__(self, connections: set[Connection], *arguments: Any) -> None:
        super().__init__(*arguments)
        self._connections = connections

    async def run(self) -> None:
        self._connections.add(self)
        try:
            await super().run()
        finally:
            self._connections.discard(self)

    def abort(self) -> None:
        """Close now, whatever is still to be sent."""
        self.writer.transport.abort()

    async def protocol_send(self, event: Event) -> None:
        try:
            await super().protocol_send(event)
        except OSError:  # ETIMEDOUT; the inherited one knows only ConnectionError
            await self.protocol.handle(Closed())

    async def _close(self) -> None:
        with suppress(OSError):
            await super()._close()


def use_own_connections(connections: set[Connection]) -> None:
    """Let Hypercorn use these classes, which it has no setting for; the open ones are kept in
    `connections`."""
    modules: tuple[Any, Any] = (hypercorn.protocol, hypercorn.asyncio.run)
    modules[0].H11Protocol = Http1Protocol
    modules[1].TCPServer = partial(Connection, connections)
