"""Which headers go upstream and which come back, field by field as the other side sees them.

BAR fault 8: llm-cache-proxy forwards its own `x-cache-auth`, cookies, `proxy-authorization` and
`te` upstream, and drops a client's `authorization`, so OAuth subscriptions can't work.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.anthropic_wire import MODEL, RESPONSE_HEADERS, message, request
from support.proxy import Proxy, anthropic_headers, running_proxy
from support.raw import RawConnection, Response, exchange
from support.replies import Gate, Reply, json_reply
from support.upstream import Request, Upstream

REAL_KEY = "sk-ant-real-1111"

# What a real client sends, in its order, with a header twice and one of odd bytes.
CLIENT = [
    ("host", "localhost"),
    ("accept", "application/json"),
    ("anthropic-version", "2023-06-01"),
    ("anthropic-beta", "prompt-caching-2024-07-31"),
    ("anthropic-beta", "context-1m-2025-08-07"),
    ("user-agent", "claude-cli/2.1.63 (external, cli)"),
    ("x-app", "cli"),
    ("x-stainless-retry-count", "0"),
    ("x-odd", 'a "b"; c, d \xe9\xff'),
    ("x-empty", ""),
    ("x-api-key", "sk-ant-mine"),
    ("content-type", "application/json; charset=utf-8"),
    ("x-forwarded-for", "203.0.113.7"),
    ("via", "1.1 office"),
    ("referer", "http://localhost/"),
]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Proxy, Upstream]]:
    """A proxy that passes clients' credentials through."""
    home = tmp_path_factory.mktemp("headers") / "home"
    with (
        Upstream(json_reply(message())) as upstream,
        running_proxy(home, {"CACHE_UPSTREAM_ANTHROPIC": upstream.url}) as proxy,
    ):
        yield proxy, upstream


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Proxy, Upstream]]:
    """A proxy with a real key."""
    home = tmp_path_factory.mktemp("keyed") / "home"
    with Upstream(json_reply(message())) as upstream:
        settings = {
            "CACHE_UPSTREAM_ANTHROPIC": upstream.url,
            "ANTHROPIC_API_KEY_REAL": REAL_KEY,
        }
        with running_proxy(home, settings) as proxy:
            yield proxy, upstream


def forwarded(
    target: tuple[Proxy, Upstream],
    fields: list[tuple[str, str]],
    path: str = "/v1/messages",
    mode: str | None = "fresh",
) -> Request:
    """What upstream got of a POST with exactly these headers (and our mode)."""
    proxy, upstream = target
    calls = upstream.call_count
    asked = [*fields, ("x-cache-mode", mode)] if mode else fields
    answer = exchange(proxy.port, "POST", path, asked, request())
    assert answer.status == 200, answer.body
    return upstream.wait_for_calls(calls + 1)[calls].request


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/batches"])
def test_a_clients_headers_arrive_in_order_and_untouched(
    served: tuple[Proxy, Upstream], path: str
) -> None:
    """Cached or passed through; duplicates stay two fields."""
    got = forwarded(served, CLIENT, path).headers
    ours = {"host", "content-length"}
    assert [field for field in got if field[0] not in ours] == [
        field for field in CLIENT if field[0] not in ours
    ]
    assert [value for name, value in got if name == "host"] == [f"127.0.0.1:{served[1].port}"]
    assert [value for name, value in got if name == "content-length"] == [str(len(request()))]


HOP_BY_HOP = [
    ("connection", "keep-alive, X-Hop, close-notify"),
    ("keep-alive", "timeout=5"),
    ("te", "trailers"),
    ("trailer", "x-checksum"),
    ("upgrade", "h2c"),
    ("proxy-authorization", "Basic c2VjcmV0"),
    ("proxy-authenticate", "Basic"),
    ("proxy-connection", "keep-alive"),
    ("x-hop", "listed by connection"),
    ("close-notify", "listed by connection too"),
]
OWN = [
    ("x-cache-auth", "a token of nobody's"),
    ("x-cache-mode", "fresh"),
    ("x-cache-ttl", "60"),
    ("x-cache-namespace", "evals"),
    ("x-cache-sample", "3"),
    ("x-cache-bypass", "0"),
    ("x-cache-anything", "else"),
    ("x-cache", "HIT"),
    ("x-stasis-mode", "cache"),
    ("cookie", "session=mine; other=too"),
    ("cookie", "and=more"),
    ("expect", "100-continue"),
]


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/files"])
def test_what_ends_at_the_proxy_does(served: tuple[Proxy, Upstream], path: str) -> None:
    """Hop-by-hop fields (RFC 9110, 7.6.1), those `connection` lists, the proxy's own, cookies."""
    fields = [*anthropic_headers(), ("x-kept", "yes"), *HOP_BY_HOP, *OWN]
    got = forwarded(served, fields, path, mode=None)
    names = {name for name, _ in got.headers}
    dropped = {name for name, _ in (*HOP_BY_HOP, *OWN)}
    assert names & dropped <= {"connection"}
    assert got.header("connection") in (None, "keep-alive")  # httpx's own, of its own hop
    assert got.header("x-kept") == "yes"
    assert b"secret" not in got.head
    assert b"session" not in got.head


