"""Clients that are slow, stop, or never were serious: bounded in time (CACHE_CLIENT_TIMEOUT_SEC),
in memory and in descriptors, and no neighbour notices (SPEC 8). The limits are made short here.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.anthropic_wire import message, message_of_size, request, stream
from support.leaks import client_connections, nothing_left_behind, open_files
from support.proxy import Proxy, anthropic_headers, running_proxy
from support.raw import RawConnection, request_bytes
from support.replies import Gate, json_reply, sse_reply
from support.upstream import Upstream, wait_until

if TYPE_CHECKING:
    from support.proxy import ProxyFactory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

TIMEOUT = 0.5
LATEST = TIMEOUT + 4.0
"""Until then a client that is too slow must be gone; the machine may be busy."""
AT_ONCE = 10.0
"""Seconds: far below the 30 that answers in flight are given at a stop."""

HIT = request("The neighbour's")
LARGE = request("A large answer")
LARGE_ANSWER = message_of_size(12_000_000)  # more than the kernel buffers for both ends
POST = request_bytes("POST", "/v1/messages", "localhost", anthropic_headers(), b"X")[:-1]
OPEN_POST = POST.replace(b"content-length: 1", b"content-length: 1000")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Proxy, Upstream]]:
    """A proxy with short limits that has the neighbour's answer and the large one in its cache."""
    home = tmp_path_factory.mktemp("slow") / "home"
    with Upstream(json_reply(message())) as upstream:
        settings = {
            "CACHE_UPSTREAM_ANTHROPIC": upstream.url,
            "CACHE_CLIENT_TIMEOUT_SEC": str(TIMEOUT),
        }
        with running_proxy(home, settings) as proxy:
            upstream.script(json_reply(LARGE_ANSWER))
            for _ in range(2):
                assert proxy.ask(LARGE).body == LARGE_ANSWER
                assert proxy.ask(HIT).status == 200
            yield proxy, upstream


@contextmanager
def neighbours_unaffected(proxy: Proxy) -> Iterator[None]:
    """A hit is answered while they are there; nothing stays behind."""
    with nothing_left_behind(proxy):
        yield
        answer = proxy.ask(HIT)
        assert (answer.status, answer.header("x-cache")) == (200, "HIT")


@contextmanager
def opened(proxy: Proxy) -> Iterator[tuple[RawConnection, float]]:
    """A connection, and a moment from which its limit can't have begun to run before."""
    began = time.monotonic()
    with RawConnection(proxy.port) as connection:
        yield connection, began


def ended_by_the_proxy(connection: RawConnection, began: float) -> bytes:
    """What the proxy still said before it closed, which it must have done by now, but no earlier
    than the limit allows. `began` is before the limit began to run."""
    said = connection.wait_closed()
    took = time.monotonic() - began
    assert TIMEOUT * 0.8 < took < LATEST, f"{took:.2f} s"
    return said


def test_a_head_that_never_ends_is_given_up(served: tuple[Proxy, Upstream]) -> None:
    """Nothing, a letter, half a head, all but the empty line."""
    proxy, _ = served
    beginnings = (b"", b"P", POST[:50], POST[:-2])
    with neighbours_unaffected(proxy), ExitStack() as stack:
        began = time.monotonic()
        connections = [stack.enter_context(RawConnection(proxy.port)) for _ in beginnings]
        for connection, beginning in zip(connections, beginnings, strict=True):
            connection.send(beginning)
        assert proxy.ask(HIT).header("x-cache") == "HIT"
        for connection in connections:
            assert ended_by_the_proxy(connection, began) == b""


def test_a_head_that_drips_is_given_up(served: tuple[Proxy, Upstream]) -> None:
    """The limit is for the whole head, not for each byte."""
    proxy, _ = served
    with neighbours_unaffected(proxy), opened(proxy) as (connection, began):
        drip(connection, POST, b"")
        ended_by_the_proxy(connection, began)


