"""How requests are framed on the wire, right and wrong; bytes in, bytes out, on the real server.

After each the proxy answers a new client and holds nothing of the old one: no flight, no
connection, no open file. BAR traps: Hypercorn accepts Content-Length with Transfer-Encoding and
passes both on, speaks h2c in the clear, and has no body limit. RFC 9112 unless named.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from support.anthropic_wire import message, request, stream
from support.leaks import forget_peak, nothing_left_behind, peak_memory
from support.proxy import Proxy, anthropic_headers, running_proxy
from support.raw import RawConnection, Response, exchange, request_bytes
from support.replies import json_reply, sse_reply
from support.upstream import Upstream

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

LIMIT = 100_000
ASK = request("How is this framed?")
KEY = b"".join(f"{name}: {value}\r\n".encode() for name, value in anthropic_headers())
HEAD = b"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\n" + KEY
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Proxy, Upstream]]:
    home = tmp_path_factory.mktemp("framing") / "home"
    with Upstream(json_reply(message())) as upstream:
        settings = {
            "CACHE_UPSTREAM_ANTHROPIC": upstream.url,
            "CACHE_MAX_REQUEST_BYTES": str(LIMIT),
        }
        with running_proxy(home, settings) as proxy:
            # Whatever is opened once and kept: the upstream's connection, the store's files.
            for prompt in ("One", "One", "Two"):
                proxy.ask(request(prompt))
            yield proxy, upstream


def chunked(body: bytes, size: int = 7) -> bytes:
    """A body in chunks of `size` bytes."""
    pieces = (body[at : at + size] for at in range(0, len(body), size))
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def statuses(answer: bytes) -> list[int]:
    """The statuses of the final answers in a connection's bytes."""
    lines = [
        line for line in answer.split(b"\r\n") if line.startswith((b"HTTP/1.1 ", b"HTTP/1.0 "))
    ]
    return [int(line[9:12]) for line in lines if not line.startswith(b"HTTP/1.1 1")]