def test_fields_that_connection_lists_may_not_be_the_ones_that_matter(
    served: tuple[Proxy, Upstream],
) -> None:
    """A client that lists its own key takes it out: as RFC 9110 says, and no more than that."""
    fields = [*anthropic_headers(), ("connection", "x-api-key, content-length, host, close")]
    got = forwarded(served, fields)
    assert got.header("x-api-key") is None
    assert got.header("content-length") == str(len(request()))
    assert got.header("host") == f"127.0.0.1:{served[1].port}"


@pytest.mark.parametrize(
    ("sent", "arrives"),
    [
        ("gzip, deflate, br, zstd", ("gzip", "deflate", "zstd")),
        ("br", ("identity",)),
        ("identity", ("identity",)),
        ("gzip;q=1.0, br;q=0.5, *;q=0", ("gzip",)),
    ],
)
def test_of_a_cached_call_only_codings_we_can_read_are_accepted(
    served: tuple[Proxy, Upstream], sent: str, arrives: tuple[str, ...]
) -> None:
    got = forwarded(served, [*anthropic_headers(), ("accept-encoding", sent)])
    value = got.header("accept-encoding") or ""
    codings = [part.partition(";")[0].strip() for part in value.split(",")]
    assert set(arrives) <= set(codings)
    assert "br" not in codings or "br;q=0" in value.replace(" ", "")
    passed = forwarded(served, [*anthropic_headers(), ("accept-encoding", sent)], "/v1/files")
    assert passed.header("accept-encoding") == sent


def test_nothing_is_added(served: tuple[Proxy, Upstream]) -> None:
    """No accept-encoding, user-agent, via or x-forwarded-for the client didn't send."""
    got = forwarded(served, [("x-api-key", "sk"), ("anthropic-version", "2023-06-01")])
    assert {name for name, _ in got.headers} <= {
        "host",
        "content-length",
        "x-api-key",
        "anthropic-version",
    }


def test_an_oauth_bearer_passes_when_there_is_no_real_key(
    served: tuple[Proxy, Upstream],
) -> None:
    """BAR fault 8: subscriptions work through the proxy."""
    fields = [("authorization", "Bearer sk-ant-oat01-mine"), ("anthropic-version", "2023-06-01")]
    for path in ("/v1/messages", "/v1/files"):
        got = forwarded(served, fields, path)
        assert got.header("authorization") == "Bearer sk-ant-oat01-mine"
        assert got.header("x-api-key") is None
    both = forwarded(served, [*fields, ("x-api-key", "sk-ant-mine")])
    assert both.header("authorization") == "Bearer sk-ant-oat01-mine"
    assert both.header("x-api-key") == "sk-ant-mine"


@pytest.mark.parametrize(
    "credentials",
    [
        [],
        [("x-api-key", "sk-ant-mine")],
        [("authorization", "Bearer sk-ant-oat01-mine")],
        [("x-api-key", "sk-ant-mine"), ("authorization", "Bearer sk-ant-oat01-mine")],
        [("x-api-key", "one"), ("x-api-key", "two")],
        [("X-API-KEY", "odd case")],
    ],
)
def test_a_real_key_stands_in_for_whatever_the_client_has(
    keyed: tuple[Proxy, Upstream], credentials: list[tuple[str, str]]
) -> None:
    for path in ("/v1/messages", "/v1/files"):
        got = forwarded(keyed, [("anthropic-version", "2023-06-01"), *credentials], path)
        assert [value for name, value in got.headers if name == "x-api-key"] == [REAL_KEY]
        assert got.header("authorization") is None
        assert b"mine" not in got.head


# Answers

ASK = request("Join me")