def test_a_kept_alive_connection_may_be_idle_for_as_long(
    served: tuple[Proxy, Upstream],
) -> None:
    """Whichever way its requests went: own endpoint, miss, hits."""
    proxy, _ = served
    with neighbours_unaffected(proxy), RawConnection(proxy.port) as connection:
        connection.request("GET", "/health").read_all()
        for _ in range(3):
            began = time.monotonic()
            answer = connection.request("POST", "/v1/messages", anthropic_headers(), HIT)
            answer.read_all()
        assert ended_by_the_proxy(connection, began) == b""


def test_a_body_that_never_ends_gets_408(served: tuple[Proxy, Upstream]) -> None:
    """No body, half a body, half a chunk, a body for an own endpoint."""
    proxy, upstream = served
    calls = upstream.call_count
    requests = (
        OPEN_POST,
        OPEN_POST + b'{"model":',
        POST.replace(b"content-length: 1", b"transfer-encoding: chunked") + b"5\r\nhel",
        POST.replace(b"/v1/messages", b"/cache/clear").replace(b": 1\r", b": 50\r"),
    )
    with neighbours_unaffected(proxy), ExitStack() as stack:
        began = time.monotonic()
        connections = [stack.enter_context(RawConnection(proxy.port)) for _ in requests]
        for connection, data in zip(connections, requests, strict=True):
            connection.send(data)
        assert proxy.ask(HIT).header("x-cache") == "HIT"
        for connection in connections:
            answer = connection.response()
            assert answer.status == 408
            assert b"request_timeout" in answer.read_all()
            ended_by_the_proxy(connection, began)
    assert upstream.call_count == calls


@pytest.mark.parametrize("framing", ["a length", "chunks"])
def test_a_body_that_drips_is_given_up(served: tuple[Proxy, Upstream], framing: str) -> None:
    """A byte now and then doesn't buy more time."""
    proxy, _ = served
    with neighbours_unaffected(proxy), opened(proxy) as (connection, began):
        if framing == "a length":
            connection.send(OPEN_POST)
            drip(connection, b" " * 500, b"")
        else:
            connection.send(POST.replace(b"content-length: 1", b"transfer-encoding: chunked"))
            drip(connection, b" " * 500, b"1\r\n%b\r\n")
        assert b"request_timeout" in ended_by_the_proxy(connection, began)


def test_the_body_of_a_known_head_is_waited_for_no_longer(
    served: tuple[Proxy, Upstream],
) -> None:
    """The short way of a hit waits for its body as well."""
    proxy, _ = served
    with neighbours_unaffected(proxy), RawConnection(proxy.port) as connection:
        whole = request_bytes("POST", "/v1/messages", "localhost", anthropic_headers(), HIT)
        for _ in range(3):
            began = time.monotonic()
            connection.send(whole)
            connection.response().read_all()
        drip(connection, whole[:-1], b"")
        ended_by_the_proxy(connection, began)


def drip(connection: RawConnection, data: bytes, framed: bytes) -> None:
    """Send byte after byte, twenty a second, until the proxy has answered or closed."""
    for at in range(len(data)):
        if not connection.is_quiet():
            return
        byte = data[at : at + 1]
        try:
            connection.send(framed % byte if framed else byte)
        except (BrokenPipeError, ConnectionResetError):
            return
        time.sleep(0.05)
    pytest.fail("the proxy took all of it")


@pytest.mark.parametrize("times", [1, 3], ids=["once", "over and over"])
def test_a_hit_that_nobody_reads_is_given_up(served: tuple[Proxy, Upstream], times: int) -> None:
    """Repeated on one connection it goes the short way, with the same end."""
    proxy, _ = served
    whole = request_bytes("POST", "/v1/messages", "localhost", anthropic_headers(), LARGE)
    with neighbours_unaffected(proxy), RawConnection(proxy.port) as connection:
        for _ in range(times - 1):
            connection.send(whole)
            assert len(connection.response().read_all()) == len(LARGE_ANSWER)
        connection.send(whole)
        assert proxy.ask(HIT).header("x-cache") == "HIT"
        wait_until(lambda: client_connections(proxy) == 0, "the reader to be given up", LATEST)


