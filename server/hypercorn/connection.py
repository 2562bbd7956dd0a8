"""One client connection: Hypercorn's, held to HTTP/1.1 and sure to end.

What holds here, and doesn't in Hypercorn itself:

- An `upgrade` is not taken up (RFC 9110, 7.8). Hypercorn switches to HTTP/2 in the clear or to a
  WebSocket when a client asks; both bring rules of their own about time and memory, and a handshake
  that fails leaves the connection open for ever. So every request is a plain one the guard sees.
- An answer sent before the whole request has arrived (a refusal) reaches the client: only our half
  of the connection is closed while the client is still sending, within `LINGER_SEC`.
- A hit whose request looks exactly like one before goes the short way (see `fastlane`).
- Once the client has closed, nothing of the connection stays; Hypercorn keeps it until its idle
  time is over. That is noticed also behind bytes that came after the request; Hypercorn reads no
  further until the request is answered.
- A connection the kernel gave up (the client left its answer unread) is closed like any other.
- Every open connection is in a set, so that a stop which can't wait any longer can end it.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import Any, cast

import h11
import hypercorn.asyncio.run
import hypercorn.protocol
from hypercorn.asyncio.tcp_server import MAX_RECV, TCPServer
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.events import Body, EndBody, Request, Response
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.typing import ConnectionState

from llm_cache.server.bodies import Side
from llm_cache.server.hypercorn.fastlane import FastLane, head_of

GATHER_SEC = 0.05
"""How long the short way waits for a body that comes apart from its head."""

LINGER_SEC = 2.0
"""Longest time a client may go on sending a request that was answered already."""

MAX_AHEAD = 64 * 1024
"""Bytes: with more than these behind a request, nothing is read until it is answered. Up to one
read of `MAX_RECV` above it is held."""


EVENTS_A_TURN = 64
"""Parsed pieces of a request after which other connections have their turn."""


class HalfClosed(Event):
    """Nothing more will be sent."""


class Http1Protocol(H11Protocol):
    """HTTP/1.1 that stays HTTP/1.1."""

    _sent: asyncio.Event | None = None  # set once a client we linger for has sent all
    _closed = False
    head: bytes | None = None  # of the request that is about to be parsed, if it is plain to see
    place: object = None  # what else the fast lane's decisions hang on

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._side = Side()  # of the request that is being read or answered
        self._parsing = asyncio.Lock()  # the read loop and `_maybe_recycle` both have it done

    @property
    def between_requests(self) -> bool:
        """True when nothing of a request has arrived and no answer is under way."""
        connection = self.connection
        return (
            self.stream is None
            and connection.their_state is h11.IDLE
            and connection.our_state is h11.IDLE
            and not connection.trailing_data[0]
        )

    async def handle(self, event: Event) -> None:
        if isinstance(event, Closed):
            self._closed = True
            self._side.release()
            await self.can_read.set()
        await super().handle(event)
        if self._sent is not None and (
            isinstance(event, Closed) or self.connection.their_state is not h11.SEND_BODY
        ):
            self._sent.set()
        if isinstance(event, RawData):
            await self._wait_if_far_ahead()

    async def _wait_if_far_ahead(self) -> None:
        connection = self.connection
        while (
            not self._closed
            and self.stream is not None
            and connection.their_state is h11.DONE
            and len(connection.trailing_data[0]) > MAX_AHEAD
        ):
            await self.can_read.clear()
            await self.can_read.wait()

    async def _handle_events(self) -> None:
        # Hypercorn's loop, which at h11.PAUSED (there is more, but the request before it isn't
        # answered) waits and so keeps the read loop from seeing the client leave. What is left
        # is taken up by `_maybe_recycle`.
        events = 0
        async with self._parsing:
            while not self._closed:
                events += 1
                if events % EVENTS_A_TURN == 0:  # thousands of small chunks can come in one read
                    await asyncio.sleep(0)
                if self.connection.they_are_waiting_for_100_continue:
                    await self._send_h11_event(
                        h11.InformationalResponse(
                            status_code=100, headers=self.config.response_headers("h11")
                        )
                    )
                try:
                    event = self.connection.next_event()
                    if isinstance(event, h11.Request):
                        self._check_size(event)
                except h11.RemoteProtocolError as error:
                    if self.connection.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
                        await self._send_error_response(error.error_status_hint)
                    await self.send(Closed())
                    return
                if isinstance(event, h11.Request):
                    await self.send(Updated(idle=False))
                    await self._create_stream(event)
                elif isinstance(event, h11.Data):
                    if self.stream is not None:  # else it was answered before it was whole
                        side = self._side
                        side.came(len(event.data))
                        await self.stream.handle(Body(stream_id=STREAM_ID, data=event.data))
                        await side.room()
                elif self.stream is None:
                    return
                elif isinstance(event, h11.EndOfMessage):
                    await self.stream.handle(EndBody(stream_id=STREAM_ID))
                else:  # NEED_DATA, PAUSED, ConnectionClosed
                    return

    def _check_size(self, request: h11.Request) -> None:
        # h11 holds a head to its limit only while it isn't whole.
        size = len(request.method) + len(request.target) + len(b"  HTTP/1.1\r\n\r\n")
        for name, value in request.headers:
            size += len(name) + len(value) + len(b": \r\n")
        if size > self.config.h11_max_incomplete_size:
            raise h11.RemoteProtocolError("the request head is too large", error_status_hint=431)

    async def _create_stream(self, request: h11.Request) -> None:
        head, self.head = self.head, None  # it is this request's; the next has another
        self._side = Side(head, self.place)
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
                state=cast(ConnectionState, {"side": self._side}),
            )
        )
        self.keep_alive_requests += 1
        await self.context.mark_request()

    async def stream_send(self, event: StreamEvent) -> None:
        if isinstance(event, Response):  # Hypercorn's own has no reason phrase
            await self._send_h11_event(
                h11.Response(
                    status_code=event.status_code,
                    headers=[*event.headers, *self.config.response_headers("h11")],
                    reason=self._side.reason,
                )
            )
        else:
            await super().stream_send(event)

    async def _maybe_recycle(self) -> None:
        self._side.release()
        if self.connection.their_state is not h11.SEND_BODY:
            await super()._maybe_recycle()
            if self.connection.our_state is h11.IDLE and self.connection.trailing_data[0]:
                # In a task of its own: this one is the answered request's, and many requests
                # sent at once would be answered one inside the other.
                self.task_group.spawn(self._handle_events)
            return
        # RFC 9112, 9.6: closed with bytes unread, the connection is reset, and a reset can
        # overtake the answer.
        await self._close_stream()
        await self.send(HalfClosed())
        self._sent = asyncio.Event()
        self.task_group.spawn(self._linger, self._sent)

    async def _linger(self, sent: asyncio.Event) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SEC):
                await sent.wait()
        await self.send(Closed())


class Connection(TCPServer):
    """The socket's side. `connections` holds it while it is open."""

    def __init__(self, connections: set[Connection], lane: FastLane, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._connections = connections
        self._lane = lane
        self._idle = _IdleTimer(self)
        self.idle_task = cast(Any, self._idle)
        self._place: object = None
        self._last = False  # a stop was asked for; Hypercorn says so only a little later
        self.last_answer = 0.0
        """When the short way was last taken, in the loop's time."""

    async def run(self) -> None:
        self._connections.add(self)
        try:
            await super().run()
        finally:
            self._idle.cancel()
            self._connections.discard(self)

    @property
    def stopping(self) -> bool:
        """True once the server takes no new requests."""
        return self._last or self.context.terminated.is_set()

    def end_when_idle(self) -> None:
        """Close now if no request is under way, else after the one that is."""
        self._last = True
        if self._idle.running:
            self._idle.expire()

    async def _read_data(self) -> None:
        # Hypercorn's loop, with the short way before the parser.
        while not self.reader.at_eof():
            try:
                data = await self.reader.read(MAX_RECV)
            except OSError:
                break
            protocol = self.protocol.protocol
            if isinstance(protocol, Http1Protocol) and protocol.between_requests:
                known = self._lane.known(self._the_place(), data) if not self.stopping else None
                if known is not None:
                    whole = known.size + known.length
                    if len(data) < whole <= len(data) + MAX_RECV:
                        data += await self._rest(whole - len(data))
                    if len(data) == whole and (
                        answer := self._lane.answer(known, data[known.size :])
                    ):
                        self.last_answer = self.loop.time()
                        self.writer.writelines(answer)
                        with suppress(OSError):
                            await self.writer.drain()
                        if not self._idle.running:
                            await self._idle.restart()
                        continue
                protocol.head, protocol.place = head_of(data), self._place
            await self.protocol.handle(RawData(data))
        self._idle.cancel()
        await self.protocol.handle(Closed())

    async def _rest(self, missing: int) -> bytes:
        """What comes of the next `missing` bytes within a moment: many clients send head and body
        one right after the other. A body that takes longer goes the long way, which has the timers
        for it."""
        await self._idle.stop()
        gathered = b""
        with suppress(TimeoutError, OSError):
            async with asyncio.timeout(GATHER_SEC):
                while len(gathered) < missing and (more := await self.reader.read(MAX_RECV)):
                    gathered += more
        return gathered

    def _the_place(self) -> object:
        if self._place is None:
            name = self.writer.get_extra_info("sockname")
            address = name[0] if name else None  # None: it has just been closed
            self._place = (self.writer.get_extra_info("ssl_object") is not None, address)
        return self._place

    def abort(self) -> None:
        """Close now, whatever is still to be sent."""
        self.writer.transport.abort()

    async def protocol_send(self, event: Event) -> None:
        try:
            if isinstance(event, HalfClosed):
                if self.writer.can_write_eof():  # TLS can't
                    self.writer.write_eof()
                return
            await super().protocol_send(event)
        except (OSError, RuntimeError):
            # ETIMEDOUT, of which the inherited one doesn't know, or closed already.
            await self.protocol.handle(Closed())

    async def _close(self) -> None:
        with suppress(OSError):
            await super()._close()


class _IdleTimer:
    """Ends a connection that is idle for too long: Hypercorn's idle task as a timer, which costs
    a request next to nothing and is over when the connection is."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._handle: asyncio.TimerHandle | None = None
        self._ending: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """True while the connection is idle."""
        return self._handle is not None

    async def restart(self, *_: object) -> None:
        """The connection is idle from now on. Hypercorn passes its own task, which isn't used."""
        self.cancel()
        if self._connection.stopping:
            self.expire()
        else:
            self._wait(self._connection.config.keep_alive_timeout)

    async def stop(self) -> None:
        """A request has begun."""
        self.cancel()

    def cancel(self) -> None:
        """Wait no longer."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def expire(self) -> None:
        """Close the connection."""
        self.cancel()
        self._ending = asyncio.ensure_future(self._connection._initiate_server_close())

    def _wait(self, seconds: float) -> None:
        self._handle = asyncio.get_running_loop().call_later(seconds, self._check)

    def _check(self) -> None:
        # The short way doesn't touch the timer; what it answered meanwhile counts here.
        connection = self._connection
        since = connection.loop.time() - connection.last_answer
        left = connection.config.keep_alive_timeout - since
        if left > 0:
            self._wait(left)
        else:
            self.expire()


def use_own_connections(connections: set[Connection], lane: FastLane) -> None:
    """Let Hypercorn use these classes, which it has no setting for; the open ones are kept in
    `connections`."""
    modules: tuple[Any, Any] = (hypercorn.protocol, hypercorn.asyncio.run)
    modules[0].H11Protocol = Http1Protocol
    modules[1].TCPServer = partial(Connection, connections, lane)
