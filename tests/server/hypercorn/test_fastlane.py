"""The short way of a hit answers as the long way does, and only what the long way let in."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from support.anthropic_wire import message, request, stream
from support.leaks import nothing_left_behind
from support.proxy import Proxy, anthropic_headers
from support.raw import RawConnection, Response, request_bytes
from support.replies import gzip_reply, json_reply, sse_reply
from support.upstream import Upstream

BODY = request("same question")


@pytest.fixture
def one(proxy: Callable[..., Proxy], upstream: Upstream) -> Proxy:
    """A proxy that has the answer to BODY."""
    upstream.default = json_reply(message("hé"))
    started = proxy()
    remember_answer(started, BODY)
    return started


def remember_answer(proxy: Proxy, body: bytes) -> None:
    first = proxy.ask(body)
    first.read_all()
    assert first.header("x-cache") == "MISS"


def asked(proxy: Proxy, body: bytes = BODY, *more: tuple[str, str]) -> bytes:
    headers = [*anthropic_headers(), *more]
    return request_bytes("POST", "/v1/messages", f"127.0.0.1:{proxy.port}", headers, body)


def answer(connection: RawConnection, raw: bytes) -> Response:
    connection.send(raw)
    response = connection.response("POST")
    response.read_all()
    return response


def lasting(response: Response) -> list[tuple[str, str]]:
    return [header for header in response.headers if header[0] not in ("age", "date")]


def raw_head(response: Response) -> list[bytes]:
    lines = response.head.split(b"\r\n")
    return [line for line in lines if not line.startswith((b"age: ", b"date: "))]


@pytest.mark.parametrize("form", ["sized", "stream", "gzip"])
def test_the_short_way_answers_byte_for_byte_as_the_long_way(
    proxy: Callable[..., Proxy], upstream: Upstream, form: str
) -> None:
    plain = json_reply(message("hé"), headers=[("request-id", "req_1")])
    upstream.default = {
        "sized": plain,
        "stream": sse_reply(stream("hé")),
        "gzip": gzip_reply(plain),
    }[form]
    started = proxy()
    remember_answer(started, BODY)
    raw = asked(started, BODY, ("accept-encoding", "gzip"))
    with started.connect() as connection:
        long = answer(connection, raw)
        assert started.stats()["fast_hits"] == 0
        short = answer(connection, raw)
    assert started.stats()["fast_hits"] == 1
    assert raw_head(short) == raw_head(long)
    assert (short.body, short.ending) == (long.body, long.ending)
    assert short.header("x-cache") == "HIT"
    assert short.header("age") is not None
    assert short.header("date") is not None
    assert started.stats()["session"]["hits"] == 2


def test_another_body_under_a_known_head_gets_its_own_answer(
    one: Proxy, upstream: Upstream
) -> None:
    other = BODY.replace(b"same", b"some")
    assert len(other) == len(BODY)
    with one.connect() as connection:
        answer(connection, asked(one))
        upstream.default = json_reply(message("another"))
        miss = answer(connection, asked(one, other))
        hit = answer(connection, asked(one, other))
        first = answer(connection, asked(one))
    assert [r.header("x-cache") for r in (miss, hit, first)] == ["MISS", "HIT", "HIT"]
    assert miss.body == hit.body == message("another")
    assert first.body == message("hé")


def test_pipelined_requests_are_answered_in_order_each_by_its_own_head(
    one: Proxy, upstream: Upstream
) -> None:
    known = asked(one)
    strange = asked(one, BODY, ("x-cache-namespace", "other"))
    with one.connect() as connection:
        answer(connection, known)
        connection.send(known + strange + known)
        labels = []
        for _ in range(3):
            response = connection.response("POST")
            response.read_all()
            labels.append(response.header("x-cache"))
    assert labels == ["HIT", "MISS", "HIT"]
    with one.connect() as connection:
        first = answer(connection, strange)
    assert first.header("x-cache-key") != one_key(one)


def one_key(proxy: Proxy) -> str | None:
    with proxy.connect() as connection:
        return answer(connection, asked(proxy)).header("x-cache-key")


def test_a_known_head_with_its_body_in_pieces_is_answered_once_it_is_whole(one: Proxy) -> None:
    raw = asked(one)
    with one.connect() as connection:
        answer(connection, raw)
        for cut in (len(raw) - len(BODY), len(raw) - 1, len(raw) - len(BODY) + 3, 20):
            connection.send(raw[:cut])
            assert connection.is_quiet()
            connection.send(raw[cut:])
            response = connection.response("POST")
            response.read_all()
            assert response.header("x-cache") == "HIT"
            assert response.body == message("hé")


def test_a_refused_head_is_never_remembered(
    proxy: Callable[..., Proxy], upstream: Upstream
) -> None:
    upstream.default = json_reply(message("secret"))
    one = proxy(CACHE_AUTH_TOKEN="right-token")
    right = asked(one, BODY, ("x-cache-auth", "right-token"))
    wrong = asked(one, BODY, ("x-cache-auth", "wrong-token"))
    for raw in (right, right, right):
        with one.connect() as connection:
            assert answer(connection, raw).status == 200
    for _ in range(3):
        with one.connect() as connection:
            assert answer(connection, wrong).status == 401


def test_what_happened_to_the_cache_meanwhile_counts(one: Proxy, upstream: Upstream) -> None:
    raw = asked(one)
    with one.connect() as connection:
        key = answer(connection, raw).header("x-cache-key")
        assert answer(connection, raw).header("x-cache") == "HIT"
        one.post("/cache/mode", b'{"cache":"off"}')
        assert answer(connection, raw).header("x-cache") == "BYPASS"
        one.post("/cache/mode", b'{"cache":"on"}')
        assert answer(connection, raw).header("x-cache") == "HIT"
        one._client.delete(f"/cache/entry?key={key}")
        assert answer(connection, raw).header("x-cache") == "MISS"


def test_control_headers_and_body_fields_work_on_the_short_way(one: Proxy) -> None:
    with one.connect() as connection:
        for mode, labels in (
            ("replay", ["HIT", "HIT"]),
            ("fresh", ["MISS", "MISS"]),
            ("bypass", ["BYPASS", "BYPASS"]),
        ):
            raw = asked(one, BODY, ("x-cache-mode", mode))
            assert [answer(connection, raw).header("x-cache") for _ in labels] == labels
        flagged = BODY[:-1] + b',"_cache_bypass":true}'
        for _ in range(2):
            assert answer(connection, asked(one, flagged)).header("x-cache") == "BYPASS"


def test_a_client_that_reads_no_gzip_gets_none_on_either_way(
    proxy: Callable[..., Proxy], upstream: Upstream
) -> None:
    upstream.default = gzip_reply(json_reply(message("hé")))
    one = proxy()
    remember_answer(one, BODY)
    with one.connect() as connection:
        for _ in range(3):
            response = answer(connection, asked(one, BODY, ("accept-encoding", "identity")))
            assert response.header("content-encoding") is None
            assert response.body == message("hé")


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw.replace(b"\r\n", b"\n"),
        lambda raw: raw.replace(b" HTTP/1.1", b" HTTP/1.0"),
        lambda raw: raw.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n", 1),
        lambda raw: raw.replace(b"\r\n\r\n", b"\r\nsec-fetch-site: none\r\n\r\n", 1),
    ],
    ids=["bare-lf", "http-1.0", "close", "browser"],
)
def test_an_unusual_head_always_goes_the_long_way(one: Proxy, change: object) -> None:
    assert callable(change)
    raw = change(asked(one))
    for _ in range(3):
        with one.connect() as connection:
            assert answer(connection, raw).header("x-cache") == "HIT"
    assert one.stats()["fast_hits"] == 0


def test_a_connection_in_use_outlives_the_idle_time(
    proxy: Callable[..., Proxy], upstream: Upstream
) -> None:
    upstream.default = json_reply(message("hé"))
    one = proxy(CACHE_CLIENT_TIMEOUT_SEC="1")
    remember_answer(one, BODY)
    raw = asked(one)
    with one.connect() as connection:
        end = time.monotonic() + 2.2
        while time.monotonic() < end:
            assert answer(connection, raw).status == 200
        assert connection.wait_closed() == b""  # and then it is closed for being idle


def test_a_body_that_never_comes_ends_with_the_idle_time(
    proxy: Callable[..., Proxy], upstream: Upstream
) -> None:
    upstream.default = json_reply(message("hé"))
    one = proxy(CACHE_CLIENT_TIMEOUT_SEC="1")
    remember_answer(one, BODY)
    raw = asked(one)
    with one.connect() as connection:
        answer(connection, raw)
        connection.send(raw[:-5])
        connection.wait_closed()
    assert one.stats()["in_flight"] == 0


def test_idle_connections_do_not_delay_a_stop(one: Proxy) -> None:
    with one.connect() as connection:
        answer(connection, asked(one))
        answer(connection, asked(one))
        started = time.monotonic()
        assert one.stop() == 0
        assert time.monotonic() - started < 10
        connection.wait_closed()


def test_closed_connections_leave_nothing_behind(one: Proxy) -> None:
    raw = asked(one)
    with nothing_left_behind(one):
        for _ in range(60):
            with one.connect() as connection:
                answer(connection, raw)
                answer(connection, raw)