REFUSED_REQUESTS = {
    # Both lengths (6.1), in either order and spelling: how requests are smuggled.
    "both lengths": (
        HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nSMUGGLED",
        400,
    ),
    "both lengths, other order": (
        HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\nSMUGGLED",
        400,
    ),
    "both lengths, odd case": (
        HEAD + b"tRANSFER-eNCODING: CHUNKED\r\ncONTENT-lENGTH: 0\r\n\r\n0\r\n\r\n",
        400,
    ),
    "both lengths on a GET": (
        b"GET /stats HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "both lengths, HTTP/1.0": (
        HEAD.replace(b"1.1", b"1.0")
        + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    # Lengths that aren't one number (6.3).
    "two lengths": (HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", 400),
    "a list of lengths": (HEAD + b"Content-Length: 5, 6\r\n\r\nhello!", 400),
    "a negative length": (HEAD + b"Content-Length: -5\r\n\r\nhello", 400),
    "a signed length": (HEAD + b"Content-Length: +5\r\n\r\nhello", 400),
    "a length in hex": (HEAD + b"Content-Length: 0x5\r\n\r\nhello", 400),
    "an empty length": (HEAD + b"Content-Length:\r\n\r\nhello", 400),
    "an endless length": (HEAD + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\nhello", 400),
    # Codings (6.1, 7).
    "an unknown coding": (HEAD + b"Transfer-Encoding: gzip\r\n\r\n", 501),
    "a list of codings": (HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    "chunked twice": (
        HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        501,
    ),
    "identity": (HEAD + b"Transfer-Encoding: identity\r\nContent-Length: 2\r\n\r\n{}", 501),
    "a chunk size that is none": (CHUNKED + b"zz\r\nhello\r\n0\r\n\r\n", 400),
    "a negative chunk size": (CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n", 400),
    "a chunk size in 0x": (CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n", 400),
    "an endless chunk size": (CHUNKED + b"f" * 40 + b"\r\nhello", 400),
    "a chunk longer than its size": (CHUNKED + b"5\r\nhello!!\r\n0\r\n\r\n", 400),
    "bad bytes after good chunks": (CHUNKED + b"5\r\nhello\r\n5\r\nworldX\r\n", 400),
    "a chunk extension without an end": (CHUNKED + b"5;" + b"x" * 200_000, 431),
    "chunked HTTP/1.0": (
        HEAD.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    # Heads (2.2, 3, 5).
    "no HTTP at all": (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", 400),
    "a TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 40, 400),
    "HTTP/0.9": (b"GET /stats\r\n\r\n", 400),
    "HTTP/0.9 spelled out": (b"GET /stats HTTP/0.9\r\nHost: localhost\r\n\r\n", 505),
    "HTTP/2 in the clear": (
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04" + bytes(5),
        505,
    ),
    "HTTP/3": (b"GET /stats HTTP/3.0\r\nHost: localhost\r\n\r\n", 505),
    "a space before the colon": (b"GET /stats HTTP/1.1\r\nHost : localhost\r\n\r\n", 400),
    "a space in a name": (b"GET /stats HTTP/1.1\r\nHost: localhost\r\nx y: z\r\n\r\n", 400),
    "no colon": (b"GET /stats HTTP/1.1\r\nHost: localhost\r\nnothing\r\n\r\n", 400),
    "a NUL in a value": (b"GET /stats HTTP/1.1\r\nHost: localhost\r\nx: a\x00b\r\n\r\n", 400),
    "a bare CR in a value": (b"GET /stats HTTP/1.1\r\nHost: localhost\r\nx: a\rb: c\r\n\r\n", 400),
    "a method of odd letters": (b"G(T /stats HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    "two spaces in the line": (b"GET  /stats HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    "one header a little too large": (
        b"GET /stats HTTP/1.1\r\nHost: localhost\r\nx: " + b"y" * 65_536 + b"\r\n\r\n",
        431,
    ),
    "one header too large": (
        b"GET /stats HTTP/1.1\r\nHost: localhost\r\nx: " + b"y" * 200_000 + b"\r\n\r\n",
        431,
    ),
    "too many headers": (
        b"GET /stats HTTP/1.1\r\nHost: localhost\r\n" + b"x: y\r\n" * 40_000 + b"\r\n",
        431,
    ),
    "a WebSocket": (
        b"GET /v1/messages HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"
        b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        426,
    ),
    "a broken WebSocket": (
        b"GET /monitor HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"
        b"Upgrade: websocket\r\n\r\n",
        426,
    ),
    # Bodies that are too large (413), as soon as that is known.
    "a length above the limit": (HEAD + b"Content-Length: %d\r\n\r\n" % (LIMIT + 1), 413),
    "a length far above it": (HEAD + b"Content-Length: 99999999999999999999\r\n\r\n{", 413),
    "chunks above the limit": (CHUNKED + b"%x\r\n%b\r\n" % (LIMIT + 1, b"x" * (LIMIT + 1)), 413),
    "many small chunks above it": (CHUNKED + b"400\r\n%b\r\n" % (b"x" * 1024) * 99, 413),
    "a body that is no use": (
        b"POST /cache/clear HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n",
        413,
    ),
}


@pytest.mark.parametrize("name", REFUSED_REQUESTS)
def test_what_is_not_to_be_understood_is_refused_once_and_the_connection_ends(
    served: tuple[Proxy, Upstream], name: str
) -> None:
    """One answer, then the end: nothing behind it is read as another request."""
    proxy, upstream = served
    data, status = REFUSED_REQUESTS[name]
    calls = upstream.call_count
    with nothing_left_behind(proxy):
        with RawConnection(proxy.port) as connection:
            with suppress(ConnectionError):  # it was refused before it had been sent
                connection.send(data)
            answer = connection.response()
            answer.read_all()
            assert answer.status == status
            assert (answer.header("connection") or "").lower().endswith("close")
            assert connection.wait_closed() == b""
        assert upstream.call_count == calls


def test_a_refusal_reaches_a_client_that_is_still_sending(served: tuple[Proxy, Upstream]) -> None:
    """9.6: closed with bytes unread the connection is reset, and the client may never see why."""
    proxy, _ = served
    with nothing_left_behind(proxy), RawConnection(proxy.port) as connection:
        connection.send(HEAD + b"Content-Length: 50000000\r\n\r\n")
        for _ in range(40):
            connection.send(b"x" * 65536)  # no reset yet
        answer = connection.response()
        assert answer.status == 413
        assert json.loads(answer.read_all())["error"]["type"] == "request_too_large"
        assert b"CACHE_MAX_REQUEST_BYTES" in answer.body


def test_the_body_limit_is_exact(served: tuple[Proxy, Upstream]) -> None:
    proxy, upstream = served
    empty = request("")
    for body, status in (
        (request("x" * (LIMIT - len(empty))), 200),
        (request("x" * (LIMIT - len(empty) + 1)), 413),
    ):
        calls = upstream.call_count
        with nothing_left_behind(proxy):
            for data in (
                HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(body), body),
                CHUNKED + chunked(body, 4096),
            ):
                with RawConnection(proxy.port) as connection:
                    connection.send(data)
                    answer = connection.response()
                    answer.read_all()
                    assert answer.status == status
        assert upstream.call_count == calls + (status == 200)


def test_the_head_limit_is_exact(served: tuple[Proxy, Upstream]) -> None:
    proxy, _ = served
    head = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nx: %b\r\n\r\n"
    for size, status in ((65_536, 200), (65_537, 431)):
        with proxy.connect() as connection:
            connection.send(head % (b"y" * (size - len(head) + 2)))
            assert connection.response().status == status


def test_a_body_in_the_smallest_chunks_takes_no_more_memory_than_another(
    tmp_path: Path,
) -> None:
    with Upstream(json_reply(message())) as upstream:
        settings = {"CACHE_UPSTREAM_ANTHROPIC": upstream.url}
        with running_proxy(tmp_path / "home", settings) as proxy:
            proxy.ask(ASK)
            before = forget_peak(proxy)
            with RawConnection(proxy.port, deadline=120) as connection:
                connection.send(CHUNKED + chunked(ASK, 2)[:-5])
                for _ in range(100):
                    connection.send(b"2\r\n  \r\n" * 5000)
                connection.send(b"0\r\n\r\n")
                assert connection.response("POST").header("x-cache") == "HIT-NORM"
            grown = peak_memory(proxy) - before
    print(f"memory grew by {grown >> 20} MiB")
    assert grown < 16 << 20, "1 MB in 500,000 chunks"


def test_nothing_is_kept_of_what_comes_behind_a_refusal(served: tuple[Proxy, Upstream]) -> None:
    """The client sends until the proxy, which has answered, closes the connection."""
    proxy, _ = served
    before = forget_peak(proxy)
    with RawConnection(proxy.port, deadline=60) as connection:
        connection.send(CHUNKED + b"%x\r\n%b\r\n" % (LIMIT + 1, b"x" * (LIMIT + 1)))
        with suppress(ConnectionError):
            while True:
                connection.send(b"2\r\nxx\r\n" * 5000)
    grown = peak_memory(proxy) - before
    print(f"memory grew by {grown >> 20} MiB")
    assert grown < 16 << 20


@pytest.mark.parametrize("size", [1, 2, 3, 64, 10_000])
def test_a_chunked_body_is_the_same_request(served: tuple[Proxy, Upstream], size: int) -> None:
    """7.1; with extensions and trailers, which end here."""
    proxy, upstream = served
    prompt = request(f"In chunks of {size}")
    assert proxy.ask(prompt).header("x-cache") == "MISS"
    calls = upstream.call_count
    wire = chunked(prompt, size)
    extended = wire.replace(b"\r\n", b";a=b\r\n", 1)[:-2] + b"x-trailer: y\r\n\r\n"
    with nothing_left_behind(proxy):
        for data in (wire, extended):
            with RawConnection(proxy.port) as connection:
                connection.send(CHUNKED + data)
                answer = connection.response()
                assert answer.read_all() == message()
                assert answer.header("x-cache") == "HIT"
    assert upstream.call_count == calls


def test_what_goes_upstream_has_one_length(served: tuple[Proxy, Upstream]) -> None:
    """However it came, the body goes up with the length it has."""
    proxy, upstream = served
    body = request("One length")
    for number, data in enumerate(
        [
            HEAD + b"X-Cache-Mode: fresh\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(body),
            HEAD + b"X-Cache-Mode: fresh\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body),
            HEAD
            + b"X-Cache-Mode: fresh\r\nContent-Length: %d\r\nContent-Length: %d\r\n\r\n%b"
            % (len(body), len(body), body),
        ]
    ):
        calls = upstream.call_count
        with RawConnection(proxy.port) as connection:
            connection.send(data)
            assert connection.response().status == 200, number
        got = upstream.wait_for_calls(calls + 1)[calls].request
        assert got.header("content-length") == str(len(body))
        assert got.header("transfer-encoding") is None
        assert got.raw_body == body


def test_expect_100_continue_is_answered_and_goes_no_further(
    served: tuple[Proxy, Upstream],
) -> None:
    """RFC 9110, 10.1.1."""
    proxy, upstream = served
    body = request("May I?")
    with nothing_left_behind(proxy), RawConnection(proxy.port) as connection:
        connection.send(HEAD + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body))
        assert connection.take_through(b"\r\n\r\n").startswith(b"HTTP/1.1 100 ")
        connection.send(body)
        answer = connection.response()
        answer.read_all()
        assert (answer.status, answer.interim) == (200, [])
    assert upstream.calls[-1].request.header("expect") is None


def test_expect_of_a_body_that_is_too_large_ends_in_413(served: tuple[Proxy, Upstream]) -> None:
    proxy, _ = served
    with nothing_left_behind(proxy), RawConnection(proxy.port) as connection:
        connection.send(HEAD + b"Expect: 100-continue\r\nContent-Length: 99999999\r\n\r\n")
        assert connection.response().status == 413


def test_pipelined_requests_are_answered_in_order(served: tuple[Proxy, Upstream]) -> None:
    """9.3.2; hits, misses, own endpoints and refusals behind each other."""
    proxy, _ = served
    prompts = [request(f"Pipelined {number}") for number in (1, 2, 1, 3, 2)]
    posts = [
        request_bytes("POST", "/v1/messages", "localhost", anthropic_headers(), prompt)
        for prompt in prompts
    ]
    get = request_bytes("GET", "/health", "localhost")
    with nothing_left_behind(proxy), RawConnection(proxy.port) as connection:
        connection.send(b"".join([posts[0], get, *posts[1:], get]))
        labels = []
        for _ in range(7):
            answer = connection.response()
            answer.read_all()
            assert answer.status == 200
            labels.append(answer.header("x-cache"))
        assert labels == ["MISS", None, "MISS", "HIT", "MISS", "HIT", None]


def test_nothing_behind_a_refused_request_is_answered(served: tuple[Proxy, Upstream]) -> None:
    """A smuggled request behind one of doubtful length goes nowhere."""
    proxy, upstream = served
    calls = upstream.call_count
    hidden = request_bytes("POST", "/v1/messages", "localhost", anthropic_headers(), request("Me"))
    doubtful = HEAD + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    with nothing_left_behind(proxy), RawConnection(proxy.port) as connection:
        connection.send(doubtful + hidden)
        assert statuses(connection.wait_closed()) == [400]
    assert upstream.call_count == calls


@pytest.mark.parametrize("split", [1, 2, 5, 40, 200])
def test_a_request_may_come_in_any_pieces(served: tuple[Proxy, Upstream], split: int) -> None:
    proxy, _ = served
    data = request_bytes("POST", "/v1/messages", "localhost", anthropic_headers(), ASK)
    with nothing_left_behind(proxy), RawConnection(proxy.port) as connection:
        for _ in range(3):  # the first may be a miss, the others are hits
            for at in range(0, len(data), split):
                connection.send(data[at : at + split])
            answer = connection.response()
            assert answer.read_all() == message()


def test_http_1_0_gets_plain_answers_and_a_closed_connection(
    served: tuple[Proxy, Upstream],
) -> None:
    """It knows no chunks (7); a stream ends with the connection."""
    proxy, upstream = served
    old = HEAD.replace(b"HTTP/1.1", b"HTTP/1.0")
    events = stream("Old times")
    upstream.script(sse_reply(events))
    body = request("HTTP/1.0", stream=True)
    with nothing_left_behind(proxy):
        for label in ("MISS", "HIT"):
            with RawConnection(proxy.port) as connection:
                connection.send(old + b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
                answer = connection.response()
                assert answer.header("transfer-encoding") is None
                assert answer.read_all() == b"".join(events)
                assert answer.header("x-cache") == label


def test_any_number_of_pipelined_requests_is_answered(served: tuple[Proxy, Upstream]) -> None:
    """More than may wait in memory behind the first, and more than functions may nest."""
    proxy, _ = served
    count = 2000
    paths = [f"/health?{number}" for number in range(count)]
    get = [request_bytes("GET", path, "localhost", [("x-pad", "x" * 50)]) for path in paths]
    post = request_bytes("POST", "/v1/messages", "localhost", anthropic_headers(), ASK)
    assert sum(map(len, get)) > 3 * 65536
    with nothing_left_behind(proxy), RawConnection(proxy.port) as connection:
        connection.send(post + b"".join(get) + post)
        assert connection.response().read_all() == message()
        for _ in range(count):
            assert b'"status": "ok"' in connection.response().read_all()
        assert connection.response().read_all() == message()


def test_an_upgrade_to_http_2_is_not_taken_up(served: tuple[Proxy, Upstream]) -> None:
    """RFC 9110, 7.8: a server may ignore it; clients that offer it by habit are answered."""
    proxy, _ = served
    offer = [
        ("connection", "Upgrade, HTTP2-Settings"),
        ("upgrade", "h2c"),
        ("http2-settings", "AAMAAABkAAQCAAAAAAIAAAAA"),
    ]
    with nothing_left_behind(proxy), RawConnection(proxy.port) as connection:
        for _ in range(2):
            answer = connection.request("GET", "/health", offer)
            assert (answer.status, answer.interim) == (200, [])
            assert json.loads(answer.read_all())["pid"] == proxy.pid


def test_methods_nobody_knows_are_forwarded_as_they_are(served: tuple[Proxy, Upstream]) -> None:
    """SPEC 5.1: any method. BAR fault 10: every method but POST was refused."""
    proxy, upstream = served
    for method in ("PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "M-SEARCH"):
        calls = upstream.call_count
        with nothing_left_behind(proxy):
            headers = anthropic_headers()
            answer = exchange(proxy.port, method, "/v1/files/file_1", headers, b"{}")
            assert (answer.status, answer.header("x-cache")) == (200, "PASS")
        got = upstream.wait_for_calls(calls + 1)[calls].request
        assert (got.method, got.body) == (method, b"{}")


def test_a_body_on_a_get_is_part_of_it(served: tuple[Proxy, Upstream]) -> None:
    """RFC 9110, 9.3.1: it has no meaning, but a length, and the next request comes behind it."""
    proxy, upstream = served
    calls = upstream.call_count
    get = request_bytes("GET", "/v1/models", "localhost", anthropic_headers(), b"GET /x HTTP/1.1")
    with nothing_left_behind(proxy), RawConnection(proxy.port) as connection:
        connection.send(get + request_bytes("GET", "/health", "localhost"))
        first = connection.response()
        first.read_all()
        second = connection.response()
        assert b'"status": "ok"' in second.read_all()
    calls_made = upstream.calls[calls:]
    assert [call.request.body for call in calls_made] == [b"GET /x HTTP/1.1"]


def test_head_has_the_head_of_get(served: tuple[Proxy, Upstream]) -> None:
    proxy, _ = served
    with nothing_left_behind(proxy), RawConnection(proxy.port) as connection:
        head = connection.request("HEAD", "/health")
        assert head.status == 200
        get: Response = connection.request("GET", "/health")
        assert head.header("content-length") == get.header("content-length")
        assert get.read_all()


@pytest.mark.parametrize(
    ("head", "status", "form"),
    [
        (b"GET /v1/responses", 426, {"error": ["message", "type"]}),
        (b"GET /openai/v1/realtime?model=m", 426, {"error": ["message", "type"]}),
        (b"GET /v1/messages", 426, {"type": "error", "error": ["type", "message"]}),
        (b"GET /v1beta/models/g:generateContent", 426, {"error": ["code", "status"]}),
    ],
)
def test_a_web_socket_is_told_to_ask_plainly_in_the_form_of_its_api(
    proxy: Any, head: bytes, status: int, form: dict[str, Any]
) -> None:
    one = proxy()
    with one.connect() as connection:
        connection.send(
            head + b" HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        answer = connection.response()
        said = json.loads(answer.read_all())
    assert answer.status == status
    assert (answer.header("upgrade"), answer.header("connection")) == ("HTTP/1.1", "upgrade, close")
    assert said.get("type") == form.get("type")
    assert set(form["error"]) <= set(said["error"])


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("//v1/chat/completions", {"error": ["message", "type"]}),
        ("//v1/messages", {"type": "error", "error": ["type", "message"]}),
        ("/openai/v1/./responses", {"error": ["message", "type"]}),
    ],
)
def test_a_refused_path_gets_the_form_of_the_api_that_was_asked(
    proxy: Any, path: str, form: dict[str, Any]
) -> None:
    answer = exchange(proxy().port, "POST", path, [], b"{}")
    said = json.loads(answer.body)
    assert answer.status == 400
    assert said.get("type") == form.get("type")
    assert set(form["error"]) <= set(said["error"])
