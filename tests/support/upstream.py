"""A loopback HTTP/1.1 upstream that can answer right and wrong in every way a socket allows.

What always holds here:
- Every byte sent is decided by the test: a `Reply` is a script of steps, sent in order.
- Nothing waits for a clock. A script stops at a `Gate` until the test releases it, and the test
  waits for facts (`wait_for_calls`, `Call.wait_sent`, `Call.wait_closed`), each with a deadline.
- Requests are recorded exactly as received. A fault inside the script itself is kept in `errors`.
- The server runs in a thread of its own and listens on 127.0.0.1 only.

A plain answer, an answer that is cut after 10 bytes of body, and one the test steps through:

    upstream.script(json_reply(body))
    upstream.script(Reply(body=at_byte([body], 10, Cut())))
    gate = Gate(); upstream.script(Reply(body=(first, gate, second), framing=Framing.CHUNKED))
"""

from __future__ import annotations

import asyncio
import itertools
import random
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self, TypeAlias

from support.replies import (
    DEADLINE,
    Cut,
    Framing,
    Gate,
    Made,
    Pause,
    Raw,
    Reply,
    Reset,
    Stall,
    Step,
    framed,
)


@dataclass(frozen=True, slots=True)
class Request:
    """A request as the upstream got it. `head` is raw, up to and with the empty line; `raw_body`
    is what followed on the wire, `body` the same without chunked framing."""

    head: bytes
    raw_body: bytes
    body: bytes
    connection: int

    @property
    def method(self) -> str:
        """The request line's method."""
        return self.head.split(b" ", 1)[0].decode("latin-1")

    @property
    def target(self) -> str:
        """The request line's target, as sent."""
        return self.head.split(b"\r\n", 1)[0].split(b" ")[1].decode("latin-1")

    @property
    def headers(self) -> list[tuple[str, str]]:
        """Header fields in order; names lower-case."""
        lines = self.head.decode("latin-1").split("\r\n")[1:-2]
        pairs = (line.partition(":") for line in lines)
        return [(name.lower(), value.strip()) for name, _, value in pairs]

    def header(self, name: str) -> str | None:
        """The values of one header joined by ", ", or None when it isn't there."""
        values = [value for key, value in self.headers if key == name.lower()]
        return ", ".join(values) if values else None


