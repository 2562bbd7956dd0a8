"""What is never cached passes through as it comes, whatever its size: in memory that stays flat."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

import pytest
from support.leaks import forget_peak, nothing_left_behind, peak_memory
from support.proxy import Proxy
from support.raw import RawConnection

SIZE = 96 << 20
PIECE = b"x" * (1 << 20)
FLAT = 24 << 20
"""Bytes of memory an upload may take, whatever its size."""


class Sink:
    """An upstream that reads a request's body only when it is let, counts it, and answers."""

    def __init__(self) -> None:
        self.let = threading.Event()
        self.counted = 0
        self.head = b""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        with closing(self._listener), self._listener.accept()[0] as client:
            data = b""
            while b"\r\n\r\n" not in data:
                data += client.recv(1 << 16)
            self.head, _, rest = data.partition(b"\r\n\r\n")
            self.let.wait(60)
            self.counted = len(rest)
            chunked = b"transfer-encoding: chunked" in self.head.lower()
            end = b""
            while (not chunked and self.counted < SIZE) or (chunked and end != b"0\r\n\r\n"):
                if not (more := client.recv(1 << 20)):
                    return
                self.counted += len(more)
                end = (end + more)[-5:]
            client.sendall(b"HTTP/1.1 200 Fine\r\nContent-Length: 2\r\n\r\n{}")


@contextmanager
def sink() -> Iterator[Sink]:
    one = Sink()
    yield one
    one.let.set()
    one.thread.join(60)


def head(port: int, framing: str) -> bytes:
    return (
        f"POST /v1/files HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        f"x-api-key: k\r\nConnection: close\r\n{framing}\r\n\r\n"
    ).encode()


@pytest.mark.parametrize("chunked", [False, True])
def test_an_upload_of_any_size_passes_in_flat_memory(proxy: Any, chunked: bool) -> None:
    with sink() as upstream:
        one: Proxy = proxy(
            CACHE_UPSTREAM_ANTHROPIC=upstream.url, CACHE_MAX_REQUEST_BYTES=str(1 << 20)
        )
        with nothing_left_behind(one), RawConnection(one.port, deadline=90) as client:
            before = forget_peak(one)
            framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {SIZE}"
            client.send(head(one.port, framing))
            upstream.let.set()
            for _ in range(SIZE // len(PIECE)):
                client.send(b"%x\r\n%b\r\n" % (len(PIECE), PIECE) if chunked else PIECE)
            if chunked:
                client.send(b"0\r\n\r\n")
            answer = client.response()
            assert (answer.status, answer.read_all()) == (200, b"{}")
            assert answer.header("x-cache") == "PASS"
            assert upstream.counted >= SIZE
            assert peak_memory(one) - before < FLAT


def test_a_client_sends_no_faster_than_its_upstream_reads(proxy: Any) -> None:
    with sink() as upstream:
        one: Proxy = proxy(CACHE_UPSTREAM_ANTHROPIC=upstream.url)
        before = forget_peak(one)
        with socket.create_connection(("127.0.0.1", one.port)) as client:
            client.sendall(head(one.port, f"Content-Length: {SIZE}"))
            client.settimeout(2)
            sent = 0
            with suppress(TimeoutError):  # nobody takes any more
                while sent < SIZE:
                    sent += client.send(PIECE)
            assert sent < SIZE
            assert peak_memory(one) - before < FLAT
            upstream.let.set()
            client.settimeout(60)
            while sent < SIZE:
                sent += client.send(PIECE[: SIZE - sent])
            answer = b""
            while more := client.recv(1 << 16):
                answer += more
        assert answer.startswith(b"HTTP/1.1 200 Fine\r\n")
        assert answer.endswith(b"{}")


def test_a_client_that_leaves_in_the_middle_of_its_upload_leaves_nothing_behind(
    proxy: Any,
) -> None:
    with sink() as upstream:
        one: Proxy = proxy(CACHE_UPSTREAM_ANTHROPIC=upstream.url)
        upstream.let.set()
        with nothing_left_behind(one):
            with RawConnection(one.port) as client:
                client.send(head(one.port, f"Content-Length: {SIZE}") + PIECE)
            upstream.thread.join(60)
        assert upstream.counted < SIZE