def ask(proxy: Proxy, prompt: str, path: str = "/v1/messages") -> Response:
    return exchange(proxy.port, "POST", path, anthropic_headers(), request(prompt))


UPSTREAM_SAYS = [
    *RESPONSE_HEADERS,
    ("date", "Mon, 02 Jan 2006 15:04:05 GMT"),
    ("age", "999"),
    ("set-cookie", "__cf_bm=one; path=/"),
    ("set-cookie", "other=two"),
    ("x-cache", "HIT"),
    ("x-cache-key", "f" * 64),
    ("x-cache-hits", "7"),
    ("connection", "keep-alive, x-hop-answer"),
    ("keep-alive", "timeout=300"),
    ("x-hop-answer", "listed"),
    ("proxy-authenticate", "Basic"),
    ("proxy-status", "edge"),
    ("trailer", "x-sum"),
    ("upgrade", "h3"),
    ("vary", "Accept-Encoding"),
    ("vary", "Origin"),
]
HOP_ANSWERS = {"keep-alive", "x-hop-answer", "proxy-authenticate", "trailer", "upgrade"}


def test_what_a_miss_a_hit_and_a_passed_answer_carry(served: tuple[Proxy, Upstream]) -> None:
    """SPEC 5.3 and 5.10. An upstream's own `x-cache` (a CDN's) can't pose as ours."""
    proxy, upstream = served
    reply = json_reply(message(), headers=tuple(UPSTREAM_SAYS))
    upstream.script(reply, reply)
    miss, hit = ask(proxy, "Headers back"), ask(proxy, "Headers back")
    passed = ask(proxy, "Headers back", "/v1/files")
    labels = [answer.header("x-cache") for answer in (miss, hit, passed)]
    assert labels == ["MISS", "HIT", "PASS"]
    for answer in (miss, hit, passed):
        names = {name for name, _ in answer.headers}
        assert not names & HOP_ANSWERS
        assert answer.header("connection") is None
        assert answer.header("x-cache-hits") is None
        assert answer.header("x-cache-key") != "f" * 64
        for name, value in RESPONSE_HEADERS:
            assert answer.header(name) == value
        varied = [value for name, value in answer.headers if name == "vary"]
        assert varied == ["Accept-Encoding", "Origin"]
    assert [value for name, value in miss.headers if name == "set-cookie"] == [
        "__cf_bm=one; path=/",
        "other=two",
    ]
    assert miss.header("date") == "Mon, 02 Jan 2006 15:04:05 GMT"
    assert miss.header("age") == "999"
    # A hit says when it was sent and how old it is.
    assert hit.header("set-cookie") is None
    assert hit.header("date") not in (None, miss.header("date"))
    assert 0 <= int(hit.header("age") or -1) < 60
    assert hit.header("x-cache-key") == miss.header("x-cache-key")


def test_who_joins_a_call_does_not_get_the_other_clients_cookie(
    served: tuple[Proxy, Upstream],
) -> None:
    proxy, upstream = served
    gate = Gate()
    body = message()
    upstream.script(
        Reply(
            headers=(("content-type", "application/json"), ("set-cookie", "who=leader")),
            body=(body[:10], gate, body[10:]),
        )
    )
    calls = upstream.call_count
    with RawConnection(proxy.port) as leader, RawConnection(proxy.port) as joiner:
        first = leader.request("POST", "/v1/messages", anthropic_headers(), ASK)
        gate.wait_reached()
        second = joiner.request("POST", "/v1/messages", anthropic_headers(), ASK)
        gate.release()
        assert first.read_all() == second.read_all() == body
    assert upstream.call_count == calls + 1
    assert second.header("x-cache") == "HIT-COALESCED"
    assert first.header("set-cookie") == "who=leader"
    assert second.header("set-cookie") is None


def test_an_upstream_without_a_date_gets_one(served: tuple[Proxy, Upstream]) -> None:
    """RFC 9110, 6.6.1; one that has its own keeps it, and none is sent twice."""
    proxy, _ = served
    assert MODEL.encode() in ask(proxy, "No date").body
    for prompt in ("No date", "No date either"):
        dates = [value for name, value in ask(proxy, prompt).headers if name == "date"]
        assert len(dates) == 1


def test_names_of_hypercorn_and_httpx_are_not_shown(served: tuple[Proxy, Upstream]) -> None:
    proxy, _ = served
    for path in ("/health", "/nowhere"):
        answer = exchange(proxy.port, "GET", path)
        assert answer.header("server") is None
        assert b"hypercorn" not in answer.head.lower()
