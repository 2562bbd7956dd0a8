"""The raw client tells every ending apart and never waits beyond its deadline."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from support.raw import BadFraming, Ending, RawConnection, Response


@contextmanager
def answered(data: bytes, host: str = "127.0.0.1", close: bool = True) -> Iterator[RawConnection]:
    """A connection whose peer has sent `data` and then closed its side, or waits for ours."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listener:
        left = threading.Event()

        def serve() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.sendall(data)
                if not close:
                    left.wait(10)

        thread = threading.Thread(target=serve)
        thread.start()
        with RawConnection(listener.getsockname()[1], host, deadline=5) as connection:
            yield connection
        left.set()
        thread.join(10)


@pytest.mark.parametrize(
    ("data", "body", "ending"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc", b"abc", Ending.COMPLETE),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nabc", b"abc", Ending.CUT),
        (b"HTTP/1.1 200 OK\r\n\r\nabc", b"abc", Ending.CLOSED),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b"", Ending.COMPLETE),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            b"abc",
            Ending.COMPLETE,
        ),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
            b"abc",
            Ending.CUT,
        ),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabc", b"abc", Ending.CUT),
    ],
)
def test_each_ending_is_told_apart(data: bytes, body: bytes, ending: Ending) -> None:
    with answered(data) as connection:
        response = connection.response()
        assert (response.read_all(), response.ending) == (body, ending)


def test_bytes_after_the_response_are_not_part_of_it() -> None:
    with answered(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokextra") as connection:
        assert connection.response().read_all() == b"ok"
        assert connection.take_all() == b"extra"


def test_trailers_are_read() -> None:
    data = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx-t: 1\r\n\r\n"
    with answered(data) as connection:
        response = connection.response()
        assert (response.read_all(), response.trailers) == (b"a", [("x-t", "1")])


def test_head_request_has_no_body() -> None:
    with answered(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n") as connection:
        assert connection.response("HEAD").ending is Ending.COMPLETE


@pytest.mark.parametrize(
    "data", [b"200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n", b"HTTP/2 200\r\n\r\n"]
)
def test_what_is_not_http_is_refused(data: bytes) -> None:
    with answered(data) as connection, pytest.raises(BadFraming):
        connection.response()


def test_no_answer_within_the_deadline_is_an_error() -> None:
    with answered(b"HTTP/1.1 200 OK\r\n", close=False) as connection:
        connection._until = 0
        with pytest.raises(TimeoutError):
            connection.response()


def test_connects_on_ipv6() -> None:
    with answered(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", host="::1") as connection:
        response: Response = connection.response()
        assert response.read_all() == b"ok"
