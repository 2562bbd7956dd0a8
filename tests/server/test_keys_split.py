"""What makes two requests different ones, and what doesn't (SPEC 4); and what is never cached.

The upstream numbers its answers. A request that splits gets a number of its own.
"""

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


def without(name: str) -> Fields:
    return [field for field in BASE if field[0] != name]


SPLITTING: list[tuple[str, Fields]] = [
    ("/v1/messages", BASE),
    ("/v1/messages/count_tokens", BASE),
    ("/v1/messages?beta=true", BASE),
    ("/v1/messages?beta=false", BASE),
    ("/v1/messages?beta=true&x=1", BASE),
    ("/v1/messages/count_tokens?beta=true", BASE),
    ("/v1/messages", [*without("anthropic-version"), ("anthropic-version", "2023-01-01")]),
    ("/v1/messages", without("anthropic-version")),
    ("/v1/messages", [*BASE, ("anthropic-beta", "a")]),
    ("/v1/messages", [*BASE, ("anthropic-beta", "b")]),
    ("/v1/messages", [*BASE, ("anthropic-beta", "a"), ("anthropic-beta", "b")]),
    ("/v1/messages", [*BASE, ("anthropic-beta", "b"), ("anthropic-beta", "a")]),
    ("/v1/messages", [*BASE, ("anthropic-beta", "a"), ("anthropic-beta", "a")]),
    ("/v1/messages", [*BASE, ("anthropic-unheard-of", "1")]),
    ("/v1/messages", [*without("x-api-key"), ("x-api-key", "sk-ant-other")]),
    ("/v1/messages", [*without("x-api-key"), ("authorization", "Bearer sk-ant-test-key")]),
    ("/v1/messages", [*BASE, ("authorization", "Bearer token")]),
    ("/v1/messages", without("x-api-key")),
]


def test_no_two_requests_that_may_be_answered_differently_share_an_entry(
    numbered: Upstream, proxy: Any
) -> None:
    """BAR fault 2: path, query, `anthropic-beta` and `anthropic-version` aren't in the key."""
    one: Proxy = proxy()
    first = [post(one, target, fields) for target, fields in SPLITTING]
    assert [answer.header("x-cache") for answer in first] == ["MISS"] * len(SPLITTING)
    assert len({answer.header("x-cache-key") for answer in first}) == len(SPLITTING)
    again = [post(one, target, fields) for target, fields in SPLITTING]
    assert [answer.header("x-cache") for answer in again] == ["HIT"] * len(SPLITTING)
    assert [answer.body for answer in again] == [answer.body for answer in first]
    assert numbered.call_count == len(SPLITTING)
    # Nor do the further tiers mix them up.
    respelled = json.dumps(json.loads(ASKED), indent=1).encode()
    third = [post(one, target, fields, respelled) for target, fields in SPLITTING]
    assert [answer.header("x-cache") for answer in third] == ["HIT-NORM"] * len(SPLITTING)
    assert [answer.body for answer in third] == [answer.body for answer in first]


def test_every_byte_of_a_body_is_in_the_exact_key(numbered: Upstream, proxy: Any) -> None:
    one: Proxy = proxy(CACHE_NORMALIZE="off")
    bodies = [ASKED, ASKED + b" ", ASKED.replace(b'"Say', b'"say'), ASKED[:-1], b""]
    keys = {post(one, body=body).header("x-cache-key") for body in bodies}
    assert len(keys) == len(bodies)
    assert numbered.call_count == len(bodies)


CHANGES: list[dict[str, Any]] = [
    {"system": "be nice"},
    {"system": "be evil"},
    {"tools": [{"name": "t", "input_schema": {"type": "object"}}]},
    {"thinking": {"type": "enabled", "budget_tokens": 1024}},
    {"stop_sequences": ["x"]},
    {"temperature": 0.5},
    {"temperature": 0.5, "top_k": 1},
    {"max_tokens": 1025},
    {"model": "claude-opus-5"},
    {"stream": False},
    {"metadata": {"user_id": "u", "other": 1}},
    {"a parameter nobody has heard of yet": None},
]