class Call:
    """One request and what has become of its answer. Safe to read from the test's thread."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.reply: Reply | None = None
        self._changed = threading.Condition()
        self._sent = 0
        self._finished = False
        self._closed = False
        self._aborted = False

    @property
    def sent(self) -> int:
        """Bytes of body handed to the socket so far (without framing)."""
        return self._sent

    @property
    def finished(self) -> bool:
        """True once the script has run to its end."""
        return self._finished

    @property
    def closed(self) -> bool:
        """True once the proxy closed the connection of this call (or both sides did)."""
        return self._closed

    @property
    def aborted(self) -> bool:
        """True when the proxy closed the connection before the script had run to its end."""
        return self._aborted

    def wait_sent(self, count: int, timeout: float = DEADLINE) -> None:
        """Block until `count` bytes of body have been sent."""
        self._wait(lambda: self._sent >= count, timeout, f"{count} bytes sent")

    def wait_finished(self, timeout: float = DEADLINE) -> None:
        """Block until the whole script has run."""
        self._wait(lambda: self._finished, timeout, "the answer to end")

    def wait_closed(self, timeout: float = DEADLINE) -> None:
        """Block until the connection is gone."""
        self._wait(lambda: self._closed, timeout, "the proxy to close the connection")

    def _wait(self, fact: Callable[[], bool], timeout: float, what: str) -> None:
        with self._changed:
            if not self._changed.wait_for(fact, timeout):
                raise TimeoutError(f"waited {timeout} s for {what}: {self!r}")

    def _note(self, *, sent: int = 0, finished: bool = False, closed: bool = False) -> None:
        with self._changed:
            self._sent += sent
            self._finished = self._finished or finished
            if closed and not self._closed:
                self._closed = True
                self._aborted = not self._finished
            self._changed.notify_all()

    def __repr__(self) -> str:
        return (
            f"<Call {self.request.method} {self.request.target} sent={self._sent}"
            f" finished={self._finished} closed={self._closed}>"
        )


Responder: TypeAlias = Callable[[Request], Reply]


class Upstream:
    """The server. Replies queued by `script` go first, in order; then `default` answers.

    Use as a context manager, or `start()` and `stop()`.
    """

    def __init__(self, default: Reply | Responder | None = None) -> None:
        self.default: Reply | Responder | None = default
        self.errors: list[BaseException] = []
        self.port = 0
        self._queue: deque[Reply] = deque()
        self._calls: list[Call] = []
        self._changed = threading.Condition()
        self._open: set[_Connection] = set()
        self._connections = 0
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._thread = threading.Thread(target=self._run, name="upstream", daemon=True)

    # What tests do with it

    @property
    def url(self) -> str:
        """The base URL, without a slash at its end."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def calls(self) -> list[Call]:
        """Every call so far, in order of arrival."""
        with self._changed:
            return list(self._calls)

    @property
    def call_count(self) -> int:
        """How many complete requests have arrived."""
        return len(self._calls)

    @property
    def connections(self) -> int:
        """How many connections were accepted since the start."""
        return self._connections

    @property
    def open_connections(self) -> int:
        """How many connections are open now."""
        return len(self._open)

    def script(self, *replies: Reply) -> None:
        """Queue replies for the next requests, in order."""
        with self._changed:
            self._queue.extend(replies)

    def wait_for_calls(self, count: int, timeout: float = DEADLINE) -> list[Call]:
        """Block until `count` requests have arrived since the start; all calls so far."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._calls) >= count, timeout):
                raise TimeoutError(f"{len(self._calls)} of {count} calls after {timeout} s")
            return list(self._calls)

    def wait_all_closed(self, timeout: float = DEADLINE) -> None:
        """Block until no connection is open."""
        with self._changed:
            if not self._changed.wait_for(lambda: not self._open, timeout):
                raise TimeoutError(f"{len(self._open)} connections still open after {timeout} s")

    def drop_connections(self) -> None:
        """Close every open connection with FIN, as a server does with idle ones."""

        async def drop() -> None:
            for connection in list(self._open):
                connection.end()

        self._do(drop())

    def refuse(self) -> None:
        """Stop listening: new connections are refused. Open ones stay."""

        async def close() -> None:
            if self._server is not None:
                self._server.close()
                self._server = None

        self._do(close())

    def listen(self) -> None:
        """Listen (again) on the same port."""
        self._do(self._listen())

    # Life

    def start(self) -> Self:
        """Begin to listen on a free port."""
        self._thread.start()
        self._do(self._listen())
        return self

    def stop(self) -> None:
        """Close everything; the thread has ended when this returns."""
        if not self._thread.is_alive():
            return
        self._do(self._shut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(DEADLINE)
        if self._thread.is_alive():
            raise TimeoutError("the upstream's thread did not end")
        self._loop.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    # Inside the thread

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _do(self, what: Coroutine[None, None, None]) -> None:
        asyncio.run_coroutine_threadsafe(what, self._loop).result(DEADLINE)

    async def _listen(self) -> None:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        self.port = listener.getsockname()[1]
        self._server = await self._loop.create_server(
            lambda: _Connection(self), sock=listener, backlog=1024
        )

    async def _shut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        tasks = []
        for connection in list(self._open):
            tasks += connection.abort()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # connection_lost of the aborted ones

    def _opened(self, connection: _Connection) -> int:
        with self._changed:
            self._connections += 1
            self._open.add(connection)
            return self._connections

    def _lost(self, connection: _Connection) -> None:
        with self._changed:
            self._open.discard(connection)
            self._changed.notify_all()

    def _arrived(self, request: Request) -> tuple[Call, Reply]:
        call = Call(request)
        with self._changed:
            default = self.default
            queued = self._queue.popleft() if self._queue else None
            self._calls.append(call)
            self._changed.notify_all()
        if queued is not None:
            reply = queued
        elif isinstance(default, Reply):
            reply = default
        elif default is not None:
            reply = default(request)
        else:
            raise AssertionError(f"no reply scripted for {request.method} {request.target}")
        call.reply = reply
        return call, reply


class _Connection(asyncio.Protocol):
    """One accepted connection: requests in, scripted bytes out, one at a time."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._buffer = bytearray()
        self._more = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._lost = False
        self._call: Call | None = None
        self._task: asyncio.Task[None] | None = None

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        # asyncio does so only for sockets made with an explicit protocol number, which accepted
        # ones lack; without it a second small write waits for the peer's delayed ACK.
        accepted: socket.socket = transport.get_extra_info("socket")
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._number = self._upstream._opened(self)
        self._task = asyncio.get_running_loop().create_task(self._serve())

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._more.set()

    def eof_received(self) -> bool:
        self._gone()
        return False  # close our side too

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone()
        self._upstream._lost(self)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def end(self) -> None:
        self._transport.close()

    def abort(self) -> list[asyncio.Task[None]]:
        self._transport.abort()
        if self._task is None:
            return []
        self._task.cancel()
        return [self._task]

    def _gone(self) -> None:
        self._lost = True
        self._more.set()
        self._writable.set()
        if self._call is not None:
            self._call._note(closed=True)
        if self._task is not None:
            self._task.cancel()

    # Requests in

    async def _serve(self) -> None:
        try:
            while True:
                request = await self._read_request()
                if request is None:
                    return
                self._call, reply = self._upstream._arrived(request)
                if not await self._send(reply, self._call):
                    return
        except asyncio.CancelledError:
            pass  # the connection is gone
        except BaseException as error:  # the test must see it, whatever it is
            self._upstream.errors.append(error)
            self._transport.abort()

    async def _read_request(self) -> Request | None:
        head = await self._take_through(b"\r\n\r\n")
        if head is None:
            return None
        fields = Request(head, b"", b"", self._number)
        if (fields.header("transfer-encoding") or "").lower() == "chunked":
            raw, body = await self._read_chunked()
        else:
            body = raw = await self._take(int(fields.header("content-length") or 0))
        return replace(fields, raw_body=raw, body=body)

    async def _read_chunked(self) -> tuple[bytes, bytes]:
        raw, body = bytearray(), bytearray()
        while True:
            line = await self._take_through(b"\r\n") or b""
            size = int(line.split(b";")[0], 16)
            data = await self._take(size)
            raw += line + data
            body += data
            raw += await self._take_through(b"\r\n") or b""  # or a trailer's end
            if size == 0:
                return bytes(raw), bytes(body)

    async def _take_through(self, mark: bytes) -> bytes | None:
        while (end := self._buffer.find(mark)) < 0:
            if not await self._read_more():
                return None
        return await self._take(end + len(mark))

    async def _take(self, count: int) -> bytes:
        while len(self._buffer) < count:
            await self._read_more()
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data

    async def _read_more(self) -> bool:
        self._more.clear()
        await self._more.wait()
        return not self._lost

    # Answers out

    async def _send(self, reply: Reply, call: Call) -> bool:
        """Run the script. False when the connection is not to be used again."""
        if not await self._steps(reply.before, reply.framing, call):
            return False
        if reply.framing is Framing.NONE:
            call._note(finished=True)
            return True
        await self._write(reply.head())
        if not await self._steps(reply.body, reply.framing, call):
            return False
        if reply.framing is Framing.CHUNKED:
            await self._write(b"0\r\n\r\n")
        if not await self._steps(reply.after, Framing.NONE, call):
            return False
        call._note(finished=True)
        if reply.framing is Framing.CLOSE or not reply.keep_alive:
            self._transport.close()
            return False
        return True

    async def _steps(self, steps: Sequence[Step], framing: Framing, call: Call) -> bool:
        for step in steps:
            match step:
                case bytes():
                    await self._write(framed(step, framing))
                    call._note(sent=len(step))
                case Made():
                    data = step.make()
                    await self._write(framed(data, framing))
                    call._note(sent=len(data))
                case Raw():
                    await self._write(step.data)
                case Gate():
                    await step.passed()
                case Pause():
                    await asyncio.sleep(step.seconds)
                case Cut():
                    call._note(finished=True)
                    self._transport.close()
                    return False
                case Reset():
                    call._note(finished=True)
                    self._reset()
                    return False
                case Stall():
                    await asyncio.Event().wait()  # until the connection's end cancels it
        return True

    async def _write(self, data: bytes) -> None:
        self._transport.write(data)
        await self._writable.wait()

    def _reset(self) -> None:
        """RST instead of FIN: a linger time of zero (SO_LINGER, socket(7))."""
        raw: socket.socket = self._transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()


_PORTS = itertools.cycle(range(15_000, 32_000))
for _ in range(random.randrange(17_000)):
    next(_PORTS)


def unused_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on at this moment, another one each time. It lies
    below what systems give to outgoing connections (from 32768 on Linux, 49152 on macOS), so that
    none of those takes it until it is used."""
    while True:
        port = next(_PORTS)
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def wait_until(fact: Callable[[], bool], what: str, timeout: float = DEADLINE) -> None:
    """Poll a fact that can't be waited for, until it holds or the deadline has passed."""
    deadline = time.monotonic() + timeout
    while not fact():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout} s for {what}")
        time.sleep(0.005)