def test_a_miss_that_nobody_reads_is_given_up_and_stored(served: tuple[Proxy, Upstream]) -> None:
    proxy, upstream = served
    upstream.script(json_reply(LARGE_ANSWER))
    prompt = request("Unread")
    with neighbours_unaffected(proxy), RawConnection(proxy.port) as connection:
        connection.send(
            request_bytes("POST", "/v1/messages", "localhost", anthropic_headers(), prompt)
        )
        wait_until(lambda: client_connections(proxy) == 1, "the reader to be there")
        assert proxy.ask(HIT).header("x-cache") == "HIT"
        wait_until(lambda: client_connections(proxy) == 0, "the reader to be given up", LATEST)
    again = proxy.ask(prompt)
    assert (again.header("x-cache"), again.body) == ("HIT", LARGE_ANSWER)


def test_what_passes_through_unread_holds_little_and_ends_upstream_too(
    served: tuple[Proxy, Upstream],
) -> None:
    """Uncached answers of any size: the proxy holds back the upstream and doesn't gather them."""
    proxy, upstream = served
    piece = b"x" * 1_000_000
    upstream.script(sse_reply([piece] * 200))
    calls = upstream.call_count
    before = resident_bytes(proxy)
    with neighbours_unaffected(proxy), RawConnection(proxy.port) as connection:
        connection.send(
            request_bytes("GET", "/v1/files/f/content", "localhost", anthropic_headers())
        )
        call = upstream.wait_for_calls(calls + 1)[calls]
        call.wait_sent(len(piece))
        call.wait_closed(LATEST)
        assert call.aborted
        assert call.sent < 100 * len(piece)
        assert resident_bytes(proxy) - before < 40_000_000


def test_a_client_that_half_closes_has_gone(served: tuple[Proxy, Upstream]) -> None:
    """A FIN is the only sign of a client that went away, so its upstream call ends (SPEC 5.7)."""
    proxy, upstream = served
    gate = Gate()
    pieces = stream("Never finished")
    upstream.script(sse_reply([pieces[0], gate, *pieces[1:]]))
    calls = upstream.call_count
    prompt = request("Half", stream=True)
    with neighbours_unaffected(proxy), RawConnection(proxy.port) as connection:
        connection.send(
            request_bytes("POST", "/v1/messages", "localhost", anthropic_headers(), prompt)
        )
        call = upstream.wait_for_calls(calls + 1)[calls]
        connection.response().read_until(pieces[0])
        connection.half_close()
        call.wait_closed()
        assert call.aborted
        connection.wait_closed()
    gate.release()


BEHIND = {
    "an empty line": b"\r\n",
    "a request": request_bytes("GET", "/health", "localhost"),
    "the half of one": OPEN_POST + b"{" * 100,
}


@pytest.mark.parametrize("behind", BEHIND.values(), ids=BEHIND)
@pytest.mark.parametrize("together", [True, False], ids=["in one go", "later"])
def test_a_client_that_sent_more_and_left_is_noticed(
    served: tuple[Proxy, Upstream], behind: bytes, together: bool
) -> None:
    """What came behind its request doesn't hide that it has gone: the upstream call ends."""
    proxy, upstream = served
    with gone_with_more_behind(proxy, upstream, behind, together):
        pass


def test_a_client_that_sent_more_and_left_delays_no_stop(
    proxy: ProxyFactory, upstream: Upstream
) -> None:
    running = proxy()
    with gone_with_more_behind(running, upstream, BEHIND["a request"], together=True):
        began = time.monotonic()
        running.stop()
        assert time.monotonic() - began < AT_ONCE


