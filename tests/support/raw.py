"""A raw HTTP/1.1 client: the exact bytes a test wants to send, and what came back, byte by byte.

What always holds here:
- Nothing is added to a request and nothing of a response is hidden: interim responses, trailers
  and every way a body can end (`Ending`) are told apart.
- Every wait has a deadline; passing it raises TimeoutError, it never hangs.
- A response's framing is read as RFC 9112, section 6.3 says; a fault raises `BadFraming`.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Iterable
from enum import Enum
from types import TracebackType
from typing import Self

DEADLINE = 10.0
"""Seconds one connection may take for everything, unless told otherwise."""


class BadFraming(Exception):
    """The peer sent something that isn't HTTP/1.1."""


class Ending(Enum):
    """How a response's body ended."""

    COMPLETE = "complete"  # as its framing announced
    CLOSED = "closed"  # no framing: it ended with the connection
    CUT = "cut"  # FIN before the announced end
    RESET = "reset"  # RST


class Response:
    """A response that is read as far as the test asks. `body` is what was read so far, without
    chunked framing; `chunks` the sizes of the chunks, when chunked."""

    def __init__(
        self, connection: RawConnection, head: bytes, interim: list[bytes], method: str
    ) -> None:
        self.head = head
        self.interim = interim
        self.body = b""
        self.chunks: list[int] = []
        self.trailers: list[tuple[str, str]] = []
        self.ending: Ending | None = None
        self._connection = connection
        lines = head.decode("latin-1").split("\r\n")
        version, _, rest = lines[0].partition(" ")
        if version not in ("HTTP/1.1", "HTTP/1.0") or not rest[:3].isdigit():
            raise BadFraming(f"not a status line: {lines[0]!r}")
        self.status = int(rest[:3])
        self.headers = [_field(line) for line in lines[1:-2]]
        self._chunked = (self.header("transfer-encoding") or "").lower() == "chunked"
        self._left: int | None = None  # bytes to come; None: until the connection ends
        if method == "HEAD" or self.status in (204, 304):
            self._left, self._chunked = 0, False
        elif self._chunked:
            self._left = 0
        elif (length := self.header("content-length")) is not None:
            self._left = int(length)
        if self._left == 0 and not self._chunked:
            self.ending = Ending.COMPLETE

    def header(self, name: str) -> str | None:
        """The values of one header joined by ", ", or None when it isn't there."""
        values = [value for key, value in self.headers if key == name.lower()]
        return ", ".join(values) if values else None

    def read(self, count: int) -> bytes:
        """Read until `body` holds at least `count` bytes or has ended; all of it so far."""
        while self.ending is None and len(self.body) < count:
            self._step()
        return self.body

    def read_until(self, mark: bytes) -> bytes:
        """Read until `mark` is in `body` or it has ended; all of it so far."""
        while self.ending is None and mark not in self.body:
            self._step()
        return self.body

    def read_all(self) -> bytes:
        """Read to the end, however it ends; the whole body."""
        while self.ending is None:
            self._step()
        return self.body

    @property
    def complete(self) -> bool:
        """True when the body ended as announced."""
        return self.ending in (Ending.COMPLETE, Ending.CLOSED)

    def _step(self) -> None:
        """Take the next bytes of body that are there, at least one, or note the end."""
        try:
            if self._chunked and self._left == 0 and not self._next_chunk():
                return
            data = self._connection.take_some(self._left)
        except ConnectionResetError:
            self.ending = Ending.RESET
            return
        except EOFError:
            self.ending = Ending.CUT
            return
        if not data:
            self.ending = Ending.CLOSED if self._left is None else Ending.CUT
            return
        self.body += data
        if self._left is None:
            return
        self._left -= len(data)
        if self._left == 0 and self._chunked and self._connection.take(2) != b"\r\n":
            raise BadFraming("no line end after a chunk")
        if self._left == 0 and not self._chunked:
            self.ending = Ending.COMPLETE

    def _next_chunk(self) -> bool:
        line = self._connection.take_through(b"\r\n")
        try:
            self._left = int(line.split(b";")[0], 16)
        except ValueError:
            raise BadFraming(f"not a chunk header: {line!r}") from None
        if self._left:
            self.chunks.append(self._left)
            return True
        while (line := self._connection.take_through(b"\r\n")) != b"\r\n":
            self.trailers.append(_field(line.decode("latin-1").rstrip("\r\n")))
        self.ending = Ending.COMPLETE
        return False