def test_every_parameter_splits_every_tier(numbered: Upstream, proxy: Any) -> None:
    one: Proxy = proxy()
    post(one)
    for change in CHANGES:
        changed = wire.dump({**json.loads(ASKED), **change})
        assert post(one, body=changed).header("x-cache") == "MISS", change
    assert numbered.call_count == len(CHANGES) + 1


def test_what_says_nothing_about_the_answer_does_not_split(numbered: Upstream, proxy: Any) -> None:
    one: Proxy = proxy()
    first = post(one, fields=[*BASE, ("anthropic-beta", "a"), ("anthropic-feature", "b")])
    same: list[Fields] = [
        [*BASE, ("anthropic-feature", "b"), ("anthropic-beta", "a")],
        [("anthropic-beta", "a"), ("anthropic-feature", "b"), *reversed(BASE)],
        [*BASE, ("Anthropic-Beta", "a"), ("ANTHROPIC-FEATURE", "b")],
    ]
    noise = [
        ("user-agent", "Anthropic/Python 1.2.3"),
        ("accept", "application/json"),
        ("accept", "text/event-stream"),
        ("accept-language", "de"),
        ("accept-encoding", "gzip, zstd"),
        ("x-stainless-retry-count", "2"),
        ("x-stainless-lang", "python"),
        ("x-stainless-timeout", "600"),
        ("idempotency-key", "abc"),
        ("x-request-id", "123"),
        ("x-app", "cli"),
        ("cookie", "a=b"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("anthropic-dangerous-direct-browser-access", "true"),
        ("connection", "close"),
        ("te", "trailers"),
        ("cache-control", "max-age=60"),
        ("x-cache-mode", "cache"),
    ]
    beta = [("anthropic-beta", "a"), ("anthropic-feature", "b")]
    same += [[*BASE, *beta, one_more] for one_more in noise]
    same.append([*noise, *beta, *BASE])
    for fields in same:
        answer = post(one, fields=fields)
        assert (answer.header("x-cache"), answer.body) == ("HIT", first.body), fields
        assert answer.header("x-cache-key") == first.header("x-cache-key")
    assert numbered.call_count == 1


def test_a_shared_scope_ignores_whose_credentials_they_are(numbered: Upstream, proxy: Any) -> None:
    one: Proxy = proxy(CACHE_SCOPE="shared")
    post(one)
    for fields in (
        [*without("x-api-key"), ("x-api-key", "sk-ant-other")],
        [*without("x-api-key"), ("authorization", "Bearer of the next hour")],
        without("x-api-key"),
    ):
        assert post(one, fields=fields).header("x-cache") == "HIT"
    assert post(one, "/v1/messages?beta=true").header("x-cache") == "MISS"


def test_with_a_real_key_the_clients_own_one_is_neither_in_the_key_nor_forwarded(
    numbered: Upstream, proxy: Any
) -> None:
    one: Proxy = proxy(ANTHROPIC_API_KEY_REAL="sk-ant-real")
    post(one)
    assert post(one, fields=without("x-api-key")).header("x-cache") == "HIT"
    fields = [*without("x-api-key"), ("authorization", "Bearer anything")]
    assert post(one, fields=fields).header("x-cache") == "HIT"
    post(one, fields=[*fields, ("x-cache-mode", "fresh")])
    for call in numbered.calls:
        assert call.request.header("x-api-key") == "sk-ant-real"
        assert call.request.header("authorization") is None


def test_another_upstream_has_other_entries(numbered: Upstream, proxy: Any) -> None:
    first: Proxy = proxy()
    post(first)
    first.stop()
    moved: Proxy = proxy(CACHE_UPSTREAM_ANTHROPIC=f"{numbered.url}/gateway/")
    assert post(moved).header("x-cache") == "MISS"
    assert numbered.calls[-1].request.target == "/gateway/v1/messages"
    assert post(moved).header("x-cache") == "HIT"


def test_the_provider_prefix_is_another_way_to_the_same_entry(
    numbered: Upstream, proxy: Any
) -> None:
    one: Proxy = proxy()
    prefixed = post(one, "/anthropic/v1/messages?beta=true")
    assert numbered.calls[-1].request.target == "/v1/messages?beta=true"
    plain = post(one, "/v1/messages?beta=true")
    assert (plain.header("x-cache"), plain.body) == ("HIT", prefixed.body)
    assert plain.header("x-cache-key") == prefixed.header("x-cache-key")


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
