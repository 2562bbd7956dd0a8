"""What is never cached passes, and what no API knows is refused. What makes two requests different
ones is in `tests/exchange/test_keys_split.py`."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from support import anthropic_wire as wire
from support.proxy import Proxy, anthropic_headers
from support.raw import Response, exchange
from support.replies import Reply, json_reply, wire_reply
from support.upstream import Request, Upstream

ASKED = wire.request()
Fields = list[tuple[str, str]]
BASE: Fields = [
    ("content-type", "application/json"),
    ("anthropic-version", "2023-06-01"),
    ("x-api-key", "sk-ant-test-key"),
]


@pytest.fixture
def numbered(upstream: Upstream) -> Upstream:
    """Its n-th answer says n, whatever was asked."""
    count = itertools.count(1)

    def reply(request: Request) -> Reply:
        if request.target.partition("?")[0].endswith("/count_tokens"):
            return json_reply(wire.count_tokens(next(count)))
        return json_reply(wire.message(f"answer {next(count)}"))

    upstream.default = reply
    return upstream


def post(
    proxy: Proxy, target: str = "/v1/messages", fields: Fields = BASE, body: bytes = ASKED
) -> Response:
    response = exchange(proxy.port, "POST", target, fields, body)
    assert response.status == 200, response.body
    return response


# What passes through


PASSED = [
    ("GET", "/v1/models", b""),
    ("GET", "/v1/models?limit=2&after_id=x%2Fy", b""),
    ("GET", "/v1/models/claude-sonnet-5", b""),
    ("POST", "/v1/files", b"--b\r\nnot json\x00\xff\r\n--b--\r\n"),
    ("GET", "/v1/files/file_1/content", b""),
    ("DELETE", "/v1/files/file_1", b""),
    ("PUT", "/v1/files/file_1", b"new"),
    ("PATCH", "/v1/organizations/invites", b"{}"),
    ("POST", "/v1/messages/batches", b'{"requests":[]}'),
    ("GET", "/v1/messages/batches/b_1/results", b""),
    ("POST", "/v1/messages/batches/b_1/cancel", b""),
    ("GET", "/v1/messages", b""),
    ("POST", "/v1/complete", b'{"prompt":"x"}'),
    ("POST", "/v1/messages/", ASKED),
    ("POST", "/v1/mess%61ges", ASKED),
    ("OPTIONS", "/v1/messages", b""),
]


def test_everything_else_of_the_api_passes_untouched_and_uncached(
    upstream: Upstream, proxy: Any
) -> None:
    """BAR faults 2 and 10: batches are cached; `GET /v1/models` is 404, other methods refused."""
    count = itertools.count(1)

    def reply(request: Request) -> Reply:
        return Reply(
            status=202 if request.method == "PUT" else 200,
            headers=(("content-type", "application/x-any"), ("request-id", "req_1"), ("etag", "e")),
            body=(b"%d \x00\xff %b" % (next(count), request.body),),
        )

    upstream.default = reply
    one: Proxy = proxy()
    for method, target, body in PASSED:
        fields = [*anthropic_headers(), ("x-custom", "kept"), ("if-none-match", "e2")]
        for _ in range(2):
            number = upstream.call_count + 1
            answer = exchange(one.port, method, target, fields, body)
            assert answer.body == b"%d \x00\xff %b" % (number, body), (method, target)
            assert answer.status == (202 if method == "PUT" else 200)
            assert answer.header("x-cache") == "PASS"
            assert answer.header("request-id") == "req_1"
            assert answer.header("etag") == "e"
            assert answer.header("age") is None
            request = upstream.calls[-1].request
            assert (request.method, request.target, request.body) == (method, target, body)
            assert set(fields) <= set(request.headers)
    stats = one.stats()
    assert (stats["passed"], stats["calls"], stats["entries"]) == (2 * len(PASSED), 0, 0)


def test_a_head_request_gets_the_head_alone_and_the_connection_goes_on(
    upstream: Upstream, proxy: Any
) -> None:
    one: Proxy = proxy()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1234\r\n\r\n"
    upstream.default = wire_reply(head)
    with one.connect() as connection:
        for _ in range(2):
            answer = connection.request("HEAD", "/v1/models", anthropic_headers())
            assert answer.status == 200
            assert answer.header("content-length") == "1234"
            assert answer.header("x-cache") == "PASS"
            assert answer.read_all() == b""
        assert connection.is_quiet()
        assert connection.request("GET", "/health").status == 200


def test_a_path_of_no_known_api_is_404(upstream: Upstream, proxy: Any) -> None:
    one: Proxy = proxy()
    for method, path in (
        ("GET", "/"),
        ("GET", "/favicon.ico"),
        ("POST", "/v2/other"),
        ("GET", "/healthANYTHING"),
        ("GET", "/anthropicx/v1/messages"),
        ("GET", "/v1/modelsx"),
    ):
        answer = exchange(one.port, method, path, [("content-type", "application/json")], b"")
        assert answer.status == 404, path
        assert json.loads(answer.body)["error"]["type"] == "not_found"
        assert answer.header("x-cache") == "ERROR"
    assert upstream.call_count == 0


def test_one_upstream_for_everything_takes_unknown_paths_too(
    numbered: Upstream, proxy: Any
) -> None:
    one: Proxy = proxy(CACHE_UPSTREAM=numbered.url)
    answer = exchange(one.port, "GET", "/props?x=1")
    assert (answer.status, answer.header("x-cache")) == (200, "PASS")
    assert numbered.calls[-1].request.target == "/props?x=1"
    assert post(one).header("x-cache") == "MISS"
    assert post(one).header("x-cache") == "HIT"