class RawConnection:
    """One TCP connection to 127.0.0.1 or ::1. `deadline` is in seconds, for its whole life."""

    def __init__(self, port: int, host: str = "127.0.0.1", deadline: float = DEADLINE) -> None:
        self._until = time.monotonic() + deadline
        self._buffer = bytearray()
        self._host = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._socket = socket.create_connection((host, port), timeout=deadline)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    # Requests

    def send(self, data: bytes) -> None:
        """Send exactly these bytes."""
        self._socket.settimeout(self._time_left())
        self._socket.sendall(data)

    def request(
        self,
        method: str,
        target: str,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes = b"",
    ) -> Response:
        """Send a well-formed request and read the response's head."""
        self.send(request_bytes(method, target, self._host, headers, body))
        return self.response(method)

    def response(self, method: str = "GET") -> Response:
        """Read the next final response's head; interim (1xx) ones are kept in `interim`."""
        interim: list[bytes] = []
        while True:
            head = self.take_through(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 1") or head.startswith(b"HTTP/1.1 101"):
                return Response(self, head, interim, method)
            interim.append(head)

    # Bytes in

    def take(self, count: int) -> bytes:
        """Exactly `count` bytes. EOFError when the peer closes before."""
        while len(self._buffer) < count:
            self._receive()
        return self._cut(count)

    def take_through(self, mark: bytes) -> bytes:
        """Everything up to and with `mark`. EOFError when the peer closes before."""
        while (end := self._buffer.find(mark)) < 0:
            self._receive()
        return self._cut(end + len(mark))

    def take_some(self, limit: int | None = None) -> bytes:
        """What is there, at least one byte and at most `limit`; empty at the connection's end."""
        try:
            if not self._buffer:
                self._receive()
        except EOFError:
            return b""
        return self._cut(len(self._buffer) if limit is None else min(limit, len(self._buffer)))

    def take_all(self) -> bytes:
        """Everything until the peer closes."""
        out = b""
        while data := self.take_some():
            out += data
        return out

    def is_quiet(self) -> bool:
        """True when the peer has, at this moment, neither sent anything more nor closed."""
        return not self._buffer and not select.select([self._socket], [], [], 0)[0]

    def wait_closed(self) -> bytes:
        """Block until the peer closes (FIN or RST); what it still sent before."""
        try:
            return self.take_all()
        except ConnectionResetError:
            return b""

    # Ends

    def half_close(self) -> None:
        """Send FIN and go on reading."""
        self._socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Close with RST, as a client that crashes does."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def close(self) -> None:
        """Close with FIN."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _cut(self, count: int) -> bytes:
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data

    def _receive(self) -> None:
        self._socket.settimeout(self._time_left())
        data = self._socket.recv(65536)
        if not data:
            raise EOFError(f"closed by the peer with {bytes(self._buffer[:200])!r} unread")
        self._buffer += data

    def _time_left(self) -> float:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"deadline passed with {bytes(self._buffer[:200])!r} unread")
        return left


def request_bytes(
    method: str,
    target: str,
    host: str,
    headers: Iterable[tuple[str, str]] = (),
    body: bytes = b"",
) -> bytes:
    """A well-formed request. `host` and content-length are left out when `headers` has them."""
    fields = list(headers)
    names = {name.lower() for name, _ in fields}
    if "host" not in names:
        fields.insert(0, ("host", host))
    if (body or method == "POST") and not names & {"content-length", "transfer-encoding"}:
        fields.append(("content-length", str(len(body))))
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields)]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def exchange(
    port: int,
    method: str,
    target: str,
    headers: Iterable[tuple[str, str]] = (),
    body: bytes = b"",
    *,
    host: str = "127.0.0.1",
    deadline: float = DEADLINE,
) -> Response:
    """One request on a connection of its own; the response, read to its end."""
    with RawConnection(port, host, deadline) as connection:
        response = connection.request(method, target, headers, body)
        response.read_all()
        return response


def _field(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon or not name or name != name.strip():
        raise BadFraming(f"not a header field: {line!r}")
    return name.lower(), value.strip()