@contextmanager
def gone_with_more_behind(
    proxy: Proxy, upstream: Upstream, behind: bytes, together: bool
) -> Iterator[None]:
    """A client that left in the middle of an answer; the upstream would never end it."""
    gate = Gate()
    pieces = stream("Never finished")
    upstream.script(sse_reply([pieces[0], gate, *pieces[1:]]))
    calls = upstream.call_count
    whole = request_bytes(
        "POST", "/v1/messages", "localhost", anthropic_headers(), request("More", stream=True)
    )
    with nothing_left_behind(proxy), RawConnection(proxy.port) as connection:
        connection.send(whole + behind if together else whole)
        call = upstream.wait_for_calls(calls + 1)[calls]
        connection.response().read_until(pieces[0])
        if not together:
            connection.send(behind)
        connection.close()
        call.wait_closed()
        assert call.aborted
        assert upstream.call_count == calls + 1
    yield
    gate.release()


@pytest.mark.parametrize("sent", [b"", b"GET /he", OPEN_POST, OPEN_POST + b"{"])
def test_half_a_request_and_a_fin_leave_nothing(proxy: ProxyFactory, sent: bytes) -> None:
    patient = proxy()  # by its time limit, 60 s, it would close too late for the connection here
    with nothing_left_behind(patient), RawConnection(patient.port) as connection:
        connection.send(sent)
        connection.half_close()
        connection.wait_closed()


def test_thousands_of_idle_connections_disturb_nobody(served: tuple[Proxy, Upstream]) -> None:
    """The soft limit of open files, 1024 by habit, is raised: here the process began with 256."""
    _, upstream = served
    count = 2000
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < count + 500:
        pytest.skip(f"no more than {hard} open files here")
    settings = {"CACHE_UPSTREAM_ANTHROPIC": upstream.url, "CACHE_CLIENT_TIMEOUT_SEC": "4"}
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    with ExitStack() as stack:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        proxy = stack.enter_context(running_proxy(served[0].home.parent / "idle", settings))
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count + 500), hard))
        assert proxy.ask(HIT).status == 200
        before = resident_bytes(proxy)
        with neighbours_unaffected(proxy):
            idle = [stack.enter_context(RawConnection(proxy.port)) for _ in range(count)]
            for connection in idle[::2]:
                connection.send(b"POST /v1/messages HTTP/1.1\r\n")
            wait_until(lambda: client_connections(proxy) == count, "all to be accepted")
            assert proxy.ask(HIT).header("x-cache") == "HIT"
            assert resident_bytes(proxy) - before < count * 100_000
            wait_until(lambda: client_connections(proxy) == 0, "all to be given up", 4 + LATEST)


def test_out_of_descriptors_it_turns_new_clients_away_and_recovers(
    proxy: ProxyFactory, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those who are connected are served meanwhile."""
    limited = ("sh", "-c", 'ulimit -n 100; exec "$0" "$@"')
    monkeypatch.setattr(
        "support.proxy.COMMAND", (*limited, sys.executable, "-m", "llm_cache", "run")
    )
    upstream.default = json_reply(message())
    running = proxy()
    assert running.ask(HIT).status == 200
    with ExitStack() as stack:
        early = stack.enter_context(running.connect())
        early.request("GET", "/health").read_all()
        for _ in range(150):
            stack.enter_context(running.connect())
        wait_until(lambda: open_files(running) >= 95, "descriptors to run out")
        answer = early.request("POST", "/v1/messages", anthropic_headers(), HIT)
        assert (answer.status, answer.header("x-cache")) == (200, "HIT")
        answer.read_all()
    wait_until(running.healthy, "the proxy to take new clients again")
    assert running.ask(HIT).header("x-cache") == "HIT"


def resident_bytes(proxy: Proxy) -> int:
    """The process's memory (RSS)."""
    pages = int(Path(f"/proc/{proxy.pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize()
